//! What a peer holds of one owner: live records and tombstones, and how much of them is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::record::{RecordKey, Stored};
use super::replica::{ANSWER_BYTES_MAX, Taken};
use crate::effect::StoreOp;
use crate::ids::{PeerId, rendezvous};
use crate::wire::Records;

/// What is held of one owner.
#[derive(Clone, Debug)]
pub struct Owner {
    pub id: PeerId,
    pub(super) ring: u64,
    pub complete: u64,
    pub floor: u64,
    /// Its records are taken: an admission was read.
    pub admitted: bool,
    /// The last number that counts: of a stolen key nothing above it is held.
    pub last: Option<u64>,
    /// What the records take, roughly.
    pub bytes: u64,
    pub(super) live: BTreeMap<RecordKey, Arc<Stored>>,
    pub(super) by_seq: BTreeMap<u64, Arc<Stored>>,
    /// A replacing answer in several parts: how far it has come.
    replaced_through: Option<u64>,
}

impl Owner {
    /// A peer of which nothing is held yet.
    pub(super) fn new(id: PeerId) -> Self {
        Self {
            id,
            ring: id.ring(),
            complete: 0,
            floor: 0,
            admitted: false,
            last: None,
            bytes: 0,
            live: BTreeMap::new(),
            by_seq: BTreeMap::new(),
            replaced_through: None,
        }
    }

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

    /// What of this owner a digest tells, in one number; 0 is nothing.
    pub(super) fn stand(&self) -> u64 {
        self.complete ^ self.loose()
    }

    /// What is held beyond `complete`, in as many parts as `bytes` allow: nobody may ever fill the gap, if the owner
    /// is gone.
    pub(super) fn answer_loose(&self, bytes: &mut usize) -> Vec<Records> {
        let (after, through) = (self.complete, self.complete);
        let mut parts: Vec<Records> = Vec::new();
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

    pub(super) fn numbers(&self) -> StoreOp {
        StoreOp::Owner { owner: self.id, complete: self.complete, floor: self.floor }
    }

    /// Whether there is something up to `number` that counts and is not held.
    pub fn lacks(&self, number: u64) -> bool {
        self.complete < self.bounded(number)
    }

    /// Whether a record of this number would be new.
    pub fn is_new(&self, seq: u64) -> bool {
        seq > self.complete && seq == self.bounded(seq) && !self.by_seq.contains_key(&seq)
    }

    /// A number, or the last that counts.
    pub(super) fn bounded(&self, seq: u64) -> u64 {
        seq.min(self.last.unwrap_or(u64::MAX))
    }

    /// Holds a record unless a later version of its key is held; `true` where it is news.
    pub(super) fn put(&mut self, stored: Arc<Stored>) -> bool {
        let seq = stored.record.seq;
        if self.bounded(seq) < seq {
            return false;
        }
        match self.live.get(&stored.record.key) {
            Some(held) if held.record.seq >= seq => return false,
            Some(held) => {
                let old = held.record.seq;
                self.bytes = self.bytes.saturating_sub(held.record.size() as u64);
                self.by_seq.remove(&old);
            }
            None => {}
        }
        self.bytes += stored.record.size() as u64;
        self.by_seq.insert(seq, stored.clone());
        self.live.insert(stored.record.key.clone(), stored);
        true
    }

    pub(super) fn remove(&mut self, seq: u64) -> Option<RecordKey> {
        let one = self.by_seq.remove(&seq)?;
        self.live.remove(&one.record.key);
        self.bytes = self.bytes.saturating_sub(one.record.size() as u64);
        Some(one.record.key.clone())
    }

    pub(super) fn drop_range(&mut self, from: u64, through: u64, keep: &[u64]) -> Vec<RecordKey> {
        let keep: BTreeSet<u64> = keep.iter().copied().collect();
        let doomed: Vec<u64> =
            self.by_seq.range(from..=through).map(|(seq, _)| *seq).filter(|seq| !keep.contains(seq)).collect();
        doomed.into_iter().filter_map(|seq| self.remove(seq)).collect()
    }

    pub(super) fn take_records(&mut self, answer: &Records) -> Taken {
        let mut taken = Taken::default();
        let through = self.bounded(answer.through);
        let in_range = |one: &&Arc<Stored>| one.record.owner == answer.owner && one.record.seq > answer.after;
        if answer.replaces_below > self.complete {
            let joins = answer.after == 0 || self.replaced_through == Some(answer.after);
            if !joins {
                self.replaced_through = None;
                return taken;
            }
            let kept: Vec<u64> = answer.records.iter().map(|one| one.record.seq).collect();
            if through > answer.after {
                taken.dropped = self.drop_range(answer.after + 1, through, &kept);
            }
            taken.news =
                answer.records.iter().filter(in_range).filter(|one| self.put(Arc::clone(one))).cloned().collect();
            self.replaced_through = answer.more.then_some(answer.through);
            if !answer.more {
                self.complete = self.complete.max(through);
                self.floor = self.floor.max(self.bounded(answer.replaces_below));
            }
            return taken;
        }
        taken.news = answer.records.iter().filter(in_range).filter(|one| self.put(Arc::clone(one))).cloned().collect();
        if answer.after <= self.complete {
            self.complete = self.complete.max(through);
        } else {
            taken.gap = through > self.complete;
        }
        taken
    }
}
