//! The two clocks that a brain is given.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use rialto_protocol::Now;

/// The time: since boot, suspended time included, and by the wall.
pub fn now() -> Now {
    let boot = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has a boot-time clock");
    let ms = boot.tv_sec() as u64 * 1_000 + boot.tv_nsec() as u64 / 1_000_000;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    Now { ms, wall }
}

/// Waits until a time of [`Now::ms`]; without one, for ever.
pub async fn sleep_until(deadline_ms: Option<u64>) {
    match deadline_ms {
        None => std::future::pending().await,
        // The clock is cut to whole milliseconds, so what is left is never too short.
        Some(at) => match at.saturating_sub(now().ms) {
            0 => (),
            left => tokio::time::sleep(Duration::from_millis(left)).await,
        },
    }
}
