//! What a steward knows of a service when it plans for it, and what it keeps in mind of the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Brain;
use super::writer::Urgency;
use crate::history::STEWARD;
use crate::ids::{AppId, ChangeId, PeerId};
use crate::ledger::readings::Slots;
use crate::ledger::{Document, Edit};
use crate::market::reasons::PassedOver;
use crate::membership::Loss;
use crate::model::{AppSpec, Mode, OrderWord, Outcome, Pace, RolloutOrder, ServiceSpec};
use crate::plant::Plant;
use crate::rfc3339::rfc3339;
use crate::steward::reconcile::{Plan, Work, reconcile};
use crate::steward::rollout::{Phase, Progress, Watch};
use crate::steward::{array, cron, global, graph};

/// The most runs of a service that are remembered as told of.
const TOLD_MAX: usize = 1_000;

static NO_SLOTS: Slots = Slots::new();
static NO_OUTCOMES: BTreeMap<String, Outcome> = BTreeMap::new();

/// By service, the slots with an auction or award under way.
pub(super) type Given = BTreeMap<String, BTreeSet<String>>;

/// What a steward has in mind of one service.
#[derive(Debug, Default)]
pub(super) struct Mind {
    pub watch: Watch,
    pub progress: Option<Progress>,
    /// Instants through here that nothing ran at were told of: wall clock, ms.
    passed: u64,
    /// Runs of which was told that they ran twice.
    twice: BTreeSet<String>,
    /// What was settled last: wall clock, ms.
    pub settled: u64,
    /// What the service was before a change that rests.
    former: Option<(u64, Arc<ServiceSpec>)>,
}

impl Brain {
    /// The slots of an app that are about to be claimed.
    pub(super) fn given(&self, app: &AppId) -> Given {
        let auctions = self.stewards.auctions.values().filter(|auction| auction.app == *app);
        let asked = auctions.map(|auction| (&auction.service, &auction.slots));
        let awards = self.stewards.outstanding.values().filter(|out| out.app == *app);
        let awarded = awards.map(|out| (&out.service, &out.award.slots));
        let mut given = Given::new();
        for (service, slots) in asked.chain(awarded) {
            given.entry(service.clone()).or_default().extend(slots.iter().map(|slot| slot.slot.clone()));
        }
        given
    }

    pub(super) fn plan(&self, app: &AppId, spec: &AppSpec, service: &str) -> Plan {
        self.plan_among(app, spec, service, self.given(app).get(service).unwrap_or(&BTreeSet::new()))
    }

    pub(super) fn plan_among(&self, app: &AppId, spec: &AppSpec, name: &str, given: &BTreeSet<String>) -> Plan {
        let claims = self.readings.slots(app, name).unwrap_or(&NO_SLOTS);
        let document = self.documents.get(app);
        let (Some(service), Some(document)) = (spec.services.get(name), document) else {
            return reconcile(self.now, None, claims, self);
        };
        let revision = revision_of(document, name, service);
        let outcomes = document.outcomes.get(name).filter(|_| !self.has(Plant::ForgetFinished));
        let outcomes = outcomes.unwrap_or(&NO_OUTCOMES);
        let machines = (service.mode == Mode::Global).then(|| self.machine_slots(app, service));
        let gate = self.gate(app, spec, service, revision, claims, outcomes);
        let mind = self.stewards.tended.get(app).and_then(|tended| tended.minds.get(name));
        let cursor = document.cursors.get(name).copied().unwrap_or(0);
        let planted = self.planted_for(service);
        let service = planted.as_ref().unwrap_or(service);
        let work = Work {
            spec: service,
            revision,
            outcomes,
            runs: document.runs.get(name),
            cursor: if self.has(Plant::ForgetInstants) {
                self.now.wall.saturating_sub(1_000).max(cursor)
            } else {
                cursor
            },
            gate: gate.as_deref(),
            machines: machines.as_ref(),
            given,
            order: document.orders.get(name),
            progress: mind.and_then(|mind| mind.progress.as_ref()),
            watch: mind.map(|mind| mind.watch).unwrap_or_default(),
        };
        let now = if service.schedule.is_some() { self.civil_now() } else { self.now };
        reconcile(now, Some(work), claims, self)
    }

    /// Of the simulator alone.
    fn planted_for(&self, service: &ServiceSpec) -> Option<ServiceSpec> {
        let (at_once, holds) = (self.has(Plant::RollAllAtOnce), self.has(Plant::HoldChanges));
        let mut planted = (at_once || holds).then(|| service.clone())?;
        if at_once {
            planted.rollout.update = Some(Pace { parallelism: 0, ..Pace::unsaid() });
        }
        if holds {
            planted.rollout.canary = 1;
        }
        Some(planted)
    }

