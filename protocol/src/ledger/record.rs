//! Records, the frames they travel in, and the proof that each keeps of its owner's hand.
//!
//! An owner signs a frame once: the signature covers its key, the number before the first record
//! and the root of a Merkle tree over the records' hashes (RFC 6962 shape, blake3). Each stored
//! record keeps that number, its path and the signature, so that anyone can prove any record of
//! anyone, also of the departed. Signatures are made and checked outside the brain.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::document::Document;
use super::memo::Memo;
use super::readings::{Posting, Reading};
use super::replica::Step;
use crate::ids::PeerId;
use crate::wire;

/// The most bytes of records in one frame.
pub const FRAME_BYTES_MAX: usize = 16 << 10;
/// The most bytes of one record.
pub const VALUE_BYTES_MAX: usize = 256 << 10;
/// The most records in one frame.
pub const FRAME_RECORDS_MAX: usize = 256;

/// What a record is about. Numbers are wire and disk format; unknown ones are kept and forwarded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kind(pub u8);

impl Kind {
    pub const MACHINE: Kind = Kind(1);
    pub const CLAIM: Kind = Kind(2);
    pub const VERDICT: Kind = Kind(3);
    pub const CHANGE: Kind = Kind(4);
    pub const STEWARDSHIP: Kind = Kind(5);
    pub const ADMISSION: Kind = Kind(6);
    pub const DEPARTURE: Kind = Kind(7);
    pub const VOLUME: Kind = Kind(8);
    pub const IMAGE: Kind = Kind(9);
    pub const QUOTA: Kind = Kind(10);
    pub const EVENT: Kind = Kind(11);
    pub const RELEASE: Kind = Kind(21);
    pub const SECRET: Kind = Kind(22);
    pub const SEAL: Kind = Kind(23);

    /// The kind's name; `unknown` for one of a later version.
    pub fn name(self) -> &'static str {
        match self {
            Kind::MACHINE => "machine",
            Kind::CLAIM => "claim",
            Kind::VERDICT => "verdict",
            Kind::CHANGE => "change",
            Kind::STEWARDSHIP => "stewardship",
            Kind::ADMISSION => "admission",
            Kind::DEPARTURE => "departure",
            Kind::VOLUME => "volume",
            Kind::IMAGE => "image",
            Kind::QUOTA => "quota",
            Kind::EVENT => "event",
            Kind::RELEASE => "release",
            Kind::SECRET => "secret",
            Kind::SEAL => "seal",
            _ => "unknown",
        }
    }
}

/// The name of a record among its owner's: a key has one live version.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RecordKey {
    pub kind: Kind,
    pub id: Arc<str>,
}

/// One version of one record, whole.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    pub owner: PeerId,
    pub key: RecordKey,
    /// The owner's count of writes: it alone orders versions.
    pub seq: u64,
    /// The owner's wall clock, ms: serves ages and people, orders nothing.
    pub stamp: u64,
    /// The schema of `value`.
    pub schema: u16,
    /// CBOR; `None` is a tombstone.
    #[serde(with = "serde_bytes")]
    pub value: Option<Vec<u8>>,
}

/// The present schema of every kind's value.
pub const SCHEMA: u16 = 1;

/// A blake3 hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hash(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// An ed25519 signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Signature(#[serde(with = "serde_bytes")] pub [u8; 64]);

impl Signature {
    /// Its beginning: enough to tell it from any other of one owner.
    pub fn head(&self) -> u64 {
        u64::from_le_bytes(self.0[..8].try_into().expect("a signature is longer"))
    }
}

impl Record {
    /// The hash that stands for this record in its frame's tree.
    pub fn hash(&self) -> Hash {
        let mut hash = blake3::Hasher::new();
        hash.update(&[0]);
        hash.update(&wire::encode(self));
        Hash(*hash.finalize().as_bytes())
    }

    /// Roughly what the record takes on the wire, in bytes.
    pub fn size(&self) -> usize {
        self.value.as_ref().map_or(0, Vec::len) + self.key.id.len() + 64
    }
}

/// What a record needs to be proved alone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proof {
    /// The number before the first record of the frame.
    pub prev: u64,
    /// Siblings from the leaf to the root; `true`: the sibling stands on the left.
    pub path: Vec<(bool, Hash)>,
    pub signature: Signature,
}

/// A record with its proof: what a ledger holds and a peer hands on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stored {
    pub record: Arc<Record>,
    pub proof: Proof,
    /// What the value says, once it was read.
    #[serde(skip)]
    reading: Memo<Reading>,
    /// What an app's document becomes by it, where peers in one process share that.
    #[serde(skip)]
    pub(crate) edition: Memo<Edition>,
    /// The same of its owner's account.
    #[serde(skip)]
    pub(crate) posting: Memo<Posting>,
}

/// A document before and after a change.
#[derive(Debug)]
pub(crate) struct Edition {
    pub before: Option<Arc<Document>>,
    pub after: Arc<Document>,
}

