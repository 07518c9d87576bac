//! The replicated map: what this peer holds of every owner, and how much of it is whole.
//!
//! Per owner a peer keeps *complete through w*: it holds every write up to w, or a later write of
//! the same key. `floor` is the highest number of anything forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::owner::Owner;
use super::record::{Frame, RecordKey, Stored};
use super::sums::Sums;
use crate::effect::StoreOp;
use crate::ids::{PeerId, PeerIx};
use crate::wire::{Mark, Records};

/// The most bytes of records in one answer to a pull.
pub const ANSWER_BYTES_MAX: usize = 128 << 10;
/// The most bytes of records sent in one anti-entropy exchange, over all owners.
pub const EXCHANGE_BYTES_MAX: usize = 2 << 20;

/// The ledger of one peer. What two ledgers in one process hold alike, one of them a copy of the
/// other, they hold once, until either changes it.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    owners: Vec<Arc<Owner>>,
    index: Arc<BTreeMap<PeerId, PeerIx>>,
    rings: Arc<BTreeMap<u64, PeerIx>>,
    sums: Sums,
}

/// What became of records that came in.
#[derive(Debug, Default)]
pub struct Taken {
    /// The records that are news, in the order of their numbers.
    pub news: Vec<Arc<Stored>>,
    /// Keys that are held no more.
    pub dropped: Vec<RecordKey>,
    /// Something before or within is missing: ask for everything after `complete`.
    pub gap: bool,
}

impl Ledger {
    /// The index of a peer, new or known.
    pub fn intern(&mut self, id: PeerId) -> PeerIx {
        if let Some(ix) = self.index.get(&id) {
            return *ix;
        }
        let ix = PeerIx(self.owners.len() as u32);
        let ring = id.ring();
        self.owners.push(Arc::new(Owner::new(id)));
        Arc::make_mut(&mut self.index).insert(id, ix);
        Arc::make_mut(&mut self.rings).insert(ring, ix);
        ix
    }

    /// What is held of a peer, if anything.
    pub fn owner(&self, id: &PeerId) -> Option<&Owner> {
        self.index.get(id).map(|ix| self.owners[ix.at()].as_ref())
    }

    /// What is held of the peer at this place on the ring, if anything.
    pub fn owner_at(&self, ring: u64) -> Option<&Owner> {
        self.rings.get(&ring).map(|ix| self.owners[ix.at()].as_ref())
    }

