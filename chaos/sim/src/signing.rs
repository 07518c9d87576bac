//! Signatures that cost nothing: a keyed hash stands in for ed25519. Nobody in the virtual world
//! holds the key but the world, so a signature still proves who made it and over what.

use rialto_protocol::ids::PeerId;
use rialto_protocol::ledger::record::{Signature, Stored};
use rialto_protocol::wire::Message;

/// Makes and checks every signature of one world.
#[derive(Clone, Debug)]
pub struct Signer {
    key: [u8; 32],
}

impl Signer {
    pub fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// What `owner` puts under `digest`.
    pub fn sign(&self, owner: &PeerId, digest: &[u8; 32]) -> Signature {
        let mut hash = blake3::Hasher::new_keyed(&self.key);
        hash.update(&owner.0);
        hash.update(digest);
        let mut signature = [0; 64];
        hash.finalize_xof().fill(&mut signature);
        Signature(signature)
    }

    /// Whether every signature in a message is its owner's, as a driver would check it.
    pub fn verify(&self, message: &Message) -> bool {
        match message {
            Message::Frame(frame) => frame.is_sound() && self.sign(&frame.owner, &frame.signed()) == frame.signature,
            Message::Vitals(all) => all.iter().all(|one| self.sign(&one.owner, &one.signed()) == one.signature),
            Message::Records(records) => records.records.iter().all(|one| self.proves(one)),
            Message::Keep { records, .. } => records.iter().all(|one| self.proves(one)),
            Message::Told(records) => records.iter().all(|one| self.proves(one)),
            _ => true,
        }
    }

    fn proves(&self, stored: &Stored) -> bool {
        self.sign(&stored.record.owner, &stored.signed()) == stored.proof.signature
    }
}
