//! Strict singletons and runs that happen once, on real peers that stand still, are killed and cut off.
//!
//! Tasks write into files of the host, which all machines of the lab share: their token, and the time since the boot,
//! which is the same for all.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rialto_chaos::netns::{Lab, until};
use rialto_protocol::api::Locks;

use crate::{PATIENCE, Turn, app_file, live, turn};

/// A lease that nobody renews, and what it takes to be placed and started after that.
const HANDED_OVER: Duration = Duration::from_secs(25);

/// So many peers, three of which vote, and a folder that tasks may write into.
fn voting(peers: usize, flags: &[&str]) -> Option<(Turn, Lab, PathBuf)> {
    let turn = turn()?;
    let mut lab = Lab::new(peers).unwrap();
    let out = lab.folder().join("out");
    std::fs::create_dir(&out).unwrap();
    lab.set_flags(&["--allow", &format!("bind={}", out.display())]);
    lab.set_flags(flags);
    lab.found_with(peers).unwrap();
    let votes = || match lab.machine(0).json::<Locks>(&["locks", "status"]) {
        Ok(told) if told.voters.len() == 3 && told.quorum => Ok(()),
        other => Err(format!("{other:?}")),
    };
    until("three voters", PATIENCE, votes).unwrap();
    Some((turn, lab, out))
}

fn signal(lab: &Lab, at: usize, signal: Signal) {
    kill(Pid::from_raw(lab.machine(at).pid().expect("a peer") as i32), signal).unwrap();
}

/// The lines of a file, as words.
fn lines(file: &Path) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().map(|line| line.split_whitespace().map(str::to_string).collect()).collect()
}

/// When each token was seen first and last, ms since the boot, in the order of the tokens; and its machine.
fn lives(out: &Path) -> Vec<(u64, u64, u64, String)> {
    let mut lives: BTreeMap<u64, (u64, u64, String)> = BTreeMap::new();
    for line in lines(&out.join("beats")) {
        let [token, at, machine] = &line[..] else { continue };
        let ms = (at.parse::<f64>().unwrap() * 1000.0) as u64;
        let life = lives.entry(token.parse().unwrap()).or_insert((ms, ms, machine.clone()));
        (life.0, life.1) = (life.0.min(ms), life.1.max(ms));
    }
    lives.into_iter().map(|(token, (first, last, machine))| (token, first, last, machine)).collect()
}

/// No two runs overlapped, and each had a higher token than the one before.
fn judge(out: &Path) -> Vec<(u64, u64, u64, String)> {
    let lives = lives(out);
    for pair in lives.windows(2) {
        assert!(pair[0].2 < pair[1].1, "two ran at once: {lives:?}");
    }
    lives
}

/// Waits for so many runs in all; where the last is.
fn runs(lab: &Lab, out: &Path, count: usize) -> usize {
    let look = || {
        let all = lives(out);
        if all.len() >= count { Ok(all) } else { Err(format!("{all:?}")) }
    };
    let (all, took) = until(&format!("run {count}"), HANDED_OVER, look).unwrap();
    println!("run {count} after {took:?}: {:?}", all.last());
    assert_eq!(all.len(), count, "{all:?}");
    lab.index_of(&all.last().unwrap().3).unwrap()
}

fn strict(out: &Path) -> String {
    // It does not end when it is asked to.
    let beat = "read token < /run/rialto/fence-token; [ $$token = $$RIALTO_FENCE_TOKEN ] || exit 9; \
                read up idle < /proc/uptime; echo $$token $$up $$RIALTO_MACHINE >> /out/beats";
    format!(
        "services:
  db:
    image: host
    command: [sh, -c, 'trap \"\" TERM; while :; do {beat}; sleep 0.03; done']
    stop_grace_period: 1s
    volumes: ['{}:/out']
    x-rialto: {{singleton: strict}}
",
        out.display()
    )
}

