//! The design's numbers, held against the code.

mod world;

use super::*;
use world::World;

/// Silence, then the time to refute; what comes on top is the wire and the steps of the clock.
const ROUND_MS: u64 = 5000;
const SLACK_MS: u64 = 700;

fn settled(count: usize, seed: u64) -> World {
    let mut world = World::new(count, seed, Tuning::default());
    world.run(8000);
    assert!(world.all_alive(), "{count} peers, seed {seed}");
    world
}

/// Kills all but the survivors at once; they must agree on that within so many rounds.
fn found_within(rounds: u64, count: usize, survivors: usize, seed: u64) {
    let mut world = settled(count, seed);
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|n| crate::ids::rendezvous(seed, *n as u64));
    for n in &order[survivors..] {
        world.kill(*n);
    }
    world.run_until(rounds * ROUND_MS + SLACK_MS, World::agreed);
}

#[test]
fn mass_death_is_found_in_rounds() {
    for seed in 1..=20 {
        found_within(1, 3, 2, seed);
        found_within(1, 3, 1, seed);
        found_within(2, 10, 3, seed);
        found_within(2, 10, 1, seed);
    }
}

#[test]
fn ninety_of_a_hundred_are_found_in_four_rounds() {
    for seed in 1..=3 {
        found_within(4, 100, 10, seed);
    }
}

#[test]
fn nobody_alive_goes_down_where_a_third_of_the_links_is_cut() {
    for (count, seeds) in [(10, 10), (30, 4), (60, 1)] {
        for seed in 1..=seeds {
            let mut world = settled(count, seed);
            for one in 0..count {
                for other in one + 1..count {
                    if world.throw(100) < 30 {
                        world.cut(one, other);
                    }
                }
            }
            world.run(90_000);
            for n in world.running() {
                let node = world.nodes[n].as_ref().unwrap();
                assert_eq!(node.downs, [], "{count} peers, seed {seed}, as {n} saw it");
            }
            let accused: usize = world.running().iter().map(|n| world.nodes[*n].as_ref().unwrap().accused).sum();
            assert!(accused <= count * 5 * 5, "doubt keeps the accusers of cut links few: {accused} of {count}");
        }
    }
}

#[test]
fn a_paused_peer_is_down_meanwhile_and_accuses_nobody_on_waking() {
    for seed in 1..=10 {
        let mut world = settled(10, seed);
        world.pause(3, 20_000);
        world.run(19_000);
        assert_eq!(world.state(0, 3), State::Down);
        world.run_until(10_000, World::all_alive);
        world.run(20_000);
        assert!(world.all_alive());
        let woken = world.nodes[3].as_ref().unwrap();
        assert_eq!((woken.accused, &woken.downs), (0, &Vec::new()));
    }
}

#[test]
fn a_minority_holds_back_then_goes_on_and_all_are_alive_after_the_healing() {
    for seed in 1..=10 {
        let mut world = settled(10, seed);
        let few = [(seed % 10) as usize, ((seed + 3) % 10) as usize, ((seed + 7) % 10) as usize];
        world.split(&few);
        let by = few[0];
        let of = (0..10).find(|n| !few.contains(n)).unwrap();
        world.run_until(2 * ROUND_MS + SLACK_MS, |world| {
            (0..10).all(|n| {
                (0..10).all(|of| (world.state(n, of) == State::Down) == (few.contains(&n) != few.contains(&of)))
            })
        });
        world.run(2000);
        assert!(matches!(world.loss(by, of), Loss::Held { until_ms: Some(_) }));
        let held = world.brain(by).held(world.time()).expect("it holds");
        assert_eq!((held.sees, held.of), (3, 10));
        assert_eq!(world.brain(of).held(world.time()), None);
        // Three of ten are a great loss: the majority waits for quiet, and then goes on one by one.
        assert!(matches!(world.loss(of, by), Loss::Waits { .. }));
        world.run_until(25_000, |world| few.iter().all(|lost| world.loss(of, *lost) == Loss::Lost));
        assert!(matches!(world.loss(by, of), Loss::Held { .. }));
        world.run_until(60_000, |world| world.brain(by).held(world.time()).is_none());
        world.run_until(11_000, |world| (0..10).filter(|n| !few.contains(n)).all(|n| world.loss(by, n) == Loss::Lost));

        world.heal();
        let took = world.run_until(10_000, World::all_alive);
        assert!(took < 8000, "{took} ms to find each other again");
        world.run(20_000);
        assert!(world.all_alive());
    }
}

