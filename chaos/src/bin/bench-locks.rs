//! `make bench-locks`: etcd of Debian, three members on loopback, and three Rialto peers beside it, in one run, by the same
//! clients: puts, lock and unlock by `etcdctl`, and many clients with a lock each; memory; and how long there is no service
//! after the leader's `kill -9`.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use etcd_client::{Client, LockOptions};
use rialto_chaos::netns::{Lab, clear_on_interrupt};
use rialto_protocol::api::Locks;
use tokio::task::JoinSet;

/// The third of the members answers on this port and those above it.
const ETCD_PORT: u16 = 23_790;
/// What does not come about in this time does not come about.
const PATIENCE: Duration = Duration::from_secs(20);
/// Whoever asks while nobody leads asks anew after this: what was asked before may never be answered.
const ATTEMPT: Duration = Duration::from_millis(250);
/// A lease that outlives every part.
const TTL_SECONDS: i64 = 120;

/// Measures locks beside etcd's.
#[derive(Parser)]
struct Arguments {
    /// A fifth of the samples: to see that it works, not to quote.
    #[arg(long)]
    quick: bool,
    /// Clients at once, each with a lock of its own.
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Deaths of a leader.
    #[arg(long, default_value_t = 5)]
    deaths: usize,
}

/// Three members of whichever kind.
trait Town {
    fn name(&self) -> &'static str;
    /// Where each serves clients.
    fn doors(&self) -> Vec<String>;
    /// Resident bytes of each.
    fn memory(&self) -> Vec<u64>;
    /// Kills the leader as `kill -9` does; which it was.
    fn kill_leader(&mut self, runtime: &tokio::runtime::Runtime) -> Result<usize>;
    /// Starts again whoever was killed.
    fn revive(&mut self, index: usize) -> Result<()>;
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!(Command::new("etcd").arg("--version").output().is_ok(), "etcd is not installed: scripts/setup");
    clear_on_interrupt()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let share = if arguments.quick { 5 } else { 1 };
    let mut towns: [Box<dyn Town>; 2] = [Box::new(Etcd::new(&runtime)?), Box::new(Rialto::new()?)];
    println!("medians and 99 of 100; etcd's data and Rialto's are on the same disk\n");
    for town in &towns {
        put(&runtime, town.as_ref(), 2_000 / share)?;
    }
    // In turn, so that whatever else the machine does hits both.
    lock_by_etcdctl(&towns, 100 / share)?;
    for town in &towns {
        crowd(&runtime, town.as_ref(), arguments.clients, 6_400 / share)?;
    }
    for town in &towns {
        let memory: Vec<String> = town.memory().iter().map(|bytes| format!("{:.1}", *bytes as f64 / 1e6)).collect();
        println!("{:8} memory, MB resident: {}", town.name(), memory.join(" "));
    }
    for town in &mut towns {
        deaths(&runtime, town.as_mut(), arguments.deaths)?;
    }
    Ok(())
}

/// How long each of many things took.
struct Times(Vec<Duration>);

impl Times {
    fn at(&mut self, share: f64) -> f64 {
        self.0.sort();
        let at = ((self.0.len() - 1) as f64 * share).round() as usize;
        self.0[at].as_secs_f64() * 1000.0
    }

    fn tell(mut self, town: &str, what: &str, wall: Duration) {
        let rate = self.0.len() as f64 / wall.as_secs_f64();
        let (median, last) = (self.at(0.5), self.at(0.99));
        println!("{town:8} {what:36} {rate:7.0} /s   p50 {median:7.2} ms   p99 {last:7.2} ms   n {}", self.0.len());
    }
}

/// One client that puts, one after the other, at the first member.
fn put(runtime: &tokio::runtime::Runtime, town: &dyn Town, count: usize) -> Result<()> {
    let door = town.doors().remove(0);
    let (times, wall) = runtime.block_on(async {
        let mut client = Client::connect([door], None).await?;
        for _ in 0..20 {
            client.put("warm", "up", None).await?;
        }
        let (mut times, began) = (Vec::new(), Instant::now());
        for number in 0..count {
            let asked = Instant::now();
            client.put(format!("put/{}", number % 100), "a value of no great length", None).await?;
            times.push(asked.elapsed());
        }
        anyhow::Ok((Times(times), began.elapsed()))
    })?;
    times.tell(town.name(), "put, one client", wall);
    Ok(())
}

