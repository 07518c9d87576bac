//! Moves that would even out the load, or join what is free of GPUs: `rialto rebalance`.
//!
//! A task has a price on every machine, by the measure that bids go by: on one without GPUs the share of the scarcest
//! dimension that is taken with it, on one with GPUs what it strands there (see [`super::score`]); and on either, what it
//! costs to have several tasks of one service on one machine. A move pays what the task's price falls by. Moves are
//! chosen one by one, the best first, each reckoned with those before it, until none pays more than it costs.

use std::collections::BTreeMap;

use super::auction::free_share;
use super::mix::Mix;
use super::score::{Ask, Room, place};
use crate::ids::{ClaimId, PeerId, TaskId};
use crate::model::Resources;
use crate::model::resources::GPU_PREFIX;

/// The most moves of one plan.
pub const MOVES_MAX: usize = 100;
/// What a move costs, in thousandths of a machine's scarcest dimension, or of a GPU: what is gained by less is not worth
/// a restart.
pub const COST: i64 = 100;
/// What another task of the same service on one machine costs, in the same thousandths.
const DOUBLED: i64 = 150;
/// Of so many of the fullest machines tasks are looked at, and as many of the emptiest could have them.
const LOOKED_AT: usize = 12;

/// A machine, and what is taken of it.
#[derive(Clone, Debug)]
pub struct Place {
    pub capacity: Resources,
    pub used: Resources,
    /// Tasks of each service that it has.
    pub services: BTreeMap<(String, String), u32>,
}

/// A task that may be moved.
#[derive(Clone, Debug)]
pub struct Movable {
    pub owner: PeerId,
    pub claim: ClaimId,
    pub task: TaskId,
    /// What it asks for.
    pub need: Resources,
    /// What it has: GPUs and ports that were chosen for it.
    pub takes: Resources,
}

/// One move, and what it pays beyond its cost, in thousandths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    pub claim: ClaimId,
    pub task: TaskId,
    pub from: PeerId,
    pub to: PeerId,
    pub pays: i64,
}

/// How even a set of machines is, in thousandths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evenness {
    /// What is taken of the scarcest dimension of the fullest machine, and of the emptiest.
    pub fullest: u64,
    pub emptiest: u64,
    /// Thousandths of GPUs that typical tasks could not use.
    pub stranded: u64,
}

/// How even they are now.
pub fn evenness(places: &BTreeMap<PeerId, Place>, mix: &Mix) -> Evenness {
    let taken = |place: &Place| 1000 - free_share(&place.capacity, &place.used).min(1000);
    let gpus = places.values().filter(|place| place.capacity.has_gpus());
    let stranded: u64 = gpus.map(|place| Room::of(&place.capacity, &place.used).fragments(mix)).sum();
    Evenness {
        fullest: places.values().map(taken).max().unwrap_or(0),
        emptiest: places.values().map(taken).min().unwrap_or(0),
        stranded: stranded / mix.weight.max(1),
    }
}

