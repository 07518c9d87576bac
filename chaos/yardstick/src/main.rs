//! `yardstick`: our membership beside SWIM, in one virtual network.
//!
//! Ours is the production `Membership` over streams; the other is the crate `foca` over datagrams.
//! The same packets are lost to both: to a datagram that is the end of it, to a stream it is a
//! retransmission. What is measured is the time from a death until each survivor holds the dead for
//! down, and how often a machine without fault is held for down.

mod air;
mod detector;
mod news;
mod ours;
mod queue;
mod streams;
mod swim;
mod table;
mod trial;

use std::time::Instant;

use clap::Parser;

use detector::Detector;
use trial::{Outcome, Plan, Trial, Weather};

#[derive(Parser)]
#[command(about = "Measures membership beside SWIM, in virtual time", version)]
struct Args {
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only clusters of these sizes.
    #[arg(long, value_delimiter = ',', default_value = "3,10,100,1000")]
    machines: Vec<usize>,
    /// Only trials whose name holds this.
    #[arg(long, default_value = "")]
    only: String,
    /// An hour at 10 % loss, too: nobody may be held for down falsely.
    #[arg(long)]
    hour: bool,
    /// Ours alone.
    #[arg(long)]
    ours: bool,
}

/// What both have to pass.
fn trials(hour: bool) -> Vec<Trial> {
    let mut trials = Vec::new();
    let mut add = |name: &str, machines, plan, weather| {
        trials.push(Trial { name: name.into(), machines, plan, weather });
    };
    let calm = Weather::default();
    for (machines, crashes) in [(100, 20), (1000, 10)] {
        for loss in [0, 5, 10, 20] {
            let weather = Weather { loss: f64::from(loss) / 100.0, ..calm };
            add(&format!("crashes, {loss} % lost"), machines, Plan::Crashes(crashes), weather);
        }
        add("crashes, 1 % hear 20 %", machines, Plan::Crashes(crashes), Weather { deaf: 0.8, ..calm });
        add("crashes, 1 % pause", machines, Plan::Crashes(crashes), Weather { pauses: true, ..calm });
    }
    for (machines, dead) in [(3, 2), (10, 7), (100, 70), (1000, 700)] {
        add(&format!("{dead} die at once"), machines, Plan::MassDeath(dead), calm);
    }
    if hour {
        add("an hour, 10 % lost", 1000, Plan::Rest { ms: 3_600_000 }, Weather { loss: 0.1, ..calm });
    }
    trials
}

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    let mut trials = trials(args.hour);
    trials.retain(|trial| args.machines.contains(&trial.machines) && trial.name.contains(&args.only));
    println!("{}", table::MODEL);
    let began = Instant::now();
    let outcomes = measure(&trials, &args);
    table::print(&trials, &outcomes);
    println!("seed {}, {:.0} s", args.seed, began.elapsed().as_secs_f64());
    // While nobody dies nobody may be held for down.
    let rests = trials.iter().zip(&outcomes).filter(|(trial, _)| matches!(trial.plan, Plan::Rest { .. }));
    match rests.filter_map(|(_, [ours, _])| ours.as_ref()).all(|ours| ours.false_downs.0 == 0 && ours.missed == 0) {
        true => std::process::ExitCode::SUCCESS,
        false => std::process::ExitCode::FAILURE,
    }
}

/// Each trial with ours and, where wanted, with the other, on every core.
fn measure(trials: &[Trial], args: &Args) -> Vec<[Option<Outcome>; 2]> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let outcomes = std::sync::Mutex::new(vec![[None, None]; trials.len()]);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let nth = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    // The largest first: then no core waits long for the last.
                    let Some(at) = trials.len().checked_sub(1 + nth / 2) else { return };
                    if nth % 2 == 1 && args.ours {
                        continue;
                    }
                    let (trial, machines) = (&trials[at], trials[at].machines);
                    let began = Instant::now();
                    let mut cluster: Box<dyn Detector> = match nth % 2 {
                        0 => Box::new(ours::Cluster::new(machines, args.seed)),
                        _ => Box::new(swim::Cluster::new(machines, args.seed)),
                    };
                    let outcome = trial::run(trial, cluster.as_mut());
                    let took_s = began.elapsed().as_secs_f64();
                    let who = ["ours", "foca"][nth % 2];
                    eprintln!("{machines} machines, {}, {who}: {took_s:.0} s, {:?}", trial.name, outcome.costs);
                    outcomes.lock().expect("nobody panics with the lock")[at][nth % 2] = Some(outcome);
                }
            });
        }
    });
    outcomes.into_inner().expect("nobody panics with the lock")
}
