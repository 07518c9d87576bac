//! The replicated map: what this peer holds of every owner, and how much of it is whole.
//!
//! Per owner a peer keeps *complete through w*: it holds every write up to w, or a later write of
//! the same key. `floor` is the highest number of anything forgotten.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::{Frame, RecordKey, Stored};
use crate::effect::StoreOp;
use crate::ids::{PeerId, PeerIx, rendezvous};
use crate::wire::{Mark, Records};

/// The most bytes of records in one answer to a pull.
pub const ANSWER_BYTES_MAX: usize = 128 << 10;
/// The most bytes of records sent in one anti-entropy exchange, over all owners.
pub const EXCHANGE_BYTES_MAX: usize = 2 << 20;

/// What is held of one owner.
#[derive(Debug)]
pub struct Owner {
    pub id: PeerId,
    pub complete: u64,
    pub floor: u64,
    /// Its records are taken: an admission was read.
    pub admitted: bool,
    live: BTreeMap<RecordKey, Arc<Stored>>,
    by_seq: BTreeMap<u64, Arc<Stored>>,
    /// A replacing answer in several parts: how far it has come.
    replaced_through: Option<u64>,
}

/// The ledger of one peer.
#[derive(Debug, Default)]
pub struct Ledger {
    owners: Vec<Owner>,
    index: BTreeMap<PeerId, PeerIx>,
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
        let next = PeerIx(self.owners.len() as u32);
        let ix = *self.index.entry(id).or_insert(next);
        if ix == next {
            self.owners.push(Owner {
                id,
                complete: 0,
                floor: 0,
                admitted: false,
                live: BTreeMap::new(),
                by_seq: BTreeMap::new(),
                replaced_through: None,
            });
        }
        ix
    }

    /// What is held of a peer, if anything.
    pub fn owner(&self, id: &PeerId) -> Option<&Owner> {
        self.index.get(id).map(|ix| &self.owners[ix.at()])
    }

    /// Everything that is held, owner by owner.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.owners.iter()
    }

    fn owner_mut(&mut self, id: &PeerId) -> &mut Owner {
        let ix = self.intern(*id);
        &mut self.owners[ix.at()]
    }

    /// From now on the peer's records are taken; `true` where they were not before.
    pub fn admit(&mut self, id: PeerId) -> bool {
        let owner = self.owner_mut(&id);
        !std::mem::replace(&mut owner.admitted, true)
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
        self.owner_mut(&stored.record.owner.clone()).put(stored);
    }

    /// Takes back an owner's two numbers.
    pub fn restore_owner(&mut self, id: PeerId, complete: u64, floor: u64) {
        let owner = self.owner_mut(&id);
        (owner.complete, owner.floor) = (complete, floor);
    }

    /// Of its own records a peer holds all.
    pub fn restore_own(&mut self, me: PeerId, last: u64) {
        let owner = self.owner_mut(&me);
        owner.complete = owner.complete.max(last);
    }

    /// Takes own records that are signed and durable now.
    pub fn take_own(&mut self, stored: Vec<Arc<Stored>>) {
        for one in stored {
            let owner = self.owner_mut(&one.record.owner.clone());
            owner.complete = owner.complete.max(one.record.seq);
            owner.put(one);
        }
    }

    /// Whether a frame holds anything new: asked before its signature is checked.
    pub fn is_news(&self, frame: &Frame) -> bool {
        self.owner(&frame.owner).is_none_or(|owner| {
            owner.complete < frame.last()
                && (owner.complete >= frame.prev
                    || (frame.prev + 1..=frame.last()).any(|seq| !owner.by_seq.contains_key(&seq)))
        })
    }

    /// Takes a pushed frame of an admitted owner.
    pub fn take_frame(&mut self, frame: &Frame) -> Taken {
        let owner = self.owner_mut(&frame.owner);
        let before = owner.complete;
        let mut taken = Taken::default();
        let stored = frame.stored();
        let whole = stored.len() == frame.entries.len();
        taken.news = stored.into_iter().filter(|one| one.record.seq > before && owner.put(one.clone())).collect();
        if frame.prev <= before && whole {
            owner.complete = before.max(frame.last());
        } else {
            taken.gap = frame.last() > before;
        }
        taken
    }

    /// Takes an answer to a pull. Only a part that joins what is held moves `complete`.
    pub fn take_records(&mut self, answer: &Records) -> Taken {
        let owner = self.owner_mut(&answer.owner);
        let mut taken = Taken::default();
        let in_range = |one: &&Arc<Stored>| one.record.owner == answer.owner && one.record.seq > answer.after;
        if answer.replaces_below > owner.complete {
            let joins = answer.after == 0 || owner.replaced_through == Some(answer.after);
            if !joins {
                owner.replaced_through = None;
                return taken;
            }
            let kept: Vec<u64> = answer.records.iter().map(|one| one.record.seq).collect();
            taken.dropped = owner.drop_range(answer.after + 1, answer.through, &kept);
            taken.news =
                answer.records.iter().filter(in_range).filter(|one| owner.put(Arc::clone(one))).cloned().collect();
            owner.replaced_through = answer.more.then_some(answer.through);
            if !answer.more {
                owner.complete = owner.complete.max(answer.through);
                owner.floor = owner.floor.max(answer.replaces_below);
            }
            return taken;
        }
        taken.news = answer.records.iter().filter(in_range).filter(|one| owner.put(Arc::clone(one))).cloned().collect();
        if answer.after <= owner.complete {
            owner.complete = owner.complete.max(answer.through);
        } else {
            taken.gap = true;
        }
        taken
    }

    /// Takes one record that came alone: it is held, and `complete` stays.
    pub fn take_alone(&mut self, stored: &Arc<Stored>) -> bool {
        let owner = self.owner_mut(&stored.record.owner);
        let news = stored.record.seq > owner.complete && owner.put(stored.clone());
        if stored.record.seq == owner.complete + 1 {
            owner.complete += 1;
        }
        news
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

    /// A hash over everything in [`Ledger::digest`]: two peers with the same hold the same.
    pub fn sum(&self) -> u64 {
        let mix = |owner: &Owner| rendezvous(owner.id.ring(), owner.complete) ^ owner.loose();
        self.owners.iter().filter(|owner| owner.top() > 0).fold(0, |sum, owner| sum ^ mix(owner))
    }

    /// Every owner, what is complete of it, and a hash over what is held beyond (0: nothing).
    pub fn digest(&self) -> Vec<(PeerId, u64, u64)> {
        let held = self.owners.iter().filter(|owner| owner.top() > 0);
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
        let owner = self.owner_mut(id);
        let dead = |one: &Arc<Stored>| one.record.seq == seq && one.record.value.is_none();
        if seq > owner.complete || !owner.live.get(key).is_some_and(dead) {
            return Vec::new();
        }
        owner.live.remove(key);
        owner.by_seq.remove(&seq);
        owner.floor = owner.floor.max(seq);
        vec![StoreOp::Delete { owner: *id, key: key.clone() }, owner.numbers()]
    }

    /// The owner's two numbers, for the disk.
    pub fn numbers(&self, id: &PeerId) -> Option<StoreOp> {
        self.owner(id).map(Owner::numbers)
    }
}

