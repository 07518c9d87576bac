//! `locks-sim`: runs seeds of the lock group's world, on every core.
//!
//! A seed that fails is printed with what broke; `locks-sim --seeds N` replays it exactly.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use clap::Parser;
use rialto_locks::plant::Plant;
use rialto_locks_sim::{Only, Outcome, Settings, run};

#[derive(Parser)]
#[command(about = "Runs Rialto's lock group in a virtual world, and breaks it", version)]
struct Args {
    /// The seeds, both ends included: 1..200, or one.
    #[arg(long, default_value = "1..100", value_parser = seeds)]
    seeds: (u64, u64),
    /// How many machines.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u8).range(1..=12))]
    peers: u8,
    /// How many clients; every other queues for the lock.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=32))]
    clients: u8,
    /// For how long things go wrong, virtual seconds.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Plants a bug, which must be caught: stale-read, double-grant, blind-renewal, hasty-promise.
    #[arg(long, value_parser = plant)]
    plant: Option<Plant>,
    /// Nothing but this goes wrong.
    #[arg(long)]
    only: Option<Only>,
    /// Prints a line for each seed.
    #[arg(long)]
    verbose: bool,
}

fn seeds(text: &str) -> Result<(u64, u64), String> {
    let number = |text: &str| text.trim().parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    if first > last { Err(format!("{first} is beyond {last}")) } else { Ok((first, last)) }
}

fn plant(name: &str) -> Result<Plant, String> {
    Plant::ALL.into_iter().find(|plant| plant.name() == name).ok_or_else(|| format!("no plant is called {name}"))
}

fn main() -> ExitCode {
    let args = Args::parse();
    let began = Instant::now();
    let next = AtomicU64::new(args.seeds.0);
    let total = Mutex::new((Outcome::default(), 0u64));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed > args.seeds.1 {
                        return;
                    }
                    let (nodes, clients) = (usize::from(args.peers), usize::from(args.clients));
                    let settings =
                        Settings { seed, nodes, clients, seconds: args.seconds, plant: args.plant, only: args.only };
                    // An assertion of the library's that fails is a broken promise, too.
                    let panicked = |_| Outcome { broken: vec!["it panicked".into()], ..Outcome::default() };
                    let outcome = std::panic::catch_unwind(|| run(settings)).unwrap_or_else(panicked);
                    count(&mut total.lock().expect("nobody panics with the lock"), seed, outcome, args.verbose);
                }
            });
        }
    });
    let (all, failed) = total.into_inner().expect("nobody panics with the lock");
    let seeds = args.seeds.1 - args.seeds.0 + 1;
    println!(
        "{seeds} seeds, {failed} failed: {} acts on keys, {} grants of the lock, {} terms, up to {} voters, {} keys undecided, {:.1} s",
        all.acts,
        all.grants,
        all.terms,
        all.voters,
        all.undecided,
        began.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn count((all, failed): &mut (Outcome, u64), seed: u64, outcome: Outcome, verbose: bool) {
    for broken in outcome.broken.iter().take(3) {
        println!("SEED={seed}: {broken}");
    }
    if verbose {
        println!("seed {seed}: {outcome:?}");
    }
    *failed += u64::from(!outcome.broken.is_empty());
    all.acts += outcome.acts;
    all.grants += outcome.grants;
    all.terms += outcome.terms;
    all.voters = all.voters.max(outcome.voters);
    all.undecided += outcome.undecided;
}
