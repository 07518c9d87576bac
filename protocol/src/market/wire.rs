//! What the two sides of a bid say to each other. Every message is idempotent by its bid or
//! auction number.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::constraint::Constraint;
use super::rank::Rank;
use crate::ids::{AppId, BidId, ClaimId, PeerId};
use crate::model::{Container, Guard, NetworkMode, OnLost, Other, PortSpec, Resources};

/// A steward's call for bids: so many copies of one need.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Solicit {
    /// Names the auction among the steward's.
    pub auction: u64,
    pub app: AppId,
    pub service: String,
    /// How many tasks are to be placed.
    pub count: u32,
    pub need: Resources,
    pub priority: i32,
    /// Its place among what waits.
    pub rank: Rank,
    pub image: String,
    /// What a machine must allow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub asks: Vec<String>,
    /// What a machine must meet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Constraint>,
    /// The most tasks of the service on one machine; 0: any number.
    #[serde(default)]
    pub max_per_machine: u32,
    /// Services whose tasks may not be on the same machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apart_from: Vec<Other>,
    /// Named volumes that they use, and whether each has to be there before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<(String, bool)>,
    /// All copies, or none, here and elsewhere: the reservation has to live longer.
    #[serde(default)]
    pub gang: bool,
    /// It may not be on a machine that has heard no other for so long, ms.
    #[serde(default)]
    pub stop_when_isolated_ms: Option<u64>,
    /// The steward decides this many milliseconds after it asked.
    pub deadline_ms: u64,
}

/// A machine's answer: room reserved in memory until the reservation expires.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bid {
    pub auction: u64,
    pub bid: BidId,
    /// How many copies are reserved.
    pub count: u32,
    /// Higher is better: what only the machine knows.
    pub score: i64,
    /// Milliseconds until a task would run: 0 where the image is present.
    pub start_estimate_ms: u64,
    /// What has to end for it; `None`: there is room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// What a bid ends that runs: less is better, and the first that differs decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cost {
    /// The highest priority among the victims.
    pub priority: i32,
    /// How many tasks end.
    pub tasks: u32,
    /// Milliseconds that they have run in all.
    pub ran_ms: u64,
}

/// A machine with room offers it to the steward of the best that waits and fits there. It is kept for as
/// long as the bid's reservation lives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Offer {
    pub app: AppId,
    pub service: String,
    /// [`crate::model::ServiceSpec::revision`] of what the machine reckoned with.
    pub revision: u64,
    pub bid: Bid,
}

/// A machine's refusal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decline {
    pub auction: u64,
    pub reason: DeclineReason,
}

/// Why a machine does not bid: what `explain` tells people.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeclineReason {
    /// Its capacity could never hold one copy; the dimension that is short.
    TooSmall(String),
    /// It is full now; the dimension that is short.
    Full(String),
    Draining,
    /// It is not what this constraint wants.
    Constraint(String),
    /// It does not allow this.
    Forbidden(String),
    /// It has as many tasks of the service as one machine may have.
    Crowded(u32),
    /// It has a task of a service that this one must be apart from.
    Apart(String),
    /// A volume that the task uses is on that machine, and this is another; on none: there is no such volume.
    Volume {
        volume: String,
        on: Option<String>,
    },
    /// Its room is kept for work that goes before.
    Queued,
    /// It has heard no other machine for longer than the service bears.
    Isolated,
    /// It runs nothing, for this reason.
    NoExecutor(String),
    /// Neither it nor anybody it knows has the image.
    NoImage(String),
    /// It has another cluster's or version's understanding of the request.
    Unsupported(String),
}

impl std::fmt::Display for DeclineReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            DeclineReason::TooSmall(dimension) => write!(f, "too small: {dimension}"),
            DeclineReason::Full(dimension) => write!(f, "full: {dimension}"),
            DeclineReason::Draining => f.write_str("draining"),
            DeclineReason::Constraint(constraint) => write!(f, "not {constraint}"),
            DeclineReason::Forbidden(ask) => write!(f, "does not allow {ask}"),
            DeclineReason::Crowded(most) => write!(f, "at most {most} of its tasks on one machine"),
            DeclineReason::Apart(other) => write!(f, "apart from {other}"),
            DeclineReason::Volume { volume, on: Some(machine) } => write!(f, "volume {volume} is on {machine}"),
            DeclineReason::Volume { volume, on: None } => write!(f, "there is no volume {volume}"),
            DeclineReason::Queued => f.write_str("its room is kept for work that goes before"),
            DeclineReason::Isolated => f.write_str("it hears no other machine"),
            DeclineReason::NoExecutor(reason) => write!(f, "runs nothing: {reason}"),
            DeclineReason::NoImage(image) => write!(f, "image {image} not found"),
            DeclineReason::Unsupported(what) => write!(f, "not supported: {what}"),
        }
    }
}

/// "Your reservation is not needed", wholly or beyond what was awarded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Release {
    pub auction: u64,
    pub bid: BidId,
}

/// The winner's orders: the slots, and what to run in them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Award {
    pub auction: u64,
    pub bid: BidId,
    pub app: AppId,
    pub service: String,
    pub revision: u64,
    pub slots: Vec<Slot>,
    pub image: String,
    /// The manifest that is to run.
    #[serde(default)]
    pub image_digest: Option<String>,
    /// Machines that have the image.
    pub image_at: Vec<PeerId>,
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub ports: Vec<PortSpec>,
    pub limits: Resources,
    #[serde(default, skip_serializing_if = "Container::is_usual")]
    pub container: Container,
    pub grace_ms: u64,
    pub priority: i32,
    pub on_lost: OnLost,
    /// The claims wait until they are told to start.
    #[serde(default)]
    pub gang: bool,
    #[serde(default)]
    pub stop_when_isolated_ms: Option<u64>,
    #[serde(default)]
    pub network_mode: NetworkMode,
    #[serde(default)]
    pub drain_ms: u64,
    /// How many tasks a run of the service has.
    #[serde(default)]
    pub count: u32,
    /// An attempt that runs for longer has failed, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// What each must have of the lock group before it starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
}

/// One task to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    pub slot: String,
    pub attempt: u32,
    /// Of a run at its time, or that was asked for: how many tasks it has; else 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub of: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The machine's last word on an award: it comes after the claims are durable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    pub auction: u64,
    pub bid: BidId,
    /// The claims by slot, in the award's order; or why there are none.
    pub answer: Result<Vec<(String, ClaimId)>, NackReason>,
}

/// Why an award came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NackReason {
    /// The reservation had expired, or the machine was restarted.
    Expired,
    /// The award asked for more than was reserved.
    TooMany,
    /// No host port was free.
    NoPort,
    /// No address of the machine's subnet was free.
    NoAddress,
    Draining,
    /// A volume that it uses is on another machine.
    Elsewhere,
    /// What was to end for it has changed, and the room is not there.
    NoRoom,
}
