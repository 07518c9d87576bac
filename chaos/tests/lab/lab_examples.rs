//! The examples that keep data: `examples/redis` and `examples/postgres` on three real peers, asked from a machine outside.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rialto_chaos::netns::{Lab, Machine, example, run_within, until};
use rialto_protocol::api::TaskRow;

use crate::{PATIENCE, cluster_of, images, live};

/// Until an example is deployed whole: images are fetched and unpacked, and databases made.
const DEPLOYING: &str = "80s";
/// The machine that is none of the cluster's.
const OUTSIDE: usize = 3;

/// Where an example's task runs: the index of its machine.
fn whereabouts(lab: &Lab, at: usize, task: &str) -> usize {
    let rows = lab.machine(at).ps().unwrap();
    let row = rows.iter().find(|row| row.task == task && row.state == "running").unwrap_or_else(|| panic!("{rows:?}"));
    lab.index_of(row.machine.as_ref().unwrap()).unwrap()
}

/// One command of Redis's protocol, as a line, and what is answered to it.
fn redis(from: &Machine, at: SocketAddr, command: &str) -> Result<String, String> {
    let said = from.within(|| -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(stream, "{command}\r\n")?;
        let mut lines = BufReader::new(stream).lines();
        let mut line = || lines.next().unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()));
        let first = line()?;
        // A text has its length on a line before it.
        if first.starts_with('$') && first != "$-1" { line() } else { Ok(first) }
    });
    said.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

#[test]
fn redis_keeps_what_its_primary_said_and_replicas_follow_it() {
    let Some((_turn, mut lab)) = cluster_of(3, 4) else { return };
    if !images::import(&lab, &["redis"]) {
        return;
    }
    let file = example("redis/compose.yaml");
    lab.machine(1).done(&["deploy", "--timeout", DEPLOYING, "-f", &file.to_string_lossy()]).unwrap();
    let say = |lab: &Lab, at: usize, port: u16, command: &str| {
        redis(lab.machine(OUTSIDE), (lab.machine(at).address(), port).into(), command)
    };
    let heard = |lab: &Lab, at: usize, port: u16, command: &str, wanted: &str| {
        let look = || match say(lab, at, port, command) {
            Ok(said) if said == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        };
        until(command, PATIENCE, look).unwrap().1
    };
    // Written to the primary and read from the replicas, both from outside and at any machine.
    heard(&lab, 0, 6379, "set greeting hello", "+OK");
    for at in 0..3 {
        heard(&lab, at, 6380, "get greeting", "hello");
    }
    assert!(say(&lab, 1, 6380, "set greeting bye").unwrap().starts_with("-READONLY"));
    for number in 1..=100 {
        assert_eq!(say(&lab, number % 3, 6379, "incr count").unwrap(), format!(":{number}"));
    }

    // Its process is killed: another one begins with what is on the volume, and the replicas follow that.
    let holder = whereabouts(&lab, 0, "cache.primary.1");
    // Of all of them the primary alone keeps a log of what it was told.
    let is_primary = |pid: &i32| std::path::Path::new(&format!("/proc/{pid}/root/data/appendonlydir")).exists();
    let primary = lab.machine(holder).processes_named("redis-server").into_iter().find(is_primary).unwrap();
    kill(Pid::from_raw(primary), Signal::SIGKILL).unwrap();
    heard(&lab, 2, 6379, "incr count", ":101");
    for slot in 1..=2 {
        follows(&lab, slot, "count", "101");
    }

    // Its machine dies: nothing is written meanwhile, the replicas that live still answer, and all is there when it is back.
    let survivor = (holder + 1) % 3;
    lab.die(holder).unwrap();
    waits(&lab, survivor, "cache.primary.1");
    heard(&lab, survivor, 6380, "get count", "101");
    lab.revive(holder).unwrap();
    let took = heard(&lab, survivor, 6379, "incr count", ":102");
    println!("written again {took:?} after the primary's machine was back");
    for slot in 1..=2 {
        follows(&lab, slot, "count", "102");
    }
    lab.machine(0).done(&["rm", "--yes", "--volumes", "cache"]).unwrap();
}

