//! Rollouts: a service that runs is changed without going away.
//!
//! What is new and what is old the claims tell, and so they tell how far a rollout has come and how many of the new tasks
//! have failed. The steward's record carries what they do not: what the service was before, and how it stands; a new
//! steward goes on from there. Only waiting (the delay, the watch over new tasks, the deadline) begins anew with it.

use serde::{Deserialize, Serialize};

use crate::event::Now;
use crate::ids::{ClaimId, PeerId};
use crate::ledger::readings::ClaimEntry;
use crate::market::wire::Slot;
use crate::model::{ClaimState, FailureAction, OrderWord, RolloutOrder, Sequence, ServiceSpec};
use crate::wire::StopReason;

use super::slot::Outdated;

/// What is to leave its machine waits no longer than this for the others of its service, ms.
const LEAVE_MS: u64 = 30_000;

/// How a rollout stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    #[default]
    Going,
    /// Its canaries run, and somebody is to say that the others follow.
    Canary,
    /// Somebody has stopped it.
    Paused,
    /// Too many of its tasks failed, or it made no headway: somebody is to look.
    Failed,
    /// Too many failed, and what was before is brought back.
    Reverting,
    Done,
}

impl Phase {
    pub fn word(self) -> &'static str {
        match self {
            Phase::Going => "going",
            Phase::Canary => "canary",
            Phase::Paused => "paused",
            Phase::Failed => "failed",
            Phase::Reverting => "reverting",
            Phase::Done => "done",
        }
    }
}

/// One service's rollout: carried by the stewardship record, from steward to steward.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The revision that most tasks had when it began; what a rollback brings back.
    pub from: u64,
    pub to: u64,
    pub phase: Phase,
    /// When it began, by the clocks of the most, wall clock, ms; 0: not known.
    #[serde(default)]
    pub began: u64,
    /// It brings back what was before.
    #[serde(default)]
    pub back: bool,
    /// Slots that the new revision holds, of how many; and in how many it failed while it was watched.
    pub updated: u32,
    pub total: u32,
    pub failed: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Rises with each step: of what two stewards wrote the higher is the later.
    pub turn: u64,
}

impl Progress {
    /// Whether it is not over.
    pub fn is_on(&self) -> bool {
        self.phase != Phase::Done
    }

    /// What a service was before it became another after this. Of a change that was never done what was before it
    /// counts: that was the last to do well.
    pub fn last_done(&self) -> u64 {
        if self.is_on() { self.from } else { self.to }
    }
}

/// What this steward alone has seen of a rollout. Times are monotonic, ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    to: u64,
    /// A batch was begun, and is not over.
    stepped: bool,
    /// Since when nothing is under way.
    calm_since: Option<u64>,
    /// Since when all of the new ones serve.
    whole_since: Option<u64>,
    /// How many were new when it last came further, and when that was.
    mark: u32,
    mark_ms: u64,
    /// Since when the next that is to leave its machine waits.
    leaves_since: Option<u64>,
}

impl Watch {
    /// Whether one more may leave its machine, or when: when nothing else of its service is under way. What is may be so
    /// for ever, where a task fails again and again or has no room: a machine is emptied all the same.
    pub fn lets_leave(&mut self, now: Now, moving: u32) -> Result<(), u64> {
        let due = self.leaves_since.get_or_insert(now.ms).saturating_add(LEAVE_MS);
        if moving > 0 && now.ms < due {
            return Err(due);
        }
        self.leaves_since = Some(now.ms);
        Ok(())
    }

    /// Nothing is to leave its machine.
    pub fn nothing_leaves(&mut self) {
        self.leaves_since = None;
    }
}

