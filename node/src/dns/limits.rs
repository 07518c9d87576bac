//! How much one asker may ask of the world: questions that are passed on, by address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// So many questions may come at once, and so many a second after that.
const BURST: f64 = 1_000.0;
const PER_SECOND: f64 = 500.0;
/// The most askers that are remembered: a machine has no more tasks.
const ASKERS_MAX: usize = 4_096;
/// Who has asked nothing for so long has its whole burst again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2);

/// Token buckets, one for each asker.
#[derive(Debug, Default)]
pub struct Limits(HashMap<IpAddr, (f64, Instant)>);

impl Limits {
    /// Whether one more of this asker's is passed on.
    pub fn allow(&mut self, asker: IpAddr, now: Instant) -> bool {
        if self.0.len() >= ASKERS_MAX && !self.0.contains_key(&asker) {
            self.0.retain(|_, (_, last)| now.saturating_duration_since(*last) < FORGOTTEN_AFTER);
            if self.0.len() >= ASKERS_MAX {
                return false;
            }
        }
        let (left, last) = self.0.entry(asker).or_insert((BURST, now));
        *left = (*left + now.saturating_duration_since(*last).as_secs_f64() * PER_SECOND).min(BURST);
        *last = now;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn one_asker_does_not_take_what_is_anothers() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        let (greedy, modest) = (Ipv4Addr::new(10, 0, 0, 1).into(), Ipv4Addr::new(10, 0, 0, 2).into());
        assert_eq!((0..2_000).filter(|_| limits.allow(greedy, now)).count(), 1_000);
        assert!(limits.allow(modest, now));
        let later = now + Duration::from_secs(1);
        assert_eq!((0..2_000).filter(|_| limits.allow(greedy, later)).count(), 500);
    }

    #[test]
    fn askers_are_bounded() {
        let (mut limits, now) = (Limits::default(), Instant::now());
        let asked = (0..10_000u32).filter(|n| limits.allow(Ipv4Addr::from(*n).into(), now)).count();
        assert_eq!(asked, ASKERS_MAX);
        assert!(limits.allow(Ipv4Addr::new(1, 1, 1, 1).into(), now + FORGOTTEN_AFTER));
    }
}
