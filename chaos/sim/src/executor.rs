//! A virtual executor: containers that take their time, outlive the daemon, and die with the
//! machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::ClaimId;
use rialto_protocol::model::{Health, TaskSpec};

use super::dice::Dice;

/// Where a container stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    Running,
    Stopping,
}

/// One live container.
#[derive(Clone, Debug)]
pub struct Container {
    pub spec: Arc<TaskSpec>,
    pub phase: Phase,
    /// Wall clock of the machine, ms.
    pub started_at: u64,
    /// Of a lease: it may run until then, by the machine's clock, ms.
    pub until_ms: Option<u64>,
    /// Its lease is what ends it.
    pub expired: bool,
}

/// What a container does next by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    Run,
    /// It ends with this code; `stopped` ends come of a stop, and outrun the command's own.
    End {
        code: i32,
    },
    /// Its lease comes to this end, unless it was renewed: it is told to stop, or killed.
    Expire {
        until_ms: u64,
        kill: bool,
    },
}

/// One machine's containers.
#[derive(Debug)]
pub struct VirtualExecutor {
    pub live: BTreeMap<ClaimId, Container>,
    /// Exit files: kept until the claim is forgotten, as the shims write them to disk.
    pub exits: BTreeMap<ClaimId, TaskReport>,
    /// How often a container cannot be made.
    pub failing: f64,
    /// Planted: it does not find what earlier lives left behind.
    pub blind: bool,
    /// What runs runs on: no command ends by itself.
    pub endless: bool,
    pub dice: Dice,
}

/// What the machine has to do about a start or a stop: a report at once, and steps later (µs).
#[derive(Debug, Default)]
pub struct Todo {
    pub report: Option<TaskReport>,
    pub later: Option<(u64, Course)>,
    /// A container has been made.
    pub made: bool,
}

impl VirtualExecutor {
    pub fn new(seed: u64, machine: usize) -> Self {
        Self {
            live: BTreeMap::new(),
            exits: BTreeMap::new(),
            failing: 0.0,
            blind: false,
            endless: false,
            dice: Dice::new(seed, &format!("executor {machine}")),
        }
    }

    /// How many containers an app has here.
    pub fn of_app(&self, app: &str) -> usize {
        self.live.values().filter(|container| container.spec.task.app.name == app).count()
    }

    /// Starts a task, unless its container exists or has existed.
    pub fn start(&mut self, claim: ClaimId, spec: Arc<TaskSpec>, wall: u64) -> Todo {
        if let Some(exit) = self.exits.get(&claim) {
            return Todo { report: Some(exit.clone()), ..Todo::default() };
        }
        if let Some(container) = self.live.get(&claim) {
            return Todo { report: Some(container.report()), ..Todo::default() };
        }
        if self.failing > 0.0 && self.dice.chance(self.failing) {
            return self.refuse(claim, "the image cannot be read");
        }
        self.live.insert(claim, Container { phase: Phase::Starting, ..Container::running(spec, wall) });
        let after = self.dice.between(5_000, 50_000);
        Todo { report: Some(TaskReport::Starting), later: Some((after, Course::Run)), made: true }
    }

    /// A task that cannot be started.
    pub fn refuse(&mut self, claim: ClaimId, reason: &str) -> Todo {
        let failed = TaskReport::Failed { reason: reason.into() };
        self.exits.insert(claim, failed.clone());
        Todo { report: Some(failed), ..Todo::default() }
    }

    /// The container runs now; what its command does, and when (µs from now).
    pub fn run(&mut self, claim: ClaimId, wall: u64) -> Todo {
        let Some(container) = self.live.get_mut(&claim) else { return Todo::default() };
        if container.phase != Phase::Starting {
            return Todo::default();
        }
        container.phase = Phase::Running;
        container.started_at = wall;
        let report = Some(container.report());
        let instant = 1_000 + self.dice.below(10_000);
        let ending = if self.endless { None } else { ending(&container.spec) };
        let later = ending.map(|(after, code)| (after + instant, Course::End { code }));
        Todo { report, later, made: false }
    }

