//! When leases end: what the leader keeps beside the log, and counts in its own time.
//!
//! A lease's end is reckoned from a moment that is no earlier than the one at which its owner asked for it, so the
//! owner, who reckons from when it asked, always gives up first. Whoever becomes leader gives every lease its whole time
//! anew: it cannot know when the leader before it renewed which.

use std::collections::BTreeMap;

use crate::store::Store;

/// The ends of leases, by the leader's clock, ms.
#[derive(Debug, Default)]
pub struct Lessor {
    ends: BTreeMap<i64, End>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    at_ms: u64,
    /// Its end is in the log already: it cannot be renewed any more.
    ending: bool,
}

impl Lessor {
    /// Leadership begins.
    pub fn begin(&mut self, store: &Store, now_ms: u64) {
        self.ends.clear();
        for (id, lease) in store.leases() {
            self.start(id, lease.ttl_seconds, now_ms);
        }
    }

    /// Leadership is over.
    pub fn end(&mut self) {
        self.ends.clear();
    }

    /// A lease was granted or renewed. False: it is ending.
    pub fn start(&mut self, id: i64, ttl_seconds: i64, now_ms: u64) -> bool {
        if self.ends.get(&id).is_some_and(|end| end.ending) {
            return false;
        }
        let at_ms = now_ms.saturating_add(ttl_seconds.max(0) as u64 * 1000);
        self.ends.insert(id, End { at_ms, ending: false });
        true
    }

    /// A lease is no more.
    pub fn forget(&mut self, id: i64) {
        self.ends.remove(&id);
    }

    /// What is left of a lease, ms.
    pub fn left_ms(&self, id: i64, now_ms: u64) -> Option<u64> {
        self.ends.get(&id).map(|end| end.at_ms.saturating_sub(now_ms))
    }

    /// Leases whose time is over; each is told once.
    pub fn take_over(&mut self, now_ms: u64, at_most: usize) -> Vec<i64> {
        let over = self.ends.iter_mut().filter(|(_, end)| !end.ending && end.at_ms <= now_ms).take(at_most);
        over.map(|(id, end)| {
            end.ending = true;
            *id
        })
        .collect()
    }

    /// Every lease has half of what is left: only for [`crate::plant::Plant::DoubleGrant`].
    pub fn halve(&mut self, now_ms: u64) {
        for end in self.ends.values_mut() {
            end.at_ms = now_ms + end.at_ms.saturating_sub(now_ms) / 2;
        }
    }

    /// The end of a lease did not get into the log.
    pub fn not_over(&mut self, id: i64) {
        if let Some(end) = self.ends.get_mut(&id) {
            end.ending = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Op;

    #[test]
    fn a_lease_ends_once_and_whoever_takes_over_gives_it_its_whole_time() {
        let mut store = Store::default();
        store.apply(&Op::Grant { id: 1, ttl_seconds: 5 }).unwrap();
        let mut lessor = Lessor::default();
        lessor.begin(&store, 1_000);
        assert_eq!(lessor.left_ms(1, 2_000), Some(4_000));
        assert!(lessor.take_over(5_999, 9).is_empty());
        assert!(lessor.start(1, 5, 3_000), "it is renewed");
        assert!(lessor.take_over(6_000, 9).is_empty());
        assert_eq!(lessor.take_over(8_000, 9), [1]);
        assert!(lessor.take_over(8_001, 9).is_empty());
        assert!(!lessor.start(1, 5, 8_002), "what is ending is not renewed");
        lessor.begin(&store, 9_000);
        assert_eq!(lessor.left_ms(1, 9_000), Some(5_000));
        lessor.forget(1);
        assert_eq!(lessor.left_ms(1, 9_000), None);
    }
}