#[test]
fn half_are_back_before_the_hold_ends() {
    let mut world = settled(10, 5);
    world.split(&[0, 1, 2]);
    world.run(20_000);
    assert!(world.brain(0).held(world.time()).is_some());
    world.heal();
    world.run_until(10_000, |world| world.brain(0).held(world.time()).is_none());
    world.run_until(10_000, World::all_alive);
    assert_eq!(world.loss(0, 5), Loss::No);
}

#[test]
fn of_two_halves_the_one_with_the_lowest_identity_goes_on() {
    let mut world = settled(4, 1);
    world.split(&[0, 3]);
    world.run(9000);
    assert_eq!(world.loss(0, 1), Loss::Lost);
    assert!(matches!(world.loss(1, 0), Loss::Held { .. }));
    assert!(matches!(world.loss(2, 3), Loss::Held { .. }));
}

#[test]
fn a_survivor_that_is_restarted_keeps_the_reference() {
    for seed in 1..=5 {
        let mut world = settled(3, seed);
        world.kill(1);
        world.kill(2);
        world.run(12_000);
        assert!(matches!(world.loss(0, 1), Loss::Held { .. }));
        world.kill(0);
        world.run(200_000);
        world.start(0);
        world.run(5000);
        assert!(matches!(world.loss(0, 1), Loss::Held { .. }), "the hold begins again with the start");
        assert_eq!(world.brain(0).held(world.time()).map(|held| (held.sees, held.of)), Some((1, 3)));
        world.run(54_000);
        assert!(matches!(world.loss(0, 2), Loss::Held { .. }));
        world.run(2000);
        assert_eq!(world.loss(0, 2), Loss::Lost);

        // The loss is over and settled: the next start does not take it for a new one.
        world.kill(0);
        world.start(0);
        world.run(3000);
        assert_eq!(world.loss(0, 2), Loss::Lost);
        world.start(1);
        world.start(2);
        world.run_until(10_000, World::all_alive);
    }
}

#[test]
fn a_survivor_that_is_restarted_before_it_noticed_holds_back_too() {
    let mut world = settled(3, 2);
    for n in 0..3 {
        world.kill(n);
    }
    world.start(0);
    assert_eq!(world.state(0, 1), State::Alive, "alive at first");
    world.run(12_000);
    assert!(matches!(world.loss(0, 1), Loss::Held { .. }));
}

#[test]
fn a_hold_for_ever_ends_only_by_a_person() {
    let mut world = World::new(3, 1, Tuning { minority_hold_ms: None, ..Tuning::default() });
    world.run(5000);
    world.kill(1);
    world.kill(2);
    world.run(3_600_000);
    assert_eq!(world.loss(0, 1), Loss::Held { until_ms: None });
    let now = world.time();
    world.nodes[0].as_mut().unwrap().brain.unfreeze(now);
    assert_eq!(world.loss(0, 1), Loss::Lost);
}

#[test]
fn a_single_death_is_lost_within_eight_seconds() {
    for count in [3, 5, 9] {
        for seed in 1..=5 {
            let mut world = settled(count, seed);
            world.kill(1);
            world.run_until(4000, |world| world.running().iter().all(|n| world.state(*n, 1) != State::Alive));
            world.run_until(4000, |world| world.running().iter().all(|n| world.loss(*n, 1) == Loss::Lost));
        }
    }
}

#[test]
fn after_any_trouble_all_agree_on_who_runs() {
    for seed in 1..=40 {
        let count = 3 + (seed % 8) as usize;
        let mut world = settled(count, seed);
        for _ in 0..25 {
            let (one, other) = (world.throw(count as u64) as usize, world.throw(count as u64) as usize);
            let ms = world.throw(9000);
            match world.throw(5) {
                0 | 1 if world.nodes[one].is_some() => world.kill(one),
                0 | 1 => world.start(one),
                2 if world.nodes[one].is_some() => world.pause(one, ms),
                3 => world.heal(),
                _ if one != other => world.cut(one, other),
                _ => world.split(&[one]),
            }
            world.run(ms);
        }
        world.heal();
        for n in 0..count / 2 {
            if world.nodes[n].is_none() {
                world.start(n);
            }
        }
        world.run_until(60_000, World::agreed);
        world.run(20_000);
        assert!(world.agreed(), "seed {seed}");
    }
}

#[test]
fn one_that_comes_back_is_alive_again_at_once() {
    let mut world = settled(5, 3);
    world.kill(1);
    world.run(30_000);
    world.start(1);
    world.run_until(8000, World::all_alive);
}

