//! Others' frames on their way on. While there are few each goes on at once; under load they are gathered for a
//! moment, so that a peer wakes for many as it does for one, and whoever brings one meanwhile is not sent it.

use std::sync::Arc;

use crate::ids::PeerId;
use crate::ledger::record::Frame;

/// With more frames than this in a second there is load.
const FEW: u32 = 64;
/// How long frames are gathered under load, ms: the news of a thousand peers take some fourteen hops.
const GATHER_MS: u64 = 20;
/// With so many they go on at once all the same.
const WAITING_MAX: usize = 64;

/// What waits, and how much there is of late.
#[derive(Debug, Default)]
pub(super) struct Forwarding {
    /// Each with those who have it.
    waiting: Vec<(Arc<Frame>, Vec<PeerId>)>,
    due_ms: Option<u64>,
    /// The second that is counted, how many frames there were in it, and how many in the one before.
    second: u64,
    count: u32,
    before: u32,
}

impl Forwarding {
    /// When what waits is to go on.
    pub fn deadline(&self) -> Option<u64> {
        self.due_ms
    }

    /// Whether there is so much that it is better gathered.
    pub fn is_loaded(&self, now_ms: u64) -> bool {
        let (count, before) = match (now_ms / 1000).saturating_sub(self.second) {
            0 => (self.count, self.before),
            1 => (0, self.count),
            _ => (0, 0),
        };
        count.max(before) > FEW
    }

    /// One more frame is to go on; `false` where it is to wait for [`Forwarding::due`].
    pub fn goes(&mut self, now_ms: u64, frame: &Arc<Frame>, from: &PeerId) -> bool {
        let second = now_ms / 1000;
        if second > self.second {
            self.before = if second == self.second + 1 { self.count } else { 0 };
            (self.second, self.count) = (second, 0);
        }
        self.count = self.count.saturating_add(1);
        // What waits goes first: the frames of one owner keep their order.
        if self.waiting.is_empty() && !self.is_loaded(now_ms) {
            return true;
        }
        self.waiting.push((frame.clone(), vec![*from]));
        let due_ms = if self.waiting.len() < WAITING_MAX { now_ms + GATHER_MS } else { now_ms };
        self.due_ms = Some(self.due_ms.map_or(due_ms, |held| held.min(due_ms)));
        false
    }

    /// Another has this frame, too.
    pub fn has(&mut self, peer: PeerId, frame: &Frame) {
        let same = |held: &Frame| held.last() == frame.last() && held.owner == frame.owner;
        if let Some((_, by)) = self.waiting.iter_mut().find(|(held, _)| same(held)) {
            by.push(peer);
        }
    }

    /// What is to go on now, in the order in which it came; each with those who have it.
    pub fn due(&mut self, now_ms: u64) -> Vec<(Arc<Frame>, Vec<PeerId>)> {
        if self.due_ms.is_some_and(|due_ms| due_ms <= now_ms) { self.all() } else { Vec::new() }
    }

    /// Everything that waits.
    pub fn all(&mut self) -> Vec<(Arc<Frame>, Vec<PeerId>)> {
        self.due_ms = None;
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::record::{Draft, Kind, Record, RecordKey, SCHEMA, Signature};

    fn frame(seq: u64) -> Arc<Frame> {
        let (owner, key) = (PeerId([9; 32]), RecordKey { kind: Kind::EVENT, id: "a".into() });
        let record = Record { owner, key, seq, stamp: 0, schema: SCHEMA, value: None };
        let draft = Draft { owner, prev: seq - 1, records: vec![Arc::new(record)] };
        Arc::new(draft.seal(Signature([0; 64])).0)
    }

    #[test]
    fn few_go_at_once_and_many_together_in_their_order_but_not_to_those_who_have_them() {
        let (mut forwarding, from, other) = (Forwarding::default(), PeerId([1; 32]), PeerId([2; 32]));
        for seq in 1..=u64::from(FEW) {
            assert!(forwarding.goes(5_000, &frame(seq), &from), "{seq}");
        }
        for seq in 100..103 {
            assert!(!forwarding.goes(5_000 + seq, &frame(seq), &from), "{seq}");
        }
        forwarding.has(other, &frame(101));
        forwarding.has(other, &frame(7));
        assert_eq!(forwarding.deadline(), Some(5_120));
        assert!(forwarding.due(5_119).is_empty());
        let due = forwarding.due(5_120);
        let told: Vec<_> = due.iter().map(|(frame, by)| (frame.last(), by.len())).collect();
        assert_eq!(told, [(100, 1), (101, 2), (102, 1)]);
        assert_eq!((forwarding.deadline(), forwarding.is_loaded(6_999)), (None, true));
        assert!(!forwarding.is_loaded(7_000) && forwarding.goes(7_000, &frame(200), &from), "the load is over");
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut forwarding = Forwarding::default();
        for seq in 1..=u64::from(FEW) + WAITING_MAX as u64 {
            forwarding.goes(5_000, &frame(seq), &PeerId([1; 32]));
        }
        assert_eq!(forwarding.due(5_000).len(), WAITING_MAX);
    }
}
