//! What a machine says of itself.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::network::TaskNetwork;
use super::resources::Resources;

/// The value of a `machine` record, written by the machine alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    pub name: String,
    /// `IP:PORT`, configured or confirmed.
    pub addresses: Vec<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    pub capacity: Resources,
    /// What tasks may have here beyond the usual: `privileged`, `cap=NET_ADMIN`, `device=/dev/fuse`,
    /// `seccomp=unconfined`; one that ends in `*` stands for all that begin so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allows: Vec<String>,
    /// The highest version of the protocol that it speaks.
    pub protocol: u32,
    /// The version of its program.
    pub version: String,
    /// Raised by the machine to refute an accusation.
    pub life: u64,
    /// Wall clock, ms, at which this life began: serves ages.
    pub life_since: u64,
    #[serde(default)]
    pub draining: bool,
    /// It announced a restart: nobody accuses it before this wall-clock time, ms.
    #[serde(default)]
    pub restarting_until: Option<u64>,
    pub executor: Executor,
    /// Of its tasks; without one they use the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<TaskNetwork>,
}

/// Whether a machine can run anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Executor {
    Container,
    Null,
    /// It offers no room, for this reason.
    None(String),
}

/// What changes too often to be a record: never persisted, spread by gossip, the newest by
/// (`started`, `counter`) wins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vitals {
    /// Wall clock, ms, at which the process started; more where the clock was put back before.
    pub started: u64,
    /// Rises with each vitals of this start.
    pub counter: u64,
    /// Wall clock, ms, when these were made.
    pub at: u64,
    /// What is taken by claims that have not ended.
    pub used: Resources,
    /// Thousandths of a core in use over the last interval.
    pub load_millis: u64,
    /// Names of the images that are present.
    pub images: Vec<String>,
}
