//! What runs: a claim, and what an executor is told to run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::resources::Resources;
use crate::ids::{BidId, ClaimId, PeerId, TaskId};

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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortBinding {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The port on the machine's address.
    pub host: u16,
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
    /// The image's manifest digest, once it is known.
    #[serde(default)]
    pub image_digest: Option<String>,
    /// `None` until health checks exist for the task.
    #[serde(default)]
    pub healthy: Option<bool>,
    /// Wall clock, ms: not to be started before.
    #[serde(default)]
    pub not_before: Option<u64>,
    /// The token of a strict singleton's lease.
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
    /// Milliseconds between SIGTERM and SIGKILL.
    pub grace_ms: u64,
    /// It ends when its machine has heard no other for so long, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_when_isolated_ms: Option<u64>,
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
