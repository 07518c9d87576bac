//! How long to wait before the next attempt: longer each time, and never in step with others.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// Exponential back-off with jitter: 100 ms, doubling, at most 5 s, each less up to a half.
#[derive(Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// How many waits there were.
    pub(super) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let longest = FIRST.saturating_mul(1 << self.attempts.min(16)).min(LONGEST);
        self.attempts += 1;
        // The standard library seeds its hashers at random, and that is enough to fall out of step.
        let thousandths = RandomState::new().hash_one(self.attempts) % 500;
        longest - longest * thousandths as u32 / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_a_bound_and_is_jittered() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..40).map(|_| backoff.next()).collect();
        assert!(waits[0] > FIRST / 2 && waits[0] <= FIRST);
        assert!(waits[10..].iter().all(|wait| *wait > LONGEST / 2 && *wait <= LONGEST));
        assert!(waits[10..].windows(2).any(|pair| pair[0] != pair[1]));
    }
}
