//! A virtual executor: containers that take their time, outlive the daemon, and die with the
//! machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::ClaimId;
use rialto_protocol::model::TaskSpec;

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
}

/// What a container does next by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    Run,
    /// It ends with this code; `stopped` ends come of a stop, and outrun the command's own.
    End {
        code: i32,
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

    /// Starts a task, unless its container exists or has existed.
    pub fn start(&mut self, claim: ClaimId, spec: Arc<TaskSpec>, wall: u64) -> Todo {
        if let Some(exit) = self.exits.get(&claim) {
            return Todo { report: Some(exit.clone()), ..Todo::default() };
        }
        if let Some(container) = self.live.get(&claim) {
            return Todo { report: Some(container.report()), ..Todo::default() };
        }
        if self.failing > 0.0 && self.dice.chance(self.failing) {
            let failed = TaskReport::Failed { reason: "the image cannot be read".into() };
            self.exits.insert(claim, failed.clone());
            return Todo { report: Some(failed), ..Todo::default() };
        }
        self.live.insert(claim, Container { spec, phase: Phase::Starting, started_at: wall });
        let after = self.dice.between(5_000, 50_000);
        Todo { report: Some(TaskReport::Starting), later: Some((after, Course::Run)), made: true }
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

    /// The container is gone; `None` where it had gone before.
    pub fn end(&mut self, claim: ClaimId, exit_code: i32, wall: u64) -> Option<TaskReport> {
        self.live.remove(&claim)?;
        let exited = TaskReport::Exited { exit_code, oom_killed: false, ended_at: wall };
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
    fn report(&self) -> TaskReport {
        match self.phase {
            Phase::Starting => TaskReport::Starting,
            Phase::Running | Phase::Stopping => TaskReport::Running { image_digest: None, started_at: self.started_at },
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
        // Ends badly until an attempt, and then does the rest of the command.
        "until" if u64::from(spec.attempt) < number(1) => Some((300_000, 1)),
        "until" if word(2) == "true" => Some((0, 0)),
        _ => None,
    }
}
