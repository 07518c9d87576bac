//! The wire breaks between the living.

use rialto_chaos::netns::{Lab, REPLICAS, WEB, until};

use crate::{PATIENCE, exactly, live, three, three_with_web};

/// Everybody sees three machines, three tasks, and three servers really run.
fn settles(lab: &Lab) {
    for machine in lab.machines() {
        machine.sees(3, PATIENCE).unwrap();
        machine.ps_until("exactly three", PATIENCE, |rows| exactly(rows, "shop", 3)).unwrap();
        machine.serves(WEB, REPLICAS, PATIENCE).unwrap();
    }
    let servers = || match lab.machines().iter().map(|machine| machine.processes_named("httpd").len()).sum() {
        3_usize => Ok(()),
        other => Err(format!("{other} servers run")),
    };
    until("three servers", PATIENCE, servers).unwrap();
}

#[test]
fn both_sides_of_a_partition_work_and_settle_after_it() {
    let Some((_turn, mut lab)) = three_with_web() else { return };
    lab.isolate(2).unwrap();
    lab.machine(0).sees(2, PATIENCE).unwrap();
    lab.machine(2).sees(1, PATIENCE).unwrap();
    // The larger side replaces what it cannot see; the smaller keeps what it has.
    lab.machine(1).ps_until("a replacement", PATIENCE, |rows| exactly(rows, "shop", 3)).unwrap();
    assert_eq!(lab.machine(2).processes_named("httpd").len(), 1);
    // Both sides take new work.
    for at in [0, 2] {
        let output = lab.machine(at).done(&["run", "host", "--", "echo", "here"]).unwrap();
        assert_eq!(output.stdout, "here\n");
    }
    // Both sides edit the same document.
    lab.machine(2).done(&["deploy", "--detach", "-f", &hello(&lab)]).unwrap();
    lab.heal().unwrap();
    settles(&lab);
    let hello_ran = |rows: &[rialto_protocol::api::TaskRow]| {
        rows.iter().filter(|row| row.app == "hello" && row.exit_code == Some(0)).count() >= 3
    };
    lab.machine(0).ps_until("what the small side wanted", PATIENCE, hello_ran).unwrap();
}

#[test]
fn a_wire_that_is_cut_one_way_makes_nobody_run_twice() {
    let Some((_turn, mut lab)) = three_with_web() else { return };
    lab.cut_one_way(1, 2).unwrap();
    // Both stay in touch with the third: neither goes down for good, and work goes on.
    let output = lab.machine(1).cli(&["run", "host", "--", "echo", "one way"]).unwrap();
    // The task may have run where this machine cannot read: then that is said, and no success.
    let unread = output.code == 125 && output.stderr.contains("its output cannot be read");
    assert!(output.code == 0 && output.stdout == "one way\n" || unread, "{output:?}");
    lab.heal().unwrap();
    settles(&lab);
}

#[test]
fn a_fifth_of_all_packets_lost_loses_no_work() {
    let Some((_turn, mut lab)) = three_with_web() else { return };
    lab.lose_everywhere(20).unwrap();
    for (at, machine) in lab.machines().iter().enumerate() {
        let word = format!("word {at}");
        let output = machine.done(&["run", "host", "--", "echo", &word]).unwrap();
        assert_eq!(output.stdout, format!("{word}\n"));
    }
    lab.heal().unwrap();
    settles(&lab);
}

#[test]
fn what_is_deployed_behind_a_cut_arrives_after_it() {
    let Some((_turn, mut lab)) = three() else { return };
    lab.isolate(0).unwrap();
    lab.machine(0).sees(1, PATIENCE).unwrap();
    lab.machine(0).done(&["deploy", "--detach", "-f", &hello(&lab)]).unwrap();
    let rows = lab.machine(1).ps().unwrap();
    assert!(live(&rows, "hello").is_empty(), "{rows:?}");
    lab.heal().unwrap();
    let ran = |rows: &[rialto_protocol::api::TaskRow]| rows.iter().any(|row| row.app == "hello");
    lab.machine(1).ps_until("the app", PATIENCE, ran).unwrap();
}

fn hello(lab: &Lab) -> String {
    let text = "name: hello\nservices:\n  greet:\n    image: host\n    command: [\"true\"]\n    restart: \"no\"\n    deploy:\n      replicas: 3\n";
    crate::app_file(lab, "hello", text).to_string_lossy().into_owned()
}
