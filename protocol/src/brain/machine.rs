//! The machine's own tasks: what the executor tells of them, their ends, and what a restart finds again. How they are won
//! is in `winning`, how they are stopped in `stopping`.

use std::collections::{BTreeMap, BTreeSet};

use super::Brain;
use super::writer::Urgency;
use crate::effect::{Effect, Local};
use crate::event::TaskReport;
use crate::ids::{AppId, ClaimId, PeerId};
use crate::ledger::record::Kind;
use crate::market::wire::DeclineReason;
use crate::model::{Claim, ClaimState, Executor, Health, Machine, Range, TaskSpec};
use crate::plant::Plant;
use crate::steward::array;
use crate::wire::{Message, StopReason, decode, encode};

/// The name of the image that is the machine itself.
pub const HOST_IMAGE: &str = "host";
/// A claim of a gang waits so long for the word to start, ms.
pub(super) const GANG_HOLD_MS: u64 = 30_000;
/// Finished claims are kept so long, ms,
const FINISHED_MS: u64 = 3_600_000;
/// and at most so many.
const FINISHED_MAX: usize = 1_000;
/// The exit code of a task that ran past its deadline: that of timeout(1).
const OVERDUE_CODE: i32 = 124;
/// How often finished claims are looked through, ms;
const TIDY_MS: u64 = 5_000;
/// and again so soon where more were to be dropped than are at once: each is a write, and a thousand of them would keep
/// what people wait for.
const TIDY_AGAIN_MS: u64 = 50;
const TIDY_AT_ONCE: usize = 100;

/// What the brain knows of its own machine beside the account.
#[derive(Debug, Default)]
pub(super) struct Own {
    /// Images that are here.
    pub(super) images: BTreeSet<String>,
    pub(super) load_millis: u64,
    /// What is started here would fail, for want of room on the disk.
    disk_full: bool,
    pub(super) null: bool,
    /// The executor has found everything that earlier lives left.
    pub(super) found: bool,
    tidy_ms: u64,
    /// Containers for which no claim stands, being stopped: they take room that nobody accounts for.
    pub(super) strays: BTreeSet<ClaimId>,
    /// Why this machine takes nothing, from its description.
    pub(super) no_executor: Option<String>,
    /// Of whose addresses its tasks get theirs, from its description; and whether who has which subnet may have changed.
    pub(super) range: Option<Range>,
    pub(super) subnets_stale: bool,
    /// Claims to be stopped to which nobody is sent any more, and when they are: monotonic, ms.
    pub(super) draining: BTreeMap<ClaimId, u64>,
    /// Claims for which something was asked of the lock group, and not given up.
    pub(super) leases: BTreeSet<ClaimId>,
    /// When the first task has run for as long as it may: monotonic, ms.
    pub(super) overdue_ms: Option<u64>,
    /// Room has become free that may be what others wait for.
    pub(super) room_freed: bool,
    /// Since when no other member is heard of: monotonic, ms.
    pub(super) isolated_since_ms: Option<u64>,
    /// Whose volumes count, or which secrets, may have changed.
    pub(super) volumes_stale: bool,
    /// Apps that wait for another to make a volume that they share, and since when: monotonic, ms.
    pub(super) makers_awaited: BTreeMap<AppId, u64>,
    pub(super) secrets_stale: bool,
    /// What was offered lately to stewards, and until when it is not offered again: monotonic, ms.
    pub(super) offered: BTreeMap<(AppId, String), u64>,
}

impl Own {
    pub(super) fn deadline(&self) -> Option<u64> {
        self.draining.values().copied().chain([self.tidy_ms]).chain(self.overdue_ms).min()
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

    pub(super) fn settle_closed(&mut self, draining: bool) {
        self.bidder.closed = if let Some(reason) = &self.machine.no_executor {
            Some(DeclineReason::NoExecutor(reason.clone()))
        } else if draining {
            Some(DeclineReason::Draining)
        } else if !self.machine.found {
            Some(DeclineReason::NoExecutor("it is still looking for the tasks of its last life".into()))
        } else if self.machine.range.is_some() && self.bidder.subnet.is_none() {
            Some(DeclineReason::NoExecutor("it has no addresses for tasks".into()))
        } else if !self.machine.strays.is_empty() {
            Some(DeclineReason::NoExecutor("it is still stopping tasks of an identity that it has lost".into()))
        } else {
            self.machine.disk_full.then(|| DeclineReason::Full("disk".into()))
        };
    }

    /// A machine's first address, without the port.
    pub(crate) fn address_of(&self, peer: &PeerId) -> Option<String> {
        let address = self.readings.machines.get(peer)?.addresses.first()?;
        let host = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
        Some(host.trim_start_matches('[').trim_end_matches(']').to_string())
    }

    pub(super) fn write_claim(&mut self, claim: &Claim, urgency: Urgency) {
        let value = encode(claim);
        self.read_own(Kind::CLAIM, &claim.id.hex(), Some(&value));
        self.write(Kind::CLAIM, &claim.id.hex(), Some(value), urgency);
    }

    /// The executor tells what became of a task.
    pub(super) fn reported(&mut self, id: ClaimId, report: TaskReport) {
        let ended = report.is_end();
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
            TaskReport::Running { image_digest, started_at, health } => {
                claim.health = health;
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
                if mine.stopping == Some(StopReason::Overdue) {
                    // However it went when it was told to: as timeout(1) says it.
                    (claim.state, claim.exit_code) = (ClaimState::Exited, Some(OVERDUE_CODE));
                }
                Urgency::Now
            }
            TaskReport::Expired { exit_code, ended_at } => {
                super::leasing::expired(claim, exit_code, ended_at);
                if stopping {
                    claim.state = stopped;
                }
                Urgency::Now
            }
            TaskReport::Failed { reason } => {
                claim.ended_at = Some(self.now.wall);
                claim.state = if stopping { stopped } else { ClaimState::Failed };
                claim.reason = Some(reason);
                Urgency::Now
            }
        };
        if ended {
            claim.health = Health::None;
        }
        let claim = claim.clone();
        if claim == before {
            return;
        }
        if claim.health != before.health {
            self.note_health(&claim, before.health);
        }
        if ended {
            self.end(&claim);
        }
        self.write_claim(&claim, urgency);
    }

