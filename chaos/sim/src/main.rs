//! `sim`: runs seeds of the simulator, on every core.
//!
//! A failing seed is printed as `SEED=n` with what broke; `SEED=n sim` or `sim --seeds n..n` replays
//! it exactly, and with `--trace` tells the whole story.

use std::ops::RangeInclusive;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use rialto_sim::plants::PLANTS;
use rialto_sim::{Plant, Ran, Scenario, Settings, run_many};

#[derive(Parser)]
#[command(about = "Runs Rialto's brain in a virtual world, and breaks it", version)]
struct Args {
    /// The seeds, both ends included: 1..200, or one.
    #[arg(long, default_value = "1..200", value_parser = parse_seeds)]
    seeds: RangeInclusive<u64>,
    /// The seed to replay; it goes before --seeds.
    #[arg(long, env = "SEED", hide = true)]
    seed: Option<u64>,
    /// How many machines.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    peers: u16,
    /// A story instead of what the seed draws: calm, last-words, rack, rolling-restart, six-of-ten, split, two-of-three.
    #[arg(long)]
    scenario: Option<String>,
    /// Plants a bug, which an invariant must catch; `list` names them.
    #[arg(long)]
    plant: Option<String>,
    /// Prints everything that happens.
    #[arg(long)]
    trace: bool,
    /// Prints a line for each seed.
    #[arg(long)]
    verbose: bool,
    /// Prints no more of a failing seed than this many broken promises.
    #[arg(long, default_value_t = 5)]
    broken: usize,
}

fn parse_seeds(text: &str) -> Result<RangeInclusive<u64>, String> {
    let number = |text: &str| text.trim().parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
    let (first, last) = match text.split_once("..") {
        Some((first, last)) => (number(first)?, number(last.trim_start_matches('='))?),
        None => (number(text)?, number(text)?),
    };
    if first > last { Err(format!("{first} is beyond {last}")) } else { Ok(first..=last) }
}

fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    if args.plant.as_deref() == Some("list") {
        for (name, _, invariant, about) in PLANTS {
            println!("{name:<20} {invariant:<24} {about}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let plant = args.plant.as_deref().map(|name| {
        Plant::named(name).ok_or_else(|| anyhow::anyhow!("no plant is called {name}; `--plant list` names them"))
    });
    let plant = plant.transpose()?;
    let scenario = args.scenario.as_deref().map(Scenario::named).transpose()?;
    let machines = scenario.as_ref().and_then(|scenario| scenario.peers).unwrap_or(usize::from(args.peers));
    let seeds = args.seed.map_or(args.seeds.clone(), |seed| seed..=seed);
    let single = seeds.start() == seeds.end();
    if single {
        println!("SEED={}", seeds.start());
    }
    let mut again = format!(" --peers {machines}");
    for (option, value) in [("scenario", &args.scenario), ("plant", &args.plant)] {
        again += &value.as_ref().map_or(String::new(), |value| format!(" --{option} {value}"));
    }
    let began = Instant::now();
    let settings = Settings { seed: 0, machines, scenario, trace: args.trace, plant };
    let failed = run_many(seeds.clone(), &settings, |ran| {
        if !ran.is_fine() || single || args.verbose {
            tell(ran, single, args.broken);
        }
        if !ran.is_fine() && !args.trace {
            println!("  replay: sim --seeds {0}..{0}{again} --trace", ran.seed);
        }
    });
    let count = (seeds.end() - seeds.start()).saturating_add(1);
    eprintln!("{machines} machines, {:.1} s", began.elapsed().as_secs_f64());
    println!("seeds={count} failed={failed}");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints what came of a seed, in one piece.
fn tell(ran: &Ran, single: bool, broken_max: usize) {
    let mut text = if single { String::new() } else { format!("SEED={}\n", ran.seed) };
    let took = ran.took.as_secs_f64();
    match &ran.outcome {
        Err(panic) => text += &format!("  panicked: {panic}\n"),
        Ok(outcome) => {
            let counts = &outcome.counts;
            let settled = outcome.settled_ms.map_or("never".into(), |ms| format!("after {:.1} s", ms as f64 / 1e3));
            text += &format!(
                "  {:.1} s of virtual time in {took:.2} s, {} happenings, {} messages, {} commits, {} containers, \
                 {} of {} wishes acknowledged, settled {settled}, refused {:?}, trace {:016x}\n",
                outcome.lasted_ms as f64 / 1e3,
                counts.happenings,
                counts.messages,
                counts.commits,
                counts.containers,
                outcome.wishes.1,
                outcome.wishes.0,
                counts.refused,
                outcome.trace_hash,
            );
            for broken in outcome.violations.iter().take(broken_max) {
                text += &format!("  {} at {} ms: {}\n", broken.promise, broken.at_ms, broken.text);
            }
        }
    }
    print!("{text}");
}
