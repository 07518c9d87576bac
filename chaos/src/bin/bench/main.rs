//! `make bench`: what Rialto takes, measured on three real peers, as medians with their spread.
//!
//! Each peer has a machine of its own (network, mount and host-name namespaces) in one kernel, so three peers
//! share the cores of this one. Every figure stands beside what is promised.

mod deaths;
mod figures;
mod placing;
mod rest;
mod runs;

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Parser;
use rialto_chaos::netns::{can_build, clear_on_interrupt, sweep};

use figures::Figures;

/// Measures Rialto on three real peers.
#[derive(Parser)]
struct Arguments {
    /// A fifth of the samples or fewer: to see that it works, not to quote.
    #[arg(long)]
    quick: bool,
    /// Only these: run, place, rest, death.
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
    if let Some(unknown) =
        arguments.only.iter().find(|only| !["run", "place", "rest", "death"].contains(&only.as_str()))
    {
        bail!("there is no part {unknown}: run, place, rest, death");
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
    if arguments.wants("rest") {
        rest::measure(&mut figures, Duration::from_secs(arguments.samples(10, 60) as u64))?;
    }
    if arguments.wants("death") {
        deaths::measure(&mut figures, arguments.samples(2, 20))?;
    }
    figures.print();
    Ok(())
}
