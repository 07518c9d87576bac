//! What peers say to each other, and how it looks in bytes: CBOR (RFC 8949) by one encoder.

use std::sync::Arc;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::brain::Stamp;
use crate::ids::{AppId, BidId, ClaimId, PeerId};
use crate::ledger::record::{Frame, Signature, Stored};
use crate::market::wire::{Award, Bid, Decline, Offer, Release, Solicit, Verdict};
use crate::model::Vitals;

/// The version of everything here; peers agree on one when a stream is opened.
pub const PROTOCOL: u32 = 1;
/// The most bytes of one message; a longer one is refused before it is read.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// One message from a peer to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Between observer and observed, each second.
    Heartbeat {
        life: u64,
        clock: Stamp,
    },
    /// Fresh records of somebody, pushed once over each standing link.
    Frame(Arc<Frame>),
    /// Fresh vitals of somebody.
    Vitals(Vec<Arc<SignedVitals>>),
    /// Whoever sent this wants no more than [`Message::Have`] over the link.
    Prune,
    /// The numbers of what there is.
    Have(Arc<Have>),
    /// From now on the link is to bring everything; and asks for what is missing after a number, owner by owner.
    Graft {
        after: Vec<(PeerId, u64)>,
    },
    /// Asks for the newest vitals of some, by their places on the ring.
    Want(Vec<u64>),
    /// Opens anti-entropy: hashes over what the sender holds, by ranges of the ring.
    Compare {
        sums: Vec<u64>,
        /// What the sender holds of the receiver: a number that the receiver never wrote, or wrote otherwise, means
        /// that its disk is an old one.
        yours: Mark,
    },
    /// What the sender holds in the ranges that differ, of so many: what it lacks is sent back, what it
    /// has more of is pulled. For each owner the number that it is complete through, and a hash over the numbers
    /// beyond it that it holds all the same.
    Digest {
        of: u16,
        ranges: Vec<u16>,
        owners: Vec<(PeerId, u64, u64)>,
    },
    /// Asks for everything after a number, owner by owner.
    Pull {
        after: Vec<(PeerId, u64)>,
    },
    /// Answers a pull.
    Records(Records),
    /// "Make this durable, and tell me": the second and third copy of an accepted change.
    Keep {
        token: u64,
        records: Vec<Arc<Stored>>,
    },
    /// Durable here; `applicable`: with everything it depends on.
    Kept {
        token: u64,
        applicable: bool,
    },
    /// The market (see [`crate::market`]).
    Solicit(Arc<Solicit>),
    Bid(Bid),
    Decline(Decline),
    Release(Release),
    Award(Arc<Award>),
    Verdict(Verdict),
    Offer(Offer),
    /// A steward tells a member of a gang to start: all of the gang are accepted.
    Go {
        claim: ClaimId,
        app: AppId,
    },
    /// A steward asks the owner of a claim to end it.
    Stop {
        claim: ClaimId,
        app: AppId,
        why: StopReason,
    },
    /// A person wants a task moved: to the app's steward.
    Move {
        app: AppId,
        claim: ClaimId,
        to: PeerId,
    },
    /// A person opens the storm gate: what is down is given up at once.
    Unfreeze,
    /// The newest version of records that the receiver waits for, ahead of the frame.
    Told(Vec<Arc<Stored>>),
}

/// What there is, by the owner's place on the ring, which is a quarter of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Have {
    /// The number of the last record.
    pub frames: Vec<(u64, u64)>,
    /// The age of the vitals: they rise with each.
    pub vitals: Vec<(u64, u64)>,
}

/// One write of an owner: its number, and the beginning of the signature that it stands under. 0: not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    pub seq: u64,
    pub head: u64,
}

/// Why a steward has a claim ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Nobody wants it any more.
    Unwanted,
    /// Another claim of the same task goes on.
    Duplicate,
    /// Its service has a newer revision.
    Outdated,
    /// Its machine is draining.
    Draining,
    /// Work of a higher priority takes its room.
    Preempted,
    /// Its gang did not come together.
    Ungathered,
    /// Its machine has heard no other for as long as it may run so.
    Isolated,
}

/// Vitals with their owner's signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedVitals {
    pub owner: PeerId,
    pub vitals: Vitals,
    pub signature: Signature,
}

impl SignedVitals {
    /// What the owner must have signed.
    pub fn signed(&self) -> [u8; 32] {
        vitals_to_sign(&self.owner, &self.vitals)
    }
}

/// What a peer signs to vouch for its vitals.
pub fn vitals_to_sign(owner: &PeerId, vitals: &Vitals) -> [u8; 32] {
    let mut hash = blake3::Hasher::new_derive_key("rialto vitals 1");
    hash.update(&owner.0);
    hash.update(&encode(vitals));
    *hash.finalize().as_bytes()
}

/// Every live record and tombstone of one owner with a number in `after + 1 ..= through`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Records {
    pub owner: PeerId,
    pub after: u64,
    pub through: u64,
    /// Not 0: the asker was below the owner's floor, which this is, and of the numbers in the
    /// range it keeps only these records.
    pub replaces_below: u64,
    /// Beside those in the range there may be some beyond `through`, between which others are missing.
    pub records: Vec<Arc<Stored>>,
    /// There are more after `through`.
    pub more: bool,
}

/// CBOR of any value of ours.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    cbor4ii::serde::to_vec(Vec::new(), value).expect("our types have no map keys or lengths that CBOR lacks")
}

/// As [`encode`], to a writer that does not fail.
pub fn encode_to<T: Serialize>(writer: &mut impl std::io::Write, value: &T) {
    let written = cbor4ii::serde::to_writer(writer, value);
    debug_assert!(written.is_ok(), "our types have no map keys or lengths that CBOR lacks: {written:?}");
}

/// Why bytes are no value of ours.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not the CBOR that was expected: {0}")]
    Cbor(String),
    #[error("{0} bytes where at most {1} are allowed")]
    TooLong(usize, usize),
}

/// Reads what [`encode`] wrote. Fields that are not known are passed over.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    if bytes.len() > MESSAGE_BYTES_MAX {
        return Err(DecodeError::TooLong(bytes.len(), MESSAGE_BYTES_MAX));
    }
    cbor4ii::serde::from_slice(bytes).map_err(|error| DecodeError::Cbor(error.to_string()))
}

/// The name of a bid's owner and number, for logs.
pub fn bid_name(bid: &BidId) -> String {
    bid.hex()[..8].to_string()
}
