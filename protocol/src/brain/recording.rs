//! What a steward writes down: finished work, what waits and why, and the end of old runs.

use std::collections::BTreeMap;

use super::Brain;
use super::writer::Urgency;
use crate::history::STEWARD;
use crate::ids::{AppId, ChangeId};
use crate::ledger::Edit;
use crate::ledger::readings::{Pending, Stewardship};
use crate::ledger::record::Kind;
use crate::model::{AppSpec, Outcome, ServiceSpec};
use crate::wire::encode;

/// The most outcomes in one change.
const OUTCOMES_MAX: usize = 500;
/// Outcomes of one app are written at most this often, ms.
const OUTCOMES_MS: u64 = 1_000;
/// A stewardship record is written at most this often, ms.
const RECORD_MS: u64 = 1_000;
/// Single runs are removed so long after they have finished, ms,
const SINGLE_RUN_MS: u64 = 3_600_000;
/// or when there are more finished ones than this.
const SINGLE_RUNS_MAX: usize = 1_000;

impl Brain {
    /// Writes down what has finished, and until when schedules are settled: all of an app's services in one change.
    pub(super) fn settle(&mut self, app: &AppId, outcomes: BTreeMap<String, Vec<Outcome>>) {
        let now = self.now.ms;
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        let settled = tended.minds.iter().filter(|(_, mind)| mind.settled > 0);
        let cursors: BTreeMap<String, u64> = settled.map(|(service, mind)| (service.clone(), mind.settled)).collect();
        if outcomes.is_empty() && cursors.is_empty() {
            return;
        }
        if now < tended.outcomes_ms + OUTCOMES_MS {
            return self.stewards.agenda.look_by(app, tended.outcomes_ms + OUTCOMES_MS);
        }
        tended.outcomes_ms = now;
        tended.minds.values_mut().for_each(|mind| mind.settled = 0);
        let all =
            outcomes.into_iter().flat_map(|(service, some)| some.into_iter().map(move |one| (service.clone(), one)));
        let all: Vec<(String, Outcome)> = all.collect();
        for (service, lost) in all.iter().filter(|(_, outcome)| outcome.lost) {
            let machine = lost.machine.map(|peer| self.machine_name(&peer)).unwrap_or_default();
            let task = format!("{}.{service}.{}", app.name, lost.slot);
            self.note("lost", task, format!("{machine} was lost; the task may have run, and is not repeated"));
        }
        let by = self.me.hex()[..16].to_string();
        let mut batches: Vec<&[(String, Outcome)]> = all.chunks(OUTCOMES_MAX).collect();
        if batches.is_empty() {
            batches.push(&[]);
        }
        let mut cursors = cursors;
        for some in batches {
            let mut outcomes: BTreeMap<String, Vec<Outcome>> = BTreeMap::new();
            for (service, outcome) in some {
                outcomes.entry(service.clone()).or_default().push(outcome.clone());
            }
            let batch = crate::ids::hex(&self.draw16()[..8]);
            let change = ChangeId(self.draw16());
            let edit = Edit::Outcomes { batch, by: by.clone(), outcomes, cursors: std::mem::take(&mut cursors) };
            self.edit(app, &edit, STEWARD, change, Urgency::Ordinary);
        }
    }

    pub(super) fn tell_overlap(&mut self, app: &AppId, overlaps: u32) {
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        let before = std::mem::replace(&mut tended.overlaps, overlaps);
        if overlaps > before {
            self.note("overlap", app.name.clone(), format!("{overlaps} tasks run twice for the moment"));
        }
    }

    /// What others should know of this peer's care for an app: what waits, and why.
    pub(super) fn write_stewardship(&mut self, app: &AppId, spec: &AppSpec, restarts: BTreeMap<String, u32>) {
        let now = self.now.ms;
        let revisions = self.documents.get(app).filter(|document| !document.deleted);
        let revisions = revisions.map(|document| BTreeMap::clone(&document.revisions)).unwrap_or_default();
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        tended.minds.retain(|service, _| spec.services.contains_key(service));
        let minds = tended.minds.iter();
        let rollouts = minds.filter_map(|(name, mind)| Some((name.clone(), mind.progress.clone()?))).collect();
        let pending: Vec<Pending> = tended
            .waiting
            .iter()
            .filter_map(|(service, waiting)| {
                let wanted = spec.services.get(service)?;
                Some(Pending {
                    service: service.clone(),
                    count: waiting.count,
                    need: wanted.need(),
                    priority: wanted.priority,
                    rank: waiting.rank,
                    reasons: waiting.reasons.clone(),
                })
            })
            .collect();
        let record = Stewardship { revisions, restarts, rollouts, pending };
        // A single run that just runs needs no record of how it is cared for.
        let worth_it = !record.pending.is_empty() || !record.restarts.is_empty() || !spec.single_run;
        if tended.record.as_ref() == Some(&record) || (tended.record.is_none() && !worth_it) {
            return;
        }
        if now < tended.record_ms + RECORD_MS && tended.record_ms > 0 {
            self.stewards.agenda.look_by(app, tended.record_ms + RECORD_MS);
            return;
        }
        tended.record_ms = now;
        tended.record = Some(record.clone());
        let value = encode(&(app.clone(), record.clone()));
        self.readings.stewardship(self.me, app.clone(), record);
        self.changed.insert(app.clone());
        self.write(Kind::STEWARDSHIP, &app.to_string(), Some(value), Urgency::Ordinary);
    }

    /// Single runs that finished long ago, or are too many, end their generation.
    pub(super) fn remove_old_runs(&mut self) {
        let mut finished: Vec<(u64, AppId)> = Vec::new();
        for app in self.stewards.tended.keys() {
            let Some(document) = self.documents.get(app).filter(|doc| doc.spec.single_run && !doc.deleted) else {
                continue;
            };
            let ended = |(name, service): (&String, &ServiceSpec)| {
                let slots = document.outcomes.get(name)?;
                (slots.len() >= service.replicas as usize)
                    .then(|| slots.values().filter_map(|outcome| outcome.ended_at).max().unwrap_or(0))
            };
            let ends: Option<Vec<u64>> = document.spec.services.iter().map(ended).collect();
            if let Some(last) = ends.and_then(|ends| ends.into_iter().max()) {
                finished.push((last, app.clone()));
            }
        }
        finished.sort_unstable();
        let surplus = finished.len().saturating_sub(SINGLE_RUNS_MAX);
        for (at, (_, app)) in finished.into_iter().enumerate() {
            // By this peer's own clock: that of the machine may be anything.
            let now = self.now.ms;
            let Some(tended) = self.stewards.tended.get_mut(&app) else { continue };
            let seen = *tended.finished_ms.get_or_insert(now);
            if at < surplus || now.saturating_sub(seen) > SINGLE_RUN_MS {
                let change = ChangeId(self.draw16());
                self.edit(&app, &Edit::Delete, STEWARD, change, Urgency::Ordinary);
            }
        }
    }
}
