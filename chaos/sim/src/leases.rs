//! A lock group for the virtual world, and the keepers of leases that ask it.
//!
//! The keepers are those that ship. The group is a model: one store that never forgets, served where a machine reaches a
//! peer that reaches most of the others; its leases end by the clock of whoever leads, and have their whole time anew when
//! another does. That the real one is as good as that is for its own simulator to show.

use std::collections::BTreeMap;

use rialto_protocol::Event;
use rialto_protocol::ids::ClaimId;
use rialto_protocol::lease::{Act, Answer, Ask, Keeper, Need, Word, kill_at, term_at};
use rialto_protocol::model::{Guard, TaskSpec};

use crate::executor::Course;
use crate::plants::Plant;
use crate::world::{Happening, World};

/// What is not answered by then is given up, µs.
const PATIENCE_US: u64 = 2_000_000;
/// How long a paused daemon is left alone before it is looked at again, µs.
const PAUSED_US: u64 = 50_000;

/// One lease as its group has it.
#[derive(Debug)]
struct Lease {
    ends_us: u64,
    ttl_us: u64,
}

#[derive(Debug)]
struct Place {
    lease: i64,
    token: i64,
    holder: String,
}

/// The group's store, and who leads it.
#[derive(Debug, Default)]
pub struct LockGroup {
    leader: Option<usize>,
    revision: i64,
    leases: BTreeMap<i64, Lease>,
    queues: BTreeMap<String, Vec<Place>>,
    runs: BTreeMap<(String, String), (i64, String)>,
    floors: BTreeMap<String, String>,
}

/// The keepers of one daemon: they die with it.
#[derive(Debug, Default)]
pub struct Keepers {
    of: BTreeMap<ClaimId, Kept>,
    last: u64,
}

#[derive(Debug)]
struct Kept {
    keeper: Keeper,
    /// The question that is on its way.
    number: u64,
    /// Until when the task may run, by the machine's clock, ms.
    until_ms: Option<u64>,
}

impl Keepers {
    pub fn until_of(&self, claim: &ClaimId) -> Option<u64> {
        self.of.get(claim)?.until_ms
    }
}

impl LockGroup {
    fn expire(&mut self, now_us: u64) {
        let over: Vec<i64> =
            self.leases.iter().filter(|(_, lease)| lease.ends_us <= now_us).map(|(id, _)| *id).collect();
        over.into_iter().for_each(|lease| self.revoke(lease));
    }

    fn revoke(&mut self, lease: i64) {
        self.leases.remove(&lease);
        self.queues.values_mut().for_each(|queue| queue.retain(|place| place.lease != lease));
    }

    fn answer(&mut self, now_us: u64, rate: f64, ask: &Ask) -> Answer {
        self.expire(now_us);
        self.revision += 1;
        let revision = self.revision;
        match ask {
            Ask::Grant { lease, .. } if self.leases.contains_key(lease) => Answer::Exists,
            Ask::Grant { lease, ttl_seconds } => {
                let ttl_us = (*ttl_seconds as f64 * 1e6 / rate) as u64;
                self.leases.insert(*lease, Lease { ends_us: now_us + ttl_us, ttl_us });
                Answer::Lives
            }
            Ask::Renew { lease } => match self.leases.get_mut(lease) {
                Some(held) => {
                    held.ends_us = now_us + held.ttl_us;
                    Answer::Lives
                }
                None => Answer::Gone,
            },
            Ask::Enqueue { lease, .. } if !self.leases.contains_key(lease) => Answer::Gone,
            Ask::Enqueue { name, lease, holder } => {
                let queue = self.queues.entry(name.clone()).or_default();
                if let Some(place) = queue.iter().find(|place| place.lease == *lease) {
                    return Answer::Placed { token: place.token };
                }
                queue.push(Place { lease: *lease, token: revision, holder: holder.clone() });
                Answer::Placed { token: revision }
            }
            Ask::Await { name, lease, token, .. } => {
                let queue = self.queues.get(name).map_or(&[][..], Vec::as_slice);
                match queue.iter().position(|place| (place.lease, place.token) == (*lease, *token)) {
                    None => Answer::Gone,
                    Some(0) => Answer::First,
                    Some(_) => Answer::Behind { holder: queue[0].holder.clone() },
                }
            }
            Ask::Revoke { lease } => {
                self.revoke(*lease);
                Answer::Gone
            }
            Ask::Claim { name, run, floor, holder } => {
                let key = (name.clone(), run.clone());
                if let Some((token, by)) = self.runs.get(&key) {
                    return if by == holder {
                        Answer::Mine { token: *token }
                    } else {
                        Answer::Taken { by: by.clone() }
                    };
                }
                let held = self.floors.entry(name.clone()).or_default();
                if floor.is_some() && *run <= *held {
                    return Answer::Taken { by: "nobody knows any more".into() };
                }
                if let Some(floor) = floor.as_ref().filter(|floor| **floor > *held) {
                    *held = floor.clone();
                    let floor = held.clone();
                    self.runs.retain(|(other, run), _| other != name || *run > floor);
                }
                self.runs.insert(key, (revision, holder.clone()));
                Answer::Mine { token: revision }
            }
        }
    }
}

