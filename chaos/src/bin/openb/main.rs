//! `openb`: how well the market packs GPUs.
//!
//! Replays a trace of a production cluster through the production market, and prints the share of all GPUs
//! that is allocated when tasks have arrived that ask for as many as there are, beside the published
//! results of schedulers that know everything (Weng et al., "Beware of Fragmentation", USENIX ATC '23).

mod account;
mod published;
mod replay;
mod trace;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Parser;
use comfy_table::{Table, presets};
use replay::{Outcome, Settings, replay};
use rialto_protocol::market::auction::{ASKED_MAX, WANTED};

#[derive(Parser)]
#[command(about = "How well Rialto's market packs GPUs, on a trace of a production cluster", version)]
struct Args {
    /// The machines.
    #[arg(long, default_value = "../shared/traces/openb/openb_node_list_gpu_node.csv")]
    nodes: PathBuf,
    /// The tasks; `published_at_full_load.csv` beside the list is shown, too.
    #[arg(long, default_value = "../shared/traces/openb/openb_pod_list_default.csv")]
    tasks: PathBuf,
    /// How many bids a steward wants; so many machines are asked at first.
    #[arg(long, default_value_t = WANTED as u16, value_parser = clap::value_parser!(u16).range(1..=64))]
    bids: u16,
    /// How many machines it asks at most, counting those asked in place of others who declined.
    #[arg(long, default_value_t = ASKED_MAX as u16, value_parser = clap::value_parser!(u16).range(1..=64))]
    asked_max: u16,
    /// How many placements the ledger's view is behind; several make several rows, and the last counts.
    #[arg(long, value_delimiter = ',', default_value = "1000")]
    lag: Vec<u32>,
    /// How many replays, each with an order of its own.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    seeds: u16,
}

/// The replays of one row.
struct Row {
    lag: u32,
    mean: f64,
    stdev: f64,
    asked_per_task: f64,
    waiting: f64,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let hosts = trace::hosts(&args.nodes)?;
    let tasks = trace::tasks(&args.tasks)?;
    let gpus: u64 = hosts.iter().map(|host| host.gpus).sum();
    println!("{} machines, {gpus} GPUs, {} tasks in {}", hosts.len(), tasks.len(), name_of(&args.tasks));
    let mut rows = Vec::new();
    for lag in &args.lag {
        let settings = Settings {
            bids: usize::from(args.bids),
            asked_max: usize::from(args.asked_max.max(args.bids)),
            lag: *lag as usize,
            seed: 0,
        };
        rows.push(row(*lag, &all_seeds(&hosts, &tasks, settings, u64::from(args.seeds))?));
    }
    println!("{}", table(&args, &rows));
    if let Some(row) = rows.last() {
        let Row { mean, stdev, asked_per_task, .. } = row;
        println!("gpu_allocated_percent_mean={mean:.2} stdev={stdev:.2} asked_per_task={asked_per_task:.1}");
    }
    Ok(())
}

/// One replay a seed, on every core.
fn all_seeds(
    hosts: &[trace::Host],
    tasks: &[trace::Task],
    settings: Settings,
    seeds: u64,
) -> anyhow::Result<Vec<Outcome>> {
    let next = AtomicU64::new(1);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut outcomes = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > seeds {
                return anyhow::Ok(outcomes);
            }
            let outcome = replay(hosts, tasks, Settings { seed, ..settings });
            outcomes.push(outcome.map_err(|error| error.context(format!("seed {seed}, lag {}", settings.lag)))?);
        }
    };
    let parts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a replay panicked"))?)
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    Ok(parts.into_iter().flatten().collect())
}

fn row(lag: u32, outcomes: &[Outcome]) -> Row {
    let count = outcomes.len().max(1) as f64;
    let mean = outcomes.iter().map(Outcome::percent).sum::<f64>() / count;
    let squares: f64 = outcomes.iter().map(|outcome| (outcome.percent() - mean).powi(2)).sum();
    let stdev = (squares / (count - 1.0).max(1.0)).sqrt();
    let asked_per_task = outcomes.iter().map(Outcome::asked_per_task).sum::<f64>() / count;
    let waiting = outcomes.iter().map(|outcome| outcome.waiting as f64).sum::<f64>() / count;
    Row { lag, mean, stdev, asked_per_task, waiting }
}

fn table(args: &Args, rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["policy", "knows of the cluster", "GPUs allocated %", "stdev", "asked/task", "waiting"]);
    for row in published::published(&args.tasks) {
        let (mean, stdev) = (format!("{:.2}", row.mean), format!("{:.2}", row.stdev));
        table.add_row([row.policy, "everything".into(), mean, stdev, "all".into(), String::new()]);
    }
    for row in rows {
        table.add_row([
            "Rialto".to_string(),
            format!("{} bids, a view {} behind", args.bids, row.lag),
            format!("{:.2}", row.mean),
            format!("{:.2}", row.stdev),
            format!("{:.1}", row.asked_per_task),
            format!("{:.0}", row.waiting),
        ]);
    }
    table
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}