    /// What a service still waits for; `None`: nothing, or it has begun already.
    fn gate(
        &self,
        app: &AppId,
        spec: &AppSpec,
        service: &ServiceSpec,
        revision: u64,
        claims: &Slots,
        outcomes: &BTreeMap<String, Outcome>,
    ) -> Option<String> {
        if service.depends_on.is_empty() || graph::has_begun(revision, claims, outcomes) || self.has(Plant::JumpGates) {
            return None;
        }
        let document = self.documents.get(app)?;
        service.depends_on.iter().find_map(|(name, condition)| {
            let Some(other) = spec.services.get(name) else { return Some(format!("it waits for {name}")) };
            let slots = self.wanted_slots(app, other);
            let other = graph::Other {
                name,
                spec: other,
                revision: revision_of(document, name, other),
                claims: self.readings.slots(app, name).unwrap_or(&NO_SLOTS),
                outcomes: document.outcomes.get(name),
                slots,
            };
            graph::unmet(*condition, &other)
        })
    }

    /// The slots that a service wants by itself: not those of its runs at given times, or that somebody asked for.
    pub(crate) fn wanted_slots(&self, app: &AppId, service: &ServiceSpec) -> Vec<String> {
        match service.mode {
            Mode::Global => self.machine_slots(app, service).into_keys().collect(),
            Mode::Replicated if service.schedule.is_some() => Vec::new(),
            Mode::Replicated => graph::own_slots(service),
        }
    }

    /// All slots of a service that people should see: its own, and those of runs that are not over.
    pub(crate) fn shown_slots(
        &self,
        app: &AppId,
        document: &Document,
        name: &str,
        service: &ServiceSpec,
    ) -> Vec<String> {
        let mut slots = self.wanted_slots(app, service);
        let runs = document.runs.get(name).into_iter().flatten();
        slots.extend(runs.flat_map(|(run, asked)| array::slots(Some(run), asked.size)));
        if let Some(schedule) = &service.schedule {
            let cursor = document.cursors.get(name).copied().unwrap_or(0);
            let claims = self.readings.slots(app, name).unwrap_or(&NO_SLOTS);
            let due = cron::due(self.civil_now(), service, schedule, cursor, claims, |machine| {
                self.members.loss(self.now, machine, service.lost_after_ms()) == Loss::Lost
            });
            slots.extend(due.run.iter().flat_map(|instant| due.slots(*instant, service)));
        }
        slots
    }

    /// Of a service on each machine: the slot of every machine that will do.
    pub(crate) fn machine_slots(&self, app: &AppId, service: &ServiceSpec) -> BTreeMap<String, PeerId> {
        if service.replicas == 0 {
            // It was stopped, and is to stay known.
            return BTreeMap::new();
        }
        let fit = |peer: PeerId| {
            let machine = self.readings.machines.get(&peer)?;
            let fits = match self.passed_over(app, &peer, machine, service, 0) {
                // It is away for a moment, and its task is where it was.
                None | Some(PassedOver::Suspect | PassedOver::Restarting) => true,
                Some(_) => false,
            };
            fits.then_some((peer, machine.name.as_str()))
        };
        global::slots(self.members.live().filter_map(fit))
    }

    /// Takes up what the stewards before this one wrote of rollouts: of each the latest word.
    pub(super) fn take_over_minds(&self, app: &AppId) -> BTreeMap<String, Mind> {
        let mut minds: BTreeMap<String, Mind> = BTreeMap::new();
        let records = self.readings.stewardships.get(app).into_iter().flat_map(|all| all.values());
        for (service, progress) in records.flat_map(|record| &record.rollouts) {
            let mind = minds.entry(service.clone()).or_default();
            if mind.progress.as_ref().is_none_or(|held| held.turn < progress.turn) {
                mind.progress = Some(progress.clone());
            }
        }
        minds
    }

    /// While the cluster was split, or until a moment ago, another peer was the steward, too. Who is it now has the last word
    /// of how a change stands, and begins with theirs where it has none.
    pub(super) fn heed_others(&mut self, app: &AppId, name: &str) {
        let Some(records) = self.readings.stewardships.get(app) else { return };
        let others = records.iter().filter(|(owner, _)| **owner != self.me);
        let theirs = others.filter_map(|(_, record)| record.rollouts.get(name)).max_by_key(|progress| progress.turn);
        let (Some(theirs), passed) = (theirs, self.civil_now().wall) else { return };
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        let Some(mind) = tended.minds.get_mut(name) else {
            let mind = Mind { passed, progress: Some(theirs.clone()), ..Mind::default() };
            tended.minds.insert(name.to_string(), mind);
            return;
        };
        match &mut mind.progress {
            None => mind.progress = Some(theirs.clone()),
            Some(mine) if mine.turn < theirs.turn || mine.turn == theirs.turn && *mine != *theirs => {
                mine.turn = theirs.turn.saturating_add(1);
            }
            Some(_) => {}
        }
    }

