//! The machine's own tasks: from an award to a durable claim, to a container, to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand_chacha::rand_core::RngCore;

use super::Brain;
use super::writer::Urgency;
use crate::effect::{Effect, Local};
use crate::event::TaskReport;
use crate::ids::{AppId, BidId, ClaimId, PeerId, TaskId};
use crate::ledger::record::Kind;
use crate::market::bidder::{Answer, Images, Reservation, Waiting};
use crate::market::wire::{Award, DeclineReason, NackReason, Release, Slot, Solicit, Verdict};
use crate::model::app::registry_of;
use crate::model::resources::GPU_PREFIX;
use crate::model::{Claim, ClaimState, Executor, Machine, PortBinding, Resources, TaskSpec};
use crate::plant::Plant;
use crate::wire::{Message, StopReason, decode, encode};

/// The name of the image that is the machine itself.
pub const HOST_IMAGE: &str = "host";
/// A claim of a gang waits so long for the word to start, ms.
const GANG_HOLD_MS: u64 = 30_000;
/// Finished claims are kept so long, ms,
const FINISHED_MS: u64 = 3_600_000;
/// and at most so many.
const FINISHED_MAX: usize = 1_000;
/// How often finished claims are looked through, ms.
const TIDY_MS: u64 = 5_000;

/// What the brain knows of its own machine beside the account.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Images that are here.
    pub(super) images: BTreeSet<String>,
    pub(super) load_millis: u64,
    null: bool,
    /// The executor has found everything that earlier lives left.
    found: bool,
    tidy_ms: u64,
    /// Containers for which no claim stands, being stopped: they take room that nobody accounts for.
    strays: BTreeSet<ClaimId>,
    /// Why this machine takes nothing, from its description.
    no_executor: Option<String>,
    /// Room has become free that may be what others wait for.
    pub(super) room_freed: bool,
    /// Since when no other member is heard of: monotonic, ms.
    pub(super) isolated_since_ms: Option<u64>,
    /// What was offered lately to stewards, and until when it is not offered again: monotonic, ms.
    pub(super) offered: BTreeMap<(AppId, String), u64>,
}

impl Own {
    pub(super) fn deadline(&self) -> Option<u64> {
        Some(self.tidy_ms)
    }
}

impl Brain {
    /// The account follows what the machine record says.
    pub(super) fn take_description(&mut self, machine: &Machine) {
        self.bidder.describe(machine);
        self.machine.null = machine.executor == Executor::Null;
        self.machine.no_executor = match &machine.executor {
            Executor::None(reason) => Some(reason.clone()),
            _ => None,
        };
        self.settle_closed(machine.draining);
    }

    fn settle_closed(&mut self, draining: bool) {
        self.bidder.closed = if let Some(reason) = &self.machine.no_executor {
            Some(DeclineReason::NoExecutor(reason.clone()))
        } else if draining {
            Some(DeclineReason::Draining)
        } else if !self.machine.found {
            Some(DeclineReason::NoExecutor("it is still looking for the tasks of its last life".into()))
        } else if !self.machine.strays.is_empty() {
            Some(DeclineReason::NoExecutor("it is still stopping tasks of an identity that it has lost".into()))
        } else {
            None
        };
    }

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
        self.solicited_until(from, solicit, self.now.ms + solicit.deadline_ms);
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
        let Some(claims) = self.claims_for(award, &reservation) else {
            self.released(&Release { auction, bid });
            return self.send(from, nack(NackReason::NoPort));
        };
        let answer = claims.iter().map(|(claim, _)| (claim.task.slot.clone(), claim.id)).collect();
        let records: Vec<(Claim, TaskSpec)> = claims.clone();
        let hold_until_ms = award.gang.then_some(self.now.ms + GANG_HOLD_MS);
        self.bidder.accept(award, claims, hold_until_ms);
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

