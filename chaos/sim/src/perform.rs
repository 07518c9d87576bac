//! What the virtual driver does about each effect.

use std::sync::Arc;

use rialto_protocol::effect::{Local, StoreOp};
use rialto_protocol::ids::{ChangeId, ClaimId, PeerId};
use rialto_protocol::ledger::record::{Draft, Kind, RecordKey};
use rialto_protocol::wire::{self, Message};
use rialto_protocol::{Effect, Event};

use crate::disk::{Then, Transaction};
use crate::executor::{Course, Todo};
use crate::invariants::usurpers::Usurped;
use crate::invariants::{OWNERS, STEWARDS, STRICT, VOLUMES};
use crate::machine::Asker;
use crate::network::Network;
use crate::plants::Plant;
use crate::world::{Answer, Happening, World};

impl World {
    pub(super) fn perform(&mut self, machine: usize, effects: Vec<Effect>) {
        for effect in effects {
            if self.trace.print {
                crate::narrate::effect(&self.trace, self.now_us, &self.machines[machine].name, &effect);
            }
            match effect {
                Effect::Send { to, message } => self.send(machine, &to, message),
                Effect::Commit { commit, drafts, local } => self.commit(machine, commit, drafts, local),
                Effect::Store { ops, token } => self.store(machine, ops, token),
                Effect::SignVitals { vitals } => {
                    let owner = self.machines[machine].id;
                    let signature = self.signer.sign(&owner, &wire::vitals_to_sign(&owner, &vitals));
                    self.tell_soon(machine, 50, Event::VitalsSigned { counter: vitals.counter, signature });
                }
                Effect::Links { peers } => self.wants(machine, peers.iter().map(|(peer, _)| *peer)),
                Effect::Members { peers } => self.members(machine, peers.iter().map(|(peer, _)| *peer)),
                Effect::Start { claim, spec } => self.start_container(machine, claim, spec),
                Effect::Stop { claim, grace_ms } => {
                    if self.plant != Some(Plant::IgnoreStops) {
                        let todo = self.machines[machine].executor.stop(claim, grace_ms);
                        self.container_todo(machine, claim, todo);
                    }
                }
                Effect::Acquire { claim, need } => self.acquire(machine, claim, need),
                Effect::Release { claim } => self.release(machine, claim),
                Effect::Forget { claim } => self.machines[machine].executor.forget(claim),
                Effect::Reply { request, reply } => match self.machines[machine].asked.remove(&request) {
                    Some(Asker::Outside { ticket, change }) => {
                        let holders = change.map(|change| self.holders(change)).unwrap_or_default();
                        self.answers.push_back(Answer { ticket, machine, reply, holders });
                    }
                    Some(Asker::Driver) => {}
                    Some(asker) => self.joining_answered(machine, asker, reply),
                    None => {
                        let text =
                            format!("m{machine} answers request {request}, which nobody made or it has answered");
                        self.promises.broken("brain", self.now_us / 1000, text);
                    }
                },
                Effect::Report { peer, what } => {
                    *self.counts.refused.entry(what.name()).or_default() += 1;
                    let from = peer.and_then(|peer| self.machine_of(&peer));
                    if from.is_none_or(|from| self.machines[from].hostile.is_none()) {
                        self.promises.reported(self.now_us / 1000, machine, from, what);
                    }
                }
                Effect::Changed { .. } | Effect::Note { .. } => {}
                Effect::Retire { reason } => {
                    if !self.promises.owners.is_forked(&self.machines[machine].id) {
                        let text = format!("m{machine} retires though nobody else wrote in its name: {reason}");
                        self.promises.broken(OWNERS, self.now_us / 1000, text);
                    }
                    let process = self.machines[machine].process;
                    self.schedule(self.now_us, Happening::Retired { machine, process });
                }
            }
        }
    }

    /// The machines whose disks hold a change, or held it until they died, whoever wrote it.
    fn holders(&self, change: ChangeId) -> Vec<usize> {
        let key = RecordKey { kind: Kind::CHANGE, id: change.hex().into() };
        let holds = |at: &usize| {
            let records = &self.machines[*at].disk.records;
            self.at.keys().any(|owner| records.contains_key(&(*owner, key.clone())))
        };
        (0..self.machines.len()).filter(holds).collect()
    }

