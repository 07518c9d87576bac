//! Amounts, dimensions and times in words.

use crate::model::resources::{CPU_MILLIS, GPU_SHARE, GPU_WHOLE, GPUS, MEMORY_BYTES, PORT_PREFIX};

/// A dimension as people call it.
pub(crate) fn dimension(name: &str) -> String {
    match name {
        CPU_MILLIS => "cpu".into(),
        MEMORY_BYTES => "memory".into(),
        GPUS => "GPUs".into(),
        GPU_SHARE => "GPU".into(),
        other => match other.strip_prefix(PORT_PREFIX) {
            Some(port) => format!("port {port}"),
            None => other.into(),
        },
    }
}

/// An amount of a dimension: `1.5 GiB`, `0.5 cores`, `2 GPUs`.
pub(crate) fn amount(name: &str, amount: u64) -> String {
    match name {
        CPU_MILLIS => format!("{} core{}", thousandths(amount), if amount == 1000 { "" } else { "s" }),
        MEMORY_BYTES => bytes(amount),
        GPUS => format!("{amount} GPU{}", if amount == 1 { "" } else { "s" }),
        GPU_SHARE => format!("{} of a GPU", thousandths(amount * 1000 / GPU_WHOLE)),
        _ => amount.to_string(),
    }
}

/// An amount with what it is of: `1.5 GiB of memory`, `2 GPUs`, `3 of licence`.
pub(crate) fn of(name: &str, n: u64) -> String {
    match name {
        CPU_MILLIS | GPUS | GPU_SHARE => amount(name, n),
        other => format!("{} of {}", amount(other, n), dimension(other)),
    }
}

/// A time, ms: `850 ms`, `4 s`, `3 min`.
pub(crate) fn time(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..120_000 => format!("{} s", ms.div_ceil(1000)),
        120_000..7_200_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h", ms / 3_600_000),
    }
}

/// `1 task`, `2 tasks`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn thousandths(amount: u64) -> String {
    let shown = format!("{}.{:03}", amount / 1000, amount % 1000);
    shown.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// In the largest unit that leaves a whole part.
fn bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (bytes.max(1).ilog2() / 10) as usize;
    let hundredths = (u128::from(bytes) * 100) >> (10 * unit);
    let shown = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    format!("{} {}", shown.trim_end_matches('0').trim_end_matches('.'), units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        for (name, n, said) in [
            (CPU_MILLIS, 1_000, "1 core"),
            (CPU_MILLIS, 250, "0.25 cores"),
            (MEMORY_BYTES, 2 << 30, "2 GiB"),
            (MEMORY_BYTES, 3 << 29, "1.5 GiB"),
            (MEMORY_BYTES, 0, "0 B"),
            (MEMORY_BYTES, u64::MAX, "15.99 EiB"),
            (MEMORY_BYTES, 1500 << 20, "1.46 GiB"),
            (GPUS, 1, "1 GPU"),
            (GPU_SHARE, 250, "0.25 of a GPU"),
            ("licence", 3, "3"),
        ] {
            assert_eq!(amount(name, n), said);
        }
        for (ms, said) in
            [(0, "0 ms"), (999, "999 ms"), (1_001, "2 s"), (180_000, "3 min"), (u64::MAX, "5124095576030 h")]
        {
            assert_eq!(time(ms), said);
        }
    }
}
