//! Reading records as they come: what each kind means to this peer. A value that does not read is
//! counted, and the last good reading stays in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::journal::Happening;
use super::stewarding::SETTLE_MS;
use super::writer::Urgency;
use super::{Brain, Restored};
use crate::effect::{Bad, StoreOp};
use crate::ids::{AppId, ChangeId, ClaimId, ClusterId, PeerId};
use crate::ledger::document::DocumentError;
use crate::ledger::readings::{Admission, Departure, Image, Reading, Stewardship, Verdict};
use crate::ledger::record::{Kind, RecordKey, Stored};
use crate::ledger::{ChangeValue, Document, Edit};
use crate::table::Table;
use crate::wire::{decode, encode};

/// What a record says, as it is read: nothing any more, the bytes that this peer is about to write, or
/// a record with its reading.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Gone,
    Own(&'a [u8]),
    Stored(&'a Stored),
}

impl<'a> Value<'a> {
    fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Value::Gone => None,
            Value::Own(bytes) => Some(bytes),
            Value::Stored(stored) => stored.record.value.as_deref(),
        }
    }

    fn reading(self, kind: Kind) -> Reading {
        match self {
            Value::Gone => Reading::Gone,
            Value::Own(bytes) => Reading::of_value(kind, bytes),
            Value::Stored(stored) => stored.reading().clone(),
        }
    }
}

/// The app that a change record's value belongs to.
pub(super) fn app_of_change(value: &[u8]) -> Option<AppId> {
    decode::<ChangeValue>(value).ok().map(|change| change.app)
}

impl Brain {
    /// Takes back what the disk remembers: all records first, then who is admitted, then the rest.
    pub(super) fn restore(&mut self, restored: Restored) {
        for (owner, complete, floor) in restored.owners {
            self.ledger.restore_owner(owner, complete, floor);
        }
        for stored in restored.records {
            self.ledger.restore(stored);
        }
        let admissions: Vec<Arc<Stored>> = self
            .ledger
            .owners()
            .flat_map(|owner| owner.records())
            .filter(|one| one.record.key.kind == Kind::ADMISSION)
            .cloned()
            .collect();
        let chain = std::mem::take(&mut self.config.chain);
        let mut waiting: Vec<Arc<Stored>> = admissions.into_iter().chain(chain).collect();
        loop {
            let before = waiting.len();
            waiting.retain(|one| !self.admit_restored(one));
            if waiting.len() == before || waiting.is_empty() {
                break;
            }
        }
        let mut records: Vec<Arc<Stored>> = self
            .ledger
            .owners()
            .filter(|owner| owner.admitted)
            .flat_map(|owner| owner.records())
            .filter(|one| one.record.key.kind != Kind::ADMISSION)
            .cloned()
            .collect();
        // Machines before verdicts about them, changes before claims.
        records.sort_by_key(|one| (one.record.key.kind != Kind::MACHINE, one.record.key.kind != Kind::CHANGE));
        self.buried(&records);
        for one in records {
            self.read(one.record.owner, &one.record.key, Value::Stored(&one), None);
        }
        self.close_documents();
    }

    /// Takes over what another brain, which has only just begun, has read of the same ledger.
    pub(super) fn read_beside(&mut self, other: &Brain) {
        self.beside = true;
        self.ledger = other.ledger.clone();
        self.readings = other.readings.clone();
        self.documents = other.documents.clone();
        self.close_documents();
        self.touched.extend(self.documents.keys().cloned());
        if self.readings.vitals.is_empty() {
            // Those of all machines are about to come.
            self.readings.vitals = Table::like(&self.readings.machines);
        }
        self.stewards.beside(&other.stewards);
        self.machines_changed = true;
        self.members_stale = true;
        self.links_stale();
        self.spread.buried_beside(&other.spread);
    }

    /// Reads an admission that was stored or handed over at `hello`; `true` where it now counts.
    fn admit_restored(&mut self, one: &Arc<Stored>) -> bool {
        let Some(value) = one.record.value.as_deref() else { return false };
        let Ok(admission) = decode::<Admission>(value) else { return false };
        if !self.counts(one.record.owner, &admission) {
            return false;
        }
        if self.ledger.get(&one.record.owner, &one.record.key).is_none() {
            self.ledger.take_alone(one);
            self.store.push(StoreOp::Put(one.clone()));
        }
        self.ledger.admit(admission.peer);
        self.readings.admission(one.record.owner, admission);
        true
    }

    /// Whether an admission by `owner` makes its peer a member: an admitted peer wrote it, or it is
    /// the founder's own and the cluster's name proves it.
    fn counts(&self, owner: PeerId, admission: &Admission) -> bool {
        if admission.cluster != self.config.cluster {
            return false;
        }
        match &admission.nonce {
            Some(nonce) => admission.peer == owner && ClusterId::of_founder(&owner, nonce) == self.config.cluster,
            None => self.ledger.is_admitted(&owner),
        }
    }