impl Stored {
    pub fn new(record: Arc<Record>, proof: Proof) -> Self {
        Self { record, proof, reading: Memo::default(), edition: Memo::default(), posting: Memo::default() }
    }

    /// What the value says, read once however many ask.
    pub fn reading(&self) -> &Reading {
        self.reading.get(|| Reading::of(&self.record))
    }

    /// What the owner must have signed for this record to be its own.
    pub fn signed(&self) -> [u8; 32] {
        let mut root = self.record.hash();
        for (left, sibling) in &self.proof.path {
            root = if *left { branch(sibling, &root) } else { branch(&root, sibling) };
        }
        to_sign(&self.record.owner, self.proof.prev, &root)
    }
}

/// One place in a frame.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Entry {
    /// The record itself.
    Whole(Arc<Record>),
    /// A record too large for a frame: its hash; it is asked for over a stream.
    Apart(Hash),
}

/// Consecutive records of one owner, signed together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Frame {
    pub owner: PeerId,
    /// The number before the first record: the entries are `prev + 1`, `prev + 2`, …
    pub prev: u64,
    pub entries: Vec<Entry>,
    pub signature: Signature,
    #[serde(skip)]
    leaves: Memo<Vec<Hash>>,
    #[serde(skip)]
    stored: Memo<Vec<Arc<Stored>>>,
    /// What taking it makes of what is held of its owner.
    #[serde(skip)]
    pub(super) step: Memo<Step>,
}

impl Frame {
    /// The number of the last record.
    pub fn last(&self) -> u64 {
        self.prev.saturating_add(self.entries.len() as u64)
    }

    /// Whether it says that somebody lives, or does not, or is a member no more.
    pub fn tells_of_life(&self) -> bool {
        let tells = |record: &Record| match record.key.kind {
            Kind::MACHINE | Kind::DEPARTURE => true,
            Kind::VERDICT => record.value.is_some(),
            _ => false,
        };
        self.entries.iter().any(|entry| matches!(entry, Entry::Whole(record) if tells(record)))
    }

    /// What the owner must have signed.
    pub fn signed(&self) -> [u8; 32] {
        to_sign(&self.owner, self.prev, &root(self.leaves()))
    }

    fn leaves(&self) -> &[Hash] {
        self.leaves.get(|| self.entries.iter().map(Entry::hash).collect())
    }

    /// Whether the frame hangs together: bounds, one owner, numbers in order.
    pub fn is_sound(&self) -> bool {
        let numbered = |(n, entry): (usize, &Entry)| match entry {
            Entry::Whole(record) => record.owner == self.owner && record.seq == self.prev + 1 + n as u64,
            Entry::Apart(_) => true,
        };
        (1..=FRAME_RECORDS_MAX).contains(&self.entries.len())
            && self.prev < u64::MAX - FRAME_RECORDS_MAX as u64
            && self.entries.iter().enumerate().all(numbered)
    }

    /// Each record that is here whole, with its proof; made once, and shared by all who hold this frame.
    pub fn stored(&self) -> &[Arc<Stored>] {
        self.stored.get(|| {
            let whole = |(entry, path): (&Entry, _)| match entry {
                Entry::Whole(record) => {
                    let proof = Proof { prev: self.prev, path, signature: self.signature };
                    Some(Arc::new(Stored::new(Arc::clone(record), proof)))
                }
                Entry::Apart(_) => None,
            };
            self.entries.iter().zip(paths(self.leaves())).filter_map(whole).collect()
        })
    }

    /// Roughly what the frame's records take, in bytes.
    pub fn size(&self) -> usize {
        let size = |entry: &Entry| if let Entry::Whole(record) = entry { record.size() } else { 64 };
        self.entries.iter().map(size).sum()
    }
}

impl Entry {
    fn hash(&self) -> Hash {
        match self {
            Entry::Whole(record) => record.hash(),
            Entry::Apart(hash) => *hash,
        }
    }
}

/// Cuts consecutive records into frames that keep the bounds, yet without signatures; with each
/// frame come the proofs of all its records, those that stand apart included.
#[derive(Clone, Debug)]
pub struct Draft {
    pub owner: PeerId,
    pub prev: u64,
    pub records: Vec<Arc<Record>>,
}

impl Draft {
    /// Cuts `records`, which follow `prev` without a gap.
    pub fn cut(owner: PeerId, prev: u64, records: Vec<Arc<Record>>) -> Vec<Draft> {
        let mut drafts: Vec<Draft> = Vec::new();
        let mut size = 0;
        for record in records {
            let fits = drafts.last().is_some_and(|draft| {
                draft.records.len() < FRAME_RECORDS_MAX && size + record.size() <= FRAME_BYTES_MAX
            });
            if !fits {
                let prev = drafts.last().map_or(prev, |draft| draft.prev + draft.records.len() as u64);
                drafts.push(Draft { owner, prev, records: Vec::new() });
                size = 0;
            }
            size += record.size();
            drafts.last_mut().expect("one was pushed").records.push(record);
        }
        drafts
    }

