//! The store that the log makes: keys with revisions, and leases. Two replicas that have applied the same entries hold
//! the same bytes.

mod check;
mod history;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::cbor::{self, Unreadable};
use crate::kv::{Answer, Applied, Bytes, Delete, KeyValue, LEASES_MAX, Op, Put, Refusal, TTL_SECONDS_MAX, Txn};
use history::History;
pub use history::{CHANGES_MAX, Change, HISTORY_BYTES_MAX};

/// What a key costs beside its bytes.
pub const KEY_OVERHEAD_BYTES: usize = 64;
/// A new group's revisions begin so far above those of the group that it was made from: tokens go on rising, though
/// the last of the old group's may be lost.
pub const EPOCH_STRIDE: i64 = 1 << 40;

/// A lease, as far as the log decides it. When it ends is the leader's to find, see [`crate::lessor`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    pub ttl_seconds: i64,
    keys: BTreeSet<Bytes>,
}

impl Lease {
    /// The keys that end with it.
    pub fn keys(&self) -> impl Iterator<Item = &[u8]> {
        self.keys.iter().map(|key| key.0.as_slice())
    }
}

/// Keys, leases, and what keys were before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// That of the last change. An empty store has 1, as etcd's has.
    revision: i64,
    keys: BTreeMap<Bytes, Arc<KeyValue>>,
    leases: BTreeMap<i64, Lease>,
    history: History,
    live_bytes: usize,
}

impl Default for Store {
    fn default() -> Self {
        let (keys, leases) = (BTreeMap::new(), BTreeMap::new());
        Self { revision: 1, keys, leases, history: History::default(), live_bytes: 0 }
    }
}

impl Store {
    /// The revision of the last change.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// What keys were before the change behind this one is not known any more.
    pub fn compacted(&self) -> i64 {
        self.history.compacted()
    }

    /// How many keys there are, and what they come to in bytes.
    pub fn size(&self) -> (usize, usize) {
        (self.keys.len(), self.live_bytes)
    }

    /// What is remembered of before, in bytes.
    pub fn history_bytes(&self) -> usize {
        self.history.bytes()
    }

    pub fn lease(&self, id: i64) -> Option<&Lease> {
        self.leases.get(&id)
    }

    pub fn leases(&self) -> impl Iterator<Item = (i64, &Lease)> {
        self.leases.iter().map(|(id, lease)| (*id, lease))
    }