    /// A founder admits itself, once.
    pub(super) fn found(&mut self) {
        let Some(nonce) = self.config.founding else { return };
        if self.ledger.is_admitted(&self.me) {
            return;
        }
        let admission = Admission {
            peer: self.me,
            cluster: self.config.cluster,
            invitation: None,
            nonce: Some(nonce),
            at: self.now.wall,
        };
        self.write(Kind::ADMISSION, &self.me.hex(), Some(encode(&admission)), Urgency::Now);
        self.ledger.admit(self.me);
        self.readings.admission(self.me, admission);
    }

    /// Reads one record of an admitted owner.
    pub(super) fn read(&mut self, owner: PeerId, key: &RecordKey, value: Value<'_>, from: Option<PeerId>) {
        match key.kind {
            Kind::MACHINE => match value.reading(Kind::MACHINE) {
                Reading::Machine(machine) => {
                    let is_relief = self.members.is_relief(&owner, machine.life);
                    self.readings.machine(owner, machine);
                    self.member_read(owner);
                    self.stewards.room_may_be_free();
                    if is_relief {
                        self.pass_on(owner, key, from);
                    }
                }
                Reading::Gone => {}
                _ => self.report(Some(owner), Bad::Unreadable),
            },
            Kind::CLAIM => self.read_claim(owner, &key.id, value),
            Kind::VERDICT => {
                if let Some(verdict) = self.typed::<Verdict>(owner, value.bytes()) {
                    let is_charge = self.members.is_charge(&verdict.subject, verdict.life);
                    self.members.verdict(self.now, &owner, &verdict.subject, verdict.life);
                    if is_charge {
                        self.pass_on(owner, key, from);
                    }
                }
            }
            Kind::CHANGE => self.read_change(owner, key, value),
            Kind::STEWARDSHIP => self.read_stewardship(owner, value.bytes()),
            Kind::ADMISSION => self.read_admission(owner, value.bytes(), from),
            Kind::DEPARTURE => self.read_departure(owner, value.bytes()),
            Kind::IMAGE => self.read_image(owner, &key.id, value.bytes()),
            Kind::VOLUME => self.read_volume(owner, &key.id, value.bytes()),
            Kind::RELEASE => self.read_release(owner, &key.id, value.bytes()),
            Kind::SECRET => self.read_secret(owner, &key.id, value.bytes()),
            Kind::SEAL => self.read_seal(owner, &key.id, value.bytes()),
            Kind::EVENT => {
                let happening = self.typed::<Happening>(owner, value.bytes());
                self.read_event(owner, &key.id, happening);
            }
            // Kinds of later versions are kept and forwarded, and mean nothing here.
            _ => {}
        }
    }

    /// A peer is no member any more; of a stolen key nothing above the number that is named counts.
    fn read_departure(&mut self, owner: PeerId, value: Option<&[u8]>) {
        let Some(departure) = self.typed::<Departure>(owner, value) else { return };
        let peer = departure.peer;
        self.members.depart(self.now, &peer);
        if let Some(last) = self.readings.departure(&departure) {
            for key in self.ledger.cut(&peer, last) {
                self.store.push(StoreOp::Delete { owner: peer, key: key.clone() });
                self.read(peer, &key, Value::Gone, None);
            }
            self.store.extend(self.ledger.numbers(&peer));
        }
        self.machine.subnets_stale = true;
        self.machine.volumes_stale = true;
        if peer == self.me {
            self.stop_everything();
        }
        self.members_stale = true;
        self.machines_changed = true;
    }

    /// A value as its kind's type; unreadable ones are counted.
    fn typed<T: DeserializeOwned>(&mut self, owner: PeerId, value: Option<&[u8]>) -> Option<T> {
        let read = decode(value?);
        if read.is_err() {
            self.report(Some(owner), Bad::Unreadable);
        }
        read.ok()
    }

    fn read_claim(&mut self, owner: PeerId, id: &str, value: Value<'_>) {
        let Some(id) = ClaimId::from_hex(id) else { return self.report(Some(owner), Bad::Unreadable) };
        let claim = match value.reading(Kind::CLAIM) {
            Reading::Gone => None,
            Reading::Claim(claim) if claim.id == id => Some(claim),
            _ => return self.report(Some(owner), Bad::Unreadable),
        };
        let frees = claim.as_ref().is_none_or(|claim| claim.state.has_ended());
        let shared = if let Value::Stored(stored) = value { Some(&stored.posting) } else { None };
        let shared = shared.filter(|_| self.beside);
        if let Some(app) = self.readings.claim_shared(self.now.ms, owner, id, claim, shared) {
            self.look_at(app);
        }
        if frees {
            self.stewards.room_may_be_free();
        }
    }

