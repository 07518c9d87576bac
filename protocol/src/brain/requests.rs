//! What people and programs ask for. A change is answered when it is durable here and at two other
//! peers, or after a second with the number of copies reached.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand_chacha::rand_core::RngCore;
use serde::{Deserialize, Serialize};

use super::Brain;
use super::machine::HOST_IMAGE;
use super::reading::Value;
use super::writer::Urgency;
use crate::effect::{Effect, Local, Refusal, Reply};
use crate::event::{Description, Request};
use crate::ids::{AppId, ChangeId, ClusterId, InvitationId, PeerId};
use crate::ledger::Edit;
use crate::ledger::document::ChangeValue;
use crate::ledger::readings::{Admission, Departure, Image};
use crate::ledger::record::{Kind, Stored};
use crate::membership::State;
use crate::model::{AppSpec, Machine, Mode, ServiceSpec};
use crate::plant::Plant;
use crate::wire::{Message, PROTOCOL, decode, encode};

/// How long an answer waits for copies, ms.
const COPIES_MS: u64 = 1_000;
/// How many other peers are to hold a change before it is answered.
const COPIES: usize = 2;
/// The most bytes of a document's history that are sent along with a change.
const COPY_BYTES_MAX: usize = 512 << 10;
/// The most changes that wait for copies; one more is refused.
const WAITING_MAX: usize = 4_096;
/// The most invitations that are kept.
const INVITATIONS_MAX: usize = 1_000;
/// The namespace of every app, until there are others.
pub const NAMESPACE: &str = "default";

/// An invitation that this peer gave.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Invitation {
    secret_hash: [u8; 32],
    uses: u32,
    /// Wall clock, ms.
    expires: u64,
}

/// A change on its way to its copies.
#[derive(Debug)]
struct Copying {
    request: u64,
    app: AppId,
    /// The change record's id.
    id: Arc<str>,
    token: u64,
    copies: u32,
    asked: Vec<PeerId>,
    /// Those that were sent the whole document, for a change alone did not apply.
    sent_all: Vec<PeerId>,
    done_ms: u64,
}

/// Requests under way.
#[derive(Debug, Default)]
pub(super) struct Requests {
    copying: Vec<Copying>,
    next_token: u64,
    invitations: BTreeMap<InvitationId, Invitation>,
    /// Admissions that wait to be durable: the request and the newcomer.
    admitting: Vec<(u64, PeerId)>,
}

impl Requests {
    pub(super) fn deadline(&self) -> Option<u64> {
        self.copying.iter().map(|copying| copying.done_ms).min()
    }
}

impl Brain {
    pub(super) fn requested(&mut self, id: u64, request: Request) {
        let refused = match request {
            Request::Deploy { change, author, app, spec } => self.deploy(id, change, &author, &app, spec),
            Request::Scale { change, author, app, service, replicas } => {
                self.scale(id, change, &author, &app, service, replicas)
            }
            Request::Remove { change, author, app } => self.remove(id, change, &author, &app),
            Request::Rollback { change, author, app, to } => self.roll_back(id, change, &author, &app, &to),
            Request::Run { change, author, app, service } => self.run_once(id, change, &author, &app, &service),
            Request::Rollout { change, author, app, service, word } => {
                self.order_rollout(id, change, &author, &app, service.as_deref(), word)
            }
            Request::Unfreeze => {
                self.unfreeze();
                let others: Vec<PeerId> = self.members.live().filter(|peer| *peer != self.me).collect();
                others.into_iter().for_each(|peer| self.send(peer, Message::Unfreeze));
                self.reply_when_durable(id, Reply::Done);
                Ok(())
            }
            Request::Depart { peer, force, last } => self.depart(id, peer, force, last),
            Request::Drain { on } => self.drain(id, on),
            Request::Relocate(all) => {
                self.relocate(all);
                self.reply_when_durable(id, Reply::Done);
                Ok(())
            }
            Request::Restart(claim) => self.restart(id, claim),
            Request::EndTasks => {
                self.end_tasks();
                self.reply_when_durable(id, Reply::Done);
                Ok(())
            }
            Request::Invite { invitation, secret_hash, uses, ttl_ms } => {
                self.invite(id, invitation, secret_hash, uses, ttl_ms)
            }
            Request::Admit { key, cluster, invitation, secret_hash } => {
                self.admit(id, key, cluster, invitation, secret_hash)
            }
            Request::Image { name, digest, bytes, present, brought } => {
                let at = if brought { self.now.wall } else { self.readings.brought(&name, &digest) };
                let value = present.then(|| encode(&Image { digest, bytes, at }));
                self.read_own(Kind::IMAGE, &name, value.as_deref());
                self.write(Kind::IMAGE, &name, value, Urgency::Now);
                self.reply_when_durable(id, Reply::Done);
                Ok(())
            }
            Request::VolumeMake { name } => self.volume_make(id, &name),
            Request::VolumeRemove { id: volume, force } => self.volume_remove(id, &volume, force),
            Request::VolumeRelease { name } => self.volume_release(id, &name),
            Request::Secret { secret, anew } => self.secret_put(id, secret, anew),
            Request::Seal(seal) => self.seal_put(id, seal),
            Request::Describe(description) => self.describe(id, description),
            Request::Restarting { until } => {
                if let Some(mut machine) = self.own_machine() {
                    machine.restarting_until = Some(until);
                    self.write_machine(machine);
                }
                self.reply_when_durable(id, Reply::Done);
                Ok(())
            }
        };
        if let Err(refusal) = refused {
            self.out.push(Effect::Reply { request: id, reply: Err(refusal) });
        }
    }

