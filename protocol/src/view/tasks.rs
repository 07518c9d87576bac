//! Tasks as a peer knows them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::View;
use crate::api::{PortRow, TaskRow};
use crate::brain::NAMESPACE;
use crate::ids::{AppId, ClaimId, PeerId};
use crate::ledger::Document;
use crate::ledger::readings::ClaimEntry;
use crate::membership::State;
use crate::model::{ClaimState, Outcome};
use crate::rfc3339::rfc3339;
use crate::steward::array;

/// How many finished tasks are shown unless all are asked for.
const FINISHED_SHOWN: usize = 100;
/// Finished tasks are shown so long at most, ms.
const FINISHED_MS: u64 = 3_600_000;

/// Which tasks are meant.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    pub app: Option<String>,
    pub service: Option<String>,
    pub slot: Option<String>,
    /// Finished ones beyond the last 100, too.
    pub all: bool,
}

impl TaskFilter {
    fn takes(&self, app: &str, service: &str, slot: &str) -> bool {
        let is = |wanted: &Option<String>, held: &str| wanted.as_deref().is_none_or(|wanted| wanted == held);
        is(&self.app, app) && is(&self.service, service) && is(&self.slot, slot)
    }
}

/// A claim, and who has it: what logs and stops need.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimAt {
    pub claim: ClaimId,
    pub owner: PeerId,
    pub owner_name: String,
    /// Whether the owner is held for alive.
    pub reachable: bool,
    pub row: TaskRow,
}

