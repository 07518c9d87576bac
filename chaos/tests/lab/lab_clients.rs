//! Clients that were written for etcd, unchanged: the crate `etcd-client`, Python's `etcd3`, and Patroni with PostgreSQL.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, EventType, GetOptions, LockOptions, PutOptions, Txn, TxnOp, TxnOpResponse, WatchOptions,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User};
use rialto_chaos::netns::{Lab, until};
use rialto_protocol::api::{Answer, Locks};
use serde_json::Value;

use crate::{PATIENCE, Turn, turn};

const PORT: &str = "2379";
/// Patroni notices a dead leader when its lease ends, and takes a while to begin.
const FAILOVER: Duration = Duration::from_secs(90);

/// Three peers that vote, and serve etcd's clients at every address of theirs.
fn three_voters() -> Option<(Turn, Lab)> {
    let turn = turn()?;
    let mut lab = Lab::new(3).unwrap();
    lab.set_flags(&["--etcd", &format!("0.0.0.0:{PORT}")]);
    lab.found().unwrap();
    let votes = || match lab.machine(0).api::<Answer<Locks>>("/v1/locks") {
        Ok(told) if told.data.voters.len() == 3 && told.data.quorum => Ok(()),
        other => Err(format!("{other:?}")),
    };
    until("three voters", PATIENCE, votes).unwrap();
    Some((turn, lab))
}

fn skipped(why: &str) {
    // Not `eprintln!`: the test runner hides what a passing test prints.
    writeln!(std::io::stderr(), "skipped: {why}").ok();
}

#[test]
fn the_crate_etcd_client_is_served() {
    let Some((_turn, lab)) = three_voters() else { return };
    let served = lab.machine(1).within(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { tokio::time::timeout(PATIENCE, by_the_crate()).await })
    });
    served.unwrap().expect("in time").unwrap();
}

async fn by_the_crate() -> Result<(), etcd_client::Error> {
    let mut client = Client::connect([format!("127.0.0.1:{PORT}")], None).await?;
    client.put("rs/a", "1", None).await?;
    let put = client.put("rs/a", "2", Some(PutOptions::new().with_prev_key())).await?;
    assert_eq!(put.prev_key().unwrap().value(), b"1");
    client.put("rs/b", "3", None).await?;
    let got = client.get("rs/", Some(GetOptions::new().with_prefix())).await?;
    assert_eq!(got.kvs().iter().map(|kv| kv.value()).collect::<Vec<_>>(), [b"2", b"3"]);

    let txn = Txn::new()
        .when([Compare::value("rs/a", CompareOp::Equal, "2"), Compare::version("rs/none", CompareOp::Equal, 0)])
        .and_then([TxnOp::put("rs/a", "4", None), TxnOp::get("rs/b", None)])
        .or_else([TxnOp::delete("rs/a", None)]);
    let done = client.txn(txn).await?;
    let answers = done.op_responses();
    assert!(done.succeeded() && matches!(&answers[1], TxnOpResponse::Get(got) if got.kvs()[0].value() == b"3"));

    let mut watching = client.watch("rs/w", Some(WatchOptions::new().with_prev_key())).await?;
    assert!(watching.message().await?.unwrap().created());
    client.put("rs/w", "5", None).await?;
    client.delete("rs/w", None).await?;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let answer = watching.message().await?.unwrap();
        seen.extend(answer.events().iter().map(|event| (event.event_type(), event.prev_kv().is_some())));
    }
    assert_eq!(seen, [(EventType::Put, false), (EventType::Delete, true)]);

    let lease = client.lease_grant(30, None).await?.id();
    let (mut keeper, mut kept) = client.lease_keep_alive(lease).await?;
    keeper.keep_alive().await?;
    assert_eq!(kept.message().await?.unwrap().ttl(), 30);
    let locked = client.lock("rs/lock", Some(LockOptions::new().with_lease(lease))).await?;
    // Another waits until it is given up.
    let mut other = client.clone();
    let waits = tokio::spawn(async move { other.lock("rs/lock", None).await });
    until_waits(&mut client).await?;
    client.unlock(locked.key()).await?;
    waits.await.expect("no panic")?;

    let led = client.campaign("rs/elect", "me", lease).await?;
    assert_eq!(client.leader("rs/elect").await?.kv().unwrap().value(), b"me");
    let leader = led.leader().unwrap().clone();
    let proclaim = etcd_client::ProclaimOptions::new().with_leader(leader.clone());
    client.proclaim("still me", Some(proclaim)).await?;
    let mut observed = client.observe("rs/elect").await?;
    assert_eq!(observed.message().await?.unwrap().kv().unwrap().value(), b"still me");
    client.resign(Some(etcd_client::ResignOptions::new().with_leader(leader))).await?;
    assert!(client.leader("rs/elect").await.is_err(), "nobody leads");
    client.lease_revoke(lease).await?;
    assert_eq!(client.member_list().await?.members().len(), 3);
    assert!(client.status().await?.version().starts_with("3."));
    assert!(client.user_list().await.is_err(), "what is not there is refused");
    Ok(())
}

