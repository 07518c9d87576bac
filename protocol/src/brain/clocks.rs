//! How far the neighbours' wall clocks are off, as this peer judges by its own.
//!
//! A heartbeat carries its sender's clocks, and returns the last stamp that came from its receiver with
//! the time for which it was kept. So whoever gets it knows how long both ways took together, takes half
//! of that for the way back, and compares. (As NTP does, RFC 5905: of some samples the one whose way was
//! the shortest is the best.)

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::Brain;
use crate::event::Now;
use crate::ids::PeerId;

/// The best of so many samples counts.
const SAMPLES: usize = 8;
/// A way that took longer than this tells nothing, ms.
const WAY_MS_MAX: u64 = 10_000;

/// What most clocks show, where it differs by less than this, is what one's own shows, ms.
const ALIKE_MS: u64 = 1_000;

/// The clocks of a heartbeat's sender when it was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp(
    /// Its wall clock, ms since 1970.
    pub u64,
    /// Its monotonic clock, ms: means something to itself alone.
    pub u64,
    /// The receiver's own monotonic clock as it came last, and for how long that was kept, ms.
    pub Option<(u64, u64)>,
);

/// What is known of one neighbour's clock.
#[derive(Debug, Default)]
struct Clock {
    /// Its monotonic stamp that came last, and when.
    last: Option<(u64, u64)>,
    /// How long both ways took, and how far its clock is ahead, ms.
    samples: VecDeque<(u64, i64)>,
}

/// The clocks of those with whom heartbeats are exchanged.
#[derive(Debug, Default)]
pub(crate) struct Clocks(BTreeMap<PeerId, Clock>);

impl Clocks {
    /// What a heartbeat to this peer carries.
    pub fn stamp(&self, now: Now, to: &PeerId) -> Stamp {
        let last = self.0.get(to).and_then(|clock| clock.last);
        Stamp(now.wall, now.ms, last.map(|(stamp, came_ms)| (stamp, now.ms.saturating_sub(came_ms))))
    }

    /// A heartbeat came.
    pub fn heard(&mut self, now: Now, from: PeerId, stamp: &Stamp) {
        let clock = self.0.entry(from).or_default();
        clock.last = Some((stamp.1, now.ms));
        let ways = stamp.2.and_then(|(sent_ms, kept_ms)| now.ms.checked_sub(sent_ms)?.checked_sub(kept_ms));
        if let Some(ways_ms) = ways.filter(|ms| *ms <= WAY_MS_MAX) {
            let there = stamp.0.saturating_add(ways_ms / 2);
            if clock.samples.len() == SAMPLES {
                clock.samples.pop_front();
            }
            let ms = |wall: u64| i64::try_from(wall).unwrap_or(i64::MAX);
            clock.samples.push_back((ways_ms, ms(there).saturating_sub(ms(now.wall))));
        }
    }

    /// The link is gone, and what was known over it grows old.
    pub fn forget(&mut self, peer: &PeerId) {
        self.0.remove(peer);
    }

    /// How far a neighbour's wall clock is ahead of this peer's, ms; `None`: it was not measured.
    pub fn offset_ms(&self, of: &PeerId) -> Option<i64> {
        let samples = self.0.get(of)?.samples.iter();
        // Of equally short ways the last.
        samples.rev().min_by_key(|(ways_ms, _)| *ways_ms).map(|(_, offset_ms)| *offset_ms)
    }

    /// How far what most neighbours' clocks show is ahead of this peer's, ms: the middle of all, its own among them.
    pub fn majority_ms(&self) -> i64 {
        let mut all: Vec<i64> = self.0.keys().filter_map(|peer| self.offset_ms(peer)).chain([0]).collect();
        all.sort_unstable();
        let middle = [all[(all.len() - 1) / 2], all[all.len() / 2]];
        let offset = middle.into_iter().min_by_key(|offset| offset.unsigned_abs()).unwrap_or(0);
        if offset.unsigned_abs() < ALIKE_MS { 0 } else { offset }
    }
}

impl Brain {
    /// The time by most neighbours' wall clocks: when something is due must not hang on one clock that is off.
    pub(crate) fn civil_now(&self) -> Now {
        Now { wall: self.now.wall.saturating_add_signed(self.clocks.majority_ms()), ..self.now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PeerId = PeerId([1; 32]);
    const OTHER: PeerId = PeerId([2; 32]);

    /// Beats go both ways each second and take `there` and `back` ms; the other's clock is `ahead` ms.
    fn measured(ahead: i64, ways: &[(u64, u64)]) -> Option<i64> {
        let one_now = |ms: u64| Now { ms, wall: 1_700_000_000_000 + ms };
        let other_now = |ms: u64| Now { ms: ms + 77_777, wall: (1_700_000_000_000 + ms as i64 + ahead) as u64 };
        let (mut one, mut other) = (Clocks::default(), Clocks::default());
        for (nth, (there, back)) in ways.iter().enumerate() {
            let at = 1000 * nth as u64;
            let stamp = one.stamp(one_now(at), &OTHER);
            other.heard(other_now(at + there), ONE, &stamp);
            let stamp = other.stamp(other_now(at + 500), &ONE);
            one.heard(one_now(at + 500 + back), OTHER, &stamp);
        }
        one.offset_ms(&OTHER)
    }

    #[test]
    fn an_offset_is_found_and_the_ways_are_taken_off() {
        assert_eq!(measured(0, &[(20, 20)]), Some(0));
        assert_eq!(measured(3_600_000, &[(20, 20); 3]), Some(3_600_000));
        assert_eq!(measured(-45_000, &[(1, 1); 20]), Some(-45_000));
    }

    #[test]
    fn a_way_that_was_long_once_does_not_count() {
        assert_eq!(measured(5000, &[(400, 10), (10, 10), (10, 450), (300, 10)]), Some(5000));
    }

    #[test]
    fn most_clocks_are_right() {
        let wall = |ahead: i64| (1_700_000_000_000 + ahead) as u64;
        for (others, majority) in [
            (vec![], 0),
            (vec![3_600_000], 0),
            (vec![3_600_000, 3_600_200], 3_600_000),
            (vec![3_600_000, 10], 0),
            (vec![-90_000, -90_000, -90_000, 5], -90_000),
            (vec![400, 600, 700], 0),
        ] {
            let mut clocks = Clocks::default();
            for (nth, ahead) in others.iter().enumerate() {
                let now = Now { ms: 1_000, wall: wall(0) };
                clocks.heard(now, PeerId([nth as u8; 32]), &Stamp(wall(*ahead), 7, Some((1_000, 0))));
            }
            assert_eq!(clocks.majority_ms(), majority, "{others:?}");
        }
    }

    #[test]
    fn what_was_not_measured_has_no_offset() {
        assert_eq!(measured(0, &[]), None);
        let mut one = Clocks::default();
        let now = Now { ms: 5, wall: 5 };
        // Stamps that never were, or of an earlier life of this peer.
        for stamp in [Stamp(u64::MAX, 0, Some((u64::MAX, 0))), Stamp(0, 0, Some((3, 9))), Stamp(1, 1, None)] {
            one.heard(now, OTHER, &stamp);
            assert_eq!(one.offset_ms(&OTHER), None);
        }
        one.heard(now, OTHER, &Stamp(u64::MAX, 0, Some((5, 0))));
        one.forget(&OTHER);
        assert_eq!(one.offset_ms(&OTHER), None);
    }
}
