//! P5: no two runs of a strict singleton overlap, and what runs exactly once runs once.
//!
//! Judged by the containers themselves, in the time of the world: whatever brains, keepers and the group believe. A
//! singleton is its service, of whatever generation of its app; its tokens rise from run to run.

use std::collections::{BTreeMap, BTreeSet};

use rialto_protocol::ids::{ClaimId, TaskId};
use rialto_protocol::model::{Guard, TaskSpec};

/// Who runs, and who ran last.
#[derive(Debug, Default)]
pub struct Strict {
    live: BTreeMap<(String, String), (ClaimId, usize)>,
    by_claim: BTreeMap<ClaimId, (String, String)>,
    tokens: BTreeMap<(String, String), u64>,
    /// How often each was started.
    runs: BTreeMap<(String, String), u32>,
    once: BTreeSet<TaskId>,
    /// Machines whose disks were put back: they may have forgotten that a run was theirs.
    forked: BTreeSet<usize>,
}

impl Strict {
    /// A container has been made.
    pub fn made(&mut self, machine: usize, claim: ClaimId, spec: &TaskSpec) -> Result<(), String> {
        match spec.guard {
            None => Ok(()),
            Some(Guard::Once) => self.made_once(machine, &spec.task),
            Some(Guard::Lease) => self.made_alone(machine, claim, spec),
        }
    }

    fn made_once(&mut self, machine: usize, task: &TaskId) -> Result<(), String> {
        if self.once.insert(task.clone()) || self.forked.contains(&machine) {
            return Ok(());
        }
        Err(format!("{task} is to run exactly once, and m{machine} starts it again"))
    }

    fn made_alone(&mut self, machine: usize, claim: ClaimId, spec: &TaskSpec) -> Result<(), String> {
        let name = (spec.task.app.name.clone(), spec.task.service.clone());
        let task = &spec.task;
        if let Some((_, other)) = self.live.get(&name) {
            return Err(format!("m{machine} starts {task}, a strict singleton, while it runs on m{other}"));
        }
        let token = spec.environment.get("RIALTO_FENCE_TOKEN").and_then(|token| token.parse().ok()).unwrap_or(0);
        let before = self.tokens.insert(name.clone(), token).unwrap_or(0);
        self.by_claim.insert(claim, name.clone());
        *self.runs.entry(name.clone()).or_default() += 1;
        self.live.insert(name, (claim, machine));
        if token <= before {
            return Err(format!("m{machine} starts {task} with token {token}, and {before} was given out before"));
        }
        Ok(())
    }

    /// A container is gone.
    pub fn gone(&mut self, claim: &ClaimId) {
        if let Some(name) = self.by_claim.remove(claim) {
            self.live.remove(&name);
        }
    }

    /// A machine's disk was put back to an earlier state.
    pub fn forked(&mut self, machine: usize) {
        self.forked.insert(machine);
    }

    /// How often the singleton was started.
    pub fn runs(&self, app: &str, service: &str) -> u32 {
        self.runs.get(&(app.to_string(), service.to_string())).copied().unwrap_or(0)
    }
}
