//! Leases of tasks: what a machine asks of the lock group before it starts a task that must not run twice, and until when
//! the task may run.
//!
//! The [`Keeper`] of a task decides what is asked when, and what follows from the answers; whoever drives it carries
//! questions to the group and says what time it is. The end of a lease is reckoned from when its renewal was *sent*, by a
//! clock that counts while the machine sleeps, less what clocks may differ by; whoever holds the task is told of each new
//! end, and ends the task by then whatever becomes of the keeper.

mod keeper;

pub use keeper::{Act, Keeper};

use serde::{Deserialize, Serialize};

use crate::ids::{AppId, ClaimId, TaskId};
use crate::model::schedule::slot_of;
use crate::model::singleton::Guard;
use crate::steward::array;

/// A task's lease, seconds: so long after its machine has died another may have it.
pub const TTL_SECONDS: i64 = 10;
/// It is renewed so often, ms.
pub const RENEW_MS: u64 = 2_500;
/// What could not be asked is asked again after this, ms.
pub const RETRY_MS: u64 = 250;
/// Of a lease so much counts, in hundredths: two clocks, each of which is up to 1 % wrong, differ by little more than 2 %.
const SURE_PERCENT: u64 = 97;
/// SIGKILL comes so long before the end, ms: the kernel needs a moment to end a container.
pub const KILL_MS: u64 = 300;
/// The stop signal comes at most so long before that, ms.
pub const TERM_MS_MAX: u64 = 2_000;
/// How far behind the newest run of a schedule one may be that is run exactly once, ms: what the group remembers.
const REMEMBERED_MS: u64 = 86_400_000;

/// Until when a lease is sure to be its owner's that was asked for at this time.
pub fn until(sent_ms: u64) -> u64 {
    sent_ms + TTL_SECONDS as u64 * 1000 * SURE_PERCENT / 100
}

/// When a task whose lease is sure until then is to get SIGKILL.
pub fn kill_at(until_ms: u64) -> u64 {
    until_ms.saturating_sub(KILL_MS)
}

/// When it is to get its stop signal.
pub fn term_at(until_ms: u64, grace_ms: u64) -> u64 {
    kill_at(until_ms).saturating_sub(grace_ms.min(TERM_MS_MAX))
}

/// What a task needs of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    pub guard: Guard,
    /// Of a lease: its service. Of a run: its service in this generation of its app.
    pub name: String,
    /// What is done once.
    pub run: String,
    /// Runs before this one are not remembered any more.
    pub floor: Option<String>,
    /// Who asks: the claim, and its machine for people.
    pub holder: String,
    /// It runs already, with this token: it has a lease, and none that was made later counts.
    pub fence: Option<u64>,
}

impl Need {
    /// What the claim of a task needs. A lease is one for all generations of an app: what is left of an earlier one is
    /// still to be waited for.
    pub fn of(guard: Guard, task: &TaskId, claim: &ClaimId, machine: &str, fence: Option<u64>) -> Self {
        let AppId { namespace, name, generation } = &task.app;
        let service = &task.service;
        let floor = array::instant(&task.slot).map(|instant| slot_of(instant.saturating_sub(REMEMBERED_MS)));
        Self {
            guard,
            name: match guard {
                Guard::Lease => format!("{namespace}/{name}/{service}"),
                Guard::Once => format!("{namespace}/{name}.{generation}/{service}"),
            },
            run: task.slot.clone(),
            floor,
            holder: format!("{claim} on {machine}"),
            fence,
        }
    }
}

/// The lease of a claim: always the same one, so that nobody has to remember it.
pub fn lease_of(claim: &ClaimId) -> i64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(&claim.0).as_bytes()[..8]);
    ((u64::from_be_bytes(first) >> 1) as i64).max(1)
}

/// What is heard of a lease by whoever runs the task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// It may start, with this token.
    Granted { token: u64 },
    /// It has to wait, for people.
    Waits(String),
    /// It must run no longer.
    Lost(String),
    /// Somebody else has the run.
    Spent(String),
}

/// What the lock group is asked. The same question twice is harmless.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    Grant {
        lease: i64,
        ttl_seconds: i64,
    },
    Renew {
        lease: i64,
    },
    /// A place in the queue of a name, or the one that the lease has there already.
    Enqueue {
        name: String,
        lease: i64,
        holder: String,
    },
    /// Whether nobody is before a place; answered when nobody is, and after so long in any case.
    Await {
        name: String,
        lease: i64,
        token: i64,
        wait_ms: u64,
    },
    Revoke {
        lease: i64,
    },
    /// A run, once.
    Claim {
        name: String,
        run: String,
        floor: Option<String>,
        holder: String,
    },
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The lease is granted, or renewed, for its whole time.
    Lives,
    /// It had been granted before; for how long yet is not said.
    Exists,
    /// There is no such lease, or no such place any more.
    Gone,
    Placed {
        token: i64,
    },
    First,
    /// Somebody is before it.
    Behind {
        holder: String,
    },
    /// The run is the asker's, or has been.
    Mine {
        token: i64,
    },
    Taken {
        by: String,
    },
}
