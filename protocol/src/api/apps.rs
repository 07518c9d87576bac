//! Apps: what is wanted, how it came to be so, and why something waits.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::AppSpec;

/// `PUT /v1/apps/{app}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeployBody {
    /// 32 hexadecimal digits, made by the client: sending twice is harmless.
    pub change: String,
    pub spec: AppSpec,
    /// Reads the names of images anew, though the app's stay the same.
    #[serde(default)]
    pub resolve: bool,
}

/// `POST /v1/runs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunBody {
    /// 32 hexadecimal digits, made by the client: sending twice is harmless.
    pub change: String,
    /// The name of the app that the run becomes, a DNS label, made by the client.
    pub app: String,
    /// One service or more; `single_run` is set by the peer.
    pub spec: AppSpec,
}

/// `POST /v1/apps/{app}/scale`; without a service all of the app's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleBody {
    pub change: String,
    #[serde(default)]
    pub service: Option<String>,
    pub replicas: u32,
}

/// Answers every change to a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub app: String,
    pub generation: u32,
    /// Peers that hold the change on disk, the answering one included.
    pub copies: u32,
    /// Whether the document reads differently now.
    pub changed: bool,
}

/// `GET /v1/apps/{app}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct App {
    pub app: String,
    pub generation: u32,
    pub spec: AppSpec,
    /// The name of the machine whose peer is the app's steward.
    #[serde(default)]
    pub steward: Option<String>,
    /// Fields that several people set at once, one sentence each.
    #[serde(default)]
    pub conflicts: Vec<String>,
}

/// `GET /v1/apps/{app}/history`; the oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    pub app: String,
    pub generation: u32,
    pub revisions: Vec<RevisionRow>,
    pub conflicts: Vec<String>,
}

/// One change to an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevisionRow {
    /// The change's id: a beginning of it names it where that is unique.
    pub revision: String,
    /// RFC 3339, by the clock of the machine at which it was made.
    pub at: String,
    pub author: String,
    /// The machine at which it was made.
    pub machine: String,
    pub summary: String,
    pub generation: u32,
}

/// `POST /v1/apps/{app}/rollback`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RollbackBody {
    pub change: String,
    /// A revision of the app's history, or a beginning of it.
    pub to: String,
}

/// `POST /v1/apps/{app}/run`: a service that runs to its end runs once more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DispatchBody {
    pub change: String,
    pub service: String,
}

/// `POST /v1/apps/{app}/rollout`; without a service of the only one that is being changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutBody {
    pub change: String,
    #[serde(default)]
    pub service: Option<String>,
    /// `pause`, `resume`, `promote` or `rollback`.
    pub action: String,
}

/// `GET /v1/apps/{app}/rollout` -> `{"rollouts": [RolloutRow]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollouts {
    pub rollouts: Vec<RolloutRow>,
}

/// How the last change of a service stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolloutRow {
    pub service: String,
    /// `going`, `canary`, `paused`, `failed`, `reverting` or `done`.
    pub phase: String,
    /// Tasks of the new revision, of how many; and how many of them failed while they were watched.
    pub updated: u32,
    pub total: u32,
    pub failed: u32,
    /// It brings back what was before.
    pub back: bool,
    /// Revisions, in hexadecimal.
    pub from: String,
    pub to: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `GET /v1/apps` -> `{"apps": [App]}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Apps {
    pub apps: Vec<App>,
}

/// `GET /v1/explain/{name}`, of an app, a service (`app.service`) or a task (`app.service.slot`): why tasks wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    pub app: String,
    pub generation: u32,
    /// The name of the machine whose peer looks after the app.
    pub steward: Option<String>,
    /// The machine whose peer tells this.
    pub told_by: String,
    /// It is the steward that tells: it knows what the machines answered. Another peer knows only the ledger.
    pub by_steward: bool,
    pub services: Vec<ServiceExplained>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// One service of an explained app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceExplained {
    pub service: String,
    /// Replicas that are wanted; of them run, have finished, and wait:
    pub wanted: u32,
    pub running: u32,
    pub finished: u32,
    pub waiting: u32,
    /// What one task needs, by dimension.
    pub need: BTreeMap<String, u64>,
    /// Where its volumes hold it, sentence by sentence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// What the steward is at, sentence by sentence.
    pub steward: Vec<String>,
    /// The first hundred tasks that wait.
    pub tasks: Vec<WaitingTask>,
    /// Why machines do not take those that have no place, the commonest reason first.
    pub machines: Vec<MachineReason>,
}

/// A task that does not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingTask {
    pub task: String,
    pub why: String,
}

/// Machines that do not take a task for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineReason {
    /// `full`, `too-small`, `port`, `reserved`, `constraint`, `forbidden`, `draining`, `down`, `suspect`, `restarting`,
    /// `no-executor`, `no-image`, `silent`, `bid`, `fits` or `declined`.
    pub code: String,
    pub text: String,
    pub count: u32,
    /// Their names, the first 64.
    pub machines: Vec<String>,
}

/// `GET /v1/apps/{app}/events` -> `{"events": [AppEvent]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppEvents {
    pub events: Vec<AppEvent>,
}

/// One thing that happened to an app, whoever saw it. Every peer holds the last hundred that each has seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppEvent {
    /// The same at every peer; it rises with the time at which it was seen.
    pub id: String,
    /// RFC 3339, by the clock of whoever saw it.
    pub at: String,
    /// Whoever saw it.
    pub machine: String,
    pub what: String,
    pub subject: String,
    pub text: String,
}
