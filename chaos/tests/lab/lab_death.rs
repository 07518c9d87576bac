//! Machines die, and their work goes on elsewhere, in the times that are promised.

use std::time::Duration;

use rialto_chaos::netns::{REPLICAS, WEB};

use crate::{PATIENCE, exactly, live, steward, three_with_web};

/// Death of a machine to the replacement answering; the steward's own death costs a take-over.
const REPLACED: Duration = Duration::from_secs(10);
const REPLACED_STEWARD: Duration = Duration::from_secs(14);
/// Death of a machine to its address gone from DNS.
const GONE_FROM_DNS: Duration = Duration::from_secs(5);
/// How long less than half of the cluster holds back, and what replacing takes after that.
const HOLD: Duration = Duration::from_secs(60);

fn dies_and_is_replaced(of_steward: bool) {
    let Some((_turn, mut lab)) = three_with_web() else { return };
    let steward = lab.index_of(&steward(&lab, 0, "shop")).unwrap();
    let victim = if of_steward { steward } else { (0..3).find(|machine| *machine != steward).unwrap() };
    let survivors: Vec<usize> = (0..3).filter(|machine| *machine != victim).collect();
    let death = lab.die_and_watch(victim, WEB, REPLICAS, &survivors, Duration::from_secs(40)).unwrap();
    println!("steward: {of_steward}; {death:?}");
    let limit = if of_steward { REPLACED_STEWARD } else { REPLACED };
    assert!(death.answering <= limit, "{death:?}");
    assert!(death.gone_from_dns <= GONE_FROM_DNS, "{death:?}");

    // Its log is out of reach, and nobody pretends that it is empty.
    let name = lab.machine(victim).name().to_owned();
    let rows: Vec<rialto_protocol::api::TaskRow> = lab.machine(survivors[0]).json(&["ps", "-a"]).unwrap();
    if let Some(claim) = rows.iter().find(|row| row.machine.as_ref() == Some(&name)).and_then(|row| row.claim.clone()) {
        let output = lab.machine(survivors[0]).cli(&["logs", &claim]).unwrap();
        assert_ne!(output.code, 0, "{output:?}");
        assert!(output.stderr.contains(&name), "{output:?}");
    }

    // It comes back with another boot id: what it ran is gone, and nothing runs twice.
    lab.revive(victim).unwrap();
    for machine in lab.machines() {
        machine.sees(3, PATIENCE).unwrap();
        machine.ps_until("exactly three", PATIENCE, |rows| exactly(rows, "shop", 3)).unwrap();
        machine.serves(WEB, REPLICAS, PATIENCE).unwrap();
    }
}

#[test]
fn a_machine_dies_and_its_task_is_replaced() {
    dies_and_is_replaced(false);
}

#[test]
fn the_stewards_machine_dies_and_its_task_is_replaced() {
    dies_and_is_replaced(true);
}

#[test]
fn two_of_three_die_and_the_third_goes_on() {
    let Some((_turn, mut lab)) = three_with_web() else { return };
    lab.die(1).unwrap();
    lab.die(2).unwrap();
    let last = lab.machine(0);
    last.sees(1, PATIENCE).unwrap();
    // New work is placed and run at once; what was lost waits for the hold to end.
    let output = last.done(&["run", "host", "--", "echo", "alone"]).unwrap();
    assert_eq!(output.stdout, "alone\n");
    let rows = last.tasks().unwrap();
    assert_eq!(live(&rows, "shop").iter().filter(|row| row.state == "running").count(), 1, "{rows:?}");
    assert!(last.status().unwrap().holding_back > 0);
    last.ps_until("the lost tasks after the hold", HOLD + PATIENCE, |rows| exactly(rows, "shop", 3)).unwrap();
    last.serves(WEB, REPLICAS, PATIENCE).unwrap();
}

#[test]
fn a_person_opens_the_gate_and_takes_the_dead_out() {
    let Some((_turn, mut lab)) = three_with_web() else { return };
    lab.die(1).unwrap();
    lab.die(2).unwrap();
    let last = lab.machine(0);
    last.sees(1, PATIENCE).unwrap();
    let remarks = last.done(&["ps"]).unwrap().stderr;
    assert!(
        remarks.contains("holding back 2 replacements") && remarks.contains("rialto machine unfreeze"),
        "{remarks}"
    );
    last.done(&["machine", "unfreeze"]).unwrap();
    last.ps_until("the lost tasks without the hold", PATIENCE, |rows| exactly(rows, "shop", 3)).unwrap();

    // Who is gone for good is a member no more, and counts no more.
    let myself = last.cli(&["machine", "rm", last.name()]).unwrap();
    assert_eq!(myself.code, 4, "{myself:?}");
    for gone in [1, 2] {
        last.done(&["machine", "rm", lab.machine(gone).name()]).unwrap();
    }
    assert_eq!(last.status().unwrap().machines_known, 1);
    // A departed machine that comes back is nobody's: it is not let in, and ends what it ran.
    lab.revive(1).unwrap();
    let last = lab.machine(0);
    last.done(&["run", "host", "--", "true"]).unwrap();
    let status = last.status().unwrap();
    assert_eq!((status.machines_alive, status.machines_known), (1, 1), "{status:?}");
}
