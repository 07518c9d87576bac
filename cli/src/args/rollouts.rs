//! `rialto rollout` and `rialto job`.

use clap::{Args as Group, Subcommand};

/// Shows and steers how a changed service is brought about.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  rialto rollout status shop
  rialto rollout pause shop.web
  rialto rollout resume shop.web        goes on, whatever has failed so far
  rialto rollout promote shop.web       beyond its canaries (x-rialto.canary)
  rialto rollout rollback shop.web      to what ran before")]
pub enum Rollout {
    /// Shows how the last change of each service stands.
    #[command(after_help = "Example:\n  rialto rollout status shop")]
    Status(RolloutTarget),
    /// Stops it where it is.
    #[command(after_help = "Example:\n  rialto rollout pause shop.web")]
    Pause(RolloutTarget),
    /// Has it go on, whatever has failed so far.
    #[command(after_help = "Example:\n  rialto rollout resume shop.web")]
    Resume(RolloutTarget),
    /// Has it go on beyond its canaries.
    #[command(after_help = "Example:\n  rialto rollout promote shop.web")]
    Promote(RolloutTarget),
    /// Brings back what ran before.
    #[command(after_help = "Example:\n  rialto rollout rollback shop.web")]
    Rollback(RolloutTarget),
}

#[derive(Debug, Group)]
pub struct RolloutTarget {
    /// An app, or one service of it: needed where several are being changed.
    #[arg(value_name = "APP[.SERVICE]")]
    pub name: String,
}

/// Runs work that ends once more.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Example:
  rialto job dispatch shop.report")]
pub enum Job {
    /// Runs a batch, or what otherwise runs at given times, once now.
    #[command(after_help = "Example:\n  rialto job dispatch shop.report")]
    Dispatch(Dispatch),
}

#[derive(Debug, Group)]
pub struct Dispatch {
    #[arg(value_name = "APP.SERVICE")]
    pub name: String,
}
