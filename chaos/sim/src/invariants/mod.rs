//! The promises of the design, one file each. The cheap ones are judged after every step, the
//! costly ones when the faults are gone.

pub mod acknowledged;
pub mod addresses;
pub mod capacity;
pub mod convergence;
pub mod cron;
pub mod finished;
pub mod gangs;
pub mod graph;
pub mod history;
pub mod owners;
pub mod priority;
pub mod resurrection;
pub mod rollout;
pub mod rollout_ends;
pub mod room;
pub mod settles;
pub mod strict;
pub mod survivors;
pub mod usurpers;
pub mod volumes;

use std::collections::BTreeSet;

use rialto_protocol::effect::Bad;
use rialto_protocol::ids::{ClaimId, PeerId, TaskId};
use rialto_protocol::ledger::record::{Draft, Kind, Signature, Stored};
use rialto_protocol::model::{Claim, Resources};
use rialto_protocol::wire::{self, Message};

use crate::disk::Disk;
use crate::executor::VirtualExecutor;
use capacity::Capacity;
use gangs::Gangs;
use graph::Graph;
use history::History;
use owners::Owners;
use resurrection::Resurrection;
use strict::Strict;
use volumes::Volumes;

/// P1: no machine promises more than it has.
pub const CAPACITY: &str = "capacity";
/// P1: room is free only when the container is gone.
pub const ROOM: &str = "room-freed-last";
/// P2: what was acknowledged is found.
pub const ACKNOWLEDGED: &str = "acknowledged-kept";
/// P3: a record is written by its owner alone, and once.
pub const OWNERS: &str = "owners-only";
/// P4: exactly the wanted tasks run when the faults are gone.
pub const SETTLES: &str = "settles";
/// P4: what was removed or has ended does not come back.
pub const RESURRECTION: &str = "no-resurrection";
/// P4: finished work is not run again.
pub const FINISHED: &str = "finished-stays-finished";
/// P4: everybody holds and believes the same when the faults are gone.
pub const CONVERGENCE: &str = "convergence";
/// An address is one task's, and a subnet one machine's.
pub const ADDRESSES: &str = "addresses-apart";
/// P4: a claim ends on the word of its machine or of a steward.
pub const STEWARDS: &str = "stewards-only";
/// Of a gang no task starts before all are claimed.
pub const GANGS: &str = "gang-atomic";
/// A task with a volume runs where the volume is.
pub const VOLUMES: &str = "volumes-pinned";
/// Nothing starts before what it waits for.
pub const GRAPH: &str = "graph-order";
/// Every instant of a schedule is run, and once where nothing breaks.
pub const INSTANTS: &str = "instants-run";
/// A change leaves as many tasks running as its policy says.
pub const ROLLOUT: &str = "rollout-spares";
/// A change ends.
pub const ROLLOUT_ENDS: &str = "rollout-ends";
/// What waits gets room in the order of its ranks.
pub const PRIORITY: &str = "priority-order";
/// P5: strict work never overlaps.
pub const STRICT: &str = "strict-apart";
/// P7: any surviving subset goes on.
pub const SURVIVORS: &str = "survivors";
/// A law of the brain itself: it neither panics, nor spins, nor answers twice.
pub const BRAIN: &str = "brain";

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant: [`CAPACITY`] and its siblings.
    pub promise: &'static str,
    pub at_ms: u64,
    pub text: String,
}

/// What is watched all the time.
#[derive(Debug)]
pub struct Promises {
    pub capacity: Capacity,
    pub gangs: Gangs,
    pub volumes: Volumes,
    pub graph: Graph,
    pub strict: Strict,
    pub owners: Owners,
    pub history: History,
    resurrection: Resurrection,
    /// Tasks of which a hostile machine said that it had them: whether they ran nobody can know.
    pub forged: BTreeSet<TaskId>,
    violations: Vec<Violation>,
}

