//! The verbs that ask why, and what if.

use std::path::PathBuf;

use clap::{ArgAction, Args as Group};

/// Tells why tasks wait: machine by machine, in the words of whoever decided.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto explain shop           every service of an app
  rialto explain shop.web       one service
  rialto explain shop.web.3     one task
  rialto explain shop -o json")]
pub struct Explain {
    #[arg(value_name = "APP[.SERVICE[.SLOT]]")]
    pub name: String,
}

/// Tells what would happen, and changes nothing: runs every machine's brain on the cluster's own ledger in simulation.
#[derive(Debug, Group)]
#[command(
    group = clap::ArgGroup::new("questions").multiple(true).required(true).args(["lose", "deploy", "add"]),
    after_help = "\
Examples:
  rialto foresee --lose m3                         what would move, what would wait and why, how long it takes
  rialto foresee --lose m2 m3                      both at once
  rialto foresee --deploy shop.yaml --lose m3      whether the app would fit, and survive that
  rialto foresee --deploy big.yaml --add 2 --like m1
  rialto foresee --lose m3 -o json

Newcomers join first, then apps are deployed, then machines are lost, all at one moment. Tasks that run are taken as
running on; nothing ends by itself. One ledger and one --seed have one answer; another seed may place otherwise."
)]
pub struct Foresee {
    /// Machines that lose power; may be repeated.
    #[arg(long, value_name = "MACHINE", num_args = 1.., action = ArgAction::Append)]
    pub lose: Vec<String>,
    /// An app that is deployed as its file says; may be repeated.
    #[arg(long, value_name = "FILE", action = ArgAction::Append)]
    pub deploy: Vec<PathBuf>,
    /// So many machines that join, each as the one that --like names; both may be repeated.
    #[arg(long, value_name = "N", action = ArgAction::Append, requires = "like", value_parser = clap::value_parser!(u16).range(1..=200))]
    pub add: Vec<u16>,
    /// The machine whose cores, memory, resources and labels newcomers have.
    #[arg(long, value_name = "MACHINE", action = ArgAction::Append, requires = "add")]
    pub like: Vec<String>,
    /// What chance does in the simulation.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

/// Moves tasks of services so that machines are evenly loaded, or whole GPUs are free; each when its replacement runs.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto rebalance --dry-run    what would be moved, and what that comes to
  rialto rebalance              move it, of each app one task at a time

Only moves that pay more than a restart costs are made: PAYS is what they pay beyond that, in thousandths of a machine
or of a GPU. A task's replacement runs before the task is stopped; where there is no room, the task stays. Batches are
not moved.")]
pub struct Rebalance {
    /// Moves nothing.
    #[arg(long)]
    pub dry_run: bool,
}
