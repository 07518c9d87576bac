//! One slot: what its claims say of it, and what is to be done about them.

use crate::event::Now;
use crate::ids::{ClaimId, PeerId};
use crate::ledger::readings::ClaimEntry;
use crate::market::wire::Slot;
use crate::membership::Loss;
use crate::model::{ClaimState, Guard, Health, OnHeal, OnLost, Outcome, Restart, ServiceSpec};
use crate::wire::StopReason;

use super::array;
use super::reconcile::{Plan, Sight, Wait};

/// The back-off before a second quick restart, ms; it doubles each time.
const BACKOFF_MS: u64 = 100;
/// The longest back-off, ms.
const BACKOFF_MAX_MS: u64 = 60_000;
/// A task that ran this long ended its row of quick ends, ms.
const RAN_WELL_MS: u64 = 10_000;

/// A claim that holds its slot and should make room for a newer one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outdated {
    pub owner: PeerId,
    pub claim: ClaimId,
    pub why: StopReason,
    /// The slot, as it would be given out anew.
    pub slot: Slot,
    /// Whether it runs, and is not unhealthy.
    pub serves: bool,
    /// Its replacement failed a moment ago, and is not tried before: monotonic, ms.
    pub not_before_ms: u64,
}

/// How a slot stands.
pub enum Seen {
    /// A claim holds the slot.
    Runs {
        serves: bool,
        outdated: Option<Outdated>,
    },
    /// The slot is in transition; `serves`: though something answers in it meanwhile.
    Waits {
        serves: bool,
    },
    Missing(u32),
    Finished,
}

/// What a slot is looked at by.
pub struct Lens<'a, S> {
    pub now: Now,
    pub spec: &'a ServiceSpec,
    pub revision: u64,
    /// A run of an instant, or one that was asked for, is what it was when it began: a newer revision is for later ones.
    pub any_revision: bool,
    /// The last attempt of an earlier revision that finished, which is written down: what finished before it did says
    /// nothing of this revision, even where the same was deployed before.
    pub floor: u32,
    /// Of a run's slot: how many tasks that run has; else 0.
    pub of: u32,
    pub sight: &'a S,
}

