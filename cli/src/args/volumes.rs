//! What is said about volumes and secrets.

use std::path::PathBuf;

use clap::{Args as Group, Subcommand};

/// Looks after named volumes: each lies on one machine, and its tasks run there.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  rialto volume ls
  rialto volume backup shop/pgdata > pgdata.tar
  rialto volume release shop/pgdata      its machine is down for good: the task begins anew elsewhere

A volume of an app is APP/NAME, one that apps share is NAME.")]
pub enum Volume {
    /// Lists the volumes of the cluster, and where each lies.
    #[command(visible_alias = "list", after_help = "Example:\n  rialto volume ls -o json")]
    Ls,
    /// Shows one volume: who names it, what it takes, where it lies.
    #[command(after_help = "Example:\n  rialto volume inspect shop/pgdata")]
    Inspect(OneVolume),
    /// Makes a volume before anything uses it; `external: true` needs that.
    #[command(after_help = "Example:\n  rialto volume create media --machine m3")]
    Create {
        #[arg(value_name = "NAME")]
        name: String,
        /// Where it is to lie [default: the machine that is asked].
        #[arg(long, value_name = "MACHINE")]
        machine: Option<String>,
    },
    /// Deletes volumes that nothing uses, with everything in them.
    #[command(
        visible_alias = "remove",
        after_help = "\
Examples:
  rialto volume rm shop/pgdata
  rialto volume rm shop/pgdata --machine m3      the one there that was given up
  rialto volume rm 018f6b2c9a7d4e51b3c20a4f5d6e7f80      any of them, by the id that 'ls -o json' shows"
    )]
    Rm {
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// The machine whose volume of that name is meant, where it is not the one that counts: of two on one machine it is
        /// the one that was given up.
        #[arg(long, value_name = "MACHINE")]
        machine: Option<String>,
        /// Though an app names it.
        #[arg(short, long)]
        force: bool,
        /// Asks nothing.
        #[arg(short, long)]
        yes: bool,
    },
    /// Gives up a volume whose machine is down: its tasks start elsewhere, with an empty one.
    #[command(after_help = "\
Example:
  rialto volume release shop/pgdata

When the machine comes back its data is still there; it counts no more, and 'rialto volume rm --machine' deletes it.")]
    Release {
        #[arg(value_name = "NAME")]
        name: String,
        /// Asks nothing.
        #[arg(short, long)]
        yes: bool,
    },
    /// Writes everything in a volume as a tar archive, to a file or stdout.
    #[command(after_help = "\
Examples:
  rialto volume backup shop/pgdata pgdata.tar
  rialto volume backup shop/pgdata | zstd > pgdata.tar.zst

A program that writes meanwhile may leave files half written: scale it to 0 first, or use its own way.")]
    Backup {
        #[command(flatten)]
        volume: OneVolume,
        /// '-' is stdout.
        #[arg(value_name = "FILE|-", default_value = "-")]
        file: PathBuf,
    },
    /// Replaces all that a volume holds with what a tar archive holds.
    #[command(after_help = "\
Examples:
  rialto volume restore shop/pgdata pgdata.tar
  zstd -d < pgdata.tar.zst | rialto volume restore shop/pgdata -

It is replaced in one step when the whole archive has come: a restore that breaks off changes nothing. No task may use
the volume meanwhile. One that is not there is made, on the machine that is asked or on --machine.")]
    Restore {
        #[command(flatten)]
        volume: OneVolume,
        /// '-' is stdin.
        #[arg(value_name = "FILE|-", default_value = "-")]
        file: PathBuf,
    },
}

/// One volume.
#[derive(Debug, Group)]
pub struct OneVolume {
    /// Its name, or its id.
    #[arg(value_name = "NAME")]
    pub name: String,
    /// The machine whose volume of that name is meant, where it is not the one that counts.
    #[arg(long, value_name = "MACHINE")]
    pub machine: Option<String>,
}

/// Looks after secrets: what tasks get as files and nobody else is shown.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  rialto secret set shop/db-password < password.txt
  pwgen 32 1 | tr -d '\\n' | rialto secret set mail-token
  rialto secret ls

A secret of an app is APP/NAME, one that apps share ('external: true') is NAME. It lies sealed on every machine, and is
opened by the machine that runs a task which gets it. Tasks that run keep what they were started with.")]
pub enum Secret {
    /// Sets a secret to what a file or stdin holds, to the last byte.
    #[command(after_help = "\
Examples:
  rialto secret set shop/db-password password.txt
  printf %s \"$TOKEN\" | rialto secret set mail-token")]
    Set {
        #[arg(value_name = "NAME")]
        name: String,
        /// '-' is stdin.
        #[arg(value_name = "FILE|-", default_value = "-")]
        file: PathBuf,
    },
    /// Lists the secrets that are set, never what they say.
    #[command(visible_alias = "list", after_help = "Example:\n  rialto secret ls -o json")]
    Ls,
    /// Removes secrets; tasks that run keep them.
    #[command(visible_alias = "remove", after_help = "Example:\n  rialto secret rm shop/db-password")]
    Rm {
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
    },
}
