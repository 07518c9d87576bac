//! P7: everything works on any surviving subset. A probe asks a survivor for one new task, and the
//! task has to run in time.

use rialto_protocol::ids::TaskId;
use rialto_protocol::model::Resources;
use rialto_protocol::model::app::{DEFAULT_CPU_MILLIS, DEFAULT_MEMORY_BYTES};

use crate::World;
use crate::executor::Phase;
use crate::machine::Machine;

/// One task that was asked for at a survivor.
#[derive(Clone, Debug)]
pub struct Probe {
    pub app: String,
    pub machine: usize,
    pub asked_ms: u64,
    pub due_ms: u64,
}

impl Probe {
    /// Whether the task runs, or has run, on a machine that is up.
    pub fn runs(&self, world: &World) -> bool {
        let is_it = |task: &TaskId| task.app.name == self.app;
        world
            .machines
            .iter()
            .any(|machine| machine.executor.live.values().any(|c| is_it(&c.spec.task) && c.phase == Phase::Running))
            || world
                .promises
                .history
                .all()
                .any(|(task, runs)| is_it(task) && runs.iter().any(|run| run.ended.is_some()))
    }

    /// Whether no survivor could hold it: then it has to wait, and nothing is promised.
    pub fn is_void(&self, world: &World) -> bool {
        let need = Resources::of(DEFAULT_CPU_MILLIS, DEFAULT_MEMORY_BYTES);
        let room = |(at, machine): (usize, &Machine)| {
            machine.serves() && machine.belongs() && world.promises.capacity.has_room(at, &machine.capacity, &need)
        };
        !world.machines.iter().enumerate().any(room)
    }

    /// Whether the time is up.
    pub fn is_overdue(&self, world: &World) -> bool {
        world.now_ms() >= self.due_ms
    }

    /// What is wrong, and who is held for the steward by whom.
    pub fn complaint(&self, world: &World) -> String {
        let waited = self.due_ms - self.asked_ms;
        let opinion = |machine: &Machine| {
            let app = machine.brain.as_ref()?.view(machine.now(world.now_us)).app(&self.app)?;
            Some(format!("{}: {}", machine.name, app.steward.as_deref().unwrap_or("nobody")))
        };
        let opinions: Vec<String> = world.machines.iter().filter_map(opinion).collect();
        let Self { app, machine, .. } = self;
        format!(
            "{app} was asked for at m{machine} and does not run {waited} ms later; stewards: {}",
            opinions.join(", ")
        )
    }
}
