//! P1: no machine promises more than it has.
//!
//! Judged from what is durable: a claim takes its room from the moment it is on disk until a record
//! that ends it is, and that record may only be written when the container is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rialto_protocol::ids::{ClaimId, PeerId, TaskId};
use rialto_protocol::ledger::record::Kind;
use rialto_protocol::model::{Claim, Resources};
use rialto_protocol::wire;

use crate::disk::Disk;
use crate::executor::VirtualExecutor;

#[derive(Clone, Debug)]
struct Open {
    claim: ClaimId,
    need: Resources,
    ports: Vec<(u16, String)>,
    /// Claims whose room it takes over: while they live, what both take counts once.
    takes_over: Vec<ClaimId>,
}

/// Every machine's durable claims that have not ended, by record.
#[derive(Debug)]
pub struct Capacity {
    accounts: Vec<BTreeMap<Arc<str>, Open>>,
    /// Promises of identities that are lost: they count for as long as their containers live.
    strays: Vec<Vec<Open>>,
    /// What a machine that offers less than it did had promised before.
    conceded: Vec<Resources>,
}

impl Capacity {
    pub fn new(machines: usize) -> Self {
        Self {
            accounts: (0..machines).map(|_| BTreeMap::new()).collect(),
            strays: vec![Vec::new(); machines],
            conceded: vec![Resources::default(); machines],
        }
    }

    /// What a machine has promised by now is no broken promise, though it may offer less than that since.
    pub fn concede(&mut self, machine: usize) {
        self.conceded[machine] = self.used(machine);
    }

    /// Takes note of a durable claim; none: it is forgotten.
    pub fn durable(&mut self, machine: usize, id: &Arc<str>, claim: Option<Claim>) {
        match claim.filter(|claim| !claim.state.has_ended()) {
            Some(claim) => {
                let ports = claim.ports.iter().filter(|port| !port.ingress);
                let ports = ports.map(|port| (port.host, port.protocol.clone())).collect();
                let open = Open { claim: claim.id, need: claim.need, ports, takes_over: claim.takes_over };
                self.accounts[machine].insert(id.clone(), open);
            }
            None => drop(self.accounts[machine].remove(id)),
        }
    }

    /// The machine has lost its identity, and its promises with it.
    pub fn renewed(&mut self, machine: usize) {
        let open = std::mem::take(&mut self.accounts[machine]);
        self.strays[machine].extend(open.into_values());
    }

    /// The machine has lost power, and its disk is this one.
    pub fn put_back(&mut self, machine: usize, owner: &PeerId, disk: &Disk) {
        self.accounts[machine].clear();
        let own = disk.records.iter().filter(|((by, key), _)| by == owner && key.kind == Kind::CLAIM);
        for ((_, key), stored) in own {
            let claim = stored.record.value.as_ref().and_then(|value| wire::decode(value).ok());
            self.durable(machine, &key.id, claim);
        }
    }

    /// The sum of what is claimed, and every host port, fit the machine.
    pub fn check(&mut self, machine: usize, capacity: &Resources, executor: &VirtualExecutor) -> Result<(), String> {
        self.strays[machine].retain(|stray| executor.live.contains_key(&stray.claim));
        let capacity = capacity.most(&self.conceded[machine]);
        let mut used = Resources::default();
        let mut ports = BTreeSet::new();
        for open in self.accounts[machine].values().chain(&self.strays[machine]) {
            let victims = self.living(machine, &open.takes_over);
            let mut need = open.need.clone();
            let mut inherited = Resources::default();
            victims.iter().for_each(|victim| inherited.add(&victim.need));
            need.sub(&inherited.least(&open.need));
            if let Some(dimension) = capacity.lacks(&used, &need) {
                let (claims, strays) = (self.accounts[machine].len(), self.strays[machine].len());
                return Err(format!(
                    "m{machine} has promised more {dimension} than it has, in {claims} claims beside {strays} containers \
                     of an identity that it lost"
                ));
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
            [first, ..] => Err(format!(
                "m{machine} makes a container for {task} in the room of claim {}, which lives",
                first.claim
            )),
        }
    }

    /// Whether one more task of this need would fit beside a machine's durable claims.
    pub fn has_room(&self, machine: usize, capacity: &Resources, need: &Resources) -> bool {
        capacity.lacks(&self.used(machine), need).is_none()
    }

    /// What its durable claims take.
    pub fn used(&self, machine: usize) -> Resources {
        let mut used = Resources::default();
        self.accounts[machine].values().for_each(|open| used.add(&open.need));
        used
    }
}
