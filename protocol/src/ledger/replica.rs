//! The replicated map: what this peer holds of every owner, and how much of it is whole.
//!
//! Per owner a peer keeps *complete through w*: it holds every write up to w, or a later write of
//! the same key. `floor` is the highest number of anything forgotten.
//!
//! Records prove themselves, completeness does not: whoever answers a pull could leave something out, or say that it
//! holds what it does not. So nobody's word reaches further than the highest number that a signature proves; two that
//! are complete through the same number and hold different things exchange everything, and what is missing comes; and
//! what is said to be dead goes on the word of its owner, or of two.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::owner::{Owner, Teller, places};
use super::record::{Frame, RecordKey, Stored};
use super::sums::Sums;
use crate::chunks::Chunks;
use crate::effect::StoreOp;
use crate::ids::{PeerId, PeerIx};
use crate::wire::{Mark, Records, Stand};

/// The most bytes of records in one answer to a pull.
pub const ANSWER_BYTES_MAX: usize = 128 << 10;
/// The most bytes of records sent in one anti-entropy exchange, over all owners.
pub const EXCHANGE_BYTES_MAX: usize = 2 << 20;

/// The ledger of one peer. What two ledgers in one process hold alike, one of them a copy of the
/// other, they hold once, until either changes it.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    owners: Chunks<Arc<Owner>>,
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
    /// What is held here may be dead: another is to be asked.
    pub doubt: bool,
}

/// What a frame makes of what is held of its owner.
#[derive(Debug)]
pub(super) struct Step {
    before: Arc<Owner>,
    after: Arc<Owner>,
    news: Vec<Arc<Stored>>,
    gap: bool,
}

