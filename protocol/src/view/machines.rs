//! Machines, and how this one is.

use std::collections::BTreeMap;

use super::View;
use crate::api::{MachineRow, ResourceRow, Status};
use crate::ids::PeerId;
use crate::ledger::readings::ClaimEntry;
use crate::membership::{Held, State};
use crate::model::resources::{CPU_MILLIS, GPU_PREFIX, GPUS, MEMORY_BYTES};
use crate::model::{ClaimState, Executor, Resources};

impl View<'_> {
    /// Sentences about what is held back.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = self.volume_remarks();
        let Some(Held { sees, of, until_ms }) = self.brain.members.held(self.now) else { return remarks };
        let held = self.held_back();
        if held == 0 {
            return remarks;
        }
        let time = match until_ms {
            Some(until) => format!("for {} s", until.saturating_sub(self.now.ms).div_ceil(1000)),
            None => "until more machines are seen".into(),
        };
        let plural = if held == 1 { "" } else { "s" };
        let way_out = "`rialto machine unfreeze` goes now";
        remarks.push(format!("holding back {held} replacement{plural} {time}: sees {sees} of {of}; {way_out}"));
        remarks
    }

    /// Live claims on machines that are down, whose replacing the gate holds back.
    fn held_back(&self) -> u32 {
        if self.brain.members.held(self.now).is_none() {
            return 0;
        }
        let down = |entry: &&ClaimEntry| {
            !entry.claim.state.has_ended() && self.brain.members.state(&entry.owner) == State::Down
        };
        let gone = self.brain.readings.all_claims().filter(down).count() as u32;
        gone.max(self.brain.stewards.held())
    }

    /// Every machine that is known, by name.
    pub fn machines(&self) -> Vec<MachineRow> {
        let mut rows: Vec<MachineRow> =
            self.brain.readings.machines.keys().filter_map(|peer| self.machine_row(peer)).collect();
        rows.sort_by(|one, two| (&one.name, &one.id).cmp(&(&two.name, &two.id)));
        rows
    }

    fn machine_row(&self, peer: &PeerId) -> Option<MachineRow> {
        let machine = self.brain.readings.machines.get(peer)?;
        let used = self.brain.readings.used(peer);
        let reason = match &machine.executor {
            Executor::None(reason) => Some(reason.clone()),
            _ => None,
        };
        let state = match self.brain.members.state(peer) {
            State::Left => "left",
            State::Down => "down",
            State::Suspect => "suspect",
            State::Alive if reason.is_some() => "no-executor",
            State::Alive if machine.draining => "draining",
            State::Alive => "alive",
        };
        Some(MachineRow {
            name: machine.name.clone(),
            id: peer.hex(),
            state: state.into(),
            address: machine.addresses.first().cloned(),
            cpu_millis: machine.capacity.get(CPU_MILLIS),
            memory_bytes: machine.capacity.get(MEMORY_BYTES),
            cpu_millis_free: machine.capacity.free(used, CPU_MILLIS),
            memory_bytes_free: machine.capacity.free(used, MEMORY_BYTES),
            resources: countable(&machine.capacity, used),
            labels: machine.labels.clone(),
            version: machine.version.clone(),
            age_seconds: self.now.wall.saturating_sub(machine.life_since) / 1000,
            clock_offset_ms: self.brain.clocks.offset_ms(peer),
            reason,
            this: *peer == self.brain.me,
            written: self.brain.complete(peer),
        })
    }

    /// A machine by name, by identity, or by a unique beginning of the identity. Of several of one
    /// name one that lives is meant, and this one before others.
    pub fn machine(&self, name: &str) -> Option<(PeerId, MachineRow)> {
        let machines = &self.brain.readings.machines;
        let rank = |peer: &PeerId| (self.brain.members.state(peer), *peer != self.brain.me, *peer);
        let named = machines.iter().filter(|(_, machine)| machine.name == name).map(|(peer, _)| *peer);
        let peer = named.min_by_key(rank).or_else(|| {
            let mut by_id = machines.keys().filter(|peer| name.len() >= 6 && peer.hex().starts_with(name));
            by_id.next().copied().filter(|_| by_id.next().is_none())
        })?;
        Some((peer, self.machine_row(&peer)?))
    }

    /// The cluster as this peer sees it. Warnings and counts of bad input are the driver's to add.
    pub fn status(&self) -> Status {
        let held = self.brain.members.held(self.now);
        let claims = self.brain.readings.all_claims();
        let running = claims.filter(|entry| entry.claim.state == ClaimState::Running && self.absence(entry).is_none());
        let until = held.and_then(|held| held.until_ms).map(|until| until.saturating_sub(self.now.ms));
        Status {
            cluster_id: self.brain.config.cluster.hex(),
            machine: self.brain.machine_name(&self.brain.me),
            version: self.brain.readings.machines.get(&self.brain.me).map_or(String::new(), |m| m.version.clone()),
            machines_alive: self.members_seen(),
            machines_known: self.brain.members.known_count() as u32,
            tasks_running: running.count() as u32,
            tasks_pending: self.pending(),
            holding_back: self.held_back(),
            holding_back_ms: until,
            warnings: self.remarks().into_iter().chain(self.namesakes()).chain(self.floods()).collect(),
            refused: BTreeMap::new(),
            subnet: self.network_machines().own.map(|(_, subnet)| subnet.to_string()),
            links: Vec::new(),
        }
    }

    /// Sentences about machines that write more than anybody takes of one.
    fn floods(&self) -> Vec<String> {
        let flood = |(peer, refused): (PeerId, u64)| {
            let name = self.brain.machine_name(&peer);
            format!(
                "{name} writes more than its budget: {refused} of its messages were refused lately, and not handed on"
            )
        };
        self.brain.over_budget(self.now).map(flood).collect()
    }

    /// Sentences about machines that nobody can tell apart by name.
    fn namesakes(&self) -> Vec<String> {
        let mut names: BTreeMap<&str, u32> = BTreeMap::new();
        let members = self.brain.readings.machines.iter();
        for (_, machine) in members.filter(|(peer, _)| self.brain.members.state(peer) <= State::Suspect) {
            *names.entry(&machine.name).or_default() += 1;
        }
        let shared = names.into_iter().filter(|(_, count)| *count > 1);
        shared.map(|(name, count)| format!("{count} machines are called {name}: give each its own --name")).collect()
    }
}

/// What a machine has beside cores and memory: its GPUs, counted together, and what it counts itself.
fn countable(capacity: &Resources, used: &Resources) -> Vec<ResourceRow> {
    let row = |name: &str, total, free| ResourceRow { name: name.to_string(), total, free };
    let gpus = capacity.gpus(used).count() as u64;
    let own = capacity
        .0
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), CPU_MILLIS | MEMORY_BYTES) && !name.starts_with(GPU_PREFIX));
    let gpus = (gpus > 0).then(|| row(GPUS, gpus, capacity.free(used, GPUS)));
    gpus.into_iter().chain(own.map(|(name, total)| row(name, *total, capacity.free(used, name)))).collect()
}
