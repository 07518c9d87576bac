//! The lock group, and locks held through this peer.

use serde::{Deserialize, Serialize};

use super::ErrorBody;

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