    fn read_change(&mut self, owner: PeerId, key: &RecordKey, value: Value<'_>) {
        let is_old = self.syncing && !self.is_young(&owner, value);
        let Some(change) = self.typed::<ChangeValue>(owner, value.bytes()) else { return };
        let known = Arc::make_mut(self.readings.changes.entry(&change.app, Arc::default));
        if !known.insert((owner, key.clone())) {
            return;
        }
        let stored = if let Value::Stored(stored) = value { Some(stored) } else { None };
        match self.change_document(&change, stored) {
            Ok(true) => {
                if is_old {
                    self.stewards.not_new(&change.app);
                }
                self.look_at(change.app);
            }
            Ok(false) => {}
            Err(DocumentError::Unreadable(_) | DocumentError::Inapplicable(_)) => {
                // What is no change makes no app.
                let empty = |document: &Arc<Document>| document.is_empty() && !document.has_waiting();
                if self.documents.get(&change.app).is_some_and(empty) {
                    self.documents.remove(&change.app);
                    self.open.retain(|open| *open != change.app);
                }
                self.report(Some(owner), Bad::Inapplicable);
            }
        }
    }

    /// Whether something that was asked for, since its frame was missed, is so new that there is nothing to wait for: what
    /// others did about it is no older. By its author's clock, for ours may show anything.
    fn is_young(&self, owner: &PeerId, value: Value<'_>) -> bool {
        let (Value::Stored(stored), Some(heard)) = (value, self.readings.vitals.get(owner)) else { return false };
        heard.wall(self.now.ms).saturating_sub(stored.record.stamp) < SETTLE_MS
    }

    fn read_stewardship(&mut self, owner: PeerId, value: Option<&[u8]>) {
        let Some((app, stewardship)) = self.typed::<(AppId, Stewardship)>(owner, value) else { return };
        self.readings.stewardship(owner, app.clone(), stewardship);
        self.changed.insert(app);
    }

    fn read_admission(&mut self, owner: PeerId, value: Option<&[u8]>, from: Option<PeerId>) {
        let Some(admission) = self.typed::<Admission>(owner, value) else { return };
        if !self.counts(owner, &admission) {
            return self.report(Some(owner), Bad::Unadmitted);
        }
        let peer = admission.peer;
        self.readings.admission(owner, admission);
        self.links_stale();
        if self.ledger.admit(peer) {
            self.members_stale = true;
            // Records of the newcomer may have been refused a moment ago.
            from.into_iter().for_each(|from| self.spread.comparing.with(from));
        }
    }

    fn read_image(&mut self, owner: PeerId, name: &str, value: Option<&[u8]>) {
        match value {
            None => {
                if let Some(machines) = self.readings.images.get_mut(name) {
                    machines.remove(&owner);
                    if machines.is_empty() {
                        self.readings.images.remove(name);
                    }
                }
            }
            Some(_) => {
                let Some(image) = self.typed::<Image>(owner, value) else { return };
                self.readings.images.entry(name.to_string()).or_default().insert(owner, image);
                self.stewards.room_may_be_free();
            }
        }
        self.machines_changed = true;
    }

    /// An app's steward has something to look at, and people something to see.
    pub(super) fn look_at(&mut self, app: AppId) {
        self.changed.insert(app.clone());
        self.touched.insert(app);
    }

    /// Edits a document and writes the change as a record; `false` where it reads so already.
    pub(super) fn edit(&mut self, app: &AppId, edit: &Edit, author: &str, change: ChangeId, urgency: Urgency) -> bool {
        let me = self.me;
        let Some(bytes) = self.document(app).edit(&me, edit) else { return false };
        let summary = match edit {
            Edit::Spec(_) => "deploy".to_string(),
            Edit::Replicas { service: Some(service), replicas, .. } => format!("scale {service} to {replicas}"),
            Edit::Replicas { service: None, replicas, .. } => format!("scale to {replicas}"),
            Edit::Delete => "remove".to_string(),
            Edit::Outcomes { outcomes, cursors, .. } if outcomes.is_empty() => {
                format!("{} up to date", cursors.keys().cloned().collect::<Vec<_>>().join(", "))
            }
            Edit::Outcomes { outcomes, .. } if outcomes.len() > 3 => {
                let tasks: usize = outcomes.values().map(Vec::len).sum();
                format!("{tasks} of {} services finished", outcomes.len())
            }
            Edit::Outcomes { outcomes, .. } => {
                let of = |(service, some): (&String, &Vec<_>)| format!("{} of {service}", some.len());
                format!("{} finished", outcomes.iter().map(of).collect::<Vec<_>>().join(", "))
            }
            Edit::Run { service, .. } => format!("run {service}"),
            Edit::Order { service, order } => format!("{} the rollout of {service}", order.word.name()),
            Edit::Back { service, .. } => format!("roll {service} back"),
        };
        let value = ChangeValue { app: app.clone(), bytes, author: author.into(), summary };
        let key = RecordKey { kind: Kind::CHANGE, id: change.hex().into() };
        Arc::make_mut(self.readings.changes.entry(app, Arc::default)).insert((me, key.clone()));
        self.write(Kind::CHANGE, &key.id, Some(encode(&value)), urgency);
        self.look_at(app.clone());
        true
    }

    /// What the disk keeps for this peer alone, and the claims that are its own.
    pub(super) fn restore_own(&mut self, local: BTreeMap<String, Vec<u8>>) {
        self.restore_invitations(&local);
        self.restore_claims(&local);
    }
}
