//! The promises of the design, one file each. The cheap ones are judged after every step, the
//! costly ones when the faults are gone.

pub mod acknowledged;
pub mod capacity;
pub mod gangs;
pub mod history;
pub mod owners;
pub mod settles;
pub mod survivors;

use rialto_protocol::effect::Bad;
use rialto_protocol::ids::{ClaimId, PeerId, TaskId};
use rialto_protocol::ledger::record::{Draft, Signature, Stored};
use rialto_protocol::model::Resources;
use rialto_protocol::wire::Message;

use crate::executor::VirtualExecutor;
use capacity::Capacity;
use gangs::Gangs;
use history::History;
use owners::Owners;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `P1` …, or `brain` where a law of the brain itself is broken.
    pub promise: &'static str,
    pub at_ms: u64,
    pub text: String,
}

/// What is watched all the time.
#[derive(Debug)]
pub struct Promises {
    pub capacity: Capacity,
    pub gangs: Gangs,
    pub owners: Owners,
    pub history: History,
    violations: Vec<Violation>,
}

impl Promises {
    pub fn new(machines: usize) -> Self {
        Self {
            capacity: Capacity::new(machines),
            gangs: Gangs::default(),
            owners: Owners::new(machines),
            history: History::default(),
            violations: Vec::new(),
        }
    }

    /// Whether nothing has been broken yet.
    pub fn is_kept(&self) -> bool {
        self.violations.is_empty()
    }

    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Notes a broken promise.
    pub fn broken(&mut self, promise: &'static str, at_ms: u64, text: String) {
        self.violations.push(Violation { promise, at_ms, text });
    }

    fn judge(&mut self, promise: &'static str, at_ms: u64, result: Result<(), String>) {
        if let Err(text) = result {
            self.broken(promise, at_ms, text);
        }
    }

    /// A machine signs records of its own.
    pub fn signed(&mut self, at_ms: u64, machine: usize, owner: &PeerId, draft: &Draft, signature: &Signature) {
        let result = self.owners.signed(machine, owner, draft, signature);
        self.judge("P3", at_ms, result);
    }

    /// A machine's own record has become durable.
    pub fn durable(&mut self, at_ms: u64, machine: usize, owner: &PeerId, stored: &Stored, executor: &VirtualExecutor) {
        let result = self.owners.durable(machine, owner, stored);
        self.judge("P3", at_ms, result);
        self.gangs.durable(stored);
        let result = self.capacity.durable(machine, stored, executor);
        self.judge("P1", at_ms, result);
    }

    /// A machine's account, after its durable claims have changed.
    pub fn room(&mut self, at_ms: u64, machine: usize, capacity: &Resources) {
        let result = self.capacity.check(machine, capacity);
        self.judge("P1", at_ms, result);
    }

    /// A machine says something.
    pub fn sent(&mut self, at_ms: u64, machine: usize, message: &Message) {
        let result = self.owners.sent(machine, message);
        self.judge("P3", at_ms, result);
    }

    /// A container has been made.
    pub fn made(&mut self, at_ms: u64, machine: usize, claim: ClaimId, task: TaskId, attempt: u32) {
        let result = self.capacity.made(machine, claim, &task);
        self.judge("P1", at_ms, result);
        let result = self.gangs.made(claim);
        self.judge("gang", at_ms, result);
        let result = self.history.made(at_ms, machine, claim, task, attempt);
        self.judge("P4", at_ms, result);
    }

    /// A brain reports bad input; in a world of honest peers there is none of most kinds.
    pub fn reported(&mut self, at_ms: u64, machine: usize, from: Option<usize>, what: Bad) {
        if matches!(what, Bad::Signature | Bad::Malformed | Bad::Unreadable | Bad::Inapplicable) {
            let from = from.map_or("somebody".to_string(), |from| format!("m{from}"));
            let text = format!("m{machine} refuses what honest {from} sent: {}", what.name());
            self.broken("brain", at_ms, text);
        }
    }
}
