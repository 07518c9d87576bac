//! The shapes of the HTTP API under `/v1/`: what every peer answers and every client reads.
//! Field names are a contract: other tools depend on them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::AppSpec;

/// Every answer says how fresh it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer<T> {
    /// Wall clock of the answering peer, ms since 1970.
    pub as_of: u64,
    /// Machines that the answering peer holds for alive, itself included.
    pub members_seen: u32,
    #[serde(flatten)]
    pub data: T,
}

/// Every refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub code: ErrorCode,
    pub message: String,
    /// A way out, where one is known.
    #[serde(default)]
    pub hint: Option<String>,
    /// `file:line:column`, a field, or a machine.
    #[serde(default, rename = "where")]
    pub place: Option<String>,
}

/// The kinds of refusal, each with its HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    Invalid,
    Unauthorized,
    Denied,
    NotFound,
    Conflict,
    /// Nothing that is known of could ever hold it.
    Unplaceable,
    TimedOut,
    /// The machine that has it cannot be reached.
    Unreachable,
    Busy,
    NotSupported,
    Internal,
}

impl ErrorCode {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            ErrorCode::Invalid => 400,
            ErrorCode::Unauthorized => 401,
            ErrorCode::Denied => 403,
            ErrorCode::NotFound => 404,
            ErrorCode::Conflict => 409,
            ErrorCode::Unplaceable => 422,
            ErrorCode::Busy => 429,
            ErrorCode::Internal => 500,
            ErrorCode::NotSupported => 501,
            ErrorCode::Unreachable => 502,
            ErrorCode::TimedOut => 504,
        }
    }
}

/// `GET /v1/tasks?app=&service=&all=true` -> `{"tasks": [TaskRow]}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tasks {
    pub tasks: Vec<TaskRow>,
    /// "holding back 4 replacements for 43 s …": what a person should know beside the rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// One row of `rialto ps`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRow {
    /// `app.service.slot`.
    pub task: String,
    pub app: String,
    pub service: String,
    pub slot: String,
    /// The machine's name.
    pub machine: Option<String>,
    pub state: String,
    pub address: Option<String>,
    pub ports: Vec<PortRow>,
    pub attempt: u32,
    /// RFC 3339.
    pub started_at: Option<String>,
    pub exit_code: Option<i32>,
    /// The claim, in hexadecimal; none while pending.
    #[serde(default)]
    pub claim: Option<String>,
    /// Why it waits, failed or was lost.
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub oom_killed: bool,
    /// Its machine was lost: it may have run, and will not again.
    #[serde(default)]
    pub lost: bool,
    /// It runs an older revision than its app wants now.
    #[serde(default)]
    pub outdated: bool,
    /// The claim is durable since: RFC 3339.
    #[serde(default)]
    pub accepted_at: Option<String>,
    #[serde(default)]
    pub ended_at: Option<String>,
}

/// One published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRow {
    pub name: Option<String>,
    pub host: u16,
    pub container: u16,
    pub protocol: String,
}

/// `GET /v1/machines` -> `{"machines": [MachineRow]}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machines {
    pub machines: Vec<MachineRow>,
}

/// One row of `rialto machine ls`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MachineRow {
    pub name: String,
    /// The peer's identity in hexadecimal.
    pub id: String,
    /// `alive|suspect|down|draining|left|no-executor`.
    pub state: String,
    pub address: Option<String>,
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub cpu_millis_free: u64,
    pub memory_bytes_free: u64,
    /// GPUs and other things that are counted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceRow>,
    pub labels: BTreeMap<String, String>,
    pub version: String,
    /// Seconds since its present life began.
    pub age_seconds: u64,
    /// How far its wall clock is ahead of the answering peer's, ms; known of those that it exchanges heartbeats with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_offset_ms: Option<i64>,
    /// Why it runs nothing.
    #[serde(default)]
    pub reason: Option<String>,
    /// The answering peer.
    #[serde(default)]
    pub this: bool,
    /// How many records it has written, as far as the answering peer holds them: what `machine rm --last` names.
    #[serde(default)]
    pub written: u64,
}