#[test]
fn a_singleton_never_runs_twice_whatever_becomes_of_its_machine() {
    let Some((_turn, mut lab, out)) = voting(4, &[]) else { return };
    let file = app_file(&lab, "shop", &strict(&out));
    lab.machine(1).done(&["deploy", "-f", file.to_str().unwrap(), "--app", "shop"]).unwrap();
    let first = runs(&lab, &out, 1);

    // Its daemon stands still for longer than the lease.
    signal(&lab, first, Signal::SIGSTOP);
    let second = runs(&lab, &out, 2);
    assert_ne!(first, second);
    signal(&lab, first, Signal::SIGCONT);

    // Its daemon is killed, and comes back in time: it goes on, under the same lease.
    lab.machine_mut(second).kill_peer();
    lab.machine_mut(second).start(&[]).unwrap();
    std::thread::sleep(Duration::from_secs(11));
    assert_eq!(runs(&lab, &out, 2), second);

    // Its machine is cut off.
    lab.isolate(second).unwrap();
    let third = runs(&lab, &out, 3);
    assert_ne!(second, third);
    lab.heal().unwrap();
    for machine in lab.machines() {
        machine.sees(4, PATIENCE).unwrap();
    }

    // Its daemon is killed, and stays away.
    lab.machine_mut(third).kill_peer();
    let fourth = runs(&lab, &out, 4);
    assert_ne!(third, fourth);
    lab.machine_mut(third).start(&[]).unwrap();

    // It is handed over at once where its machine drains, and started anew elsewhere.
    let began = Instant::now();
    let name = lab.machine(fourth).name().to_owned();
    lab.machine(fourth).done(&["machine", "drain", &name]).unwrap();
    let fifth = runs(&lab, &out, 5);
    assert!(fifth != fourth && began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let lives = judge(&out);
    println!("gaps of {:?} ms", lives.windows(2).map(|pair| pair[1].1 - pair[0].2).collect::<Vec<_>>());

    let refused = lab.machine(0).cli(&["scale", "shop.db=2"]).unwrap();
    assert!(refused.code != 0 && refused.stderr.contains("strict singleton is one task"), "{refused:?}");

    // Too few voters are left: it ends, and waits, and says so.
    let votes: Locks = lab.machine(fifth).json(&["locks", "status"]).unwrap();
    let others: Vec<usize> =
        votes.voters.iter().filter_map(|name| lab.index_of(name)).filter(|at| *at != fifth).collect();
    others.iter().for_each(|at| lab.machine_mut(*at).kill_peer());
    let waits = |rows: &[rialto_protocol::api::TaskRow]| {
        let of = live(rows, "shop");
        of.iter().any(|row| row.reason.as_ref().is_some_and(|why| why.contains("waits for the lock group")))
    };
    lab.machine(fifth).ps_until("it to wait", Duration::from_secs(40), waits).unwrap();
    let ended = judge(&out).last().unwrap().2;
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(judge(&out).last().unwrap().2, ended, "it goes on without a lease");
    let told = lab.machine(fifth).done(&["explain", "shop.db"]).unwrap().stdout;
    assert!(told.contains("waits for the lock group"), "{told}");
    for at in others {
        lab.machine_mut(at).start(&[]).unwrap();
    }
    runs(&lab, &out, 6);
    judge(&out);
}

/// The runs of a schedule, with the machines that each was started on.
fn ran(out: &Path) -> BTreeMap<String, Vec<String>> {
    let mut runs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines(&out.join("runs")).into_iter().filter(|line| line.len() == 2) {
        runs.entry(line[0].clone()).or_default().push(line[1].clone());
    }
    runs
}

fn some(lab: &Lab, out: &Path, what: &str, count: usize) {
    let look = || if ran(out).len() >= count { Ok(()) } else { Err(format!("{:?}", lab.machine(1).ps())) };
    until(what, Duration::from_secs(60), look).unwrap();
}

#[test]
fn a_run_happens_once_and_tasks_find_the_lock_group() {
    let Some((_turn, mut lab, out)) = voting(3, &["--minority-hold", "2s", "--etcd", "127.0.0.1:2379"]) else { return };
    let text = format!(
        "services:
  report:
    image: host
    command: [sh, -c, 'echo $$RIALTO_SCHEDULED_AT $$RIALTO_MACHINE >> /out/runs']
    volumes: ['{0}:/out']
    x-rialto: {{schedule: {{cron: '*/3 * * * * *', catch_up: all, exactly_once: true}}}}
  writes:
    image: host
    command: [sh, -c, 'ETCDCTL_API=3 etcdctl --endpoints $$RIALTO_ETCD put from-a-task $$RIALTO_ETCD && sleep 3600']
",
        out.display()
    );
    let file = app_file(&lab, "nightly", &text);
    lab.machine(1).done(&["deploy", "-f", file.to_str().unwrap(), "--app", "nightly"]).unwrap();
    some(&lab, &out, "runs", 2);
    // A task has written what it found in its environment, and another client reads it.
    let read = || {
        let mut etcdctl = lab.machine(2).inside("etcdctl");
        etcdctl.env("ETCDCTL_API", "3").args([
            "--endpoints",
            "127.0.0.1:2379",
            "get",
            "--print-value-only",
            "from-a-task",
        ]);
        let got = etcdctl.output().expect("etcdctl: scripts/setup installs it");
        let said = String::from_utf8_lossy(&got.stdout).trim().to_owned();
        if said.ends_with(":2379") && !said.starts_with("127.") { Ok(said) } else { Err(format!("{got:?}")) }
    };
    let (found, _) = until("what a task wrote", PATIENCE, read).unwrap();
    println!("RIALTO_ETCD={found}");

    // Each side of a split has a steward that would run everything: one of them can.
    let before = ran(&out).len();
    lab.isolate(0).unwrap();
    std::thread::sleep(Duration::from_secs(8));
    some(&lab, &out, "runs while it is split", before + 2);
    lab.heal().unwrap();
    for machine in lab.machines() {
        machine.sees(3, PATIENCE).unwrap();
    }
    // Nobody votes but one: nothing runs.
    for at in [1, 2] {
        lab.machine_mut(at).kill_peer();
    }
    std::thread::sleep(Duration::from_secs(2));
    let before = ran(&out).len();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(ran(&out).len(), before, "it ran without a quorum");
    for at in [1, 2] {
        lab.machine_mut(at).start(&[]).unwrap();
    }
    some(&lab, &out, "runs after that", before + 3);
    let twice: Vec<_> = ran(&out).into_iter().filter(|(_, machines)| machines.len() != 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}
