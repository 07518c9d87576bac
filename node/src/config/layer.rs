//! One source of settings, every one of them optional.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde::Deserialize;

use super::offers::{self, Gpus};
use super::values::{Address, Advertise, Cpus, ExecutorKind, Hold, TaskRange, UsernsRemap};
use super::{ConfigError, Flags, Registries, Size};
use crate::executor::devices::DeviceClass;
use crate::executor::network::Overlay;

/// What flags, variables or a file said.
#[derive(Clone, Debug, Default, PartialEq, clap::Args, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Layer {
    /// Folder of the identity, the ledger, images and logs [default: /var/lib/rialto]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The machine's name, a DNS label [default: the host name]
    #[arg(long)]
    pub name: Option<String>,
    /// Where other peers connect [default: 0.0.0.0:7400]
    #[arg(long, value_name = "IP:PORT")]
    pub listen: Option<SocketAddr>,
    /// An address that other peers are told, instead of the machine's own; may be repeated
    #[arg(long, value_name = "IP[:PORT]")]
    pub advertise: Vec<Advertise>,
    /// Join the cluster that made this token, instead of founding one
    #[arg(long, value_name = "TOKEN")]
    pub join: Option<String>,
    /// Serve the HTTP API by TCP too, or `none` [default: none]
    #[arg(long, value_name = "IP:PORT|none")]
    pub api: Option<Address>,
    /// The Unix socket of the HTTP API [default: /run/rialto/rialto.sock; unless root, in XDG_RUNTIME_DIR or the data folder]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Where names under rialto.internal are answered, or `none` [default: 127.0.0.1:7453]
    #[arg(long, value_name = "IP:PORT|none")]
    pub dns: Option<Address>,
    /// Serve the lock group to etcd's clients, who need no password, or `none` [default: none]
    #[arg(long, value_name = "IP:PORT|none")]
    pub etcd: Option<Address>,
    /// Addresses of the cluster's tasks and services, the same at every peer, or `none`: tasks use the machine's
    /// network [default: 10.208.0.0/12]
    #[arg(long, value_name = "RANGE|none")]
    pub task_range: Option<TaskRange>,
    /// When tasks reach those of other machines by VXLAN: `auto`, where machines share no segment, or `always`
    /// [default: auto]
    #[arg(long, value_name = "auto|always", hide_possible_values = true)]
    pub overlay: Option<Overlay>,
    /// A label of the machine; may be repeated
    #[arg(long = "label", value_name = "k=v", value_parser = offers::label)]
    #[serde(deserialize_with = "offers::labels")]
    pub labels: Vec<(String, String)>,
    /// GPUs to offer, all of one model: 4, or 4:a100, which also is the label gpu_spec
    #[arg(long, value_name = "N[:MODEL]")]
    pub gpu: Option<Gpus>,
    /// Something else that tasks can reserve and that is counted, such as licence=3; may be repeated
    #[arg(long = "resource", value_name = "name=count", value_parser = offers::resource)]
    #[serde(deserialize_with = "offers::resources")]
    pub resources: Vec<(String, u64)>,
    /// Cores to offer, such as 4 or 1.5 [default: what the machine has]
    #[arg(long, value_name = "N")]
    pub cpus: Option<Cpus>,
    /// Memory to offer, such as 512m or 16GiB [default: the machine's, less a reserve]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// What runs tasks; `null` only pretends to, for benchmarks [default: container]
    #[arg(long, value_name = "container|null", hide_possible_values = true)]
    pub executor: Option<ExecutorKind>,
    /// What tasks may have beyond the usual: privileged, cap=NET_ADMIN, seccomp=unconfined, device=/dev/fuse, bind=/srv/*; one that
    /// ends in * stands for all that begin so; may be repeated
    #[arg(long, value_name = "WHAT", value_parser = offers::allowance)]
    #[serde(deserialize_with = "offers::allowances")]
    pub allow: Vec<String>,
    /// Devices that are handed to the tasks which claim them, by class.
    #[arg(skip)]
    pub devices: BTreeMap<String, DeviceClass>,
    #[arg(skip)]
    pub registries: Option<Registries>,
    /// Give tasks users of their own, nobody's on the machine: root is FIRST, user 1 is FIRST+1, … [default: none]
    #[arg(long, value_name = "FIRST:COUNT|none")]
    pub userns_remap: Option<UsernsRemap>,
    /// How long a minority of the machines holds replacements back: 60s, 5m, `forever` [default: 60s]
    #[arg(long, value_name = "TIME")]
    pub minority_hold: Option<Hold>,
    /// Start no peer, but end the one that has the data folder, and its tasks with it
    #[arg(long, num_args = 0, default_missing_value = "true")]
    pub stop_tasks: Option<bool>,
    /// The file to read settings from [default: /etc/rialto/rialtod.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
}