    pub(super) fn reply_when_durable(&mut self, request: u64, reply: Reply) {
        self.hold(Effect::Reply { request, reply: Ok(reply) });
    }

    /// The generation of an app that lives, if one does.
    pub(crate) fn app_named(&self, name: &str) -> Option<&AppId> {
        self.generations_of(name)
            .rfind(|app| self.documents.get(app).is_some_and(|doc| !doc.deleted && !doc.is_empty()))
    }

    pub(super) fn generations_of(&self, name: &str) -> impl DoubleEndedIterator<Item = &AppId> {
        let id = |generation| AppId { namespace: NAMESPACE.into(), name: name.into(), generation };
        self.documents.range(id(0)..=id(u32::MAX)).map(|(app, _)| app)
    }

    /// Whether a change of this id was made here or came from elsewhere.
    pub(crate) fn is_made(&self, app: &AppId, change: &ChangeId) -> bool {
        let id = change.hex();
        self.readings.changes.get(app).is_some_and(|changes| changes.iter().any(|(_, key)| *key.id == *id))
    }

    fn deploy(
        &mut self,
        request: u64,
        change: ChangeId,
        author: &str,
        name: &str,
        spec: AppSpec,
    ) -> Result<(), Refusal> {
        let app = match self.app_named(name) {
            Some(app) => app.clone(),
            None => {
                let last = self.generations_of(name).next_back().map_or(0, |app| app.generation);
                let spent = || Refusal::Invalid(format!("app {name} has had its last generation: choose another name"));
                let generation = last.checked_add(1).ok_or_else(spent)?;
                AppId { namespace: NAMESPACE.into(), name: name.into(), generation }
            }
        };
        if let Some(clash) = self.port_clash(&app, &spec) {
            return Err(Refusal::Invalid(clash));
        }
        if let Some(fault) = spec.dependency_fault() {
            return Err(Refusal::Invalid(fault.message));
        }
        let spec = self.with_addresses(&app, self.with_times(&app, self.with_digests(&app, spec)));
        self.change(request, change, author, app, &Edit::Spec(spec), "deployed")
    }

    /// Names of images become digests once, when the app is deployed: what runs does not change under a name that
    /// comes to mean something else. A name that stays keeps its digest.
    fn with_digests(&self, app: &AppId, mut spec: AppSpec) -> AppSpec {
        let before = self.documents.get(app).map(|document| &document.spec.services);
        // A file does not know of restarts: it undoes none.
        for (name, service) in &mut spec.services {
            let held = before.and_then(|services| services.get(name)).map_or(0, |held| held.restarts);
            service.restarts = service.restarts.max(held);
        }
        for (name, service) in spec.services.iter_mut().filter(|(_, service)| service.image != HOST_IMAGE) {
            let held = before.and_then(|services| services.get(name)).filter(|held| held.image == service.image);
            service.image_digest = service
                .image_digest
                .take()
                .or_else(|| held.and_then(|held| held.image_digest.clone()))
                .or_else(|| self.readings.image(&service.image).map(|image| image.digest.clone()));
        }
        spec
    }