impl World {
    pub(super) fn acquire(&mut self, machine: usize, claim: ClaimId, need: Need) {
        let now_ms = self.machines[machine].now(self.now_us).ms;
        let mut keeper = Keeper::new(&claim, need);
        let acts = keeper.turn(now_ms);
        self.machines[machine].keepers.of.insert(claim, Kept { keeper, number: 0, until_ms: None });
        self.keeper_acts(machine, claim, acts);
    }

    pub(super) fn release(&mut self, machine: usize, claim: ClaimId) {
        let now_ms = self.machines[machine].now(self.now_us).ms;
        let Some(kept) = self.machines[machine].keepers.of.get_mut(&claim) else { return };
        kept.number = 0;
        let acts = kept.keeper.release(now_ms);
        self.keeper_acts(machine, claim, acts);
    }

    fn keeper_acts(&mut self, machine: usize, claim: ClaimId, acts: Vec<Act>) {
        let process = self.machines[machine].process;
        for act in acts {
            match act {
                Act::Ask(ask) => {
                    let keepers = &mut self.machines[machine].keepers;
                    keepers.last += 1;
                    let number = keepers.last;
                    let Some(kept) = keepers.of.get_mut(&claim) else { return };
                    kept.number = number;
                    let at_us = self.now_us + self.network.delay();
                    self.schedule(at_us, Happening::Asked { machine, process, claim, number, ask });
                }
                Act::Until(until_ms) => {
                    if let Some(kept) = self.machines[machine].keepers.of.get_mut(&claim) {
                        kept.until_ms = Some(until_ms);
                    }
                    self.lease_until(machine, claim, until_ms);
                }
                Act::Say(Word::Lost(_)) if self.plant == Some(Plant::EndlessLeases) => {}
                Act::Say(word) => {
                    let at_us = self.now_us + 1 + self.dice.exponential(100);
                    self.schedule(at_us, Happening::Tell { machine, process, event: Event::Lease { claim, word } });
                }
            }
        }
        let Some(kept) = self.machines[machine].keepers.of.get(&claim) else { return };
        if kept.keeper.is_over() {
            self.machines[machine].keepers.of.remove(&claim);
        } else if let Some(due_ms) = kept.keeper.next_deadline() {
            let at_us = self.machines[machine].world_us(due_ms).max(self.now_us + 1);
            self.schedule(at_us, Happening::Keep { machine, process, claim, due_ms });
        }
    }

    /// A keeper's time has come.
    pub(super) fn keep(&mut self, machine: usize, process: u64, claim: ClaimId, due_ms: u64) {
        let target = &mut self.machines[machine];
        let Some(kept) = target.keepers.of.get(&claim).filter(|_| target.process == process) else { return };
        if kept.keeper.next_deadline() != Some(due_ms) {
            return;
        }
        if target.paused {
            return self.schedule(self.now_us + PAUSED_US, Happening::Keep { machine, process, claim, due_ms });
        }
        let now_ms = target.now(self.now_us).ms;
        let Some(kept) = target.keepers.of.get_mut(&claim) else { return };
        let acts = kept.keeper.turn(now_ms);
        self.keeper_acts(machine, claim, acts);
    }