/// Each variable's name after `RIALTO_`, its flag, and whether it is a list.
const VARIABLES: &[(&str, &str, bool)] = &[
    ("DATA", "data", false),
    ("NAME", "name", false),
    ("LISTEN", "listen", false),
    ("ADVERTISE", "advertise", true),
    ("JOIN", "join", false),
    ("API", "api", false),
    ("SOCKET", "socket", false),
    ("DNS", "dns", false),
    ("ETCD", "etcd", false),
    ("TASK_RANGE", "task-range", false),
    ("OVERLAY", "overlay", false),
    ("LABEL", "label", true),
    ("GPU", "gpu", false),
    ("RESOURCE", "resource", true),
    ("CPUS", "cpus", false),
    ("MEMORY", "memory", false),
    ("EXECUTOR", "executor", false),
    ("ALLOW", "allow", true),
    ("USERNS_REMAP", "userns-remap", false),
    ("MINORITY_HOLD", "minority-hold", false),
    ("CONFIG", "config", false),
];

impl Layer {
    /// Reads the `RIALTO_*` variables, each by its flag's parser. An empty one counts as unset.
    pub fn of_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Layer, ConfigError> {
        let mut all = Layer::default();
        for (name, flag, is_list) in VARIABLES {
            let name = format!("RIALTO_{name}");
            let Some(value) = variable(&name).filter(|value| !value.is_empty()) else { continue };
            let parts = if *is_list { value.split(',').collect() } else { vec![value.as_str()] };
            let mut args = vec!["rialtod".to_owned()];
            args.extend(parts.iter().map(|part| format!("--{flag}={}", part.trim())));
            let one = Flags::try_parse_from(args)
                .map_err(|error| ConfigError::Variable { reason: reason(&error), variable: name })?;
            all = all.or(one.layer);
        }
        all.stop_tasks = stop_tasks(variable)?;
        Ok(all)
    }

    /// Reads a file. One that is not there is an error only if it was `demanded`.
    pub fn of_file(path: &Path, demanded: bool) -> Result<Layer, ConfigError> {
        let failed = |reason: String| ConfigError::File { file: path.into(), reason };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !demanded => return Ok(Layer::default()),
            Err(error) => return Err(failed(error.to_string())),
        };
        toml::from_str(&text).map_err(|error| failed(error.to_string()))
    }

    /// This layer, and beneath it the other.
    pub fn or(self, lower: Layer) -> Layer {
        Layer {
            data: self.data.or(lower.data),
            name: self.name.or(lower.name),
            listen: self.listen.or(lower.listen),
            advertise: if self.advertise.is_empty() { lower.advertise } else { self.advertise },
            join: self.join.or(lower.join),
            api: self.api.or(lower.api),
            socket: self.socket.or(lower.socket),
            dns: self.dns.or(lower.dns),
            etcd: self.etcd.or(lower.etcd),
            task_range: self.task_range.or(lower.task_range),
            overlay: self.overlay.or(lower.overlay),
            labels: if self.labels.is_empty() { lower.labels } else { self.labels },
            gpu: self.gpu.or(lower.gpu),
            resources: if self.resources.is_empty() { lower.resources } else { self.resources },
            cpus: self.cpus.or(lower.cpus),
            memory: self.memory.or(lower.memory),
            executor: self.executor.or(lower.executor),
            allow: if self.allow.is_empty() { lower.allow } else { self.allow },
            devices: if self.devices.is_empty() { lower.devices } else { self.devices },
            registries: self.registries.or(lower.registries),
            userns_remap: self.userns_remap.or(lower.userns_remap),
            minority_hold: self.minority_hold.or(lower.minority_hold),
            stop_tasks: self.stop_tasks.or(lower.stop_tasks),
            config: self.config.or(lower.config),
        }
    }
}

/// A flag without a value has no parser to lend to its variable.
fn stop_tasks(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<bool>, ConfigError> {
    let name = "RIALTO_STOP_TASKS";
    match variable(name).as_deref() {
        None | Some("") => Ok(None),
        Some("1" | "true" | "yes") => Ok(Some(true)),
        Some("0" | "false" | "no") => Ok(Some(false)),
        Some(other) => {
            Err(ConfigError::Variable { variable: name.into(), reason: format!("{other:?} is neither true nor false") })
        }
    }
}

/// The sentence of a parser's error, without its advice about flags.
fn reason(error: &clap::Error) -> String {
    let text = error.to_string();
    let sentence = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    match sentence.split_once("': ") {
        Some((_, reason)) => reason.to_owned(),
        None => sentence.to_owned(),
    }
}
