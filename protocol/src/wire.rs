//! What peers say to each other, and how it looks in bytes: CBOR (RFC 8949) by one encoder.

use std::sync::Arc;

use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::brain::Stamp;
use crate::ids::{AppId, ClaimId, PeerId};
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
    /// has more of is pulled.
    Digest {
        of: u16,
        ranges: Vec<u16>,
        owners: Vec<(PeerId, Stand)>,
    },
    /// Asks for everything after a number, owner by owner.
    Pull {
        after: Vec<(PeerId, u64)>,
        /// The numbers are how far the lists have come that an answer began and was too long to end.
        on: bool,
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

macro_rules! kinds {
    ($($variant:ident => $name:literal,)*) => {
        impl Message {
            /// The names of all kinds of messages, as they stand on the wire.
            pub const KINDS: [&'static str; [$($name),*].len()] = [$($name),*];

            /// The name of its kind.
            pub fn kind(&self) -> &'static str {
                match self { $(Message::$variant { .. } => $name,)* }
            }
        }
    };
}

kinds! {
    Heartbeat => "heartbeat",
    Frame => "frame",
    Vitals => "vitals",
    Prune => "prune",
    Have => "have",
    Graft => "graft",
    Want => "want",
    Compare => "compare",
    Digest => "digest",
    Pull => "pull",
    Records => "records",
    Keep => "keep",
    Kept => "kept",
    Solicit => "solicit",
    Bid => "bid",
    Decline => "decline",
    Release => "release",
    Award => "award",
    Verdict => "verdict",
    Offer => "offer",
    Go => "go",
    Stop => "stop",
    Move => "move",
    Unfreeze => "unfreeze",
    Told => "told",
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

/// What is held of one owner, in short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stand {
    /// The number that it is complete through.
    pub complete: u64,
    /// A hash over the numbers beyond it that are held all the same; 0: none are.
    pub loose: u64,
    /// A hash over the numbers of all records with a value. Two that are complete through the same number and hold the
    /// same beyond it hold the same; if not, one of them was told that it held everything, and does not.
    pub held: u64,
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
    /// What it had of the lock group has ended.
    Unleased,
    /// Its machine has heard no other for as long as it may run so.
    Isolated,
    /// Its machine's subnet has turned out to be another machine's.
    Readdressed,
    /// A volume that the task uses is on another machine.
    Astray,
    /// A volume that the task uses was given up.
    GivenUp,
    /// Somebody wants it to start anew.
    Restarted,
    /// A later run of its schedule takes its place.
    Replaced,
    /// It has run for longer than its service allows.
    Overdue,
}

/// Vitals with their owner's signature. It covers the bytes as the owner wrote them, and these are handed on: a
/// field that only a later version knows is neither lost on the way nor makes the signature wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct SignedVitals {
    pub owner: PeerId,
    /// What this version reads in the bytes.
    pub vitals: Vitals,
    bytes: Vec<u8>,
    pub signature: Signature,
}

/// Signed vitals on the wire.
#[derive(Serialize, Deserialize)]
struct Written {
    owner: PeerId,
    #[serde(with = "serde_bytes")]
    vitals: Vec<u8>,
    signature: Signature,
}

impl TryFrom<Written> for SignedVitals {
    type Error = DecodeError;

    fn try_from(Written { owner, vitals: bytes, signature }: Written) -> Result<Self, DecodeError> {
        Ok(Self { owner, vitals: decode(&bytes)?, bytes, signature })
    }
}

impl From<SignedVitals> for Written {
    fn from(SignedVitals { owner, bytes, signature, .. }: SignedVitals) -> Self {
        Self { owner, vitals: bytes, signature }
    }
}

impl SignedVitals {
    /// Own vitals, signed as [`vitals_to_sign`] says.
    pub fn new(owner: PeerId, vitals: Vitals, signature: Signature) -> Self {
        Self { owner, bytes: encode(&vitals), vitals, signature }
    }

    /// What the owner must have signed.
    pub fn signed(&self) -> [u8; 32] {
        bytes_to_sign(&self.owner, &self.bytes)
    }
}

/// What a peer signs to vouch for its vitals.
pub fn vitals_to_sign(owner: &PeerId, vitals: &Vitals) -> [u8; 32] {
    bytes_to_sign(owner, &encode(vitals))
}

fn bytes_to_sign(owner: &PeerId, bytes: &[u8]) -> [u8; 32] {
    let mut hash = blake3::Hasher::new_derive_key("rialto vitals 1");
    hash.update(&owner.0);
    hash.update(bytes);
    *hash.finalize().as_bytes()
}

