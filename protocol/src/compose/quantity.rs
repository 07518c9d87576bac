//! Amounts as people write them: cores and bytes.

/// The most cores that one task can ask for.
const CPUS_MAX: u64 = 100_000;

/// Cores as Compose writes them (`2`, `0.5`, `.25`), in thousandths. Finer parts than thousandths are
/// refused rather than rounded away.
///
/// # Errors
///
/// A sentence that says what is expected.
pub fn cpus(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{}' is no number of cores; write for example 0.5 or 2", shown(text));
    let (whole, part) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && part.is_empty()) || !digits(whole) || !digits(part) || whole.len() > 9 || part.len() > 9 {
        return Err(wrong());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let part = part.trim_end_matches('0');
    if part.len() > 3 {
        return Err(format!("'{}' is finer than a thousandth of a core", shown(text)));
    }
    let millis: u64 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    match whole * 1000 + millis {
        0 => Err("0 cores are too few; leave the key out for no limit".into()),
        _ if whole >= CPUS_MAX => Err(format!("more than {CPUS_MAX} cores")),
        millis => Ok(millis),
    }
}

/// A size in bytes: a number with `b`, `k`, `m`, `g`, `t` (powers of 1024), as in Compose, also as
/// `kb`, `KiB` and so on; a number alone is bytes. `1.5g` is a size, too.
///
/// # Errors
///
/// A sentence that says what is expected.
pub fn memory(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{}' is no size; write for example 512m, 2g or 16GiB", shown(text));
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit: u128 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && part.is_empty()) || part.contains('.') || whole.len() > 18 || part.len() > 12 {
        return Err(wrong());
    }
    let parse = |s: &str| if s.is_empty() { Ok(0) } else { s.parse::<u128>().map_err(|_| wrong()) };
    let bytes = parse(whole)? * unit + parse(part)? * unit / 10u128.pow(part.len() as u32);
    match u64::try_from(bytes) {
        Ok(0) => Err("a size of 0 is too small; leave the key out for no limit".into()),
        // Wire and disk keep sizes as signed numbers here and there; nothing real comes near.
        Ok(bytes) if bytes <= i64::MAX as u64 => Ok(bytes),
        _ => Err(format!("'{}' is more than any machine has", shown(text))),
    }
}

/// Less than this no container starts in.
const MEMORY_LIMIT_MIN: u64 = 6 << 20;
/// The kernel's quota is no finer.
const CPU_LIMIT_MIN: u64 = 10;

/// A limit on cores: as [`cpus`], and at least what a container needs to start.
///
/// # Errors
///
/// A sentence that says what is expected.
pub fn cpus_limit(text: &str) -> Result<u64, String> {
    cpus(text).and_then(|millis| at_least(CPU_LIMIT_MIN, "0.01 cores", millis))
}

/// A limit on memory: as [`memory`], and at least what a container needs to start.
///
/// # Errors
///
/// A sentence that says what is expected.
pub fn memory_limit(text: &str) -> Result<u64, String> {
    memory(text).and_then(|bytes| at_least(MEMORY_LIMIT_MIN, "6 MiB", bytes))
}

fn at_least(least: u64, name: &str, amount: u64) -> Result<u64, String> {
    if amount < least { Err(format!("a limit below {name} lets nothing start")) } else { Ok(amount) }
}

/// Text from outside, short enough for a message and without control characters.
pub fn shown(text: &str) -> String {
    let mut short: String = text.chars().take(60).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(60).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_read_in_thousandths() {
        for (text, millis) in
            [("1", 1000), ("0.5", 500), (".25", 250), ("2.", 2000), ("0.001", 1), ("0.50000", 500), ("12.345", 12345)]
        {
            assert_eq!(cpus(text), Ok(millis), "{text}");
        }
        for text in ["", ".", "0", "0.0", "-1", "1e3", "0.0005", "one", "1,5", "100000", "99999999999999999999", "½"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, bytes) in [
            ("1", 1),
            ("10b", 10),
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("2g", 2 << 30),
            ("16GiB", 16 << 30),
            ("1.5g", 3 << 29),
            ("64 MiB", 64 << 20),
            ("1tb", 1 << 40),
        ] {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", ".", "0", "0m", "-5m", "5x", "1.2.3m", "1e9", "999999999999999999t", "٣m"] {
            assert!(memory(text).is_err(), "{text}");
        }
    }
}
