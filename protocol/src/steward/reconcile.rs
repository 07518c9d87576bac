//! One service, once: desired against actual. A pure function of what the ledger says.

use std::collections::{BTreeMap, BTreeSet};

use super::cron::{self, Due};
use super::rollout::{self, Progress, Scene, Watch};
use super::slot::{Lens, Outdated, Seen, end, unwanted};
use super::{array, gang};
use crate::event::Now;
use crate::ids::{ClaimId, PeerId};
use crate::ledger::readings::{ClaimEntry, Slots};
use crate::market::wire::Slot;
use crate::membership::Loss;
use crate::model::{Asked, Claim, ClaimState, Mode, Outcome, RolloutOrder, ServiceSpec};
use crate::wire::StopReason;

/// What the steward sees beside the claims.
pub trait Sight {
    /// Whether a machine is lost, for tasks that wait this long.
    fn loss(&self, machine: &PeerId, lost_after_ms: u64) -> Loss;
    /// Whether a claim is to end once another one of its task runs: the task is being moved.
    fn gives_way(&self, claim: &Claim) -> bool;
    /// Whether a claim is on another machine than its volumes.
    fn astray(&self, machine: &PeerId, claim: &Claim) -> bool;
    /// Whether a machine is to be emptied.
    fn draining(&self, machine: &PeerId) -> bool;
}

/// What is wanted of one service, and what is known of it beside its claims.
#[derive(Clone, Copy)]
pub struct Work<'a> {
    pub spec: &'a ServiceSpec,
    pub revision: u64,
    pub outcomes: &'a BTreeMap<String, Outcome>,
    /// Runs that somebody asked for.
    pub runs: Option<&'a BTreeMap<String, Asked>>,
    /// Of a schedule: everything that was due until then is settled. Wall clock, ms.
    pub cursor: u64,
    /// What it waits for, where it has not begun: a sentence.
    pub gate: Option<&'a str>,
    /// Of a service on each machine: its slots.
    pub machines: Option<&'a BTreeMap<String, PeerId>>,
    /// Slots with an auction or award under way.
    pub given: &'a BTreeSet<String>,
    pub order: Option<&'a RolloutOrder>,
    pub progress: Option<&'a Progress>,
    pub watch: Watch,
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
    /// Slots that are given out as they were, with the revision that is: the change of their service rests.
    pub former: (u64, Vec<Slot>),
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
    /// Of a schedule: how it stands.
    pub due: Option<Due>,
    /// Runs of a schedule that were run twice.
    pub twice: Vec<String>,
    /// How a change of it stands, and what this steward has seen of that.
    pub progress: Option<Progress>,
    pub watch: Watch,
    /// The revision that is to come back.
    pub revert: Option<u64>,
}

/// Why a slot that nobody runs is not given out yet. Times are monotonic, ms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Its machine is down, and may come back until then.
    Lost { machine: PeerId, until_ms: u64 },
    /// The storm gate holds it back; no time: until others come back.
    Held { machine: PeerId, until_ms: Option<u64> },
    /// It ended so often in a row, soon after its start.
    BackOff { times: u32, until_ms: u64 },
    /// Its service waits for another one.
    Depends(String),
    /// As many of its service's tasks run as may at once.
    Turn,
}

impl Plan {
    pub(super) fn look(&mut self, ms: u64) {
        self.look_ms = Some(self.look_ms.map_or(ms, |held| held.min(ms)));
    }
}

/// Compares what is wanted of a service with the claims of its slots. No work: the service or its app is gone.
pub fn reconcile(now: Now, work: Option<Work<'_>>, claims: &Slots, sight: &impl Sight) -> Plan {
    let mut plan = Plan::default();
    let Some(work) = work else {
        unwanted(claims.values().flatten(), &mut plan);
        return plan;
    };
    let Work { spec, revision, .. } = work;
    let own = own_slots(&work);
    let mut count = Count::default();
    let mut outdated = Vec::new();
    for name in &own {
        look_at(now, &work, name, 0, claims, sight, &mut plan, &mut count, &mut outdated);
    }
    if spec.gang {
        let finished = |slot: &str| work.outcomes.get(slot).is_some_and(|outcome| outcome.revision == revision);
        let loss = |entry: &ClaimEntry| sight.loss(&entry.owner, spec.lost_after_ms());
        let mut leaving = outdated.iter().map(|one| (one.owner, one.claim, one.why)).collect();
        gang::gather(spec, claims, work.given, finished, loss, &mut leaving, &mut plan);
        outdated.retain(|one| leaving.iter().any(|(_, claim, _)| *claim == one.claim));
    }
    let of_own = count;
    let mut others = asked_for(&work);
    if let Some(schedule) = &spec.schedule {
        let is_lost = |machine: &PeerId| sight.loss(machine, spec.lost_after_ms()) == Loss::Lost;
        let due = cron::due(now, spec, schedule, work.cursor, claims, is_lost);
        follow_schedule(now, &work, &due, claims, sight, &mut plan, &mut count);
        others.extend(due.run.iter().chain(&due.replaced).flat_map(|instant| due.slots(*instant, spec)));
        plan.due = Some(due);
    }
    for (run, asked) in work.runs.into_iter().flatten() {
        for name in array::slots(Some(run), asked.size) {
            look_at(now, &work, &name, asked.size, claims, sight, &mut plan, &mut count, &mut Vec::new());
        }
    }
    let wanted: BTreeSet<&str> = own.iter().map(String::as_str).chain(others.iter().map(String::as_str)).collect();
    surplus(&work, &wanted, claims, sight, &mut plan);
    change(now, &work, own.len() as u32 - of_own.finished, of_own, outdated, claims, &mut plan);
    hold_back(&work, count, &mut plan);
    plan
}

