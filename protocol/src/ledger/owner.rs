//! What a peer holds of one owner: live records and tombstones, and how much of them is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::record::{Frame, Kind, RecordKey, Stored};
use super::replica::{ANSWER_BYTES_MAX, Taken};
use crate::effect::StoreOp;
use crate::ids::{PeerId, rendezvous};
use crate::wire::{Records, Stand};

/// What is held of one owner.
#[derive(Clone, Debug, PartialEq)]
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
    pub(super) by_seq: BTreeMap<Place, Arc<Stored>>,
    /// A sum over the numbers of the records with a value, mixed.
    held: u64,
    /// A list in several parts, as far as it has come.
    listing: Option<Listing>,
    /// What is held and this peer, in its list, does not hold.
    doubted: Option<(PeerId, BTreeSet<Place>)>,
}

/// Where a record stands among its owner's: its number, and the beginning of its signature. An owner whose disk was put
/// back may have given a number twice before it heard of that, and both records were believed.
pub(super) type Place = (u64, u64);

/// Where a record stands.
fn place(one: &Stored) -> Place {
    (one.record.seq, one.proof.signature.head())
}

/// Changes are for ever: whoever says that one is dead has never had it, or lies.
fn may_die(one: &Stored) -> bool {
    one.record.key.kind != Kind::CHANGE
}

/// Every place above one number and up to another.
pub(super) fn places(above: u64, through: u64) -> RangeInclusive<Place> {
    (above.saturating_add(1), 0)..=(through, u64::MAX)
}

/// What a peer lists as everything that it holds of an owner.
#[derive(Clone, Debug, PartialEq)]
struct Listing {
    by: PeerId,
    through: u64,
    places: BTreeSet<Place>,
}

