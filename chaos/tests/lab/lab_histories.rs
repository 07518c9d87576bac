//! What clients of real peers are told while everything goes wrong, judged: numbers are linearizable, no two hold the
//! lock at a time, and tokens rise.
//!
//! All clocks are this machine's one: who holds the lock is known in true time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use etcd_client::{Client, Compare, CompareOp, Error, LockOptions, Txn, TxnOp};
use rialto_chaos::netns::{Entrance, Lab, until};
use rialto_locks_sim::history::{Act, Op};
use rialto_locks_sim::linear::{Verdict, check};
use rialto_protocol::api::{Answer, Locks, Machines};

use crate::{PATIENCE, turn};

const ETCD: &str = "127.0.0.1:2379";
const KEYS: usize = 3;
/// So long the same keys are used, µs: a long history of one takes too long to judge.
const AGE_US: usize = 5_000_000;
/// Nobody waits longer for an answer.
const ANSWER: Duration = Duration::from_secs(5);
const HOUR: i64 = 3_600;
const TTL_SECONDS: i64 = 3;
/// A holder reckons with this much of its lease, from when it asked for it.
const TRUSTED: Duration = Duration::from_millis(2_900);

/// What all clients share.
struct Stage {
    began: Instant,
    over: AtomicBool,
    /// Numbers are written once each.
    numbers: AtomicU64,
}

