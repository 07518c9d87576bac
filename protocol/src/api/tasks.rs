//! What runs, what it uses, what it says.

use serde::{Deserialize, Serialize};

use super::ErrorBody;

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
