//! Named volumes: where each lies, and that tasks which use one run there and nowhere else.
//!
//! A machine makes a volume together with the claim of the first task that uses it: what tells of the one tells of the
//! other, and both are durable before anything runs. A machine that is down holds its volumes all the same. What was
//! made twice under one name while the cluster was split is settled by facts that never change, and nothing of it is
//! deleted.

use std::collections::{BTreeMap, BTreeSet};

use super::Brain;
use super::writer::Urgency;
use crate::effect::{Bad, Refusal, Reply};
use crate::ids::{AppId, ClaimId, PeerId, VolumeId};
use crate::ledger::record::Kind;
use crate::market::bidder::Mine;
use crate::market::wire::{DeclineReason, Slot};
use crate::membership::State;
use crate::model::volume::{Released, whole_name_fault};
use crate::model::{AppSpec, Claim, Container, ServiceSpec, Volume};
use crate::plant::Plant;
use crate::wire::{StopReason, decode, encode};

/// The most volumes of one machine: every peer keeps word of all.
pub const VOLUMES_MAX: usize = 4_096;
/// After this it is seen whether another task has made a volume that is waited for, if nobody has said so before, ms.
const MAKES_MS: u64 = 1_000;
/// Apps that are deployed at once have heard of each other after this, and know which of them makes what they share, ms.
const HEARD_MS: u64 = 500;
/// The others wait so long for it, which may have no room for its task, ms.
const MAKER_AWAITED_MS: u64 = 10_000;

impl Brain {
    /// The machine that holds the volume of this name, and the volume.
    pub(crate) fn holder(&self, name: &str) -> Option<(PeerId, &Volume)> {
        if self.has(Plant::ForgetVolumes) {
            return None;
        }
        self.readings.volumes.holder(name, |peer| self.readings.departed.contains_key(peer))
    }

    /// Whether a volume is the one that its name means; else it was given up.
    pub(crate) fn volume_counts(&self, owner: &PeerId, volume: &Volume) -> bool {
        self.holder(&volume.name).is_some_and(|(holder, held)| (holder, held.id) == (*owner, volume.id))
    }

    /// Why a machine cannot have tasks with these volumes; `None`: it can. Names, and whether each has to be there.
    pub(super) fn astray(&self, peer: &PeerId, volumes: impl Iterator<Item = (String, bool)>) -> Option<DeclineReason> {
        for (name, is_external) in volumes {
            match self.holder(&name) {
                Some((holder, _)) if holder != *peer => {
                    return Some(DeclineReason::Volume { volume: name, on: Some(self.machine_name(&holder)) });
                }
                None if is_external => return Some(DeclineReason::Volume { volume: name, on: None }),
                _ => {}
            }
        }
        None
    }

    /// Whether a claim runs on a machine that does not hold its service's volumes.
    pub(super) fn is_astray(&self, owner: &PeerId, claim: &Claim) -> bool {
        let document = self.documents.get(&claim.task.app);
        let service = document.and_then(|document| document.spec.services.get(&claim.task.service));
        let current = |service: &&ServiceSpec| service.revision() == claim.revision;
        let service = service.filter(|service| service.container.mounts.has_named()).filter(current);
        service.is_some_and(|service| {
            let mut names = service.container.mounts.names(&claim.task.app);
            names.any(|(name, _)| self.holder(&name).is_some_and(|(holder, _)| holder != *owner))
        })
    }

