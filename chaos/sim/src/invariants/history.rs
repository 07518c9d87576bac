//! What has run, where and how often: the ground truth that P4 is judged by.

use std::collections::{BTreeMap, BTreeSet};

use rialto_protocol::ids::{ClaimId, TaskId};

/// One container's life.
#[derive(Clone, Debug)]
pub struct Run {
    pub claim: ClaimId,
    pub machine: usize,
    pub attempt: u32,
    pub made_ms: u64,
    /// When it ended, and with which code; no code: it went with its machine.
    pub ended: Option<(u64, Option<i32>)>,
}

/// Every container that was ever made.
#[derive(Debug, Default)]
pub struct History {
    runs: BTreeMap<TaskId, Vec<Run>>,
    tasks: BTreeMap<ClaimId, TaskId>,
    /// Machines whose disks were put back: they may have forgotten that a claim has had its container.
    forked: BTreeSet<usize>,
}

impl History {
    /// A container has been made. A claim has one, and another only when the machine lost power
    /// before it could write that the first had run.
    pub fn made(
        &mut self,
        at_ms: u64,
        machine: usize,
        claim: ClaimId,
        task: TaskId,
        attempt: u32,
    ) -> Result<(), String> {
        if self.tasks.insert(claim, task.clone()).is_some() {
            let runs = self.runs.entry(task.clone()).or_default();
            let before = runs.iter().rposition(|run| run.claim == claim && matches!(run.ended, Some((_, None))));
            let Some(before) = before else {
                if self.forked.contains(&machine) {
                    runs.push(Run { claim, machine, attempt, made_ms: at_ms, ended: None });
                    return Ok(());
                }
                return Err(format!("m{machine} makes a second container for a claim of {task}"));
            };
            runs.remove(before);
        }
        self.runs.entry(task).or_default().push(Run { claim, machine, attempt, made_ms: at_ms, ended: None });
        Ok(())
    }

    /// A machine's disk was put back to an earlier state.
    pub fn forked(&mut self, machine: usize) {
        self.forked.insert(machine);
    }

    /// A container has ended with a code.
    pub fn ended(&mut self, claim: ClaimId, at_ms: u64, code: i32) {
        self.end(claim, at_ms, Some(code));
    }

    /// A container is gone with its machine.
    pub fn vanished(&mut self, claim: ClaimId, at_ms: u64) {
        self.end(claim, at_ms, None);
    }

    fn end(&mut self, claim: ClaimId, at_ms: u64, code: Option<i32>) {
        let Some(runs) = self.tasks.get(&claim).and_then(|task| self.runs.get_mut(task)) else { return };
        if let Some(run) = runs.iter_mut().rev().find(|run| run.claim == claim) {
            run.ended = Some((at_ms, code));
        }
    }

    /// The runs of a task, oldest first.
    pub fn of(&self, task: &TaskId) -> &[Run] {
        self.runs.get(task).map_or(&[], Vec::as_slice)
    }

    /// Every task that ever ran.
    pub fn all(&self) -> impl Iterator<Item = (&TaskId, &[Run])> {
        self.runs.iter().map(|(task, runs)| (task, runs.as_slice()))
    }
}