/// The moves that pay, in the order in which they are to be made. `places` is left as it will be after them. `may` tells
/// whether a machine that has so many of its service would be asked to take a task.
pub fn plan(
    places: &mut BTreeMap<PeerId, Place>,
    mut tasks: Vec<Movable>,
    mix: &Mix,
    may: impl Fn(&Movable, &PeerId, u32) -> bool,
) -> Vec<Move> {
    let mut moves = Vec::new();
    tasks.sort_by(|one, two| one.task.cmp(&two.task));
    while moves.len() < MOVES_MAX {
        let mut by_load: Vec<(u64, PeerId)> =
            places.iter().map(|(peer, place)| (free_share(&place.capacity, &place.used), *peer)).collect();
        by_load.sort_unstable();
        let fullest: Vec<PeerId> = by_load.iter().take(LOOKED_AT).map(|(_, peer)| *peer).collect();
        let emptiest: Vec<PeerId> = by_load.iter().rev().take(LOOKED_AT).map(|(_, peer)| *peer).collect();
        let mut best: Option<(i64, usize, PeerId)> = None;
        for (at, task) in tasks.iter().enumerate().filter(|(_, task)| fullest.contains(&task.owner)) {
            let Some(here) = price_here(&places[&task.owner], task, mix) else { continue };
            let has = |to: &PeerId| places[to].services.get(&service_of(task)).copied().unwrap_or(0);
            for to in emptiest.iter().filter(|to| **to != task.owner && may(task, to, has(to))) {
                // Thousandths of GPUs and of memory are no common currency.
                if places[to].capacity.has_gpus() != places[&task.owner].capacity.has_gpus() {
                    continue;
                }
                let Some(there) = price(&places[to], task, mix) else { continue };
                let pays = here - there - COST;
                if pays > 0 && best.is_none_or(|(most, ..)| pays > most) {
                    best = Some((pays, at, *to));
                }
            }
        }
        let Some((pays, at, to)) = best else { break };
        // Nothing is moved twice.
        let task = tasks.remove(at);
        if let Some(from) = places.get_mut(&task.owner) {
            leave(from, &task);
        }
        if let Some(there) = places.get_mut(&to) {
            arrive(there, &task, mix);
        }
        moves.push(Move { claim: task.claim, task: task.task, from: task.owner, to, pays });
    }
    moves
}

/// What the task costs where it is: as if it were placed there anew.
fn price_here(place: &Place, task: &Movable, mix: &Mix) -> Option<i64> {
    let mut without = place.clone();
    leave(&mut without, task);
    price(&without, task, mix)
}

/// What the task would cost on a machine that does not have it; `None` where it does not fit.
fn price(place: &Place, task: &Movable, mix: &Mix) -> Option<i64> {
    if place.capacity.copies(&place.used, &task.need, 1) == 0 {
        return None;
    }
    let doubled = DOUBLED * i64::from(place.services.get(&service_of(task)).copied().unwrap_or(0));
    if place.capacity.has_gpus() {
        // The score is in millionths of a GPU.
        let cost = self::place(&Room::of(&place.capacity, &place.used), &Ask::of(&task.need), mix)?.cost;
        return Some(cost / 1000 + doubled);
    }
    let mut used = place.used.clone();
    used.add(&task.need);
    Some(1000 - free_share(&place.capacity, &used).min(1000) as i64 + doubled)
}

fn leave(place: &mut Place, task: &Movable) {
    place.used.sub(&task.takes);
    if let Some(count) = place.services.get_mut(&service_of(task)) {
        *count = count.saturating_sub(1);
    }
}

fn arrive(place: &mut Place, task: &Movable, mix: &Mix) {
    let ask = Ask::of(&task.need);
    if ask.wants_gpus() {
        let placement = self::place(&Room::of(&place.capacity, &place.used), &ask, mix);
        let names: Vec<String> = place.capacity.gpus(&place.used).map(|(name, _)| name.to_string()).collect();
        for (gpu, taken) in placement.into_iter().flat_map(|placement| placement.gpus) {
            let held = place.used.get(&names[gpu]);
            place.used.set(names[gpu].clone(), held + taken);
        }
    }
    let mut plain = task.need.without_gpus();
    plain.0.retain(|name, _| !name.starts_with(GPU_PREFIX));
    place.used.add(&plain);
    *place.services.entry(service_of(task)).or_default() += 1;
}