/// `etcdctl lock NAME true`, whole: process, session, lock, unlock.
fn lock_by_etcdctl(towns: &[Box<dyn Town>; 2], count: usize) -> Result<()> {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..count {
        for (town, times) in towns.iter().zip(&mut times) {
            let door = town.doors().remove(0);
            let mut command = Command::new("etcdctl");
            command.env("ETCDCTL_API", "3").args(["--endpoints", &door, "lock", "bench", "true"]);
            let asked = Instant::now();
            let output = command.output()?;
            ensure!(output.status.success(), "{}: {output:?}", town.name());
            times.push(asked.elapsed());
        }
    }
    for (town, times) in towns.iter().zip(times) {
        let wall = times.iter().sum();
        Times(times).tell(town.name(), "etcdctl lock + unlock", wall);
    }
    Ok(())
}

/// Many clients, spread over the members, each of which locks and unlocks a lock of its own again and again.
fn crowd(runtime: &tokio::runtime::Runtime, town: &dyn Town, clients: usize, count: usize) -> Result<()> {
    let doors = town.doors();
    let each = count.div_ceil(clients);
    let start = Arc::new(tokio::sync::Barrier::new(clients + 1));
    let (times, wall) = runtime.block_on(async {
        let mut crowd = JoinSet::new();
        for number in 0..clients {
            let (door, start) = (doors[number % doors.len()].clone(), start.clone());
            crowd.spawn(async move {
                let mut client = Client::connect([door], None).await?;
                let lease = client.lease_grant(TTL_SECONDS, None).await?.id();
                start.wait().await;
                let mut times = Vec::with_capacity(each);
                for _ in 0..each {
                    let asked = Instant::now();
                    let options = LockOptions::new().with_lease(lease);
                    let key = client.lock(format!("crowd/{number}"), Some(options)).await?.key().to_vec();
                    client.unlock(key).await?;
                    times.push(asked.elapsed());
                }
                client.lease_revoke(lease).await?;
                anyhow::Ok(times)
            });
        }
        start.wait().await;
        let began = Instant::now();
        let mut all = Vec::with_capacity(count);
        while let Some(times) = crowd.join_next().await {
            all.extend(times??);
        }
        anyhow::Ok((Times(all), began.elapsed()))
    })?;
    times.tell(town.name(), &format!("{clients} clients, lock + unlock each"), wall);
    Ok(())
}

/// From the leader's death until another member grants a lock.
fn deaths(runtime: &tokio::runtime::Runtime, town: &mut dyn Town, count: usize) -> Result<()> {
    let mut times = Vec::new();
    for _ in 0..count {
        let doors = town.doors();
        let killed = town.kill_leader(runtime)?;
        let began = Instant::now();
        let door = doors[(killed + 1) % doors.len()].clone();
        runtime.block_on(async {
            let mut client = Client::connect([door], None).await?;
            loop {
                match tokio::time::timeout(ATTEMPT, grant(&mut client)).await {
                    Ok(Ok(())) => break,
                    _ if began.elapsed() > PATIENCE => bail!("nobody took over within {PATIENCE:?}"),
                    _ => {}
                }
            }
            Ok(())
        })?;
        times.push(began.elapsed());
        town.revive(killed)?;
    }
    let mut times = Times(times);
    let (least, median, most) = (times.at(0.0), times.at(0.5), times.at(1.0));
    println!("{:8} leader killed -> next grant: {median:.0} ms ({least:.0} … {most:.0}, n {count})", town.name());
    Ok(())
}

async fn grant(client: &mut Client) -> Result<()> {
    let lease = client.lease_grant(TTL_SECONDS, None).await?.id();
    client.lock("death", Some(LockOptions::new().with_lease(lease))).await?;
    client.lease_revoke(lease).await?;
    Ok(())
}

/// Members of etcd.
struct Etcd {
    folder: tempfile::TempDir,
    members: Vec<Option<Child>>,
}

impl Etcd {
    fn new(runtime: &tokio::runtime::Runtime) -> Result<Self> {
        let folder = tempfile::tempdir_in(".")?;
        let mut etcd = Self { folder, members: vec![None, None, None] };
        for index in 0..3 {
            etcd.start(index)?;
        }
        runtime.block_on(etcd.healthy())?;
        Ok(etcd)
    }

