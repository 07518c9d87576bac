//! What can be said on the command line.

mod apps;
mod hands;
mod locks;
mod logins;
mod questions;
mod rollouts;
mod volumes;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args as Group, Parser, Subcommand, ValueEnum};
use rialto_protocol::compose;
use rialto_protocol::model::{NetworkMode, PortSpec};

use crate::human;
pub use apps::{AppFiles, Deploy, Down, Plan, Restart, Until, Wait};
pub use hands::{Attach, Cp, Exec, Port, Stats};
pub use locks::{Elect, Lock, Locks};
pub use logins::{Login, Logout};
pub use questions::{Explain, Foresee, Rebalance};
pub use rollouts::{Job, Rollout, RolloutTarget};
pub use volumes::{OneVolume, Secret, Volume};

const ABOUT_CODES: &str = "\
Exit codes:
  0 done   1 failed   2 wrong command line   3 not found   4 refused or invalid
  5 no peer reachable   6 timed out   7 cannot be placed
  'rialto run', 'exec', 'lock' and 'elect' exit with the code of what they ran; 128+n: ended by signal n;
  124: the lock was not had in time; 125: Rialto's own failure; 126, 127: the program could not be
  started, or found.

Environment:
  RIALTO_API        as --api; several, separated by commas, are tried in turn
  RIALTO_SOCKET     as --socket
  RIALTO_API_TOKEN  the token for --api: what is in the peer's DATA/api-token";

/// Runs containers on machines that need no master. Any verb works at any peer.
#[derive(Debug, Parser)]
#[command(name = "rialto", version, after_help = ABOUT_CODES, max_term_width = 100, disable_help_subcommand = true)]
pub struct Args {
    #[command(flatten)]
    pub door: Door,
    /// How data is printed on stdout.
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Format,
    #[command(subcommand)]
    pub verb: Verb,
}

/// Which peer is asked.
#[derive(Debug, Group)]
pub struct Door {
    /// A peer's address, http://HOST:PORT; needs RIALTO_API_TOKEN.
    #[arg(long, global = true, value_name = "URL", conflicts_with = "socket")]
    pub api: Option<String>,
    /// A peer's Unix socket [default: this machine's peer].
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    Run(Run),
    Deploy(Deploy),
    Plan(Plan),
    Ps(Ps),
    Logs(Logs),
    Exec(Exec),
    Attach(Attach),
    Cp(Cp),
    Port(Port),
    Stats(Stats),
    Wait(Wait),
    Restart(Restart),
    Stop(Stop),
    Rm(Rm),
    Down(Down),
    Scale(Scale),
    History(History),
    Rollback(Rollback),
    #[command(subcommand)]
    Rollout(Rollout),
    #[command(subcommand)]
    Job(Job),
    Status(Status),
    Explain(Explain),
    Foresee(Foresee),
    Rebalance(Rebalance),
    Lock(Lock),
    Elect(Elect),
    #[command(subcommand)]
    Locks(Locks),
    #[command(subcommand)]
    Machine(Machine),
    Invite(Invite),
    #[command(subcommand)]
    Image(Image),
    Login(Login),
    Logout(Logout),
    #[command(subcommand)]
    Volume(Volume),
    #[command(subcommand)]
    Secret(Secret),
    Events(Events),
    Doctor(Doctor),
    Version(Version),
    Completion(Completion),
}

/// Runs one command on some machine, and exits with its code.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto run host true                         the machine's own programs, in a container
  rialto run host -- sh -c 'echo hello'        everything behind -- is the command
  rialto run --memory 512m -e N=5 web:1 work   an imported image
  rialto run -d host sleep 1h                  print the task's name, and do not wait

