//! What a person sets: flag, else `RIALTO_*`, else the TOML file, else the default.
//!
//! The three sources share one shape, [`Layer`], so that a setting is named once. A variable is
//! read by the same parser as its flag.

mod layer;
mod offers;
mod size;
mod values;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};
use rialto_protocol::model::app::is_dns_label;
use rialto_protocol::model::{Range, Resources};

pub use crate::executor::devices::DeviceClass;
pub use crate::executor::images::{Host, Registries};
pub use crate::executor::network::Overlay;
pub use crate::executor::userns::Remap;
pub use layer::Layer;
pub use offers::Gpus;
pub use size::Size;
pub use values::{Address, Advertise, Cpus, ExecutorKind, Hold, TaskRange, UsernsRemap};

/// The port of the mesh.
pub const LISTEN_PORT: u16 = 7400;
/// The port of the DNS server.
pub const DNS_PORT: u16 = 7453;

/// Why the settings cannot be used: a sentence that names the setting and a way out.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag, with clap's own words. `--help` and `--version` come this way too.
    #[error("{0}")]
    Flag(#[from] clap::Error),
    #[error("{variable}: {reason}")]
    Variable { variable: String, reason: String },
    #[error("{file}: {reason}")]
    File { file: PathBuf, reason: String },
    #[error("{0}")]
    Invalid(String),
}

/// Everything that a peer needs to know before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub data: PathBuf,
    /// A DNS label.
    pub name: String,
    pub listen: SocketAddr,
    pub advertise: Vec<Advertise>,
    /// A token; checked where it is used.
    pub join: Option<String>,
    pub api: Option<SocketAddr>,
    pub socket: PathBuf,
    pub dns: Option<SocketAddr>,
    /// Where the lock group is served to etcd's clients.
    pub etcd: Option<SocketAddr>,
    /// Addresses of tasks and services; `None`: tasks use the machine's network.
    pub task_range: Option<Range>,
    pub overlay: Overlay,
    pub labels: BTreeMap<String, String>,
    /// What is offered beside cores and memory: each GPU, and what is counted.
    pub resources: Resources,
    /// Instead of what the machine has.
    pub cpu_millis: Option<u64>,
    /// Instead of what the machine has.
    pub memory_bytes: Option<u64>,
    pub executor: ExecutorKind,
    /// What tasks may have here beyond the usual: [`rialto_protocol::model::Machine::allows`].
    pub allow: Vec<String>,
    /// Devices that are handed to the tasks which claim them, by class.
    pub devices: BTreeMap<String, DeviceClass>,
    /// Whom images are pulled from, and how.
    pub registries: Registries,
    /// Which users of the machine those of tasks are; `None`: the same.
    pub userns_remap: Option<Remap>,
    /// How long a minority holds replacements back, ms; `None`: for ever.
    pub minority_hold_ms: Option<u64>,
    /// End the tasks with the peer.
    pub stop_tasks: bool,
    /// `--stop-tasks` stood on the command line: no peer is started; the one that has the data folder is to
    /// end, and its tasks with it.
    pub stop_other: bool,
}

/// What the process finds around it: passed in, so that tests need not change it.
pub struct Surroundings<'a> {
    /// An environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    pub is_root: bool,
    pub host_name: String,
}

impl Config {
    /// Reads flags, variables and file. `args` begins with the program's name.
    pub fn read(args: &[String], around: &Surroundings<'_>) -> Result<Config, ConfigError> {
        let flags = Flags::try_parse_from(args)?.layer;
        let stop_other = flags.stop_tasks.is_some();
        let variables = Layer::of_variables(around.variable)?;
        let early = flags.or(variables);
        let file = match &early.config {
            Some(path) => Layer::of_file(path, true)?,
            None => Layer::of_file(&default_config(around), false)?,
        };
        Ok(Config { stop_other, ..early.or(file).resolve(around)? })
    }
}

/// The parser of the command line.
#[derive(Debug, Parser)]
#[command(
    name = "rialtod",
    version,
    about = "The peer of Rialto, a data-centre operating system without a master: one on each machine.",
    after_help = EXAMPLES
)]
struct Flags {
    #[command(flatten)]
    layer: Layer,
}

const EXAMPLES: &str = "\
Every setting is taken from its flag, else from RIALTO_<NAME> (RIALTO_DATA, RIALTO_LISTEN, …; lists \
separated by commas), else from the file, else from its default.

