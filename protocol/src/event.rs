//! Everything that can happen to a brain.

use crate::ids::{AppId, ChangeId, ClaimId, ClusterId, InvitationId, PeerId, VolumeId};
use crate::lease::Word;
use crate::ledger::record::Signature;
use crate::model::secret::{Seal, Secret};
use crate::model::{AppSpec, Executor, Health, OrderWord, Range, Resources};
use crate::wire::Message;

/// The time, as the driver reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// A monotonic clock, ms; its zero means nothing.
    pub ms: u64,
    /// The wall clock, ms since 1970: stamps and ages only.
    pub wall: u64,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// The deadline that [`crate::Brain::next_deadline`] named has come.
    Woke,
    /// The standing link to a peer is up (both directions) or lost.
    Link { peer: PeerId, up: bool },
    /// A peer said something. `verified`: every signature in it was checked and is right.
    Received { from: PeerId, message: Message, verified: bool },
    /// Own records are signed and durable: answers [`crate::Effect::Commit`].
    Committed { commit: u64, signatures: Vec<Signature> },
    /// Others' records are durable: answers an [`crate::Effect::Store`] with a token.
    Stored { token: u64 },
    /// Vitals are signed: answers [`crate::Effect::SignVitals`].
    VitalsSigned { counter: u64, signature: Signature },
    /// What became of a task: answers [`crate::Effect::Start`] and [`crate::Effect::Stop`], or
    /// tells of what was found alive when the peer started.
    Task { claim: ClaimId, report: TaskReport },
    /// The executor has found everything that earlier lives left behind, and told of it by
    /// [`Event::Task`]: claims that it did not name have no container.
    TasksFound,
    /// What is heard of what a task needs of the lock group: answers [`crate::Effect::Acquire`], for as long as that was
    /// not followed by [`crate::Effect::Release`].
    Lease { claim: ClaimId, word: Word },
    /// Now and then: what the machine measured. `disk_full`: there is hardly any room left for what tasks write.
    Measured { load_millis: u64, images: Vec<String>, disk_full: bool },
    /// A person, or a program, asks for something; answered by [`crate::Effect::Reply`].
    Request { id: u64, request: Request },
}

/// What became of a task's container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskReport {
    /// Its image is being fetched or its container made.
    Starting,
    /// It runs; `image_digest` is what it runs. Told again whenever its health changes.
    Running { image_digest: Option<String>, started_at: u64, health: Health },
    /// The container is gone. `exit_code` is 128 + n where signal n ended it.
    Exited { exit_code: i32, oom_killed: bool, ended_at: u64 },
    /// The container is gone, since its lease of the lock group ended.
    Expired { exit_code: i32, ended_at: u64 },
    /// It never ran, and nothing of it is left.
    Failed { reason: String },
}

impl TaskReport {
    /// Whether nothing of the container is left.
    pub fn is_end(&self) -> bool {
        !matches!(self, TaskReport::Starting | TaskReport::Running { .. })
    }
}

/// What a person or a program asks of a brain.
#[derive(Clone, Debug)]
pub enum Request {
    /// Makes the app's document read so; services that it does not name end.
    Deploy { change: ChangeId, author: String, app: String, spec: AppSpec },
    /// Sets the number of replicas: `None` for the service means all of the app's.
    Scale { change: ChangeId, author: String, app: String, service: Option<String>, replicas: u32 },
    /// Ends the app's generation.
    Remove { change: ChangeId, author: String, app: String },
    /// Makes the app's document read as it did after an earlier change: its id, or a beginning of it.
    Rollback { change: ChangeId, author: String, app: String, to: String },
    /// A service that runs to its end, or at given times, runs once now.
    Run { change: ChangeId, author: String, app: String, service: String },
    /// Says what becomes of a rollout; `None` for the service: of the only one there is.
    Rollout { change: ChangeId, author: String, app: String, service: Option<String>, word: OrderWord },
    /// Opens the storm gate, here and at every peer that can be reached.
    Unfreeze,
    /// A machine is a member no more; `force`: though it lives. `last`: its key was stolen, and nothing counts that it
    /// wrote with a number above this.
    Depart { peer: PeerId, force: bool, last: Option<u64> },
    /// This machine takes no more work and hands over what it has; or takes work again.
    Drain { on: bool },
    /// Has tasks moved that run, each by its app's steward.
    Relocate(Vec<Relocation>),
    /// Ends a task of this machine, which its steward has started anew, here or elsewhere.
    Restart(ClaimId),
    /// Ends every task of this machine.
    EndTasks,
    /// Makes an invitation; `secret` was made by the driver.
    Invite { invitation: InvitationId, secret_hash: [u8; 32], uses: u32, ttl_ms: u64 },
    /// A newcomer shows an invitation at `hello`.
    Admit { key: PeerId, cluster: ClusterId, invitation: InvitationId, secret_hash: [u8; 32] },
    /// The machine has an image, or has it no more. `brought`: a person brought it in just now, so that from now on its
    /// name means this one; what a task needed and fetched changes no name's meaning.
    Image { name: String, digest: String, bytes: u64, present: bool, brought: bool },
    /// Makes a named volume on this machine, unless it is there.
    VolumeMake { name: String },
    /// Removes a named volume of this machine that nothing uses; `force`: though an app names it.
    VolumeRemove { id: VolumeId, force: bool },
    /// Gives up a volume whose machine is down.
    VolumeRelease { name: String },
    /// A secret, sealed or removed; `anew`: it only lies under another key now.
    Secret { secret: Secret, anew: bool },
    /// A key of secrets, sealed to some; a new one has no stamp yet.
    Seal(Seal),
    /// What this machine is: told at start, before anything else, and whenever it changes.
    Describe(Description),
    /// "I shall be back by then" (wall clock, ms), said on the way out; answered when it is durable
    /// and sent.
    Restarting { until: u64 },
}

/// A task that is to run on another machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relocation {
    pub app: AppId,
    /// The claim that it runs under now.
    pub claim: ClaimId,
    pub to: PeerId,
}

/// What the driver knows of its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub name: String,
    pub addresses: Vec<String>,
    pub labels: std::collections::BTreeMap<String, String>,
    pub capacity: Resources,
    /// As [`crate::model::Machine::allows`].
    pub allows: Vec<String>,
    pub version: String,
    pub executor: Executor,
    /// Of whose addresses its tasks get theirs; `None`: they use the machine's network.
    pub network: Option<Range>,
}
