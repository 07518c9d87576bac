//! The machine's side of a bid: what it answers a steward, and an award made a durable claim.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand_chacha::rand_core::RngCore;

use super::Brain;
use super::machine::{GANG_HOLD_MS, HOST_IMAGE, spec_key};
use super::writer::Urgency;
use crate::effect::{Effect, Local};
use crate::ids::{BidId, ClaimId, PeerId, TaskId, VolumeId};
use crate::market::bidder::{Answer, Doors, Images, Reservation, Waiting};
use crate::market::wire::{Award, Decline, NackReason, Release, Slot, Solicit, Verdict};
use crate::model::app::registry_of;
use crate::model::resources::{CPU_MILLIS, GPU_PREFIX, MEMORY_BYTES, PORT_PREFIX};
use crate::model::{Claim, PortBinding, Resources, TaskSpec};
use crate::plant::Plant;
use crate::rfc3339::rfc3339;
use crate::steward::{array, cron};
use crate::wire::{Message, StopReason, encode};

/// No steward waits longer than this for a bid, ms.
const DEADLINE_MS_MAX: u64 = 1_000;

impl Brain {
    /// Whether the image can be had, and whether it is here. What a registry has is for the machine to find out that
    /// wins: a name that says where to ask counts as known.
    fn images_of(&self, image: &str) -> (bool, bool) {
        let name = self.readings.image_name(image);
        let own = name.is_some_and(|name| self.machine.images.contains(name));
        let present = self.machine.null || image == HOST_IMAGE || own;
        (present || name.is_some() || registry_of(image).is_some(), present)
    }

    pub(super) fn solicited(&mut self, from: PeerId, solicit: &Arc<Solicit>) {
        self.offer_before(solicit);
        self.solicited_until(from, solicit, self.now.ms + solicit.deadline_ms.min(DEADLINE_MS_MAX));
    }

    fn solicited_until(&mut self, from: PeerId, solicit: &Arc<Solicit>, until_ms: u64) {
        match self.answer_to(from, solicit, until_ms) {
            Answer::Bid(bid) => self.send(from, Message::Bid(bid)),
            Answer::Decline(decline) => self.send(from, Message::Decline(decline)),
            Answer::Later => {}
        }
    }

    /// What this machine's account says to a solicitation.
    pub(super) fn answer_to(&mut self, steward: PeerId, solicit: &Arc<Solicit>, until_ms: u64) -> Answer {
        if let Some(reason) = self.astray(&self.me, solicit.volumes.iter().cloned()) {
            return Answer::Decline(Decline { auction: solicit.auction, reason });
        }
        let (known, present) = self.images_of(&solicit.image);
        let bid = BidId(self.draw16());
        if self.bidder.capacity.has_gpus() {
            self.bidder.mix = self.readings.mix();
        }
        let images = Images { known, present, name: &solicit.image };
        self.bidder.solicited(self.now, steward, solicit, until_ms, images, bid)
    }

    pub(super) fn released(&mut self, release: &Release) {
        let again = self.bidder.released(&release.bid);
        self.solicited_again(again);
    }

    pub(super) fn solicited_again(&mut self, waiting: Vec<Waiting>) {
        for Waiting { steward, solicit, until_ms } in waiting {
            self.solicited_until(steward, &solicit, until_ms);
        }
    }