Ctrl-C stops the task; a second one exits at once.")]
pub struct Run {
    /// The run's name [default: run- and some letters].
    #[arg(long)]
    pub name: Option<String>,
    /// Cores that it may use and that are set aside for it: 0.5, 2.
    #[arg(long, value_name = "N", value_parser = compose::cpus_limit)]
    pub cpus: Option<u64>,
    /// Memory that it may use and that is set aside for it: 512m, 2g.
    #[arg(long, value_name = "SIZE", value_parser = compose::memory_limit)]
    pub memory: Option<u64>,
    /// Sets a variable; a name alone takes its value from here.
    #[arg(short, long, value_name = "K=V", action = ArgAction::Append, value_parser = variable)]
    pub env: Vec<Variable>,
    /// Publishes a port: 80, 8080:80, 5353:53/udp.
    #[arg(short, long, value_name = "PORT", action = ArgAction::Append, value_parser = compose::port)]
    pub publish: Vec<PortSpec>,
    /// `host`: it uses its machine's network, and has none of its own.
    #[arg(long, value_name = "bridge|host", value_parser = compose::network_mode)]
    pub network: Option<NetworkMode>,
    /// Stops it when this long has passed since the start of this command.
    #[arg(long, value_name = "TIME", value_parser = human::duration, conflicts_with = "detach")]
    pub timeout: Option<Duration>,
    /// Starts it again up to N times where its machine is lost.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub retries: u32,
    /// Prints the task's name and does not wait.
    #[arg(short, long)]
    pub detach: bool,
    /// 'host', or the name of an imported image.
    #[arg(value_parser = image)]
    pub image: String,
    /// The command and its arguments [default: the image's own].
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// A variable and its value; without one it comes from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    pub name: String,
    pub value: Option<String>,
}

/// Lists tasks: all live ones, and the last hundred that finished.
#[derive(Debug, Group)]
#[command(
    visible_alias = "ls",
    after_help = "\
Examples:
  rialto ps
  rialto ps shop            of one app
  rialto ps shop.web -a     of one service, with every finished one that is kept (an hour)
  rialto ps --watch shop    as it goes on, until Ctrl-C
  rialto ps -o json         for programs"
)]
pub struct Ps {
    /// An app, or a service of it.
    #[arg(value_name = "APP[.SERVICE]")]
    pub name: Option<String>,
    /// Shows every finished task that is kept.
    #[arg(short, long)]
    pub all: bool,
    /// Goes on, and shows the list again whenever something happens.
    #[arg(short, long)]
    pub watch: bool,
}

/// Prints the output of a task, of a service's tasks, or of an app's.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto logs shop.web.1          one task
  rialto logs -f shop.web         all tasks of a service, and what they still write
  rialto logs --tail 20 shop      the last lines of each task
  rialto logs --since 10m -t shop what was written in the last ten minutes, with its time
  rialto logs --since 2026-11-22T10:00:00Z --until 2026-11-22T10:05:00Z shop

Without -f the lines of several tasks are in the order of their times.")]
pub struct Logs {
    /// Goes on as long as they run.
    #[arg(short, long)]
    pub follow: bool,
    /// Begins so many lines before the end.
    #[arg(short = 'n', long, value_name = "LINES")]
    pub tail: Option<u32>,
    /// Only what was written since then: 10m ago, or 2026-11-22T10:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = human::moment)]
    pub since: Option<human::Moment>,
    /// Only what was written before: 10m ago, or 2026-11-22T10:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = human::moment)]
    pub until: Option<human::Moment>,
    /// Puts the time before each line.
    #[arg(short, long)]
    pub timestamps: bool,
    /// A task, a service or an app.
    #[arg(value_name = "APP[.SERVICE[.SLOT]]")]
    pub name: String,
}

/// Stops an app or a service, which stays known, with no replicas.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto stop shop            every service of the app
  rialto stop shop.web        one service; 'rialto scale shop.web=3' starts it again
  rialto stop run-3f9a2c71d0  a run")]
pub struct Stop {
    #[arg(value_name = "APP[.SERVICE]", required = true)]
    pub names: Vec<String>,
    /// Does not wait until the tasks have ended.
    #[arg(long)]
    pub detach: bool,
    /// Waits no longer than this.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = human::duration)]
    pub timeout: Duration,
}

/// Removes apps: their tasks end, and they are forgotten.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto rm shop          asks first, on a terminal
  rialto rm --yes shop blog
  rialto rm --volumes shop     its volumes, too, with everything in them")]
