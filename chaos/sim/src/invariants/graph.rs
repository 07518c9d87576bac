//! Nothing starts before what it waits for: when a container is made, the condition has held.

use std::collections::{BTreeMap, BTreeSet};

use rialto_protocol::ids::TaskId;
use rialto_protocol::model::{AppSpec, Condition};

use super::history::History;

/// What services wait for, by app and service: the other, how many tasks it has, and the condition.
#[derive(Debug, Default)]
pub struct Graph(BTreeMap<(String, String), Vec<Wait>>);

/// Another service, how many tasks it has, and what has to be true of them.
type Wait = (String, u32, Condition);

impl Graph {
    /// An app is deployed once, and its tasks are never run anew.
    pub fn expect(&mut self, app: &str, spec: &AppSpec) {
        for (name, service) in spec.services.iter().filter(|(_, service)| !service.depends_on.is_empty()) {
            let of = |(other, condition): (&String, &Condition)| {
                let tasks = spec.services.get(other)?.replicas;
                Some((other.clone(), tasks, *condition))
            };
            self.0.insert((app.into(), name.clone()), service.depends_on.iter().filter_map(of).collect());
        }
    }

    /// A container is made. Of what a hostile machine said to have run nobody can know.
    pub fn made(&self, task: &TaskId, history: &History, forged: &BTreeSet<TaskId>) -> Result<(), String> {
        let Some(waits) = self.0.get(&(task.app.name.clone(), task.service.clone())) else { return Ok(()) };
        for (service, tasks, condition) in waits {
            let held = |slot: u32| {
                let other = TaskId { app: task.app.clone(), service: service.clone(), slot: slot.to_string() };
                let runs = history.of(&other);
                if forged.contains(&other) {
                    return true;
                }
                match condition {
                    Condition::ServiceCompletedSuccessfully => {
                        runs.iter().any(|run| matches!(run.ended, Some((_, Some(0)))))
                    }
                    Condition::ServiceStarted | Condition::ServiceHealthy => !runs.is_empty(),
                }
            };
            if let Some(slot) = (1..=*tasks).find(|slot| !held(*slot)) {
                return Err(format!("{task} starts, and waits for {service}.{slot}, which is not there yet"));
            }
        }
        Ok(())
    }
}
