//! Peers are killed and come back; tasks do not notice.

use std::time::Duration;

use rialto_chaos::netns::{Lab, REPLICAS, WEB, until};

use crate::{PATIENCE, exactly, live, three_with_web};

/// What a restart of peers must not change: which claims run, and since when.
fn running(lab: &Lab, at: usize) -> Vec<(String, Option<String>, u32, Option<String>)> {
    let (rows, _) = lab.machine(at).ps_until("three replicas", PATIENCE, |rows| exactly(rows, "shop", 3)).unwrap();
    let facts = |row: &&rialto_protocol::api::TaskRow| {
        (row.task.clone(), row.claim.clone(), row.attempt, row.started_at.clone())
    };
    let mut facts: Vec<_> = live(&rows, "shop").iter().map(facts).collect();
    facts.sort();
    facts
}

/// Three servers really run on the machines, whatever anybody believes. Not at every moment: the script
/// that is the task forks before its server is one.
fn three_servers(lab: &Lab) {
    let count = || match lab.machines().iter().map(|machine| machine.processes_named("httpd").len()).sum() {
        3_usize => Ok(()),
        other => Err(format!("{other} run")),
    };
    until("three servers", PATIENCE, count).unwrap();
}

#[test]
fn a_killed_peer_adopts_its_tasks_when_it_comes_back() {
    let Some((_turn, mut lab)) = three_with_web() else { return };
    let before = running(&lab, 0);
    three_servers(&lab);
    lab.machine_mut(1).kill_peer();
    three_servers(&lab);
    lab.machine_mut(1).start(&[]).unwrap();
    for (at, machine) in lab.machines().iter().enumerate() {
        machine.sees(3, PATIENCE).unwrap();
        assert_eq!(running(&lab, at), before);
    }
    three_servers(&lab);

    // Adopted for good: its end is noticed, and it is started again.
    let server = lab.machine(1).processes_named("httpd")[0];
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(server), nix::sys::signal::Signal::SIGKILL).unwrap();
    let again = |rows: &[rialto_protocol::api::TaskRow]| {
        exactly(rows, "shop", 3) && live(rows, "shop").iter().any(|row| row.attempt > 1)
    };
    lab.machine(2).ps_until("another attempt", PATIENCE, again).unwrap();
    three_servers(&lab);
}

#[test]
fn all_peers_are_killed_at_once_and_nothing_is_lost_or_started_twice() {
    let Some((_turn, mut lab)) = three_with_web() else { return };
    let before = running(&lab, 0);
    for index in 0..3 {
        lab.machine_mut(index).kill_peer();
    }
    for index in 0..3 {
        lab.machine_mut(index).spawn(&[]).unwrap();
    }
    for index in 0..3 {
        lab.machine_mut(index).ready().unwrap();
    }
    for (at, machine) in lab.machines().iter().enumerate() {
        machine.sees(3, PATIENCE).unwrap();
        assert_eq!(running(&lab, at), before);
        machine.serves(WEB, REPLICAS, PATIENCE).unwrap();
    }
    three_servers(&lab);
}

#[test]
fn a_peer_that_is_asked_to_go_leaves_its_tasks() {
    let Some((_turn, mut lab)) = three_with_web() else { return };
    let before = running(&lab, 0);
    assert_eq!(lab.machine_mut(2).stop(Duration::from_secs(10)).unwrap(), 0);
    three_servers(&lab);
    lab.machine_mut(2).start(&[]).unwrap();
    lab.machine(0).sees(3, PATIENCE).unwrap();
    assert_eq!(running(&lab, 0), before, "an announced restart loses nothing");
}

#[test]
fn a_machine_that_stood_still_goes_on() {
    let Some((_turn, lab)) = three_with_web() else { return };
    lab.machine(2).pause();
    lab.machine(0).sees(2, PATIENCE).unwrap();
    lab.machine(2).resume();
    for machine in lab.machines() {
        machine.sees(3, PATIENCE).unwrap();
        machine.ps_until("exactly three", PATIENCE, |rows| exactly(rows, "shop", 3)).unwrap();
    }
    three_servers(&lab);
}
