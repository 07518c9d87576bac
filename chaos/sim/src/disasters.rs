//! What happens to disks and to identities: a disk that is full, torn, put back to an earlier state
//! or lost, and a machine that an administrator has expelled.
//!
//! The store makes one promise, that a transaction is there whole or not at all; so what a crash
//! tears is the group of transactions on its way. A store that is torn beyond that does not open,
//! and then its machine has lost its disk: people move the folder away and have it join anew.

use std::collections::BTreeSet;

use rialto_protocol::event::Request;

use crate::disk::Disk;
use crate::world::{Happening, World};

/// The supervisor starts a daemon that has failed again after this, µs.
const RESTART_US: u64 = 1_000_000;
/// At so many peers an administrator gives an order that must not be lost.
const ORDERED_AT: usize = 3;
/// Tickets of orders that nobody waits for.
const NOBODY: u64 = u64::MAX;

impl World {
    /// Nothing more can be written: the daemon dies of its next commit, and is started again and again.
    pub fn fill(&mut self, machine: usize) {
        self.machines[machine].full = true;
        self.trace.line(self.now_us, || format!("m{machine}'s disk is full"));
    }

    /// There is room on the disk again.
    pub fn make_room(&mut self, machine: usize) {
        self.machines[machine].full = false;
    }

    /// A write has failed: the driver ends, as the real one does, and the group is lost.
    pub(super) fn write_failed(&mut self, machine: usize) {
        self.crash_keeping(machine, false, 0);
        self.schedule(self.now_us + RESTART_US, Happening::Start { machine });
    }

    /// Power fails in the middle of a commit: the whole group on its way is lost. `broken`: so is
    /// the store.
    pub fn tear(&mut self, machine: usize, broken: bool) {
        if broken {
            self.lose_disk(machine, true);
        } else {
            self.crash_keeping(machine, true, 0);
        }
    }

    /// Somebody takes a copy of the disk.
    pub fn take_snapshot(&mut self, machine: usize) {
        let target = &mut self.machines[machine];
        if target.joined && target.hostile.is_none() {
            target.snapshot = Some(target.disk.clone());
        }
    }

    /// The machine is switched off and gets back the copy of its disk; true where there is one.
    pub fn put_back(&mut self, machine: usize) -> bool {
        if !self.machines[machine].belongs() {
            return false;
        }
        let Some(snapshot) = self.machines[machine].snapshot.take() else { return false };
        self.crash_keeping(machine, true, 0);
        let target = &mut self.machines[machine];
        self.promises.put_back(machine, &target.id, &snapshot);
        target.disk = snapshot.crashed();
        target.executor.exits.clear();
        target.disk_lost_ms = Some(self.now_us / 1000);
        self.trace.line(self.now_us, || format!("m{machine}'s disk is what it was once"));
        true
    }

    /// The disk is gone, and with it the identity: the machine joins anew. `power`: its containers
    /// are gone, too; otherwise they live on and are found.
    pub fn lose_disk(&mut self, machine: usize, power: bool) {
        if !self.machines[machine].belongs() || !self.machines[machine].joined {
            return;
        }
        self.crash_keeping(machine, power, 0);
        self.renew(machine);
        let at_ms = self.now_ms() + self.dice.between(1_000, 10_000);
        self.join(machine, at_ms);
    }

    /// An identity must write no more: people move its folder away and have the machine join anew.
    pub(super) fn retire(&mut self, machine: usize, process: u64) {
        if self.machines[machine].process == process {
            self.lose_disk(machine, false);
        }
    }

    fn renew(&mut self, machine: usize) {
        let id = rialto_protocol::ids::PeerId(self.dice.bytes());
        let target = &mut self.machines[machine];
        self.trace.line(self.now_us, || format!("m{machine} has lost {} and is {id} from now on", target.id));
        self.promises.renewed(machine);
        target.id = id;
        target.disk = Disk::default();
        target.snapshot = None;
        target.executor.exits.clear();
        target.disk_lost_ms = Some(self.now_us / 1000);
        target.joined = false;
        target.founding = None;
        target.chain.clear();
        self.at.insert(id, machine);
        for other in &mut self.machines {
            other.members.remove(&machine);
            other.wants.remove(&machine);
        }
    }

    /// An administrator orders that a machine is a member no more, at a few peers: one of them may be about to find out
    /// that its disk is an old one, and answer nothing.
    pub fn depart(&mut self, machine: usize) {
        let able = |at: &usize| *at != machine && self.machines[*at].serves() && self.machines[*at].belongs();
        let mut able: Vec<usize> = (0..self.machines.len()).filter(able).collect();
        while able.len() > ORDERED_AT {
            let at = self.dice.below(able.len() as u64) as usize;
            able.swap_remove(at);
        }
        let target = &mut self.machines[machine];
        if !target.joined || able.is_empty() {
            return;
        }
        target.departed = true;
        target.disk_lost_ms = Some(self.now_us / 1000);
        let peer = target.id;
        for by in able {
            self.ask(by, NOBODY, Request::Depart { peer, force: true, last: None });
        }
    }

    /// The machine of somebody who means ill, from now on.
    pub fn turn_hostile(&mut self, machine: usize) {
        let target = &self.machines[machine];
        if !target.joined || !target.belongs() {
            return;
        }
        let id = target.id;
        self.crash_keeping(machine, true, 0);
        let last = self.promises.owners.last(&id);
        self.promises.renewed(machine);
        let target = &mut self.machines[machine];
        target.members = BTreeSet::from_iter(0..self.at.len());
        target.disk_lost_ms = Some(self.now_us / 1000);
        target.hostile = Some(crate::hostile::Hostile::new(target.id, last, self.dice.number()));
        self.trace.line(self.now_us, || format!("m{machine} turns hostile"));
        self.schedule(self.now_us + 1, Happening::Mischief { machine });
    }
}