    /// A schedule holds from when it was deployed; one that stays as it is goes on.
    fn with_times(&self, app: &AppId, mut spec: AppSpec) -> AppSpec {
        let before = self.documents.get(app).map(|document| document.spec.clone());
        for (name, service) in &mut spec.services {
            let Some(schedule) = &mut service.schedule else { continue };
            let held = before.as_ref().and_then(|before| before.services.get(name)?.schedule.as_ref());
            let held = held.filter(|held| held.is_same(schedule) && held.since > 0);
            // By the clock that runs are due by: this peer's own may be off.
            schedule.since = held.map_or(self.civil_now().wall, |held| held.since);
        }
        spec
    }

    fn scale(
        &mut self,
        request: u64,
        change: ChangeId,
        author: &str,
        name: &str,
        service: Option<String>,
        replicas: u32,
    ) -> Result<(), Refusal> {
        let app = self.app_named(name).cloned().ok_or_else(|| Refusal::NotFound(format!("app {name}")))?;
        if let Some(service) = &service
            && !self.documents[&app].spec.services.contains_key(service)
        {
            return Err(Refusal::NotFound(format!("service {service} of app {name}")));
        }
        let services = self.documents[&app].spec.services.iter();
        let meant = services.filter(|(name, _)| service.as_ref().is_none_or(|service| service == *name));
        for (name, spec) in meant {
            if spec.mode == Mode::Global && replicas > 1 {
                let said =
                    format!("{name} runs on each machine that meets its constraints: it has no number of replicas");
                return Err(Refusal::Invalid(said));
            }
            let scaled = ServiceSpec { replicas, ..spec.clone() };
            if let Some((_, fault)) = scaled.guard_fault() {
                return Err(Refusal::Invalid(format!("{name}: {fault}")));
            }
        }
        self.change(request, change, author, app, &Edit::Replicas { service, replicas, at: self.now.wall }, "scaled")
    }

    fn roll_back(&mut self, request: u64, change: ChangeId, author: &str, name: &str, to: &str) -> Result<(), Refusal> {
        let app = self.app_named(name).cloned().ok_or_else(|| Refusal::NotFound(format!("app {name}")))?;
        // One change, sent twice, may be there under two owners.
        let mut meant: Vec<_> = self.readings.changes_of(&app).filter(|(_, key)| key.id.starts_with(to)).collect();
        meant.sort_by(|(_, one), (_, other)| one.id.cmp(&other.id));
        meant.dedup_by(|(_, one), (_, other)| one.id == other.id);
        let (owner, key) = match meant[..] {
            [found] => found.clone(),
            [] => return Err(Refusal::NotFound(format!("revision {to} of app {name}"))),
            _ => return Err(Refusal::Invalid(format!("{to} begins several revisions of {name}"))),
        };
        let value = self.ledger.get(&owner, &key).and_then(|stored| stored.record.value.clone());
        let value = value.and_then(|value| decode::<ChangeValue>(&value).ok());
        let unreadable = || Refusal::Invalid(format!("revision {to} of {name} cannot be read"));
        let bytes = value.ok_or_else(unreadable)?.bytes;
        let spec = self.document(&app).spec_at(&bytes).ok_or_else(unreadable)?;
        if let Some(clash) = self.port_clash(&app, &spec) {
            return Err(Refusal::Invalid(clash));
        }
        let spec = self.with_addresses(&app, spec);
        self.change(request, change, author, app, &Edit::Spec(spec), "rolled back")
    }