/// Waits until two are in the lock's queue.
async fn until_waits(client: &mut Client) -> Result<(), etcd_client::Error> {
    let options = || Some(GetOptions::new().with_prefix().with_count_only());
    while client.get("rs/lock/", options()).await?.count() < 2 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[test]
fn pythons_etcd3_is_served() {
    // Made by scripts/setup, beside what is compiled.
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let python = target.join("python/bin/python");
    if !target.join("python/ready").exists() {
        return skipped("Python's etcd3 is not installed (scripts/setup)");
    }
    let Some((_turn, lab)) = three_voters() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/clients/etcd3_client.py");
    let mut command = lab.machine(2).inside(python);
    command.arg(script).arg(PORT).env("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", "python");
    let output = rialto_chaos::netns::run_within(&mut command, PATIENCE).unwrap();
    assert!(output.code == 0 && output.stdout.trim() == "ok", "{output:?}");
}

/// One database: Patroni, and the PostgreSQL that it looks after.
struct Database {
    patroni: Child,
}

impl Drop for Database {
    fn drop(&mut self) {
        self.patroni.kill().ok();
        self.patroni.wait().ok();
    }
}

fn settings(lab: &Lab, at: usize, folder: &Path, programs: &Path) -> String {
    let address = lab.machine(at).address();
    let doors: Vec<String> = [0, 1].map(|at| format!("'{}:{PORT}'", lab.machine(at).address())).into();
    let (folder, programs) = (folder.display(), programs.display());
    format!(
        "scope: shop
name: db{at}
restapi: {{listen: '{address}:8008', connect_address: '{address}:8008'}}
etcd3: {{hosts: [{doors}]}}
bootstrap:
  dcs: {{ttl: 20, loop_wait: 2, retry_timeout: 4, maximum_lag_on_failover: 1048576}}
  initdb: [{{encoding: UTF8}}, {{locale: C}}]
  pg_hba: ['host replication all 0.0.0.0/0 trust', 'host all all 0.0.0.0/0 trust']
postgresql:
  listen: '{address}:5432'
  connect_address: '{address}:5432'
  data_dir: {folder}/data
  bin_dir: {programs}
  pgpass: {folder}/pgpass
  authentication:
    replication: {{username: copier, password: copy}}
    superuser: {{username: postgres, password: super}}
  parameters: {{unix_socket_directories: {folder}, shared_buffers: 16MB, fsync: 'off'}}
",
        doors = doors.join(", ")
    )
}

/// The folder of PostgreSQL's programs, the newest.
fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let programs = versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").exists());
    programs.max_by_key(|bin| bin.to_string_lossy().split('/').find_map(|part| part.parse::<u32>().ok()))
}

