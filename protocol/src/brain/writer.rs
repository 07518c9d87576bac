//! Own records on their way out: gathered, numbered, made durable, and only then pushed.
//!
//! Whatever depends on a write is held until the write is durable. A flush leaves at once when the
//! last is older than 50 ms; batching begins under load. While one flush is under way the next
//! gathers: versions of one key between two flushes are one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::effect::{Effect, Local};
use crate::event::Now;
use crate::ids::PeerId;
use crate::ledger::record::{Draft, Frame, Record, RecordKey, SCHEMA, Signature, Stored};
use crate::wire::Mark;

/// A flush leaves at once when the last is older than this.
const QUIET_MS: u64 = 50;
/// How long an urgent write waits at most under load.
const URGENT_MS: u64 = 50;
/// How long an ordinary write waits at most under load.
const ORDINARY_MS: u64 = 200;
/// How many flushes may leave at once in a burst because somebody waits for them.
const BURST: u64 = 40;
/// So many a second fill that up again, shared among the members, for each flush is a frame to all;
const FLUSHES: u64 = 400;
/// of one member at least so many.
const FLUSHES_MIN: u64 = 20;

/// The most own writes whose signatures are remembered.
const HEADS_MAX: usize = 16_384;

/// How soon a write is to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// A person or a program waits for it.
    Now,
    Urgent,
    Ordinary,
}

/// Gathers and numbers own records.
#[derive(Debug)]
pub struct Writer {
    me: PeerId,
    /// The number of the last record that was given one.
    last: u64,
    commit: u64,
    pending: BTreeMap<RecordKey, (u64, Option<Vec<u8>>)>,
    local: Vec<Local>,
    held: Vec<Effect>,
    due_ms: Option<u64>,
    flight: Option<Flight>,
    last_flush_ms: Option<u64>,
    /// Thousandths of a flush: what is left of [`BURST`].
    tokens: u64,
    tokens_at_ms: u64,
    /// So many flushes a second fill up what may leave at once.
    per_second: u64,
    /// Nothing is numbered before this: others may know of numbers that this disk has forgotten.
    doubt_until_ms: u64,
    /// What was written in this life: the first number, and the beginnings of the signatures from there on.
    first: u64,
    heads: VecDeque<u64>,
}

#[derive(Debug)]
struct Flight {
    commit: u64,
    drafts: Vec<Draft>,
    held: Vec<Effect>,
}

/// What a flush has become.
#[derive(Debug)]
pub struct Durable {
    pub frames: Vec<Arc<Frame>>,
    pub stored: Vec<Arc<Stored>>,
    /// What waited for it, in order.
    pub held: Vec<Effect>,
}

impl Writer {
    /// A writer that goes on after `last`.
    pub fn new(me: PeerId, last: u64, now: Now) -> Self {
        Self {
            me,
            last,
            commit: 0,
            pending: BTreeMap::new(),
            local: Vec::new(),
            held: Vec::new(),
            due_ms: None,
            flight: None,
            last_flush_ms: None,
            tokens: BURST * 1000,
            tokens_at_ms: now.ms,
            per_second: FLUSHES,
            doubt_until_ms: 0,
            first: last + 1,
            heads: VecDeque::new(),
        }
    }

    /// Of the simulator alone: the last number is used again.
    pub fn rewind(&mut self) {
        self.last = self.last.saturating_sub(1);
    }

    /// Writes nothing before `until_ms`, or before [`Writer::trust`]: somebody may know better what was written last.
    pub fn doubt(&mut self, until_ms: u64) {
        self.doubt_until_ms = until_ms;
    }

    /// Another peer knows of no number that is not known here.
    pub fn trust(&mut self) {
        self.doubt_until_ms = 0;
    }

    /// Whether this life wrote something else under that number. What earlier lives wrote is not remembered here.
    pub fn wrote_otherwise(&self, mark: Mark) -> bool {
        let at = mark.seq.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        mark.head != 0 && at.and_then(|at| self.heads.get(at)).is_some_and(|head| *head != mark.head)
    }

    /// The highest number given so far.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Writes a record; `None` makes it a tombstone.
    pub fn write(&mut self, now: Now, key: RecordKey, value: Option<Vec<u8>>, urgency: Urgency) {
        self.pending.insert(key, (now.wall, value));
        self.hurry(now, urgency);
    }

    /// Writes something for this disk alone.
    pub fn write_local(&mut self, now: Now, local: Local, urgency: Urgency) {
        self.local.retain(|held| held.key != local.key);
        self.local.push(local);
        self.hurry(now, urgency);
    }

    /// Has an effect wait for everything that is written so far; performed at once where nothing is.
    #[must_use]
    pub fn hold(&mut self, effect: Effect) -> Option<Effect> {
        if !self.pending.is_empty() || !self.local.is_empty() {
            self.held.push(effect);
        } else if let Some(flight) = &mut self.flight {
            flight.held.push(effect);
        } else {
            return Some(effect);
        }
        None
    }

    /// When the next flush is due, if one is and none is under way.
    pub fn deadline(&self) -> Option<u64> {
        if self.flight.is_none() { self.due_ms.map(|due| due.max(self.doubt_until_ms)) } else { None }
    }

