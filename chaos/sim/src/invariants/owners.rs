//! P3: owners only. A number of an owner names one record for ever; what is sent is durable where
//! it was written; nobody signs for another.
//!
//! That what everybody holds is what its owner wrote follows from the signatures, which nobody in
//! the virtual world can make but the owner's own driver.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rialto_protocol::ids::PeerId;
use rialto_protocol::ledger::record::{Draft, Signature, Stored};
use rialto_protocol::wire::Message;

/// What every owner has written.
#[derive(Debug, Default)]
pub struct Owners {
    /// By owner: its durable records, by number, each with the beginning of its hash.
    written: BTreeMap<PeerId, BTreeMap<u64, [u8; 8]>>,
    /// Identities whose disks were put back to an earlier state: a number of theirs may name two records.
    forked: BTreeSet<PeerId>,
    /// Every signature by its beginning, and whether what it covers is durable.
    signatures: HashMap<[u8; 16], bool>,
}

fn head(signature: &Signature) -> [u8; 16] {
    signature.0[..16].try_into().expect("a signature is longer")
}

impl Owners {
    /// The highest number that an owner has made durable.
    pub fn last(&self, owner: &PeerId) -> u64 {
        self.written.get(owner).and_then(BTreeMap::last_key_value).map_or(0, |(seq, _)| *seq)
    }

    /// From now on this owner may use numbers again.
    pub fn forked(&mut self, owner: PeerId) {
        self.forked.insert(owner);
    }

    /// Whether the owner's disk was ever put back to an earlier state.
    pub fn is_forked(&self, owner: &PeerId) -> bool {
        self.forked.contains(owner)
    }

    /// Whether the owner wrote this very record.
    pub fn wrote(&self, stored: &Stored) -> bool {
        let record = &stored.record;
        let written = self.written.get(&record.owner).and_then(|records| records.get(&record.seq));
        written.is_some_and(|hash| *hash == record.hash().0[..8])
    }

    pub fn signed(
        &mut self,
        machine: usize,
        owner: &PeerId,
        draft: &Draft,
        signature: &Signature,
    ) -> Result<(), String> {
        if draft.owner != *owner || draft.records.iter().any(|record| record.owner != *owner) {
            return Err(format!("m{machine} has records of another signed as its own"));
        }
        for (n, record) in draft.records.iter().enumerate() {
            let seq = record.seq;
            if seq != draft.prev + 1 + n as u64 {
                return Err(format!("m{machine} numbers a record {seq} in a frame that follows {}", draft.prev));
            }
            let used = self.written.get(owner).is_some_and(|records| records.contains_key(&seq));
            if used && !self.is_forked(owner) {
                return Err(format!("m{machine} uses number {seq} again, for {:?}", record.key));
            }
        }
        self.signatures.entry(head(signature)).or_insert(false);
        Ok(())
    }

    pub fn durable(&mut self, machine: usize, owner: &PeerId, stored: &Stored) -> Result<(), String> {
        let record = &stored.record;
        if record.owner != *owner {
            return Err(format!("m{machine} commits a record of another"));
        }
        let mut hash = [0; 8];
        hash.copy_from_slice(&record.hash().0[..8]);
        self.signatures.insert(head(&stored.proof.signature), true);
        match self.written.entry(*owner).or_default().insert(record.seq, hash) {
            Some(other) if other != hash && !self.is_forked(owner) => {
                Err(format!("m{machine} wrote two records under number {}", record.seq))
            }
            _ => Ok(()),
        }
    }

    /// A hostile machine has put its signature under something.
    pub fn vouch(&mut self, signature: &Signature) {
        self.signatures.insert(head(signature), true);
    }

    /// What leaves a machine has been durable where it was written.
    pub fn sent(&self, machine: usize, message: &Message) -> Result<(), String> {
        let fine = match message {
            Message::Frame(frame) => self.is_durable(&frame.signature),
            Message::Records(records) => records.records.iter().all(|one| self.is_durable(&one.proof.signature)),
            Message::Keep { records, .. } => records.iter().all(|one| self.is_durable(&one.proof.signature)),
            Message::Told(records) => records.iter().all(|one| self.is_durable(&one.proof.signature)),
            _ => true,
        };
        if fine { Ok(()) } else { Err(format!("m{machine} sends what its owner has not made durable")) }
    }

    fn is_durable(&self, signature: &Signature) -> bool {
        self.signatures.get(&head(signature)).copied().unwrap_or(false)
    }
}