    /// Everything that is held, owner by owner.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.owners.iter().map(Arc::as_ref)
    }

    /// Changes what is held of an owner; the sums follow.
    fn change<T>(&mut self, id: &PeerId, change: impl FnOnce(&mut Owner) -> T) -> T {
        let ix = self.intern(*id);
        let owner = Arc::make_mut(&mut self.owners[ix.at()]);
        let before = owner.stand();
        let changed = change(owner);
        let after = owner.stand();
        if before != after {
            self.sums.moved(owner.ring, before, after);
        }
        changed
    }

    /// From now on the peer's records are taken; `true` where they were not before.
    pub fn admit(&mut self, id: PeerId) -> bool {
        !self.is_admitted(&id) && self.change(&id, |owner| !std::mem::replace(&mut owner.admitted, true))
    }

    /// Whether the peer's records are taken.
    pub fn is_admitted(&self, id: &PeerId) -> bool {
        self.owner(id).is_some_and(|owner| owner.admitted)
    }

    /// The live version of a record; a tombstone counts.
    pub fn get(&self, id: &PeerId, key: &RecordKey) -> Option<&Arc<Stored>> {
        self.owner(id)?.live.get(key)
    }

    /// Takes back what a disk remembered.
    pub fn restore(&mut self, stored: Arc<Stored>) {
        self.change(&stored.record.owner.clone(), |owner| owner.put(stored));
    }

    /// Takes back an owner's two numbers.
    pub fn restore_owner(&mut self, id: PeerId, complete: u64, floor: u64) {
        self.change(&id, |owner| (owner.complete, owner.floor) = (complete, floor));
    }

    /// Of its own records a peer holds all.
    pub fn restore_own(&mut self, me: PeerId, last: u64) {
        self.change(&me, |owner| owner.complete = owner.complete.max(last));
    }

    /// Takes own records that are signed and durable now.
    pub fn take_own(&mut self, stored: Vec<Arc<Stored>>) {
        for one in stored {
            self.change(&one.record.owner.clone(), |owner| {
                owner.complete = owner.complete.max(one.record.seq);
                owner.put(one);
            });
        }
    }

    /// Of a departed peer nothing above `last` counts, and nothing of it is held; the keys that are
    /// held no more. All who know of the departure come to hold the same.
    pub fn cut(&mut self, id: &PeerId, last: u64) -> Vec<RecordKey> {
        if self.owner(id).is_some_and(|owner| owner.last.is_some_and(|held| held <= last)) {
            return Vec::new();
        }
        self.change(id, |owner| {
            owner.last = Some(last);
            owner.complete = owner.complete.min(last);
            owner.floor = owner.floor.min(last);
            if last == u64::MAX { Vec::new() } else { owner.drop_range(last + 1, u64::MAX, &[]) }
        })
    }

    /// Whether a frame holds anything new: asked before its signature is checked.
    pub fn is_news(&self, frame: &Frame) -> bool {
        self.owner(&frame.owner).is_none_or(|owner| {
            let last = frame.last().min(owner.last.unwrap_or(u64::MAX));
            owner.complete < last
                && (owner.complete >= frame.prev || (frame.prev + 1..=last).any(|seq| !owner.by_seq.contains_key(&seq)))
        })
    }

    /// Whether an answer to a pull holds anything new, or says that what is held is more than it seemed.
    pub fn is_news_in(&self, answer: &Records) -> bool {
        self.owner(&answer.owner).is_none_or(|owner| {
            owner.lacks(answer.through) || answer.records.iter().any(|one| owner.is_new(one.record.seq))
        })
    }

    /// Takes a pushed frame of an admitted owner.
    pub fn take_frame(&mut self, frame: &Frame) -> Taken {
        self.change(&frame.owner, |owner| {
            let before = owner.complete;
            let mut taken = Taken::default();
            let stored = frame.stored();
            let whole = stored.len() == frame.entries.len();
            let news = stored.iter().filter(|one| one.record.seq > before && owner.put(Arc::clone(one)));
            taken.news = news.cloned().collect();
            let last = owner.bounded(frame.last());
            if frame.prev <= before && whole {
                owner.complete = before.max(last);
            } else {
                taken.gap = last > before;
            }
            taken
        })
    }

    /// Takes an answer to a pull. Only a part that joins what is held moves `complete`.
    pub fn take_records(&mut self, answer: &Records) -> Taken {
        self.change(&answer.owner, |owner| owner.take_records(answer))
    }

    /// Takes one record that came alone: it is held, and `complete` stays.
    pub fn take_alone(&mut self, stored: &Arc<Stored>) -> bool {
        self.change(&stored.record.owner, |owner| {
            let seq = stored.record.seq;
            let news = seq > owner.complete && owner.put(stored.clone());
            if seq == owner.complete + 1 && owner.bounded(seq) == seq {
                owner.complete += 1;
            }
            news
        })
    }

    /// Answers a pull: everything above `after`, in as many parts as `bytes` allow.
    pub fn answer(&self, id: &PeerId, after: u64, bytes: &mut usize) -> Vec<Records> {
        let Some(owner) = self.owner(id).filter(|owner| owner.top() > after) else { return Vec::new() };
        let replaces_below = if after < owner.floor { owner.floor } else { 0 };
        let mut start = if replaces_below > 0 { 0 } else { after };
        let mut parts = Vec::new();
        while start < owner.complete && *bytes > 0 {
            let mut records = Vec::new();
            let (mut size, mut through, mut more) = (0, owner.complete, false);
            for (seq, one) in owner.by_seq.range(start + 1..=owner.complete) {
                if size > ANSWER_BYTES_MAX {
                    more = true;
                    through = seq - 1;
                    break;
                }
                size += one.record.size() + 64 + 33 * one.proof.path.len();
                records.push(one.clone());
            }
            *bytes = bytes.saturating_sub(size);
            parts.push(Records { owner: *id, after: start, through, replaces_below, records, more });
            start = through;
        }
        parts.extend(owner.answer_loose(bytes));
        parts
    }

    /// Hashes over what [`Ledger::digest`] tells, by ranges of the ring: two peers with the same hold the
    /// same. About one hash for sixteen owners.
    pub fn sums(&self) -> Vec<u64> {
        self.sums.of(self.owners.len())
    }

    /// The ranges in which another's sums differ from these, of so many.
    pub fn differing(&self, theirs: &[u64]) -> Vec<u16> {
        self.sums.differing(theirs)
    }

    /// Every owner in these ranges of `of`, what is complete of it, and a hash over what is held beyond (0: nothing).
    pub fn digest(&self, ranges: &[u16], of: u16) -> Vec<(PeerId, u64, u64)> {
        let all = ranges.iter().filter_map(|range| Sums::range(*range, of)).flat_map(|range| self.rings.range(range));
        let held = all.map(|(_, ix)| &self.owners[ix.at()]).filter(|owner| owner.top() > 0);
        held.map(|owner| (owner.id, owner.complete, owner.loose())).collect()
    }

    /// What is held of a peer, for it to see whether it wrote that.
    pub fn mark(&self, id: &PeerId) -> Mark {
        let Some(owner) = self.owner(id) else { return Mark::default() };
        let last = owner.by_seq.last_key_value();
        last.map_or(Mark { seq: owner.complete, head: 0 }, |(seq, one)| Mark {
            seq: *seq,
            head: one.proof.signature.head(),
        })
    }

    /// Forgets a tombstone: only its number stays, in the floor.
    pub fn forget(&mut self, id: &PeerId, key: &RecordKey, seq: u64) -> Vec<StoreOp> {
        let dead = |one: &Arc<Stored>| one.record.seq == seq && one.record.value.is_none();
        let held = self.owner(id).filter(|owner| owner.live.get(key).is_some_and(dead));
        if held.is_none_or(|owner| seq > owner.complete) {
            return Vec::new();
        }
        self.change(id, |owner| {
            owner.remove(seq);
            owner.floor = owner.floor.max(seq);
            vec![StoreOp::Delete { owner: *id, key: key.clone() }, owner.numbers()]
        })
    }

    /// The owner's two numbers, for the disk.
    pub fn numbers(&self, id: &PeerId) -> Option<StoreOp> {
        self.owner(id).map(Owner::numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::record::{Draft, Kind, Record, SCHEMA, Signature};
    use proptest::prelude::*;

    const OWNER: PeerId = PeerId([1; 32]);

    fn key(n: u8) -> RecordKey {
        RecordKey { kind: Kind::EVENT, id: format!("{n}").into() }
    }

    /// Frames of one record each: key `n`, alive or a tombstone.
    fn frames(writes: &[(u8, bool)]) -> Vec<Frame> {
        let records = writes.iter().enumerate().map(|(at, (n, alive))| Record {
            owner: OWNER,
            key: key(*n),
            seq: at as u64 + 1,
            stamp: 0,
            schema: SCHEMA,
            value: alive.then(|| vec![*n, at as u8]),
        });
        let frame = |record: Record| {
            let draft = Draft { owner: OWNER, prev: record.seq - 1, records: vec![Arc::new(record)] };
            draft.seal(Signature([0; 64])).0
        };
        records.map(frame).collect()
    }

    fn contents(ledger: &Ledger) -> Vec<(RecordKey, u64)> {
        ledger.owner(&OWNER).map_or(Vec::new(), |owner| {
            owner.live.values().map(|one| (one.record.key.clone(), one.record.seq)).collect()
        })
    }

    fn exchange(from: &Ledger, to: &mut Ledger) {
        let after = to.owner(&OWNER).map_or(0, |owner| owner.complete);
        for part in from.answer(&OWNER, after, &mut usize::MAX.clone()) {
            to.take_records(&part);
        }
    }

    proptest! {
        /// Whatever frames arrive, in whatever order, one exchange makes the receiver whole; and it
        /// never resurrects what the sender has forgotten.
        #[test]
        fn an_exchange_makes_whole(
            writes in prop::collection::vec((0u8..6, any::<bool>()), 1..40),
            heard in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
            forget in any::<bool>(),
        ) {
            let frames = frames(&writes);
            let mut source = Ledger::default();
            frames.iter().for_each(|frame| drop(source.take_frame(frame)));
            let mut other = Ledger::default();
            for index in heard {
                other.take_frame(index.get(&frames));
            }
            if forget {
                let dead: Vec<_> = source.owner(&OWNER).unwrap().records().filter(|one| one.record.value.is_none()).cloned().collect();
                for one in dead {
                    source.forget(&OWNER, &one.record.key, one.record.seq);
                }
            }
            exchange(&source, &mut other);
            prop_assert_eq!(other.owner(&OWNER).unwrap().complete, writes.len() as u64);
            let mut third = Ledger::default();
            exchange(&other, &mut third);
            let alive = |ledger: &Ledger| contents(ledger).into_iter().filter(|(k, _)| {
                ledger.get(&OWNER, k).unwrap().record.value.is_some()
            }).collect::<Vec<_>>();
            prop_assert_eq!(alive(&source), alive(&other));
            prop_assert_eq!(alive(&source), alive(&third));
        }
    }

    proptest! {
        /// Of a stolen key all come to hold the same, whatever they had heard before they heard of the
        /// theft: every write up to the last that counts, or a later one of its key that counts, or
        /// nothing of that key.
        #[test]
        fn nothing_above_the_last_that_counts_is_held(
            writes in prop::collection::vec((0u8..6, any::<bool>()), 1..40),
            heard in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
            last in 0u64..40,
        ) {
            let frames = frames(&writes);
            let mut ledger = Ledger::default();
            let (before, after) = heard.split_at(heard.len() / 2);
            before.iter().for_each(|index| drop(ledger.take_frame(index.get(&frames))));
            ledger.cut(&OWNER, last);
            after.iter().for_each(|index| drop(ledger.take_frame(index.get(&frames))));
            let mut source = Ledger::default();
            frames.iter().for_each(|frame| drop(source.take_frame(frame)));
            exchange(&source, &mut ledger);
            let owner = ledger.owner(&OWNER).unwrap();
            prop_assert_eq!(owner.complete, last.min(writes.len() as u64));
            prop_assert!(contents(&ledger).iter().all(|(_, seq)| *seq <= last));
            prop_assert!(frames.iter().all(|frame| frame.last() <= last || !ledger.is_news(frame)));
            source.cut(&OWNER, last);
            prop_assert_eq!(source.sums(), ledger.sums());
        }

        /// Sums are equal where and only where everybody's numbers are; a digest of the ranges that
        /// differ names every owner that differs.
        #[test]
        fn sums_find_what_differs(numbers in prop::collection::vec((0u64..3, 0u64..3), 1..200)) {
            let id = |n: usize| PeerId(*blake3::hash(&n.to_le_bytes()).as_bytes());
            let (mut one, mut other) = (Ledger::default(), Ledger::default());
            for (n, (mine, theirs)) in numbers.iter().enumerate() {
                one.restore_owner(id(n), *mine, 0);
                other.restore_owner(id(n), 7, 0);
                other.restore_owner(id(n), *theirs, 0);
            }
            let sums = one.sums();
            let ranges = other.differing(&sums);
            let named = one.digest(&ranges, sums.len() as u16);
            for (n, (mine, theirs)) in numbers.iter().enumerate() {
                prop_assert!(mine == theirs || *mine == 0 || named.contains(&(id(n), *mine, 0)));
            }
            let same = numbers.iter().all(|(mine, theirs)| mine == theirs);
            prop_assert_eq!(ranges.is_empty(), same);
        }
    }

    #[test]
    fn an_exchange_of_a_thousand_owners_is_small() {
        let mut ledger = Ledger::default();
        for n in 0..1000u64 {
            ledger.restore_owner(PeerId(*blake3::hash(&n.to_le_bytes()).as_bytes()), 1_000_000 + n, 0);
        }
        let sums = ledger.sums();
        let compare = crate::wire::Message::Compare { sums: sums.clone(), yours: Mark::default() };
        assert!(crate::wire::encode(&compare).len() < 1_024, "{}", crate::wire::encode(&compare).len());
        assert!(ledger.differing(&sums).is_empty(), "nothing is said of what is equal");
        let owners = ledger.digest(&[3], sums.len() as u16);
        assert!((4..40).contains(&owners.len()), "one range is a few owners: {}", owners.len());
    }

    #[test]
    fn a_copy_shares_what_neither_changes() {
        let frames = frames(&[(0, true), (1, true)]);
        let mut one = Ledger::default();
        one.take_frame(&frames[0]);
        one.restore_owner(PeerId([2; 32]), 5, 0);
        let other = one.clone();
        one.take_frame(&frames[1]);
        assert_eq!((one.owner(&OWNER).unwrap().complete, other.owner(&OWNER).unwrap().complete), (2, 1));
        assert!(Arc::ptr_eq(&one.owners[1], &other.owners[1]));
    }

    #[test]
    fn a_hole_does_not_move_complete() {
        let frames = frames(&[(0, true), (1, true), (2, true)]);
        let mut ledger = Ledger::default();
        assert!(ledger.take_frame(&frames[2]).gap);
        assert_eq!(ledger.owner(&OWNER).unwrap().complete, 0);
        assert!(!ledger.is_news(&frames[2]));
        assert!(!ledger.take_frame(&frames[0]).gap);
        assert_eq!(ledger.owner(&OWNER).unwrap().complete, 1);
        ledger.take_frame(&frames[1]);
        assert_eq!(ledger.owner(&OWNER).unwrap().complete, 2, "the third is joined by the next exchange");
    }
}
