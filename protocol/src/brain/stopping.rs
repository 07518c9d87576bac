//! How this machine's tasks are ended: whose word counts, and how long nobody new is sent to one before.

use super::Brain;
use super::writer::Urgency;
use crate::effect::{Bad, Effect, Refusal, Reply};
use crate::ids::{ClaimId, PeerId};
use crate::market::bidder::Mine;
use crate::model::ClaimState;
use crate::plant::Plant;
use crate::wire::StopReason;

impl Brain {
    /// A peer says, as its steward, that a claim is to end. The steward says it again for as long as it runs; whoever
    /// cannot be the steward is not heard.
    pub(super) fn stop_told(&mut self, by: PeerId, id: ClaimId, why: StopReason) {
        let app = self.bidder.claims.get(&id).map(|mine| mine.claim.task.app.clone());
        if by == self.me || self.has(Plant::AnyoneStops) || app.is_none_or(|app| self.may_steward(&app, &by)) {
            self.stop_asked(id, why);
        } else {
            self.report(Some(by), Bad::Usurped);
        }
    }

    /// A claim is to end.
    pub(super) fn stop_asked(&mut self, id: ClaimId, why: StopReason) {
        let drain_ms = self.drain_ms(&id, why);
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
        match drain_ms {
            0 => self.hold(Effect::Stop { claim: id, grace_ms }),
            _ => drop(self.machine.draining.insert(id, self.now.ms + drain_ms)),
        }
    }

    /// Somebody wants a task started anew. It is still wanted when it has ended, and so its steward places it again.
    pub(super) fn restart(&mut self, request: u64, id: ClaimId) -> Result<(), Refusal> {
        let lives = |mine: &&Mine| mine.claim.state < ClaimState::Stopping;
        if self.bidder.claims.get(&id).filter(lives).is_none() {
            return Err(Refusal::NotFound(format!("the task of claim {id} here")));
        }
        self.stop_asked(id, StopReason::Restarted);
        self.reply_when_durable(request, Reply::Done);
        Ok(())
    }

    /// What has run for longer than its service allows has failed.
    pub(super) fn stop_overdue(&mut self) {
        let now = self.now;
        self.machine.overdue_ms = None;
        let mut over: Vec<ClaimId> = Vec::new();
        for mine in self.bidder.timed().filter(|mine| mine.claim.state == ClaimState::Running) {
            let deadline = mine.spec.as_ref().and_then(|spec| spec.deadline_ms);
            let (Some(deadline_ms), Some(started_at)) = (deadline, mine.claim.started_at) else { continue };
            let left_ms = started_at.saturating_add(deadline_ms).saturating_sub(now.wall);
            if left_ms == 0 {
                over.push(mine.claim.id);
                continue;
            }
            let due_ms = now.ms.saturating_add(left_ms);
            let first = self.machine.overdue_ms.get_or_insert(due_ms);
            *first = due_ms.min(*first);
        }
        over.into_iter().for_each(|claim| self.stop_asked(claim, StopReason::Overdue));
    }

    /// Nobody is sent to these any more: they are stopped.
    pub(super) fn stop_drained(&mut self) {
        let now = self.now.ms;
        let over: Vec<ClaimId> =
            self.machine.draining.iter().filter(|(_, until_ms)| **until_ms <= now).map(|(id, _)| *id).collect();
        for id in over {
            self.machine.draining.remove(&id);
            let live = self.bidder.claims.get(&id).filter(|mine| !mine.claim.state.has_ended());
            let Some(grace_ms) = live.map(|mine| mine.spec.as_ref().map_or(0, |spec| spec.grace_ms)) else { continue };
            self.hold(Effect::Stop { claim: id, grace_ms });
        }
    }

    /// How long the word that a claim is about to be stopped has to go before it is: long enough to reach all that may
    /// send somebody to it.
    fn drain_ms(&self, id: &ClaimId, why: StopReason) -> u64 {
        let Some(mine) = self.bidder.claims.get(id) else { return 0 };
        let is_wanted = self.documents.get(&mine.claim.task.app).is_some_and(|document| !document.deleted);
        match why {
            StopReason::Isolated
            | StopReason::Unleased
            | StopReason::Duplicate
            | StopReason::Ungathered
            | StopReason::Readdressed => 0,
            _ if mine.claim.state != ClaimState::Running || !is_wanted => 0,
            _ => mine.spec.as_ref().map_or(0, |spec| spec.drain_ms),
        }
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
}

fn stop_words(why: StopReason) -> &'static str {
    match why {
        StopReason::Unwanted => "no longer wanted",
        StopReason::Duplicate => "another copy of the task goes on",
        StopReason::Outdated => "replaced by a newer revision",
        StopReason::Draining => "the machine is being drained",
        StopReason::Preempted => "its room went to work of a higher priority",
        StopReason::Ungathered => "its gang did not come together",
        StopReason::Unleased => "its lease of the lock group ended",
        StopReason::Isolated => "the machine heard no other for too long",
        StopReason::Astray => "its volume is on another machine",
        StopReason::GivenUp => "its volume was given up: another one of that name counts",
        StopReason::Restarted => "somebody has it started anew",
        StopReason::Replaced => "a later run of its schedule takes its place",
        StopReason::Overdue => "it ran for longer than its deadline",
        StopReason::Readdressed => "another machine has had the addresses of its machine's tasks for longer",
    }
}
