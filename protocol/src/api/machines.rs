//! The members, and how this one is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

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