    /// Starts an accepted claim when this is durable, unless it waits for its gang or for others to end.
    fn start_if_due(&mut self, id: &ClaimId) {
        let spec = self.bidder.claims.get(id).and_then(|mine| mine.spec.clone());
        if let Some(spec) = spec
            && self.bidder.may_start(id)
        {
            self.hold(Effect::Start { claim: *id, spec });
        }
    }

    /// The gang of a claim is complete.
    pub(super) fn gang_goes(&mut self, id: ClaimId) {
        if self.bidder.go(&id) {
            self.start_if_due(&id);
        }
    }

    fn claims_for(&mut self, award: &Award, reservation: &Reservation) -> Option<Vec<(Claim, TaskSpec)>> {
        let mut claims = Vec::with_capacity(award.slots.len());
        let mut taken = BTreeSet::new();
        for (copy, slot) in award.slots.iter().enumerate() {
            let start = (self.rng.next_u64() % 10_000) as u16;
            let ports = self.bidder.ports(&award.ports, start, &taken)?;
            taken.extend(ports.iter().map(|port| port.host));
            let mut claim = self.claim_for(award, slot, reservation.need_of(copy), ports);
            let live = |id: &&ClaimId| self.bidder.claims.get(id).is_some_and(|mine| !mine.claim.state.has_ended());
            claim.takes_over = reservation.victims.get(copy).into_iter().flatten().filter(live).copied().collect();
            let spec = self.spec_for(award, &claim);
            claims.push((claim, spec));
        }
        Some(claims)
    }

