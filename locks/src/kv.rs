//! What can be asked of the store, and what it answers: the operations of etcd's third API.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest key, bytes.
pub const KEY_BYTES_MAX: usize = 4 << 10;
/// The longest value, bytes: this is coordination, and no database.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// All keys and values together, bytes.
pub const LIVE_BYTES_MAX: usize = 64 << 20;
/// The most operations of one transaction, those within others counted, as etcd has it.
pub const TXN_OPS_MAX: usize = 128;
/// How deep transactions may lie within each other.
pub const TXN_DEPTH_MAX: usize = 4;
/// The most leases.
pub const LEASES_MAX: usize = 65_536;
/// The longest time to live of a lease, seconds, as etcd has it.
pub const TTL_SECONDS_MAX: i64 = 9_000_000_000;

/// One key as it stands, or stood.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyValue {
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
    /// The store's revision when the key was made; it rises with each making: the fencing token.
    pub create_revision: i64,
    /// The store's revision when it was last written.
    pub mod_revision: i64,
    /// How often it was written since it was made.
    pub version: i64,
    /// The lease that it ends with; 0: none.
    pub lease: i64,
}

/// Some bytes, written down as such.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(#[serde(with = "serde_bytes")] pub Vec<u8>);

impl std::borrow::Borrow<[u8]> for Bytes {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// Keys from `key` up to `end`, which is not among them. An empty end: `key` alone; a single zero byte: all that follow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub end: Vec<u8>,
}

impl Span {
    /// One key.
    pub fn one(key: impl Into<Vec<u8>>) -> Self {
        Self { key: key.into(), end: Vec::new() }
    }

    /// All keys that begin so.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let key = prefix.into();
        let mut end = key.clone();
        while let Some(last) = end.pop() {
            if last < u8::MAX {
                end.push(last + 1);
                return Self { key, end };
            }
        }
        // Nothing sorts behind a prefix of the highest bytes alone.
        Self { key, end: vec![0] }
    }

    /// Whether the key is within.
    pub fn contains(&self, key: &[u8]) -> bool {
        match self.end.as_slice() {
            [] => key == self.key,
            [0] => key >= self.key.as_slice(),
            end => key >= self.key.as_slice() && key < end,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    #[default]
    None,
    Ascending,
    Descending,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    #[default]
    Key,
    Version,
    Created,
    Modified,
    Value,
}

/// Reads keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub span: Span,
    /// As it was at this revision; 0: as it is.
    pub revision: i64,
    /// The most keys in the answer; 0: all.
    pub limit: i64,
    pub order: Order,
    pub by: By,
    pub keys_only: bool,
    pub count_only: bool,
    /// 0: no bound, for each of the four.
    pub modified_min: i64,
    pub modified_max: i64,
    pub created_min: i64,
    pub created_max: i64,
}

impl Range {
    /// Everything in a span, as it is.
    pub fn of(span: Span) -> Self {
        Self { span, ..Self::default() }
    }
}

/// Writes a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Put {
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
    pub lease: i64,
    pub want_previous: bool,
    /// The value, or the lease, stays as it is; the key must be there.
    pub keep_value: bool,
    pub keep_lease: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delete {
    pub span: Span,
    pub want_previous: bool,
}

/// What a comparison looks at, and what it is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    Version(i64),
    Created(i64),
    Modified(i64),
    Lease(i64),
    Value(#[serde(with = "serde_bytes")] Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Relation {
    Equal,
    Greater,
    Less,
    NotEqual,
}

/// It holds if it holds of every key in the span; where there is none it is compared with zeros.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    pub span: Span,
    pub relation: Relation,
    pub target: Target,
}

/// If all comparisons hold the first list is done, else the second; at one revision, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Txn {
    pub compare: Vec<Compare>,
    pub success: Vec<Op>,
    pub failure: Vec<Op>,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    Range(Range),
    Put(Put),
    Delete(Delete),
    Txn(Txn),
    /// Makes a lease.
    Grant {
        id: i64,
        ttl_seconds: i64,
    },
    /// Ends a lease, and all keys on it; `expired`: the leader found its time to be over.
    Revoke {
        id: i64,
        expired: bool,
    },
    /// Forgets what keys were before this revision.
    Compact {
        revision: i64,
    },
}

impl Op {
    /// Its weight in the log, bytes, roughly.
    pub fn weight(&self) -> usize {
        const FRAME: usize = 96;
        FRAME
            + match self {
                Op::Put(put) => put.key.len() + put.value.len(),
                Op::Txn(txn) => {
                    let compared: usize = txn.compare.iter().map(|compare| FRAME + compare.span.key.len()).sum();
                    let ops = txn.success.iter().chain(&txn.failure);
                    compared + ops.map(Op::weight).sum::<usize>()
                }
                Op::Range(Range { span, .. }) | Op::Delete(Delete { span, .. }) => span.key.len() + span.end.len(),
                Op::Grant { .. } | Op::Revoke { .. } | Op::Compact { .. } => 0,
            }
    }
}

/// What an operation came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    Range(Found),
    Put {
        previous: Option<Arc<KeyValue>>,
    },
    Delete {
        deleted: i64,
        previous: Vec<Arc<KeyValue>>,
    },
    Txn {
        succeeded: bool,
        answers: Vec<Answer>,
    },
    Granted {
        id: i64,
        ttl_seconds: i64,
    },
    Revoked,
    Compacted,
    /// A lease was renewed, or looked at.
    Lease(LeaseState),
}

/// What a range found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    pub keys: Vec<Arc<KeyValue>>,
    /// How many there are, beyond the limit too.
    pub count: i64,
    pub more: bool,
}

/// A lease as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseState {
    pub id: i64,
    /// What it was granted for, seconds; 0: there is no such lease.
    pub granted_seconds: i64,
    /// What is left of it, ms; -1: there is no such lease.
    pub left_ms: i64,
    /// Its keys, where they were asked for.
    pub keys: Vec<Bytes>,
}

/// An answer, and the store's revision at which it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    pub revision: i64,
    pub answer: Answer,
}

/// Why something was not done. Nothing was changed, except perhaps by [`Refusal::Unknown`]. The words of those that
/// etcd knows are etcd's, since its clients tell errors by them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOps,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
    #[error("etcdserver: mvcc: database space exceeded")]
    NoSpace,
    #[error("etcdserver: request is too large")]
    TooLarge,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: lease already exists")]
    LeaseExists,
    #[error("etcdserver: too large lease TTL")]
    TtlTooLarge,
    #[error("etcdserver: too many requests")]
    Busy,
    /// Nobody leads, or not for long enough to answer in time.
    #[error("etcdserver: no leader")]
    NoLeader,
    /// It may or may not have been done, or may yet be.
    #[error("etcdserver: request timed out, possibly due to previous leader failure")]
    Unknown,
    /// Between voters: whoever was asked does not lead.
    #[error("etcdserver: not leader")]
    NotLeader,
}
