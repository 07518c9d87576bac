//! One service, once: desired against actual. A pure function of what the ledger says.

use std::collections::{BTreeMap, BTreeSet};

use super::gang;
use crate::event::Now;
use crate::ids::{ClaimId, PeerId};
use crate::ledger::readings::{ClaimEntry, Slots};
use crate::market::wire::Slot;
use crate::membership::Loss;
use crate::model::{Claim, ClaimState, OnHeal, OnLost, Outcome, Restart, ServiceSpec};
use crate::wire::StopReason;

/// The back-off before a second quick restart, ms; it doubles each time.
const BACKOFF_MS: u64 = 100;
/// The longest back-off, ms.
const BACKOFF_MAX_MS: u64 = 60_000;
/// A task that ran this long ended its row of quick ends, ms.
const RAN_WELL_MS: u64 = 10_000;

/// What the steward sees beside the claims.
pub trait Sight {
    /// Whether a machine is lost, for tasks that wait this long.
    fn loss(&self, machine: &PeerId, lost_after_ms: u64) -> Loss;
    /// Whether a claim is to end once another one of its task runs: the task is being moved.
    fn gives_way(&self, claim: &Claim) -> bool;
    /// Whether a machine is to be emptied.
    fn draining(&self, machine: &PeerId) -> bool;
}

/// What is to be done about one service.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Claims to be ended.
    pub stop: Vec<(PeerId, ClaimId, StopReason)>,
    /// Slots that nobody runs and that may be given out now;
    pub missing: Vec<Slot>,
    /// all together, or none.
    pub together: bool,
    /// Members of a gang that may start: all the others are accepted.
    pub go: Vec<(PeerId, ClaimId)>,
    /// Work that has finished and is not in the document yet.
    pub outcomes: Vec<Outcome>,
    /// Attempts in a row that ended soon, by slot.
    pub restarts: BTreeMap<String, u32>,
    /// When to look again though nothing happens: monotonic ms.
    pub look_ms: Option<u64>,
    /// Replacements that the storm gate holds back.
    pub held: u32,
    /// Pairs of live claims of one task.
    pub overlaps: u32,
    /// Why slots that nobody runs are not given out yet.
    pub waits: BTreeMap<String, Wait>,
}

/// Why a slot that nobody runs is not given out yet. Times are monotonic, ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Its machine is down, and may come back until then.
    Lost { machine: PeerId, until_ms: u64 },
    /// The storm gate holds it back; no time: until others come back.
    Held { machine: PeerId, until_ms: Option<u64> },
    /// It ended so often in a row, soon after its start.
    BackOff { times: u32, until_ms: u64 },
}

impl Plan {
    fn look(&mut self, ms: u64) {
        self.look_ms = Some(self.look_ms.map_or(ms, |held| held.min(ms)));
    }
}

/// Compares what is wanted of a service with the claims of its slots. `spec` is none where the
/// service or its app is gone; `given` are slots with an auction or award under way.
pub fn reconcile(
    now: Now,
    spec: Option<&ServiceSpec>,
    claims: &Slots,
    outcomes: &BTreeMap<String, Outcome>,
    given: &BTreeSet<String>,
    sight: &impl Sight,
) -> Plan {
    let mut plan = Plan::default();
    let Some(spec) = spec else {
        unwanted(claims.values().flatten(), &mut plan);
        return plan;
    };
    let revision = spec.revision();
    let mut restless = false;
    let mut outdated = Vec::new();
    for number in 1..=spec.replicas {
        let name = number.to_string();
        let entries = claims.get(&name).map_or(&[][..], Vec::as_slice);
        let finished = outcomes.get(&name).filter(|outcome| outcome.revision == revision);
        if finished.is_some() {
            end(entries, StopReason::Duplicate, &mut plan);
            continue;
        }
        match look_at(now, spec, revision, &name, entries, sight, &mut plan) {
            Seen::Runs { outdated: Some(claim) } => outdated.push(claim),
            Seen::Runs { outdated: None } | Seen::Finished => {}
            Seen::Waits => restless = true,
            Seen::Missing(attempt) => {
                restless = true;
                if !given.contains(&name) {
                    plan.missing.push(Slot { slot: name, attempt });
                }
            }
        }
    }
    if spec.gang {
        let finished = |slot: &str| outcomes.get(slot).is_some_and(|outcome| outcome.revision == revision);
        let loss = |entry: &ClaimEntry| sight.loss(&entry.owner, spec.lost_after_ms());
        gang::gather(spec, claims, given, finished, loss, &mut outdated, &mut plan);
    }
    let surplus = claims.iter().filter(|(slot, _)| !is_wanted(slot, spec.replicas));
    unwanted(surplus.flat_map(|(_, entries)| entries), &mut plan);
    // One at a time, and only while all others run: a service is changed without going away.
    if !restless && let Some(first) = outdated.into_iter().next() {
        plan.stop.push(first);
    }
    plan
}