    /// Keeps in mind how a rollout and a schedule stand, and tells people what they should know.
    pub(super) fn keep_in_mind(&mut self, app: &AppId, name: &str, plan: &mut Plan) {
        let wall = self.civil_now().wall;
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        let (progress, due, twice) = (plan.progress.take(), plan.due.take(), std::mem::take(&mut plan.twice));
        if progress.is_none() && due.is_none() && !tended.minds.contains_key(name) {
            return;
        }
        let mind = tended.minds.entry(name.to_string()).or_insert_with(|| Mind { passed: wall, ..Mind::default() });
        mind.watch = plan.watch;
        let mut notes: Vec<(&'static str, String)> = Vec::new();
        if let Some(mut progress) = progress {
            let before = mind.progress.as_ref();
            if before != Some(&progress) {
                let moved = before.is_none_or(|before| before.phase != progress.phase || before.to != progress.to);
                progress.turn = before.map_or(0, |before| before.turn).saturating_add(1);
                notes.extend(moved.then(|| words(&progress)).flatten());
                mind.progress = Some(progress);
            }
        }
        if let Some(due) = due {
            for (instant, why) in due.passed.iter().filter(|(instant, _)| *instant > mind.passed) {
                notes.push(("missed", format!("the run of {} is passed over: {why}", rfc3339(*instant))));
            }
            mind.passed = due.passed.iter().map(|(instant, _)| *instant).max().unwrap_or(0).max(mind.passed);
            mind.settled = if due.write { due.settled } else { 0 };
            if let Some(next) = due.next {
                self.stewards.agenda.look_by(app, self.now.ms.saturating_add(next.saturating_sub(wall).max(1)));
            }
        }
        let Some(mind) = self.stewards.tended.get_mut(app).and_then(|tended| tended.minds.get_mut(name)) else {
            return;
        };
        let fresh: Vec<String> = twice.into_iter().filter(|slot| !mind.twice.contains(slot)).collect();
        mind.twice.extend(fresh.iter().cloned());
        while mind.twice.len() > TOLD_MAX {
            mind.twice.pop_first();
        }
        let hushed = self.has(Plant::HushOverlaps);
        for slot in fresh.into_iter().filter(|_| !hushed) {
            let text = "it ran twice: a machine or its steward was not heard at its time";
            self.note("overlap", format!("{}.{name}.{slot}", app.name), text);
        }
        notes.into_iter().for_each(|(what, text)| self.note(what, format!("{}.{name}", app.name), text));
    }

    /// What a service was when it had this revision.
    pub(super) fn former(&mut self, app: &AppId, name: &str, revision: u64) -> Option<Arc<ServiceSpec>> {
        let mind = self.stewards.tended.get(app)?.minds.get(name)?;
        if let Some((_, former)) = mind.former.as_ref().filter(|(of, _)| *of == revision) {
            return Some(former.clone());
        }
        let former = Arc::new(self.document(app).service_at(name, revision)?);
        let mind = self.stewards.tended.get_mut(app)?.minds.get_mut(name)?;
        mind.former = Some((revision, former.clone()));
        Some(former)
    }

    /// A change failed, and what was before comes back, as a change like any other.
    pub(super) fn revert(&mut self, app: &AppId, name: &str, revision: u64) {
        let Some(spec) = self.document(app).service_at(name, revision) else {
            let task = format!("{}.{name}", app.name);
            return self.note("rollout", task, "what ran before is not known any more: deploy it again");
        };
        let order = RolloutOrder { revision, word: OrderWord::Back };
        let edit = Edit::Back { service: name.to_string(), spec: Box::new(spec), order };
        let change = ChangeId(self.draw16());
        self.edit(app, &edit, STEWARD, change, Urgency::Urgent);
    }
}

/// [`ServiceSpec::revision`], which costs a hash where the document does not know it.
pub(crate) fn revision_of(document: &Document, name: &str, service: &ServiceSpec) -> u64 {
    document.revisions.get(name).copied().unwrap_or_else(|| service.revision())
}

/// What people hear of a rollout.
fn words(progress: &Progress) -> Option<(&'static str, String)> {
    let reason = progress.reason.as_deref().unwrap_or_default();
    let (updated, total) = (progress.updated, progress.total);
    let text = match progress.phase {
        Phase::Going if progress.back => "what ran before is brought back".to_string(),
        Phase::Going => "a change is brought about".to_string(),
        Phase::Canary => format!("{updated} of {total} are changed and wait for `rialto rollout promote`"),
        Phase::Paused => format!("paused with {updated} of {total} changed"),
        Phase::Failed => format!("stopped with {updated} of {total} changed: {reason}; resume it or roll it back"),
        Phase::Reverting => format!("{reason}: what ran before comes back"),
        Phase::Done => format!("all {total} are changed"),
    };
    Some(("rollout", text))
}
