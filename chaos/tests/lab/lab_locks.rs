//! The lock group on real peers: who votes, etcd's own client, and a leader that dies.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rialto_chaos::netns::{Lab, LabError, Output, until};
use rialto_protocol::api::{Answer, LockQueue, LockQueues, Locks};

use crate::{PATIENCE, turn};

const ETCD: &str = "127.0.0.1:2379";

fn told(lab: &Lab, at: usize) -> Result<Locks, LabError> {
    lab.machine(at).json(&["locks", "status", "-o", "json"])
}

fn etcdctl(lab: &Lab, at: usize, arguments: &[&str]) -> std::process::Output {
    let mut command = lab.machine(at).inside("etcdctl");
    command.env("ETCDCTL_API", "3").args(["--endpoints", ETCD]).args(arguments);
    command.output().expect("etcdctl: scripts/setup installs it")
}

#[test]
fn three_vote_in_time_serve_etcds_client_at_every_peer_and_outlive_their_leader() {
    let Some(_turn) = turn() else { return };
    let mut lab = Lab::new(4).unwrap();
    lab.set_flags(&["--etcd", ETCD]);
    lab.found_with(4).unwrap();
    let began = Instant::now();
    let votes = || match told(&lab, 0) {
        Ok(told) if told.voters.len() == 3 && told.quorum => Ok(told),
        other => Err(format!("{other:?}")),
    };
    let (group, _) = until("three voters", PATIENCE, votes).unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "three voters after {:?}", began.elapsed());
    let answer: Answer<Locks> = lab.machine(0).api("/v1/locks").unwrap();
    assert_eq!(answer.data.voters, group.voters);

    // Every peer serves it, also the one that does not vote.
    for at in 0..4 {
        let put = etcdctl(&lab, at, &["put", "who", &at.to_string()]);
        assert!(put.status.success(), "at machine {at}: {put:?}");
        let got = etcdctl(&lab, (at + 1) % 4, &["get", "who", "--print-value-only"]);
        assert_eq!(String::from_utf8_lossy(&got.stdout), format!("{at}\n"), "{got:?}");
    }
    assert!(etcdctl(&lab, 3, &["lock", "l", "true"]).status.success());

    let leader = lab.index_of(&group.leader.unwrap()).unwrap();
    let other = (0..4).find(|at| *at != leader).unwrap();
    lab.machine_mut(leader).kill_peer();
    let killed = Instant::now();
    let grant = || match etcdctl(&lab, other, &["--command-timeout=400ms", "lock", "l", "true"]) {
        output if output.status.success() => Ok(()),
        output => Err(format!("{output:?}")),
    };
    until("a grant after the leader's death", PATIENCE, grant).unwrap();
    assert!(killed.elapsed() < Duration::from_secs(3), "nobody took over for {:?}", killed.elapsed());

    let refused = lab.machine(other).cli(&["locks", "force-new-group"]).unwrap();
    assert_eq!(refused.code, 4, "{refused:?}");
}