enum Seen {
    /// A claim holds the slot; `outdated`: it should make room for a newer one.
    Runs {
        outdated: Option<(PeerId, ClaimId, StopReason)>,
    },
    /// The slot is in transition.
    Waits,
    Missing(u32),
    Finished,
}

fn look_at(
    now: Now,
    spec: &ServiceSpec,
    revision: u64,
    slot: &str,
    entries: &[ClaimEntry],
    sight: &impl Sight,
    plan: &mut Plan,
) -> Seen {
    let current = |entry: &&ClaimEntry| entry.claim.revision == revision;
    if let Some(done) = entries.iter().filter(current).find(|entry| has_finished(spec, entry)) {
        plan.outcomes.push(outcome(slot, done, false));
        end(entries, StopReason::Duplicate, plan);
        return Seen::Finished;
    }
    let lost_after_ms = spec.lost_after_ms();
    let mut live: Vec<&ClaimEntry> = Vec::new();
    let mut absent = false;
    let mut lost = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.claim.state.has_ended()) {
        match sight.loss(&entry.owner, lost_after_ms) {
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
    if !live.is_empty() {
        return keep_one(spec, revision, live, sight, plan);
    }
    if absent {
        return Seen::Waits;
    }
    let lost_now = lost.iter().filter(|entry| entry.claim.revision == revision).count() as u32;
    if let (OnLost::Retry(times), Some(last)) = (spec.on_lost, lost.last())
        && lost_now > times
    {
        plan.outcomes.push(outcome(slot, last, true));
        return Seen::Finished;
    }
    let attempt = entries.iter().map(|entry| entry.claim.attempt).max().unwrap_or(0).saturating_add(1);
    let mut ended: Vec<&ClaimEntry> =
        entries.iter().filter(|entry| entry.claim.revision == revision && entry.claim.state.has_ended()).collect();
    ended.sort_by_key(|entry| std::cmp::Reverse(entry.claim.attempt));
    let quick = ended.iter().take_while(|entry| ended_soon(entry)).count() as u32;
    let failed = |last: &&&ClaimEntry| spec.restart == Restart::No && last.claim.state == ClaimState::Failed;
    if let Some(last) = ended.first().filter(failed) {
        // It never ran, and that is how it ended; or its machine went down under it, and came back.
        let interrupted = last.claim.started_at.is_some();
        let times = ended.iter().filter(|entry| entry.claim.started_at.is_some()).count() as u32;
        let again = match spec.on_lost {
            OnLost::Replace => true,
            OnLost::Retry(most) => times <= most,
        };
        if !interrupted || !again {
            plan.outcomes.push(outcome(slot, last, interrupted));
            return Seen::Finished;
        }
    }
    if quick > 0 {
        plan.restarts.insert(slot.to_string(), quick);
        // By this peer's own clock: that of the machine may be anything.
        let since = now.ms.saturating_sub(ended[0].read_ms);
        let wait = BACKOFF_MS.saturating_mul(1 << (quick - 1).min(16)).min(BACKOFF_MAX_MS);
        if since < wait {
            plan.look(now.ms + (wait - since));
            plan.waits.insert(slot.into(), Wait::BackOff { times: quick, until_ms: now.ms + (wait - since) });
            return Seen::Waits;
        }
    }
    Seen::Missing(attempt)
}

/// Of live claims of one task the oldest stays, or the youngest where that is wanted: the stamp of `accepted`, then the
/// owner, are facts that never change. The others end once it runs.
fn keep_one(
    spec: &ServiceSpec,
    revision: u64,
    mut live: Vec<&ClaimEntry>,
    sight: &impl Sight,
    plan: &mut Plan,
) -> Seen {
    let age = |accepted_at: u64| match spec.on_heal {
        OnHeal::KeepOriginal => accepted_at,
        OnHeal::KeepReplacement => u64::MAX - accepted_at,
    };
    live.sort_by_key(|entry| {
        let claim = &entry.claim;
        (claim.revision != revision, sight.gives_way(claim), age(claim.accepted_at), entry.owner, claim.id)
    });
    let winner = live[0];
    plan.overlaps += live.len() as u32 - 1;
    if winner.claim.state == ClaimState::Running {
        let losers = live[1..].iter().filter(|entry| entry.claim.state != ClaimState::Stopping);
        plan.stop.extend(losers.map(|entry| (entry.owner, entry.claim.id, StopReason::Duplicate)));
    }
    let why = if winner.claim.revision != revision {
        Some(StopReason::Outdated)
    } else if sight.draining(&winner.owner) {
        Some(StopReason::Draining)
    } else {
        None
    };
    match (winner.claim.state, why) {
        (ClaimState::Stopping, _) => Seen::Waits,
        (_, Some(why)) => Seen::Runs { outdated: Some((winner.owner, winner.claim.id, why)) },
        (ClaimState::Running, None) => Seen::Runs { outdated: None },
        _ => Seen::Waits,
    }
}

fn has_finished(spec: &ServiceSpec, entry: &ClaimEntry) -> bool {
    entry.claim.state == ClaimState::Exited && spec.finishes(entry.claim.exit_code)
}

/// Ended before it had run well. A claim that was stopped on purpose says nothing about its task.
fn ended_soon(entry: &ClaimEntry) -> bool {
    let claim = &entry.claim;
    let ran = claim.ended_at.unwrap_or(0).saturating_sub(claim.started_at.unwrap_or(u64::MAX));
    matches!(claim.state, ClaimState::Exited | ClaimState::Failed) && ran < RAN_WELL_MS
}

fn outcome(slot: &str, entry: &ClaimEntry, lost: bool) -> Outcome {
    let claim = &entry.claim;
    Outcome {
        slot: slot.to_string(),
        revision: claim.revision,
        attempt: claim.attempt,
        exit_code: claim.exit_code,
        lost,
        reason: claim.reason.clone(),
        ended_at: claim.ended_at,
        machine: Some(entry.owner),
    }
}

fn is_wanted(slot: &str, replicas: u32) -> bool {
    slot.parse::<u32>().is_ok_and(|number| (1..=replicas).contains(&number))
}

fn unwanted<'a>(entries: impl Iterator<Item = &'a ClaimEntry>, plan: &mut Plan) {
    let doomed = entries.filter(|entry| entry.claim.state < ClaimState::Stopping);
    plan.stop.extend(doomed.map(|entry| (entry.owner, entry.claim.id, StopReason::Unwanted)));
}

fn end(entries: &[ClaimEntry], why: StopReason, plan: &mut Plan) {
    let doomed = entries.iter().filter(|entry| entry.claim.state < ClaimState::Stopping);
    plan.stop.extend(doomed.map(|entry| (entry.owner, entry.claim.id, why)));
}
