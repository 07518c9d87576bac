//! Who waits for what.

use std::collections::{BTreeMap, VecDeque};

use crate::kv::{Op, Range};
use crate::replica::Ticket;
use crate::wire::Ask;

/// Who is to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Somebody at this replica.
    Here(Ticket),
    /// Somebody at another, by the number that it gave the question.
    There { node: u64, id: u64 },
    /// The leader itself, which ends this lease.
    Lessor(i64),
}

/// What is done when the group has confirmed that its leader leads.
#[derive(Clone, Debug)]
pub enum Wait {
    Read { ticket: Ticket, range: Range },
    Renew { origin: Origin, lease: i64 },
    Look { origin: Origin, lease: i64 },
}

impl Wait {
    /// Who is to be answered.
    pub fn origin(&self) -> Origin {
        match self {
            Wait::Read { ticket, .. } => Origin::Here(*ticket),
            Wait::Renew { origin, .. } | Wait::Look { origin, .. } => *origin,
        }
    }
}

/// Reads that were asked for together.
#[derive(Debug)]
pub struct Reads {
    /// When the group was last asked about them.
    pub asked_ms: u64,
    /// The index that they have to wait for, once it is known.
    pub index: Option<u64>,
    /// Each with the time by which it must be answered.
    pub waits: Vec<(Wait, u64)>,
}

/// A question that another replica was asked.
#[derive(Debug)]
pub struct Forwarded {
    pub ticket: Ticket,
    pub ask: Ask,
    pub to: u64,
    pub until_ms: u64,
}

/// Operations that are in one entry of the log.
#[derive(Debug)]
pub struct Proposed {
    pub origins: Vec<Origin>,
    pub until_ms: u64,
}

/// Everything that waits.
#[derive(Debug, Default)]
pub struct Pending {
    /// To go into the next entry.
    pub batch: Vec<(Origin, Op)>,
    /// By the number of the entry's batch.
    pub proposed: BTreeMap<u64, Proposed>,
    /// To be asked about together.
    pub fresh: Vec<(Wait, u64)>,
    /// By the number that the group was asked with.
    pub reads: BTreeMap<u64, Reads>,
    pub forwarded: BTreeMap<u64, Forwarded>,
    /// Until a leader is known.
    pub leaderless: VecDeque<(Ticket, Ask, u64)>,
}

impl Pending {
    /// How much waits.
    pub fn len(&self) -> usize {
        let proposed: usize = self.proposed.values().map(|proposed| proposed.origins.len()).sum();
        let reads: usize = self.reads.values().map(|reads| reads.waits.len()).sum();
        self.batch.len() + proposed + self.fresh.len() + reads + self.forwarded.len() + self.leaderless.len()
    }
}
