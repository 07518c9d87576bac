//! What is said to have apps run: their files, and what is done with them.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args as Group, ValueEnum};

use super::app;
use crate::human;

/// The files of an app, and how they are read.
#[derive(Clone, Debug, Default, Group)]
pub struct AppFiles {
    /// The app file, in Compose format; - reads stdin; further ones go over it [default: compose.yaml, compose.yml,
    /// docker-compose.yaml or docker-compose.yml, and its override file].
    #[arg(short, long, value_name = "FILE", action = ArgAction::Append)]
    pub file: Vec<PathBuf>,
    /// The app's name.
    #[arg(long, value_name = "NAME", value_parser = app)]
    pub app: Option<String>,
    /// Runs the services of this profile, too; * is all [default: COMPOSE_PROFILES].
    #[arg(long, value_name = "NAME", action = ArgAction::Append)]
    pub profile: Vec<String>,
    /// Variables for the file, in place of the .env beside it.
    #[arg(long, value_name = "FILE", action = ArgAction::Append)]
    pub env_file: Vec<PathBuf>,
    /// Refuses what is otherwise warned about.
    #[arg(long)]
    pub strict: bool,
}

/// Makes an app run as its file says.
#[derive(Debug, Group)]
#[command(
    visible_alias = "up",
    after_help = "\
Examples:
  rialto deploy                                the Compose file in this folder
  rialto deploy -f shop.yaml --app shop
  rialto deploy -f base.yaml -f more.yaml      the second goes over the first
  rialto deploy --profile debug
  generate | rialto deploy -f - --app shop --detach

The app's name is --app, or the file's 'name:', or that of the file's folder. Shows what would change, and asks, on a
terminal. Waits until every replica runs; exits 6 when the time is over first, 7 where no machine could hold it."
)]
pub struct Deploy {
    #[command(flatten)]
    pub files: AppFiles,
    /// Asks nothing.
    #[arg(short, long)]
    pub yes: bool,
    /// Does not wait until it runs.
    #[arg(short, long)]
    pub detach: bool,
    /// Runs what the names of images mean now, and not what they meant when the app was first deployed.
    #[arg(long)]
    pub resolve: bool,
    /// Waits no longer than this.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = human::duration)]
    pub timeout: Duration,
}

/// Shows what a deploy would change, and changes nothing.
#[derive(Debug, Group)]
#[command(
    visible_alias = "diff",
    after_help = "\
Examples:
  rialto plan                        the Compose file in this folder, beside what runs
  rialto plan -f shop.yaml -o json
  rialto plan --offline -f shop.yaml checks the file alone; no peer is asked
  rialto plan --offline --strict     what is passed over is refused, too

Exits 4 where the file is refused, with line, column and reason."
)]
pub struct Plan {
    #[command(flatten)]
    pub files: AppFiles,
    /// Judges the file alone: no peer is asked.
    #[arg(long)]
    pub offline: bool,
    /// As deploy --resolve.
    #[arg(long)]
    pub resolve: bool,
}

/// Removes an app: the one that is named, or else the one of the file in this folder.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto down                 the app of the Compose file in this folder
  rialto down shop --yes      as 'rialto rm shop --yes'")]
pub struct Down {
    #[arg(value_name = "APP", value_parser = app)]
    pub apps: Vec<String>,
    #[command(flatten)]
    pub files: AppFiles,
    /// Asks nothing.
    #[arg(short, long)]
    pub yes: bool,
}

/// Starts the tasks of a service, or of all of an app's, anew; or one task.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto restart shop.web
  rialto restart shop           every service
  rialto restart shop.web.2     one task; it may start elsewhere
  rialto restart shop --detach

Services are replaced as if the app had been changed, and waited for.")]
pub struct Restart {
    #[arg(value_name = "APP[.SERVICE[.SLOT]]")]
    pub name: String,
    /// Does not wait until they run.
    #[arg(short, long)]
    pub detach: bool,
    /// Waits no longer than this.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = human::duration)]
    pub timeout: Duration,
}

/// Waits until an app runs as it should, or has finished.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto wait shop                          every replica runs
  rialto wait shop.web.1 --until finished   one task has ended
  rialto wait job --timeout 1h              of an app of batches alone: all has finished

Exits 6 when the time is over first; 1 where what finished has failed.")]
pub struct Wait {
    #[arg(value_name = "APP[.SERVICE[.SLOT]]")]
    pub name: String,
    /// What is waited for [default: finished for batches, running for all else].
    #[arg(long, value_enum)]
    pub until: Option<Until>,
    /// Waits no longer than this.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = human::duration)]
    pub timeout: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Until {
    Running,
    Finished,
}
