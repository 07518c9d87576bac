//! `rialto foresee`: the production brain of every machine, run on the ledger of a live cluster in the virtual
//! world, to tell what would happen.
//!
//! A snapshot of one peer's ledger is brought to life ([`revive`]): each machine that lives gets a brain which starts
//! from that ledger as after a restart, with the tasks it runs taken as running, and running on. Nobody's key is needed,
//! for in the virtual world the signer vouches for everybody. When all is calm, what is asked about happens
//! ([`story`]), and the difference between before and after is what is told ([`report`]).
//!
//! The same snapshot, questions and seed give the same answer, always.

mod report;
mod revive;
mod story;

use rialto_protocol::model::AppSpec;
use rialto_protocol::snapshot::Snapshot;

pub use report::{Move, Outlook};

/// The most machines whose brains are run: each answers for itself, and together they hold the ledger so many times.
pub const MACHINES_MAX: usize = 200;
/// The most tasks that are wanted of all apps together.
pub const TASKS_MAX: usize = 20_000;

/// What is asked about. All of it happens: newcomers join, then apps are deployed, then machines are lost.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    pub add: Vec<Newcomers>,
    /// Apps by name.
    pub deploy: Vec<(String, AppSpec)>,
    /// Machines that lose power at one moment, by name or by the beginning of the identity.
    pub lose: Vec<String>,
    pub seed: u64,
}

/// Machines that join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomers {
    pub count: usize,
    /// The machine whose capacity, labels and version they have, by name.
    pub like: String,
}

/// Why nothing can be foreseen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForeseeError {
    #[error("no machine is called {0}; there are {1}")]
    NoMachine(String, String),
    #[error("{0} is down already")]
    Down(String),
    #[error("nobody would be left: {0} are all the machines that live")]
    NobodyLeft(String),
    #[error("{0} machines are more than can be foreseen here: at most {MACHINES_MAX}, each of which runs its brain")]
    TooManyMachines(usize),
    #[error("{0} tasks are more than can be foreseen here: at most {TASKS_MAX}")]
    TooManyTasks(usize),
    #[error("the ledger has no machine that lives")]
    Nobody,
    #[error("the app {0} is refused: {1}")]
    Refused(String, String),
    #[error("{0} did not come about within {1} s of virtual time")]
    NotInTime(&'static str, u64),
    /// A promise of the brain's was broken on the way: what it would tell is worth nothing.
    #[error("the simulation broke a promise, and its answer would be worth nothing: {0}")]
    Broken(String),
}

/// Tells what would happen.
///
/// # Errors
///
/// A machine or app that is asked about is not there, the cluster is too large, or the virtual world did not come to
/// rest.
pub fn foresee(snapshot: &Snapshot, questions: &Questions) -> Result<Outlook, ForeseeError> {
    story::Story::begin(snapshot, questions)?.tell(questions)
}
