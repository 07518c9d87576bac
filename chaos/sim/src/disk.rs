//! A virtual disk: what a store would have made durable, and what is still on its way there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rialto_protocol::Restored;
use rialto_protocol::effect::StoreOp;
use rialto_protocol::ids::PeerId;
use rialto_protocol::ledger::record::{RecordKey, Signature, Stored};

/// What is told when a transaction is durable.
#[derive(Clone, Debug)]
pub enum Then {
    Nothing,
    Committed { commit: u64, signatures: Vec<Signature> },
    Stored { token: u64 },
}

/// Operations that become durable together.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub number: u64,
    pub ops: Vec<StoreOp>,
    pub then: Then,
}

/// One machine's disk. One writer takes transactions in order, so a durable one brings every
/// earlier one with it.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub records: BTreeMap<(PeerId, RecordKey), Arc<Stored>>,
    pub owners: BTreeMap<PeerId, (u64, u64)>,
    pub local: BTreeMap<String, Vec<u8>>,
    pending: VecDeque<Transaction>,
    written: u64,
}

impl Disk {
    /// Hands a transaction to the writer; its number is what [`Disk::flush`] wants.
    pub fn write(&mut self, ops: Vec<StoreOp>, then: Then) -> u64 {
        self.written += 1;
        self.pending.push_back(Transaction { number: self.written, ops, then });
        self.written
    }

    /// Makes everything through transaction `number` durable, and gives it back.
    pub fn flush(&mut self, number: u64) -> Vec<Transaction> {
        let mut done = Vec::new();
        while self.pending.front().is_some_and(|first| first.number <= number) {
            let transaction = self.pending.pop_front().expect("there is a first");
            self.apply(&transaction);
            done.push(transaction);
        }
        done
    }

    /// The process dies: of what was on its way only the first `kept` transactions arrived. They
    /// are given back, for what is durable is durable though nobody was told.
    pub fn crash(&mut self, kept: usize) -> Vec<Transaction> {
        let last = self.pending.range(..kept.min(self.pending.len())).next_back().map_or(0, |last| last.number);
        let done = self.flush(last);
        self.pending.clear();
        done
    }

    /// The disk after a crash that lost everything on its way.
    pub fn crashed(mut self) -> Self {
        self.pending.clear();
        self
    }

    /// Whether this transaction is yet to be written.
    pub fn is_pending(&self, number: u64) -> bool {
        self.pending.front().is_some_and(|first| first.number <= number)
    }

    /// Transactions on their way.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// What a starting peer reads.
    pub fn restore(&self) -> Restored {
        Restored {
            records: self.records.values().cloned().collect(),
            owners: self.owners.iter().map(|(owner, (complete, floor))| (*owner, *complete, *floor)).collect(),
            local: self.local.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
        }
    }

    fn apply(&mut self, transaction: &Transaction) {
        for op in &transaction.ops {
            match op {
                StoreOp::Put(stored) => {
                    if matches!(transaction.then, Then::Committed { .. }) {
                        // Own writes are complete through the last of them.
                        self.owners.entry(stored.record.owner).or_default().0 = stored.record.seq;
                    }
                    let key = (stored.record.owner, stored.record.key.clone());
                    self.records.insert(key, Arc::clone(stored));
                }
                StoreOp::Delete { owner, key } => {
                    self.records.remove(&(*owner, key.clone()));
                }
                StoreOp::Owner { owner, complete, floor } => {
                    self.owners.insert(*owner, (*complete, *floor));
                }
                StoreOp::Local(local) => match &local.value {
                    Some(value) => drop(self.local.insert(local.key.clone(), value.clone())),
                    None => drop(self.local.remove(&local.key)),
                },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rialto_protocol::effect::Local;

    use super::*;

    fn put(key: &str) -> Vec<StoreOp> {
        vec![StoreOp::Local(Local { key: key.into(), value: Some(vec![1]) })]
    }

    #[test]
    fn a_durable_transaction_brings_the_earlier_ones_and_a_crash_loses_the_later() {
        let mut disk = Disk::default();
        disk.write(put("a"), Then::Nothing);
        let second = disk.write(put("b"), Then::Stored { token: 1 });
        disk.write(put("c"), Then::Nothing);
        disk.write(put("d"), Then::Nothing);
        assert_eq!(disk.flush(second).len(), 2);
        assert_eq!(disk.crash(1).len(), 1);
        assert_eq!(disk.local.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(disk.pending(), 0);
    }
}
