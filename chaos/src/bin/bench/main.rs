//! `make bench`: what Rialto takes, measured on real peers, as medians with their spread.
//!
//! Each of three peers has a machine of its own (network, mount and host-name namespaces) in one kernel, and twenty and
//! fifty share the loopback interface: all share the cores of this machine. Every figure stands beside what is promised.

mod crowd;
mod deaths;
mod figures;
mod graph;
mod names;
mod placing;
mod rest;
mod runs;
mod stream;

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use rialto_chaos::netns::{can_build, clear_on_interrupt, sweep};

use figures::Figures;

/// The parts, as `--only` names them.
const PARTS: [&str; 8] = ["run", "place", "stream", "graph", "rest", "crowd", "death", "names"];

/// Measures Rialto on real peers.
#[derive(Parser)]
struct Arguments {
    /// A fifth of the samples or fewer: to see that it works, not to quote.
    #[arg(long)]
    quick: bool,
    /// Only these: run, place, stream, graph, rest, crowd, death, names.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

impl Arguments {
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }

    /// How many samples: enough for a median and its spread, or enough for a glance.
    fn samples(&self, quick: usize, full: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(unknown) = arguments.only.iter().find(|only| !PARTS.contains(&only.as_str())) {
        bail!("there is no part {unknown}: {}", PARTS.join(", "));
    }
    clear_on_interrupt()?;
    sweep()?;
    if let Err(reason) = can_build() {
        bail!("the bench needs machines as network namespaces: {reason}");
    }
    let mut figures = Figures::default();
    if arguments.wants("run") {
        runs::measure(&mut figures, arguments.samples(5, 30))?;
    }
    if arguments.wants("place") {
        placing::measure(&mut figures, arguments.samples(3, 20))?;
    }
    if arguments.wants("stream") {
        stream::measure(&mut figures, arguments.samples(2_000, 10_000), arguments.samples(500, 3_000))?;
    }
    if arguments.wants("graph") {
        graph::measure(&mut figures, arguments.samples(3, 10))?;
    }
    if arguments.wants("rest") {
        rest::measure(&mut figures, Duration::from_secs(arguments.samples(10, 60) as u64))?;
    }
    if arguments.wants("crowd") {
        for (peers, rests) in [(20, false), (50, true)] {
            let rest = rests.then(|| Duration::from_secs(arguments.samples(20, 60) as u64));
            crowd::measure(&mut figures, peers, arguments.samples(20, 100), rest)?;
        }
    }
    if arguments.wants("death") {
        deaths::measure(&mut figures, arguments.samples(2, 20))?;
    }
    if arguments.wants("names") {
        names::measure(&mut figures, arguments.samples(1, 5), arguments.samples(2, 5) as u64)?;
    }
    figures.print();
    Ok(())
}
