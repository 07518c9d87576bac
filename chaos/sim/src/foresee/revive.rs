//! A virtual world from the ledger of a real one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rialto_protocol::event::Description;
use rialto_protocol::ids::PeerId;
use rialto_protocol::ledger::record::{Kind, Proof, Stored};
use rialto_protocol::model::{Claim, Machine as Described, TaskSpec};
use rialto_protocol::snapshot::Snapshot;
use rialto_protocol::wire;

use super::{ForeseeError, MACHINES_MAX, Newcomers};
use crate::dice::Dice;
use crate::executor::Container;
use crate::machine::Machine;
use crate::world::World;

/// Where membership keeps its memory on disk.
const MEMBERSHIP: &str = "membership";

/// Everybody that the ledger knows of, and the newcomers, who have not joined yet.
pub fn revive(snapshot: &Snapshot, newcomers: &[Newcomers], seed: u64) -> Result<World, ForeseeError> {
    let described = descriptions(snapshot);
    let live: BTreeSet<PeerId> = snapshot.live.iter().copied().filter(|peer| described.contains_key(peer)).collect();
    let count = live.len() + newcomers.iter().map(|some| some.count).sum::<usize>();
    if live.is_empty() {
        return Err(ForeseeError::Nobody);
    }
    if count > MACHINES_MAX {
        return Err(ForeseeError::TooManyMachines(count));
    }
    let mut dice = Dice::new(seed, "foresee");
    let owners: BTreeSet<PeerId> =
        described.keys().chain(snapshot.records.iter().map(|stored| &stored.record.owner)).copied().collect();
    let mut machines = Vec::new();
    for peer in &owners {
        let mut machine = Machine::new(seed, machines.len(), &mut dice);
        (machine.id, machine.joined, machine.dead) = (*peer, true, !live.contains(peer));
        if let Some(own) = described.get(peer) {
            describe(&mut machine, own.clone());
        }
        machines.push(machine);
    }
    for some in newcomers {
        let like = named(&described, &live, &some.like)?;
        let mut numbers = 1..;
        for _ in 0..some.count {
            let mut machine = Machine::new(seed, machines.len(), &mut dice);
            let mut own = described[&like].clone();
            let free = |name: &String| machines.iter().all(|machine: &Machine| machine.name != *name);
            let mut names = numbers.by_ref().map(|number| format!("{}-like-{number}", described[&like].name));
            own.name = names.find(free).unwrap_or_default();
            own.addresses = vec![format!("203.0.113.{}:7400", machines.len() % 250 + 1)];
            describe(&mut machine, own);
            machines.push(machine);
        }
    }
    let mut world = World::of(seed, machines, snapshot.cluster);
    world.minority_hold_ms = snapshot.minority_hold_ms;
    let records: Vec<Arc<Stored>> = snapshot.records.iter().map(|stored| Arc::new(vouched(&world, stored))).collect();
    for at in 0..owners.len() {
        fill(&mut world, at, snapshot, &records);
    }
    for machine in &mut world.machines {
        machine.set_wall(world.now_us, snapshot.as_of);
        machine.executor.endless = true;
    }
    Ok(world)
}