/// One service, as a rollout sees it.
pub struct Scene<'a> {
    pub now: Now,
    pub spec: &'a ServiceSpec,
    pub revision: u64,
    /// How many slots are wanted, how many serve, and how many are in transition.
    pub wanted: u32,
    pub serving: u32,
    pub moving: u32,
    /// Slots that a claim of the present revision holds, and in how many such a claim has failed.
    pub updated: u32,
    pub failed: u32,
    /// The revision that most of the older claims have.
    pub older: Option<u64>,
    /// Claims that make room, in the order of their slots.
    pub outdated: Vec<Outdated>,
    pub order: Option<&'a RolloutOrder>,
    pub progress: Option<&'a Progress>,
    pub watch: Watch,
}

/// What a rollout does next.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Step {
    pub stop: Vec<(PeerId, ClaimId, StopReason)>,
    /// Slots that get a second claim, beside which the old one goes on until that serves.
    pub start: Vec<Slot>,
    pub look_ms: Option<u64>,
    pub progress: Option<Progress>,
    pub watch: Watch,
    /// The revision that is to come back.
    pub revert: Option<u64>,
    /// Nothing is changed for now: what was of this revision and is lost comes back as it was.
    pub restore: Option<u64>,
}

impl Step {
    fn look(&mut self, ms: u64) {
        self.look_ms = Some(self.look_ms.map_or(ms, |held| held.min(ms)));
    }
}

/// Takes the next step. Never are fewer tasks left serving than the policy allows: of those wanted, all but one batch.
pub fn step(scene: Scene<'_>) -> Step {
    let Scene { now, spec, revision, wanted, serving, moving, .. } = scene;
    let mut step = Step::default();
    // What leaves its machine goes one by one, whatever becomes of the rollout.
    let (leaving, outdated): (Vec<Outdated>, Vec<Outdated>) =
        scene.outdated.into_iter().partition(|one| one.why == StopReason::Draining);
    let is_settled = leaving.is_empty();
    let mut watch = scene.watch;
    match leaving.into_iter().next().map(|first| (first, watch.lets_leave(now, moving))) {
        Some((first, Ok(()))) => step.stop.push((first.owner, first.claim, first.why)),
        Some((_, Err(due))) => step.look(due),
        None => watch.nothing_leaves(),
    }
    let held = scene.progress.filter(|progress| progress.to == revision);
    let is_on = !outdated.is_empty() || scene.progress.is_some_and(Progress::is_on);
    if !is_on || wanted == 0 {
        step.progress = scene.progress.cloned();
        step.watch = watch;
        return step;
    }
    let order = scene.order.filter(|order| order.revision == revision).map(|order| order.word);
    let back = order == Some(OrderWord::Back) || held.is_some_and(|held| held.back);
    let pace = spec.rollout.pace(back);
    let before = scene.progress.filter(|before| before.to != revision).map(Progress::last_done);
    let from = held.map(|held| held.from).or(before).or(scene.older).unwrap_or(revision);
    let turn = scene.progress.map_or(1, |progress| progress.turn.saturating_add(u64::from(held.is_none())));
    // Claims are forgotten, and that too many failed is not.
    let told = held.filter(|held| held.phase == Phase::Failed).map_or(0, |held| held.failed);
    let (updated, failed, total) = (scene.updated, scene.failed.max(told), wanted);
    let began = began(scene.progress, revision, now);
    let mut progress =
        Progress { from, to: revision, phase: Phase::Going, began, back, updated, total, failed, reason: None, turn };

    if watch.to != revision {
        let leaves_since = watch.leaves_since;
        watch = Watch { to: revision, mark: updated, mark_ms: now.ms, leaves_since, ..Watch::default() };
        // Whoever takes over in the middle waits as if a batch had just ended.
        watch.stepped = updated > 0;
    }
    if updated > watch.mark {
        (watch.mark, watch.mark_ms) = (updated, now.ms);
    }
    if held.is_some_and(|held| matches!(held.phase, Phase::Canary | Phase::Paused)) {
        // Nobody makes headway while a person's word is waited for.
        watch.mark_ms = now.ms;
    }
    watch.calm_since = if moving == 0 { watch.calm_since.or(Some(now.ms)) } else { None };

    let too_many = u64::from(failed) * 1_000_000 > u64::from(pace.max_failure_ppm) * u64::from(total);
    let over_ms = watch.mark_ms.saturating_add(spec.rollout.progress_deadline_ms());
    let is_stuck = now.ms >= over_ms && (moving > 0 || serving < wanted);
    let canaries = if spec.rollout.canary > 0 && !back { spec.rollout.canary } else { u32::MAX };
    let is_promoted = matches!(order, Some(OrderWord::Promote | OrderWord::Resume | OrderWord::Back));
    let fault = if too_many {
        Some(format!("{failed} of {total} tasks failed"))
    } else {
        is_stuck.then(|| "it made no headway before its deadline".to_string())
    };
    let forgiven = order == Some(OrderWord::Resume) || pace.failure_action == FailureAction::Continue;
    progress.phase = match fault.filter(|_| !forgiven) {
        _ if order == Some(OrderWord::Pause) => Phase::Paused,
        // Its last word on a way back stands: what is brought back then has a rollout of its own.
        Some(_) if held.is_some_and(|held| held.phase == Phase::Reverting) => Phase::Reverting,
        Some(reason) => {
            progress.reason = Some(reason);
            match pace.failure_action {
                FailureAction::Rollback if from != revision => {
                    step.revert = Some(from);
                    Phase::Reverting
                }
                _ => Phase::Failed,
            }
        }
        None if updated >= canaries && !is_promoted && !outdated.is_empty() => Phase::Canary,
        None => Phase::Going,
    };

    if progress.phase == Phase::Going {
        if outdated.is_empty() && is_settled && moving == 0 && serving >= wanted {
            let since = *watch.whole_since.get_or_insert(now.ms);
            let until = since.saturating_add(pace.monitor_ms);
            match spec.rollout.update.is_some() && now.ms < until {
                true => step.look(until),
                false => progress.phase = Phase::Done,
            }
        } else {
            watch.whole_since = None;
            // What has ended for the new revision counts, though nothing of that runs there yet.
            let changed = wanted.saturating_sub(outdated.len() as u32);
            let left = if is_promoted { u32::MAX } else { canaries.saturating_sub(changed) };
            let batch = Batch { parallelism: pace.parallelism, delay_ms: pace.delay_ms, order: pace.order, left };
            batch.go_on(now, wanted, serving, moving, &outdated, &mut watch, &mut step);
        }
        if serving < wanted || moving > 0 {
            step.look(over_ms);
        }
    }
    let rests = matches!(progress.phase, Phase::Canary | Phase::Paused | Phase::Failed);
    step.restore = (rests && from != revision).then_some(from);
    step.watch = watch;
    step.progress = Some(progress);
    step
}