pub struct Rm {
    #[arg(value_name = "APP", required = true, value_parser = app)]
    pub apps: Vec<String>,
    /// Deletes their own volumes and secrets, too.
    #[arg(short, long)]
    pub volumes: bool,
    /// Asks nothing.
    #[arg(short, long)]
    pub yes: bool,
}

/// Sets how many replicas a service has.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto scale shop.web=3
  rialto scale shop.web=3 shop.db=1
  rialto scale shop.web 3
  rialto scale shop web 3")]
pub struct Scale {
    #[arg(value_name = "APP.SERVICE=N", required = true)]
    pub words: Vec<String>,
}

/// Shows who changed an app, and when.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto history shop
  rialto history --all shop      also earlier generations, and what stewards wrote down")]
pub struct History {
    #[arg(value_name = "APP", value_parser = app)]
    pub app: String,
    #[arg(short, long)]
    pub all: bool,
}

/// Makes an app as it was after an earlier change.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto history shop                  names the revisions
  rialto rollback shop --to 5f3a09")]
pub struct Rollback {
    #[arg(value_name = "APP", value_parser = app)]
    pub app: String,
    /// A revision, or the last digits of its name as `rialto history` shows them.
    #[arg(long, value_name = "REVISION")]
    pub to: String,
}

/// Shows how the cluster fares.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto status
  rialto status --watch
  rialto status -o json")]
pub struct Status {
    /// Goes on, and shows it again whenever something happens.
    #[arg(short, long)]
    pub watch: bool,
}

/// Lists machines, and has them take no more work.
#[derive(Debug, Subcommand)]
#[command(
    visible_alias = "machines",
    after_help = "\
Examples:
  rialto machine ls
  rialto machine drain m2"
)]
pub enum Machine {
    /// Lists the machines.
    #[command(visible_alias = "list", after_help = "Example:\n  rialto machine ls -o json")]
    Ls,
    /// Has a machine take no more work and hand over what it has.
    #[command(after_help = "Example:\n  rialto machine drain m2")]
    Drain { machine: String },
    /// Lets a drained machine take work again.
    #[command(after_help = "Example:\n  rialto machine undrain m2")]
    Undrain { machine: String },
    /// Takes a machine out of the cluster for good: what it ran is replaced, and it is not let in again.
    #[command(after_help = "\
Examples:
  rialto machine rm m2             a machine that is down, or was drained and stopped
  rialto machine rm --force m2     though it is up: it stops its tasks when it hears of it
  rialto machine rm --force --last 4711 m2
                                   its key was stolen: nothing counts that it wrote after its record 4711
                                   (`rialto machine ls -o json` shows how many each has written)")]
    Rm {
        machine: String,
        /// Though it is up.
        #[arg(long)]
        force: bool,
        /// Its key was stolen: everybody ignores what it wrote after this record.
        #[arg(long, value_name = "SEQ")]
        last: Option<u64>,
    },
    /// Has replacements go ahead that are held back because too many machines are gone.
    #[command(after_help = "Example:\n  rialto machine unfreeze")]
    Unfreeze,
}

/// Prints a token that lets machines join.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto invite                          for a day and up to ten machines
  rialto invite --ttl 1h --uses 1
  rialtod --join TOKEN                   on the new machine")]
pub struct Invite {
    /// How long it is good.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = human::duration)]
    pub ttl: Duration,
    /// How many machines it lets in.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub uses: u32,
}