#[test]
fn an_announced_restart_is_waited_for_and_no_longer_than_announced() {
    let mut world = settled(5, 4);
    let wall = world.time().wall;
    world.announce(1, |member| member.restarting_until = Some(wall + 20_000));
    world.run(500);
    world.kill(1);
    world.run(19_000);
    assert!(world.running().iter().all(|n| world.state(*n, 1) == State::Alive));
    world.run(4000);
    assert!(world.running().iter().all(|n| world.state(*n, 1) == State::Down));

    let wall = world.time().wall;
    world.announce(2, |member| member.restarting_until = Some(wall + 3_600_000));
    world.run(500);
    world.kill(2);
    world.run(59_000);
    assert_eq!(world.state(0, 2), State::Alive);
    world.run(4000);
    assert_eq!(world.state(0, 2), State::Down, "an hour is not believed");
}

#[test]
fn planned_leaves_and_drains_are_no_loss() {
    let mut world = settled(5, 6);
    for n in [1, 2, 3] {
        world.announce(n, |member| member.draining = true);
    }
    world.run(1000);
    for n in [1, 2, 3] {
        world.kill(n);
    }
    world.run(15_000);
    assert_eq!(world.brain(0).held(world.time()), None);
    assert_eq!(world.loss(0, 1), Loss::Lost);

    let (now, gone) = (world.time(), world.ids[1]);
    let brain = &mut world.nodes[0].as_mut().unwrap().brain;
    brain.depart(now, &gone);
    let orders = brain.tick(now);
    assert!(orders.contains(&Order::Changed { peer: gone, state: State::Left }));
    assert_eq!((brain.state(&gone), brain.known_count(), brain.live_count()), (State::Left, 4, 2));
}

#[test]
fn one_that_drains_bears_witness_while_it_is_there() {
    for (draining, dead) in [(0, 1), (0, 2), (1, 0), (2, 0)] {
        let mut world = settled(3, 8);
        world.announce(draining, |member| member.draining = true);
        world.run(1000);
        world.kill(dead);
        world.run(9000);
        let left = 3 - draining - dead;
        assert_eq!(
            world.brain(left).held(world.time()),
            None,
            "{draining} drains, {dead} is dead: two of three are there"
        );
        assert_eq!(world.loss(left, dead), Loss::Lost);
        // When it goes, too, as planned, it is no part of the loss: one of two is left.
        world.kill(draining);
        world.run(9000);
        let held = world.brain(left).held(world.time()).map(|held| (held.sees, held.of));
        assert_eq!(held, if left < dead { None } else { Some((1, 2)) });
    }
}

#[test]
fn ten_percent_more_than_a_fifth_of_ten_wait_for_quiet_and_a_single_one_does_not() {
    let mut world = settled(12, 9);
    world.kill(0);
    world.run_until(9000, |world| world.loss(5, 0) == Loss::Lost);
    let mut world = settled(12, 9);
    for (nth, dead) in [1, 2, 3].into_iter().enumerate() {
        world.kill(dead);
        world.run(if nth < 2 { 9000 } else { 7000 });
    }
    // The first was replaced before the loss became a great one; from then on all wait.
    assert!(matches!(world.loss(5, 3), Loss::Waits { .. }));
    let waited = world.run_until(30_000, |world| [1, 2, 3].iter().all(|dead| world.loss(5, *dead) == Loss::Lost));
    assert!(waited >= 5000, "{waited} ms: ten of quiet since the last went down");
}

#[test]
fn a_verdict_that_got_lost_is_written_again() {
    let mut world = settled(3, 7);
    let (now, ids) = (world.time(), world.ids.clone());
    // Only peer 0 ever read it, and its writer is gone.
    world.nodes[0].as_mut().unwrap().brain.verdict(now, &PeerId([9; 32]), &ids[1], 1);
    world.run(2500);
    assert_eq!((world.state(0, 1), world.state(2, 1)), (State::Down, State::Alive));
    world.run_until(15_000, World::all_alive);
    assert_eq!(world.nodes[1].as_ref().unwrap().life_asked, 2);
}

fn machine(id: PeerId, life: u64) -> Member {
    Member { id, rack: None, life, restarting_until: None, draining: false }
}

