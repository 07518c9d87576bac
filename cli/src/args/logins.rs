//! What is said about registries that ask who comes.

use clap::Args as Group;

/// Logs in at a registry, for every machine of the cluster.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto login registry.example:5000 -u ada             asks for the password
  pass show registry | rialto login registry.example -u ada --password-stdin
  rialto login --list

The registry is asked whether it opens before anything is kept. The password lies sealed on every machine; the one that
needs an image opens it. What a machine's own configuration has for a registry goes before it.")]
pub struct Login {
    /// HOST[:PORT], as images of it are named; docker.io is Docker's.
    #[arg(value_name = "REGISTRY", required_unless_present = "list")]
    pub registry: Option<String>,
    #[arg(short, long, value_name = "NAME", required_unless_present = "list")]
    pub user: Option<String>,
    /// Reads the password, or a token, from stdin.
    #[arg(long)]
    pub password_stdin: bool,
    /// Does not ask the registry: the peer that is asked may not reach it.
    #[arg(long)]
    pub unchecked: bool,
    /// Lists the registries that somebody has logged in at.
    #[arg(long, conflicts_with_all = ["registry", "user", "password_stdin", "unchecked"])]
    pub list: bool,
}

/// Forgets what somebody logged in with at a registry.
#[derive(Debug, Group)]
#[command(after_help = "Example:\n  rialto logout registry.example:5000")]
pub struct Logout {
    #[arg(value_name = "REGISTRY")]
    pub registry: String,
}
