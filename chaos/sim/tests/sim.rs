//! The simulator itself: one seed is one story, the stories end well, and what is planted is found.

use rialto_sim::{Outcome, Plant, Scenario, Settings, run};

fn settings(seed: u64) -> Settings {
    Settings { seed, machines: 10, scenario: None, trace: false, plant: None }
}

/// The first promise that is broken in any of the seeds.
fn first_broken(plant: Plant, seeds: std::ops::RangeInclusive<u64>) -> Option<&'static str> {
    let broken = |seed: u64| {
        let outcome = run(&Settings { plant: Some(plant), ..settings(seed) });
        outcome.violations.first().map(|violation| violation.promise)
    };
    seeds.into_iter().find_map(broken)
}

#[test]
fn one_seed_is_one_story() {
    for machines in [3, 10] {
        let once: Outcome = run(&Settings { machines, ..settings(7) });
        let again = run(&Settings { machines, ..settings(7) });
        assert_eq!(once.trace_hash, again.trace_hash);
        assert_eq!(once.violations, again.violations);
        assert_ne!(once.trace_hash, run(&Settings { machines, ..settings(8) }).trace_hash);
    }
}

#[test]
fn every_scenario_ends_well() {
    for name in rialto_sim::scenario::names() {
        for seed in 1..=3 {
            let scenario = Scenario::named(name).unwrap();
            let machines = scenario.peers.unwrap_or(10);
            let outcome = run(&Settings { machines, scenario: Some(scenario), ..settings(seed) });
            assert_eq!(outcome.violations, [], "{name}, SEED={seed}");
        }
    }
}

#[test]
fn clusters_of_one_two_three_and_five_keep_their_promises() {
    for machines in [1, 2, 3, 5] {
        for seed in 1..=5 {
            let outcome = run(&Settings { machines, ..settings(seed) });
            assert_eq!(outcome.violations, [], "{machines} machines, SEED={seed}");
        }
    }
}

#[test]
fn a_disk_that_lies_is_found() {
    assert_eq!(first_broken(Plant::ForgetCommits, 1..=3), Some("P3"));
}

#[test]
fn a_machine_that_promises_more_than_it_has_is_found() {
    assert_eq!(first_broken(Plant::BoastRoom, 1..=20), Some("P1"));
}

#[test]
fn containers_that_do_not_stop_are_found() {
    assert_eq!(first_broken(Plant::IgnoreStops, 1..=5), Some("P4"));
}

#[test]
fn containers_that_are_not_found_again_are_found_out() {
    assert_eq!(first_broken(Plant::BlindExecutors, 1..=10), Some("P1"));
}