impl Promises {
    pub fn new(machines: usize) -> Self {
        Self {
            capacity: Capacity::new(machines),
            gangs: Gangs::default(),
            volumes: Volumes::default(),
            graph: Graph::default(),
            strict: Strict::default(),
            owners: Owners::default(),
            history: History::default(),
            resurrection: Resurrection::default(),
            forged: BTreeSet::new(),
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

    /// Notes what a judge says.
    pub(crate) fn judge(&mut self, promise: &'static str, at_ms: u64, result: Result<(), String>) {
        if let Err(text) = result {
            self.broken(promise, at_ms, text);
        }
    }

    /// A machine signs records of its own.
    pub fn signed(&mut self, at_ms: u64, machine: usize, owner: &PeerId, draft: &Draft, signature: &Signature) {
        let result = self.owners.signed(machine, owner, draft, signature);
        self.judge(OWNERS, at_ms, result);
    }

    /// A machine's own record has become durable.
    pub fn durable(&mut self, at_ms: u64, machine: usize, owner: &PeerId, stored: &Stored, executor: &VirtualExecutor) {
        let result = self.owners.durable(machine, owner, stored);
        self.judge(OWNERS, at_ms, result);
        let record = &stored.record;
        if record.key.kind != Kind::CLAIM {
            return;
        }
        self.gangs.durable(stored);
        let claim = record.value.as_ref().map(|value| wire::decode::<Claim>(value));
        let claim = match claim.transpose() {
            Ok(claim) => claim,
            Err(error) => return self.broken(BRAIN, at_ms, format!("m{machine} writes a claim: {error}")),
        };
        let result = room::durable(machine, &record.key.id, claim.as_ref(), executor);
        self.judge(ROOM, at_ms, result);
        let result = self.resurrection.durable(machine, owner, &record.key.id, claim.as_ref());
        self.judge(RESURRECTION, at_ms, result);
        self.capacity.durable(machine, &record.key.id, claim);
    }

    /// A machine's account, after its durable claims have changed.
    pub fn room(&mut self, at_ms: u64, machine: usize, capacity: &Resources, executor: &VirtualExecutor) {
        let result = self.capacity.check(machine, capacity, executor);
        self.judge(CAPACITY, at_ms, result);
    }

    /// A machine has lost its disk: what it had promised counts for as long as its containers live.
    pub fn renewed(&mut self, machine: usize) {
        self.capacity.renewed(machine);
        self.volumes.forgot(machine);
    }

    /// A machine's disk is what it was once: its owner may use numbers again that it had used.
    pub fn put_back(&mut self, machine: usize, owner: &PeerId, disk: &Disk) {
        self.owners.forked(*owner);
        self.volumes.forgot(machine);
        self.resurrection.forked(*owner);
        self.history.forked(machine);
        self.strict.forked(machine);
        self.capacity.put_back(machine, owner, disk);
    }

    /// A machine says something.
    pub fn sent(&mut self, at_ms: u64, machine: usize, message: &Message) {
        let result = self.owners.sent(machine, message);
        self.judge(OWNERS, at_ms, result);
    }

    /// A container has been made.
    pub fn made(&mut self, at_ms: u64, machine: usize, claim: ClaimId, task: TaskId, attempt: u32) {
        let result = self.capacity.made(machine, claim, &task);
        self.judge(CAPACITY, at_ms, result);
        let result = self.gangs.made(claim);
        self.judge(GANGS, at_ms, result);
        let result = self.graph.made(&task, &self.history, &self.forged);
        self.judge(GRAPH, at_ms, result);
        let result = self.history.made(at_ms, machine, claim, task, attempt);
        self.judge(RESURRECTION, at_ms, result);
    }

    /// A brain reports bad input; in a world of honest peers there is none of most kinds.
    pub fn reported(&mut self, at_ms: u64, machine: usize, from: Option<usize>, what: Bad) {
        if matches!(what, Bad::Signature | Bad::Malformed | Bad::Unreadable | Bad::Inapplicable) {
            let from = from.map_or("somebody".to_string(), |from| format!("m{from}"));
            let text = format!("m{machine} refuses what honest {from} sent: {}", what.name());
            self.broken(BRAIN, at_ms, text);
        }
    }
}