fn start_database(lab: &Lab, at: usize, folder: &Path, programs: &Path) -> Database {
    let own = folder.join(format!("db{at}"));
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("patroni.yml"), settings(lab, at, &own, programs)).unwrap();
    let postgres = User::from_name("postgres").unwrap().expect("the user postgres");
    std::os::unix::fs::chown(&own, Some(postgres.uid.as_raw()), Some(postgres.gid.as_raw())).unwrap();
    let log = std::fs::File::create(folder.join(format!("db{at}.log"))).unwrap();
    let mut command = lab.machine(at).inside("setpriv");
    command.args(["--reuid", "postgres", "--regid", "postgres", "--clear-groups", "--", "patroni"]);
    command.arg(own.join("patroni.yml")).current_dir(&own).env("HOME", &own).stdin(Stdio::null());
    command.stdout(log.try_clone().unwrap()).stderr(log);
    Database { patroni: command.spawn().expect("patroni") }
}

fn query(lab: &Lab, from: usize, at: usize, sql: &str) -> Result<String, String> {
    let mut command = lab.machine(from).inside("psql");
    command.args(["-h", &lab.machine(at).address().to_string(), "-U", "postgres", "-Atqc", sql, "postgres"]);
    let output =
        command.env("PGPASSWORD", "super").env("PGCONNECT_TIMEOUT", "3").output().map_err(|e| e.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn patroni_fails_over() {
    let Some(programs) = postgres_programs() else { return skipped("PostgreSQL is not installed (scripts/setup)") };
    if Command::new("patroni").arg("--version").output().is_err() {
        return skipped("Patroni is not installed (scripts/setup)");
    }
    let Some((_turn, lab)) = three_voters() else { return };
    // The user of PostgreSQL may not look into the lab's own.
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let logs = || -> String {
        let read = |at| std::fs::read_to_string(folder.path().join(format!("db{at}.log"))).unwrap_or_default();
        let last = |text: String| text.lines().rev().take(25).collect::<Vec<_>>().join("\n");
        format!("{}\n---\n{}", last(read(0)), last(read(1)))
    };
    let mut databases = vec![start_database(&lab, 0, folder.path(), &programs)];
    let is_primary = |at: usize| match query(&lab, 2, at, "select pg_is_in_recovery()") {
        Ok(answer) if answer == "f" => Ok(()),
        other => Err(format!("{other:?}\n{}", logs())),
    };
    until("a primary", FAILOVER, || is_primary(0)).unwrap();
    databases.push(start_database(&lab, 1, folder.path(), &programs));
    query(&lab, 2, 0, "create table orders as select 42 as answer").unwrap();
    let copied = || match query(&lab, 2, 1, "select answer from orders") {
        Ok(answer) if answer == "42" => Ok(()),
        other => Err(format!("{other:?}\n{}", logs())),
    };
    until("a copy", FAILOVER, copied).unwrap();
    let cluster: Value =
        serde_json::from_str(&lab.machine(2).fetch((lab.machine(1).address(), 8008).into(), "/cluster").unwrap())
            .unwrap();
    let roles: Vec<&Value> = cluster["members"].as_array().unwrap().iter().map(|member| &member["role"]).collect();
    assert!(roles.contains(&&Value::from("leader")) && roles.len() == 2, "{cluster}");

    // The leader is gone at once, whole.
    let victims = [vec![databases[0].patroni.id() as i32], lab.machine(0).processes_named("postgres")].concat();
    assert!(victims.len() > 2, "PostgreSQL runs: {victims:?}");
    for pid in victims {
        // A child may have gone with its parent.
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
    let (_, took) = until("the other promotes", FAILOVER, || is_primary(1)).unwrap();
    writeln!(std::io::stderr(), "    the other promoted {took:?} after the kill").ok();
    query(&lab, 2, 1, "insert into orders values (43)").unwrap();
    assert_eq!(query(&lab, 2, 1, "select sum(answer) from orders").unwrap(), "85");
}