    /// The next flush, where it is due.
    pub fn flush(&mut self, now: Now) -> Option<Effect> {
        if self.flight.is_some() || self.due_ms.is_none_or(|due| due > now.ms) || now.ms < self.doubt_until_ms {
            return None;
        }
        let records = std::mem::take(&mut self.pending).into_iter().map(|(key, (stamp, value))| {
            self.last += 1;
            Arc::new(Record { owner: self.me, key, seq: self.last, stamp, schema: SCHEMA, value })
        });
        let records: Vec<_> = records.collect();
        let drafts = Draft::cut(self.me, self.last - records.len() as u64, records);
        self.commit += 1;
        let held = std::mem::take(&mut self.held);
        self.flight = Some(Flight { commit: self.commit, drafts: drafts.clone(), held });
        self.due_ms = None;
        self.last_flush_ms = Some(now.ms);
        (self.tokens, self.tokens_at_ms) = (self.tokens_at(now).saturating_sub(1000), now.ms);
        Some(Effect::Commit { commit: self.commit, drafts, local: std::mem::take(&mut self.local) })
    }

    /// A flush is durable. `None`: it is not the one under way.
    pub fn committed(&mut self, commit: u64, signatures: &[Signature]) -> Option<Durable> {
        let flight =
            self.flight.take_if(|flight| flight.commit == commit && flight.drafts.len() == signatures.len())?;
        let mut durable = Durable { frames: Vec::new(), stored: Vec::new(), held: flight.held };
        for (draft, signature) in flight.drafts.into_iter().zip(signatures) {
            let (frame, stored) = draft.seal(*signature);
            durable.frames.push(Arc::new(frame));
            self.heads.extend(std::iter::repeat_n(signature.head(), stored.len()));
            durable.stored.extend(stored);
        }
        while self.heads.len() > HEADS_MAX {
            self.heads.pop_front();
            self.first += 1;
        }
        Some(durable)
    }

    /// Fills up what may leave at once, in a cluster of so many.
    pub fn refill(&mut self, now: Now, members: usize) {
        self.tokens = self.tokens_at(now);
        self.tokens_at_ms = now.ms;
        self.per_second = (FLUSHES / (members as u64).max(1)).max(FLUSHES_MIN);
    }

    fn tokens_at(&self, now: Now) -> u64 {
        let passed = now.ms.saturating_sub(self.tokens_at_ms);
        (self.tokens + passed.saturating_mul(self.per_second)).min(BURST * 1000)
    }

    fn hurry(&mut self, now: Now, urgency: Urgency) {
        let since = self.last_flush_ms.map_or(u64::MAX, |last| now.ms.saturating_sub(last));
        let wait = match urgency {
            _ if since >= QUIET_MS => 0,
            // Under load its turn comes as soon as flushes may leave, and not when the longest wait is over.
            Urgency::Now => {
                1000_u64.saturating_sub(self.tokens_at(now)).div_ceil(self.per_second).min(URGENT_MS - since)
            }
            Urgency::Urgent => URGENT_MS - since,
            Urgency::Ordinary => ORDINARY_MS.saturating_sub(since),
        };
        let due = now.ms + wait;
        self.due_ms = Some(self.due_ms.map_or(due, |held| held.min(due)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::record::Kind;

    fn at(ms: u64) -> Now {
        Now { ms, wall: ms }
    }

    fn key(id: &str) -> RecordKey {
        RecordKey { kind: Kind::EVENT, id: id.into() }
    }

    #[test]
    fn the_first_write_leaves_at_once_and_the_next_gather() {
        let mut writer = Writer::new(PeerId([1; 32]), 7, at(0));
        writer.write(at(0), key("a"), Some(vec![1]), Urgency::Ordinary);
        let Some(Effect::Commit { commit, drafts, .. }) = writer.flush(at(0)) else { panic!("due at once") };
        assert_eq!((drafts[0].prev, drafts[0].records.len()), (7, 1));
        writer.write(at(1), key("b"), Some(vec![1]), Urgency::Ordinary);
        writer.write(at(2), key("b"), Some(vec![2]), Urgency::Urgent);
        assert!(writer.hold(Effect::Changed { apps: vec![], machines: true }).is_none());
        assert!(writer.flush(at(60)).is_none(), "one at a time");
        assert!(writer.committed(commit, &[Signature([0; 64])]).unwrap().held.is_empty());
        assert_eq!(writer.deadline(), Some(50));
        let Some(Effect::Commit { commit, drafts, .. }) = writer.flush(at(60)) else { panic!("due") };
        assert_eq!(drafts[0].records.len(), 1, "two versions between two flushes are one");
        assert_eq!(writer.committed(commit, &[Signature([0; 64])]).unwrap().held.len(), 1);
        assert_eq!(writer.last(), 9);
    }

    #[test]
    fn when_a_burst_is_over_what_somebody_waits_for_leaves_as_often_as_flushes_may() {
        let mut writer = Writer::new(PeerId([1; 32]), 0, at(0));
        writer.refill(at(0), 4);
        let mut leave = |ms: u64| {
            writer.write(at(ms), key("a"), Some(vec![1]), Urgency::Now);
            let due = writer.deadline().unwrap();
            let Some(Effect::Commit { commit, .. }) = writer.flush(at(due)) else { panic!("due at {due}") };
            writer.committed(commit, &[Signature([0; 64])]).unwrap();
            due
        };
        assert!((0..BURST).all(|_| leave(0) == 0));
        let after: Vec<u64> = (0..3).map(|at| leave(at * 10)).collect();
        assert_eq!(after, [10, 20, 30], "a hundred a second");
        let mut many = Writer::new(PeerId([1; 32]), 0, at(0));
        many.refill(at(0), 1_000);
        assert_eq!(many.per_second, FLUSHES_MIN);
    }

    #[test]
    fn what_waits_for_nothing_goes_at_once() {
        let mut writer = Writer::new(PeerId([1; 32]), 0, at(0));
        assert!(writer.hold(Effect::Changed { apps: vec![], machines: true }).is_some());
    }
}
