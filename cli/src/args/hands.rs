//! What is said to look into containers and work in them.

use clap::{ArgAction, Args as Group};

use super::{Variable, variable};

/// Runs a command in the container of a running task, wherever it runs.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto exec shop.web.1 -- ls -l /
  rialto exec -it shop.web.1 -- sh          a shell on a terminal
  rialto exec -i shop.db.1 -- psql < dump   what comes on stdin
  rialto exec -u root -e A=1 shop.web id    a service with one task needs no number

It has the container's user, limits and rights, and exits with the command's code; 126, 127: it could not be
started, or found.")]
pub struct Exec {
    /// Sends what comes on stdin.
    #[arg(short, long)]
    pub interactive: bool,
    /// On a terminal.
    #[arg(short, long)]
    pub tty: bool,
    /// As another user: a name of the container, or a number; USER[:GROUP].
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// In this folder.
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Sets a variable; a name alone takes its value from here.
    #[arg(short, long, value_name = "K=V", action = ArgAction::Append, value_parser = variable)]
    pub env: Vec<Variable>,
    #[arg(value_name = "TASK")]
    pub task: String,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD", required = true)]
    pub command: Vec<String>,
}

/// Shows what a running task writes from now on, and sends it what comes on stdin.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto attach shop.web.1
  rialto attach --no-stdin shop.web.1     only looks

Input reaches services with stdin_open: true; of one with tty: true the terminal is handed over, and Ctrl-P Ctrl-Q
leaves it. Signals are handed on; ending rialto otherwise leaves the task as it is.")]
pub struct Attach {
    /// Sends nothing.
    #[arg(long)]
    pub no_stdin: bool,
    #[arg(value_name = "TASK")]
    pub task: String,
}

/// Copies files and folders between a container and here.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto cp shop.web.1:/etc/hosts .
  rialto cp site shop.web.1:/srv           the folder site into /srv
  rialto cp shop.db.1:/data - > data.tar   a tar archive on stdout; - as the first one is read from stdin")]
pub struct Cp {
    /// PATH here, TASK:PATH, or -.
    #[arg(value_name = "FROM")]
    pub from: String,
    /// PATH here, TASK:PATH, or -.
    #[arg(value_name = "TO")]
    pub to: String,
    /// Keep owners and times, as the archive has them: without it what is copied into a container is root's there, and
    /// what is copied out is yours
    #[arg(short, long)]
    pub archive: bool,
}

/// Shows where the ports of running tasks are reached.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto port shop.web.1
  rialto port shop.web 80
  rialto port shop.dns 53/udp")]
pub struct Port {
    /// A task, a service or an app.
    #[arg(value_name = "APP[.SERVICE[.SLOT]]")]
    pub name: String,
    /// Only this port of the container.
    #[arg(value_name = "PORT[/udp]", value_parser = number)]
    pub port: Option<ContainerPort>,
}

/// A port as a container knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    pub number: u16,
    pub protocol: String,
}

fn number(text: &str) -> Result<ContainerPort, String> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match (number.parse(), protocol) {
        (Ok(number), "tcp" | "udp") => Ok(ContainerPort { number, protocol: protocol.into() }),
        _ => Err(format!("'{text}' is no port: write 80 or 53/udp")),
    }
}

/// Shows what running tasks use: processor, memory, disk, network.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto stats                     all tasks of the cluster, until Ctrl-C
  rialto stats shop.web --no-stream
  rialto stats -o json --no-stream")]
pub struct Stats {
    /// A task, a service or an app.
    #[arg(value_name = "APP[.SERVICE[.SLOT]]")]
    pub name: Option<String>,
    /// Looks once.
    #[arg(long)]
    pub no_stream: bool,
}
