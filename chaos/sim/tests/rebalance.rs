//! Load is evened out on request, and never fewer tasks run than are wanted.

use std::collections::BTreeMap;

use rialto_protocol::event::Request;
use rialto_protocol::ids::ChangeId;
use rialto_protocol::model::{AppSpec, Resources, Restart, ServiceSpec};
use rialto_protocol::view::{TaskFilter, View};
use rialto_sim::World;

const GIB: u64 = 1 << 30;

fn view<T>(world: &World, at: usize, look: impl FnOnce(View<'_>) -> T) -> T {
    let machine = &world.machines[at];
    look(machine.brain.as_ref().unwrap().view(machine.now(world.now_us)))
}

fn running(world: &World, at: usize) -> Vec<(String, String)> {
    let rows = view(world, at, |view| view.tasks(&TaskFilter::default()));
    rows.into_iter().filter(|row| row.state == "running").map(|row| (row.task, row.machine.unwrap())).collect()
}

/// A step of the world, in which nothing may break, and every task of the app goes on running.
fn pass(world: &mut World, ms: u64, tasks: usize) {
    for _ in 0..ms / 50 {
        world.run_until(world.now_ms() + 50);
        assert_eq!(world.promises.violations(), []);
        let containers = world.machines.iter().flat_map(|machine| machine.executor.live.values());
        let live = containers.filter(|container| container.phase == rialto_sim::executor::Phase::Running);
        let slots: std::collections::BTreeSet<String> = live.map(|container| container.spec.task.to_string()).collect();
        assert!(slots.len() >= tasks, "{} of {tasks} run", slots.len());
    }
}

fn cluster(seed: u64, machines: usize, joined: usize) -> World {
    let mut world = World::new(seed, machines);
    world.machines.iter_mut().for_each(|machine| machine.capacity = Resources::of(16_000, 8 * GIB));
    world.start(0);
    (1..joined).for_each(|newcomer| world.join(newcomer, 1_000));
    world.run_until(20_000);
    world
}

fn deploy(world: &mut World, restart: Restart, replicas: u32) {
    let service = ServiceSpec {
        image: "host".into(),
        replicas,
        restart,
        reservations: Resources::of(100, GIB),
        command: vec!["serve".into()],
        ..Default::default()
    };
    let spec = AppSpec { services: BTreeMap::from([("web".into(), service)]), single_run: false };
    let request = Request::Deploy { change: ChangeId([9; 16]), author: "test".into(), app: "shop".into(), spec };
    world.ask(0, 0, request);
    let end = world.now_ms() + 15_000;
    world.run_until(end);
}

#[test]
fn a_newcomer_gets_its_share_while_everything_runs_on() {
    for seed in 1..=5 {
        let mut world = cluster(seed, 3, 2);
        deploy(&mut world, Restart::Always, 12);
        assert_eq!(running(&world, 0).len(), 12, "SEED={seed}");
        assert_eq!(view(&world, 0, |view| view.rebalance().0.moves), [], "SEED={seed}: even as it is");
        world.join(2, world.now_ms());
        pass(&mut world, 10_000, 12);
        // Whoever is asked, here one that may not be the steward.
        let (told, orders) = view(&world, 2, |view| view.rebalance());
        assert_eq!((told.moves.len(), told.before.emptiest_permille), (4, 0), "SEED={seed}: {told:?}");
        pass(&mut world, 2_000, 12);
        assert_eq!(running(&world, 0).iter().filter(|(_, at)| at == "m2").count(), 0, "a plan moves nothing");
        world.ask(2, 1, Request::Relocate(orders));
        pass(&mut world, 30_000, 12);
        let mut at: BTreeMap<String, u32> = BTreeMap::new();
        running(&world, 1).into_iter().for_each(|(_, machine)| *at.entry(machine).or_default() += 1);
        let even = BTreeMap::from([("m0".to_string(), 4), ("m1".to_string(), 4), ("m2".to_string(), 4)]);
        assert_eq!(at, even, "SEED={seed}");
        assert_eq!(view(&world, 0, |view| view.rebalance().0.moves), [], "SEED={seed}: it is done");
    }
}

#[test]
fn a_move_that_finds_no_room_leaves_all_as_it_was() {
    let mut world = cluster(3, 3, 2);
    deploy(&mut world, Restart::Always, 12);
    world.join(2, world.now_ms());
    pass(&mut world, 10_000, 12);
    let (_, orders) = view(&world, 0, |view| view.rebalance());
    let before = running(&world, 0);
    // It drains before the orders come.
    world.ask(2, 1, Request::Drain { on: true });
    pass(&mut world, 2_000, 12);
    world.ask(0, 2, Request::Relocate(orders));
    pass(&mut world, 20_000, 12);
    assert_eq!(running(&world, 0), before);
}

#[test]
fn a_steward_that_dies_in_the_middle_leaves_one_of_each() {
    for seed in 1..=3 {
        let mut world = cluster(seed, 5, 4);
        deploy(&mut world, Restart::Always, 20);
        world.join(4, world.now_ms());
        pass(&mut world, 10_000, 20);
        let (told, orders) = view(&world, 0, |view| view.rebalance());
        assert!(!told.moves.is_empty(), "SEED={seed}");
        let steward = view(&world, 0, |view| view.steward("shop")).unwrap();
        let steward = world.machine_of(&steward).unwrap();
        let other = usize::from(steward == 0);
        world.ask(other, 1, Request::Relocate(orders));
        world.run_until(world.now_ms() + 40);
        world.crash(steward, true);
        world.run_until(world.now_ms() + 60_000);
        assert_eq!(world.promises.violations(), [], "SEED={seed}");
        let now = running(&world, other);
        let slots: std::collections::BTreeSet<&String> = now.iter().map(|(task, _)| task).collect();
        assert_eq!((now.len(), slots.len()), (20, 20), "SEED={seed}: {now:?}");
    }
}

#[test]
fn the_work_of_batches_is_not_thrown_away() {
    let mut world = cluster(4, 3, 2);
    deploy(&mut world, Restart::No, 12);
    assert_eq!(running(&world, 0).len(), 12);
    world.join(2, world.now_ms());
    pass(&mut world, 10_000, 12);
    assert_eq!(view(&world, 0, |view| view.rebalance().0.moves), []);
}