    /// Everything, to be taken elsewhere.
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        cbor::decode(bytes)
    }

    /// The store of a group that is made anew from what one replica has: what was known before a change is forgotten,
    /// and revisions go on far above any that the old group can have given out.
    pub fn reborn(mut self) -> Self {
        self.revision = (self.revision / EPOCH_STRIDE + 1) * EPOCH_STRIDE;
        self.history.forget_to(self.revision);
        self
    }

    /// Does one operation, whole or not at all.
    pub fn apply(&mut self, op: &Op) -> Result<Applied, Refusal> {
        let answer = match op {
            Op::Grant { id, ttl_seconds } => self.grant(*id, *ttl_seconds)?,
            Op::Revoke { id, .. } => self.revoke(*id)?,
            Op::Compact { revision } => self.compact(*revision)?,
            Op::Range(_) | Op::Put(_) | Op::Delete(_) | Op::Txn(_) => {
                let branches = self.check(op)?;
                let revision = self.revision + 1;
                let answer = self.perform(op, &mut branches.into_iter(), revision);
                if self.history.last_revision() == Some(revision) {
                    self.revision = revision;
                }
                answer
            }
        };
        self.history.trim();
        Ok(Applied { revision: self.revision, answer })
    }

    /// Does what was checked. `branches` has, in the order in which they are met, which way each transaction goes.
    fn perform(&mut self, op: &Op, branches: &mut std::vec::IntoIter<bool>, revision: i64) -> Answer {
        match op {
            Op::Range(range) => Answer::Range(self.find(range, revision)),
            Op::Put(put) => self.put(put, revision),
            Op::Delete(delete) => self.delete(delete, revision),
            Op::Txn(Txn { success, failure, .. }) => {
                let succeeded = branches.next().unwrap_or(false);
                let ops = if succeeded { success } else { failure };
                let answers = ops.iter().map(|op| self.perform(op, branches, revision)).collect();
                Answer::Txn { succeeded, answers }
            }
            // `check` has refused them.
            Op::Grant { .. } | Op::Revoke { .. } | Op::Compact { .. } => Answer::Compacted,
        }
    }

    fn put(&mut self, put: &Put, revision: i64) -> Answer {
        let previous = self.keys.get(put.key.as_slice()).cloned();
        let kept = previous.as_deref();
        let value = if put.keep_value { kept.map(|kept| kept.value.clone()) } else { Some(put.value.clone()) };
        let lease = if put.keep_lease { kept.map_or(0, |kept| kept.lease) } else { put.lease };
        let key = KeyValue {
            key: put.key.clone(),
            value: value.unwrap_or_default(),
            create_revision: kept.map_or(revision, |kept| kept.create_revision),
            mod_revision: revision,
            version: kept.map_or(1, |kept| kept.version + 1),
            lease,
        };
        if let Some(old) = kept {
            self.unhang(old);
        }
        if let Some(lease) = self.leases.get_mut(&lease) {
            lease.keys.insert(Bytes(put.key.clone()));
        }
        let key = Arc::new(key);
        self.live_bytes += cost(&key);
        self.live_bytes -= previous.as_deref().map_or(0, cost);
        self.keys.insert(Bytes(put.key.clone()), key.clone());
        self.history.push(Change { revision, key: Some(key), previous: previous.clone() });
        Answer::Put { previous: previous.filter(|_| put.want_previous) }
    }

    fn delete(&mut self, delete: &Delete, revision: i64) -> Answer {
        let found: Vec<Arc<KeyValue>> = self.within(&delete.span).cloned().collect();
        for key in &found {
            self.remove(key, revision);
        }
        let deleted = found.len() as i64;
        Answer::Delete { deleted, previous: if delete.want_previous { found } else { Vec::new() } }
    }

    fn remove(&mut self, key: &Arc<KeyValue>, revision: i64) {
        self.keys.remove(key.key.as_slice());
        self.live_bytes -= cost(key);
        self.unhang(key);
        self.history.push(Change { revision, key: None, previous: Some(key.clone()) });
    }

    /// A key is not on its lease any more.
    fn unhang(&mut self, key: &KeyValue) {
        if let Some(lease) = self.leases.get_mut(&key.lease) {
            lease.keys.remove(key.key.as_slice());
        }
    }

    fn grant(&mut self, id: i64, ttl_seconds: i64) -> Result<Answer, Refusal> {
        if ttl_seconds > TTL_SECONDS_MAX {
            return Err(Refusal::TtlTooLarge);
        }
        if id == 0 || self.leases.contains_key(&id) {
            return Err(Refusal::LeaseExists);
        }
        if self.leases.len() >= LEASES_MAX {
            return Err(Refusal::NoSpace);
        }
        let ttl_seconds = ttl_seconds.max(1);
        self.leases.insert(id, Lease { ttl_seconds, keys: BTreeSet::new() });
        Ok(Answer::Granted { id, ttl_seconds })
    }

    fn revoke(&mut self, id: i64) -> Result<Answer, Refusal> {
        let lease = self.leases.remove(&id).ok_or(Refusal::LeaseNotFound)?;
        let revision = self.revision + 1;
        for key in &lease.keys {
            if let Some(key) = self.keys.get(key.0.as_slice()).cloned() {
                self.remove(&key, revision);
                self.revision = revision;
            }
        }
        Ok(Answer::Revoked)
    }

    fn compact(&mut self, revision: i64) -> Result<Answer, Refusal> {
        if revision > self.revision {
            return Err(Refusal::FutureRevision);
        }
        if revision <= self.history.compacted() {
            return Err(Refusal::Compacted);
        }
        self.history.forget_to(revision);
        Ok(Answer::Compacted)
    }

    /// What changed at this revision and later, in order; at most so many, but whole revisions.
    ///
    /// # Errors
    ///
    /// Some of it is forgotten.
    pub fn changes(&self, from: i64, at_most: usize) -> Result<Vec<Change>, Refusal> {
        self.history.since(from, at_most)
    }
}

fn cost(key: &KeyValue) -> usize {
    key.key.len() + key.value.len() + KEY_OVERHEAD_BYTES
}
