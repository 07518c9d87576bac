//! Every address is one task's, and every subnet one machine's, when the faults are gone.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use rialto_protocol::ids::PeerId;
use rialto_protocol::model::Subnet;

use super::settles::{DIFFERENCES_MAX, honest, look};
use crate::World;

/// What is not so; empty: all is well.
pub fn shared(world: &World) -> Vec<String> {
    let mut found = Vec::new();
    let mut subnets: BTreeMap<Subnet, usize> = BTreeMap::new();
    let mut tasks: BTreeMap<Ipv4Addr, String> = BTreeMap::new();
    for at in honest(world) {
        let Some(view) = look(world, at) else { continue };
        let Some((_, own)) = view.network_machines().own else {
            found.push(format!("m{at} has no addresses"));
            continue;
        };
        if let Some(other) = subnets.insert(own, at) {
            found.push(format!("m{other} and m{at} both have {own}"));
        }
        for task in view.network_apps(None).into_values().flat_map(|app| app.here) {
            if !own.contains(task.address) {
                found.push(format!("m{at} has a task at {}, outside of {own}", task.address));
            }
            if let Some(other) = tasks.insert(task.address, format!("m{at}'s {}", task.claim)) {
                found.push(format!("{other} and m{at}'s {} are both at {}", task.claim, task.address));
            }
        }
        // And everybody knows the others by what they say themselves.
        let said: BTreeMap<PeerId, Subnet> =
            view.network_machines().others.into_iter().map(|machine| (machine.peer, machine.subnet)).collect();
        for other in honest(world).filter(|other| *other != at) {
            let is = look(world, other).and_then(|view| view.network_machines().own);
            if is.is_some_and(|(_, is)| said.get(&world.machines[other].id) != Some(&is)) {
                found.push(format!("m{at} takes another subnet for m{other}'s"));
            }
        }
    }
    found.truncate(DIFFERENCES_MAX);
    found
}