    fn depart(&mut self, request: u64, peer: PeerId, force: bool, last: Option<u64>) -> Result<(), Refusal> {
        let name = self.machine_name(&peer);
        if peer == self.me {
            return Err(Refusal::Invalid(format!("{name} cannot remove itself: ask another machine")));
        }
        if !force && self.members.state(&peer) <= State::Suspect {
            return Err(Refusal::Denied(format!("{name} is up: drain it and stop its peer first, or force it")));
        }
        let value = encode(&Departure { peer, last });
        self.read_own(Kind::DEPARTURE, &peer.hex(), Some(&value));
        self.write(Kind::DEPARTURE, &peer.hex(), Some(value), Urgency::Now);
        self.note("left", name.clone(), format!("machine {name} is a member no more"));
        self.reply_when_durable(request, Reply::Done);
        Ok(())
    }

    fn remove(&mut self, request: u64, change: ChangeId, author: &str, name: &str) -> Result<(), Refusal> {
        let Some(app) = self.app_named(name).cloned() else {
            // Sent twice: the first has removed it.
            let gone = self.generations_of(name).next_back().filter(|app| self.is_made(app, &change)).cloned();
            let app = gone.ok_or_else(|| Refusal::NotFound(format!("app {name}")))?;
            self.out.push(Effect::Reply { request, reply: Ok(Reply::Changed { app, copies: 1, changed: false }) });
            return Ok(());
        };
        self.change(request, change, author, app, &Edit::Delete, "removed")
    }

    /// Makes a change, and answers when it has its copies.
    pub(super) fn change(
        &mut self,
        request: u64,
        change: ChangeId,
        author: &str,
        app: AppId,
        edit: &Edit,
        word: &'static str,
    ) -> Result<(), Refusal> {
        if self.requests.copying.len() >= WAITING_MAX {
            return Err(Refusal::Busy);
        }
        if self.is_made(&app, &change) || !self.edit(&app, edit, author, change, Urgency::Now) {
            self.reply_when_durable(request, Reply::Changed { app, copies: 1, changed: false });
            return Ok(());
        }
        self.note(word, app.name.clone(), format!("{author} {word} {}", app.name));
        if self.has(Plant::AnswerEarly) {
            let reply = Ok(Reply::Changed { app, copies: 3, changed: true });
            self.out.push(Effect::Reply { request, reply });
            return Ok(());
        }
        self.requests.next_token += 1;
        let token = self.requests.next_token;
        let done_ms = self.now.ms + COPIES_MS;
        let id = change.hex().into();
        self.requests.copying.push(Copying {
            request,
            app,
            id,
            token,
            copies: 0,
            asked: Vec::new(),
            sent_all: Vec::new(),
            done_ms,
        });
        Ok(())
    }

    /// Own records are durable here: changes among them go to their copies, admissions are answered.
    pub(super) fn kept_here(&mut self, stored: &[Arc<Stored>]) {
        self.buried(stored);
        for one in stored.iter().filter(|one| one.record.key.kind == Kind::CHANGE) {
            let Some(at) = self.requests.copying.iter().position(|c| c.copies == 0 && c.id == one.record.key.id) else {
                continue;
            };
            let asked = self.copy_holders();
            let copying = &mut self.requests.copying[at];
            copying.copies = 1;
            copying.asked = asked.clone();
            let token = copying.token;
            for peer in asked {
                self.send(peer, Message::Keep { token, records: vec![one.clone()] });
            }
        }
        for (request, peer) in std::mem::take(&mut self.requests.admitting) {
            match self.chain_of(&peer) {
                Some(chain) => self.out.push(Effect::Reply { request, reply: Ok(Reply::Admitted { chain }) }),
                None => self.requests.admitting.push((request, peer)),
            }
        }
    }

    /// Two peers to hold copies: linked ones before others, at random.
    fn copy_holders(&mut self) -> Vec<PeerId> {
        let away = |peer: &PeerId| self.readings.machines.get(peer).is_some_and(|m| m.restarting_until.is_some());
        let alive = |peer: &PeerId| *peer != self.me && self.members.state(peer) == State::Alive && !away(peer);
        let mut peers: Vec<PeerId> = self.spread.links().filter(alive).collect();
        if peers.len() < COPIES {
            peers = self.members.live().filter(|peer| alive(peer)).collect();
        }
        while peers.len() > COPIES {
            let at = (self.rng.next_u64() % peers.len() as u64) as usize;
            peers.swap_remove(at);
        }
        peers
    }

