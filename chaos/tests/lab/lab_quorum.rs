//! The locks' quorum is lost, and nothing else stands still; voters are gone for good, and a new group is made.

use std::time::{Duration, Instant};

use rialto_chaos::netns::{Lab, REPLICAS, WEB, until};
use rialto_protocol::api::{Answer, Locks};

use crate::{PATIENCE, exactly, turn};

const ETCD: &str = "127.0.0.1:2379";
/// Without a quorum a question for a lock is refused within this.
const REFUSED: Duration = Duration::from_secs(6);

fn etcdctl(lab: &Lab, at: usize, arguments: &[&str]) -> std::process::Output {
    let mut command = lab.machine(at).inside("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", ETCD, "--command-timeout=20s"]).args(arguments);
    command.output().expect("etcdctl: scripts/setup installs it")
}

/// Waits until a machine says that there is a quorum of at least so many voters, or that there is none.
fn quorum(lab: &Lab, at: usize, voters: Option<usize>) {
    let is_so = || match lab.machine(at).api::<Answer<Locks>>("/v1/locks") {
        Ok(told) if told.data.quorum == voters.is_some() && told.data.voters.len() >= voters.unwrap_or(0) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    until(&format!("voters of the locks: {voters:?}"), PATIENCE, is_so).unwrap();
}

#[test]
fn without_the_locks_quorum_all_else_goes_on_and_a_new_group_is_made_by_hand() {
    let Some(_turn) = turn() else { return };
    let mut lab = Lab::new(5).unwrap();
    lab.set_flags(&["--etcd", ETCD]);
    lab.found_with(3).unwrap();
    quorum(&lab, 0, Some(3));
    assert!(etcdctl(&lab, 0, &["put", "kept", "yes"]).status.success());
    // Two more, who do not vote for a while.
    let token = lab.machine(0).invite(&["--uses", "2"]).unwrap();
    for at in 3..5 {
        lab.machine_mut(at).spawn(&["--join", &token]).unwrap();
    }
    for at in 3..5 {
        lab.machine_mut(at).ready().unwrap();
        lab.machine(at).sees(5, PATIENCE).unwrap();
    }
    lab.import_web(3).unwrap();
    lab.deploy_web(4).unwrap();
    // Two of those who vote die at once. What ran there is replaced, and found by name.
    lab.die(1).unwrap();
    let death = lab.die_and_watch(2, WEB, REPLICAS, &[0, 3, 4], Duration::from_secs(40)).unwrap();
    println!("without a quorum: {death:?}");
    lab.machine(0).ps_until("exactly three", PATIENCE, |rows| exactly(rows, "shop", 3)).unwrap();
    // No lock is granted,
    quorum(&lab, 0, None);
    let asked = Instant::now();
    let refused = etcdctl(&lab, 4, &["put", "kept", "no"]);
    assert!(!refused.status.success() && asked.elapsed() < REFUSED, "{:?}: {refused:?}", asked.elapsed());
    // and work is taken and placed, and its output read.
    let output = lab.machine(3).done(&["run", "host", "--", "echo", "no lock"]).unwrap();
    assert_eq!(output.stdout, "no lock\n");
    let rows: Vec<rialto_protocol::api::TaskRow> = lab.machine(0).json(&["ps", "-a"]).unwrap();
    let run = rows.iter().find(|row| row.app != "shop").expect("it is listed");
    assert_eq!(lab.machine(0).done(&["logs", &run.task]).unwrap().stdout, "no lock\n");
    quorum(&lab, 0, None);

    // Only a person can tell that they are gone for good, and is asked what it costs.
    let warned = lab.machine(0).cli(&["locks", "force-new-group"]).unwrap();
    assert!(warned.code == 4 && warned.stderr.contains("--yes-i-lose-leases"), "{warned:?}");
    lab.machine(0).done(&["locks", "force-new-group", "--yes-i-lose-leases"]).unwrap();
    quorum(&lab, 0, Some(1));
    let served = || match etcdctl(&lab, 0, &["get", "kept", "--print-value-only"]) {
        output if output.stdout == b"yes\n" => Ok(()),
        output => Err(format!("{output:?}")),
    };
    until("what was kept", PATIENCE, served).unwrap();
    // The new group takes in others, who were never of the old one, and bears a loss again.
    quorum(&lab, 0, Some(3));
    lab.die(3).unwrap();
    let put = || match etcdctl(&lab, 4, &["put", "kept", "again"]) {
        output if output.status.success() => Ok(()),
        output => Err(format!("{output:?}")),
    };
    until("the new group serving", PATIENCE, put).unwrap();
}