Examples:
  rialtod                                    found a cluster, or go on in the one of the data folder
  rialtod --join rialto1.…                   join with a token that `rialto invite` printed
  rialtod --data /srv/a --name a --listen 10.0.0.1:7400 --advertise 192.0.2.1
                                             be reached through another address
  rialtod --api 10.0.0.1:7401                serve the API by TCP too, with DATA/api-token
  rialtod --cpus 2 --memory 4g --label zone=a --label disk=ssd --dns none
  rialtod --gpu 4:a100 --resource licence=3  offer GPUs, and what else is to be counted
  rialtod --stop-tasks                       end the peer that has the data folder, and its tasks
  RIALTO_STOP_TASKS=true rialtod             a peer that ends its tasks whenever it is stopped";

/// The command, for manual pages and completions.
pub fn command() -> clap::Command {
    Flags::command()
}

impl Layer {
    fn resolve(self, around: &Surroundings<'_>) -> Result<Config, ConfigError> {
        let data = absolute(self.data.unwrap_or_else(|| default_data(around)));
        let name = match self.name {
            Some(name) if is_dns_label(&name) => name,
            Some(name) => {
                return Err(ConfigError::Invalid(format!(
                    "name: {name:?} is no machine's name: lower-case letters, digits and '-', at most 63"
                )));
            }
            None => label_of(&around.host_name),
        };
        let socket = self.socket.unwrap_or_else(|| default_socket(around, &data));
        let userns_remap = self.userns_remap.and_then(|remap| remap.0);
        if userns_remap.is_some() && self.allow.iter().any(|one| one == "privileged") {
            let message = "allow: a privileged task has the rights of the machine's root, and with userns-remap none \
                           has: name what tasks need one by one, or leave one of the two out";
            return Err(ConfigError::Invalid(message.into()));
        }
        Ok(Config {
            name,
            listen: self.listen.unwrap_or(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), LISTEN_PORT)),
            advertise: self.advertise,
            join: self.join,
            api: self.api.and_then(|api| api.0),
            socket: absolute(socket),
            dns: self.dns.map_or(Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), DNS_PORT)), |dns| dns.0),
            etcd: self.etcd.and_then(|etcd| etcd.0),
            task_range: self.task_range.map_or(Some(Range::DEFAULT), |range| range.0),
            overlay: self.overlay.unwrap_or_default(),
            labels: offers::all_labels(self.labels, self.gpu.as_ref()).map_err(ConfigError::Invalid)?,
            resources: offers::all_resources(self.resources, self.gpu.as_ref())
                .and_then(|resources| offers::with_devices(resources, &self.devices))
                .map_err(ConfigError::Invalid)?,
            devices: self.devices,
            cpu_millis: self.cpus.map(|cpus| cpus.0),
            memory_bytes: self.memory.map(|size| size.0),
            executor: self.executor.unwrap_or(ExecutorKind::Container),
            allow: self.allow,
            registries: registries(self.registries.unwrap_or_default(), around),
            userns_remap,
            minority_hold_ms: self.minority_hold.map_or(Some(60_000), |hold| hold.0),
            stop_tasks: self.stop_tasks.unwrap_or(false),
            stop_other: false,
            data,
        })
    }
}

/// A host name's first part, made a DNS label.
fn label_of(host_name: &str) -> String {
    let first = host_name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let label: String = first.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    let label = label.trim_matches('-');
    if label.is_empty() { "machine".into() } else { label.into() }
}

fn default_data(around: &Surroundings<'_>) -> PathBuf {
    if around.is_root {
        return "/var/lib/rialto".into();
    }
    xdg(around, "XDG_DATA_HOME", ".local/share").join("rialto")
}

fn default_config(around: &Surroundings<'_>) -> PathBuf {
    if around.is_root {
        return "/etc/rialto/rialtod.toml".into();
    }
    xdg(around, "XDG_CONFIG_HOME", ".config").join("rialto/rialtod.toml")
}

/// Where `rialto` looks without a flag; without a runtime folder the data folder serves.
fn default_socket(around: &Surroundings<'_>, data: &Path) -> PathBuf {
    if around.is_root {
        return "/run/rialto/rialto.sock".into();
    }
    match (around.variable)("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("rialto/rialto.sock"),
        None => data.join("rialto.sock"),
    }
}

/// Without a file of credentials of its own a peer uses its user's, as Docker does.
fn registries(mut registries: Registries, around: &Surroundings<'_>) -> Registries {
    let set = |name: &str| (around.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").or_else(|| around.is_root.then(|| "/root".into()));
    let folder = || set("DOCKER_CONFIG").or_else(|| home().map(|home| home.join(".docker")));
    registries.credentials = registries.credentials.or_else(|| folder().map(|folder| folder.join("config.json")));
    registries
}

fn xdg(around: &Surroundings<'_>, variable: &str, below_home: &str) -> PathBuf {
    let set = |name: &str| (around.variable)(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(variable).or_else(|| set("HOME").map(|home| home.join(below_home))).unwrap_or_else(|| PathBuf::from("."))
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}
