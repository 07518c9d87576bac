//! What has which name and which address: what DNS tells.

use std::net::{IpAddr, Ipv4Addr};

use super::View;
use crate::ids::PeerId;
use crate::ledger::readings::ClaimEntry;
use crate::membership::State;
use crate::model::{ClaimState, PortBinding, PortSpec};

/// Where a healthy task of a service answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub task: String,
    pub slot: String,
    pub machine: String,
    /// Without a port.
    pub address: String,
    /// The address is the task's own, and so are all its ports.
    pub own: bool,
    pub ports: Vec<PortBinding>,
}

/// A service as DNS names it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// The virtual one, which stands for all tasks.
    pub address: Option<Ipv4Addr>,
    /// As its file names them.
    pub ports: Vec<PortSpec>,
    pub tasks: Vec<Endpoint>,
}

impl View<'_> {
    /// The tasks of a service that DNS names: `None` where there is no such service. A suspect's
    /// tasks, and those that are not healthy, are named only while no others are.
    pub fn endpoints(&self, app: &str, service: &str) -> Option<Endpoints> {
        let app = self.brain.app_named(app)?;
        let spec = self.brain.documents.get(app)?.spec.services.get(service)?;
        let endpoint = |entry: &ClaimEntry| {
            let claim = &entry.claim;
            let machine = self.brain.machine_name(&entry.owner);
            let own = claim.address.map(|address| address.to_string());
            let address = own.or_else(|| self.brain.address_of(&entry.owner))?;
            let (task, slot) = (claim.task.to_string(), claim.task.slot.clone());
            Some(Endpoint { task, slot, machine, address, own: claim.address.is_some(), ports: claim.ports.clone() })
        };
        let tasks = self.answering(app, service).into_iter().filter_map(endpoint).collect();
        Some(Endpoints { address: spec.address, ports: spec.ports.clone(), tasks })
    }

    /// The address of a machine that DNS names; `None` where there is no such machine or it is down.
    pub fn machine_address(&self, name: &str) -> Option<String> {
        let (peer, row) = self.machine(name)?;
        (row.name == name && self.brain.members.state(&peer) <= State::Suspect)
            .then(|| self.brain.address_of(&peer))
            .flatten()
    }

    /// Whose address it is, as DNS names it, without the zone: a running task's, `1.web.shop`, a service's, `web.shop`, or
    /// a machine's, `m1.machine`.
    pub fn whose(&self, address: IpAddr) -> Option<String> {
        if let IpAddr::V4(own) = address {
            for (app, document) in self.living() {
                if let Some((name, _)) = document.spec.services.iter().find(|(_, spec)| spec.address == Some(own)) {
                    return Some(format!("{name}.{}", app.name));
                }
            }
            let runs = |entry: &&ClaimEntry| {
                entry.claim.address == Some(own)
                    && entry.claim.state == ClaimState::Running
                    && self.absence(entry).is_none()
            };
            if let Some(entry) = self.brain.readings.all_claims().find(runs) {
                let task = entry.claim.task.to_string();
                let labels: Vec<&str> = task.split('.').rev().collect();
                return Some(labels.join("."));
            }
        }
        let at = |peer: &&PeerId| {
            self.brain.members.state(peer) <= State::Suspect
                && self.brain.address_of(peer).and_then(|text| text.parse().ok()) == Some(address)
        };
        let peer = self.brain.readings.machines.keys().find(at)?;
        Some(format!("{}.machine", self.brain.machine_name(peer)))
    }
}