fn service_of(task: &Movable) -> (String, String) {
    (task.task.app.name.clone(), task.task.service.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::AppId;

    fn peer(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    fn cluster(capacity: &Resources, count: u8) -> BTreeMap<PeerId, Place> {
        let place = Place { capacity: capacity.clone(), used: Resources::default(), services: BTreeMap::new() };
        (1..=count).map(|n| (peer(n), place.clone())).collect()
    }

    /// A task that is at a machine, with all that it takes of it.
    fn put(places: &mut BTreeMap<PeerId, Place>, at: u8, service: &str, slot: u8, need: Resources) -> Movable {
        let app = AppId { namespace: "default".into(), name: "shop".into(), generation: 1 };
        let task = TaskId { app, service: service.into(), slot: slot.to_string() };
        let place = places.get_mut(&peer(at)).unwrap();
        let before = place.used.clone();
        let movable =
            Movable { owner: peer(at), claim: ClaimId([slot; 16]), task, need: need.clone(), takes: need.clone() };
        arrive(place, &movable, &Mix::default());
        let mut takes = place.used.clone();
        takes.sub(&before);
        Movable { takes, ..movable }
    }

    #[test]
    fn a_machine_that_joined_empty_gets_its_share() {
        let mut places = cluster(&Resources::of(4000, 4000), 3);
        let need = Resources::of(100, 500);
        let tasks: Vec<Movable> =
            (0..12).map(|n| put(&mut places, 1 + n % 2, &format!("s{n}"), n, need.clone())).collect();
        let before = evenness(&places, &Mix::default());
        assert_eq!((before.fullest, before.emptiest), (750, 0));
        let moves = plan(&mut places, tasks, &Mix::default(), |_, _, _| true);
        let after = evenness(&places, &Mix::default());
        assert_eq!((moves.len(), after.fullest, after.emptiest), (4, 500, 500), "{moves:?}");
        assert!(moves.iter().all(|one| one.to == peer(3) && one.pays > 0));
        assert_eq!(plan(&mut places, Vec::new(), &Mix::default(), |_, _, _| true), []);
    }

    #[test]
    fn what_pays_less_than_a_restart_stays() {
        let mut places = cluster(&Resources::of(4000, 4000), 2);
        let tasks = vec![
            put(&mut places, 1, "a", 1, Resources::of(100, 200)),
            put(&mut places, 1, "b", 2, Resources::of(100, 150)),
        ];
        assert_eq!(plan(&mut places, tasks.clone(), &Mix::default(), |_, _, _| true), []);
        // Two of one service on one machine are worth more.
        let doubled = vec![tasks[0].clone(), put(&mut places, 1, "a", 3, Resources::of(100, 200))];
        let moves = plan(&mut places, doubled.clone(), &Mix::default(), |_, _, _| true);
        assert_eq!(moves.len(), 1, "{moves:?}");
    }

    #[test]
    fn nothing_goes_where_it_may_not_or_does_not_fit() {
        let mut places = cluster(&Resources::of(4000, 4000), 2);
        let tasks: Vec<Movable> = (0..3).map(|n| put(&mut places, 1, "a", n, Resources::of(100, 1200))).collect();
        assert_eq!(plan(&mut places.clone(), tasks.clone(), &Mix::default(), |_, _, _| false), []);
        places.get_mut(&peer(2)).unwrap().used = Resources::of(100, 3000);
        assert_eq!(plan(&mut places, tasks, &Mix::default(), |_, _, _| true), []);
    }

    #[test]
    fn shares_of_gpus_are_joined_so_that_a_whole_one_is_free() {
        let mut capacity = Resources::of(16_000, 64_000);
        capacity.set("gpu_milli:0", 1000);
        let mut places = cluster(&capacity, 2);
        let share = |milli| {
            Resources(BTreeMap::from([
                ("gpu_milli".to_string(), milli),
                ("cpu_millis".into(), 100),
                ("memory_bytes".into(), 100),
            ]))
        };
        let tasks = vec![put(&mut places, 1, "a", 1, share(500)), put(&mut places, 2, "b", 2, share(500))];
        let mut needs = super::super::mix::Needs::default();
        needs.add(
            &Resources(BTreeMap::from([
                ("gpu".to_string(), 1),
                ("cpu_millis".into(), 100),
                ("memory_bytes".into(), 100),
            ])),
            10,
        );
        needs.add(&share(500), 2);
        let mut all = super::super::mix::Cluster::default();
        places.values().for_each(|place| all.add(&place.capacity));
        let mix = needs.mix(&all);
        let before = evenness(&places, &mix);
        let moves = plan(&mut places, tasks, &mix, |_, _, _| true);
        let after = evenness(&places, &mix);
        assert_eq!(moves.len(), 1, "{before:?} {after:?}");
        assert!(after.stranded < before.stranded, "{before:?} {after:?}");
    }
}