    fn tell_soon(&mut self, machine: usize, mean_us: u64, event: Event) {
        let process = self.machines[machine].process;
        let at_us = self.now_us + 1 + self.dice.exponential(mean_us);
        self.schedule(at_us, Happening::Tell { machine, process, event });
    }

    fn send(&mut self, from: usize, to: &PeerId, message: Message) {
        self.counts.messages += 1;
        let Some(to) = self.current(to) else { return };
        self.promises.sent(self.now_us / 1000, from, &message);
        if self.machines[to].hostile.is_some() && self.network.open_both(from, to) {
            return self.hostile_hears(to, from, &message);
        }
        if let Message::Frame(frame) = &message
            && self.network.holes.contains(&frame.owner)
        {
            return;
        }
        if from == to || !self.machines[to].is_up() || !self.network.open(from, to) {
            return;
        }
        let pair = Network::pair(from, to);
        let side = usize::from(from == pair.1);
        let standing = self.network.links.get(&pair).is_some_and(|link| link.standing && link.told[side]);
        // Without a standing link a connection is made, and a handshake needs both ways.
        if !standing && !self.network.open_both(from, to) {
            return;
        }
        let process = self.machines[to].process;
        let [first, second] = self.network.fate(self.now_us, from, to, !standing);
        if let Some(again) = second {
            self.schedule(again, Happening::Deliver { from, to, process, message: message.clone() });
        }
        if let Some(arrival) = first {
            self.schedule(arrival, Happening::Deliver { from, to, process, message });
        }
    }

    pub(super) fn deliver(&mut self, from: usize, to: usize, process: u64, message: Message) {
        let target = &self.machines[to];
        let speaks = target.members.contains(&from) && self.machines[from].members.contains(&to);
        // A sender that has crashed meanwhile has forgotten its members, but what it sent is on its way.
        let speaks = speaks || target.members.contains(&from) && !self.machines[from].is_up();
        if target.process != process || !self.network.open(from, to) || !speaks {
            return;
        }
        let (hostile, from) = (self.machines[from].hostile.is_some(), self.machines[from].id);
        let target = &self.machines[to];
        let now = target.now(self.now_us);
        let listening = target.brain.as_ref().filter(|_| hostile && !target.paused);
        let usurped = listening.and_then(|brain| Usurped::by(brain, now, &from, &message));
        self.feed(to, Event::Received { from, message, verified: false });
        if let (Some(usurped), Some(brain)) = (usurped, &self.machines[to].brain) {
            self.promises.judge(STEWARDS, self.now_us / 1000, usurped.judge(to, brain, now));
        }
    }

