//! P1: no machine promises more than it has.
//!
//! Judged from what is durable: a claim takes its room from the moment it is on disk until a record
//! that ends it is, and that record may only be written when the container is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rialto_protocol::ids::{ClaimId, TaskId};
use rialto_protocol::ledger::record::{Kind, Stored};
use rialto_protocol::model::{Claim, Resources};
use rialto_protocol::wire;

use crate::executor::VirtualExecutor;

#[derive(Debug)]
struct Open {
    claim: ClaimId,
    task: TaskId,
    need: Resources,
    ports: Vec<(u16, String)>,
    /// Claims whose room it takes over: while they live, what both take counts once.
    takes_over: Vec<ClaimId>,
}

/// Every machine's durable claims that have not ended, by record.
#[derive(Debug)]
pub struct Capacity {
    accounts: Vec<BTreeMap<Arc<str>, Open>>,
}

impl Capacity {
    pub fn new(machines: usize) -> Self {
        Self { accounts: (0..machines).map(|_| BTreeMap::new()).collect() }
    }

    /// Takes note of a durable record; an ended claim must have no container.
    pub fn durable(&mut self, machine: usize, stored: &Stored, executor: &VirtualExecutor) -> Result<(), String> {
        let record = &stored.record;
        if record.key.kind != Kind::CLAIM {
            return Ok(());
        }
        let account = &mut self.accounts[machine];
        let Some(value) = &record.value else {
            return match account.remove(&record.key.id) {
                Some(open) if executor.live.contains_key(&open.claim) => {
                    Err(format!("m{machine} forgets the claim of {} while its container lives", open.task))
                }
                _ => Ok(()),
            };
        };
        let claim: Claim = wire::decode(value).map_err(|error| format!("m{machine} writes a claim: {error}"))?;
        if claim.state.has_ended() {
            account.remove(&record.key.id);
            if executor.live.contains_key(&claim.id) {
                let state = claim.state.word();
                return Err(format!("m{machine} calls {} {state} while its container lives", claim.task));
            }
            return Ok(());
        }
        let ports = claim.ports.iter().map(|port| (port.host, port.protocol.clone())).collect();
        let open = Open { claim: claim.id, task: claim.task, need: claim.need, ports, takes_over: claim.takes_over };
        account.insert(record.key.id.clone(), open);
        Ok(())
    }

    /// The sum of what is claimed, and every host port, fit the machine.
    pub fn check(&self, machine: usize, capacity: &Resources) -> Result<(), String> {
        let mut used = Resources::default();
        let mut ports = BTreeSet::new();
        for open in self.accounts[machine].values() {
            let victims = self.living(machine, &open.takes_over);
            let mut need = open.need.clone();
            let mut inherited = Resources::default();
            victims.iter().for_each(|victim| inherited.add(&victim.need));
            need.sub(&inherited.least(&open.need));
            if let Some(dimension) = capacity.lacks(&used, &need) {
                let claims = self.accounts[machine].len();
                return Err(format!("m{machine} has promised more {dimension} than it has, in {claims} claims"));
            }
            used.add(&need);
            for port in &open.ports {
                let is_inherited = victims.iter().any(|victim| victim.ports.contains(port));
                if !is_inherited && !ports.insert(port) {
                    return Err(format!("m{machine} has given port {}/{} away twice", port.0, port.1));
                }
            }
        }
        Ok(())
    }

    /// Those of these claims that have not ended.
    fn living(&self, machine: usize, claims: &[ClaimId]) -> Vec<&Open> {
        if claims.is_empty() {
            return Vec::new();
        }
        self.accounts[machine].values().filter(|open| claims.contains(&open.claim)).collect()
    }

    /// A container may be made only for a durable claim, and when the claims whose room it takes are gone.
    pub fn made(&self, machine: usize, claim: ClaimId, task: &TaskId) -> Result<(), String> {
        let Some(open) = self.accounts[machine].values().find(|open| open.claim == claim) else {
            return Err(format!("m{machine} makes a container for {task} without a durable claim"));
        };
        match self.living(machine, &open.takes_over)[..] {
            [] => Ok(()),
            [first, ..] => {
                Err(format!("m{machine} makes a container for {task} in the room of {}, which lives", first.task))
            }
        }
    }

    /// Whether one more task of this need would fit beside a machine's durable claims.
    pub fn has_room(&self, machine: usize, capacity: &Resources, need: &Resources) -> bool {
        let mut used = Resources::default();
        self.accounts[machine].values().for_each(|open| used.add(&open.need));
        capacity.lacks(&used, need).is_none()
    }
}