/// Waits until a task is known to wait for its machine.
fn waits(lab: &Lab, at: usize, task: &str) {
    let pending = |rows: &[TaskRow]| rows.iter().any(|row| row.task == task && row.state == "pending");
    lab.machine(at).ps_until(&format!("{task} to wait for its volume"), PATIENCE, pending).unwrap();
}

/// Waits until a replica says so of a key.
fn follows(lab: &Lab, slot: u32, key: &str, wanted: &str) {
    let task = format!("cache.replica.{slot}");
    until(&task, PATIENCE, || match lab.machine(0).cli(&["exec", &task, "--", "redis-cli", "get", key]) {
        Ok(said) if said.stdout.trim() == wanted => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
}

#[test]
fn postgres_keeps_its_rows() {
    const PASSWORD: &str = "thirty-six-tea-chests";
    let Some((_turn, mut lab)) = cluster_of(3, 4) else { return };
    if !images::import(&lab, &["postgres"]) {
        return;
    }
    let file = example("postgres/compose.yaml");
    let mut deploy = lab.machine(1).cli_command(&["deploy", "--timeout", DEPLOYING, "-f", &file.to_string_lossy()]);
    run_within(deploy.env("PGPASSWORD", PASSWORD), Duration::from_secs(90)).and_then(|said| said.ok()).unwrap();
    // Who does not know the secret is not let in.
    let psql = |lab: &Lab, at: usize, password: &str, query: &str| {
        let mut psql = lab.machine(OUTSIDE).inside("psql");
        psql.env("PGPASSWORD", password).env("PGCONNECT_TIMEOUT", "2");
        psql.args(["-h", &lab.machine(at).address().to_string(), "-U", "postgres", "-Atc", query]);
        run_within(&mut psql, PATIENCE).and_then(|said| said.ok())
    };
    let refused = psql(&lab, 0, "guessed", "select 1").unwrap_err().to_string();
    assert!(refused.contains("authentication failed"), "{refused}");

    let rows = |lab: &Lab, at: usize| -> Result<Vec<u64>, String> {
        let said = psql(lab, at, PASSWORD, "select id from notes order by id").map_err(|error| error.to_string())?;
        said.stdout.lines().map(|line| line.parse().map_err(|_| said.stdout.clone())).collect()
    };
    let more_than = |lab: &Lab, at: usize, before: &[u64]| {
        let look = || match rows(lab, at)? {
            now if now.len() >= before.len() + 3 => Ok(now),
            now => Err(format!("{} rows, {} before", now.len(), before.len())),
        };
        let now = until("three rows more", Duration::from_secs(60), look).unwrap().0;
        assert_eq!(&now[..before.len()], before, "what was written stays");
        now
    };
    let first = more_than(&lab, 0, &[]);
    let holder = whereabouts(&lab, 0, "notes.db.1");

    lab.machine(2).done(&["restart", "notes.db"]).unwrap();
    let second = more_than(&lab, 2, &first);
    assert_eq!(whereabouts(&lab, 0, "notes.db.1"), holder, "it runs where its volume is");

    // The peer ends at once and comes back: the database did not so much as notice.
    let attempt = |rows: &[TaskRow]| {
        live(rows, "notes").iter().map(|row| (row.task.clone(), row.claim.clone())).collect::<Vec<_>>()
    };
    let before = attempt(&lab.machine(holder).ps().unwrap());
    lab.machine_mut(holder).kill_peer();
    lab.machine_mut(holder).start(&[]).unwrap();
    let third = more_than(&lab, holder, &second);
    assert_eq!(attempt(&lab.machine(holder).ps().unwrap()), before);

    // And its machine: the writer has waited, and goes on.
    lab.die(holder).unwrap();
    waits(&lab, (holder + 1) % 3, "notes.db.1");
    lab.revive(holder).unwrap();
    more_than(&lab, (holder + 1) % 3, &third);
    lab.machine(0).done(&["rm", "--yes", "--volumes", "notes"]).unwrap();
}
