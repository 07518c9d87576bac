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
    /// `starting`, `healthy` or `unhealthy`, of a running task with a health check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<String>,
    /// Its machine was lost: it may have run, and will not again.
    #[serde(default)]
    pub lost: bool,
    /// Its steward has written down how it ended: nothing more will come of it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub done: bool,
    /// It runs an older revision than its app wants now.
    #[serde(default)]
    pub outdated: bool,
    /// The claim is durable since: RFC 3339.
    #[serde(default)]
    pub accepted_at: Option<String>,
    #[serde(default)]
    pub ended_at: Option<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// `GET /v1/stats?app=&service=&here=` -> `{"stats": [StatsRow]}`: what running tasks use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    pub stats: Vec<StatsRow>,
    /// Machines that did not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// What one task uses: counters since its start, and what it holds now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatsRow {
    /// `app.service.slot`.
    pub task: String,
    pub app: String,
    pub service: String,
    pub slot: String,
    pub machine: String,
    /// The claim, in hexadecimal.
    pub claim: String,
    /// Wall clock of its machine, ms, at which this was read.
    pub at: u64,
    /// Processor time since the start, microseconds.
    pub cpu_us: u64,
    /// Thousandths of a core, over the time between two reads; a single read knows only the mean since the start.
    pub cpu_millis: u64,
    /// Thousandths of a core.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit_millis: Option<u64>,
    /// What it holds, without files that can be dropped.
    pub memory_bytes: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<u64>,
    /// From and to disks, since the start.
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// By its own network; none where it has the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub received_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_bytes: Option<u64>,
}

/// One published port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRow {
    pub name: Option<String>,
    pub host: u16,
    pub container: u16,
    pub protocol: String,
    /// It listens on every machine.
    #[serde(default)]
    pub ingress: bool,
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
    /// The addresses of this machine's tasks; none where they use the machine's network.
    #[serde(default)]
    pub subnet: Option<String>,
    /// The ways from here to the tasks of other machines.
    #[serde(default)]
    pub links: Vec<LinkRow>,
}

/// The way from one machine to the tasks of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkRow {
    /// The other machine's name.
    pub machine: String,
    /// The addresses of its tasks.
    pub subnet: String,
    /// `direct` on one segment, or `vxlan`.
    pub path: String,
    /// The other machine's address.
    pub via: String,
    /// Whether somebody between the two could not read along.
    pub encrypted: bool,
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

/// `GET /v1/locks`: the lock group, as the answering peer knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Locks {
    /// A machine's name; none: nobody is known to lead.
    pub leader: Option<String>,
    /// Machines by name. Empty at a peer that has no part in the group.
    pub voters: Vec<String>,
    /// Those that take in what voters know, to vote later.
    pub learners: Vec<String>,
    /// Locks can be had.
    pub quorum: bool,
    /// The answering peer votes.
    pub votes: bool,
    /// Rises whenever the group is made anew by force.
    pub epoch: u64,
    /// Rises with each change of leaders.
    pub term: u64,
    /// That of the last change; fencing tokens are revisions.
    pub revision: i64,
    pub keys: u64,
    pub bytes: u64,
    pub leases: u64,
}

/// `POST /v1/locks/sessions`: asks for a lease, which waits and holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockSessionBody {
    pub ttl_seconds: u32,
}

/// A lease: granted, or renewed by `POST /v1/locks/sessions/{session}/renew`. `DELETE` ends it. Its owner reckons its end
/// from when it asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockSession {
    /// Its number, in hexadecimal digits.
    pub session: String,
    pub ttl_seconds: u32,
}

/// `POST /v1/locks/queues/{name}`: takes a place in the queue of a lock, or an election. The answer is lines
/// ([`LockLine`]); whoever does not read it to its end leaves the queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockPlaceBody {
    pub session: String,
    /// What others see of whoever holds or leads.
    #[serde(default)]
    pub value: String,
    /// How long it may wait, ms; 0: not at all; absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// One line of the answer to [`LockPlaceBody`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockLine {
    /// So many are before it.
    Waiting(u64),
    /// The last line: it holds, or leads.
    Held(LockPlace),
    /// The last line: it does not come to that.
    Failed(ErrorBody),
}