impl<S: Sight> Lens<'_, S> {
    fn is_current(&self, entry: &ClaimEntry) -> bool {
        self.any_revision || entry.claim.revision == self.revision
    }

    /// Whether an ended claim says how this revision fares.
    fn counts(&self, entry: &ClaimEntry) -> bool {
        self.is_current(entry) && entry.claim.attempt > self.floor
    }

    /// Whether it has ended, or may go on: not where its machine is held for lost.
    fn stands(&self, entry: &ClaimEntry) -> bool {
        entry.claim.state.has_ended() || self.sight.loss(&entry.owner, self.spec.lost_after_ms()) != Loss::Lost
    }

    /// Looks at one slot.
    pub fn look(&self, slot: &str, entries: &[ClaimEntry], plan: &mut Plan) -> Seen {
        let Lens { now, spec, .. } = *self;
        if let Some(done) = array::last(spec, entries.iter().filter(|entry| self.counts(entry) && self.stands(entry))) {
            plan.outcomes.push(outcome(slot, done, self.revision, false));
            end(entries, StopReason::Duplicate, plan);
            return Seen::Finished;
        }
        let lost_after_ms = spec.lost_after_ms();
        let mut live: Vec<&ClaimEntry> = Vec::new();
        let mut absent = false;
        let mut lost = Vec::new();
        for entry in entries.iter().filter(|entry| !entry.claim.state.has_ended()) {
            match self.sight.loss(&entry.owner, lost_after_ms) {
                Loss::No => live.push(entry),
                Loss::Waits { until_ms } => {
                    plan.look(until_ms);
                    plan.waits.insert(slot.into(), Wait::Lost { machine: entry.owner, until_ms });
                    absent = true;
                }
                Loss::Held { until_ms } => {
                    until_ms.into_iter().for_each(|ms| plan.look(ms));
                    plan.held += 1;
                    plan.waits.insert(slot.into(), Wait::Held { machine: entry.owner, until_ms });
                    absent = true;
                }
                Loss::Lost => lost.push(entry),
            }
        }
        let (astray, live): (Vec<_>, Vec<_>) =
            live.into_iter().partition(|one| self.sight.astray(&one.owner, &one.claim));
        let doomed = astray.iter().filter(|entry| entry.claim.state != ClaimState::Stopping);
        plan.stop.extend(doomed.map(|entry| (entry.owner, entry.claim.id, StopReason::Astray)));
        let attempts = entries.iter().map(|entry| entry.claim.attempt);
        let attempt = attempts.max().unwrap_or(0).max(self.floor).saturating_add(1);
        let mut ended: Vec<&ClaimEntry> =
            entries.iter().filter(|entry| self.counts(entry) && entry.claim.state.has_ended()).collect();
        ended.sort_by_key(|entry| std::cmp::Reverse(entry.claim.attempt));
        let quick = ended.iter().take_while(|entry| ended_soon(entry)).count() as u32;
        // By this peer's own clock: that of the machine may be anything.
        let back_off = BACKOFF_MS.saturating_mul(1 << quick.saturating_sub(1).min(16)).min(BACKOFF_MAX_MS);
        let not_before_ms = if quick > 0 { ended[0].ended_ms.saturating_add(back_off) } else { 0 };
        if !live.is_empty() {
            return self.keep_one(Slot { slot: slot.into(), attempt, of: self.of }, live, not_before_ms, plan);
        }
        if absent || !astray.is_empty() {
            return Seen::Waits { serves: false };
        }
        let lost_now = lost.iter().filter(|entry| self.is_current(entry)).count() as u32;
        if let (OnLost::Retry(times), Some(last)) = (spec.on_lost, lost.last())
            && lost_now > times
        {
            plan.outcomes.push(outcome(slot, last, self.revision, true));
            return Seen::Finished;
        }
        let failed = |last: &&&ClaimEntry| {
            spec.restart == Restart::No && spec.batch.retries.is_none() && last.claim.state == ClaimState::Failed
        };
        if let Some(last) = ended.first().filter(failed) {
            // It never ran, and that is how it ended; or its machine went down under it, and came back.
            let interrupted = last.claim.started_at.is_some();
            let times = ended.iter().filter(|entry| entry.claim.started_at.is_some()).count() as u32;
            let again = match spec.on_lost {
                OnLost::Replace => true,
                OnLost::Retry(most) => times <= most,
            };
            if !interrupted || !again {
                plan.outcomes.push(outcome(slot, last, self.revision, interrupted));
                return Seen::Finished;
            }
        }
        if quick > 0 {
            plan.restarts.insert(slot.to_string(), quick);
            if now.ms < not_before_ms {
                plan.look(not_before_ms);
                plan.waits.insert(slot.into(), Wait::BackOff { times: quick, until_ms: not_before_ms });
                return Seen::Waits { serves: false };
            }
        }
        Seen::Missing(attempt)
    }

    /// Of live claims of one task the oldest stays, or the youngest where that is wanted: the stamp of `accepted`, then
    /// the owner, are facts that never change. The others end once it runs.
    fn keep_one(&self, slot: Slot, mut live: Vec<&ClaimEntry>, not_before_ms: u64, plan: &mut Plan) -> Seen {
        let age = |accepted_at: u64| match self.spec.on_heal {
            OnHeal::KeepOriginal => accepted_at,
            OnHeal::KeepReplacement => u64::MAX - accepted_at,
        };
        live.sort_by_key(|entry| {
            let claim = &entry.claim;
            // Whoever has the latest lease is the one that may run.
            let fence = std::cmp::Reverse(claim.fence);
            (!self.is_current(entry), self.sight.gives_way(claim), fence, age(claim.accepted_at), entry.owner, claim.id)
        });
        let winner = live[0];
        let is_old = |entry: &&ClaimEntry| !self.is_current(entry);
        let serves = |entry: &&ClaimEntry| entry.claim.state == ClaimState::Running && entry.claim.health.serves();
        // One of an older revision that still runs beside its successor is meant to.
        plan.overlaps += live[1..].iter().filter(|entry| is_old(&winner) || !is_old(entry)).count() as u32;
        for loser in live[1..].iter().filter(|entry| entry.claim.state != ClaimState::Stopping) {
            let (over, why) = match is_old(loser) && !is_old(&winner) {
                true => (serves(&winner) || !serves(loser), StopReason::Outdated),
                false => (winner.claim.state == ClaimState::Running, StopReason::Duplicate),
            };
            // Two that never run at once do not hand over either.
            if over || self.spec.guard() == Some(Guard::Lease) {
                plan.stop.push((loser.owner, loser.claim.id, why));
            }
        }
        let some_serves = live.iter().any(serves);
        // Who leaves its machine does so whatever becomes of a rollout.
        let why = if self.sight.draining(&winner.owner) {
            Some(StopReason::Draining)
        } else if is_old(&winner) {
            Some(StopReason::Outdated)
        } else {
            None
        };
        match (winner.claim.state, why) {
            (ClaimState::Stopping, _) => Seen::Waits { serves: false },
            (_, Some(why)) => {
                let (owner, claim, serves) = (winner.owner, winner.claim.id, serves(&winner));
                let outdated = Outdated { owner, claim, why, slot, serves, not_before_ms };
                Seen::Runs { serves: some_serves, outdated: Some(outdated) }
            }
            // It runs beside the one that it is to follow, and has not taken over yet.
            (ClaimState::Running, None) if winner.claim.health == Health::Starting && live.len() > 1 => {
                Seen::Waits { serves: some_serves }
            }
            (ClaimState::Running, None) => Seen::Runs { serves: some_serves, outdated: None },
            _ => Seen::Waits { serves: some_serves },
        }
    }
}

/// Ended before it had run well. A claim that was stopped on purpose says nothing about its task.
fn ended_soon(entry: &ClaimEntry) -> bool {
    let claim = &entry.claim;
    let ran = claim.ended_at.unwrap_or(0).saturating_sub(claim.started_at.unwrap_or(u64::MAX));
    matches!(claim.state, ClaimState::Exited | ClaimState::Failed) && ran < RAN_WELL_MS
}

fn outcome(slot: &str, entry: &ClaimEntry, revision: u64, lost: bool) -> Outcome {
    let claim = &entry.claim;
    Outcome {
        slot: slot.to_string(),
        revision,
        attempt: claim.attempt,
        exit_code: claim.exit_code,
        lost,
        reason: claim.reason.clone(),
        ended_at: claim.ended_at,
        machine: Some(entry.owner),
    }
}

/// Ends claims that nobody wants.
pub fn unwanted<'a>(entries: impl Iterator<Item = &'a ClaimEntry>, plan: &mut Plan) {
    let doomed = entries.filter(|entry| entry.claim.state < ClaimState::Stopping);
    plan.stop.extend(doomed.map(|entry| (entry.owner, entry.claim.id, StopReason::Unwanted)));
}

/// Ends what is left of a slot.
pub fn end(entries: &[ClaimEntry], why: StopReason, plan: &mut Plan) {
    let doomed = entries.iter().filter(|entry| entry.claim.state < ClaimState::Stopping);
    plan.stop.extend(doomed.map(|entry| (entry.owner, entry.claim.id, why)));
}