    pub(super) fn kept_there(&mut self, from: PeerId, token: u64, applicable: bool) {
        let Some(copying) = self.requests.copying.iter_mut().find(|c| c.token == token && c.asked.contains(&from))
        else {
            return;
        };
        if applicable {
            copying.asked.retain(|peer| *peer != from);
            copying.copies += 1;
            return;
        }
        // It lacks what the change depends on: it gets all the document's changes, once.
        if copying.sent_all.contains(&from) {
            copying.asked.retain(|peer| *peer != from);
            return;
        }
        copying.sent_all.push(from);
        let changes = self.readings.changes_of(&copying.app);
        let records: Vec<Arc<Stored>> =
            changes.filter_map(|(owner, key)| self.ledger.get(owner, key)).cloned().collect();
        if records.iter().map(|one| one.record.size()).sum::<usize>() > COPY_BYTES_MAX {
            // Too long a history for one message: anti-entropy brings it.
            return self.spread.comparing.with(from);
        }
        self.send(from, Message::Keep { token, records });
    }

    pub(super) fn requests_turn(&mut self) {
        let now = self.now.ms;
        let (done, copying) = std::mem::take(&mut self.requests.copying)
            .into_iter()
            .partition(|c: &Copying| c.copies > 0 && (c.asked.is_empty() || c.done_ms <= now));
        self.requests.copying = copying;
        for copying in done {
            let Copying { request, app, copies, .. } = copying;
            self.out.push(Effect::Reply { request, reply: Ok(Reply::Changed { app, copies, changed: true }) });
        }
        // A disk that takes longer than the wait: the answer comes when it is done.
        for copying in self.requests.copying.iter_mut().filter(|c| c.done_ms <= now) {
            copying.done_ms = now + COPIES_MS;
        }
    }

    fn drain(&mut self, request: u64, on: bool) -> Result<(), Refusal> {
        let Some(mut machine) = self.own_machine() else {
            return Err(Refusal::Invalid("this machine has not described itself yet".into()));
        };
        if machine.draining != on {
            machine.draining = on;
            self.write_machine(machine);
        }
        self.reply_when_durable(request, Reply::Done);
        Ok(())
    }

    fn describe(&mut self, request: u64, description: Description) -> Result<(), Refusal> {
        self.machine.range = description.network;
        self.machine.subnets_stale = true;
        let held = self.readings.machines.get(&self.me).map(Arc::as_ref);
        let machine = Machine {
            name: description.name,
            addresses: description.addresses,
            labels: description.labels,
            capacity: description.capacity,
            allows: description.allows,
            protocol: PROTOCOL,
            version: description.version,
            life: held.map_or(1, |held| held.life),
            life_since: held.map_or(self.now.wall, |held| held.life_since),
            draining: held.is_some_and(|held| held.draining),
            restarting_until: None,
            executor: description.executor,
            // What is wrong with it is mended in the same turn.
            network: held.and_then(|held| held.network).filter(|_| description.network.is_some()),
        };
        if held == Some(&machine) {
            self.take_description(&machine);
        } else {
            self.write_machine(machine);
        }
        self.reply_when_durable(request, Reply::Done);
        Ok(())
    }

    /// What this machine says of itself, to be changed and written anew.
    pub(super) fn own_machine(&self) -> Option<Machine> {
        self.readings.machines.get(&self.me).map(|machine| Machine::clone(machine))
    }

    pub(super) fn write_machine(&mut self, machine: Machine) {
        let value = encode(&machine);
        self.take_description(&machine);
        self.read_own(Kind::MACHINE, "", Some(&value));
        self.write(Kind::MACHINE, "", Some(value), Urgency::Now);
    }

    /// An own record is read as it is written, before it is durable.
    pub(super) fn read_own(&mut self, kind: Kind, id: &str, value: Option<&[u8]>) {
        let key = crate::ledger::record::RecordKey { kind, id: id.into() };
        self.read(self.me, &key, value.map_or(Value::Gone, Value::Own), None);
    }

