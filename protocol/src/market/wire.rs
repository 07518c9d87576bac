//! What the two sides of a bid say to each other. Every message is idempotent by its bid or
//! auction number.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{AppId, BidId, ClaimId, PeerId};
use crate::model::{OnLost, PortSpec, Resources};

/// A steward's call for bids: so many copies of one need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Solicit {
    /// Names the auction among the steward's.
    pub auction: u64,
    pub app: AppId,
    pub service: String,
    /// How many tasks are to be placed.
    pub count: u32,
    pub need: Resources,
    pub priority: i32,
    pub image: String,
    /// The steward decides this many milliseconds after it asked.
    pub deadline_ms: u64,
}

/// A machine's answer: room reserved in memory until the reservation expires.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bid {
    pub auction: u64,
    pub bid: BidId,
    /// How many copies are reserved.
    pub count: u32,
    /// Higher is better: what only the machine knows.
    pub score: i64,
    /// Milliseconds until a task would run: 0 where the image is present.
    pub start_estimate_ms: u64,
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    pub grace_ms: u64,
    pub priority: i32,
    pub on_lost: OnLost,
}

/// One task to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    pub slot: String,
    pub attempt: u32,
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
    Draining,
}