/// Whoever holds a lock, leads, or waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockPlace {
    /// The lease, in hexadecimal digits.
    pub session: String,
    /// The fencing token: who comes later in a queue has a higher one.
    pub token: i64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// What the lease was granted for; 0: it hangs on none.
    pub ttl_seconds: i64,
    /// What is left of the lease unless it is renewed, ms; absent: it was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
}

/// `GET /v1/locks/queues/{name}`: a lock or an election; with `?follow=true` a line of it whenever it has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockQueue {
    pub name: String,
    /// Who holds, or leads.
    pub holder: Option<LockPlace>,
    /// Who waits, in order.
    pub waiting: Vec<LockPlace>,
}

/// `GET /v1/locks/queues`: all locks and elections that somebody holds or waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockQueues {
    pub queues: Vec<LockQueue>,
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
    /// Output of a task: base64, for it need not be text. `stream` is `stdout` or `stderr`; `at` is the wall clock of
    /// its machine, ms.
    Output { task: String, stream: String, at: u64, data: String },
    /// The task is in another state now.
    State(Box<TaskRow>),
    /// Something could not be read: a dead machine's log is never an empty success.
    Failed(ErrorBody),
}

/// `GET /v1/volumes` -> `{"volumes": [VolumeRow]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volumes {
    pub volumes: Vec<VolumeRow>,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRow {
    /// `APP/NAME`, or `NAME` of one that apps share.
    pub name: String,
    /// In hexadecimal: the name of its folder.
    pub id: String,
    /// The machine that holds it.
    pub machine: String,
    /// `here`, `down` (its machine is), `given up` (another of its name counts, or it was released), or `gone` (its
    /// machine is no member any more).
    pub state: String,
    /// RFC 3339.
    pub made_at: String,
    /// Services that name it: `APP/SERVICE`.
    pub services: Vec<String>,
    /// What it takes, and how many files it has: only where its machine was asked for this one volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Where it lies on its machine: as `bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// `GET /v1/secrets` -> `{"secrets": [SecretRow]}`: what is set, never what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    pub secrets: Vec<SecretRow>,
}

/// One secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRow {
    /// `APP/NAME`, or `NAME` of one that apps share.
    pub name: String,
    /// RFC 3339.
    pub set_at: String,
    /// Services that get it as a file: `APP/SERVICE`.
    pub services: Vec<String>,
}

/// Body of `PUT /v1/secrets/{name}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretBody {
    /// Base64 (RFC 4648, with padding).
    pub value: String,
}

impl SecretBody {
    /// What a secret says, as it travels.
    pub fn of(value: &[u8]) -> Self {
        use base64::Engine;
        Self { value: base64::engine::general_purpose::STANDARD.encode(value) }
    }
}

/// Nothing prints what a secret says.
impl std::fmt::Debug for SecretBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretBody(…)")
    }
}

/// Answers a secret that was set or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSet {
    pub name: String,
    /// It said something else before.
    pub changed: bool,
}

/// Body of `POST /v1/volumes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeBody {
    pub name: String,
    /// By name or id; the one that is asked where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
}

/// `GET /v1/logins` -> `{"logins": [LoginRow]}`: the registries that people have logged in at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logins {
    pub logins: Vec<LoginRow>,
}

/// One registry that opens to the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginRow {
    /// `HOST[:PORT]`.
    pub registry: String,
    /// RFC 3339.
    pub set_at: String,
}

/// Body of `PUT /v1/logins/{registry}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginBody {
    pub user: String,
    pub password: String,
}

/// Nothing prints a password.
impl std::fmt::Debug for LoginBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LoginBody({}, …)", self.user)
    }
}