impl Stage {
    fn now(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn is_over(&self) -> bool {
        self.over.load(SeqCst)
    }
}

/// Somebody held the lock from then to then, µs.
#[derive(Debug)]
struct Held {
    token: i64,
    from: u64,
    to: u64,
}

/// Runs a client in a machine's network until it is over.
fn live<T: Send>(at: &Entrance, client: impl Future<Output = T> + Send) -> T {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    at.within(|| runtime().block_on(client)).unwrap()
}

/// A connection; none while the peer is away.
async fn connected(stage: &Stage) -> Option<Client> {
    while !stage.is_over() {
        match tokio::time::timeout(ANSWER, Client::connect([ETCD], None)).await {
            Ok(Ok(client)) => return Some(client),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    None
}

/// Reads, writes and swaps numbers. What it was told nothing certain of has no end.
async fn reckon(stage: &Stage, seed: u64) -> Vec<(usize, Op)> {
    let mut told = Vec::new();
    let mut dice = rialto_sim::Dice::new(seed, "reckoner");
    while let Some(mut client) = connected(stage).await {
        loop {
            if stage.is_over() {
                return told;
            }
            let number = 1 + stage.numbers.fetch_add(1, SeqCst);
            let key = stage.now() as usize / AGE_US * KEYS + dice.below(KEYS as u64) as usize;
            let wanted = match dice.below(3) {
                0 => Act::Read(0),
                1 => Act::Write(number),
                _ => Act::Swap(number.saturating_sub(1 + dice.below(6)), number, false),
            };
            let begun = stage.now();
            let answer = tokio::time::timeout(ANSWER, act(&mut client, key, wanted)).await;
            let ended = stage.now();
            match answer {
                Ok(Ok(act)) => told.push((key, Op { begun, ended: Some(ended), act })),
                _ => {
                    let is_read = matches!(wanted, Act::Read(_));
                    told.extend((!is_read).then_some((key, Op { begun, ended: None, act: wanted })));
                    // Its peer may be away.
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(20 + dice.below(60))).await;
        }
    }
    told
}

async fn act(client: &mut Client, key: usize, wanted: Act) -> Result<Act, Error> {
    let key = format!("number/{key}");
    Ok(match wanted {
        Act::Read(_) => {
            let found = client.get(key, None).await?;
            let number = found.kvs().first().and_then(|kv| kv.value_str().ok()?.parse().ok());
            Act::Read(number.unwrap_or(0))
        }
        Act::Write(number) => client.put(key, number.to_string(), None).await.map(|_| wanted)?,
        Act::Swap(old, new, _) => {
            let is_old = match old {
                0 => Compare::create_revision(key.clone(), CompareOp::Equal, 0),
                old => Compare::value(key.clone(), CompareOp::Equal, old.to_string()),
            };
            let swap = Txn::new().when([is_old]).and_then([TxnOp::put(key, new.to_string(), None)]);
            Act::Swap(old, new, client.txn(swap).await?.succeeded())
        }
    })
}

/// Takes the lock again and again, holds it for a moment, and gives it back.
async fn hold(stage: &Stage, seed: u64) -> Vec<Held> {
    let mut all = Vec::new();
    let mut dice = rialto_sim::Dice::new(seed, "holder");
    while let Some(mut client) = connected(stage).await {
        while !stage.is_over() {
            let for_ms = 10 + dice.below(150);
            match tokio::time::timeout(ANSWER, hold_once(stage, &mut client, for_ms)).await {
                Ok(Ok(held)) => all.extend(held),
                _ => {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    break;
                }
            }
        }
    }
    all
}

async fn hold_once(stage: &Stage, client: &mut Client, for_ms: u64) -> Result<Option<Held>, Error> {
    let asked = stage.now();
    let lease = client.lease_grant(TTL_SECONDS, None).await?.id();
    let options = LockOptions::new().with_lease(lease);
    let key = client.lock("the-one", Some(options)).await?.key().to_vec();
    let found = client.get(key, None).await?;
    let from = stage.now();
    let until = asked + TRUSTED.as_micros() as u64;
    let Some(token) = found.kvs().first().map(|kv| kv.create_revision()).filter(|_| from < until) else {
        return Ok(None);
    };
    let to = until.min(from + for_ms * 1_000);
    tokio::time::sleep(Duration::from_micros(to - from)).await;
    // It relies on the lock no longer than this, whatever becomes of the answer.
    let to = until.min(stage.now());
    let revoked = tokio::time::timeout(Duration::from_millis(500), client.lease_revoke(lease)).await;
    drop(revoked);
    Ok(Some(Held { token, from, to }))
}

/// Two who are said to have held the lock at a time, or out of order.
fn overlap(all: &mut [Held]) -> Option<String> {
    all.sort_by_key(|held| held.token);
    let wrong = all.windows(2).find(|two| two[0].token == two[1].token || two[1].from < two[0].to);
    wrong.map(|two| format!("{:?} and {:?}", two[0], two[1]))
}

fn told(lab: &Lab, at: usize) -> Result<Locks, String> {
    let answer = lab.machine(at).api::<Answer<Locks>>("/v1/locks").map_err(|error| error.to_string())?;
    Ok(answer.data)
}

/// Whoever leads, by the word of machine `by`, who has a quorum.
fn leader(lab: &Lab, by: usize) -> usize {
    let leads = || {
        let told = told(lab, by)?;
        let name = told.leader.clone().filter(|_| told.quorum && told.voters.len() >= 3);
        name.and_then(|name| lab.index_of(&name)).ok_or(format!("{told:?}"))
    };
    until("a leader", PATIENCE, leads).unwrap().0
}

#[test]
fn histories_hold_while_leaders_die_stand_still_and_are_cut_off() {
    histories(Duration::ZERO);
}

#[test]
#[ignore = "takes half an hour: make soak"]
fn histories_hold_for_half_an_hour() {
    histories(Duration::from_secs(30 * 60));
}

/// One round of faults, and more until so much time has passed.
fn histories(lasting: Duration) {
    let Some(_turn) = turn() else { return };
    let mut lab = Lab::new(5).unwrap();
    lab.set_flags(&["--etcd", ETCD]);
    lab.machines().iter().for_each(|machine| machine.set_clock(0).unwrap());
    lab.found_with(3).unwrap();
    leader(&lab, 0);
    let (over, numbers) = (AtomicBool::new(false), AtomicU64::new(0));
    let stage = Stage { began: Instant::now(), over, numbers };
    let entrances: Vec<Entrance> = (0..3).map(|at| lab.machine(at).entrance()).collect();
    let (histories, mut held) = std::thread::scope(|scope| {
        let stage = &stage;
        let reckoners: Vec<_> = (entrances.iter().cycle().take(4).enumerate())
            .map(|(nth, at)| scope.spawn(move || live(at, reckon(stage, nth as u64))))
            .collect();
        let holders: Vec<_> = (entrances.iter().enumerate())
            .map(|(nth, at)| scope.spawn(move || live(at, hold(stage, 10 + nth as u64))))
            .collect();
        // However this ends, the clients end with it.
        let over = Over(stage);
        strike(&mut lab, stage, lasting);
        drop(over);
        let histories = reckoners.into_iter().flat_map(|one| one.join().unwrap()).collect::<Vec<_>>();
        let held = holders.into_iter().flat_map(|one| one.join().unwrap()).collect::<Vec<_>>();
        (histories, held)
    });
    let unknown = histories.iter().filter(|(_, op)| op.ended.is_none()).count();
    let seconds = stage.began.elapsed().as_secs_f64();
    eprintln!("{} acts, {unknown} without an answer, {} holds, {seconds:.1} s", histories.len(), held.len());
    assert!(histories.len() > 300 && unknown > 0 && held.len() > 20, "they were served, and disturbed");
    let mut keys: BTreeMap<usize, Vec<Op>> = BTreeMap::new();
    histories.iter().for_each(|(key, op)| keys.entry(*key).or_default().push(*op));
    for (key, ops) in &keys {
        assert!(check(ops) == Verdict::Linearizable, "{key}: {:?}: {ops:?}", check(ops));
    }
    assert_eq!(overlap(&mut held), None);
    // The judges see what is wrong.
    let stale = |op: &Op| Op { act: Act::Read(u64::MAX), ..*op };
    let ops = keys.get_mut(&0).expect("the first key was used");
    let read = ops.iter().position(|op| matches!(op.act, Act::Read(_))).expect("somebody read");
    ops[read] = stale(&ops[read]);
    assert_eq!(check(ops), Verdict::Violated);
    held[1].from = held[0].to - 1;
    assert!(overlap(&mut held).is_some());
}

struct Over<'a>(&'a Stage);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, SeqCst);
    }
}