/// Pulls, imports, lists and removes images.
#[derive(Debug, Subcommand)]
#[command(
    visible_alias = "images",
    after_help = "\
Examples:
  rialto image pull registry.example/shop/web:1
  rialto image import ./web --name web:1
  docker save web:1 | rialto image import -
  rialto image ls"
)]
pub enum Image {
    /// Brings an image from its registry to the machine that is asked; the others have it from there.
    #[command(after_help = "\
Examples:
  rialto image pull registry.example/shop/web:1
  rialto image pull 127.0.0.1:5000/web@sha256:...
A name without a registry is asked of the one that the machine is configured to ask, if there is one.
What a pull that broke off has brought is kept, and the next one goes on from there.")]
    Pull {
        /// HOST[:PORT]/NAME[:TAG][@DIGEST].
        #[arg(value_parser = image)]
        name: String,
    },
    /// Imports an image into the cluster: an OCI image layout, as a folder or a tar archive, or what 'docker save' writes.
    #[command(after_help = "\
Examples:
  rialto image import ./web                 named as its index names it, or else as the folder
  rialto image import web.tar --name web:1
  docker save web:1 | rialto image import -")]
    Import {
        /// The folder, or the archive; '-' is the standard input.
        #[arg(value_name = "DIR|FILE|-")]
        path: PathBuf,
        /// The image's name.
        #[arg(long, value_parser = image)]
        name: Option<String>,
    },
    /// Lists the images that the machines have.
    #[command(visible_alias = "list", after_help = "Example:\n  rialto image ls -o json")]
    Ls,
    /// Removes images from every machine that has them; tasks that run keep what they are made of.
    #[command(visible_alias = "remove", after_help = "Example:\n  rialto image rm web:1")]
    Rm {
        #[arg(value_parser = image, required = true)]
        names: Vec<String>,
        /// Even if an app wants it.
        #[arg(short, long)]
        force: bool,
    },
    /// Has every machine give back what no image and no running task needs.
    #[command(
        visible_alias = "prune",
        after_help = "\
Examples:
  rialto image gc
  rialto image gc --unused 7d         and images of registries that no task has used for a week"
    )]
    Gc {
        /// Also images that no task has used for so long and that a registry has: 24h, 7d.
        #[arg(long, value_name = "TIME", value_parser = human::duration)]
        unused: Option<Duration>,
    },
}

/// Shows what happened: to an app, as all peers saw it; without one as the peer that is asked saw it.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto events shop            who changed it, what was placed, ended, missed, ran twice
  rialto events shop -f
  rialto events
  rialto events -f              and what happens from now on
  rialto events --after 120     what came after the event 120")]
pub struct Events {
    #[arg(value_name = "APP", value_parser = app)]
    pub app: Option<String>,
    /// Goes on for ever.
    #[arg(short, long)]
    pub follow: bool,
    /// Begins behind the event of this id.
    #[arg(long, value_name = "ID")]
    pub after: Option<String>,
}

/// Looks at this machine and says what a peer lacks: cgroups, ports, rights, clock.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  rialto doctor               exits 1 where a check failed
  rialto doctor -o json")]
pub struct Doctor {}

/// Prints the version of this program and of the peer.
#[derive(Debug, Group)]
#[command(after_help = "Example:\n  rialto version -o json")]
pub struct Version {}

/// Prints a script that completes commands in a shell.
#[derive(Debug, Group)]
#[command(after_help = "\
Examples:
  source <(rialto completion bash)
  rialto completion zsh > ~/.zfunc/_rialto")]
pub struct Completion {
    pub shell: clap_complete::Shell,
}

fn variable(text: &str) -> Result<Variable, String> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_string())),
        None => (text, None),
    };
    if name.is_empty() || name.chars().any(char::is_whitespace) {
        return Err("a variable is NAME=VALUE".into());
    }
    Ok(Variable { name: name.into(), value })
}

fn image(text: &str) -> Result<String, String> {
    match compose::is_image_name(text) {
        true => Ok(text.into()),
        false => Err("no image can have this name".into()),
    }
}

/// Reads the name of an app.
pub fn app(text: &str) -> Result<String, String> {
    if rialto_protocol::model::app::is_dns_label(text) && text != "machine" {
        return Ok(text.into());
    }
    let like = compose::label_like(text);
    Err(match like.as_str() {
        "" | "machine" => {
            "an app's name has 1 to 63 lower-case letters, digits and hyphens, and is not 'machine'".into()
        }
        like => format!("no app can have this name; '{like}' is one"),
    })
}

/// Whether a command line that could not be read was to be a run, whose exit codes are the task's.
pub fn means_run(mut words: impl Iterator<Item = OsString>) -> bool {
    words.next();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--api" | "--socket" | "-o" | "--output") => drop(words.next()),
            Some(flag) if flag.starts_with('-') => {}
            verb => return matches!(verb, Some("run" | "exec" | "lock" | "elect")),
        }
    }
    false
}

#[cfg(test)]
mod tests;
