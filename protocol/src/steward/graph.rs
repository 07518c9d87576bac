//! What a service waits for: the conditions of `depends_on`, each a fact that the ledger tells.
//!
//! A condition holds a service's *first* start back and nothing else: where a task of the present revision has ever been
//! claimed, whatever is lost later is replaced at once. So the order survives any steward, and a service that is
//! restarted does not take down those that depend on it.

use std::collections::BTreeMap;

use crate::ledger::readings::{ClaimEntry, Slots};
use crate::model::{ClaimState, Condition, Outcome, ServiceSpec};

use super::array;

/// The service that another one waits for.
pub struct Other<'a> {
    pub name: &'a str,
    pub spec: &'a ServiceSpec,
    pub revision: u64,
    pub claims: &'a Slots,
    pub outcomes: Option<&'a BTreeMap<String, Outcome>>,
    /// The names of the tasks that it wants.
    pub slots: Vec<String>,
}

/// Whether a service has passed its gate already.
pub fn has_begun(revision: u64, claims: &Slots, outcomes: &BTreeMap<String, Outcome>) -> bool {
    outcomes.values().any(|outcome| outcome.revision == revision)
        || claims.values().flatten().any(|entry| entry.claim.revision == revision)
}

/// What is still missing, in words; `None`: the condition holds.
pub fn unmet(condition: Condition, other: &Other<'_>) -> Option<String> {
    let missing = other.slots.iter().filter(|slot| !holds(condition, other, slot)).count();
    let (name, of) = (other.name, other.slots.len());
    if missing == 0 {
        return None;
    }
    let failed = other.slots.iter().find_map(|slot| failure(condition, other, slot));
    Some(match (condition, failed) {
        (_, Some((slot, code))) => format!("{name}.{slot} ended with code {code}: it waits for {name} to succeed"),
        (Condition::ServiceStarted, _) => format!("it waits for {name} to start: {} of {of} have", of - missing),
        (Condition::ServiceHealthy, _) => format!("it waits for {name} to be healthy: {} of {of} are", of - missing),
        (Condition::ServiceCompletedSuccessfully, _) => {
            format!("it waits for {name} to succeed: {} of {of} tasks have", of - missing)
        }
    })
}

fn holds(condition: Condition, other: &Other<'_>, slot: &str) -> bool {
    let entries = other.claims.get(slot).map_or(&[][..], Vec::as_slice);
    let current = || entries.iter().filter(|entry| entry.claim.revision == other.revision);
    let outcome = other.outcomes.and_then(|all| all.get(slot)).filter(|outcome| outcome.revision == other.revision);
    let runs = |entry: &ClaimEntry| entry.claim.state == ClaimState::Running;
    match condition {
        Condition::ServiceStarted => {
            outcome.is_some() || current().any(|entry| runs(entry) || entry.claim.started_at.is_some())
        }
        Condition::ServiceHealthy => current().any(|entry| runs(entry) && entry.claim.health.serves()),
        Condition::ServiceCompletedSuccessfully => {
            let ended_well = |entry: &ClaimEntry| {
                entry.claim.state == ClaimState::Exited && entry.claim.exit_code == Some(0) && other.spec.is_batch()
            };
            match outcome {
                Some(outcome) => outcome.exit_code == Some(0),
                None => current().any(ended_well),
            }
        }
    }
}

/// A task that has ended badly for good.
fn failure(condition: Condition, other: &Other<'_>, slot: &str) -> Option<(String, i32)> {
    if condition != Condition::ServiceCompletedSuccessfully {
        return None;
    }
    let outcome = other.outcomes?.get(slot).filter(|outcome| outcome.revision == other.revision)?;
    let code = outcome.exit_code?;
    (code != 0).then(|| (slot.to_string(), code))
}

/// The tasks that a service wants by itself, where that does not depend on machines or times.
pub fn own_slots(spec: &ServiceSpec) -> Vec<String> {
    array::slots(None, spec.replicas).collect()
}
