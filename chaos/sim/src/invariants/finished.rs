//! P4: finished work stays finished. When everybody may know that a run has ended as it should, it
//! is not run again, whoever is restarted.

use std::collections::BTreeMap;

use rialto_protocol::ids::TaskId;

use super::settles;
use crate::World;

/// What a task ends with that was told to stop. A member that has gone mad may tell it so: then it is to be run again.
const STOPPED: i32 = 128 + 15;

/// Finished runs, and how often each had been started.
#[derive(Debug)]
pub struct Finished(BTreeMap<TaskId, usize>);

impl Finished {
    /// The tasks of batches that had finished by `until_ms`, as a serving machine believes.
    pub fn look(world: &World, until_ms: u64) -> Option<Self> {
        let view = settles::reader(world)?;
        let mut finished = BTreeMap::new();
        let is_one_mad = world.machines.iter().any(|machine| machine.hostile.is_some());
        for (task, service) in settles::batch_tasks(&view) {
            let runs = world.promises.history.of(&task);
            let done = |ended: Option<(u64, Option<i32>)>| {
                ended.is_some_and(|(at, code)| {
                    let is_told = is_one_mad && code == Some(STOPPED);
                    at <= until_ms && code.is_some() && !is_told && service.finishes(code)
                })
            };
            if runs.iter().any(|run| done(run.ended)) {
                finished.insert(task, runs.len());
            }
        }
        Some(Self(finished))
    }

    /// What was started again all the same.
    pub fn again(&self, world: &World) -> Option<String> {
        let more = |(task, before): (&TaskId, &usize)| {
            let runs = world.promises.history.of(task).len();
            (runs > *before).then(|| format!("{task} had finished, and was started {} times more", runs - before))
        };
        self.0.iter().find_map(more)
    }
}