    /// Sends the stop signal: most end in time, some only by SIGKILL after the grace.
    pub fn stop(&mut self, claim: ClaimId, grace_ms: u64) -> Todo {
        if let Some(exit) = self.exits.get(&claim) {
            return Todo { report: Some(exit.clone()), ..Todo::default() };
        }
        let Some(container) = self.live.get_mut(&claim) else {
            let report = Some(TaskReport::Failed { reason: "there is no such container".into() });
            return Todo { report, ..Todo::default() };
        };
        if container.phase == Phase::Stopping {
            return Todo::default();
        }
        container.phase = Phase::Stopping;
        let stubborn = self.dice.chance(0.05);
        let (after, code) = if stubborn {
            (grace_ms * 1000, 137)
        } else {
            (self.dice.between(1_000, (grace_ms * 1000).clamp(1_001, 500_000)), 143)
        };
        Todo { later: Some((after, Course::End { code })), ..Todo::default() }
    }

    /// A lease comes to its end. A container that is told to stop long before it is killed may end in between.
    pub fn expire(&mut self, claim: ClaimId, until_ms: u64, kill: bool) -> Todo {
        let Some(container) = self.live.get_mut(&claim).filter(|one| one.until_ms == Some(until_ms)) else {
            return Todo::default();
        };
        container.expired |= container.phase != Phase::Stopping;
        container.phase = Phase::Stopping;
        // The kernel needs a moment to end it.
        let (after, code) = match kill {
            true => (self.dice.between(100, 100_000), 137),
            false => (self.dice.between(1_000, 4_000_000), 143),
        };
        Todo { later: Some((after, Course::End { code })), ..Todo::default() }
    }

    /// The container is gone; `None` where it had gone before.
    pub fn end(&mut self, claim: ClaimId, exit_code: i32, wall: u64) -> Option<TaskReport> {
        let container = self.live.remove(&claim)?;
        let exited = match container.expired {
            true => TaskReport::Expired { exit_code, ended_at: wall },
            false => TaskReport::Exited { exit_code, oom_killed: false, ended_at: wall },
        };
        self.exits.insert(claim, exited.clone());
        Some(exited)
    }

    /// Logs and exit file may go.
    pub fn forget(&mut self, claim: ClaimId) {
        self.exits.remove(&claim);
    }

    /// What an earlier life of the daemon left behind.
    pub fn found(&self) -> Vec<(ClaimId, TaskReport)> {
        if self.blind {
            return Vec::new();
        }
        let live = self.live.iter().map(|(claim, container)| (*claim, container.report()));
        live.chain(self.exits.iter().map(|(claim, exit)| (*claim, exit.clone()))).collect()
    }

    /// The machine loses power: containers are gone without a word.
    pub fn power_off(&mut self) -> Vec<ClaimId> {
        std::mem::take(&mut self.live).into_keys().collect()
    }
}

impl Container {
    /// One that runs, under no lease.
    pub fn running(spec: Arc<TaskSpec>, started_at: u64) -> Self {
        Self { spec, phase: Phase::Running, started_at, until_ms: None, expired: false }
    }

    fn report(&self) -> TaskReport {
        match self.phase {
            Phase::Starting => TaskReport::Starting,
            Phase::Running | Phase::Stopping => {
                // One that ails is never found fit by its check, nor unfit for good.
                let ails = self.spec.command.first().is_some_and(|word| word == "ails");
                let health = if ails { Health::Starting } else { Health::None };
                TaskReport::Running { image_digest: None, started_at: self.started_at, health }
            }
        }
    }
}

/// When (µs) and how a command ends by itself; `None`: never.
fn ending(spec: &TaskSpec) -> Option<(u64, i32)> {
    let word = |n: usize| spec.command.get(n).map_or("", String::as_str);
    let number = |n: usize| word(n).parse::<u64>().unwrap_or(0);
    match word(0) {
        "true" => Some((0, 0)),
        "false" => Some((0, 1)),
        // Ends well after so many milliseconds.
        "sleep" => Some((number(1) * 1000, 0)),
        // Ends at once with this code.
        "fail" => Some((0, number(1) as i32)),
        // Ends at once where its version is one that does not do well.
        "version" if spec.environment.get("VERSION").is_some_and(|version| version.ends_with("bad")) => Some((0, 3)),
        // Ends badly until an attempt, and then does the rest of the command.
        "until" if u64::from(spec.attempt) < number(1) => Some((300_000, 1)),
        "until" if word(2) == "true" => Some((0, 0)),
        _ => None,
    }
}
