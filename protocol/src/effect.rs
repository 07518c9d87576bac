//! Everything that a brain can want done. Effects are performed in order.

use std::sync::Arc;

use crate::ids::{AppId, ClaimId, PeerId};
use crate::lease::Need;
use crate::ledger::record::RecordKey;
use crate::ledger::record::{Draft, Stored};
use crate::model::{TaskSpec, Vitals, Volume};
use crate::wire::Message;

/// One thing to do.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Send a message, over the standing link or else over a connection made for it. Best effort.
    Send { to: PeerId, message: Message },
    /// Sign own records and make them durable, with `local`, in one transaction; then
    /// [`crate::Event::Committed`]. At most one is under way.
    Commit { commit: u64, drafts: Vec<Draft>, local: Vec<Local> },
    /// Save others' records, in one transaction. With a token, [`crate::Event::Stored`] when they
    /// are durable; without one nobody waits, and a lost tail is fetched again.
    Store { ops: Vec<StoreOp>, token: Option<u64> },
    /// Sign vitals; then [`crate::Event::VitalsSigned`].
    SignVitals { vitals: Vitals },
    /// The peers to keep standing links with, whole: any other standing link may end. Addresses
    /// come first by likelihood; the peer book may know more.
    Links { peers: Vec<(PeerId, Vec<String>)> },
    /// The peers that may speak anything but `hello`, whole.
    Members { peers: Vec<(PeerId, Vec<String>)> },
    /// Start a task, unless its container exists already. Reports come as [`crate::Event::Task`].
    Start { claim: ClaimId, spec: Arc<TaskSpec> },
    /// End a task: its stop signal, and SIGKILL after the grace. Harmless where there is none, and
    /// then reported as ended all the same.
    Stop { claim: ClaimId, grace_ms: u64 },
    /// Get of the lock group what a task needs before it starts, and keep it: what comes of that is told by
    /// [`crate::Event::Lease`]. A lease is kept until it is released.
    Acquire { claim: ClaimId, need: Need },
    /// The task needs it no more.
    Release { claim: ClaimId },
    /// The claim is no longer in the ledger: its logs may go.
    Forget { claim: ClaimId },
    /// Answer a request.
    Reply { request: u64, reply: Result<Reply, Refusal> },
    /// Something came that should not have: count it, and say so once in a while.
    Report { peer: Option<PeerId>, what: Bad },
    /// What these apps show has changed, or `machines` have, and with them anything: watchers look again.
    Changed { apps: Vec<AppId>, machines: bool },
    /// For the event log and the eyes of people.
    Note { note: Note },
    /// This identity must write no more: its records were written by a later life of it.
    Retire { reason: String },
}

/// One change to what a peer holds of others.
#[derive(Clone, Debug)]
pub enum StoreOp {
    Put(Arc<Stored>),
    Delete {
        owner: PeerId,
        key: RecordKey,
    },
    /// Everything through `complete` is held; everything forgotten lies at or below `floor`.
    Owner {
        owner: PeerId,
        complete: u64,
        floor: u64,
    },
    Local(Local),
}

/// What a brain keeps on disk for itself alone: not in the ledger, never sent. `None` deletes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    pub key: String,
    pub value: Option<Vec<u8>>,
}

/// A request that was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Done,
    /// The document has the change; `copies` peers hold it on disk, this one included.
    Changed {
        app: AppId,
        copies: u32,
        changed: bool,
    },
    /// A volume of this machine: made, found, or no more.
    Volume(Volume),
    /// The newcomer is admitted: what it needs to prove every member to itself.
    Admitted {
        chain: Vec<Arc<Stored>>,
    },
}

/// A request that was not granted, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0} not found")]
    NotFound(String),
    #[error("{0}")]
    Invalid(String),
    #[error("{0}")]
    Denied(String),
    #[error("too many requests are under way; try again in a moment")]
    Busy,
}

/// What is wrong with what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bad {
    /// A signature that is not the owner's.
    Signature,
    /// A frame or record that does not hang together or exceeds a bound.
    Malformed,
    /// A record of an owner without an admission.
    Unadmitted,
    /// A value that its kind's type does not read.
    Unreadable,
    /// A change that its document does not take.
    Inapplicable,
    /// A queue was full.
    Overflow,
    /// An owner wrote more than its budget: it was neither kept nor handed on.
    OverBudget,
    /// A steward's word by a peer that cannot be the app's steward.
    Usurped,
}

impl Bad {
    /// The name of the counter.
    pub fn name(self) -> &'static str {
        match self {
            Bad::Signature => "signature",
            Bad::Malformed => "malformed",
            Bad::Unadmitted => "unadmitted",
            Bad::Unreadable => "unreadable",
            Bad::Inapplicable => "inapplicable",
            Bad::Overflow => "overflow",
            Bad::OverBudget => "over_budget",
            Bad::Usurped => "usurped",
        }
    }
}

/// What happened, for people. `subject` is an app, a task or a machine by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// A word: `deployed`, `placed`, `exited`, `lost`, `overlap`, `down`, …
    pub what: &'static str,
    pub subject: String,
    pub text: String,
}
