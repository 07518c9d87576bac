//! Which addresses this machine's tasks have: a subnet of the cluster's range, found by hash of the identity.
//!
//! Nobody hands subnets out. A machine takes the first that nobody it knows has, and says so in its record. Where two
//! took the same, not knowing of each other, the one that was admitted first keeps it (of two at the same moment the
//! lower identity) and the other moves on, with everybody of the same opinion at once. So a newcomer takes nothing from
//! those that run tasks. If it has started tasks by then, they are started anew, with addresses that are theirs.

use std::net::Ipv4Addr;

use super::Brain;
use crate::ids::{AppId, ClaimId, PeerId};
use crate::model::{AppSpec, Executor, NetworkMode, Range, Subnet, TaskNetwork};
use crate::plant::Plant;
use crate::wire::StopReason;

impl Brain {
    /// Sees to it that this machine's subnet is its own, when who has which may have changed.
    pub(super) fn subnets_turn(&mut self) {
        if !std::mem::take(&mut self.machine.subnets_stale) {
            return;
        }
        let Some(mut machine) = self.own_machine() else { return };
        let network = self.machine.range.map(|range| TaskNetwork { range, subnet: self.subnet_in(range) });
        if machine.network != network {
            let name = machine.name.clone();
            match network {
                Some(TaskNetwork { subnet: Some(subnet), .. }) => {
                    self.note("subnet", name.clone(), format!("tasks of {name} have addresses of {subnet}"));
                }
                Some(TaskNetwork { range, .. }) => {
                    self.note("subnet", name.clone(), format!("{range} has no subnet left for {name}"));
                }
                None => {}
            }
            machine.network = network;
            self.write_machine(machine);
        }
        self.leave_lost_addresses();
    }

    /// The subnet that this machine has, or should have; `None`: all are taken.
    fn subnet_in(&self, range: Range) -> Option<Subnet> {
        let held = self.readings.machines.get(&self.me).and_then(|machine| machine.network?.subnet);
        let is_own = |held: &Subnet| self.has(Plant::KeepSubnet) || self.readings.owner_of(*held) == Some(self.me);
        if let Some(held) = held.filter(|held| range.has(*held) && is_own(held)) {
            return Some(held);
        }
        let begin = number("rialto subnet 1", &self.me.0);
        let mut all = (0..u64::from(range.subnets())).map(|n| range.subnet(begin.wrapping_add(n)));
        all.find(|subnet| self.readings.owner_of(*subnet).is_none_or(|owner| owner == self.me))
    }

    /// Tasks whose addresses are another machine's by now are started anew.
    fn leave_lost_addresses(&mut self) {
        let Some(subnet) = self.bidder.subnet else { return };
        let is_lost = |address: Ipv4Addr| !subnet.contains(address);
        let live = self.bidder.claims.values().filter(|mine| !mine.claim.state.has_ended());
        let lost: Vec<ClaimId> =
            live.filter(|mine| mine.claim.address.is_some_and(is_lost)).map(|mine| mine.claim.id).collect();
        lost.into_iter().for_each(|claim| self.stop_asked(claim, StopReason::Readdressed));
    }

    /// Gives each service that lacks one its virtual address. One that it has had stays.
    pub(super) fn with_addresses(&self, app: &AppId, mut spec: AppSpec) -> AppSpec {
        let own = self.readings.machines.get(&self.me);
        let range = own.filter(|own| own.executor == Executor::Container).and_then(|own| own.network);
        let before = self.documents.get(app).map(|document| document.spec.clone());
        let single_run = spec.single_run;
        let mut given: Vec<Ipv4Addr> = Vec::new();
        for (name, service) in &mut spec.services {
            service.address = None;
            let Some(TaskNetwork { range, .. }) = range else { continue };
            if single_run || service.network_mode == NetworkMode::Host {
                continue;
            }
            let held = before.as_ref().and_then(|before| before.services.get(name)?.address);
            let key = format!("{}/{}/{name}", app.namespace, app.name);
            let begin = number("rialto service 1", key.as_bytes());
            let probes = (0..PROBES_MAX).map(|n| range.service(begin.wrapping_add(n)));
            let mut wanted = held.filter(|held| range.is_service(*held)).into_iter().chain(probes);
            service.address = wanted.find(|address| !given.contains(address) && !self.is_given(app, *address));
            given.extend(service.address);
        }
        spec
    }

    /// Whether a service of another app has this virtual address.
    fn is_given(&self, app: &AppId, address: Ipv4Addr) -> bool {
        let others = self.documents.iter().filter(|(other, document)| *other != app && !document.deleted);
        others.flat_map(|(_, document)| document.spec.services.values()).any(|one| one.address == Some(address))
    }

    /// Why a port that an app wants to publish is not to be had: two services want it, or another app has it.
    pub(super) fn port_clash(&self, app: &AppId, spec: &AppSpec) -> Option<String> {
        let mut seen: Vec<(u16, &str, &str)> = Vec::new();
        for (name, service) in &spec.services {
            for (port, protocol, _) in service.ingress() {
                if let Some((.., other)) = seen.iter().find(|(number, kind, _)| (*number, *kind) == (port, protocol)) {
                    return Some(format!(
                        "port {port}/{protocol} is published by {other} and by {name}: one may have it"
                    ));
                }
                seen.push((port, protocol, name));
            }
        }
        let living = self.documents.iter().filter(|(other, document)| *other != app && !document.deleted);
        // A run that has finished is remembered for a while, and has no use for its port.
        let living = living.filter(|(_, document)| !document.spec.single_run || document.outcomes.is_empty());
        for (other, document) in living {
            for (theirs, service) in &document.spec.services {
                // Only those that are open on every machine exclude all others.
                let mine = spec.services.iter().flat_map(|(name, one)| ports(one).map(move |port| (name, port)));
                for (name, (number, protocol, everywhere)) in mine {
                    let clash = ports(service)
                        .any(|(port, kind, all)| (port, kind) == (number, protocol) && (all || everywhere));
                    if clash {
                        let other = &other.name;
                        return Some(format!(
                            "port {number}/{protocol} of {name} is published by app {other} (service {theirs}) already: choose another"
                        ));
                    }
                }
            }
        }
        None
    }
}

/// The most virtual addresses that are tried for one service.
const PROBES_MAX: u64 = 4_096;

/// The fixed ports of machines that a service takes: number, protocol, and whether it is so on every machine.
fn ports(service: &crate::model::ServiceSpec) -> impl Iterator<Item = (u16, &str, bool)> {
    let fixed = service.ports.iter();
    fixed.filter_map(|port| Some((port.host?, port.protocol.as_str(), !service.takes(port))))
}

/// A number that only depends on what is named.
fn number(context: &str, bytes: &[u8]) -> u64 {
    let mut hash = blake3::Hasher::new_derive_key(context);
    hash.update(bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first)
}

impl crate::ledger::readings::Readings {
    /// Whose a subnet is: of all members that say so the one that was admitted first.
    pub fn owner_of(&self, subnet: Subnet) -> Option<PeerId> {
        let admitted = |peer: &PeerId| self.admissions.get(peer).map_or(u64::MAX, |(_, admission)| admission.at);
        self.subnets.get(&subnet)?.iter().copied().min_by_key(|peer| (admitted(peer), *peer))
    }
}
