//! What replicas say to each other.

use serde::{Deserialize, Serialize};

use crate::cbor::{self, Unreadable};
use crate::kv::{Applied, Op, Refusal};

/// The most bytes of one parcel: a snapshot of a full store is one.
pub const PARCEL_BYTES_MAX: usize = 192 << 20;

/// What one replica sends another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Parcel {
    /// Of the group: one that was made anew has a higher one, and hears nobody of a lower. The lower half of it is
    /// chance: two groups that are made anew at once are not the same.
    pub epoch: u64,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// Raft's own, in its encoding.
    Raft(#[serde(with = "serde_bytes")] Vec<u8>),
    /// To the leader, in the name of somebody who asked here.
    Ask { id: u64, ask: Ask },
    /// After this entry whoever hears it belongs to the group no more: it may have been away when that was decided, and
    /// nobody else will tell it.
    Gone { index: u64 },
    /// The group was made anew; to whoever speaks for one before.
    Anew,
    /// The leader's answer.
    Told { id: u64, answer: Result<Applied, Refusal> },
}

/// What only the leader can do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// To be put into the log.
    Write(Op),
    /// A lease is to live on.
    Renew(i64),
    /// How a lease stands, with its keys.
    Look(i64),
}

impl Parcel {
    pub fn encode(&self) -> Vec<u8> {
        cbor::encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        cbor::decode(bytes)
    }
}
