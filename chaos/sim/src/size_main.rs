//! `size`: many peers with the production brain in one process, from a ledger that is already there.
//!
//! It prints what a peer says and hears, idle and under load, what its events cost, what its ledger
//! takes, and how long one record takes to all.

use std::time::{Duration, Instant};

use clap::Parser;
use rialto_protocol::event::Request;
use rialto_protocol::ids::ChangeId;
use rialto_protocol::model::AppSpec;
use rialto_sim::Dice;
use rialto_sim::size::crowd::WALL_MS;
use rialto_sim::size::standing::service;
use rialto_sim::size::tally::Cost;
use rialto_sim::size::{Crowd, Standing, Tally};

#[derive(Parser)]
#[command(about = "Runs Rialto's brain a thousand times in one process, and counts", version)]
struct Args {
    #[arg(long, default_value_t = 100)]
    peers: usize,
    #[arg(long, default_value_t = 1_000)]
    tasks: usize,
    /// How long the peers live before anything is counted, s.
    #[arg(long, default_value_t = 30)]
    settle: u64,
    /// How long nothing happens, s.
    #[arg(long, default_value_t = 30)]
    idle: u64,
    /// How long tasks are placed, s.
    #[arg(long, default_value_t = 10)]
    load: u64,
    /// Placements a second under load.
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// How many records' ways to all are timed.
    #[arg(long, default_value_t = 20)]
    records: usize,
    /// Halves the cluster for so long and heals it, in place of the other measurements, s.
    #[arg(long)]
    split: Option<u64>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Prints every kind of message and event.
    #[arg(long)]
    kinds: bool,
}

fn main() {
    let args = Args::parse();
    println!("{} peers, {} tasks, seed {}", args.peers, args.tasks, args.seed);
    let began = Instant::now();
    let standing = Standing::new(args.seed, args.peers, args.tasks, WALL_MS);
    let bytes: usize = standing.records.iter().map(|one| one.record.size()).sum();
    println!("ledger: {} records, {} bytes", standing.records.len(), bytes);
    let mut crowd = Crowd::new(args.seed, &standing, |at| {
        if (at + 1).is_multiple_of(1_000) {
            eprintln!("{} peers have started, {:.0} s", at + 1, began.elapsed().as_secs_f64());
        }
    });
    drop(standing);
    println!("started in {:.1} s, {} MiB resident", began.elapsed().as_secs_f64(), resident_mib());
    if let Some(seconds) = args.split {
        return split(&mut crowd, &args, seconds);
    }
    phase(&mut crowd, &args, "settling", args.settle, |_, _| {});
    phase(&mut crowd, &args, "idle", args.idle, |_, _| {});
    let mut dice = Dice::new(args.seed, "load");
    let mut apps = 0;
    let rate = args.rate;
    phase(&mut crowd, &args, "load", args.load, |crowd, _| {
        // Ten apps a second, each on some peer's word.
        apps += 1;
        let mut web = service((rate / 10).max(1) as u32);
        web.environment.insert("RUN".into(), apps.to_string());
        let spec = AppSpec { services: [("web".to_string(), web)].into(), single_run: false };
        let peer = dice.below(crowd.len() as u64) as usize;
        let (change, app) = (ChangeId(dice.bytes()), format!("load{apps}"));
        crowd.ask(peer, Request::Deploy { change, author: "ops".into(), app, spec });
    });
    if args.load > 0 {
        crowd.run_for(5_000);
        println!("placed: {} of {}", running(&crowd, &args), args.tasks as u64 + apps * (rate / 10).max(1));
    }
    spread(&mut crowd, &args, &mut dice);
    println!("{} MiB resident, {:.0} s in all", resident_mib(), began.elapsed().as_secs_f64());
}

/// Claims that run, as one peer sees them.
fn running(crowd: &Crowd, args: &Args) -> usize {
    let view = crowd.brain(args.peers / 2).view(crowd.now());
    view.tasks(&Default::default()).iter().filter(|row| row.state == "running").count()
}

/// Lets `seconds` pass, ten times a second with a word to the crowd, and tells what was counted.
fn phase(crowd: &mut Crowd, args: &Args, name: &str, seconds: u64, mut each: impl FnMut(&mut Crowd, u64)) {
    if seconds == 0 {
        return;
    }
    crowd.tally = Tally::default();
    let (began, worked) = (Instant::now(), processor_seconds());
    for step in 0..seconds * 10 {
        each(crowd, step);
        crowd.run_for(100);
    }
    let tally = std::mem::take(&mut crowd.tally);
    tell(crowd, &tally, name, seconds, (began.elapsed(), processor_seconds() - worked), args);
}