impl Ledger {
    /// What both ledgers hold alike they hold once from now on.
    pub(crate) fn share(&mut self, other: &Self) {
        if !Arc::ptr_eq(&self.index, &other.index) {
            if self.index != other.index {
                return;
            }
            (self.index, self.rings) = (other.index.clone(), other.rings.clone());
        }
        self.owners.share(&other.owners);
    }

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
        let before = owner.sum();
        let changed = change(owner);
        let after = owner.sum();
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
            if last == u64::MAX { Vec::new() } else { owner.drop_above(last) }
        })
    }

    /// Whether a frame holds anything new: asked before its signature is checked.
    pub fn is_news(&self, frame: &Frame) -> bool {
        self.owner(&frame.owner).is_none_or(|owner| {
            let last = frame.last().min(owner.last.unwrap_or(u64::MAX));
            owner.complete < last
                && (owner.complete >= frame.prev || (frame.prev + 1..=last).any(|seq| !owner.holds(seq)))
        })
    }

    /// Whether an answer to a pull holds anything new, or says that what is held is more than it seemed.
    pub fn is_news_in(&self, answer: &Records) -> bool {
        self.owner(&answer.owner).is_none_or(|owner| {
            let proven = answer.records.iter().map(|one| one.record.seq).fold(owner.proven(), u64::max);
            answer.replaces_below > 0
                || owner.lacks(answer.through.min(proven))
                || answer.records.iter().any(|one| owner.wants(one, true))
        })
    }

    /// Takes a pushed frame of an admitted owner. Where others in this process held the same before, what follows is
    /// worked out, and held, once.
    pub fn take_frame(&mut self, frame: &Frame) -> Taken {
        let at = self.intern(frame.owner).at();
        if let Some(step) = frame.step.known().filter(|step| Arc::ptr_eq(&step.before, &self.owners[at])) {
            self.sums.moved(step.after.ring, step.before.sum(), step.after.sum());
            self.owners[at] = step.after.clone();
            return Taken { news: step.news.clone(), gap: step.gap, ..Taken::default() };
        }
        let before = self.owners.is_shared(at).then(|| self.owners[at].clone());
        let taken = self.change(&frame.owner, |owner| owner.take_frame(frame));
        if let Some(before) = before {
            let (after, news) = (self.owners[at].clone(), taken.news.clone());
            frame.step.get(|| Step { before, after, news, gap: taken.gap });
        }
        taken
    }

    /// Takes an answer to a pull. Only a part that joins what is held moves `complete`.
    pub fn take_records(&mut self, answer: &Records, teller: Teller) -> Taken {
        self.change(&answer.owner, |owner| owner.take_records(answer, teller))
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

    /// Answers a pull: everything above `after`, in as many parts as `bytes` allow. Who is below the floor is given a
    /// list of everything, from the beginning, or `on` from where an earlier answer ended.
    pub fn answer(&self, id: &PeerId, after: u64, on: bool, bytes: &mut usize) -> Vec<Records> {
        self.answer_in(id, after, on, bytes, ANSWER_BYTES_MAX)
    }

    /// The same, in parts of so many bytes.
    fn answer_in(&self, id: &PeerId, after: u64, on: bool, bytes: &mut usize, part_max: usize) -> Vec<Records> {
        let Some(owner) = self.owner(id).filter(|owner| owner.top() > after) else { return Vec::new() };
        let replaces_below = if on || after < owner.floor { owner.floor } else { 0 };
        let mut start = if replaces_below > 0 && !on { 0 } else { after };
        let mut parts = Vec::new();
        while start < owner.complete && *bytes > 0 {
            let mut records = Vec::new();
            let (mut size, mut last, mut through, mut more) = (0, start, owner.complete, false);
            for ((seq, _), one) in owner.by_seq.range(places(start, owner.complete)) {
                if size > part_max && *seq > last {
                    more = true;
                    through = seq - 1;
                    break;
                }
                size += one.record.size() + 64 + 33 * one.proof.path.len();
                last = *seq;
                records.push(one.clone());
            }
            *bytes = bytes.saturating_sub(size);
            let cut = more && *bytes == 0;
            parts.push(Records { owner: *id, after: start, through, replaces_below, records, more, cut });
            start = through;
        }
        if start >= owner.complete {
            parts.extend(owner.answer_loose(bytes));
        }
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

    /// Every owner in these ranges of `of`, and what is held of it.
    pub fn digest(&self, ranges: &[u16], of: u16) -> Vec<(PeerId, Stand)> {
        let all = ranges.iter().filter_map(|range| Sums::range(*range, of)).flat_map(|range| self.rings.range(range));
        let held = all.map(|(_, ix)| &self.owners[ix.at()]).filter(|owner| owner.top() > 0);
        held.map(|owner| (owner.id, owner.stand())).collect()
    }

    /// What is held of a peer, for it to see whether it wrote that.
    pub fn mark(&self, id: &PeerId) -> Mark {
        let Some(owner) = self.owner(id) else { return Mark::default() };
        let last = owner.by_seq.last_key_value();
        last.map_or(Mark { seq: owner.complete, head: 0 }, |((seq, head), _)| Mark { seq: *seq, head: *head })
    }

    /// Whether this is the last number that is known of a peer: nothing else proves it, so its tombstone stays.
    pub fn is_last(&self, id: &PeerId, seq: u64) -> bool {
        self.owner(id).is_some_and(|owner| owner.top() == seq)
    }

    /// Forgets a tombstone: only its number stays, in the floor.
    pub fn forget(&mut self, id: &PeerId, key: &RecordKey, seq: u64) -> Vec<StoreOp> {
        let dead = |one: &Arc<Stored>| one.record.seq == seq && one.record.value.is_none();
        let held = self.owner(id).filter(|owner| owner.live.get(key).is_some_and(dead));
        let Some(at) = held.filter(|owner| seq <= owner.complete && seq < owner.top()).and_then(|owner| owner.at(key))
        else {
            return Vec::new();
        };
        self.change(id, |owner| {
            owner.remove(at);
            owner.bury(seq);
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
        frames_signed(writes, [0; 64])
    }

    fn frames_signed(writes: &[(u8, bool)], signature: [u8; 64]) -> Vec<Frame> {
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
            draft.seal(Signature(signature)).0
        };
        records.map(frame).collect()
    }

    fn contents(ledger: &Ledger) -> Vec<(RecordKey, u64)> {
        ledger.owner(&OWNER).map_or(Vec::new(), |owner| {
            owner.live.values().map(|one| (one.record.key.clone(), one.record.seq)).collect()
        })
    }

    /// `from` answers as peer `teller` and one of several: what is missing after `after`.
    fn tell(from: &Ledger, teller: u8, to: &mut Ledger, after: u64) {
        for part in from.answer(&OWNER, after, false, &mut usize::MAX.clone()) {
            to.take_records(&part, Teller { peer: PeerId([teller; 32]), sole: false, blindly: false });
        }
    }

    fn exchange(from: &Ledger, to: &mut Ledger) {
        for teller in [8, 9] {
            let after = to.owner(&OWNER).map_or(0, |owner| owner.complete);
            tell(from, teller, to, after);
            // What is dead is dead when two say so, or the owner does.
            if to.owner(&OWNER).map(Owner::stand) != from.owner(&OWNER).map(Owner::stand) {
                tell(from, teller, to, 0);
            }
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
            // What a later version that does not count has driven out of one, another may hold.
            tell(&ledger, 8, &mut source, 0);
            tell(&source, 8, &mut ledger, 0);
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
                let stand = Stand { complete: *mine, ..Stand::default() };
                prop_assert!(mine == theirs || *mine == 0 || named.contains(&(id(n), stand)));
            }
            let same = numbers.iter().all(|(mine, theirs)| mine == theirs);
            prop_assert_eq!(ranges.is_empty(), same);
        }
    }

    /// A ledger that took all these frames.
    fn whole(frames: &[Frame]) -> Ledger {
        let mut ledger = Ledger::default();
        frames.iter().for_each(|frame| drop(ledger.take_frame(frame)));
        ledger
    }

    fn stand(ledger: &Ledger) -> Stand {
        ledger.owner(&OWNER).map(Owner::stand).unwrap_or_default()
    }

    /// What a liar answers, as peer 6: of what there is only the records of these numbers.
    fn lie(source: &Ledger, to: &mut Ledger, (after, through, floor): (u64, u64, u64), numbers: &[u64]) -> Taken {
        let all = source.owner(&OWNER).unwrap().records();
        let records = all.filter(|one| numbers.contains(&one.record.seq)).cloned().collect();
        let answer = Records { owner: OWNER, after, through, replaces_below: floor, records, more: false, cut: false };
        to.take_records(&answer, Teller { peer: PeerId([6; 32]), sole: false, blindly: false })
    }

    /// Two who never had a change list what they hold, and it stays; where it had been believed dead it comes back.
    #[test]
    fn a_change_is_dead_on_nobodys_word() {
        let record = |seq, kind, id: &str| Record {
            owner: OWNER,
            key: RecordKey { kind, id: id.into() },
            seq,
            stamp: 0,
            schema: SCHEMA,
            value: Some(vec![1]),
        };
        let records = [record(1, Kind::CHANGE, "a"), record(2, Kind::CLAIM, "b"), record(3, Kind::CLAIM, "c")];
        let frames = records.map(|record| {
            let draft = Draft { owner: OWNER, prev: record.seq - 1, records: vec![Arc::new(record)] };
            draft.seal(Signature([0; 64])).0
        });
        let source = whole(&frames);
        let mut ledger = whole(&frames);
        for teller in [6, 7] {
            let records = source.owner(&OWNER).unwrap().records().filter(|one| one.record.seq == 3).cloned().collect();
            let answer =
                Records { owner: OWNER, after: 0, through: 3, replaces_below: 3, records, more: false, cut: false };
            ledger.take_records(&answer, Teller { peer: PeerId([teller; 32]), sole: false, blindly: false });
        }
        let held: Vec<u64> = ledger.owner(&OWNER).unwrap().records().map(|one| one.record.seq).collect();
        assert_eq!(held.len(), 2, "the change, and what both have: {held:?}");
        assert!(held.contains(&1));
        // Whoever never had the change and believes what is that old to be dead takes it all the same.
        let mut late = whole(&frames[1..]);
        late.restore_owner(OWNER, 3, 2);
        tell(&source, 8, &mut late, 0);
        assert!(late.get(&OWNER, &RecordKey { kind: Kind::CHANGE, id: "a".into() }).is_some());
        // Anything else comes back on its owner's word alone.
        tell(&source, 8, &mut ledger, 0);
        assert_ne!(stand(&ledger), stand(&source));
        tell(&source, 1, &mut ledger, 0);
        assert_eq!(stand(&ledger), stand(&source));
    }

    /// A disk was put back, and its peer gave numbers again before it heard of that: whoever heard the one and whoever
    /// heard the other come to hold both, and where both are of one key the same one.
    #[test]
    fn of_a_number_given_twice_all_come_to_hold_the_same() {
        let before = frames(&[(0, true), (1, true), (2, true)]);
        let again = frames_signed(&[(0, true), (3, true), (2, true)], [9; 64]);
        let fork = [before[0].clone(), again[1].clone(), again[2].clone()];
        let (mut one, mut other) = (whole(&before), whole(&fork));
        assert_ne!(one.sums(), other.sums());
        tell(&one, 8, &mut other, 0);
        tell(&other, 9, &mut one, 0);
        assert_eq!(stand(&one), stand(&other));
        assert_eq!(contents(&one), contents(&other));
        assert_eq!(contents(&one).len(), 4, "keys 0 to 3, one and three of the same number");
        assert_eq!(one.get(&OWNER, &key(2)), other.get(&OWNER, &key(2)));
    }

    /// A list that is longer than one exchange goes on where it ended.
    #[test]
    fn a_list_that_was_cut_goes_on() {
        let mut source = whole(&frames(&[(0, true), (1, true), (2, true), (1, false), (3, true), (4, true)]));
        source.forget(&OWNER, &key(1), 4);
        let mut ledger = whole(&frames(&[(0, true), (1, true)]));
        let teller = Teller { peer: OWNER, sole: false, blindly: false };
        let (mut after, mut on) = (2, false);
        for _ in 0..10 {
            // Room for one part, which is full with its first record.
            let mut parts = source.answer_in(&OWNER, after, on, &mut 1, 1);
            assert_eq!(parts.len(), 1);
            let part = parts.remove(0);
            ledger.take_records(&part, teller);
            (after, on) = (part.through, true);
            if !part.cut {
                break;
            }
        }
        assert_eq!(contents(&ledger), contents(&source), "what is dead is gone, too");
        assert_eq!(stand(&ledger), stand(&source));
    }

    #[test]
    fn nobodys_word_reaches_further_than_what_is_signed() {
        let source = whole(&frames(&[(0, true), (1, true), (2, true)]));
        let mut ledger = Ledger::default();
        lie(&source, &mut ledger, (0, 1 << 40, 0), &[1]);
        assert_eq!(stand(&ledger).complete, 1);
        lie(&source, &mut ledger, (0, u64::MAX, 0), &[]);
        assert_eq!(stand(&ledger).complete, 1);
        tell(&source, 8, &mut ledger, 1);
        assert_eq!(stand(&ledger), stand(&source));
    }

    #[test]
    fn what_a_liar_left_out_comes_with_the_next_who_holds_it() {
        let source = whole(&frames(&[(0, true), (1, true), (2, true), (0, true)]));
        for floor in [0, 4] {
            let mut ledger = Ledger::default();
            lie(&source, &mut ledger, (0, 4, floor), &[4]);
            assert_eq!((stand(&ledger).complete, ledger.owner(&OWNER).unwrap().len()), (4, 1));
            assert_ne!(stand(&ledger).held, stand(&source).held, "and so it shows");
            assert_ne!(ledger.sums(), source.sums());
            tell(&source, 8, &mut ledger, 0);
            assert_eq!(stand(&ledger), stand(&source), "floor {floor}");
        }
    }

    #[test]
    fn what_one_says_to_be_dead_stays_until_another_says_so_or_its_owner() {
        let source = whole(&frames(&[(0, true), (1, true), (2, true), (3, true)]));
        let mut ledger = source.clone();
        let taken = lie(&source, &mut ledger, (0, 4, 4), &[4]);
        assert!(taken.dropped.is_empty() && taken.doubt);
        lie(&source, &mut ledger, (0, 4, 4), &[4]);
        assert_eq!(stand(&ledger), stand(&source), "saying it twice changes nothing");
        tell(&source, 8, &mut ledger, 0);
        assert_eq!(stand(&ledger), stand(&source), "an honest one does not agree");

        // The truth: key 0 was removed, and all but one peer have forgotten even that.
        let frames = frames(&[(0, true), (1, true), (0, false), (2, true)]);
        let mut source = whole(&frames);
        let away = whole(&frames[..2]);
        assert_eq!(source.forget(&OWNER, &key(0), 3).len(), 2);
        let mut ledger = away.clone();
        tell(&source, 8, &mut ledger, 2);
        assert_eq!(ledger.owner(&OWNER).unwrap().len(), 3, "one says that it is dead");
        tell(&source, 9, &mut ledger, 0);
        assert_eq!(stand(&ledger), stand(&source), "two do");
        tell(&away, 6, &mut ledger, 0);
        assert_eq!(stand(&ledger), stand(&source), "what was buried stays buried");
        let mut ledger = away.clone();
        tell(&source, 1, &mut ledger, 2);
        assert_eq!(stand(&ledger), stand(&source), "the owner is believed");
    }

    #[test]
    fn the_last_tombstone_stays_for_it_proves_the_last_number() {
        let mut source = whole(&frames(&[(0, true), (0, false)]));
        assert!(source.is_last(&OWNER, 2) && source.forget(&OWNER, &key(0), 2).is_empty());
        let mut newcomer = Ledger::default();
        tell(&source, 8, &mut newcomer, 0);
        assert_eq!(stand(&newcomer), stand(&source));
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
