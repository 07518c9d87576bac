//! What runs: a claim, and what an executor is told to run.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::container::Container;
use super::health::Health;
use super::resources::Resources;
use super::singleton::Guard;
use crate::ids::{BidId, ClaimId, PeerId, TaskId, VolumeId};

/// How a claim fares. A claim ends, and its room is free, only when its container is gone.
/// "Lost" is a conclusion of others, never a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClaimState {
    #[default]
    Accepted,
    Starting,
    Running,
    Stopping,
    Exited,
    Failed,
    Stopped,
    Preempted,
    Superseded,
}

impl ClaimState {
    /// Whether the container is gone for good.
    pub fn has_ended(self) -> bool {
        self >= ClaimState::Exited
    }

    /// The word that people read.
    pub fn word(self) -> &'static str {
        match self {
            ClaimState::Accepted => "accepted",
            ClaimState::Starting => "starting",
            ClaimState::Running => "running",
            ClaimState::Stopping => "stopping",
            ClaimState::Exited => "exited",
            ClaimState::Failed => "failed",
            ClaimState::Stopped => "stopped",
            ClaimState::Preempted => "preempted",
            ClaimState::Superseded => "superseded",
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// One port of a running task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The port on the machine's address; of every machine's, where it is `ingress`.
    pub host: u16,
    /// It listens on every machine, and not on this task's alone.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ingress: bool,
    /// The number in the app file, 0 where the file named none.
    pub container: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
}

/// The value of a `claim` record: a machine's durable promise to run one task, and how it fares.
/// Only the machine writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub id: ClaimId,
    pub task: TaskId,
    /// 1 + the highest attempt in any claim of the task, as the steward saw it.
    pub attempt: u32,
    /// Of a run at its time, or that was asked for: how many tasks it has, whatever its service has by now; else 0.
    #[serde(default, skip_serializing_if = "is_default")]
    pub of: u32,
    /// The bid that became this claim: an award that is sent again finds it.
    pub bid: BidId,
    /// [`crate::model::ServiceSpec::revision`] of what runs.
    pub revision: u64,
    pub state: ClaimState,
    /// The room that is taken until the claim has ended.
    pub need: Resources,
    /// Of its service when it was awarded: work of a priority of ten more may take its room.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i32,
    /// Claims of this machine whose room it takes over: it starts when they are gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub takes_over: Vec<ClaimId>,
    /// It is one of a gang, and starts when it is told that all the others are accepted.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gang: bool,
    #[serde(default)]
    pub ports: Vec<PortBinding>,
    /// The task's own; `None`: it uses its machine's network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// The image's manifest digest, once it is known.
    #[serde(default)]
    pub image_digest: Option<String>,
    /// Of a running task: what its check says.
    #[serde(default, skip_serializing_if = "is_default")]
    pub health: Health,
    /// Wall clock, ms: not to be started before.
    #[serde(default)]
    pub not_before: Option<u64>,
    /// What its task had of the lock group when it was started: the token of that. It may have run.
    #[serde(default)]
    pub fence: Option<u64>,
    /// Wall clock of the owner, ms, at `accepted`. It never changes, and decides between duplicates.
    pub accepted_at: u64,
    /// Wall clock of the owner, ms.
    #[serde(default)]
    pub started_at: Option<u64>,
    /// Wall clock of the owner, ms.
    #[serde(default)]
    pub ended_at: Option<u64>,
    /// The exit code; 128 + n where signal n ended the task.
    #[serde(default)]
    pub exit_code: Option<i32>,
    #[serde(default)]
    pub oom_killed: bool,
    /// Why it failed or was stopped, for people.
    #[serde(default)]
    pub reason: Option<String>,
}

/// What an executor is told to run. It stays on the machine: neither claims nor gossip carry it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskSpec {
    pub task: TaskId,
    pub attempt: u32,
    pub image: String,
    /// The manifest that is to run, whatever the name means on this machine.
    #[serde(default)]
    pub image_digest: Option<String>,
    /// Machines that have the image, best first; empty for `host`.
    #[serde(default)]
    pub image_at: Vec<PeerId>,
    #[serde(default)]
    pub command: Vec<String>,
    /// Complete, `PORT` and the `RIALTO_…` variables included.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    #[serde(default)]
    pub limits: Resources,
    /// How its container is made, where it is not as every other.
    #[serde(default, skip_serializing_if = "Container::is_usual")]
    pub container: Container,
    /// Milliseconds between SIGTERM and SIGKILL.
    pub grace_ms: u64,
    /// It ends when its machine has heard no other for so long, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_when_isolated_ms: Option<u64>,
    /// Of a network of its own; `None`: it uses its machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Before it is stopped nobody is sent to it for so long, ms.
    #[serde(default, skip_serializing_if = "is_default")]
    pub drain_ms: u64,
    /// The named volumes of its mounts, by their names in the cluster: this machine's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, VolumeId>,
    /// What its claim takes of the machine's devices: GPUs by number, and things that are counted.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub takes: BTreeMap<String, u64>,
    /// TCP ports: without a check it is sent to when it listens there, as its machine sees it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub listens: Vec<u16>,
    /// It ends when it has run for so long, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// What it must have of the lock group before it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
}

/// How a task finished: kept in the document, so that finished work is never run again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub slot: String,
    /// Of the service when it ran: a changed service runs again.
    pub revision: u64,
    pub attempt: u32,
    /// `None`: it never ran, or its machine was lost.
    pub exit_code: Option<i32>,
    /// Its machine was lost while it may have run.
    #[serde(default)]
    pub lost: bool,
    #[serde(default)]
    pub reason: Option<String>,
    /// Wall clock of the machine, ms.
    #[serde(default)]
    pub ended_at: Option<u64>,
    /// The machine that ran it.
    #[serde(default)]
    pub machine: Option<PeerId>,
}

impl Outcome {
    /// Of two that several stewards noted of one slot the greater counts: the later attempt, and of one attempt what
    /// everybody chooses alike.
    pub fn order(&self) -> impl Ord + '_ {
        let is_good = self.exit_code == Some(0);
        (self.attempt, self.revision, !self.lost, is_good, self.ended_at, self.machine, self.exit_code, &self.reason)
    }
}