    /// Only a turn for the worse, and the recovery from it, are events.
    fn note_health(&mut self, claim: &Claim, before: Health) {
        match (before, claim.health) {
            (_, Health::Unhealthy) => self.note("unhealthy", claim.task.to_string(), "its health check fails"),
            (Health::Unhealthy, Health::Healthy) => {
                self.note("healthy", claim.task.to_string(), "its health check succeeds again");
            }
            _ => {}
        }
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
        self.settle_closed(self.drains());
        self.stewards.room_may_be_free();
    }

    /// A claim has ended: the room is free, and whoever waits for it is asked again.
    pub(super) fn end(&mut self, claim: &Claim) {
        let freed = self.bidder.ended(&claim.id);
        self.give_lease_up(&claim.id);
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

    /// Takes back the claims of the last life: the account is right before the first bid.
    pub(super) fn restore_claims(&mut self, local: &BTreeMap<String, Vec<u8>>) {
        let own: Vec<Claim> = self.readings.claims_of(&self.me).map(|claim| Claim::clone(claim)).collect();
        for claim in own {
            let spec = local.get(&spec_key(&claim.id)).and_then(|bytes| decode::<TaskSpec>(bytes).ok());
            self.bidder.restore(claim, spec);
        }
        self.bidder.recount_inherited();
        self.keep_leases();
        self.settle_closed(false);
        self.machine.tidy_ms = self.now.ms + TIDY_MS;
    }

    /// The executor has found all that lives. What it did not name has no container: what never ran
    /// is started, and what ran is gone.
    pub(super) fn tasks_found(&mut self) {
        self.machine.found = true;
        self.revive_planted();
        self.settle_closed(self.drains());
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
            // What had its lease may have run: it does not run again under the same.
            if state <= ClaimState::Starting && mine.spec.is_some() && mine.claim.fence.is_none() {
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
            if mine.claim.fence.is_some() {
                mine.claim.started_at.get_or_insert(mine.claim.accepted_at);
            }
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

    pub(super) fn measured(&mut self, load_millis: u64, images: Vec<String>, disk_full: bool) {
        self.machine.load_millis = load_millis;
        self.machine.images = images.into_iter().collect();
        if std::mem::replace(&mut self.machine.disk_full, disk_full) != disk_full {
            self.settle_closed(self.drains());
            // What was turned away meanwhile may come.
            self.machine.room_freed |= !disk_full;
            self.stewards.room_may_be_free();
        }
    }

    fn drains(&self) -> bool {
        self.readings.machines.get(&self.me).is_some_and(|machine| machine.draining)
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
        self.stop_drained();
        self.stop_overdue();
        if std::mem::take(&mut self.machine.room_freed) {
            self.offer_room();
        }
        if self.machine.tidy_ms <= self.now.ms {
            let is_all = self.tidy() < TIDY_AT_ONCE;
            self.machine.tidy_ms = self.now.ms + if is_all { TIDY_MS } else { TIDY_AGAIN_MS };
        }
    }

    /// Drops finished claims that are old, or more than [`FINISHED_MAX`]; never one whose outcome
    /// the document does not have yet. How many that were: at most [`TIDY_AT_ONCE`].
    fn tidy(&mut self) -> usize {
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
        let is_due = |(at, (ended, _)): &(usize, (u64, ClaimId))| {
            *at < surplus || self.now.wall.saturating_sub(*ended) > FINISHED_MS
        };
        let due = finished.into_iter().enumerate().take_while(is_due).map(|(_, (_, id))| id);
        let due: Vec<ClaimId> = due.filter(|id| forgetful || self.is_recorded(id)).take(TIDY_AT_ONCE).collect();
        for id in &due {
            self.bidder.forget(id);
            self.read_own(Kind::CLAIM, &id.hex(), None);
            self.write(Kind::CLAIM, &id.hex(), None, Urgency::Ordinary);
            self.out.push(Effect::Forget { claim: *id });
        }
        due.len()
    }

    /// Whether nothing would be forgotten with this claim.
    fn is_recorded(&self, id: &ClaimId) -> bool {
        let Some(mine) = self.bidder.claims.get(id) else { return true };
        let claim = &mine.claim;
        let Some(document) = self.documents.get(&claim.task.app) else { return false };
        let Some(service) = document.spec.services.get(&claim.task.service) else { return true };
        if let Some(instant) = array::instant(&claim.task.slot) {
            let cursor = document.cursors.get(&claim.task.service).copied().unwrap_or(0);
            let since = service.schedule.as_ref().map_or(u64::MAX, |schedule| schedule.since);
            return document.deleted || instant <= cursor.max(since);
        }
        // What may fail so often is counted.
        let counts = service.batch.retries.is_some() && claim.exit_code.is_some();
        let finishing = claim.state == ClaimState::Exited && (service.finishes(claim.exit_code) || counts);
        let outcome = document.outcomes.get(&claim.task.service).and_then(|slots| slots.get(&claim.task.slot));
        document.deleted
            || !finishing
            || claim.revision != service.revision()
            || outcome.is_some_and(|outcome| outcome.revision == claim.revision)
    }
}

pub(super) fn spec_key(claim: &ClaimId) -> String {
    format!("task/{claim}")
}