    /// An award: claims first, durable; then the answer, and then the start.
    pub(super) fn awarded(&mut self, from: PeerId, award: &Arc<Award>) {
        let (auction, bid) = (award.auction, award.bid);
        let nack = |reason| Message::Verdict(Verdict { auction, bid, answer: Err(reason) });
        if let Some(claims) = self.bidder.claims_of(&bid).cloned() {
            let answer = Message::Verdict(Verdict { auction, bid, answer: Ok(claims) });
            return self.hold(Effect::Send { to: from, message: answer });
        }
        let Some(reservation) = self.bidder.reservation(&bid).filter(|r| r.expires_ms > self.now.ms).cloned() else {
            return self.send(from, nack(NackReason::Expired));
        };
        if award.slots.len() > reservation.count as usize || reservation.steward != from {
            return self.send(from, nack(NackReason::TooMany));
        }
        if self.bidder.closed.is_some() {
            return self.send(from, nack(NackReason::Draining));
        }
        if !self.bidder.still_fits(&reservation, award.slots.len()) {
            self.released(&Release { auction, bid });
            return self.send(from, nack(NackReason::NoRoom));
        }
        let Some(volumes) = self.own_volumes(&award.app, &award.container) else {
            self.released(&Release { auction, bid });
            return self.send(from, nack(NackReason::Elsewhere));
        };
        let claims = match self.claims_for(award, &reservation, &volumes) {
            Ok(claims) => claims,
            Err(reason) => {
                self.released(&Release { auction, bid });
                return self.send(from, nack(reason));
            }
        };
        let answer = claims.iter().map(|(claim, _)| (claim.task.slot.clone(), claim.id)).collect();
        let records: Vec<(Claim, TaskSpec)> = claims.clone();
        let waits = award.gang && !self.has(Plant::StartHalfGangs);
        let hold_until_ms = waits.then_some(self.now.ms + GANG_HOLD_MS);
        self.bidder.accept(award, claims, hold_until_ms);
        // What was offered was taken: of more room more may be offered at once.
        self.machine.offered.remove(&(award.app.clone(), award.service.clone()));
        let started: Vec<ClaimId> = records.iter().map(|(claim, _)| claim.id).collect();
        let victims: Vec<ClaimId> = records.iter().flat_map(|(claim, _)| claim.takes_over.iter().copied()).collect();
        for (claim, spec) in records {
            let local = Local { key: spec_key(&claim.id), value: Some(encode(&spec)) };
            self.writer.write_local(self.now, local, Urgency::Now);
            self.write_claim(&claim, Urgency::Now);
        }
        let verdict = Message::Verdict(Verdict { auction, bid, answer: Ok(answer) });
        self.hold(Effect::Send { to: from, message: verdict });
        victims.into_iter().for_each(|victim| self.stop_asked(victim, StopReason::Preempted));
        started.iter().for_each(|claim| self.start_if_due(claim));
        let again = self.bidder.look_again();
        self.solicited_again(again);
    }

    /// Starts an accepted claim when this is durable, unless it waits for its gang or for others to end; or asks for what
    /// it needs before that.
    pub(super) fn start_if_due(&mut self, id: &ClaimId) {
        let spec = self.bidder.claims.get(id).and_then(|mine| mine.spec.clone());
        if let Some(spec) = spec
            && self.bidder.may_start(id)
        {
            match spec.guard {
                Some(guard) if !self.has(Plant::StartUnleased) => self.ask_for_lease(id, guard),
                _ => self.hold(Effect::Start { claim: *id, spec }),
            }
        }
    }

    /// The gang of a claim is complete.
    pub(super) fn gang_goes(&mut self, id: ClaimId) {
        if self.bidder.go(&id) {
            self.start_if_due(&id);
        }
    }

    fn claims_for(
        &mut self,
        award: &Award,
        reservation: &Reservation,
        volumes: &BTreeMap<String, VolumeId>,
    ) -> Result<Vec<(Claim, TaskSpec)>, NackReason> {
        let mut claims = Vec::with_capacity(award.slots.len());
        let mut taken = BTreeSet::new();
        if award.slots.len() > self.bidder.addresses_free() as usize {
            return Err(NackReason::NoAddress);
        }
        for (copy, slot) in award.slots.iter().enumerate() {
            let start = (self.rng.next_u64() % 10_000) as u16;
            let doors = self.bidder.doors(award.network_mode, &award.ports, start, &mut taken);
            let mut claim = self.claim_for(award, slot, reservation.need_of(copy), doors.ok_or(NackReason::NoPort)?);
            let live = |id: &&ClaimId| self.bidder.claims.get(id).is_some_and(|mine| !mine.claim.state.has_ended());
            claim.takes_over = reservation.victims.get(copy).into_iter().flatten().filter(live).copied().collect();
            let spec = TaskSpec { volumes: volumes.clone(), ..self.spec_for(award, &claim) };
            claims.push((claim, spec));
        }
        Ok(claims)
    }

