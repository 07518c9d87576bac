//! Amounts and times as people read and write them.

use std::time::Duration;

use jiff::Timestamp;

/// Bytes in the largest unit that leaves a whole part: `64 MiB`, `1.5 GiB`.
pub fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    let mut rest = bytes as f64;
    while rest >= 1024.0 && unit + 1 < units.len() {
        rest /= 1024.0;
        unit += 1;
    }
    let shown = format!("{rest:.1}");
    format!("{} {}", shown.strip_suffix(".0").unwrap_or(&shown), units[unit])
}

/// Thousandths of a core as cores: `0.5`, `2`.
pub fn cores(millis: u64) -> String {
    let shown = format!("{}.{:03}", millis / 1000, millis % 1000);
    shown.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// An exit code, with the signal that it stands for: `1`, `143, SIGTERM`.
pub fn exit(code: i32) -> String {
    match nix::sys::signal::Signal::try_from(code.wrapping_sub(128)) {
        Ok(signal) if code > 128 => format!("{code}, {}", signal.as_str()),
        _ => code.to_string(),
    }
}

/// Seconds in one or two units: `42s`, `7m`, `3h`, `5d`.
pub fn seconds(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The age of something at `now` (ms since 1970, the answering peer's clock); `None` where the time is
/// no RFC 3339.
pub fn age(at: &str, now: u64) -> Option<String> {
    let at = at.parse::<Timestamp>().ok()?.as_millisecond();
    let now = i64::try_from(now).ok()?;
    // The clocks of two machines may differ: nothing is younger than new.
    Some(seconds(u64::try_from(now.saturating_sub(at)).unwrap_or(0) / 1000))
}

/// A moment as people name one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long ago.
    Ago(Duration),
    /// Milliseconds since 1970.
    At(u64),
}

impl Moment {
    /// Milliseconds since 1970, where it is `now`.
    pub fn ms(self, now: u64) -> u64 {
        match self {
            Moment::Ago(ago) => now.saturating_sub(ago.as_millis() as u64),
            Moment::At(ms) => ms,
        }
    }
}

/// Reads `10m` (ago), an RFC 3339 time, or seconds since 1970.
///
/// # Errors
///
/// A sentence that says what is expected.
pub fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Moment::At(seconds.saturating_mul(1000)));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Moment::At(u64::try_from(at.as_millisecond()).unwrap_or(0)));
    }
    let wrong = |_| format!("'{text}' is no time; write for example 10m, or 2026-11-22T10:00:00Z");
    duration(text).map(Moment::Ago).map_err(wrong)
}

/// Milliseconds since 1970 as RFC 3339.
pub fn stamp(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| ms.to_string(), |at| format!("{at:.3}"))
}

/// Reads `30s`, `5m`, `24h`, `7d`, `500ms`, `1h30m`.
///
/// # Errors
///
/// A sentence that says what is expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is no time; write for example 30s, 5m or 24h");
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, behind) = rest.split_at(digits);
        let letters = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let unit = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let ms = number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).ok_or_else(wrong)?;
        total = total.checked_add(ms).ok_or_else(wrong)?;
        rest = behind;
    }
    match total {
        0 => Err(wrong()),
        // A year: longer is a mistake, and deadlines never overflow.
        ms if ms > 366 * 86_400_000 => Err(format!("'{text}' is longer than a year")),
        ms => Ok(Duration::from_millis(ms)),
    }
}

/// `1 task`, `2 tasks`.
pub fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        for (size, shown) in
            [(0, "0 B"), (1023, "1023 B"), (64 << 20, "64 MiB"), (3 << 29, "1.5 GiB"), (u64::MAX, "16 EiB")]
        {
            assert_eq!(bytes(size), shown);
        }
        for (millis, shown) in [(0, "0"), (500, "0.5"), (2000, "2"), (1250, "1.25"), (10_000, "10")] {
            assert_eq!(cores(millis), shown);
        }
    }

    #[test]
    fn moments_are_ages_or_times() {
        assert_eq!(moment("10m"), Ok(Moment::Ago(Duration::from_secs(600))));
        assert_eq!(moment("2026-01-01T00:00:00Z"), Ok(Moment::At(1_767_225_600_000)));
        assert_eq!(moment("1767225600"), Ok(Moment::At(1_767_225_600_000)));
        assert_eq!(Moment::Ago(Duration::from_secs(2)).ms(5_000), 3_000);
        assert_eq!(stamp(1_767_225_600_250), "2026-01-01T00:00:00.250Z");
        assert!(moment("yesterday").is_err());
        assert_eq!((exit(1).as_str(), exit(143).as_str()), ("1", "143, SIGTERM"));
    }

    #[test]
    fn ages_are_short() {
        let now = "2026-01-01T00:10:00Z".parse::<Timestamp>().unwrap().as_millisecond() as u64;
        assert_eq!(age("2026-01-01T00:09:30Z", now).as_deref(), Some("30s"));
        assert_eq!(age("2026-01-01T00:00:00.5Z", now).as_deref(), Some("9m"));
        assert_eq!(age("2025-12-25T00:00:00Z", now).as_deref(), Some("7d"));
        assert_eq!(age("2026-02-01T00:00:00Z", now).as_deref(), Some("0s"));
        assert_eq!(age("yesterday", now), None);
    }

    #[test]
    fn times_are_read() {
        for (text, ms) in [
            ("30s", 30_000),
            ("5m", 300_000),
            ("24h", 86_400_000),
            ("7d", 604_800_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "0s", "30", "s", "-1s", "1.5h", "1 s", "9999999999999999999s", "3s4", "2y", "999d", "½h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