/// How the slots stand in all.
#[derive(Clone, Copy, Default)]
struct Count {
    serving: u32,
    moving: u32,
    /// Tasks that a claim holds.
    live: u32,
    finished: u32,
}

/// The slots that a service has by itself.
fn own_slots(work: &Work<'_>) -> Vec<String> {
    match (work.spec.mode, work.machines) {
        (Mode::Global, machines) => machines.into_iter().flat_map(BTreeMap::keys).cloned().collect(),
        _ if work.spec.schedule.is_some() => Vec::new(),
        _ => array::slots(None, work.spec.replicas).collect(),
    }
}

/// The slots of runs that somebody asked for.
fn asked_for(work: &Work<'_>) -> Vec<String> {
    let runs = work.runs.into_iter().flatten();
    runs.flat_map(|(run, asked)| array::slots(Some(run), asked.size)).collect()
}

/// `of`: the slot is of a run of so many tasks, which no newer revision touches; 0: it is one of the service's own.
#[allow(clippy::too_many_arguments)]
fn look_at(
    now: Now,
    work: &Work<'_>,
    name: &str,
    of: u32,
    claims: &Slots,
    sight: &impl Sight,
    plan: &mut Plan,
    count: &mut Count,
    outdated: &mut Vec<Outdated>,
) {
    let Work { spec, revision, .. } = *work;
    let apart = of > 0;
    let entries = claims.get(name).map_or(&[][..], Vec::as_slice);
    let outcome = work.outcomes.get(name);
    if outcome.is_some_and(|outcome| apart || outcome.revision == revision) {
        count.finished += 1;
        return end(entries, StopReason::Duplicate, plan);
    }
    let floor = outcome.map_or(0, |outcome| outcome.attempt);
    let lens = Lens { now, spec, revision, any_revision: apart, floor, of, sight };
    match lens.look(name, entries, plan) {
        Seen::Runs { serves, outdated: why } => {
            count.serving += u32::from(serves);
            count.live += 1;
            // A second claim is on its way beside it.
            match why.is_some() && work.given.contains(name) {
                true => count.moving += 1,
                false => outdated.extend(why),
            }
        }
        Seen::Waits { serves } => {
            count.serving += u32::from(serves);
            count.moving += 1;
            count.live += 1;
        }
        Seen::Missing(attempt) => {
            count.moving += 1;
            match work.given.contains(name) {
                true => count.live += 1,
                false => plan.missing.push(Slot { slot: name.to_string(), attempt, of }),
            }
        }
        Seen::Finished => count.finished += 1,
    }
}

/// The runs of a schedule are tasks like those of any batch; what is settled is told by the cursor and not by outcomes.
fn follow_schedule(
    now: Now,
    work: &Work<'_>,
    due: &Due,
    claims: &Slots,
    sight: &impl Sight,
    plan: &mut Plan,
    count: &mut Count,
) {
    let before = plan.outcomes.len();
    for instant in &due.run {
        let of = due.size(*instant, work.spec);
        for name in due.slots(*instant, work.spec) {
            look_at(now, work, &name, of, claims, sight, plan, count, &mut Vec::new());
        }
    }
    plan.outcomes.truncate(before);
    for name in due.replaced.iter().flat_map(|instant| due.slots(*instant, work.spec)) {
        let entries = claims.get(&name).map_or(&[][..], Vec::as_slice);
        end(entries, StopReason::Replaced, plan);
    }
    if !due.replaced.is_empty() {
        // The next begins when the last is gone.
        plan.missing.clear();
    }
    for (name, entries) in claims {
        let ended_well =
            |entry: &&ClaimEntry| entry.claim.state == ClaimState::Exited && work.spec.finishes(entry.claim.exit_code);
        let ended = entries.iter().filter(ended_well).count();
        if ended > 1 && array::instant(name).is_some_and(|instant| instant > work.cursor) {
            plan.twice.push(name.clone());
        }
        // Of a run that has ended everywhere it should, no copy goes on.
        if ended > 0 {
            end(entries, StopReason::Duplicate, plan);
        }
    }
    if let Some(next) = due.next {
        plan.look(now.ms.saturating_add(next.saturating_sub(now.wall).max(1)));
    }
}