impl Owner {
    /// Every live record and tombstone.
    pub fn records(&self) -> impl Iterator<Item = &Arc<Stored>> {
        self.live.values()
    }

    /// How many records and tombstones are held.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty()
    }

    /// A hash over the numbers beyond `complete` that are held: between them others are missing.
    pub fn loose(&self) -> u64 {
        if self.top() == self.complete {
            return 0;
        }
        let beyond = self.by_seq.range(self.complete + 1..).map(|(seq, _)| rendezvous(self.id.ring(), !seq));
        beyond.fold(0, |sum, one| sum ^ one)
    }

    /// What is held beyond `complete`, in as many parts as `bytes` allow: nobody may ever fill the gap, if the owner
    /// is gone.
    fn answer_loose(&self, bytes: &mut usize) -> Vec<Records> {
        let (after, through) = (self.complete, self.complete);
        let mut parts = Vec::new();
        let mut size = ANSWER_BYTES_MAX;
        for (_, one) in self.by_seq.range(self.complete + 1..) {
            if *bytes == 0 {
                break;
            }
            if size >= ANSWER_BYTES_MAX {
                size = 0;
                let records = Vec::new();
                parts.push(Records { owner: self.id, after, through, replaces_below: 0, records, more: false });
            }
            let this = one.record.size() + 64 + 33 * one.proof.path.len();
            size += this;
            *bytes = bytes.saturating_sub(this);
            parts.last_mut().expect("one was pushed").records.push(one.clone());
        }
        parts
    }

    /// How many records above a number are held.
    pub fn above(&self, after: u64) -> usize {
        self.by_seq.range(after.saturating_add(1)..).count()
    }

    /// The highest number that was ever seen of this owner.
    pub fn top(&self) -> u64 {
        self.by_seq.last_key_value().map_or(0, |(seq, _)| *seq).max(self.complete)
    }

    fn numbers(&self) -> StoreOp {
        StoreOp::Owner { owner: self.id, complete: self.complete, floor: self.floor }
    }

    /// Holds a record unless a later version of its key is held; `true` where it is news.
    fn put(&mut self, stored: Arc<Stored>) -> bool {
        let seq = stored.record.seq;
        match self.live.get(&stored.record.key) {
            Some(held) if held.record.seq >= seq => return false,
            Some(held) => {
                let old = held.record.seq;
                self.by_seq.remove(&old);
            }
            None => {}
        }
        self.by_seq.insert(seq, stored.clone());
        self.live.insert(stored.record.key.clone(), stored);
        true
    }

    fn drop_range(&mut self, from: u64, through: u64, keep: &[u64]) -> Vec<RecordKey> {
        let doomed: Vec<u64> =
            self.by_seq.range(from..=through).map(|(seq, _)| *seq).filter(|seq| !keep.contains(seq)).collect();
        let mut dropped = Vec::new();
        for seq in doomed {
            if let Some(one) = self.by_seq.remove(&seq) {
                self.live.remove(&one.record.key);
                dropped.push(one.record.key.clone());
            }
        }
        dropped
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