    fn invite(
        &mut self,
        request: u64,
        id: InvitationId,
        secret_hash: [u8; 32],
        uses: u32,
        ttl_ms: u64,
    ) -> Result<(), Refusal> {
        if uses == 0 || ttl_ms == 0 {
            return Err(Refusal::Invalid("an invitation needs at least one use and some time".into()));
        }
        let now = self.now.wall;
        let stale: Vec<InvitationId> =
            self.requests.invitations.iter().filter(|(_, held)| held.expires <= now).map(|(id, _)| *id).collect();
        for id in stale {
            self.requests.invitations.remove(&id);
            self.write_invitation(&id, None);
        }
        if self.requests.invitations.len() >= INVITATIONS_MAX {
            return Err(Refusal::Denied(format!("{INVITATIONS_MAX} invitations are open; let some expire")));
        }
        let invitation = Invitation { secret_hash, uses, expires: now.saturating_add(ttl_ms) };
        self.write_invitation(&id, Some(&invitation));
        self.requests.invitations.insert(id, invitation);
        self.reply_when_durable(request, Reply::Done);
        Ok(())
    }

    fn write_invitation(&mut self, id: &InvitationId, invitation: Option<&Invitation>) {
        let local = Local { key: format!("invitation/{id}"), value: invitation.map(encode) };
        self.writer.write_local(self.now, local, Urgency::Now);
    }

    pub(super) fn restore_invitations(&mut self, local: &BTreeMap<String, Vec<u8>>) {
        for (key, value) in local {
            let id = key.strip_prefix("invitation/").and_then(InvitationId::from_hex);
            if let (Some(id), Ok(invitation)) = (id, decode::<Invitation>(value)) {
                self.requests.invitations.insert(id, invitation);
            }
        }
    }

    fn admit(
        &mut self,
        request: u64,
        key: PeerId,
        cluster: ClusterId,
        id: InvitationId,
        secret_hash: [u8; 32],
    ) -> Result<(), Refusal> {
        let denied = |reason: &str| Err(Refusal::Denied(reason.into()));
        if cluster != self.config.cluster {
            return denied("the invitation is for another cluster");
        }
        if self.ledger.is_admitted(&key) {
            // It asks again: the first answer was lost.
            match self.chain_of(&key) {
                Some(chain) => self.out.push(Effect::Reply { request, reply: Ok(Reply::Admitted { chain }) }),
                None => self.requests.admitting.push((request, key)),
            }
            return Ok(());
        }
        let now = self.now.wall;
        let Some(invitation) = self.requests.invitations.get_mut(&id) else {
            return denied("the invitation is unknown here: it was used up, has expired, or another peer gave it");
        };
        if invitation.secret_hash != secret_hash {
            return denied("the invitation's secret is wrong");
        }
        if invitation.expires <= now {
            return denied("the invitation has expired; ask for a new one with `rialto invite`");
        }
        invitation.uses -= 1;
        let left = (invitation.uses > 0).then(|| invitation.clone());
        if left.is_none() {
            self.requests.invitations.remove(&id);
        }
        self.write_invitation(&id, left.as_ref());
        let admission = Admission { peer: key, cluster, invitation: Some(id), nonce: None, at: now };
        let value = encode(&admission);
        self.read_own(Kind::ADMISSION, &key.hex(), Some(&value));
        self.write(Kind::ADMISSION, &key.hex(), Some(value), Urgency::Now);
        self.requests.admitting.push((request, key));
        self.note("admitted", key.to_string(), format!("peer {key} was admitted"));
        Ok(())
    }

    /// The admissions from the founder's own to a peer's; `None` until all are durable here.
    pub(super) fn chain_of(&self, peer: &PeerId) -> Option<Vec<Arc<Stored>>> {
        let mut chain = Vec::new();
        let mut peer = *peer;
        for _ in 0..=self.readings.admissions.len() {
            let (by, _) = self.readings.admissions.get(&peer)?;
            let key = crate::ledger::record::RecordKey { kind: Kind::ADMISSION, id: peer.hex().into() };
            chain.push(self.ledger.get(by, &key)?.clone());
            if *by == peer {
                chain.reverse();
                return Some(chain);
            }
            peer = *by;
        }
        None
    }
}
