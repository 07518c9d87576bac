//! The rush: when all is well the cluster is filled to the brim, several apps want more, and room comes free task by
//! task. So every seed tells whether what goes first gets it.

use std::collections::BTreeMap;

use rialto_protocol::event::Request;
use rialto_protocol::ids::ChangeId;
use rialto_protocol::model::resources::CPU_MILLIS;
use rialto_protocol::model::{AppSpec, Resources, ServiceSpec};

use crate::World;
use crate::invariants::priority::{Contender, out_of_turn};
use crate::invariants::{PRIORITY, settles};
use crate::machine::Machine;
use crate::run::Run;

/// What each task of the rush takes, millicores: the most that leaves room for all contenders' tasks.
const TASK_MILLIS: [u64; 4] = [1_000, 500, 200, 100];
/// Nobody is ended for any of these, whatever runs.
const PRIORITIES: [i32; 3] = [-5, 0, 4];
/// How many tasks each contender has.
const TASKS: usize = 2;
const FILLER: &str = "rush-filler";
const FILLER_PRIORITY: i32 = 4;
/// The cluster is full when nothing more has started for this long, ms.
const FULL_MS: u64 = 3_000;
/// Everybody knows after this long what waits, ms.
const KNOWN_MS: u64 = 5_000;
/// No life is so young any more that stewards are about to change, ms: who looks after an app only since a moment ago
/// waits before it asks for anything, and others may pass it meanwhile.
const MATURE_MS: u64 = 70_000;
/// Room that comes free is used after this long, ms.
const USED_MS_MAX: u64 = 15_000;
const STEP_MS: u64 = 20;

impl Run {
    pub(super) fn rush(&mut self) {
        self.pass(MATURE_MS);
        let fits = |millis: &u64| self.rooms(*millis) >= PRIORITIES.len() * TASKS;
        let Some(millis) = TASK_MILLIS.into_iter().find(fits) else { return };
        let Some(full) = self.fill(millis) else { return };
        let contenders = self.contend(millis);
        self.pass(KNOWN_MS);
        for left in (0..full).rev() {
            let had = count(&contenders, &self.world);
            if had == contenders.len() * TASKS || !self.world.promises.is_kept() {
                return;
            }
            self.scale_filler(left);
            let given = self.wait(|world| count(&contenders, world) > had || out_of_turn(world, &contenders).is_some());
            self.rushed = count(&contenders, &self.world);
            if let Some(text) = out_of_turn(&self.world, &contenders) {
                self.complain(text);
            } else if !given {
                self.complain(format!("room came free, and {USED_MS_MAX} ms later nobody has it"));
            }
        }
    }

    /// How many tasks of this size the machines have room for.
    fn rooms(&self, millis: u64) -> usize {
        let of = |at: usize| {
            let machine = &self.world.machines[at];
            let used = self.world.promises.capacity.used(at);
            machine.capacity.copies(&used, &task(millis), u32::MAX) as usize
        };
        settles::honest(&self.world).map(of).sum()
    }

    /// Fills the cluster; with how many tasks, or `None` where that went wrong.
    fn fill(&mut self, millis: u64) -> Option<usize> {
        let most = |machine: &Machine| machine.capacity.get(CPU_MILLIS) / millis;
        let most: u64 = self.world.machines.iter().map(most).sum();
        self.deploy(FILLER, FILLER_PRIORITY, most as usize, millis);
        let (mut full, mut since) = (0, self.world.now_ms());
        while self.world.promises.is_kept() && self.world.now_ms() < since + FULL_MS {
            self.pass(STEP_MS);
            let now = of_app(FILLER, &self.world);
            if now != full {
                (full, since) = (now, self.world.now_ms());
            }
        }
        // What waits is not wanted any more; some of what runs may have to make way for it.
        self.scale_filler(full);
        let filled = self.wait(|world| of_app(FILLER, world) == full);
        if !filled {
            self.complain(format!("{full} tasks fill the cluster, and {USED_MS_MAX} ms later they do not"));
        }
        filled.then_some(full)
    }

    /// Apps that all want the same room, asked for in any order.
    fn contend(&mut self, millis: u64) -> Vec<Contender> {
        let mut left = PRIORITIES.to_vec();
        let mut contenders = Vec::new();
        while !left.is_empty() {
            let priority = left.swap_remove(self.dice.below(left.len() as u64) as usize);
            let app = format!("rush{}", contenders.len() + 1);
            self.deploy(&app, priority, TASKS, millis);
            contenders.push(Contender { app, priority, tasks: TASKS });
            let pause_ms = self.dice.between(0, 1_500);
            self.pass(pause_ms);
        }
        contenders
    }

    fn deploy(&mut self, app: &str, priority: i32, replicas: usize, millis: u64) {
        let service = ServiceSpec {
            image: "host".into(),
            command: vec!["forever".into()],
            replicas: replicas as u32,
            reservations: task(millis),
            priority,
            stop_grace_ms: Some(1_000),
            ..ServiceSpec::default()
        };
        let spec = AppSpec { services: BTreeMap::from([("web".to_string(), service)]), single_run: false };
        let app = app.to_string();
        self.demand(|change| Request::Deploy { change, author: "somebody".into(), app, spec });
    }

    fn scale_filler(&mut self, replicas: usize) {
        let (author, app) = ("somebody".to_string(), FILLER.to_string());
        let replicas = replicas as u32;
        self.demand(|change| Request::Scale { change, author, app, service: None, replicas });
    }

    /// Asks any machine that is held to the promises.
    pub(super) fn demand(&mut self, request: impl FnOnce(ChangeId) -> Request) {
        let able: Vec<usize> = settles::honest(&self.world).collect();
        if let Some(machine) = self.dice.pick(&able).copied() {
            self.work.demand(&mut self.world, machine, request);
        }
    }

    fn wait(&mut self, is_so: impl Fn(&World) -> bool) -> bool {
        let until = self.world.now_ms() + USED_MS_MAX;
        while self.world.promises.is_kept() && self.world.now_ms() < until {
            if is_so(&self.world) {
                return true;
            }
            self.pass(STEP_MS);
        }
        false
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.world.run_until(self.world.now_ms() + ms);
        self.work.hear(&mut self.world);
    }

    fn complain(&mut self, text: String) {
        self.world.promises.broken(PRIORITY, self.world.now_ms(), text);
    }
}

fn task(millis: u64) -> Resources {
    Resources::of(millis, 1 << 20)
}

fn of_app(app: &str, world: &World) -> usize {
    world.machines.iter().map(|machine| machine.executor.of_app(app)).sum()
}

fn count(contenders: &[Contender], world: &World) -> usize {
    contenders.iter().map(|one| one.has(world)).sum()
}