    /// A question reaches the group; or does not.
    pub(super) fn asked(&mut self, machine: usize, process: u64, claim: ClaimId, number: u64, ask: Ask) {
        let sent = self.machines[machine].process == process;
        let lost = self.network.dice.chance(self.network.weather.loss);
        let leader = self.leader_for(machine).filter(|_| sent && !lost);
        let Some(leader) = leader else {
            let answer = Err("too few voters can be reached".into());
            let at_us = self.now_us + PATIENCE_US;
            return self.schedule(at_us, Happening::Answered { machine, process, claim, number, answer });
        };
        let rate = (1_000_000 + self.machines[leader].drift_ppm) as f64 / 1e6;
        let answer = self.locks.answer(self.now_us, rate, &ask);
        let waits_us = match (&ask, &answer) {
            (Ask::Await { wait_ms, .. }, Answer::Behind { .. }) => wait_ms * 1000,
            _ => 0,
        };
        // What it did it has done, whether that is heard or not.
        let lost = self.network.dice.chance(self.network.weather.loss);
        let (after_us, answer) = match lost {
            true => (PATIENCE_US, Err("no answer came".into())),
            false => (waits_us + self.network.delay(), Ok(answer)),
        };
        self.schedule(self.now_us + after_us, Happening::Answered { machine, process, claim, number, answer });
    }

    pub(super) fn lease_answered(
        &mut self,
        machine: usize,
        process: u64,
        claim: ClaimId,
        number: u64,
        answer: Result<Answer, String>,
    ) {
        let target = &mut self.machines[machine];
        if target.process != process {
            return;
        }
        if target.paused {
            let at_us = self.now_us + PAUSED_US;
            return self.schedule(at_us, Happening::Answered { machine, process, claim, number, answer });
        }
        let now_ms = target.now(self.now_us).ms;
        let Some(kept) = target.keepers.of.get_mut(&claim).filter(|kept| kept.number == number) else { return };
        let acts = kept.keeper.answered(now_ms, answer);
        self.keeper_acts(machine, claim, acts);
    }

    fn lock_voters(&self) -> Vec<usize> {
        let votes = |at: &usize| self.machines[*at].joined && self.machines[*at].belongs();
        (0..self.machines.len()).filter(votes).collect()
    }

    /// Whether a machine reaches most of those who vote.
    fn may_lead_locks(&self, at: usize, voters: &[usize]) -> bool {
        let serves = |at: usize| self.machines[at].answers();
        let reaches = |to: usize| at == to || self.network.open_both(at, to);
        let behind = voters.iter().filter(|to| serves(**to) && reaches(**to)).count();
        serves(at) && 2 * behind > voters.len()
    }

    /// Whether somebody can grant leases: what runs under one waits where nobody can.
    pub fn grants_leases(&self) -> bool {
        let voters = self.lock_voters();
        voters.iter().any(|at| self.may_lead_locks(*at, &voters))
    }

    /// Whoever leads the group, if this machine reaches it.
    fn leader_for(&mut self, machine: usize) -> Option<usize> {
        let voters = self.lock_voters();
        let reaches = |from: usize, to: usize| from == to || self.network.open_both(from, to);
        let leads = |at: usize| self.may_lead_locks(at, &voters);
        let leader =
            self.locks.leader.filter(|at| leads(*at)).or_else(|| voters.iter().copied().find(|at| leads(*at)))?;
        if self.locks.leader != Some(leader) {
            self.locks.expire(self.now_us);
            self.locks.leader = Some(leader);
            // Whoever begins to lead cannot know when the one before it renewed which.
            let now_us = self.now_us;
            self.locks.leases.values_mut().for_each(|lease| lease.ends_us = lease.ends_us.max(now_us + lease.ttl_us));
        }
        reaches(machine, leader).then_some(leader)
    }

    /// Whether a task that needs a lease has one, for long enough to start it.
    pub(super) fn may_run(&self, machine: usize, claim: &ClaimId, spec: &TaskSpec) -> bool {
        let target = &self.machines[machine];
        let is_free =
            spec.guard != Some(Guard::Lease) || self.plant.is_some() || target.executor.live.contains_key(claim);
        is_free || target.keepers.until_of(claim).is_some_and(|until| kill_at(until) > target.now(self.now_us).ms)
    }

    /// The shim of a task hears until when it may run; the task is ended by then.
    pub(super) fn lease_until(&mut self, machine: usize, claim: ClaimId, until_ms: u64) {
        let target = &mut self.machines[machine];
        let Some(container) = target.executor.live.get_mut(&claim) else { return };
        container.until_ms = Some(until_ms);
        let grace_ms = container.spec.grace_ms;
        if self.plant == Some(Plant::EndlessLeases) {
            return;
        }
        let boot = target.boot;
        for (at_ms, kill) in [(term_at(until_ms, grace_ms), false), (kill_at(until_ms), true)] {
            let at_us = self.machines[machine].world_us(at_ms).max(self.now_us);
            let course = Course::Expire { until_ms, kill };
            self.schedule(at_us, Happening::Course { machine, boot, claim, course });
        }
    }
}