#[test]
fn orders_of_one_peer_that_falls_silent() {
    let (me, other) = (PeerId([1; 32]), PeerId([2; 32]));
    let at = |ms| Now { ms, wall: ms };
    let mut peer = Membership::new(me, Tuning::default(), None, at(0));
    peer.upsert(at(0), machine(me, 7));
    peer.upsert(at(0), machine(other, 4));
    assert_eq!(peer.tick(at(0)), [Order::Changed { peer: other, state: State::Alive }, Order::Links(vec![other]),]);
    peer.link(at(300), &other, true);
    assert_eq!(peer.tick(at(300)), [Order::Heartbeat { to: other, life: 7 }]);
    peer.heard(at(400), &other, 4);
    for second in 1..=3 {
        assert_eq!(peer.next_deadline(), second * 1000);
        assert_eq!(peer.tick(at(second * 1000)), [Order::Heartbeat { to: other, life: 7 }]);
    }
    assert_eq!(peer.next_deadline(), 3400);
    assert_eq!(
        peer.tick(at(3400)),
        [Order::Accuse { subject: other, life: 4 }, Order::Changed { peer: other, state: State::Suspect },]
    );
    // Accused itself, it refutes once, in a life that nobody has accused.
    peer.verdict(at(3500), &other, &me, 7);
    peer.verdict(at(3500), &other, &me, 7);
    assert_eq!(peer.tick(at(3500)), [Order::Refute { life: 8 }]);
    peer.upsert(at(3510), machine(me, 8));
    assert_eq!(peer.tick(at(4000)), [Order::Heartbeat { to: other, life: 8 }]);
    // The other shows a higher life: the verdict is void, and patience has grown.
    peer.heard(at(4100), &other, 5);
    assert_eq!(
        peer.tick(at(4100)),
        [Order::Withdraw { subject: other }, Order::Changed { peer: other, state: State::Alive },]
    );
    for second in 5..=14 {
        assert!(peer.tick(at(second * 1000)).iter().all(|order| matches!(order, Order::Heartbeat { .. })));
    }
    assert!(peer.tick(at(15_000)).contains(&Order::Accuse { subject: other, life: 5 }));
    assert!(peer.tick(at(16_000)).iter().all(|order| matches!(order, Order::Heartbeat { .. })));
    let down = peer.tick(at(17_000));
    assert!(down.contains(&Order::Changed { peer: other, state: State::Down }));
    assert!(down.iter().any(|order| matches!(order, Order::Remember(_))));
    assert!(!down.iter().any(|order| matches!(order, Order::Held(_))));
    assert_eq!(peer.live().collect::<Vec<_>>(), [me]);
    assert_eq!(peer.loss(at(18_000), &other, 2000), Loss::Waits { until_ms: 19_000 });
    assert_eq!(peer.loss(at(19_000), &other, 2000), Loss::Lost, "the half with the lowest identity");
}

#[test]
fn a_heartbeat_over_a_link_of_the_other_alone_is_answered_once_a_beat() {
    let ids = [PeerId([1; 32]), PeerId([2; 32])];
    let now = |ms| Now { ms, wall: ms };
    let mut pair = ids.map(|me| {
        let mut one = Membership::new(me, Tuning::default(), None, now(0));
        ids.iter().for_each(|id| one.upsert(now(0), machine(*id, 1)));
        one.tick(now(0));
        one
    });
    // Neither has a link any more, and a heartbeat is still on its way.
    let mut sent = 0;
    let mut on_its_way = true;
    while std::mem::take(&mut on_its_way) {
        let to = sent % 2;
        pair[to].heard(now(1000), &ids[1 - to], 1);
        on_its_way = pair[to].tick(now(1000)).iter().any(|order| matches!(order, Order::Heartbeat { .. }));
        sent += 1;
        assert!(sent < 4, "two that have let go of each other fall silent");
    }
    assert_eq!(sent, 3);
}

#[test]
fn what_does_not_read_is_passed_over() {
    let me = PeerId([1; 32]);
    for bytes in [&b""[..], b"\xff\xff", &[0xa0], &[0x9b; 40]] {
        let peer = Membership::new(me, Tuning::default(), Some(bytes), Now::default());
        assert_eq!(peer.held(Now::default()), None);
    }
}

#[test]
fn ten_thousand_members_cost_little() {
    let id = |n: u32| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        PeerId(bytes)
    };
    let now = |ms| Now { ms, wall: ms };
    let mut peer = Membership::new(id(0), Tuning::default(), None, now(0));
    for n in 0..10_000 {
        peer.upsert(now(0), machine(id(n), 1));
    }
    peer.tick(now(0));
    assert_eq!(peer.live_count(), 10_000);
    assert!(peer.wanted.len() <= 20, "{} links", peer.wanted.len());
    for n in 1..=1000 {
        peer.verdict(now(1), &id(n + 5000), &id(n), 1);
    }
    peer.tick(now(1));
    peer.tick(now(1000));
    peer.tick(now(2000));
    peer.tick(now(3001));
    assert_eq!(peer.live_count(), 9000);
    assert!(peer.wanted.len() <= 23, "{} links", peer.wanted.len());
}