    /// Of a service's slots those that may be given out now. A volume that nobody has yet is made by one task, and all
    /// others wait until it is known where: those of other apps, too, which may have other stewards.
    pub(super) fn with_volumes(&mut self, app: &AppId, spec: &AppSpec, service: &str, missing: &mut Vec<Slot>) {
        let names = |app: &AppId, spec: &ServiceSpec| {
            spec.container.mounts.names(app).map(|(name, _)| name).collect::<Vec<String>>()
        };
        let Some(wanted) = spec.services.get(service) else { return };
        let new: Vec<String> = names(app, wanted).into_iter().filter(|name| self.holder(name).is_none()).collect();
        if new.is_empty() || self.has(Plant::ForgetVolumes) {
            return;
        }
        let makes = |(app, service): (&AppId, &String)| {
            let spec = self.documents.get(app).and_then(|document| document.spec.services.get(service));
            spec.is_some_and(|spec| names(app, spec).iter().any(|name| new.contains(name)))
        };
        let auctions = self.stewards.auctions.values().map(|auction| (&auction.app, &auction.service));
        let awards = self.stewards.outstanding.values().map(|out| (&out.app, &out.service));
        let is_made = auctions.chain(awards).any(makes);
        let wait_ms = match self.first_with(&new) {
            _ if is_made => MAKES_MS,
            None => 0,
            Some(first) if first == *app => self.awaited_ms(app, HEARD_MS),
            Some(_) => self.awaited_ms(app, MAKER_AWAITED_MS),
        };
        missing.truncate(if wait_ms > 0 { 0 } else { 1 });
        if wait_ms > 0 {
            self.stewards.agenda.look_by(app, self.now.ms + wait_ms);
        }
    }

    /// Of the apps that share volumes that nobody has yet the one that makes them; none where they are one app's own.
    fn first_with(&self, names: &[String]) -> Option<AppId> {
        let shared = |name: &&String| !name.contains('/');
        let shared: Vec<&String> = names.iter().filter(shared).collect();
        if shared.is_empty() {
            return None;
        }
        let living = self.documents.iter().filter(|(_, document)| !document.deleted);
        let uses = |app: &AppId, spec: &AppSpec| {
            let services = spec.services.values().filter(|service| service.replicas > 0);
            services.flat_map(|service| service.container.mounts.names(app)).any(|(name, _)| shared.contains(&&name))
        };
        living.filter(|(app, document)| uses(app, &document.spec)).map(|(app, _)| app).min().cloned()
    }

    /// How long an app still waits before it makes a volume that others share, of so long in all, ms.
    fn awaited_ms(&mut self, app: &AppId, all_ms: u64) -> u64 {
        let (now, tended) = (self.now.ms, &self.stewards.tended);
        self.machine.makers_awaited.retain(|app, _| tended.contains_key(app));
        let since = *self.machine.makers_awaited.entry(app.clone()).or_insert(now);
        since.saturating_add(all_ms).saturating_sub(now)
    }

    /// The volumes of a container that is to be here, made where there are none; `None`: they are elsewhere.
    pub(super) fn own_volumes(&mut self, app: &AppId, container: &Container) -> Option<BTreeMap<String, VolumeId>> {
        let me = self.me;
        if self.astray(&me, container.mounts.names(app)).is_some() {
            return None;
        }
        let names: Vec<String> = container.mounts.names(app).map(|(name, _)| name).collect();
        let mut volumes = BTreeMap::new();
        for name in names {
            let id = match self.readings.volumes.holder(&name, |peer| *peer != me) {
                Some((_, held)) => held.id,
                None => self.make_volume(&name)?.id,
            };
            volumes.insert(name, id);
        }
        Some(volumes)
    }

    /// `None`: there are too many.
    fn make_volume(&mut self, name: &str) -> Option<Volume> {
        if self.readings.volumes.of(&self.me).count() >= VOLUMES_MAX {
            return None;
        }
        let volume = Volume { id: VolumeId(self.draw16()), name: name.into(), made_at: self.now.wall, given_up: false };
        self.write_volume(&volume);
        self.note("volume", name, format!("volume {name} is made here"));
        Some(volume)
    }

    fn write_volume(&mut self, volume: &Volume) {
        let value = encode(volume);
        self.read_own(Kind::VOLUME, &volume.id.hex(), Some(&value));
        self.write(Kind::VOLUME, &volume.id.hex(), Some(value), Urgency::Now);
    }