/// Lets two more join, does harm to whoever leads, in every way, and does it again until so much time has passed; in the
/// end one leaves.
fn strike(lab: &mut Lab, stage: &Stage, lasting: Duration) {
    // Two more join: they are to vote once they have been there for a while.
    let token = lab.machine(0).invite(&["--uses", "2"]).unwrap();
    for at in 3..5 {
        lab.machine_mut(at).spawn(&["--join", &token]).unwrap();
    }
    loop {
        strike_once(lab);
        if stage.began.elapsed() >= lasting {
            break;
        }
    }
    vote(lab, 5);
    // One goes for good, and those who are left go on without it.
    let goes = lab.machine(4).name().to_string();
    lab.machine_mut(4).kill_peer();
    lab.machine(0).done(&["machine", "rm", "--force", &goes]).unwrap();
    vote(lab, 4);
}

/// Waits until so many vote.
fn vote(lab: &Lab, voters: usize) {
    let they_do = || match told(lab, 0)? {
        told if told.voters.len() == voters && told.quorum => Ok(()),
        told => Err(format!("{told:?}")),
    };
    until(&format!("{voters} voters"), Duration::from_secs(90), they_do).unwrap();
}

/// Does harm to whoever leads, in every way.
fn strike_once(lab: &mut Lab) {
    let pass = |ms| std::thread::sleep(Duration::from_millis(ms));
    pass(1_500);
    // Its peer dies, and comes back.
    let dies = leader(lab, 0);
    lab.machine_mut(dies).kill_peer();
    pass(1_500);
    lab.machine_mut(dies).start(&[]).unwrap();
    pass(1_000);
    // It stands still for longer than a lease, and goes on as if nothing had been.
    let stops = leader(lab, 0);
    lab.machine(stops).pause();
    pass(3_500);
    lab.machine(stops).resume();
    pass(1_000);
    // It is cut off, and its clients with it.
    let cut = leader(lab, 0);
    lab.isolate(cut).unwrap();
    pass(3_500);
    lab.heal().unwrap();
    // One of two ways is cut.
    let leads = leader(lab, 0);
    lab.cut_one_way(leads, (leads + 1) % 3).unwrap();
    pass(1_500);
    lab.heal().unwrap();
    pass(1_000);
    // Clocks are set: an hour forward where one leads, an hour back beside it, and then right again.
    let leads = leader(lab, 0);
    let clocks = [(leads, HOUR), ((leads + 1) % 3, -HOUR)];
    for (at, seconds) in clocks {
        lab.machine(at).set_clock(seconds).unwrap();
    }
    clock_seen(lab, clocks[0].0, clocks[1].0, -2 * HOUR);
    pass(1_000);
    for (at, _) in clocks {
        lab.machine(at).set_clock(0).unwrap();
    }
    clock_seen(lab, clocks[0].0, clocks[1].0, 0);
}

/// Waits until a machine says how far another's clock is ahead of its own.
fn clock_seen(lab: &Lab, at: usize, other: usize, seconds: i64) {
    let name = lab.machine(other).name();
    let seen = || {
        let told = lab.machine(at).api::<Machines>("/v1/machines").map_err(|error| error.to_string())?;
        let row = told.machines.into_iter().find(|row| row.name == name).ok_or("it is not known")?;
        let is_near = |offset_ms: i64| (offset_ms - seconds * 1_000).abs() < 5_000;
        row.clock_offset_ms.filter(|offset| is_near(*offset)).map(drop).ok_or(format!("{:?}", row.clock_offset_ms))
    };
    until("a clock that was set", PATIENCE, seen).unwrap();
}
