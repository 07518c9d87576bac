//! Gangs: tasks that start together or not at all.
//!
//! A gang is asked for as a whole, and its claims wait in `accepted`. Once there is one for every task, durable, each is
//! told to start. A gang that does not come together is let go and asked for again, so that no two gangs hold each
//! other's room. One that has begun is like any service: what it loses is replaced one by one.

use std::collections::BTreeSet;

use crate::ids::{ClaimId, PeerId};
use crate::ledger::readings::{ClaimEntry, Slots};
use crate::membership::Loss;
use crate::model::{ClaimState, ServiceSpec};
use crate::wire::StopReason;

use super::reconcile::Plan;

/// Makes a plan for single tasks one for a gang. `finished`: whether a slot's work is done; `loss`: what has become of the
/// machine of a claim.
pub(super) fn gather(
    spec: &ServiceSpec,
    claims: &Slots,
    given: &BTreeSet<String>,
    finished: impl Fn(&str) -> bool,
    loss: impl Fn(&ClaimEntry) -> Loss,
    outdated: &mut Vec<(PeerId, ClaimId, StopReason)>,
    plan: &mut Plan,
) {
    // A new revision is a new gang: the old one makes room as a whole.
    if outdated.iter().any(|(.., why)| *why == StopReason::Outdated) {
        plan.stop.append(outdated);
        plan.missing.clear();
        return;
    }
    let revision = spec.revision();
    let (mut whole, mut begun, mut busy) = (true, false, false);
    let mut held: Vec<(PeerId, ClaimId)> = Vec::new();
    for number in 1..=spec.replicas {
        let slot = number.to_string();
        let done = finished(&slot);
        begun |= done;
        let mut covered = done;
        for entry in claims.get(&slot).into_iter().flatten() {
            let claim = &entry.claim;
            let waits = claim.gang && claim.state == ClaimState::Accepted;
            let live = !claim.state.has_ended();
            let loss = loss(entry);
            busy |= live && loss != Loss::Lost && !(waits && claim.revision == revision);
            if claim.revision != revision {
                continue;
            }
            begun |= claim.started_at.is_some() || (live && !waits && claim.state < ClaimState::Stopping);
            if claim.state < ClaimState::Stopping && loss == Loss::No {
                covered = true;
                if waits {
                    held.push((entry.owner, claim.id));
                }
            }
        }
        whole &= covered;
    }
    if whole || begun {
        plan.go = held;
        return;
    }
    plan.together = true;
    let is_given = (1..=spec.replicas).any(|number| given.contains(&number.to_string()));
    if is_given {
        plan.missing.clear();
    } else if !held.is_empty() {
        plan.missing.clear();
        plan.stop.extend(held.into_iter().map(|(owner, claim)| (owner, claim, StopReason::Ungathered)));
    } else if busy || plan.missing.len() < spec.replicas as usize {
        plan.missing.clear();
    }
}
