//! The verbs of the lock group.

use std::time::Duration;

use clap::{Args as Group, Subcommand};

use crate::human;

/// Runs a command while it holds a lock: one at a time, in the whole cluster.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto lock nightly -- ./backup
  rialto lock --no-wait nightly -- ./backup        not at all, where somebody has it
  rialto lock --wait 10m --ttl 30s deploy -- sh -c 'echo token $RIALTO_FENCE_TOKEN'

It waits in the queue, and holds the lock on a lease that it renews. The command finds its fencing token in
RIALTO_FENCE_TOKEN, which rises with each holder: what the lock protects should refuse a lower one than the highest
that it has seen. Where the lease cannot be renewed the command gets SIGTERM, and SIGKILL before the lease ends.

It exits with the command's code; 124: the lock was not had in time; 125: Rialto's own failure, or the lock was lost.
'etcdctl lock NAME' and this exclude each other.")]
pub struct Lock {
    #[command(flatten)]
    pub lease: Lease,
    /// Waits no longer than this [default: for ever].
    #[arg(long, value_name = "TIME", value_parser = human::duration)]
    pub wait: Option<Duration>,
    /// Does not wait: it has it at once, or not at all.
    #[arg(long, conflicts_with = "wait")]
    pub no_wait: bool,
    #[arg(value_name = "NAME", value_parser = name)]
    pub name: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD", required = true)]
    pub command: Vec<String>,
}

/// Stands for an election, and leads until it ends.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto elect db --value $(hostname)                    prints a line when it leads; Ctrl-C resigns
  rialto elect db --value $(hostname) -- ./primary       runs a command while it leads
  rialto elect db --observe                              who leads, and whoever does after that

A command finds its fencing token in RIALTO_FENCE_TOKEN, and ends as with 'rialto lock'. 'etcdctl elect NAME VALUE' stands
for the same election.")]
pub struct Elect {
    #[command(flatten)]
    pub lease: Lease,
    #[arg(value_name = "NAME", value_parser = name)]
    pub name: String,
    /// What others see of whoever leads: a name, an address.
    #[arg(long, required_unless_present = "observe")]
    pub value: Option<String>,
    /// Only tells who leads, whenever that changes.
    #[arg(long, conflicts_with_all = ["value", "command"])]
    pub observe: bool,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// What is held by.
#[derive(Debug, Group)]
pub struct Lease {
    /// How long it lives on when nothing is heard of it: whole seconds, 3s to 24h.
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = ttl)]
    pub ttl: u32,
}

fn ttl(text: &str) -> Result<u32, String> {
    let time = human::duration(text)?;
    match time.as_secs() {
        seconds @ 3..=86_400 if time.subsec_nanos() == 0 => Ok(seconds as u32),
        _ => Err("a lease is for whole seconds, 3s to 24h".into()),
    }
}

fn name(text: &str) -> Result<String, String> {
    match text.is_empty() || text.chars().any(char::is_control) {
        false => Ok(text.into()),
        true => Err("a lock's name is any text without control characters".into()),
    }
}

/// Locks, and the group that keeps them: who holds what, who votes, and how it is.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  rialto locks ls
  rialto locks show nightly
  rialto locks voters -o json")]
pub enum Locks {
    /// Lists locks and elections that somebody holds or waits for.
    #[command(visible_alias = "list", after_help = "Example:\n  rialto locks ls -o json")]
    Ls,
    /// Shows who holds a lock, or leads, and who waits.
    #[command(after_help = "Example:\n  rialto locks show nightly")]
    Show {
        #[arg(value_name = "NAME", value_parser = name)]
        name: String,
    },
    Break(Break),
    /// Tells whether locks can be had, and what the group holds.
    #[command(after_help = "Example:\n  rialto locks status")]
    Status,
    /// Tells who votes and who leads.
    #[command(after_help = "Example:\n  rialto locks voters -o json")]
    Voters,
    ForceNewGroup(ForceNewGroup),
}

/// Makes the group anew from what the asked peer has, when most of the voters are gone for good.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto locks voters                                 see first who is left
  rialto locks force-new-group --yes-i-lose-leases    on the machine that is left

The asked peer is the only voter then; others join it as they live. Revisions, and with them fencing tokens, go on far
above the old ones. What the old group granted and this peer has not seen is forgotten: should old voters live
somewhere after all, two may hold one lock.")]
pub struct ForceNewGroup {
    /// Says that what was granted last may be lost.
    #[arg(long)]
    pub yes_i_lose_leases: bool,
}

/// Takes a lock from whoever holds it: the holder's lease ends at once, and the next in the queue has it.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto locks show nightly           see first who holds it
  rialto locks break nightly          asks, on a terminal
  rialto locks break --yes nightly

The holder hears of it when it next renews its lease, within a third of its time: until then both may run. Whatever else
hangs on the same lease ends, too.")]
pub struct Break {
    #[arg(value_name = "NAME", value_parser = name)]
    pub name: String,
    /// Asks nothing.
    #[arg(short, long)]
    pub yes: bool,
}