    fn claim_for(&mut self, award: &Award, slot: &Slot, mut need: Resources, doors: Doors) -> Claim {
        let Doors { address, ports } = doors;
        ports.iter().filter(|port| !port.ingress).for_each(|port| need.set(Resources::port(port.host), 1));
        Claim {
            id: ClaimId(self.draw16()),
            task: TaskId { app: award.app.clone(), service: award.service.clone(), slot: slot.slot.clone() },
            attempt: slot.attempt,
            of: slot.of,
            bid: award.bid,
            revision: award.revision,
            need,
            priority: award.priority,
            gang: award.gang,
            ports,
            address,
            accepted_at: self.now.wall,
            ..Claim::default()
        }
    }

    /// What the executor runs: the award's command, and an environment that tells the task who and
    /// where it is.
    fn spec_for(&self, award: &Award, claim: &Claim) -> TaskSpec {
        let mut environment = award.environment.clone();
        let mut set = |name: String, value: String| {
            environment.insert(name, value);
        };
        // With an address of its own a task listens where its file says, without one where the machine says.
        let listens = |port: &PortBinding| if claim.address.is_some() { port.container } else { port.host };
        if let Some(first) = claim.ports.first() {
            set("PORT".into(), listens(first).to_string());
        }
        for port in claim.ports.iter().filter(|port| port.container > 0) {
            set(format!("RIALTO_PORT_{}", port.container), listens(port).to_string());
        }
        if claim.need.has_gpus() {
            let none = Resources::default();
            let own = claim.need.gpus(&none).map(|(name, _)| name.trim_start_matches(GPU_PREFIX));
            set("RIALTO_GPUS".into(), own.collect::<Vec<_>>().join(","));
        }
        let own = claim.address.map(|address| address.to_string()).or_else(|| self.address_of(&self.me));
        set("RIALTO_ADDRESS".into(), own.unwrap_or_else(|| "127.0.0.1".into()));
        set("RIALTO_MACHINE".into(), self.machine_name(&self.me));
        set("RIALTO_APP".into(), claim.task.app.name.clone());
        set("RIALTO_SERVICE".into(), claim.task.service.clone());
        set("RIALTO_TASK".into(), claim.task.to_string());
        let (run, index) = array::parts(&claim.task.slot);
        set("RIALTO_TASK_INDEX".into(), index.to_string());
        let count = if claim.of > 0 { claim.of } else { award.count.max(1) };
        set("RIALTO_TASK_COUNT".into(), count.to_string());
        if let Some(run) = run {
            set("RIALTO_RUN_ID".into(), cron::run_id(&claim.task.app, &claim.task.service, run));
        }
        if let Some(instant) = array::instant(&claim.task.slot) {
            set("RIALTO_SCHEDULED_AT".into(), rfc3339(instant));
        }
        let tcp = claim.ports.iter().filter(|port| port.protocol == "tcp");
        TaskSpec {
            task: claim.task.clone(),
            attempt: claim.attempt,
            image: award.image.clone(),
            image_digest: award.image_digest.clone(),
            image_at: award.image_at.clone(),
            command: award.command.clone(),
            environment,
            limits: award.limits.clone(),
            container: award.container.clone(),
            grace_ms: award.grace_ms,
            stop_when_isolated_ms: award.stop_when_isolated_ms,
            address: claim.address,
            drain_ms: award.drain_ms,
            volumes: BTreeMap::new(),
            takes: counted(&claim.need),
            listens: tcp.map(listens).filter(|port| *port > 0).collect(),
            deadline_ms: award.deadline_ms,
            guard: award.guard,
        }
    }
}

/// What a claim takes of the machine's devices, if it has any for it.
fn counted(need: &Resources) -> BTreeMap<String, u64> {
    let is_device = |name: &str| name != CPU_MILLIS && name != MEMORY_BYTES && !name.starts_with(PORT_PREFIX);
    need.0.iter().filter(|(name, _)| is_device(name)).map(|(name, amount)| (name.clone(), *amount)).collect()
}
