//! The order in which what waits gets room: by priority, which age raises a little, and then by age.

use std::cmp::{Ordering, Reverse};

use serde::{Deserialize, Serialize};

/// Waiting so long raises a rank by one, ms,
const AGEING_MS: u64 = 300_000;
/// at most so often: never as far as priorities that may preempt one another lie apart.
const AGED_MAX: u64 = 9;

/// A place among what waits: the least goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rank {
    /// The priority, raised by age.
    pub level: i32,
    /// Wall clock, ms: since when it waits.
    pub since: u64,
}

impl Rank {
    /// The rank of work of this priority that has waited since then.
    pub fn of(priority: i32, since: u64, now_wall: u64) -> Self {
        let aged = (now_wall.saturating_sub(since) / AGEING_MS).min(AGED_MAX);
        Self { level: priority.saturating_add(aged as i32), since }
    }
}

impl Ord for Rank {
    fn cmp(&self, other: &Self) -> Ordering {
        (Reverse(self.level), self.since).cmp(&(Reverse(other.level), other.since))
    }
}

impl PartialOrd for Rank {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priority_goes_first_then_age_and_age_never_preempts() {
        let now = 10_000_000;
        let rank = |priority, minutes: u64| Rank::of(priority, now - minutes * 60_000, now);
        assert!(rank(10, 0) < rank(0, 60));
        assert!(rank(0, 2) < rank(0, 1));
        assert!(rank(0, 11) < rank(1, 0), "two rises overtake one step");
        assert_eq!(rank(0, 160).level, 9);
        assert_eq!(Rank::of(0, now + 5, now).level, 0, "a clock that is ahead");
    }
}
