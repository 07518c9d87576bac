//! What is told: the tasks that are elsewhere, those that wait, and why.

use std::collections::BTreeMap;

use rialto_protocol::api::Explanation;
use rialto_protocol::explain::Subject;
use rialto_protocol::view::{TaskFilter, View};
use serde::Serialize;

use super::story::look;
use crate::world::World;

/// What would happen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outlook {
    pub seed: u64,
    /// When the ledger was taken: RFC 3339.
    pub as_of: String,
    /// Machines that live before, newcomers aside.
    pub machines: usize,
    pub lost: Vec<String>,
    pub added: Vec<String>,
    pub deployed: Vec<String>,
    /// What the cluster was about to do in any case.
    pub under_way: Vec<Move>,
    /// Tasks that are elsewhere afterwards, run for the first time, or run no more.
    pub moves: Vec<Move>,
    /// Tasks that run where they ran.
    pub unmoved: usize,
    /// Tasks that wait afterwards, and of those the ones that waited before.
    pub waiting: Vec<String>,
    pub waited_before: Vec<String>,
    /// Why they wait, as their stewards explain it.
    pub why: Vec<Explanation>,
    /// What is held back afterwards.
    pub remarks: Vec<String>,
    /// From the loss, or else from the first change, to the last task's start; none where no task moved.
    pub settled_ms: Option<u64>,
    /// The virtual time that was lived through.
    pub simulated_ms: u64,
}

/// One task's way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Move {
    /// `app.service.slot`.
    pub task: String,
    /// None where it ran nowhere before,
    pub from: Option<String>,
    /// and where it runs nowhere afterwards.
    pub to: Option<String>,
}

/// Where every task is.
#[derive(Clone, Debug, Default)]
pub struct Placement {
    pub at: BTreeMap<String, String>,
    pub waiting: Vec<String>,
    /// Tasks that are wanted, finished ones included.
    pub wanted: usize,
    machines: usize,
}

impl Placement {
    /// As one peer sees it.
    pub fn of(view: View<'_>) -> Self {
        let mut placement = Self { machines: view.members_seen() as usize, ..Self::default() };
        let services = view.apps().into_iter().flat_map(|app| app.spec.services.into_values());
        placement.wanted = services.map(|service| service.replicas as usize).sum();
        for row in view.tasks(&TaskFilter::default()) {
            match (row.state.as_str(), row.machine) {
                ("accepted" | "starting" | "running", Some(machine)) => drop(placement.at.insert(row.task, machine)),
                ("pending", _) => placement.waiting.push(row.task),
                _ => {}
            }
        }
        placement
    }
}

/// The tasks that are elsewhere.
pub fn differences(before: &Placement, after: &Placement) -> Vec<Move> {
    let gone = before.at.keys().filter(|task| !after.at.contains_key(*task));
    let all = after.at.keys().chain(gone);
    let moved = all.filter_map(|task| {
        let (from, to) = (before.at.get(task).cloned(), after.at.get(task).cloned());
        (from != to).then(|| Move { task: task.clone(), from, to })
    });
    let mut moved: Vec<Move> = moved.collect();
    moved.sort_by_cached_key(|one| in_order(&one.task));
    moved
}

/// Slots by number.
fn in_order(task: &str) -> (String, u64) {
    let (service, slot) = task.rsplit_once('.').unwrap_or((task, ""));
    (service.to_string(), slot.parse().unwrap_or(u64::MAX))
}

/// What can be told from a world that has come to rest.
pub fn outlook(world: &World, before: &Placement, under_way: Vec<Move>) -> Outlook {
    let after = look(world, Placement::of).unwrap_or_default();
    let moves = differences(before, &after);
    let unmoved = after.at.iter().filter(|(task, machine)| before.at.get(*task) == Some(machine)).count();
    let waited_before = after.waiting.iter().filter(|task| before.waiting.contains(task)).cloned().collect();
    let mut apps: Vec<&str> = after.waiting.iter().filter_map(|task| task.split('.').next()).collect();
    apps.dedup();
    Outlook {
        machines: before.machines,
        under_way,
        moves,
        unmoved,
        waited_before,
        why: apps.into_iter().filter_map(|app| explanation(world, app)).collect(),
        remarks: look(world, |view| view.remarks()).unwrap_or_default(),
        waiting: after.waiting,
        ..Outlook::default()
    }
}

/// What an app's steward says of what waits.
fn explanation(world: &World, app: &str) -> Option<Explanation> {
    let steward = look(world, |view| view.steward(app)).flatten()?;
    let machine = &world.machines[world.machine_of(&steward)?];
    let view = machine.brain.as_ref()?.view(machine.now(world.now_us));
    let mut told = view.explain(&Subject::of(app)).ok()?;
    told.services.retain(|service| service.waiting > 0);
    Some(told)
}