/// Ends what no slot wants.
fn surplus(work: &Work<'_>, wanted: &BTreeSet<&str>, claims: &Slots, sight: &impl Sight, plan: &mut Plan) {
    let spec = work.spec;
    let is_surplus = |slot: &str, entries: &[ClaimEntry]| {
        if wanted.contains(slot) {
            return false;
        }
        match spec.mode {
            // A machine that is away may come back with its task.
            Mode::Global => entries.iter().all(|entry| sight.loss(&entry.owner, 0) == Loss::No),
            // What began at its time goes on to its end, whatever the times are now.
            Mode::Replicated => spec.schedule.is_none() || array::instant(slot).is_none(),
        }
    };
    let surplus = claims.iter().filter(|(slot, entries)| is_surplus(slot, entries));
    unwanted(surplus.flat_map(|(_, entries)| entries), plan);
}

/// Brings a newer revision about.
fn change(
    now: Now,
    work: &Work<'_>,
    wanted: u32,
    count: Count,
    outdated: Vec<Outdated>,
    claims: &Slots,
    plan: &mut Plan,
) {
    let Work { spec, revision, order, progress, watch, .. } = *work;
    plan.progress = progress.cloned();
    plan.watch = watch;
    let is_on = progress.is_some_and(Progress::is_on);
    if work.gate.is_some() {
        // What may not start yet takes nobody's place: what runs goes on, but where its machine is to be empty.
        match outdated.iter().find(|one| one.why == StopReason::Draining) {
            Some(one) => match plan.watch.lets_leave(now, count.moving) {
                Ok(()) => plan.stop.push((one.owner, one.claim, one.why)),
                Err(due) => plan.look(due),
            },
            None => plan.watch.nothing_leaves(),
        }
        return;
    }
    if outdated.is_empty() && !is_on {
        plan.watch.nothing_leaves();
        return;
    }
    let back = order.is_some_and(|order| order.revision == revision && order.word == crate::model::OrderWord::Back);
    let current = |entry: &&ClaimEntry| entry.claim.revision == revision;
    let began = rollout::began(progress, revision, now);
    let has_failed = |entries: &[ClaimEntry]| rollout::any_failed(now, spec, back, revision, began, entries);
    let (mut updated, mut failed) = (0, 0);
    let mut older: BTreeMap<u64, u32> = BTreeMap::new();
    for entries in claims.values() {
        let fresh = || entries.iter().filter(current);
        updated += u32::from(fresh().any(|entry| !entry.claim.state.has_ended()));
        failed += u32::from(!spec.is_batch() && has_failed(entries));
        for entry in entries.iter().filter(|entry| !current(entry) && !entry.claim.state.has_ended()) {
            *older.entry(entry.claim.revision).or_default() += 1;
        }
    }
    let older = older.into_iter().max_by_key(|(_, count)| *count).map(|(revision, _)| revision);
    let (serving, moving) = (count.serving, count.moving);
    let scene = Scene {
        now,
        spec,
        revision,
        wanted,
        serving,
        moving,
        updated,
        failed,
        older,
        outdated,
        order,
        progress,
        watch,
    };
    let step = rollout::step(scene);
    plan.stop.extend(step.stop);
    plan.missing.extend(step.start);
    step.look_ms.into_iter().for_each(|ms| plan.look(ms));
    if let Some(former) = step.restore {
        let was = |slot: &Slot| {
            let last = claims.get(&slot.slot)?.iter().max_by_key(|entry| entry.claim.attempt)?;
            Some(last.claim.revision)
        };
        let (lost, missing) = std::mem::take(&mut plan.missing).into_iter().partition(|slot| was(slot) == Some(former));
        (plan.former, plan.missing) = ((former, lost), missing);
    }
    (plan.progress, plan.watch, plan.revert) = (step.progress, step.watch, step.revert);
}

/// What may not start yet: its service waits for another, or as many run as may.
fn hold_back(work: &Work<'_>, count: Count, plan: &mut Plan) {
    if let Some(gate) = work.gate {
        for slot in std::mem::take(&mut plan.missing) {
            plan.waits.insert(slot.slot, Wait::Depends(gate.to_string()));
        }
    }
    let most = work.spec.batch.parallelism;
    if most > 0 && work.spec.is_batch() {
        let room = most.saturating_sub(count.live) as usize;
        for slot in plan.missing.split_off(room.min(plan.missing.len())) {
            plan.waits.insert(slot.slot, Wait::Turn);
        }
    }
}