    pub(super) fn read_volume(&mut self, owner: PeerId, id: &str, value: Option<&[u8]>) {
        let Some(id) = VolumeId::from_hex(id) else { return self.report(Some(owner), Bad::Unreadable) };
        let volume = match value.map(decode::<Volume>) {
            Some(Ok(volume)) if volume.id == id && volume.fault().is_none() => Some(volume),
            None => None,
            _ => return self.report(Some(owner), Bad::Unreadable),
        };
        let shared = volume.as_ref().is_some_and(|volume| !volume.name.contains('/'));
        self.readings.volumes.take(owner, id, volume);
        self.volumes_changed();
        // Of apps that share it some may have waited until it is made.
        if shared {
            std::mem::take(&mut self.machine.makers_awaited).into_keys().for_each(|app| self.look_at(app));
        }
    }

    pub(super) fn read_release(&mut self, owner: PeerId, id: &str, value: Option<&[u8]>) {
        let Some(id) = VolumeId::from_hex(id) else { return self.report(Some(owner), Bad::Unreadable) };
        let released = match value.map(decode::<Released>) {
            Some(Ok(released)) if released.id == id && whole_name_fault(&released.name).is_none() => Some(released),
            None => None,
            _ => return self.report(Some(owner), Bad::Unreadable),
        };
        self.readings.volumes.release(owner, id, released);
        self.volumes_changed();
    }

    fn volumes_changed(&mut self) {
        self.machine.volumes_stale = true;
        self.machines_changed = true;
        self.stewards.room_may_be_free();
    }

    /// Own volumes that count no more are given up, and what was released is forgotten once its machine knows.
    pub(super) fn volumes_turn(&mut self) {
        if !std::mem::take(&mut self.machine.volumes_stale) {
            return;
        }
        let me = self.me;
        let own: Vec<Volume> = self.readings.volumes.of(&me).filter(|volume| !volume.given_up).cloned().collect();
        for volume in own {
            let holder = self.holder(&volume.name).map(|(holder, held)| (holder, held.id));
            let why = match holder {
                Some((_, id)) if id == volume.id => continue,
                _ if self.has(Plant::ForgetVolumes) => continue,
                Some((holder, _)) if self.readings.volumes.counts(&volume) => {
                    format!("{} made it first, while the cluster was split", self.machine_name(&holder))
                }
                _ => "somebody released it while this machine was not heard".into(),
            };
            let name = &volume.name;
            let text = format!(
                "volume {name} counts no more: {why}. Its data lies here until `rialto volume rm {name} --machine {}`",
                self.machine_name(&me)
            );
            self.note("volume", name.clone(), text);
            self.write_volume(&Volume { given_up: true, ..volume });
        }
        self.stop_in_given_up();
        for id in self.readings.volumes.settled(&me) {
            self.read_own(Kind::RELEASE, &id.hex(), None);
            self.write(Kind::RELEASE, &id.hex(), None, Urgency::Ordinary);
        }
    }

    /// What a task writes into a volume that counts no more nobody would ever read again: it ends, and is placed where
    /// its data is.
    fn stop_in_given_up(&mut self) {
        let given_up: BTreeSet<VolumeId> =
            self.readings.volumes.of(&self.me).filter(|volume| volume.given_up).map(|volume| volume.id).collect();
        if given_up.is_empty() || self.has(Plant::ForgetVolumes) {
            return;
        }
        let uses = |mine: &&Mine| {
            let spec = mine.spec.as_ref().filter(|_| !mine.claim.state.has_ended());
            spec.is_some_and(|spec| spec.volumes.values().any(|volume| given_up.contains(volume)))
        };
        let doomed: Vec<ClaimId> = self.bidder.claims.values().filter(uses).map(|mine| mine.claim.id).collect();
        doomed.into_iter().for_each(|claim| self.stop_asked(claim, StopReason::GivenUp));
    }

