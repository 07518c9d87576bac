//! Membership with the whole brain around it: what it says of others, and what it holds back.

use rialto_protocol::event::Request;
use rialto_sim::World;

/// Everybody has found everybody by then, ms.
const FOUND_MS: u64 = 30_000;
/// A death has been found out and would be replaced by then, ms.
const LOST_MS: u64 = 12_000;

/// A cluster in which all see each other.
fn founded(seed: u64, machines: usize) -> World {
    let mut world = World::new(seed, machines);
    world.start(0);
    (1..machines).for_each(|newcomer| world.join(newcomer, 1_500));
    world.run_until(FOUND_MS);
    for at in 0..machines {
        assert_eq!(view(&world, at, |view| view.members_seen()) as usize, machines, "seed {seed}, m{at}");
    }
    world
}

fn view<T>(world: &World, at: usize, look: impl FnOnce(rialto_protocol::view::View<'_>) -> T) -> T {
    let machine = &world.machines[at];
    look(machine.brain.as_ref().expect("it runs").view(machine.now(world.now_us)))
}

fn drain(world: &mut World, machine: usize) {
    world.ask(machine, 1, Request::Drain { on: true });
    world.run_until(world.now_ms() + 1_000);
}

#[test]
fn a_machine_that_drains_and_is_there_keeps_the_gate_open() {
    for seed in 1..=4 {
        for (draining, dead, left) in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)] {
            let mut world = founded(seed, 3);
            drain(&mut world, draining);
            world.crash(dead, true);
            world.run_until(world.now_ms() + LOST_MS);
            let held_ms = view(&world, left, |view| view.status().holding_back_ms);
            assert_eq!(held_ms, None, "seed {seed}: m{draining} drains, m{dead} is dead");
        }
    }
}

#[test]
fn machines_that_drained_and_went_are_no_storm() {
    for seed in 1..=4 {
        let mut world = founded(seed, 5);
        (1..4).for_each(|machine| drain(&mut world, machine));
        (1..4).for_each(|machine| world.crash(machine, true));
        world.run_until(world.now_ms() + LOST_MS);
        for at in [0, 4] {
            let (seen, held_ms) = view(&world, at, |view| (view.members_seen(), view.status().holding_back_ms));
            assert_eq!((seen, held_ms), (2, None), "seed {seed}");
        }
        // Three of five that had not said so would have been one.
        let mut world = founded(seed, 5);
        (1..4).for_each(|machine| world.crash(machine, true));
        world.run_until(world.now_ms() + LOST_MS);
        assert!(view(&world, 0, |view| view.status().holding_back_ms).is_some(), "seed {seed}");
    }
}

#[test]
fn a_clock_that_is_off_is_named_with_its_offset() {
    for (seed, off_ms) in [(1, 3_600_000), (2, -45_000), (3, 0)] {
        let mut world = founded(seed, 4);
        world.machines[2].wall_offset_ms = off_ms;
        world.run_until(world.now_ms() + 15_000);
        for at in 0..4 {
            for row in view(&world, at, |view| view.machines()) {
                let is = |other: usize| row.name == format!("m{other}");
                let expected = (if is(2) { off_ms } else { 0 }) - if at == 2 { off_ms } else { 0 };
                match row.clock_offset_ms {
                    None => assert!(row.this, "m{at} exchanges heartbeats with {}", row.name),
                    Some(found) => assert!((found - expected).abs() <= 5, "m{at} says {found} of {}", row.name),
                }
            }
        }
    }
}