/// A machine's disk, as its own peer would have it, and its containers.
fn fill(world: &mut World, at: usize, snapshot: &Snapshot, records: &[Arc<Stored>]) {
    let wall = snapshot.as_of;
    let machine = &mut world.machines[at];
    let me = machine.id;
    let own = records.iter().filter(|stored| stored.record.owner == me);
    if !machine.dead {
        let key = |stored: &Arc<Stored>| ((stored.record.owner, stored.record.key.clone()), stored.clone());
        machine.disk.records = records.iter().map(key).collect();
        machine.disk.owners =
            snapshot.owners.iter().map(|(owner, complete, floor)| (*owner, (*complete, *floor))).collect();
        machine.disk.local = BTreeMap::from([(MEMBERSHIP.to_string(), snapshot.membership.clone())]);
        for claim in own.clone().filter_map(|stored| claim_of(stored)).filter(|claim| !claim.state.has_ended()) {
            let spec = Arc::new(TaskSpec {
                task: claim.task.clone(),
                attempt: claim.attempt,
                image: "host".into(),
                image_digest: claim.image_digest.clone(),
                grace_ms: 10_000,
                ..TaskSpec::default()
            });
            let started_at = claim.started_at.unwrap_or(wall);
            machine.executor.live.insert(claim.id, Container::running(spec, started_at));
        }
        let images =
            own.clone().filter(|stored| stored.record.key.kind == Kind::IMAGE && stored.record.value.is_some());
        machine.images = images.map(|stored| stored.record.key.id.to_string()).collect();
    }
    // What was durable before is so now: the promises that are watched begin from there.
    for stored in own {
        world.promises.durable(0, at, &me, stored, &world.machines[at].executor);
    }
    world.promises.capacity.concede(at);
}

/// The same record under a signature of this world's.
fn vouched(world: &World, stored: &Stored) -> Stored {
    let mut vouched = stored.clone();
    let owner = vouched.record.owner;
    vouched.proof = Proof { prev: vouched.record.seq.saturating_sub(1), path: Vec::new(), ..vouched.proof };
    vouched.proof.signature = world.signer.sign(&owner, &vouched.signed());
    vouched
}

fn describe(machine: &mut Machine, own: Described) {
    machine.name = own.name.clone();
    machine.capacity = own.capacity.clone();
    machine.labels = own.labels.clone();
    machine.own = Some(Description {
        name: own.name,
        addresses: own.addresses,
        labels: own.labels,
        capacity: own.capacity,
        allows: own.allows,
        version: own.version,
        executor: own.executor,
        network: own.network.map(|network| network.range),
    });
}

fn claim_of(stored: &Stored) -> Option<Claim> {
    let is_claim = stored.record.key.kind == Kind::CLAIM;
    stored.record.value.as_deref().filter(|_| is_claim).and_then(|value| wire::decode(value).ok())
}

/// What each machine says of itself; those aside that have departed.
fn descriptions(snapshot: &Snapshot) -> BTreeMap<PeerId, Described> {
    let of_machine = |stored: &&Arc<Stored>| stored.record.key.kind == Kind::MACHINE;
    let records = snapshot.records.iter().filter(of_machine);
    let read = |stored: &Arc<Stored>| {
        let described = wire::decode(stored.record.value.as_deref()?).ok()?;
        Some((stored.record.owner, described))
    };
    records.filter_map(read).collect()
}

/// A machine by name, one that lives before others; or by the beginning of its identity.
fn named(described: &BTreeMap<PeerId, Described>, live: &BTreeSet<PeerId>, name: &str) -> Result<PeerId, ForeseeError> {
    let found = described.iter().filter(|(_, own)| own.name == name).map(|(peer, _)| *peer);
    let by_id = || described.keys().copied().find(|peer| name.len() >= 6 && peer.hex().starts_with(name));
    found.min_by_key(|peer| !live.contains(peer)).or_else(by_id).ok_or_else(|| {
        let mut names: Vec<&str> = described.values().map(|own| own.name.as_str()).take(20).collect();
        names.sort_unstable();
        ForeseeError::NoMachine(name.to_string(), names.join(", "))
    })
}

/// The places of machines in a world, by name; each must live.
pub fn places(world: &World, snapshot: &Snapshot, names: &[String]) -> Result<Vec<usize>, ForeseeError> {
    let described = descriptions(snapshot);
    let live: BTreeSet<PeerId> = snapshot.live.iter().copied().collect();
    let mut places = BTreeSet::new();
    for name in names {
        let peer = named(&described, &live, name)?;
        let at = world.machine_of(&peer).filter(|at| !world.machines[*at].dead);
        places.insert(at.ok_or_else(|| ForeseeError::Down(name.clone()))?);
    }
    Ok(places.into_iter().collect())
}
