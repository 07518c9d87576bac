//! The records that membership lives on, and who holds which: what of the ledger matters here.

use std::collections::BTreeSet;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    Machine { life: u64 },
    Verdict { subject: usize, life: u64 },
    Withdrawn { subject: usize },
}

impl Record {
    fn has_key_of(&self, other: &Record) -> bool {
        let subject = |record: &Record| match record {
            Record::Machine { .. } => None,
            Record::Verdict { subject, .. } | Record::Withdrawn { subject } => Some(*subject),
        };
        subject(self) == subject(other)
    }
}

/// Everything that anybody ever wrote, by owner; the first is number 1.
pub struct Log(Vec<Vec<Record>>);

impl Log {
    /// Each machine has described itself.
    pub fn new(machines: usize) -> Self {
        Self(vec![vec![Record::Machine { life: 1 }]; machines])
    }

    /// The number of a new record.
    pub fn write(&mut self, owner: usize, record: Record) -> u32 {
        self.0[owner].push(record);
        self.0[owner].len() as u32
    }

    pub fn get(&self, owner: usize, seq: u32) -> Record {
        self.0[owner][seq as usize - 1]
    }

    /// Whether a later record of the same key is held.
    pub fn is_outdated(&self, owner: usize, seq: u32, holds: impl Fn(u32) -> bool) -> bool {
        let record = self.get(owner, seq);
        let later = seq + 1..=self.0[owner].len() as u32;
        later.into_iter().any(|later| self.get(owner, later).has_key_of(&record) && holds(later))
    }
}

/// What one machine holds: of each owner everything through a number, and some after it.
pub struct Shelf {
    complete: Vec<u32>,
    beyond: BTreeSet<(usize, u32)>,
    sum: u64,
}

impl Shelf {
    /// With every machine's description.
    pub fn new(machines: usize) -> Self {
        Self { complete: vec![1; machines], beyond: BTreeSet::new(), sum: 0 }
    }

    pub fn complete(&self, owner: usize) -> u32 {
        self.complete[owner]
    }

    pub fn has(&self, owner: usize, seq: u32) -> bool {
        seq <= self.complete[owner] || self.beyond.contains(&(owner, seq))
    }

    /// Takes a record; whether it is news.
    pub fn take(&mut self, owner: usize, seq: u32) -> bool {
        if self.has(owner, seq) {
            return false;
        }
        self.beyond.insert((owner, seq));
        while self.beyond.remove(&(owner, self.complete[owner] + 1)) {
            self.complete[owner] += 1;
            self.sum ^= rialto_protocol::ids::rendezvous(owner as u64 + 1, u64::from(self.complete[owner]));
        }
        true
    }

    /// A hash over [`Shelf::digest`].
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// For each owner the number through which everything is held.
    pub fn digest(&self) -> Vec<u32> {
        self.complete.clone()
    }

    /// What is lacking (owner, after) and what the other lacks (owner, after, through).
    #[allow(clippy::type_complexity)]
    pub fn differences(&self, theirs: &[u32]) -> (Vec<(usize, u32)>, Vec<(usize, u32, u32)>) {
        let both = || self.complete.iter().copied().zip(theirs.iter().copied()).enumerate();
        let lacks = both().filter(|(_, (mine, theirs))| mine < theirs).map(|(owner, (mine, _))| (owner, mine));
        let has =
            both().filter(|(_, (mine, theirs))| mine > theirs).map(|(owner, (mine, theirs))| (owner, theirs, mine));
        (lacks.collect(), has.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shelf_is_complete_through_the_first_gap() {
        let mut shelf = Shelf::new(2);
        assert!(!shelf.take(0, 1), "that was there");
        assert!(shelf.take(0, 3) && !shelf.take(0, 3));
        assert_eq!((shelf.complete(0), shelf.has(0, 3), shelf.sum()), (1, true, Shelf::new(2).sum()));
        assert!(shelf.take(0, 2));
        assert_eq!(shelf.complete(0), 3);
        assert_ne!(shelf.sum(), Shelf::new(2).sum());
        assert_eq!(shelf.differences(&[1, 4]), (vec![(1, 1)], vec![(0, 1, 3)]));
    }

    #[test]
    fn a_verdict_that_was_withdrawn_is_outdated() {
        let mut log = Log::new(1);
        let verdict = log.write(0, Record::Verdict { subject: 7, life: 1 });
        let other = log.write(0, Record::Verdict { subject: 8, life: 1 });
        let withdrawn = log.write(0, Record::Withdrawn { subject: 7 });
        assert!(log.is_outdated(0, verdict, |seq| seq == withdrawn));
        assert!(!log.is_outdated(0, verdict, |_| false));
        assert!(!log.is_outdated(0, other, |_| true));
    }
}