impl View<'_> {
    /// Rows for `ps`: live tasks, pending slots, and the last 100 finished. Sorted by task.
    pub fn tasks(&self, filter: &TaskFilter) -> Vec<TaskRow> {
        let mut live = Vec::new();
        let mut finished: Vec<(u64, TaskRow)> = Vec::new();
        let mut shown: BTreeSet<(AppId, String, String)> = BTreeSet::new();
        for entry in self.claims_of(filter.app.as_deref()) {
            let task = &entry.claim.task;
            if !filter.takes(&task.app.name, &task.service, &task.slot) {
                continue;
            }
            if entry.claim.state.has_ended() {
                finished.push((entry.claim.ended_at.unwrap_or(0), self.claim_row(entry)));
            } else if self.brain.members.state(&entry.owner) <= State::Suspect {
                live.push(self.claim_row(entry));
                shown.insert((task.app.clone(), task.service.clone(), task.slot.clone()));
            }
        }
        for (app, document) in self.living_of(filter.app.as_deref()) {
            for (name, service) in &document.spec.services {
                let revision = service.revision();
                let outcomes = document.outcomes.get(name);
                let reasons = match self.waits_for_volume(app, service) {
                    Some(volume) => vec![volume],
                    None => self.reasons(app, name),
                };
                for slot in self.brain.shown_slots(app, document, name, service) {
                    let key = (app.clone(), name.clone(), slot);
                    if !filter.takes(&app.name, name, &key.2) || shown.contains(&key) {
                        continue;
                    }
                    let outcome = outcomes
                        .and_then(|all| all.get(&key.2))
                        .filter(|one| one.revision == revision || is_apart(&key.2));
                    match outcome {
                        Some(outcome) => self.add_outcome(app, name, outcome, &mut finished),
                        None if !self.is_finished(app, name, &key.2, service) => {
                            live.push(self.pending_row(app, name, &key.2, &reasons));
                        }
                        None => {}
                    }
                }
            }
        }
        finished.sort_by(|(one, a), (two, b)| two.cmp(one).then_with(|| a.task.cmp(&b.task)));
        if !filter.all {
            finished.truncate(FINISHED_SHOWN);
            let now = self.now.wall;
            finished.retain(|(ended, _)| now.saturating_sub(*ended) < FINISHED_MS);
        }
        live.extend(finished.into_iter().map(|(_, row)| row));
        live.sort_by_cached_key(|row| {
            let slot = row.slot.parse::<u64>().unwrap_or(u64::MAX);
            (row.app.clone(), row.service.clone(), slot, row.slot.clone(), std::cmp::Reverse(row.attempt))
        });
        live
    }

    /// An outcome whose claim is forgotten, or was never seen to end, has a row of its own; one
    /// whose claim is shown says only that the task was lost.
    fn add_outcome(&self, app: &AppId, service: &str, outcome: &Outcome, finished: &mut Vec<(u64, TaskRow)>) {
        let task = format!("{}.{service}.{}", app.name, outcome.slot);
        // A copy of the same attempt may have been superseded: that is not how the task ended.
        let is_it = |row: &TaskRow| row.attempt == outcome.attempt && row.exit_code == outcome.exit_code;
        let shown = |row: &TaskRow| row.task == task && row.state != ClaimState::Superseded.word() && is_it(row);
        if let Some((_, row)) = finished.iter_mut().find(|(_, row)| shown(row)) {
            (row.lost, row.done) = (outcome.lost, true);
            return;
        }
        let mut row = self.row(app, service, &outcome.slot);
        row.machine = outcome.machine.map(|peer| self.brain.machine_name(&peer));
        row.state = if outcome.exit_code.is_some() { "exited" } else { "failed" }.into();
        row.attempt = outcome.attempt;
        row.exit_code = outcome.exit_code;
        (row.lost, row.done) = (outcome.lost, true);
        row.reason = if outcome.lost { Some("its machine was lost".into()) } else { outcome.reason.clone() };
        row.ended_at = outcome.ended_at.map(rfc3339);
        finished.push((outcome.ended_at.unwrap_or(self.now.wall), row));
    }

    fn row(&self, app: &AppId, service: &str, slot: &str) -> TaskRow {
        TaskRow {
            task: format!("{}.{service}.{slot}", app.name),
            app: app.name.clone(),
            service: service.into(),
            slot: slot.into(),
            machine: None,
            state: "pending".into(),
            address: None,
            ports: Vec::new(),
            attempt: 0,
            started_at: None,
            exit_code: None,
            claim: None,
            reason: None,
            oom_killed: false,
            health: None,
            lost: false,
            done: false,
            outdated: false,
            accepted_at: None,
            ended_at: None,
        }
    }

    fn pending_row(&self, app: &AppId, service: &str, slot: &str, reasons: &[String]) -> TaskRow {
        let absent = self.brain.readings.slots(app, service).and_then(|slots| slots.get(slot));
        let absent = absent.into_iter().flatten().filter_map(|entry| Some((self.absence(entry)?, entry.owner)));
        let reasons: Vec<String> = absent
            .map(|(why, owner)| format!("it ran on {}; {why}", self.brain.machine_name(&owner)))
            .chain(reasons.iter().cloned())
            .collect();
        let reason = (!reasons.is_empty()).then(|| reasons.join("; "));
        TaskRow { reason, ..self.row(app, service, slot) }
    }

    fn claim_row(&self, entry: &ClaimEntry) -> TaskRow {
        let claim = &entry.claim;
        let task = &claim.task;
        let ports = claim.ports.iter().map(|port| PortRow {
            name: port.name.clone(),
            host: port.host,
            container: port.container,
            protocol: port.protocol.clone(),
            ingress: port.ingress,
        });
        TaskRow {
            machine: Some(self.brain.machine_name(&entry.owner)),
            state: claim.state.word().into(),
            address: claim.address.map(|own| own.to_string()).or_else(|| self.brain.address_of(&entry.owner)),
            ports: ports.collect(),
            attempt: claim.attempt,
            started_at: claim.started_at.map(rfc3339),
            exit_code: claim.exit_code,
            claim: Some(claim.id.hex()),
            reason: claim.reason.clone().or_else(|| self.absence(entry)),
            oom_killed: claim.oom_killed,
            health: claim.health.word().filter(|_| claim.state == ClaimState::Running).map(Into::into),
            outdated: self.is_outdated(entry),
            accepted_at: Some(rfc3339(claim.accepted_at)),
            ended_at: claim.ended_at.map(rfc3339),
            ..self.row(&task.app, &task.service, &task.slot)
        }
    }

    /// Claims of the apps of one name, or of all.
    fn claims_of(&self, app: Option<&str>) -> impl Iterator<Item = &ClaimEntry> {
        let id = |name: &str, generation| AppId { namespace: NAMESPACE.into(), name: name.into(), generation };
        let named = app.map(|name| self.brain.readings.claims.range(id(name, 0)..=id(name, u32::MAX)));
        let all = app.is_none().then(|| self.brain.readings.claims.iter());
        let services = named.into_iter().flatten().chain(all.into_iter().flatten()).flat_map(|(_, held)| held.values());
        services.flat_map(|slots| slots.values()).flatten()
    }

    fn is_outdated(&self, entry: &ClaimEntry) -> bool {
        let task = &entry.claim.task;
        let document = self.brain.documents.get(&task.app);
        let service = document.and_then(|document| document.spec.services.get(&task.service));
        service.is_some_and(|service| service.revision() != entry.claim.revision)
    }

    /// What people should know of a task on a machine that is not heard.
    pub(super) fn absence(&self, entry: &ClaimEntry) -> Option<String> {
        if entry.claim.state.has_ended() {
            return None;
        }
        match self.brain.members.state(&entry.owner) {
            State::Alive => None,
            State::Suspect => Some("its machine does not answer".into()),
            State::Down | State::Left => Some("its machine is down".into()),
        }
    }

    fn reasons(&self, app: &AppId, service: &str) -> Vec<String> {
        let steward = self.brain.steward_of(app);
        let all = self.brain.readings.stewardships.get(app);
        let record = all.and_then(|all| steward.and_then(|peer| all.get(&peer)).or_else(|| all.values().next()));
        let pending = record.and_then(|record| record.pending.iter().find(|pending| pending.service == service));
        pending.map(|pending| pending.reasons.clone()).unwrap_or_default()
    }

    /// The living app of one name, or all.
    fn living_of(&self, app: Option<&str>) -> impl Iterator<Item = (&AppId, &Arc<Document>)> {
        let named =
            app.and_then(|name| self.brain.app_named(name)).and_then(|app| self.brain.documents.get_key_value(app));
        let all = app.is_none().then(|| self.living());
        named.into_iter().chain(all.into_iter().flatten())
    }

    /// Claims of a task (`app.service.slot`), of a service (`app.service`), of an app (`app`), or
    /// by the claim's own hexadecimal id or a unique beginning of 8 digits; newest attempt first.
    pub fn claims(&self, name: &str) -> Vec<ClaimAt> {
        let mut parts = name.splitn(3, '.');
        let (app, service, slot) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        let by_name = |entry: &&ClaimEntry| {
            let task = &entry.claim.task;
            task.app.name == app
                && service.is_none_or(|service| task.service == service)
                && slot.is_none_or(|slot| task.slot == slot)
        };
        let mut found: Vec<&ClaimEntry> = self.claims_of(Some(app)).filter(by_name).collect();
        if found.is_empty() && name.len() >= 8 && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let readings = &self.brain.readings;
            found = match ClaimId::from_hex(name) {
                // Peers name claims whole, and often.
                Some(id) => readings.machines.keys().filter_map(|owner| readings.find(owner, &id)).collect(),
                None => readings.all_claims().filter(|entry| entry.claim.id.hex().starts_with(name)).collect(),
            };
            if found.len() > 1 {
                found.clear();
            }
        }
        found.sort_by_key(|entry| {
            let claim = &entry.claim;
            (std::cmp::Reverse((claim.task.app.generation, claim.attempt, claim.accepted_at)), entry.owner)
        });
        let at = |entry: &ClaimEntry| ClaimAt {
            claim: entry.claim.id,
            owner: entry.owner,
            owner_name: self.brain.machine_name(&entry.owner),
            reachable: matches!(self.brain.members.state(&entry.owner), State::Alive | State::Suspect),
            row: self.claim_row(entry),
        };
        found.into_iter().map(at).collect()
    }

    /// Slots that are wanted, not finished, and that no live claim holds.
    pub(super) fn pending(&self) -> u32 {
        let mut pending = 0;
        for (app, document) in self.living() {
            for (name, service) in &document.spec.services {
                let revision = service.revision();
                let slots = self.brain.readings.slots(app, name);
                let outcomes = document.outcomes.get(name);
                let wanted = self.brain.shown_slots(app, document, name, service);
                pending += wanted
                    .into_iter()
                    .filter(|slot| {
                        let claims = slots.and_then(|slots| slots.get(slot));
                        let held = claims.into_iter().flatten().any(|entry| !entry.claim.state.has_ended());
                        let outcome = outcomes.and_then(|all| all.get(slot));
                        let done = outcome.is_some_and(|outcome| outcome.revision == revision || is_apart(slot));
                        !held && !done && !self.is_finished(app, name, slot, service)
                    })
                    .count() as u32;
            }
        }
        pending
    }
}

/// Whether a slot is of a run of its own, which no newer revision of its service touches.
pub(super) fn is_apart(slot: &str) -> bool {
    array::parts(slot).0.is_some()
}