    /// Makes a volume here, or finds that it is here.
    pub(super) fn volume_make(&mut self, request: u64, name: &str) -> Result<(), Refusal> {
        if let Some(fault) = whole_name_fault(name) {
            return Err(Refusal::Invalid(fault));
        }
        let volume = match self.holder(name).map(|(holder, volume)| (holder, volume.clone())) {
            Some((holder, volume)) if holder == self.me => volume,
            Some((holder, _)) => {
                return Err(Refusal::Denied(format!("volume {name} is on {} already", self.machine_name(&holder))));
            }
            None => {
                let full = || Refusal::Denied(format!("this machine has {VOLUMES_MAX} volumes, and no more can be"));
                self.make_volume(name).ok_or_else(full)?
            }
        };
        self.reply_when_durable(request, Reply::Volume(volume));
        Ok(())
    }

    /// Removes a volume of this machine that nothing uses; `force`: though an app names it.
    pub(super) fn volume_remove(&mut self, request: u64, id: &VolumeId, force: bool) -> Result<(), Refusal> {
        let found = self.readings.volumes.of(&self.me).find(|volume| volume.id == *id).cloned();
        let volume = found.ok_or_else(|| Refusal::NotFound(format!("volume {} on this machine", id.hex())))?;
        let name = &volume.name;
        if let Some(claim) = self.user_of(id) {
            let task = &self.bidder.claims[&claim].claim.task;
            return Err(Refusal::Denied(format!("volume {name} is in use by {task}: stop that first")));
        }
        if !force
            && self.volume_counts(&self.me, &volume)
            && let Some(service) = self.services_with(name).first()
        {
            let way_out = "remove that first, or force it";
            return Err(Refusal::Denied(format!("volume {name} is named by {service}: {way_out}")));
        }
        self.read_own(Kind::VOLUME, &id.hex(), None);
        self.write(Kind::VOLUME, &id.hex(), None, Urgency::Now);
        self.note("volume", name.clone(), format!("volume {name} is removed"));
        self.reply_when_durable(request, Reply::Volume(volume));
        Ok(())
    }

    /// A claim that has not ended and uses a volume.
    pub(crate) fn user_of(&self, id: &VolumeId) -> Option<ClaimId> {
        let live = self.bidder.claims.values().filter(|mine| !mine.claim.state.has_ended());
        let uses = |spec: &crate::model::TaskSpec| spec.volumes.values().any(|used| used == id);
        live.filter(|mine| mine.spec.as_ref().is_some_and(|spec| uses(spec))).map(|mine| mine.claim.id).next()
    }

    /// Services of living apps that name a volume and want tasks: `app/service`.
    pub(crate) fn services_with(&self, name: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (app, document) in self.documents.iter().filter(|(_, document)| !document.deleted) {
            for (service, spec) in document.spec.services.iter().filter(|(_, spec)| spec.replicas > 0) {
                if spec.container.mounts.names(app).any(|(used, _)| used == name) {
                    found.push(format!("{}/{service}", app.name));
                }
            }
        }
        found
    }

    /// Gives up a volume whose machine cannot be asked: the next task that uses it begins with an empty one.
    pub(super) fn volume_release(&mut self, request: u64, name: &str) -> Result<(), Refusal> {
        let held = self.holder(name).map(|(holder, volume)| (holder, volume.id));
        let (holder, id) = held.ok_or_else(|| Refusal::NotFound(format!("volume {name}")))?;
        let machine = self.machine_name(&holder);
        if self.members.state(&holder) <= State::Suspect {
            let way_out = format!("`rialto volume rm {name}` removes it, `rialto volume backup {name}` saves it");
            return Err(Refusal::Denied(format!("volume {name} is on {machine}, which is up: {way_out}")));
        }
        let released = Released { id, name: name.into(), holder, at: self.now.wall };
        let value = encode(&released);
        self.read_own(Kind::RELEASE, &id.hex(), Some(&value));
        self.write(Kind::RELEASE, &id.hex(), Some(value), Urgency::Now);
        self.note("volume", name, format!("volume {name}, which is on {machine}, is given up"));
        self.reply_when_durable(request, Reply::Done);
        Ok(())
    }
}