/// Every live record and tombstone of one owner with a number in `after + 1 ..= through`. The records prove themselves;
/// that these are all nobody signs, and it is believed with care (see [`crate::ledger::replica`]).
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
    /// They do not follow by themselves: the exchange was long enough, and the rest is to be asked for.
    pub cut: bool,
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

/// What came from a peer, frame by frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Came {
    Message(Message),
    /// Sound, and of a kind, or with a content, that only a later version knows: this much of its name.
    Unknown(String),
}

/// Reads what a peer sent. What a later version says is no error: a peer of this version goes without it.
pub fn receive(bytes: &[u8]) -> Result<Came, DecodeError> {
    decode(bytes).map(Came::Message).or_else(|unread| match decode::<Shape>(bytes) {
        Ok(Shape(name)) => Ok(Came::Unknown(name.chars().take(NAME_CHARS_MAX).collect())),
        Err(_) => Err(unread),
    })
}

/// So much of an unknown message's name is kept.
const NAME_CHARS_MAX: usize = 32;

/// What every message of every version is: a name, or a map of one name to whatever belongs to it.
struct Shape(String);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Outline;

        impl<'de> Visitor<'de> for Outline {
            type Value = Shape;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a message")
            }

            fn visit_str<E>(self, name: &str) -> Result<Shape, E> {
                Ok(Shape(name.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
                let unnamed = || serde::de::Error::custom("no name");
                let (name, IgnoredAny) = map.next_entry::<String, IgnoredAny>()?.ok_or_else(unnamed)?;
                match map.next_key::<IgnoredAny>()? {
                    None => Ok(Shape(name)),
                    Some(IgnoredAny) => Err(serde::de::Error::custom("two names")),
                }
            }
        }

        from.deserialize_any(Outline)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// As a later version may say it.
    #[derive(Serialize)]
    #[serde(rename_all = "snake_case")]
    enum Later {
        Sing { verses: Vec<u64> },
        Hush,
        Stop { claim: ClaimId, app: AppId, why: &'static str },
    }

    #[test]
    fn what_a_later_version_says_is_told_from_what_makes_no_sense() {
        let app = AppId { namespace: "default".into(), name: "shop".into(), generation: 0 };
        let unknown = [
            (Later::Sing { verses: vec![1, 2] }, "sing"),
            (Later::Hush, "hush"),
            (Later::Stop { claim: ClaimId([1; 16]), app, why: "bored" }, "stop"),
        ];
        for (message, name) in unknown {
            assert_eq!(receive(&encode(&message)).unwrap(), Came::Unknown(name.into()));
        }
        let long = "x".repeat(10_000);
        assert_eq!(receive(&encode(&long)).unwrap(), Came::Unknown("x".repeat(NAME_CHARS_MAX)));
        assert_eq!(receive(&encode(&Message::Unfreeze)).unwrap(), Came::Message(Message::Unfreeze));
        let two: BTreeMap<&str, u8> = [("prune", 1), ("want", 2)].into();
        let whole = encode(&Later::Sing { verses: vec![1] });
        for nonsense in [&b""[..], b"\xff", &encode(&7u8), &encode(&two), &whole[..whole.len() - 1]] {
            assert!(receive(nonsense).is_err(), "{nonsense:?}");
        }
    }

    #[test]
    fn kinds_are_named_as_on_the_wire() {
        for message in [Message::Prune, Message::Want(vec![1]), Message::Kept { token: 1, applicable: true }] {
            let Ok(Shape(name)) = decode::<Shape>(&encode(&message)) else { panic!("{message:?} has a name") };
            assert_eq!(name, message.kind());
        }
    }

    /// Vitals as a later version writes them.
    #[derive(Serialize)]
    struct LaterVitals {
        mood: &'static str,
        #[serde(flatten)]
        vitals: BTreeMap<&'static str, u64>,
        used: crate::model::Resources,
        images: Vec<String>,
    }

    #[test]
    fn vitals_pass_through_an_older_version_as_they_were_signed() {
        let numbers = [("started", 1), ("counter", 2), ("at", 3), ("load_millis", 4)].into();
        let later = LaterVitals { mood: "good", vitals: numbers, used: Default::default(), images: vec![] };
        let (owner, bytes, signature) = (PeerId([1; 32]), encode(&later), Signature([2; 64]));
        let sent = encode(&Written { owner, vitals: bytes.clone(), signature });
        let read: SignedVitals = decode(&sent).unwrap();
        assert_eq!((read.vitals.counter, read.vitals.load_millis), (2, 4));
        assert_eq!(read.signed(), bytes_to_sign(&owner, &bytes));
        assert_eq!(encode(&read), sent);
    }

    proptest! {
        #[test]
        fn nothing_that_comes_makes_a_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = receive(&bytes);
        }
    }
}