fn tell(crowd: &Crowd, tally: &Tally, name: &str, seconds: u64, took: (Duration, f64), args: &Args) {
    let each = (args.peers as u64 * seconds) as f64;
    let (total, cost) = (tally.total(), tally.cost());
    let (links, links_most) = crowd.links();
    println!(
        "{name}: {seconds} s in {:.1} s real, {:.1} s of the processor; a peer: {:.1} messages/s, {:.0} bytes/s ({:.0} kb/s), {links:.1} links (most \
         {links_most}, eager {:.2}), {:.1} events/s, {:.1} us an event (most {:.1} ms), {:.2} % of a core; frames new {} again {}, \
         vitals new {} again {}; refused {:?}",
        took.0.as_secs_f64(),
        took.1,
        total.messages as f64 / each,
        total.bytes as f64 / each,
        total.bytes as f64 / each * 8.0 / 1000.0,
        crowd.eager(),
        cost.events as f64 / each,
        micros(&cost),
        cost.most.as_secs_f64() * 1e3,
        cost.took.as_secs_f64() / each * 100.0,
        tally.news,
        tally.duplicates,
        tally.vitals_news,
        tally.vitals_duplicates,
        tally.reports,
    );
    if args.kinds {
        tell_traffic(tally, each, "/s");
        for (word, cost) in &tally.costs {
            let most = cost.most.as_secs_f64() * 1e3;
            println!(
                "    {word:<14} {:>9.2} events/s {:>9.1} us, most {most:.1} ms",
                cost.events as f64 / each,
                micros(cost)
            );
        }
    }
}

fn tell_traffic(tally: &Tally, each: f64, per: &str) {
    for (word, traffic) in &tally.traffic {
        let (messages, bytes) = (traffic.messages as f64 / each, traffic.bytes as f64 / each);
        println!("    {word:<14} {messages:>9.2} messages{per} {bytes:>10.0} bytes{per}");
    }
}

fn micros(cost: &Cost) -> f64 {
    cost.took.as_secs_f64() * 1e6 / cost.events.max(1) as f64
}

/// How long single records take to all.
fn spread(crowd: &mut Crowd, args: &Args, dice: &mut Dice) {
    let (mut took, mut last, mut late) = (Vec::new(), Vec::new(), 0);
    for _ in 0..args.records {
        let pause = 100 + dice.below(400);
        crowd.run_for(pause);
        let (each, lacking) = crowd.spread_one(dice.below(args.peers as u64) as usize, 30_000);
        last.extend(each.iter().max());
        took.extend(each);
        late += lacking;
    }
    took.sort_unstable();
    last.sort_unstable();
    let ms = |all: &[u64], share: f64| {
        all.get(((all.len() as f64 - 1.0) * share) as usize).map_or(0.0, |us| *us as f64 / 1e3)
    };
    println!(
        "one record to a peer: p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms; to all: p50 {:.1} ms; never in 30 s: {late}",
        ms(&took, 0.5),
        ms(&took, 0.99),
        ms(&took, 1.0),
        ms(&last, 0.5),
    );
}

/// Halves the cluster, lets people edit on both sides, heals it, and tells when all hold one ledger and exactly
/// the wanted tasks run.
fn split(crowd: &mut Crowd, args: &Args, seconds: u64) {
    const LOOK_MS: u64 = 100;
    const HEALED_MS_MAX: u64 = 120_000;
    crowd.run_for(args.settle * 1000);
    crowd.split(args.peers / 2);
    let mut dice = Dice::new(args.seed, "split");
    for step in 0..seconds {
        crowd.run_for(1_000);
        if step % 20 == 10 {
            let peer = dice.below(args.peers as u64) as usize;
            let replicas = 50 + dice.below(60) as u32;
            let app = format!("app{}", dice.below((args.tasks / 100).max(1) as u64));
            let change = ChangeId(dice.bytes());
            crowd.ask(peer, Request::Scale { change, author: "ops".into(), app, service: None, replicas });
        }
    }
    let (missing, extra) = crowd.unsettled();
    println!(
        "split for {seconds} s: {} of {} hold another ledger than the first; {missing} tasks missing, {extra} twice",
        crowd.differing(),
        args.peers
    );
    crowd.tally = Tally::default();
    crowd.heal();
    let healed = crowd.now_ms();
    let (mut one_digest, mut settled) = (None, None);
    while crowd.now_ms() < healed + HEALED_MS_MAX && (one_digest.is_none() || settled.is_none()) {
        crowd.run_for(LOOK_MS);
        let after = crowd.now_ms() - healed;
        let (differing, unsettled) = (crowd.differing(), crowd.unsettled());
        one_digest = if differing == 0 { one_digest.or(Some(after)) } else { None };
        settled = if unsettled == (0, 0) { settled.or(Some(after)) } else { None };
        if args.kinds {
            println!("    {after} ms: {differing} differ, {} missing, {} twice", unsettled.0, unsettled.1);
        }
    }
    let bytes = crowd.tally.total().bytes / args.peers as u64;
    if args.kinds {
        tell_traffic(&crowd.tally, args.peers as f64, " a peer");
    }
    let told = |ms: Option<u64>| ms.map_or("never".to_string(), |ms| format!("after {:.1} s", ms as f64 / 1e3));
    println!(
        "healed: one digest {}, exactly the wanted tasks {}; {bytes} bytes a peer",
        told(one_digest),
        told(settled)
    );
}

/// The processor's time that this process has had, s; in Linux's hundredths.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks = behind_name.split_whitespace().skip(11).take(2).filter_map(|one| one.parse::<u64>().ok());
    ticks.sum::<u64>() as f64 / 100.0
}

/// What this process takes, MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or(0) / 1024
}