/// Something of a machine's that is counted; of GPUs those that are wholly free are free.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceRow {
    pub name: String,
    pub total: u64,
    pub free: u64,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub cluster_id: String,
    /// The answering machine's name.
    pub machine: String,
    pub version: String,
    pub machines_alive: u32,
    pub machines_known: u32,
    pub tasks_running: u32,
    pub tasks_pending: u32,
    /// Replacements held back by the storm gate.
    pub holding_back: u32,
    /// Milliseconds until held replacements go ahead; none where nothing is held.
    #[serde(default)]
    pub holding_back_ms: Option<u64>,
    /// What does not work, sentence by sentence: a taken DNS port, a missing right.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Bad input by kind, since the start.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
}

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
    /// `full`, `too-small`, `port`, `reserved`, `constraint`, `draining`, `down`, `suspect`, `restarting`,
    /// `no-executor`, `no-image`, `silent`, `bid`, `fits` or `declined`.
    pub code: String,
    pub text: String,
    pub count: u32,
    /// Their names, the first 64.
    pub machines: Vec<String>,
}

/// `GET /v1/rebalance`: what would be moved; `POST /v1/rebalance` has it moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebalance {
    pub before: EvennessRow,
    pub after: EvennessRow,
    pub moves: Vec<MoveRow>,
    /// The stewards were told to make the moves.
    pub begun: bool,
}

/// How even the machines are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvennessRow {
    /// What is taken of the scarcest dimension of the fullest machine, in thousandths, and of the emptiest.
    pub fullest_permille: u64,
    pub emptiest_permille: u64,
    /// Thousandths of GPUs that are free and that typical tasks could not use.
    pub stranded_gpu_milli: u64,
}

/// A task that is to be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveRow {
    /// `app.service.slot`.
    pub task: String,
    pub from: String,
    pub to: String,
    /// What it pays beyond what it costs, in thousandths of a machine's scarcest dimension, or of a GPU.
    pub pays: i64,
}

/// `POST /v1/invitations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteBody {
    pub ttl_seconds: u64,
    pub uses: u32,
}

/// Answers an invitation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invited {
    /// `rialto1.…`: whoever holds it may join.
    pub token: String,
    pub expires_at: String,
    pub uses: u32,
}

/// `GET /v1/images` -> `{"images": [ImageRow]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images {
    pub images: Vec<ImageRow>,
}

/// One image that a machine of the cluster has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRow {
    pub name: String,
    pub digest: String,
    pub bytes: u64,
    /// The names of the machines that have it.
    pub machines: Vec<String>,
}

/// One line of `POST /v1/images/{name}/pull` (`application/x-ndjson`): how far it is, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullLine {
    /// A layer, as it is now. The first line of each names them all, lowest first.
    Layer(LayerRow),
    /// The last line: the image is here.
    Pulled(ImageRow),
    /// The last line: it could not be had.
    Failed(ErrorBody),
}

/// A layer of an image on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRow {
    /// Of the packed layer, `sha256:…`.
    pub digest: String,
    /// Bytes that are here.
    pub bytes: u64,
    pub bytes_total: u64,
    /// `waiting`, `fetching`, `unpacking` or `ready`.
    pub state: String,
}

/// `DELETE /v1/images/{name}`, `POST /v1/blobs/gc` -> `{"machines": [FreedRow]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    pub machines: Vec<FreedRow>,
}

/// What a machine has given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreedRow {
    pub machine: String,
    /// The images that it has no more.
    pub images: Vec<String>,
    /// Bytes on its disk.
    pub bytes: u64,
    /// Why it has given nothing back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `GET /v1/events` -> `{"events": [EventRow]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Events {
    pub events: Vec<EventRow>,
}

/// One thing that happened, as this peer saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRow {
    /// Rises with each event of this peer.
    pub id: u64,
    /// RFC 3339.
    pub at: String,
    pub what: String,
    pub subject: String,
    pub text: String,
}

/// `GET /v1/doctor` -> `{"checks": [Check]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doctor {
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    pub name: String,
    /// `ok|warning|failed`.
    pub result: String,
    pub text: String,
}

/// One line of a followed run or log (`application/x-ndjson`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLine {
    /// Output of a task: base64, for it need not be text. `stream` is `stdout` or `stderr`.
    Output { task: String, stream: String, data: String },
    /// The task is in another state now.
    State(Box<TaskRow>),
    /// Something could not be read: a dead machine's log is never an empty success.
    Failed(ErrorBody),
}
