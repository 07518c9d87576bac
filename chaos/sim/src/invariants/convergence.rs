//! P4: everybody holds the same ledger, and believes the same, when the faults are gone.

use std::collections::BTreeSet;

use rialto_protocol::api::TaskRow;
use rialto_protocol::ids::PeerId;
use rialto_protocol::ledger::record::RecordKey;
use rialto_protocol::view::TaskFilter;

use super::settles::{DIFFERENCES_MAX, honest, look, stewards, wanted};
use crate::World;

/// In what the machines that run differ; empty: in nothing.
pub fn differences(world: &World) -> Vec<String> {
    let up: Vec<usize> = honest(world).collect();
    let mut found = beliefs(world, &up);
    if found.is_empty() {
        found = ledgers(world, &up);
    }
    if found.is_empty() {
        found = numbers(world, &up);
    }
    if !found.is_empty() {
        found.truncate(DIFFERENCES_MAX);
        found.push(stewards(world));
    }
    found
}

/// What some disk holds in the name of another that never wrote it.
pub fn forged(world: &World) -> Vec<String> {
    honest(world).next().map(|at| forgeries(world, at)).unwrap_or_default()
}

/// Of an identity whose disk was put back, and is dead, nobody can say what is true; and what a hostile machine says
/// of itself it may say to everybody otherwise.
fn is_honest(world: &World, owner: &PeerId) -> bool {
    let machine = world.machine_of(owner).map(|at| &world.machines[at]);
    !world.promises.owners.is_forked(owner) && machine.is_some_and(|machine| machine.hostile.is_none())
}

/// Everybody believes the same about what is wanted and what runs.
fn beliefs(world: &World, up: &[usize]) -> Vec<String> {
    let mut found = Vec::new();
    // Finished tasks are shown by age, and clocks differ.
    let live = |row: TaskRow| {
        let ended = matches!(row.state.as_str(), "exited" | "failed" | "stopped" | "preempted" | "superseded");
        (!ended).then_some((row.task, row.state, row.machine, row.claim, row.attempt))
    };
    let mut reference = None;
    for at in up {
        let Some(view) = look(world, *at) else { continue };
        let seen = view.members_seen() as usize;
        if seen != up.len() {
            found.push(format!("m{at} sees {seen} members of {}", up.len()));
        }
        let apps = wanted(&view);
        let mut rows: Vec<_> = view.tasks(&TaskFilter::default()).into_iter().filter_map(live).collect();
        rows.sort();
        match &reference {
            None => reference = Some((apps, rows)),
            Some((first_apps, first_rows)) => {
                if let Some((one, other)) = first_difference(first_apps, &apps) {
                    found.push(format!("m{} wants {one}, m{at} wants {other}", up[0]));
                } else if let Some((one, other)) = first_difference(first_rows, &rows) {
                    found.push(format!("m{} sees {one}, m{at} sees {other}", up[0]));
                }
            }
        }
    }
    found
}

fn first_difference<T: std::fmt::Debug + PartialEq>(one: &[T], other: &[T]) -> Option<(String, String)> {
    let show = |item: Option<&T>| item.map_or("nothing".to_string(), |item| format!("{item:?}"));
    let length = one.len().max(other.len());
    (0..length).find(|n| one.get(*n) != other.get(*n)).map(|n| (show(one.get(n)), show(other.get(n))))
}

/// Every disk holds the same records.
fn ledgers(world: &World, up: &[usize]) -> Vec<String> {
    let mut found = Vec::new();
    let counts = |owner: &PeerId| is_honest(world, owner);
    let disk = |at: usize| {
        let records = world.machines[at].disk.records.iter().filter(|((owner, _), _)| counts(owner));
        records.map(|(key, stored)| (key, stored.record.seq))
    };
    let signed = |at: usize| {
        let records = world.machines[at].disk.records.iter().filter(|((owner, _), _)| counts(owner));
        records.map(|(key, stored)| (key, stored.proof.signature))
    };
    for at in &up[1..] {
        if signed(up[0]).eq(signed(*at)) {
            continue;
        }
        let one: BTreeSet<_> = disk(up[0]).collect();
        let other: BTreeSet<_> = disk(*at).collect();
        let name = |((owner, key), seq): &(&(PeerId, _), u64)| {
            let key: &RecordKey = key;
            let owner = world.machine_of(owner).map_or("?".into(), |at| format!("m{at}"));
            format!("{owner}'s {}:{}@{seq}", key.kind.name(), key.id)
        };
        let only_one: Vec<String> = one.difference(&other).take(3).map(name).collect();
        let only_other: Vec<String> = other.difference(&one).take(3).map(name).collect();
        found.push(format!("only m{} holds {only_one:?}, only m{at} holds {only_other:?}", up[0]));
    }
    found
}

/// What every disk holds is what its owner wrote.
fn forgeries(world: &World, at: usize) -> Vec<String> {
    let records = world.machines[at].disk.records.iter().filter(|((owner, _), _)| is_honest(world, owner));
    let forged = records.filter(|(_, stored)| !world.promises.owners.wrote(stored));
    forged.map(|((_, key), _)| format!("m{at} holds {key:?}, which its owner never wrote")).take(3).collect()
}

/// Everybody is complete through the same numbers.
fn numbers(world: &World, up: &[usize]) -> Vec<String> {
    let complete = |at: usize| {
        let owners = world.machines[at].disk.owners.iter().map(|(owner, (complete, _))| (*owner, *complete));
        owners.filter(|(owner, complete)| *complete > 0 && is_honest(world, owner))
    };
    let mut found = Vec::new();
    for at in &up[1..] {
        let one: BTreeSet<_> = complete(up[0]).collect();
        let other: BTreeSet<_> = complete(*at).collect();
        let name = |(owner, complete): &(PeerId, u64)| {
            let owner = world.machine_of(owner).map_or("?".into(), |at| format!("m{at}"));
            format!("{owner} through {complete}")
        };
        if let Some(difference) = one.symmetric_difference(&other).next() {
            found.push(format!("m{} and m{at} do not both hold {}", up[0], name(difference)));
        }
    }
    found
}