struct Batch {
    parallelism: u32,
    delay_ms: u64,
    order: Sequence,
    /// So many more may be changed before somebody says more.
    left: u32,
}

impl Batch {
    #[allow(clippy::too_many_arguments)]
    fn go_on(
        &self,
        now: Now,
        wanted: u32,
        serving: u32,
        moving: u32,
        outdated: &[Outdated],
        watch: &mut Watch,
        step: &mut Step,
    ) {
        let most = if self.parallelism == 0 { wanted } else { self.parallelism };
        if self.delay_ms > 0 && watch.stepped {
            // With a delay one batch ends before the next begins.
            let Some(calm) = watch.calm_since else { return };
            let due = calm.saturating_add(self.delay_ms);
            if now.ms < due {
                return step.look(due);
            }
            // Nor while a delay runs.
            watch.mark_ms = watch.mark_ms.max(due);
        } else if self.delay_ms > 0 && moving > 0 {
            return;
        }
        let mut room = most.saturating_sub(moving).min(self.left);
        // So many of those that serve may go.
        let mut spare = (serving + most).saturating_sub(wanted);
        for one in outdated {
            if room == 0 {
                break;
            }
            if one.not_before_ms > now.ms {
                step.look(one.not_before_ms);
                continue;
            }
            match self.order {
                Sequence::StartFirst if one.serves => step.start.push(one.slot.clone()),
                _ if one.serves && spare == 0 => continue,
                _ => {
                    spare -= u32::from(one.serves);
                    step.stop.push((one.owner, one.claim, one.why));
                }
            }
            room -= 1;
            (watch.stepped, watch.calm_since) = (true, None);
        }
    }
}