    fn start(&mut self, index: usize) -> Result<()> {
        let client = |index: usize| format!("http://127.0.0.1:{}", ETCD_PORT + 2 * index as u16);
        let peer = |index: usize| format!("http://127.0.0.1:{}", ETCD_PORT + 2 * index as u16 + 1);
        let all: Vec<String> = (0..3).map(|index| format!("e{index}={}", peer(index))).collect();
        let mut command = Command::new("etcd");
        command
            .args(["--name", &format!("e{index}")])
            .arg("--data-dir")
            .arg(self.folder.path().join(index.to_string()));
        command.args(["--listen-client-urls", &client(index), "--advertise-client-urls", &client(index)]);
        command.args(["--listen-peer-urls", &peer(index), "--initial-advertise-peer-urls", &peer(index)]);
        command.args(["--initial-cluster", &all.join(","), "--log-level", "error"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.members[index] = Some(command.spawn().context("starting etcd")?);
        Ok(())
    }

    async fn healthy(&self) -> Result<()> {
        let began = Instant::now();
        for door in self.doors() {
            loop {
                let asked = async { Client::connect([&door], None).await?.get("healthy", None).await };
                match tokio::time::timeout(Duration::from_secs(1), asked).await {
                    Ok(Ok(_)) => break,
                    _ if began.elapsed() > PATIENCE => bail!("{door} does not serve"),
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        }
        Ok(())
    }
}

impl Town for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn doors(&self) -> Vec<String> {
        (0..3).map(|index| format!("127.0.0.1:{}", ETCD_PORT + 2 * index)).collect()
    }

    fn memory(&self) -> Vec<u64> {
        self.members.iter().flatten().filter_map(|member| rialto_chaos::netns::resident_bytes(member.id())).collect()
    }

    fn kill_leader(&mut self, runtime: &tokio::runtime::Runtime) -> Result<usize> {
        let doors = self.doors();
        let leader = runtime.block_on(async {
            for (index, door) in doors.iter().enumerate() {
                let status = Client::connect([door], None).await?.status().await?;
                if status.header().is_some_and(|header| header.member_id() == status.leader()) {
                    return Ok(index);
                }
            }
            bail!("etcd has no leader")
        })?;
        if let Some(mut member) = self.members[leader].take() {
            member.kill()?;
            member.wait()?;
        }
        Ok(leader)
    }

    fn revive(&mut self, index: usize) -> Result<()> {
        self.start(index)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.healthy())
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for member in self.members.iter_mut().flatten() {
            member.kill().ok();
            member.wait().ok();
        }
    }
}

/// Rialto's peers.
struct Rialto {
    lab: Lab,
}

impl Rialto {
    fn new() -> Result<Self> {
        let mut lab = Lab::on_loopback(3)?;
        for index in 0..3 {
            let door = door(lab.machine(index).address());
            lab.machine_mut(index).set_flags(&["--etcd", &door]);
        }
        lab.found()?;
        let rialto = Self { lab };
        rialto.voting()?;
        Ok(rialto)
    }

    fn voting(&self) -> Result<Locks> {
        let votes = || match self.lab.machine(0).api::<rialto_protocol::api::Answer<Locks>>("/v1/locks") {
            Ok(told) if told.data.voters.len() == 3 && told.data.quorum => Ok(told.data),
            other => Err(format!("{other:?}")),
        };
        Ok(rialto_chaos::netns::until("three voters", PATIENCE, votes)?.0)
    }
}

fn door(address: Ipv4Addr) -> String {
    format!("{address}:2379")
}

impl Town for Rialto {
    fn name(&self) -> &'static str {
        "rialto"
    }

    fn doors(&self) -> Vec<String> {
        self.lab.machines().iter().map(|machine| door(machine.address())).collect()
    }

    fn memory(&self) -> Vec<u64> {
        self.lab.machines().iter().filter_map(|machine| machine.memory()).map(|(resident, _)| resident).collect()
    }

    fn kill_leader(&mut self, _: &tokio::runtime::Runtime) -> Result<usize> {
        let leader = self.voting()?.leader.context("nobody leads")?;
        let leader = self.lab.index_of(&leader).context("the leader is no machine of the lab")?;
        self.lab.machine_mut(leader).kill_peer();
        Ok(leader)
    }

    fn revive(&mut self, index: usize) -> Result<()> {
        self.lab.machine_mut(index).start(&[])?;
        for machine in self.lab.machines() {
            machine.sees(3, PATIENCE)?;
        }
        self.voting().map(drop)
    }
}
