//! The lock group at work: a replica on a task of its own, its log in redb on a thread of its own, and etcd's API.
//!
//! How replicas reach each other is the caller's: it hands in a [`Carry`], and brings what arrives by
//! [`Group::deliver`].

mod driver;
pub mod etcd;
mod log;
pub mod once;
pub mod queue;

use std::path::PathBuf;
use std::sync::Arc;

use rialto_locks::kv::{Applied, Range, Refusal, Span};
use rialto_locks::voters::Candidate;
use rialto_locks::wire::Ask;
use rialto_locks::{Input, Replica};
use tokio::sync::{mpsc, oneshot, watch};

pub use driver::start;
pub use log::{FILE, LogError};

/// The most things that wait for the replica.
const INBOX_MAX: usize = 4096;

/// Carries messages to other replicas. Best effort: what is lost is sent again.
pub trait Carry: Send + Sync + 'static {
    /// False: it was dropped, since nobody is there to take it.
    fn carry(&self, to: u64, bytes: Vec<u8>) -> bool;

    /// A member's name, and where its clients find it.
    fn directory(&self, node: u64) -> (String, Vec<String>);
}

/// What a replica has to know at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    pub node: u64,
    /// What clients are told that the group is called.
    pub cluster: u64,
    /// The folder of the log.
    pub folder: PathBuf,
    /// There is no group yet: this node is the first voter of it.
    pub founds: bool,
    /// Another at each start.
    pub seed: u64,
}

/// How the group is, as far as this replica knows; at any moment, and without asking it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub cluster: u64,
    pub node: u64,
    pub epoch: u64,
    pub term: u64,
    /// 0: nobody is known to.
    pub leader: u64,
    pub voters: Vec<u64>,
    pub learners: Vec<u64>,
    pub revision: i64,
}

impl Told {
    /// Whether this node serves clients itself.
    pub fn votes(&self) -> bool {
        self.voters.contains(&self.node)
    }
}

/// A look at the replica as it stands.
type Look = Box<dyn FnOnce(&Replica) + Send>;

enum Job {
    Input(Input),
    Ask(Ask, oneshot::Sender<Result<Applied, Refusal>>),
    Read(Range, oneshot::Sender<Result<Applied, Refusal>>),
    Look(Look),
}

/// A cheap, cloneable door to the replica.
#[derive(Clone)]
pub struct Group {
    jobs: mpsc::Sender<Job>,
    told: watch::Receiver<Told>,
    revisions: watch::Receiver<i64>,
    carry: Arc<dyn Carry>,
}

impl Group {
    /// Something that only the leader can do.
    pub async fn ask(&self, ask: Ask) -> Result<Applied, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.put(Job::Ask(ask, answer)).await?;
        answered.await.unwrap_or(Err(Refusal::Unknown))
    }

    /// Reads what is certain to be no older than the question.
    pub async fn read(&self, range: Range) -> Result<Applied, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.put(Job::Read(range, answer)).await?;
        answered.await.unwrap_or(Err(Refusal::NoLeader))
    }

    /// Waits until this replica has everything that was done before the question.
    pub async fn fresh(&self) -> Result<(), Refusal> {
        let nothing = Range { count_only: true, ..Range::of(Span::one([0])) };
        self.read(nothing).await.map(drop)
    }

    /// Looks at the replica as it stands: what it has may be old.
    pub async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Replica) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        self.put(Job::Look(Box::new(move |replica| drop(answer.send(look(replica)))))).await?;
        answered.await.map_err(|_| Refusal::NoLeader)
    }

    async fn put(&self, job: Job) -> Result<(), Refusal> {
        self.jobs.send(job).await.map_err(|_| Refusal::NoLeader)
    }

    /// A message from another replica has arrived.
    pub async fn deliver(&self, from: u64, bytes: Vec<u8>) {
        // It fails only when everything ends.
        let _ = self.jobs.send(Job::Input(Input::Parcel { from, bytes })).await;
    }

    /// What was carried to a node was lost.
    pub async fn unreachable(&self, node: u64) {
        let _ = self.jobs.send(Job::Input(Input::Unreachable(node))).await;
    }

    /// What news say of all peers.
    pub async fn candidates(&self, candidates: Vec<Candidate>) {
        let _ = self.jobs.send(Job::Input(Input::Candidates(candidates))).await;
    }

    /// Makes the group anew, with this node as its only voter, from what this replica has. What the old group granted
    /// and this replica has not seen is lost. A replica that has no part in the group does nothing.
    pub async fn force_new(&self) -> Result<(), Refusal> {
        self.put(Job::Input(Input::ForceNew)).await
    }

    pub fn told(&self) -> Told {
        self.told.borrow().clone()
    }

    /// Tells of each change of [`Group::told`].
    pub fn changes(&self) -> watch::Receiver<Told> {
        self.told.clone()
    }

    /// Tells when keys have changed here.
    pub fn revisions(&self) -> watch::Receiver<i64> {
        self.revisions.clone()
    }

    pub(crate) fn directory(&self, node: u64) -> (String, Vec<String>) {
        self.carry.directory(node)
    }

    /// 63 random bits, not all of them zero.
    pub(crate) fn random(&self) -> i64 {
        use std::hash::{BuildHasher, RandomState};
        let bits = RandomState::new().hash_one(self.told().revision);
        ((bits >> 1) as i64).max(1)
    }
}
