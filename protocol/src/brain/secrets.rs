//! Secrets on their way through the ledger: read, written and dropped as they are, sealed. Whoever feeds the brain seals
//! and opens them.

use std::collections::BTreeSet;

use super::Brain;
use super::writer::Urgency;
use crate::effect::{Bad, Refusal, Reply};
use crate::ids::{KeyId, PeerId};
use crate::ledger::record::Kind;
use crate::membership::State;
use crate::model::secret::{Duty, Seal, Secret};
use crate::model::volume::STAMP_MS_MAX;
use crate::wire::{decode, encode};

/// The most secrets.
const SECRETS_MAX: usize = 4_096;

impl Brain {
    pub(super) fn read_secret(&mut self, owner: PeerId, name: &str, value: Option<&[u8]>) {
        let secret = match value.map(decode::<Secret>) {
            Some(Ok(secret)) if secret.name == name && secret.fault().is_none() => Some(secret),
            None => None,
            _ => return self.report(Some(owner), Bad::Unreadable),
        };
        self.readings.secrets.take(owner, name, secret);
        self.secrets_changed();
    }

    pub(super) fn read_seal(&mut self, owner: PeerId, id: &str, value: Option<&[u8]>) {
        let Some(key) = KeyId::from_hex(id) else { return self.report(Some(owner), Bad::Unreadable) };
        let seal = match value.map(decode::<Seal>) {
            Some(Ok(seal)) if seal.key == key && seal.fault().is_none() => Some(seal),
            None => None,
            _ => return self.report(Some(owner), Bad::Unreadable),
        };
        self.readings.secrets.seal(owner, key, seal);
        self.secrets_changed();
    }

    fn secrets_changed(&mut self) {
        self.machine.secrets_stale = true;
        self.machines_changed = true;
    }

    /// Own records that are of no use any more are dropped.
    pub(super) fn secrets_turn(&mut self) {
        if !std::mem::take(&mut self.machine.secrets_stale) {
            return;
        }
        let (names, keys) = self.readings.secrets.spent(&self.me, &self.readers(), self.now.wall);
        for name in names {
            self.readings.secrets.take(self.me, &name, None);
            self.write(Kind::SECRET, &name, None, Urgency::Ordinary);
        }
        for key in keys {
            self.readings.secrets.seal(self.me, key, None);
            self.write(Kind::SEAL, &key.hex(), None, Urgency::Ordinary);
        }
    }

    /// Takes a sealed secret, or that one is removed, into the ledger. A person's word is the last one; what is only
    /// sealed anew keeps its stamp.
    pub(super) fn secret_put(&mut self, request: u64, mut secret: Secret, anew: bool) -> Result<(), Refusal> {
        if let Some(fault) = secret.fault() {
            return Err(Refusal::Invalid(fault));
        }
        if !anew {
            let held = self.readings.secrets.get(&secret.name);
            if held.is_none() && secret.sealed.is_none() {
                return Err(Refusal::NotFound(format!("secret {}", secret.name)));
            }
            if held.is_none() && self.readings.secrets.iter().count() >= SECRETS_MAX {
                return Err(Refusal::Denied(format!("there are {SECRETS_MAX} secrets, and no more can be")));
            }
            secret.at = self.now.wall.max(self.readings.secrets.after(&secret.name)).min(STAMP_MS_MAX);
        }
        let value = encode(&secret);
        self.read_own(Kind::SECRET, &secret.name, Some(&value));
        self.write(Kind::SECRET, &secret.name, Some(value), Urgency::Now);
        self.reply_when_durable(request, Reply::Done);
        Ok(())
    }

    /// Takes a key, sealed to some, into the ledger.
    pub(super) fn seal_put(&mut self, request: u64, mut seal: Seal) -> Result<(), Refusal> {
        if seal.at == 0 {
            seal.at = self.now.wall.max(self.readings.secrets.after_keys()).min(STAMP_MS_MAX);
        }
        if let Some(own) = self.readings.secrets.own_seal(&self.me, &seal.key) {
            let mut sealed = own.sealed.clone();
            sealed.append(&mut seal.sealed);
            seal.sealed = sealed;
        }
        let value = encode(&seal);
        self.read_own(Kind::SEAL, &seal.key.hex(), Some(&value));
        self.write(Kind::SEAL, &seal.key.hex(), Some(value), Urgency::Now);
        self.reply_when_durable(request, Reply::Done);
        Ok(())
    }

    /// Those who may read secrets.
    pub(crate) fn readers(&self) -> BTreeSet<PeerId> {
        let departed = &self.readings.departed;
        self.readings.admissions.keys().filter(|peer| !departed.contains_key(*peer)).copied().collect()
    }

    /// The key to seal under: one that some member can open.
    pub(crate) fn current_key(&self) -> Option<KeyId> {
        self.readings.secrets.current(&self.readers())
    }

    /// What this peer has to seal for the others.
    pub(crate) fn duty(&self) -> Duty {
        let is_live = |peer: &PeerId| *peer == self.me || self.members.state(peer) == State::Alive;
        self.readings.secrets.duty(&self.me, &self.readers(), is_live)
    }
}
