//! The simulator itself: one seed is one story, the stories end well, and what is planted is found.

use rialto_sim::plants::PLANTS;
use rialto_sim::{Outcome, Scenario, Settings, run};

/// A plant is caught within so many seeds, from this one on.
const PLANT_SEEDS_MAX: u64 = 40;
const PLANT_SEED_FIRST: u64 = 127;

fn settings(seed: u64) -> Settings {
    Settings { seed, machines: 10, scenario: None, trace: false, plant: None }
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

/// Each was a failure once: what it found is in its name.
#[test]
fn seeds_that_failed_once_keep_their_promises() {
    for (seed, found) in [
        (2, "an expelled machine never heard of it, and its containers ran on"),
        (7, "a disk that was put back wrote its numbers again, and nobody saw it"),
        (11, "nobody can refute a verdict against the highest life there is"),
        (13, "records beyond a gap that nobody can fill were never compared"),
        (96, "a drain waited for ever for a task elsewhere that failed again and again"),
        (182, "of two stewards the one that was gone had the last word of how a change stood"),
        (455, "peers told differently which run that may not overlap had been passed over"),
        (76, "who writes much starved the others in anti-entropy"),
        (310, "after a clock was put back nobody took the vitals of who started with it"),
        (469, "a task that had finished was shown as its superseded copy"),
    ] {
        let outcome = run(&settings(seed));
        assert_eq!(outcome.violations, [], "SEED={seed}: {found}");
    }
}

/// Each plant is caught by the invariant that is to catch it; the seed that catches it is clean without it.
#[test]
fn what_is_planted_is_found() {
    let wrong: Vec<String> = PLANTS.iter().filter_map(|plant| found(plant).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn found((name, plant, invariant, _): &(&str, rialto_sim::Plant, &str, &str)) -> Result<(), String> {
    for seed in (PLANT_SEED_FIRST..).take(PLANT_SEEDS_MAX as usize) {
        let planted = run(&Settings { plant: Some(*plant), ..settings(seed) });
        if planted.violations.first().is_some_and(|violation| violation.promise == *invariant) {
            let clean = run(&settings(seed));
            let first = clean.violations.first();
            return first.map_or(Ok(()), |violation| Err(format!("SEED={seed} fails without {name}: {violation:?}")));
        }
    }
    Err(format!("{name} is not caught by {invariant} in {PLANT_SEEDS_MAX} seeds"))
}
