//! What the network of tasks should be like, as one peer believes: who has which subnet, which addresses stand behind
//! a service, who may speak to whom. The peer's adapter makes its kernel so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::ids::{AppId, ClaimId, PeerId};
use crate::ledger::readings::ClaimEntry;
use crate::membership::State;
use crate::model::{ClaimState, PortBinding, Range, Subnet};
use crate::view::View;

/// A machine with tasks that have addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineNet {
    pub peer: PeerId,
    pub name: String,
    pub subnet: Subnet,
    /// `IP:PORT` of its peer.
    pub addresses: Vec<String>,
}

/// All machines of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machines {
    /// This machine's; `None` while it has none.
    pub own: Option<(Range, Subnet)>,
    /// The others that are not down, by identity.
    pub others: Vec<MachineNet>,
}

/// One app's part of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppNet {
    pub services: Vec<ServiceNet>,
    /// The addresses of tasks that may speak to each other, by the network's name.
    pub members: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    /// Its tasks on this machine.
    pub here: Vec<TaskNet>,
}

/// A service and what stands behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceNet {
    pub name: String,
    /// The virtual one.
    pub address: Option<Ipv4Addr>,
    /// Its tasks that answer, anywhere: sorted.
    pub tasks: Vec<Ipv4Addr>,
    /// Ports that every machine publishes: the number there, the protocol, the tasks' own.
    pub ingress: Vec<(u16, String, u16)>,
}

/// A task of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskNet {
    pub claim: ClaimId,
    pub address: Ipv4Addr,
    /// Names of the networks that it is in.
    pub networks: Vec<String>,
    /// Ports that this machine lends it, while it answers.
    pub lent: Vec<PortBinding>,
}

impl View<'_> {
    /// The machines of the network.
    pub fn network_machines(&self) -> Machines {
        let readings = &self.brain.readings;
        let own = readings.machines.get(&self.brain.me).and_then(|own| own.network);
        let others = readings.machines.iter().filter_map(|(peer, machine)| {
            let subnet = machine.network?.subnet?;
            let is_its_own = readings.owner_of(subnet) == Some(*peer) && *peer != self.brain.me;
            let is_there = self.brain.members.state(peer) <= State::Suspect;
            (is_its_own && is_there).then(|| MachineNet {
                peer: *peer,
                name: machine.name.clone(),
                subnet,
                addresses: machine.addresses.clone(),
            })
        });
        Machines { own: own.and_then(|own| Some((own.range, own.subnet?))), others: others.collect() }
    }

    /// Apps by name: the ones that are named, or all. Of one that is named and not there, there is nothing.
    pub fn network_apps(&self, only: Option<&BTreeSet<String>>) -> BTreeMap<String, AppNet> {
        let mut apps: BTreeMap<String, AppNet> = BTreeMap::new();
        let wanted = |app: &&AppId| only.is_none_or(|only| only.contains(&app.name));
        for app in self.brain.readings.claims.keys().filter(wanted) {
            self.add_members(app, apps.entry(app.name.clone()).or_default());
        }
        for (app, document) in self.living() {
            for (name, service) in document.spec.services.iter().filter(|_| wanted(&app)) {
                // Most runs have nothing that others could reach.
                if service.address.is_none() && service.ingress().next().is_none() {
                    continue;
                }
                let net = apps.entry(app.name.clone()).or_default();
                let ingress =
                    service.ingress().map(|(port, protocol, own)| (port, protocol.to_string(), own)).collect();
                let tasks = self.answering(app, name).into_iter().filter_map(|entry| entry.claim.address);
                let mut tasks: Vec<Ipv4Addr> = tasks.collect();
                tasks.sort_unstable();
                tasks.dedup();
                net.services.push(ServiceNet { name: name.clone(), address: service.address, tasks, ingress });
            }
        }
        apps
    }

    fn add_members(&self, app: &AppId, net: &mut AppNet) {
        let services = self.brain.readings.claims.get(app);
        let claims = services.into_iter().flat_map(|services| services.values()).flat_map(|slots| slots.values());
        for entry in claims.flatten() {
            let claim = &entry.claim;
            let Some(address) = claim.address.filter(|_| !claim.state.has_ended()) else { continue };
            if self.brain.members.state(&entry.owner) > State::Suspect {
                continue;
            }
            let document = self.brain.documents.get(app);
            let service = document.and_then(|document| document.spec.services.get(&claim.task.service));
            let shared = service.into_iter().flat_map(|service| &service.networks).map(|name| format!("shared {name}"));
            let networks: Vec<String> = std::iter::once(format!("app {}", app.name)).chain(shared).collect();
            for network in &networks {
                net.members.entry(network.clone()).or_default().insert(address);
            }
            if entry.owner == self.brain.me {
                let lent = claim.ports.iter().filter(|port| !port.ingress && runs(entry)).cloned().collect();
                net.here.push(TaskNet { claim: claim.id, address, networks, lent });
            }
        }
        net.here.sort_by_key(|task| task.address);
    }

    /// The claims of a service that requests may be sent to: those on suspect machines, and those that are not healthy,
    /// only while there are no others.
    pub(crate) fn answering(&self, app: &AppId, service: &str) -> Vec<&ClaimEntry> {
        let (mut sure, mut doubtful) = (Vec::new(), Vec::new());
        let slots = self.brain.readings.slots(app, service);
        for entry in slots.into_iter().flat_map(|slots| slots.values()).flatten().filter(|entry| runs(entry)) {
            match self.brain.members.state(&entry.owner) {
                State::Alive if entry.claim.health.serves() => sure.push(entry),
                // One that fails its check where another's machine is silent: either may be the better.
                State::Alive | State::Suspect => doubtful.push(entry),
                State::Down | State::Left => {}
            }
        }
        if sure.is_empty() { doubtful } else { sure }
    }
}

fn runs(entry: &ClaimEntry) -> bool {
    entry.claim.state == ClaimState::Running
}