    fn commit(&mut self, machine: usize, commit: u64, drafts: Vec<Draft>, local: Vec<Local>) {
        self.counts.commits += 1;
        let target = &mut self.machines[machine];
        if let Some(other) = target.commit.replace(commit) {
            let text = format!("m{machine} begins commit {commit} while {other} is under way");
            self.promises.broken("brain", self.now_us / 1000, text);
        }
        let owner = target.id;
        let mut ops: Vec<StoreOp> = Vec::new();
        let mut signatures = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let digest = draft.to_sign();
            self.trace.mix_bytes(&digest);
            let signature = self.signer.sign(&owner, &digest);
            self.promises.signed(self.now_us / 1000, machine, &owner, &draft, &signature);
            signatures.push(signature);
            let (_, stored) = draft.seal(signature);
            ops.extend(stored.into_iter().map(StoreOp::Put));
        }
        ops.extend(local.into_iter().map(StoreOp::Local));
        if self.plant == Some(Plant::ForgetCommits) && commit.is_multiple_of(16) {
            ops.clear();
        }
        let target = &mut self.machines[machine];
        let number = target.disk.write(ops, Then::Committed { commit, signatures });
        self.flush_after(machine, number, 100, 5_000);
    }

    fn store(&mut self, machine: usize, ops: Vec<StoreOp>, token: Option<u64>) {
        let then = token.map_or(Then::Nothing, |token| Then::Stored { token });
        let (low, high) = if token.is_some() { (100, 5_000) } else { (1_000, 1_000_000) };
        self.promises.volumes.heard(self.now_us / 1000, machine, &ops);
        let number = self.machines[machine].disk.write(ops, then);
        self.flush_after(machine, number, low, high);
    }

    fn flush_after(&mut self, machine: usize, number: u64, low_us: u64, high_us: u64) {
        let process = self.machines[machine].process;
        let at_us = self.now_us + self.dice.between(low_us, high_us);
        self.schedule(at_us, Happening::Durable { machine, process, number });
    }

    pub(super) fn durable(&mut self, machine: usize, process: u64, number: u64) {
        if self.machines[machine].process != process {
            return;
        }
        if self.machines[machine].full && self.machines[machine].disk.is_pending(number) {
            return self.write_failed(machine);
        }
        let done = self.machines[machine].disk.flush(number);
        self.arrived(machine, &done);
        for transaction in done {
            match transaction.then {
                Then::Nothing => {}
                Then::Committed { commit, signatures } => {
                    self.machines[machine].commit = None;
                    self.feed(machine, Event::Committed { commit, signatures });
                }
                Then::Stored { token } => self.feed(machine, Event::Stored { token }),
            }
        }
    }

    /// The promises look at what has become durable.
    pub(super) fn arrived(&mut self, machine: usize, transactions: &[Transaction]) {
        let now_ms = self.now_us / 1000;
        let owner = self.machines[machine].id;
        for transaction in transactions {
            let own = matches!(transaction.then, Then::Committed { .. });
            for op in &transaction.ops {
                if let StoreOp::Put(stored) = op
                    && own
                {
                    self.promises.durable(now_ms, machine, &owner, stored, &self.machines[machine].executor);
                }
            }
            if own {
                let target = &self.machines[machine];
                self.promises.room(now_ms, machine, &target.capacity, &target.executor);
            }
        }
    }

    fn start_container(&mut self, machine: usize, claim: ClaimId, spec: Arc<rialto_protocol::model::TaskSpec>) {
        let wall = self.machines[machine].wall(self.now_us);
        let task = spec.task.clone();
        let attempt = spec.attempt;
        let todo = match self.may_run(machine, &claim, &spec) {
            true => self.machines[machine].executor.start(claim, spec.clone(), wall),
            false => self.machines[machine].executor.refuse(claim, "its lease ended before it could start"),
        };
        if todo.made {
            self.counts.containers += 1;
            let now_ms = self.now_us / 1000;
            self.promises.made(now_ms, machine, claim, task, attempt);
            let (me, disk) = (self.machines[machine].id, &self.machines[machine].disk);
            let result = self.promises.volumes.made(now_ms, machine, me, disk, &spec);
            self.promises.judge(VOLUMES, now_ms, result);
            let result = self.promises.strict.made(machine, claim, &spec);
            self.promises.judge(STRICT, now_ms, result);
            if let Some(until_ms) = self.machines[machine].keepers.until_of(&claim) {
                self.lease_until(machine, claim, until_ms);
            }
        }
        self.container_todo(machine, claim, todo);
    }

    fn container_todo(&mut self, machine: usize, claim: ClaimId, todo: Todo) {
        if let Some(report) = todo.report {
            self.tell_soon(machine, 300, Event::Task { claim, report });
        }
        if let Some((after_us, course)) = todo.later {
            let boot = self.machines[machine].boot;
            self.schedule(self.now_us + after_us, Happening::Course { machine, boot, claim, course });
        }
    }

    pub(super) fn container_moves(&mut self, machine: usize, boot: u64, claim: ClaimId, course: Course) {
        let wall = self.machines[machine].wall(self.now_us);
        let target = &mut self.machines[machine];
        if target.boot != boot {
            return;
        }
        match course {
            Course::Run => {
                let todo = target.executor.run(claim, wall);
                self.container_todo(machine, claim, todo);
            }
            Course::Expire { until_ms, kill } => {
                let todo = target.executor.expire(claim, until_ms, kill);
                self.container_todo(machine, claim, todo);
            }
            Course::End { code } => {
                if let Some(report) = target.executor.end(claim, code, wall) {
                    self.promises.history.ended(claim, self.now_us / 1000, code);
                    self.promises.strict.gone(&claim);
                    self.tell_soon(machine, 300, Event::Task { claim, report });
                }
            }
        }
    }
}