    /// What is to be signed.
    pub fn to_sign(&self) -> [u8; 32] {
        to_sign(&self.owner, self.prev, &root(&self.leaves()))
    }

    /// The frame for the wire, and every record as it is stored.
    pub fn seal(self, signature: Signature) -> (Frame, Vec<Arc<Stored>>) {
        let leaves = self.leaves();
        let paths = paths(&leaves);
        let stored = self.records.iter().zip(paths).map(|(record, path)| {
            let proof = Proof { prev: self.prev, path, signature };
            Arc::new(Stored::new(Arc::clone(record), proof))
        });
        let stored: Vec<Arc<Stored>> = stored.collect();
        let entry = |record: Arc<Record>| {
            if record.size() > FRAME_BYTES_MAX { Entry::Apart(record.hash()) } else { Entry::Whole(record) }
        };
        let entries = self.records.into_iter().map(entry).collect();
        let whole = stored.iter().filter(|one| one.record.size() <= FRAME_BYTES_MAX).cloned().collect();
        let (leaves, held) = (Memo::of(leaves), Memo::of(whole));
        (
            Frame {
                owner: self.owner,
                prev: self.prev,
                entries,
                signature,
                leaves,
                stored: held,
                step: Memo::default(),
            },
            stored,
        )
    }

    fn leaves(&self) -> Vec<Hash> {
        self.records.iter().map(|record| record.hash()).collect()
    }
}

fn to_sign(owner: &PeerId, prev: u64, root: &Hash) -> [u8; 32] {
    let mut hash = blake3::Hasher::new_derive_key("rialto frame 1");
    hash.update(&owner.0);
    hash.update(&prev.to_le_bytes());
    hash.update(&root.0);
    *hash.finalize().as_bytes()
}

fn branch(left: &Hash, right: &Hash) -> Hash {
    let mut hash = blake3::Hasher::new();
    hash.update(&[1]);
    hash.update(&left.0);
    hash.update(&right.0);
    Hash(*hash.finalize().as_bytes())
}

/// The root of the tree; a last leaf without a sibling rises as it is.
fn root(leaves: &[Hash]) -> Hash {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        level = level.chunks(2).map(|pair| pair.get(1).map_or(pair[0], |right| branch(&pair[0], right))).collect();
    }
    level.first().copied().unwrap_or(Hash([0; 32]))
}

/// Each leaf's path to the root.
fn paths(leaves: &[Hash]) -> Vec<Vec<(bool, Hash)>> {
    let mut paths = vec![Vec::new(); leaves.len()];
    let mut level = leaves.to_vec();
    let mut width = 1;
    while level.len() > 1 {
        for (leaf, path) in paths.iter_mut().enumerate() {
            let at = leaf / width;
            if let Some(sibling) = level.get(at ^ 1) {
                path.push((at % 2 == 1, *sibling));
            }
        }
        level = level.chunks(2).map(|pair| pair.get(1).map_or(pair[0], |right| branch(&pair[0], right))).collect();
        width *= 2;
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(seq: u64, bytes: usize) -> Arc<Record> {
        let key = RecordKey { kind: Kind::EVENT, id: format!("{seq}").into() };
        Arc::new(Record { owner: PeerId([1; 32]), key, seq, stamp: 0, schema: SCHEMA, value: Some(vec![7; bytes]) })
    }

    proptest! {
        #[test]
        fn every_record_of_a_frame_is_proved_alone(sizes in prop::collection::vec(0usize..20_000, 1..40), prev in 0u64..1000) {
            let records: Vec<_> = sizes.iter().enumerate().map(|(n, size)| record(prev + 1 + n as u64, *size)).collect();
            let drafts = Draft::cut(PeerId([1; 32]), prev, records.clone());
            let mut seen = Vec::new();
            let mut next = prev;
            for draft in drafts {
                prop_assert_eq!(draft.prev, next);
                let signed = draft.to_sign();
                let (frame, stored) = draft.seal(Signature([0; 64]));
                prop_assert!(frame.is_sound());
                prop_assert_eq!(frame.signed(), signed);
                next = frame.last();
                for one in &stored {
                    prop_assert_eq!(one.signed(), signed);
                }
                for one in frame.clone().stored() {
                    prop_assert!(stored.contains(one));
                }
                seen.extend(stored.into_iter().map(|one| one.record.clone()));
            }
            prop_assert_eq!(seen, records);
        }
    }

    #[test]
    fn a_changed_record_proves_nothing() {
        let draft = Draft { owner: PeerId([1; 32]), prev: 0, records: (1..=5).map(|n| record(n, 10)).collect() };
        let signed = draft.to_sign();
        let (_, stored) = draft.seal(Signature([0; 64]));
        let mut forged = Stored::clone(&stored[3]);
        Arc::make_mut(&mut forged.record).value = Some(vec![8; 10]);
        assert_ne!(forged.signed(), signed);
    }
}