    fn claim_for(&mut self, award: &Award, slot: &Slot, mut need: Resources, ports: Vec<PortBinding>) -> Claim {
        ports.iter().for_each(|port| need.set(Resources::port(port.host), 1));
        Claim {
            id: ClaimId(self.draw16()),
            task: TaskId { app: award.app.clone(), service: award.service.clone(), slot: slot.slot.clone() },
            attempt: slot.attempt,
            bid: award.bid,
            revision: award.revision,
            need,
            priority: award.priority,
            gang: award.gang,
            ports,
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
        if let Some(first) = claim.ports.first() {
            set("PORT".into(), first.host.to_string());
        }
        for port in claim.ports.iter().filter(|port| port.container > 0) {
            set(format!("RIALTO_PORT_{}", port.container), port.host.to_string());
        }
        if claim.need.has_gpus() {
            let none = Resources::default();
            let own = claim.need.gpus(&none).map(|(name, _)| name.trim_start_matches(GPU_PREFIX));
            set("RIALTO_GPUS".into(), own.collect::<Vec<_>>().join(","));
        }
        set("RIALTO_ADDRESS".into(), self.address_of(&self.me).unwrap_or_else(|| "127.0.0.1".into()));
        set("RIALTO_MACHINE".into(), self.machine_name(&self.me));
        set("RIALTO_APP".into(), claim.task.app.name.clone());
        set("RIALTO_SERVICE".into(), claim.task.service.clone());
        set("RIALTO_TASK".into(), claim.task.to_string());
        TaskSpec {
            task: claim.task.clone(),
            attempt: claim.attempt,
            image: award.image.clone(),
            image_digest: award.image_digest.clone(),
            image_at: award.image_at.clone(),
            command: award.command.clone(),
            environment,
            limits: award.limits.clone(),
            grace_ms: award.grace_ms,
            stop_when_isolated_ms: award.stop_when_isolated_ms,
        }
    }

    /// A machine's first address, without the port.
    pub(crate) fn address_of(&self, peer: &PeerId) -> Option<String> {
        let address = self.readings.machines.get(peer)?.addresses.first()?;
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        Some(host.trim_start_matches('[').trim_end_matches(']').to_string())
    }

    fn write_claim(&mut self, claim: &Claim, urgency: Urgency) {
        let value = encode(claim);
        self.read_own(Kind::CLAIM, &claim.id.hex(), Some(&value));
        self.write(Kind::CLAIM, &claim.id.hex(), Some(value), urgency);
    }

    /// The executor tells what became of a task.
    pub(super) fn reported(&mut self, id: ClaimId, report: TaskReport) {
        let ended = matches!(report, TaskReport::Exited { .. } | TaskReport::Failed { .. });
        let Some(mine) = self.bidder.claims.get_mut(&id) else {
            return self.stray(id, ended);
        };
        mine.started = true;
        if mine.claim.state.has_ended() {
            if !ended {
                self.out.push(Effect::Stop { claim: id, grace_ms: 0 });
            }
            return;
        }
        let stopping = mine.claim.state == ClaimState::Stopping;
        let stopped = match mine.stopping {
            Some(StopReason::Duplicate) => ClaimState::Superseded,
            Some(StopReason::Preempted) => ClaimState::Preempted,
            _ => ClaimState::Stopped,
        };
        let before = mine.claim.clone();
        let claim = &mut mine.claim;
        let urgency = match report {
            TaskReport::Starting => {
                if claim.state == ClaimState::Accepted {
                    claim.state = ClaimState::Starting;
                }
                Urgency::Ordinary
            }
            TaskReport::Running { image_digest, started_at } => {
                claim.image_digest = image_digest.or(claim.image_digest.take());
                claim.started_at = Some(started_at);
                if !stopping {
                    claim.state = ClaimState::Running;
                }
                Urgency::Urgent
            }
            TaskReport::Exited { exit_code, oom_killed, ended_at } => {
                // What was stopped before it ran has not run.
                claim.started_at = claim.started_at.or((!stopping).then_some(ended_at));
                (claim.exit_code, claim.oom_killed, claim.ended_at) = (Some(exit_code), oom_killed, Some(ended_at));
                claim.state = if stopping { stopped } else { ClaimState::Exited };
                Urgency::Now
            }
            TaskReport::Failed { reason } => {
                claim.ended_at = Some(self.now.wall);
                claim.state = if stopping { stopped } else { ClaimState::Failed };
                claim.reason = Some(reason);
                Urgency::Now
            }
        };
        let claim = claim.clone();
        if claim == before {
            return;
        }
        if ended {
            self.end(&claim);
        }
        self.write_claim(&claim, urgency);
    }

    /// A container that no claim stands for: of an older identity, or of a claim long gone. It is stopped, and nothing
    /// new is taken before it is gone.
    fn stray(&mut self, id: ClaimId, ended: bool) {
        if !ended {
            self.machine.strays.insert(id);
            self.out.push(Effect::Stop { claim: id, grace_ms: 0 });
        } else {
            self.machine.strays.remove(&id);
            self.out.push(Effect::Forget { claim: id });
        }
        let draining = self.readings.machines.get(&self.me).is_some_and(|machine| machine.draining);
        self.settle_closed(draining);
        self.stewards.room_may_be_free();
    }

    /// A claim has ended: the room is free, and whoever waits for it is asked again.
    fn end(&mut self, claim: &Claim) {
        let freed = self.bidder.ended(&claim.id);
        let local = Local { key: spec_key(&claim.id), value: None };
        self.writer.write_local(self.now, local, Urgency::Ordinary);
        let text = match (claim.state, claim.exit_code) {
            (ClaimState::Failed, _) => format!("failed: {}", claim.reason.as_deref().unwrap_or("no reason given")),
            (_, Some(code)) if claim.oom_killed => format!("ended with code {code}, out of memory"),
            (state, Some(code)) => format!("{} with code {code}", state.word()),
            (state, None) => state.word().to_string(),
        };
        self.note(claim.state.word(), claim.task.to_string(), text);
        freed.iter().for_each(|heir| self.start_if_due(heir));
        self.machine.room_freed = true;
        let again = self.bidder.look_again();
        self.solicited_again(again);
    }

    /// A steward asks that a claim be ended.
    pub(super) fn stop_asked(&mut self, id: ClaimId, why: StopReason) {
        let Some(mine) = self.bidder.claims.get_mut(&id) else { return };
        if mine.claim.state >= ClaimState::Stopping {
            return;
        }
        mine.stopping = Some(why);
        mine.claim.state = ClaimState::Stopping;
        mine.claim.reason = Some(stop_words(why).into());
        let grace_ms = mine.spec.as_ref().map_or(0, |spec| spec.grace_ms);
        if self.planted.contains(&Plant::EndEarly) {
            mine.claim.state = ClaimState::Stopped;
        }
        let claim = mine.claim.clone();
        if self.has(Plant::FreeRoomEarly) {
            self.bidder.ended(&id);
        }
        self.write_claim(&claim, Urgency::Now);
        self.hold(Effect::Stop { claim: id, grace_ms });
    }

    /// This machine is no member any more: what it runs ends, and it takes nothing new.
    pub(super) fn stop_everything(&mut self) {
        self.machine.no_executor = Some("this machine has left the cluster".into());
        self.settle_closed(false);
        self.end_all(StopReason::Unwanted);
    }

    /// The machine hands over what it has, now.
    pub(super) fn end_tasks(&mut self) {
        self.end_all(StopReason::Draining);
    }

    fn end_all(&mut self, why: StopReason) {
        let all: Vec<ClaimId> = self.bidder.claims.keys().copied().collect();
        all.into_iter().for_each(|claim| self.stop_asked(claim, why));
    }

    /// Takes back the claims of the last life: the account is right before the first bid.
    pub(super) fn restore_claims(&mut self, local: &BTreeMap<String, Vec<u8>>) {
        let own: Vec<Claim> = self.readings.claims_of(&self.me).map(|claim| Claim::clone(claim)).collect();
        for claim in own {
            let spec = local.get(&spec_key(&claim.id)).and_then(|bytes| decode::<TaskSpec>(bytes).ok());
            self.bidder.restore(claim, spec);
        }
        self.bidder.recount_inherited();
        self.settle_closed(false);
        self.machine.tidy_ms = self.now.ms + TIDY_MS;
    }

    /// The executor has found all that lives. What it did not name has no container: what never ran
    /// is started, and what ran is gone.
    pub(super) fn tasks_found(&mut self) {
        self.machine.found = true;
        self.revive_planted();
        let draining = self.readings.machines.get(&self.me).is_some_and(|machine| machine.draining);
        self.settle_closed(draining);
        let open: Vec<ClaimId> =
            self.bidder.claims.values().filter(|m| !m.claim.state.has_ended()).map(|m| m.claim.id).collect();
        for id in open {
            let Some(mine) = self.bidder.claims.get_mut(&id) else { continue };
            let state = mine.claim.state;
            if mine.started {
                if state == ClaimState::Stopping {
                    let grace_ms = mine.spec.as_ref().map_or(0, |spec| spec.grace_ms);
                    self.out.push(Effect::Stop { claim: id, grace_ms });
                }
                continue;
            }
            if state <= ClaimState::Starting && mine.spec.is_some() {
                // Whether its gang has been told to start may have been forgotten: its steward tells it again.
                if state == ClaimState::Accepted && mine.claim.gang {
                    self.bidder.hold(&id, self.now.ms + GANG_HOLD_MS);
                }
                let victims = self.bidder.claims[&id].claim.takes_over.clone();
                victims.into_iter().for_each(|victim| self.stop_asked(victim, StopReason::Preempted));
                self.start_if_due(&id);
                continue;
            }
            mine.claim.state = if state == ClaimState::Stopping { ClaimState::Stopped } else { ClaimState::Failed };
            mine.claim.ended_at = Some(self.now.wall);
            mine.claim.reason = Some("its container was gone when the machine came back".into());
            let claim = mine.claim.clone();
            self.end(&claim);
            self.write_claim(&claim, Urgency::Now);
        }
        self.machine.room_freed = true;
        self.stewards.room_may_be_free();
        self.refute_when_known();
    }

    /// Of the simulator alone.
    fn revive_planted(&mut self) {
        if self.has(Plant::ReviveEnded) {
            let ended = self.bidder.claims.values().filter(|mine| mine.claim.state.has_ended());
            for mut claim in ended.map(|mine| mine.claim.clone()).collect::<Vec<_>>() {
                claim.state = ClaimState::Running;
                self.write_claim(&claim, Urgency::Ordinary);
            }
        }
    }

    /// Whether what the claims say of this machine's tasks is true: not right after a start.
    pub(super) fn knows_its_tasks(&self) -> bool {
        self.machine.found || self.bidder.claims.values().all(|mine| mine.claim.state.has_ended())
    }

    pub(super) fn measured(&mut self, load_millis: u64, images: Vec<String>) {
        self.machine.load_millis = load_millis;
        self.machine.images = images.into_iter().collect();
    }

    pub(super) fn machine_turn(&mut self) {
        let (late, freed) = self.bidder.expire(self.now.ms);
        for (steward, decline) in late {
            self.send(steward, Message::Decline(decline));
        }
        if freed {
            let again = self.bidder.look_again();
            self.solicited_again(again);
        }
        for claim in self.bidder.forsaken(self.now.ms) {
            self.bidder.go(&claim);
            self.stop_asked(claim, StopReason::Ungathered);
        }
        self.isolation_turn();
        if std::mem::take(&mut self.machine.room_freed) {
            self.offer_room();
        }
        if self.machine.tidy_ms <= self.now.ms {
            self.machine.tidy_ms = self.now.ms + TIDY_MS;
            self.tidy();
        }
    }

    /// Drops finished claims that are old, or more than [`FINISHED_MAX`]; never one whose outcome
    /// the document does not have yet.
    fn tidy(&mut self) {
        let mut finished: Vec<(u64, ClaimId)> = self
            .bidder
            .claims
            .values()
            .filter(|mine| mine.claim.state.has_ended())
            .map(|mine| (mine.claim.ended_at.unwrap_or(0), mine.claim.id))
            .collect();
        finished.sort_unstable();
        let forgetful = self.has(Plant::ForgetFinished);
        let surplus = finished.len().saturating_sub(if forgetful { 0 } else { FINISHED_MAX });
        for (at, (ended, id)) in finished.into_iter().enumerate() {
            let old = self.now.wall.saturating_sub(ended) > FINISHED_MS;
            if (old || at < surplus) && (forgetful || self.is_recorded(&id)) {
                self.bidder.forget(&id);
                self.read_own(Kind::CLAIM, &id.hex(), None);
                self.write(Kind::CLAIM, &id.hex(), None, Urgency::Ordinary);
                self.out.push(Effect::Forget { claim: id });
            }
        }
    }

    /// Whether nothing would be forgotten with this claim.
    fn is_recorded(&self, id: &ClaimId) -> bool {
        let Some(mine) = self.bidder.claims.get(id) else { return true };
        let claim = &mine.claim;
        let Some(document) = self.documents.get(&claim.task.app) else { return false };
        let Some(service) = document.spec.services.get(&claim.task.service) else { return true };
        let finishing = claim.state == ClaimState::Exited && service.finishes(claim.exit_code);
        let outcome = document.outcomes.get(&claim.task.service).and_then(|slots| slots.get(&claim.task.slot));
        document.deleted
            || !finishing
            || claim.revision != service.revision()
            || outcome.is_some_and(|outcome| outcome.revision == claim.revision)
    }
}

fn spec_key(claim: &ClaimId) -> String {
    format!("task/{claim}")
}

fn stop_words(why: StopReason) -> &'static str {
    match why {
        StopReason::Unwanted => "no longer wanted",
        StopReason::Duplicate => "another copy of the task goes on",
        StopReason::Outdated => "replaced by a newer revision",
        StopReason::Draining => "the machine is being drained",
        StopReason::Preempted => "its room went to work of a higher priority",
        StopReason::Ungathered => "its gang did not come together",
        StopReason::Isolated => "the machine heard no other for too long",
    }
}