/// Who answered a pull.
#[derive(Clone, Copy, Debug)]
pub struct Teller {
    pub peer: PeerId,
    /// There is nobody else to be asked.
    pub sole: bool,
    /// Everything is believed: a bug of the simulator's.
    pub blindly: bool,
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
            held: 0,
            listing: None,
            doubted: None,
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
        let beyond = self.beyond().map(|((seq, _), _)| rendezvous(self.id.ring(), !seq));
        beyond.fold(0, |sum, one| sum ^ one)
    }

    /// What is held beyond `complete`.
    fn beyond(&self) -> impl Iterator<Item = (&Place, &Arc<Stored>)> {
        self.by_seq.range(places(self.complete, u64::MAX))
    }

    /// Whether a record of this number is held.
    pub(super) fn holds(&self, seq: u64) -> bool {
        self.by_seq.range((seq, 0)..=(seq, u64::MAX)).next().is_some()
    }

    /// What of this owner a digest tells.
    pub fn stand(&self) -> Stand {
        Stand { complete: self.complete, loose: self.loose(), held: self.held }
    }

    /// The same in one number; 0 is nothing.
    pub(super) fn sum(&self) -> u64 {
        self.complete ^ self.loose() ^ self.held
    }

    /// What is not held up to this number is dead: a tombstone was held and forgotten, or that is agreed upon.
    pub(super) fn bury(&mut self, seq: u64) {
        self.floor = self.floor.max(seq);
    }

    /// A record with a value came or went: its part of the sum.
    fn part(&self, one: &Stored) -> u64 {
        let (seq, head) = place(one);
        if one.record.value.is_some() { rendezvous(!self.ring ^ head, seq) } else { 0 }
    }

    /// What is held beyond `complete`, in as many parts as `bytes` allow: nobody may ever fill the gap, if the owner
    /// is gone.
    pub(super) fn answer_loose(&self, bytes: &mut usize) -> Vec<Records> {
        let (after, through) = (self.complete, self.complete);
        let mut parts: Vec<Records> = Vec::new();
        let mut size = ANSWER_BYTES_MAX;
        for (_, one) in self.beyond() {
            if *bytes == 0 {
                break;
            }
            if size >= ANSWER_BYTES_MAX {
                size = 0;
                let (replaces_below, records) = (0, Vec::new());
                parts.push(Records {
                    owner: self.id,
                    after,
                    through,
                    replaces_below,
                    records,
                    more: false,
                    cut: false,
                });
            }
            let this = one.record.size() + 64 + 33 * one.proof.path.len();
            size += this;
            *bytes = bytes.saturating_sub(this);
            parts.last_mut().expect("one was pushed").records.push(one.clone());
        }
        parts
    }

    /// What the record under a key takes, if one is held.
    pub fn bytes_of(&self, key: &RecordKey) -> u64 {
        self.live.get(key).map_or(0, |held| held.record.size() as u64)
    }

    /// Where the record under a key stands, if one is held.
    pub(super) fn at(&self, key: &RecordKey) -> Option<Place> {
        self.live.get(key).map(|one| place(one))
    }

    /// How many records above a number are held.
    pub fn above(&self, after: u64) -> usize {
        self.by_seq.range(places(after, u64::MAX)).count()
    }

    /// The highest number that was ever seen of this owner.
    pub fn top(&self) -> u64 {
        self.by_seq.last_key_value().map_or(0, |((seq, _), _)| *seq).max(self.complete)
    }

    /// The highest number that a signature proves: the owner's under a record, or that under the order by which nothing
    /// above a number counts.
    pub(super) fn proven(&self) -> u64 {
        self.top().max(self.last.filter(|last| *last < u64::MAX).unwrap_or(0))
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
        seq > self.complete && seq == self.bounded(seq) && !self.holds(seq)
    }

    /// Whether a record that came by a pull is to be held: it is new, or something that should be here and is not. What
    /// may be dead, its tombstone forgotten, is not, unless its owner itself says that it lives: whoever else said
    /// that it is dead may have lied, or have been lied to.
    pub fn wants(&self, one: &Stored, by_owner: bool) -> bool {
        let seq = one.record.seq;
        let is_known_dead = !by_owner && seq <= self.complete && seq <= self.floor && may_die(one);
        seq == self.bounded(seq)
            && !is_known_dead
            && self.live.get(&one.record.key).is_none_or(|held| place(held) < place(one))
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
            Some(held) if place(held) >= place(&stored) => return false,
            Some(held) => {
                let (old, part) = (place(held), self.part(held));
                self.bytes = self.bytes.saturating_sub(held.record.size() as u64);
                self.held = self.held.wrapping_sub(part);
                self.by_seq.remove(&old);
            }
            None => {}
        }
        self.bytes += stored.record.size() as u64;
        self.held = self.held.wrapping_add(self.part(&stored));
        self.by_seq.insert(place(&stored), stored.clone());
        self.live.insert(stored.record.key.clone(), stored);
        true
    }

    pub(super) fn remove(&mut self, at: Place) -> Option<RecordKey> {
        let one = self.by_seq.remove(&at)?;
        self.live.remove(&one.record.key);
        self.bytes = self.bytes.saturating_sub(one.record.size() as u64);
        self.held = self.held.wrapping_sub(self.part(&one));
        Some(one.record.key.clone())
    }

    pub(super) fn drop_above(&mut self, last: u64) -> Vec<RecordKey> {
        let doomed: Vec<Place> = self.by_seq.range(places(last, u64::MAX)).map(|(at, _)| *at).collect();
        doomed.into_iter().filter_map(|at| self.remove(at)).collect()
    }

    /// Takes a pushed frame.
    pub(super) fn take_frame(&mut self, frame: &Frame) -> Taken {
        let before = self.complete;
        let mut taken = Taken::default();
        let stored = frame.stored();
        let whole = stored.len() == frame.entries.len();
        let news = stored.iter().filter(|one| one.record.seq > before && self.put(Arc::clone(one)));
        taken.news = news.cloned().collect();
        let last = self.bounded(frame.last());
        if frame.prev <= before && whole {
            self.complete = before.max(last);
        } else {
            taken.gap = last > before;
        }
        taken
    }

    /// Takes an answer to a pull. Its records prove themselves. That they are all is believed up to the highest number
    /// that any signature proves, for what is missing shows with the next peer that holds it ([`Stand::held`]). That what
    /// is not listed is dead is believed of the owner, and else of two.
    pub(super) fn take_records(&mut self, answer: &Records, teller: Teller) -> Taken {
        let mut taken = Taken::default();
        let is_list = answer.replaces_below > 0;
        if is_list && !self.takes_list(answer, teller.peer) {
            return taken;
        }
        let (owner, after) = (self.id, answer.after);
        for one in answer.records.iter().filter(|one| one.record.owner == owner && one.record.seq > after) {
            if self.wants(one, teller.peer == owner) && self.put(Arc::clone(one)) {
                taken.news.push(Arc::clone(one));
            }
        }
        let proven = if teller.blindly { u64::MAX } else { self.proven() };
        let through = self.bounded(answer.through).min(proven);
        if !is_list && answer.after > self.complete {
            taken.gap = through > self.complete;
        } else if !is_list {
            self.complete = self.complete.max(through);
        } else if !answer.more {
            self.complete = self.complete.max(through);
            taken.dropped = self.end_list(self.bounded(answer.replaces_below).min(through), teller);
            taken.doubt = self.doubted.is_some();
        }
        taken
    }

    /// One part of a list; `false` where it does not join what came before.
    fn takes_list(&mut self, part: &Records, by: PeerId) -> bool {
        let joins = |listing: &Listing| listing.by == by && listing.through == part.after;
        let mut listing = match self.listing.take() {
            _ if part.after == 0 => Listing { by, through: 0, places: BTreeSet::new() },
            Some(listing) if joins(&listing) => listing,
            _ => return false,
        };
        listing.through = part.through;
        listing.places.extend(part.records.iter().map(|one| place(one)));
        self.listing = Some(listing);
        true
    }

    /// A list is whole: what it does not name up to its floor is dead, if it may be believed.
    fn end_list(&mut self, floor: u64, teller: Teller) -> Vec<RecordKey> {
        let listed = self.listing.take().map(|listing| listing.places).unwrap_or_default();
        let held = self.by_seq.range(..=(floor, u64::MAX)).filter(|(_, one)| may_die(one));
        let missing: BTreeSet<Place> = held.map(|(at, _)| *at).filter(|at| !listed.contains(at)).collect();
        let is_believed = teller.peer == self.id || teller.sole;
        let dead: Vec<Place> = match &self.doubted {
            _ if is_believed => missing.iter().copied().collect(),
            Some((other, doubted)) if *other != teller.peer => missing.intersection(doubted).copied().collect(),
            _ => Vec::new(),
        };
        let agreed = if is_believed { Some(floor) } else { dead.last().map(|(seq, _)| *seq) };
        self.bury(agreed.unwrap_or(0));
        let left: BTreeSet<Place> = missing.into_iter().filter(|at| dead.binary_search(at).is_err()).collect();
        self.doubted = (!left.is_empty()).then_some((teller.peer, left));
        dead.into_iter().filter_map(|at| self.remove(at)).collect()
    }
}