/// When the rollout of a revision began, wall clock, ms.
pub fn began(progress: Option<&Progress>, revision: u64, now: Now) -> u64 {
    progress.filter(|progress| progress.to == revision).map_or(now.wall, |progress| progress.began)
}

/// Whether some claim of a slot, of a new revision, failed while it was watched. What failed before another revision
/// held the slot, or before the rollout began, was an earlier try of the same.
pub fn any_failed(now: Now, spec: &ServiceSpec, back: bool, revision: u64, began: u64, entries: &[ClaimEntry]) -> bool {
    let others = entries.iter().filter(|entry| entry.claim.revision != revision);
    let since = others.map(|entry| entry.claim.attempt).max();
    let is_fresh = |entry: &ClaimEntry| match since {
        Some(since) => entry.claim.attempt > since,
        None => entry.ended_at(now).is_none_or(|at| at > began),
    };
    let fresh = |entry: &&ClaimEntry| entry.claim.revision == revision && is_fresh(entry);
    entries.iter().filter(fresh).any(|entry| has_failed(spec, back, entry))
}

fn has_failed(spec: &ServiceSpec, back: bool, entry: &ClaimEntry) -> bool {
    let claim = &entry.claim;
    let monitor_ms = spec.rollout.pace(back).monitor_ms;
    let ran = claim.ended_at.unwrap_or(0).saturating_sub(claim.started_at.unwrap_or(u64::MAX));
    match claim.state {
        ClaimState::Exited | ClaimState::Failed => ran <= monitor_ms,
        ClaimState::Running => claim.health == crate::model::Health::Unhealthy,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Claim, Pace, RolloutPolicy};

    fn spec(pace: Pace, canary: u32) -> ServiceSpec {
        let rollout = RolloutPolicy { update: Some(pace), canary, ..RolloutPolicy::default() };
        ServiceSpec { image: "web".into(), replicas: 6, rollout, ..ServiceSpec::default() }
    }

    fn old(n: u8) -> Outdated {
        let slot = Slot { slot: n.to_string(), attempt: 2, of: 0 };
        let (owner, claim) = (PeerId([n; 32]), ClaimId([n; 16]));
        Outdated { owner, claim, why: StopReason::Outdated, slot, serves: true, not_before_ms: 0 }
    }

    fn scene(spec: &ServiceSpec, updated: u32, moving: u32, ms: u64) -> Scene<'_> {
        Scene {
            now: Now { ms, wall: ms },
            spec,
            revision: 2,
            wanted: 6,
            serving: 6 - moving,
            moving,
            updated,
            failed: 0,
            older: Some(1),
            outdated: (updated as u8 + 1..=6).map(old).collect(),
            order: None,
            progress: None,
            watch: Watch { to: 2, ..Watch::default() },
        }
    }

    fn phase(step: &Step) -> Phase {
        step.progress.as_ref().unwrap().phase
    }

    #[test]
    fn a_batch_is_as_large_as_allowed_and_never_takes_more_than_that_from_those_that_serve() {
        for (parallelism, moving, serving, stops) in
            [(1, 0, 6, 1), (2, 0, 6, 2), (2, 1, 5, 1), (2, 2, 4, 0), (0, 0, 6, 6), (2, 0, 5, 1), (2, 0, 3, 0)]
        {
            let spec = spec(Pace { parallelism, ..Pace::default() }, 0);
            let step = step(Scene { serving, ..scene(&spec, 0, moving, 0) });
            assert_eq!(step.stop.len(), stops, "{parallelism} {moving} {serving}");
        }
    }

    #[test]
    fn the_new_one_starts_first_where_that_is_wanted() {
        let spec = spec(Pace { parallelism: 2, order: Sequence::StartFirst, ..Pace::default() }, 0);
        let step = step(scene(&spec, 0, 0, 0));
        assert_eq!((step.start.len(), step.stop.len()), (2, 0));
    }

    #[test]
    fn what_leaves_its_machine_goes_one_by_one_and_waits_for_what_is_stuck_only_so_long() {
        let spec = spec(Pace::default(), 0);
        let leaving = |n: u8| Outdated { why: StopReason::Draining, ..old(n) };
        let at = |moving: u32, ms: u64, watch: Watch| {
            let outdated = vec![leaving(1), leaving(2)];
            step(Scene { outdated, watch, ..scene(&spec, 0, moving, ms) })
        };
        let first = at(0, 1_000, Watch::default());
        assert_eq!(first.stop.len(), 1);
        let waits = at(1, 2_000, first.watch);
        assert_eq!((waits.stop.len(), waits.look_ms), (0, Some(1_000 + LEAVE_MS)));
        let stuck = at(1, 1_000 + LEAVE_MS, waits.watch);
        assert_eq!(stuck.stop.len(), 1);
        assert_eq!(at(1, 2_000 + LEAVE_MS, stuck.watch).stop.len(), 0);
    }

    #[test]
    fn a_delay_lies_between_two_batches() {
        let spec = spec(Pace { parallelism: 2, delay_ms: 1_000, ..Pace::default() }, 0);
        let first = step(scene(&spec, 0, 0, 0));
        assert_eq!(first.stop.len(), 2);
        let under_way = step(Scene { watch: first.watch, ..scene(&spec, 0, 2, 100) });
        assert_eq!(under_way.stop.len(), 0);
        let calm = step(Scene { watch: under_way.watch, ..scene(&spec, 2, 0, 300) });
        assert_eq!((calm.stop.len(), calm.look_ms), (0, Some(1_300)));
        assert_eq!(step(Scene { watch: calm.watch, ..scene(&spec, 2, 0, 1_300) }).stop.len(), 2);
    }

    #[test]
    fn canaries_wait_for_a_word() {
        let spec = spec(Pace { parallelism: 4, ..Pace::default() }, 2);
        assert_eq!(step(scene(&spec, 0, 0, 0)).stop.len(), 2);
        let waits = step(scene(&spec, 2, 0, 0));
        assert_eq!((waits.stop.len(), phase(&waits)), (0, Phase::Canary));
        let order = |word| RolloutOrder { revision: 2, word };
        let promote = order(OrderWord::Promote);
        assert_eq!(step(Scene { order: Some(&promote), ..scene(&spec, 2, 0, 0) }).stop.len(), 4);
        let pause = order(OrderWord::Pause);
        assert_eq!(phase(&step(Scene { order: Some(&pause), ..scene(&spec, 0, 0, 0) })), Phase::Paused);
        let other = RolloutOrder { revision: 7, word: OrderWord::Pause };
        assert_eq!(step(Scene { order: Some(&other), ..scene(&spec, 0, 0, 0) }).stop.len(), 2);
    }

    #[test]
    fn what_fails_pauses_goes_on_or_comes_back() {
        for (failure_action, ppm, expected, revert) in [
            (FailureAction::Pause, 0, Phase::Failed, None),
            (FailureAction::Continue, 0, Phase::Going, None),
            (FailureAction::Rollback, 0, Phase::Reverting, Some(1)),
            (FailureAction::Rollback, 200_000, Phase::Going, None),
        ] {
            let spec = spec(Pace { failure_action, max_failure_ppm: ppm, ..Pace::default() }, 0);
            let step = step(Scene { failed: 1, ..scene(&spec, 1, 0, 0) });
            assert_eq!((phase(&step), step.revert), (expected, revert), "{failure_action:?} {ppm}");
        }
        let spec = spec(Pace::default(), 0);
        let resume = RolloutOrder { revision: 2, word: OrderWord::Resume };
        assert_eq!(phase(&step(Scene { failed: 1, order: Some(&resume), ..scene(&spec, 1, 0, 0) })), Phase::Going);
    }

    #[test]
    fn what_comes_back_did_well_and_what_is_lost_meanwhile_stays_as_it_was() {
        let done = |to| Progress { from: 5, to, phase: Phase::Done, ..Progress::default() };
        let failed = |to| Progress { from: 5, to, phase: Phase::Failed, ..Progress::default() };
        let pace = Pace { failure_action: FailureAction::Rollback, ..Pace::default() };
        for (progress, older, from) in
            [(Some(done(7)), 9, 7), (Some(failed(7)), 7, 5), (None, 9, 9), (Some(done(2)), 9, 5)]
        {
            let spec = spec(pace.clone(), 0);
            let scene = Scene { failed: 1, older: Some(older), progress: progress.as_ref(), ..scene(&spec, 1, 0, 0) };
            assert_eq!(step(scene).revert, Some(from), "{progress:?}");
        }
        let spec = spec(Pace { failure_action: FailureAction::Pause, ..pace }, 0);
        let before = done(7);
        let rests = step(Scene { failed: 1, progress: Some(&before), ..scene(&spec, 1, 0, 0) });
        assert_eq!((phase(&rests), rests.restore), (Phase::Failed, Some(7)));
        let going = step(Scene { progress: Some(&before), ..scene(&spec, 1, 0, 0) });
        assert_eq!((phase(&going), going.restore), (Phase::Going, None));
        // The claims that failed are forgotten.
        let held = rests.progress.unwrap();
        assert_eq!(phase(&step(Scene { progress: Some(&held), ..scene(&spec, 1, 0, 0) })), Phase::Failed);
    }

    #[test]
    fn what_failed_before_the_change_began_is_not_its_doing() {
        let spec = spec(Pace::default(), 0);
        let failed = |revision: u64, attempt: u32, at: u64| {
            let (started_at, ended_at) = (Some(at - 1_000), Some(at));
            let state = ClaimState::Failed;
            let claim = Claim { revision, attempt, state, started_at, ended_at, ..Claim::default() };
            ClaimEntry { owner: PeerId([1; 32]), claim: claim.into(), ended_ms: at }
        };
        let now = Now { ms: 60_000, wall: 60_000 };
        for (entries, expected) in [
            (vec![failed(2, 1, 49_000)], false),
            (vec![failed(2, 1, 51_000)], true),
            (vec![failed(2, 1, 49_000), failed(1, 2, 50_000)], false),
            // The other revision's claim tells, whatever the machine's clock says.
            (vec![failed(1, 1, 49_000), failed(2, 2, 49_500)], true),
        ] {
            assert_eq!(any_failed(now, &spec, false, 2, 50_000, &entries), expected, "{entries:?}");
        }
        let held = Progress { to: 2, began: 50_000, ..Progress::default() };
        assert_eq!((began(Some(&held), 2, now), began(Some(&held), 3, now)), (50_000, 60_000));
    }

    #[test]
    fn it_is_done_when_the_last_was_watched_and_stuck_when_nothing_moves() {
        let spec = spec(Pace::default(), 0);
        let held = Progress { from: 1, to: 2, turn: 3, ..Progress::default() };
        let watched = step(Scene { progress: Some(&held), ..scene(&spec, 6, 0, 0) });
        assert_eq!((phase(&watched), watched.look_ms), (Phase::Going, Some(5_000)));
        let done = step(Scene { progress: Some(&held), watch: watched.watch, ..scene(&spec, 6, 0, 5_000) });
        assert_eq!((phase(&done), done.progress.unwrap().turn), (Phase::Done, 3));
        let stuck = step(Scene { progress: Some(&held), watch: watched.watch, ..scene(&spec, 5, 1, 600_000) });
        assert_eq!(phase(&stuck), Phase::Failed);
    }
}