/// Something that goes on, and what it says.
struct Running {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let said = BufReader::new(child.stdout.take().expect("its output"));
        Self { child, said }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).expect("a signal");
    }

    fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
    }

    /// Waits for its end.
    fn code(&mut self) -> i32 {
        let ended =
            || self.child.try_wait().unwrap().map(|status| status.code().unwrap_or(-1)).ok_or("it goes on".into());
        until("its end", PATIENCE, ended).unwrap().0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Four peers, of whom three vote, and the one that does not.
fn four_with_a_guest() -> Option<(crate::Turn, Lab, usize)> {
    let turn = turn()?;
    let mut lab = Lab::new(4).unwrap();
    lab.set_flags(&["--etcd", ETCD]);
    lab.found_with(4).unwrap();
    let votes = || match told(&lab, 0) {
        Ok(told) if told.voters.len() == 3 && told.quorum => Ok(told),
        other => Err(format!("{other:?}")),
    };
    let (group, _) = until("three voters", PATIENCE, votes).unwrap();
    let guest = (0..4).find(|at| !group.voters.contains(&lab.machine(*at).name().to_owned())).unwrap();
    Some((turn, lab, guest))
}

fn lock(lab: &Lab, at: usize, arguments: &[&str]) -> Output {
    lab.machine(at).cli(&[&["lock"], arguments].concat()).unwrap()
}

fn holds(lab: &Lab, name: &str, waiting: usize) -> LockQueue {
    let look = || match lab.machine(0).json::<LockQueue>(&["locks", "show", name]) {
        Ok(queue) if queue.waiting.len() == waiting => Ok(queue),
        other => Err(format!("{other:?}")),
    };
    until("a holder, and who waits", PATIENCE, look).unwrap().0
}

#[test]
fn lock_and_etcdctl_exclude_each_other_at_every_peer() {
    let Some((_turn, lab, guest)) = four_with_a_guest() else { return };
    let token = |at: usize| -> i64 {
        let done = lock(&lab, at, &["l", "--", "sh", "-c", "echo $RIALTO_FENCE_TOKEN; exit 7"]);
        assert_eq!(done.code, 7, "{done:?}");
        done.stdout.trim().parse().unwrap()
    };
    let tokens = [token(guest), token((guest + 1) % 4), token(guest)];
    assert!(tokens.is_sorted() && tokens[0] < tokens[2], "{tokens:?}");
    assert_eq!(lock(&lab, guest, &["l", "--", "/no/such/program"]).code, 127);
    assert_eq!(lock(&lab, 0, &["l", "--", "sh", "-c", "kill -9 $$"]).code, 137);

    // etcdctl has it.
    let mut etcd = lab.machine(1).inside("etcdctl");
    etcd.env("ETCDCTL_API", "3").args(["--endpoints", ETCD, "lock", "l"]);
    let mut etcd = Running::start(etcd);
    assert!(etcd.line().starts_with("l/"), "the key that it holds by");
    assert_eq!(lock(&lab, guest, &["--no-wait", "l", "--", "true"]).code, 124);
    let refused = lock(&lab, 0, &["--wait", "300ms", "l", "--", "true"]);
    assert!(refused.code == 124 && refused.stderr.contains("not had in time"), "{refused:?}");
    holds(&lab, "l", 0);
    let listed: LockQueues = lab.machine(guest).json(&["locks", "ls"]).unwrap();
    let names: Vec<&str> = listed.queues.iter().map(|queue| queue.name.as_str()).collect();
    assert_eq!(names, ["l"]);
    assert!(listed.queues[0].holder.as_ref().unwrap().left_ms.is_some());

    // It is taken from it, and the next has it; whoever is signalled hands that on.
    let mut next =
        Running::start(lab.machine(guest).cli_command(&["lock", "l", "--", "sh", "-c", "echo has; exec sleep 60"]));
    holds(&lab, "l", 1);
    lab.machine(0).done(&["locks", "break", "--yes", "l"]).unwrap();
    assert_eq!(next.line(), "has");
    drop(etcd);
    let mut etcd = lab.machine(2).inside("etcdctl");
    etcd.env("ETCDCTL_API", "3").args(["--endpoints", ETCD, "lock", "l", "echo", "etcdctl"]);
    let mut etcd = Running::start(etcd);
    holds(&lab, "l", 1);
    assert_eq!(etcd.ended(), None, "it waits");
    next.signal(Signal::SIGTERM);
    assert_eq!((next.code(), etcd.line().as_str(), etcd.code()), (143, "etcdctl", 0));

    // Whoever stops waiting leaves the queue.
    let mut holder =
        Running::start(lab.machine(0).cli_command(&["lock", "q", "--", "sh", "-c", "echo has; exec sleep 60"]));
    assert_eq!(holder.line(), "has");
    let mut waits = Running::start(lab.machine(guest).cli_command(&["lock", "q", "--", "true"]));
    holds(&lab, "q", 1);
    waits.signal(Signal::SIGINT);
    assert_eq!(waits.code(), 130);
    holds(&lab, "q", 0);
    assert_eq!(lab.machine(0).cli(&["locks", "show", "nobodys"]).unwrap().code, 3);
}

#[test]
fn an_election_is_observed_and_resigned_from() {
    let Some((_turn, lab, guest)) = four_with_a_guest() else { return };
    let observes = lab.machine(1).cli_command(&["elect", "db", "--observe"]);
    let mut observes = Running::start(observes);
    assert_eq!(observes.line(), "nobody leads db");
    let stand =
        |at: usize, value: &str| Running::start(lab.machine(at).cli_command(&["elect", "db", "--value", value]));
    let mut first = stand(guest, "a");
    assert!(first.line().starts_with("a leads db (token "));
    assert!(observes.line().starts_with("a leads db (token "));
    let mut second = stand(0, "b");
    assert_eq!(holds(&lab, "db", 1).holder.unwrap().value, "a");
    first.signal(Signal::SIGINT);
    assert_eq!(first.code(), 0);
    assert!(second.line().starts_with("b leads db (token "));
    assert!(observes.line().starts_with("b leads db (token "));
    let mut elect = lab.machine(2).inside("etcdctl");
    elect.env("ETCDCTL_API", "3").args(["--endpoints", ETCD, "elect", "-l", "db"]);
    assert!(Running::start(elect).line().starts_with("db/"), "etcdctl sees the same");
}

#[test]
fn who_cannot_renew_a_lock_is_ended_before_another_has_it() {
    let Some((_turn, mut lab, guest)) = four_with_a_guest() else { return };
    let beats = lab.folder().join("beats");
    // It does not end when it is asked to.
    let script = format!("trap '' TERM; echo has; while :; do date +%s%N >> {}; sleep 0.02; done", beats.display());
    let mut holder =
        Running::start(lab.machine(guest).cli_command(&["lock", "--ttl", "6s", "l", "--", "sh", "-c", &script]));
    assert_eq!(holder.line(), "has");
    lab.isolate(guest).unwrap();
    let cut = Instant::now();
    let next = (guest + 1) % 4;
    let got = lock(&lab, next, &["l", "--", "date", "+%s%N"]);
    assert_eq!(got.code, 0, "{got:?}");
    let waited = cut.elapsed();
    let nanos = |text: &str| text.lines().rev().find_map(|line| line.parse::<u128>().ok()).expect("a time");
    let (last, got) = (nanos(&std::fs::read_to_string(&beats).unwrap()), nanos(&got.stdout));
    assert!(last < got, "it went on for {} ms", (last - got) / 1_000_000);
    assert_eq!(holder.code(), 125);
    assert!(waited < Duration::from_secs(12), "another had it after {waited:?} only");
    println!("killed {} ms before another had it, {waited:?} after the cut", (got - last) / 1_000_000);
}
