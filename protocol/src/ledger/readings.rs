//! The typed readings of the ledger: machines, claims, images, invitations' results. A value that
//! does not read leaves the last good reading in force.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::brain::journal::Happenings;
use crate::event::Now;
use crate::ids::{AppId, ClaimId, ClusterId, InvitationId, PeerId, TaskId};
use crate::ledger::memo::Memo;
use crate::ledger::record::{Kind, Record, RecordKey};
use crate::ledger::secrets::Secrets;
use crate::ledger::volumes::Volumes;
use crate::market::mix::{Cluster, Mix, Needs};
use crate::market::rank::Rank;
use crate::model::{Claim, Machine, Resources, Subnet};
use crate::steward::rollout::Progress;
use crate::table::Table;
use crate::wire::{SignedVitals, decode};

/// What a record's value says, for the kinds that there are many of; shared by all who hold the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    Machine(Arc<Machine>),
    Claim(Arc<Claim>),
    /// Of another kind: read where it is needed.
    Other,
    Gone,
    Unreadable,
}

impl Reading {
    pub fn of(record: &Record) -> Self {
        record.value.as_ref().map_or(Reading::Gone, |value| Self::of_value(record.key.kind, value))
    }

    pub fn of_value(kind: Kind, value: &[u8]) -> Self {
        match kind {
            Kind::MACHINE => decode(value).map_or(Reading::Unreadable, |read| Reading::Machine(Arc::new(read))),
            Kind::CLAIM => decode(value).map_or(Reading::Unreadable, |read| Reading::Claim(Arc::new(read))),
            _ => Reading::Other,
        }
    }
}

/// The value of an `admission` record; its key is the newcomer's identity in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    pub peer: PeerId,
    pub cluster: ClusterId,
    /// None: the founder's own.
    #[serde(default)]
    pub invitation: Option<InvitationId>,
    /// Of the founder's own: see [`ClusterId::of_founder`].
    #[serde(default)]
    pub nonce: Option<[u8; 16]>,
    /// Wall clock of the introducer, ms.
    pub at: u64,
}

/// The value of a `verdict` record; its key is the subject's identity in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub subject: PeerId,
    /// The life that the observer does not hear.
    pub life: u64,
}

/// The value of a `departure` record; its key is the peer's identity in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    pub peer: PeerId,
    /// For a stolen key: the last number that counts.
    #[serde(default)]
    pub last: Option<u64>,
}

/// The value of an `image` record; its key is the name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub digest: String,
    pub bytes: u64,
    /// Wall clock when a person brought it in, ms: of two images of one name the later is meant. 0: nobody knows.
    #[serde(default)]
    pub at: u64,
}

/// The value of a `stewardship` record; its key is the app. Valid while its owner stewards the app,
/// and readable after it left until a successor has adopted the app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stewardship {
    /// The revision of each service that is being brought about.
    pub revisions: BTreeMap<String, u64>,
    /// Attempts in a row that ended soon, by `service.slot`.
    pub restarts: BTreeMap<String, u32>,
    /// By service, how a change of it stands.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rollouts: BTreeMap<String, Progress>,
    pub pending: Vec<Pending>,
}

/// What of one service waits for room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub service: String,
    pub count: u32,
    pub need: Resources,
    pub priority: i32,
    /// Its place among what waits; `since`: since when the oldest does.
    pub rank: Rank,
    /// What the machines that were asked said, most frequent first.
    pub reasons: Vec<String>,
}

/// One claim and its owner.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimEntry {
    pub owner: PeerId,
    pub claim: Arc<Claim>,
    /// When this peer read that it has ended: monotonic, ms; 0: it has not.
    pub ended_ms: u64,
}

impl ClaimEntry {
    /// When it ended, wall clock, ms. The machine's clock may be ahead: no later than this peer heard of it.
    pub fn ended_at(&self, now: Now) -> Option<u64> {
        let heard = now.wall.saturating_sub(now.ms.saturating_sub(self.ended_ms));
        self.claim.ended_at.map(|at| at.min(heard))
    }
}

/// What a machine's claims are, and what these take; where it has any.
type Account = (Option<Arc<BTreeMap<ClaimId, Arc<Claim>>>>, Option<Arc<Resources>>);

/// A machine's account before and after a claim of its own was read.
#[derive(Debug)]
pub(crate) struct Posting {
    before: Account,
    tasks: Arc<BTreeMap<ClaimId, Arc<Claim>>>,
    used: Option<Arc<Resources>>,
}

impl Posting {
    /// Whether this is the very account that it was made to.
    fn follows(&self, account: &Account) -> bool {
        fn same<T>(one: &Option<Arc<T>>, other: &Option<Arc<T>>) -> bool {
            one.as_ref().map(Arc::as_ptr) == other.as_ref().map(Arc::as_ptr)
        }
        same(&self.before.0, &account.0) && same(&self.before.1, &account.1)
    }
}

/// The newest vitals of a machine.
#[derive(Clone, Debug)]
pub struct Heard {
    pub signed: Arc<SignedVitals>,
    /// When they came: monotonic, ms.
    pub read_ms: u64,
}

impl Heard {
    /// What the machine's own clock shows by now, as far as can be told, ms.
    pub fn wall(&self, now_ms: u64) -> u64 {
        self.signed.vitals.at.saturating_add(now_ms.saturating_sub(self.read_ms))
    }
}

/// Claims of one service by slot.
pub type Slots = BTreeMap<String, Vec<ClaimEntry>>;

/// Everything that was read. What two copies in one process hold alike of an app or a machine, they hold once.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    pub machines: Table<PeerId, Arc<Machine>>,
    /// Who says that a subnet is its own; nobody who has departed.
    pub(crate) subnets: BTreeMap<Subnet, BTreeSet<PeerId>>,
    /// Members of whom nothing but the admission is known.
    pub strangers: BTreeSet<PeerId>,
    pub vitals: Table<PeerId, Heard>,
    /// By app, service and slot.
    pub claims: Table<AppId, Arc<BTreeMap<String, Slots>>>,
    tasks: Table<PeerId, Arc<BTreeMap<ClaimId, Arc<Claim>>>>,
    /// What each machine's claims take, ended ones aside.
    used: Table<PeerId, Arc<Resources>>,
    /// By name, the machines that have it.
    pub images: BTreeMap<String, BTreeMap<PeerId, Image>>,
    /// Which volumes there are, and where.
    pub volumes: Volumes,
    /// What is kept sealed, and for whom.
    pub secrets: Secrets,
    pub stewardships: Table<AppId, Arc<BTreeMap<PeerId, Stewardship>>>,
    pub admissions: Arc<BTreeMap<PeerId, (PeerId, Admission)>>,
    /// With the last number that counts, where one was named.
    pub departed: BTreeMap<PeerId, Option<u64>>,
    /// What waits for room by the word of some steward, the first to get it first.
    pub queue: BTreeSet<(Rank, AppId, String, PeerId)>,
    /// What happened to each app.
    pub(crate) happenings: Happenings,
    /// The change records of each app.
    pub changes: Table<AppId, Arc<BTreeSet<(PeerId, RecordKey)>>>,
    /// What tasks with GPUs typically need: those that run, and those that wait.
    needs: Needs,
    mix: Arc<Mix>,
    /// How many machines there were when the mix was made.
    mix_machines: usize,
}

/// Of one service, no more waiting tasks than this count as typical.
const PENDING_MAX: u32 = 1_000;

impl Readings {
    /// What both have read alike they hold once from now on.
    pub fn share(&mut self, other: &Self) {
        self.machines.share(&other.machines);
        self.claims.share(&other.claims);
        self.tasks.share(&other.tasks);
        self.used.share(&other.used);
        self.stewardships.share(&other.stewardships);
        self.changes.share(&other.changes);
    }

    /// What the cluster's tasks typically need; made anew when it has changed enough to matter.
    pub fn mix(&mut self) -> Arc<Mix> {
        if self.needs.is_other() || self.mix_machines != self.machines.len() {
            self.mix = Arc::new(self.needs.mix(&self.cluster()));
            self.mix_machines = self.machines.len();
        }
        self.mix.clone()
    }

    /// The same as of now, for who only looks.
    pub fn mix_now(&self) -> Mix {
        self.needs.clone().mix(&self.cluster())
    }

    fn cluster(&self) -> Cluster {
        let mut cluster = Cluster::default();
        self.machines.values().for_each(|machine| cluster.add(&machine.capacity));
        cluster
    }

    /// Reads how a steward fares with an app: what waits is typical, too.
    pub fn stewardship(&mut self, owner: PeerId, app: AppId, stewardship: Stewardship) {
        let count = |pending: &Pending| u64::from(pending.count.min(PENDING_MAX));
        stewardship.pending.iter().for_each(|pending| self.needs.add(&pending.need, count(pending)));
        let waits: Vec<_> = stewardship.pending.iter().map(|pending| (pending.rank, pending.service.clone())).collect();
        if let Some(old) = Arc::make_mut(self.stewardships.entry(&app, Arc::default)).insert(owner, stewardship) {
            old.pending.iter().for_each(|pending| self.needs.sub(&pending.need, count(pending)));
            for pending in old.pending {
                self.queue.remove(&(pending.rank, app.clone(), pending.service, owner));
            }
        }
        self.queue.extend(waits.into_iter().map(|(rank, service)| (rank, app.clone(), service, owner)));
    }

    /// Reads what a machine says of itself.
    pub fn machine(&mut self, owner: PeerId, machine: Arc<Machine>) {
        self.strangers.remove(&owner);
        let subnet = machine.network.and_then(|network| network.subnet);
        self.leave_subnet(&owner);
        if let Some(subnet) = subnet.filter(|_| !self.departed.contains_key(&owner)) {
            self.subnets.entry(subnet).or_default().insert(owner);
        }
        self.machines.insert(owner, machine);
    }

    fn leave_subnet(&mut self, peer: &PeerId) {
        let Some(subnet) = self.machines.get(peer).and_then(|machine| machine.network?.subnet) else { return };
        let Some(peers) = self.subnets.get_mut(&subnet) else { return };
        peers.remove(peer);
        if peers.is_empty() {
            self.subnets.remove(&subnet);
        }
    }

    /// Reads that a peer was admitted; an earlier admission stays.
    pub fn admission(&mut self, owner: PeerId, admission: Admission) {
        let peer = admission.peer;
        if !self.machines.contains_key(&peer) && !self.departed.contains_key(&peer) {
            self.strangers.insert(peer);
        }
        Arc::make_mut(&mut self.admissions).entry(peer).or_insert((owner, admission));
    }

    /// Reads that a peer has departed; the last number of it that counts, by all that is known.
    pub fn departure(&mut self, departure: &Departure) -> Option<u64> {
        self.strangers.remove(&departure.peer);
        self.leave_subnet(&departure.peer);
        let held = self.departed.entry(departure.peer).or_default();
        *held = held.iter().chain(&departure.last).min().copied();
        *held
    }

    /// Reads a claim, or that it is forgotten; the app it belongs to.
    pub fn claim(&mut self, now_ms: u64, owner: PeerId, id: ClaimId, claim: Option<Arc<Claim>>) -> Option<AppId> {
        self.claim_shared(now_ms, owner, id, claim, None)
    }

    /// As [`Self::claim`]; `shared`: peers in one process share what becomes of its owner's account.
    pub(crate) fn claim_shared(
        &mut self,
        now_ms: u64,
        owner: PeerId,
        id: ClaimId,
        claim: Option<Arc<Claim>>,
        shared: Option<&Memo<Posting>>,
    ) -> Option<AppId> {
        let before = self.tasks.get(&owner).and_then(|tasks| tasks.get(&id)).cloned();
        self.account(owner, id, before.as_deref(), claim.as_ref(), shared);
        if let Some(before) = &before {
            self.remove(owner, before);
        }
        let Some(claim) = claim else { return before.map(|before| before.task.app.clone()) };
        if !claim.state.has_ended() {
            self.needs.add(&claim.need, 1);
        }
        let TaskId { app, service, slot } = &claim.task;
        let services = Arc::make_mut(self.claims.entry(app, Arc::default));
        let entries = entry(entry(services, service), slot);
        // Nearly always the only one: room for one is what it takes.
        entries.reserve_exact(1);
        let ended_ms = if claim.state.has_ended() { now_ms } else { 0 };
        entries.push(ClaimEntry { owner, claim: claim.clone(), ended_ms });
        Some(app.clone())
    }

    /// What a machine has and what that takes, now that a claim of its own is another.
    fn account(
        &mut self,
        owner: PeerId,
        id: ClaimId,
        before: Option<&Claim>,
        after: Option<&Arc<Claim>>,
        shared: Option<&Memo<Posting>>,
    ) {
        let held = |readings: &Self| (readings.tasks.get(&owner).cloned(), readings.used.get(&owner).cloned());
        // A handle on what was held has it copied before it changes: only where that is shared.
        let was = shared.map(|_| held(self));
        if let (Some(was), Some(posting)) = (&was, shared.and_then(Memo::known))
            && posting.follows(was)
        {
            self.tasks.insert(owner, posting.tasks.clone());
            posting.used.iter().for_each(|used| drop(self.used.insert(owner, used.clone())));
            return;
        }
        let tasks = Arc::make_mut(self.tasks.entry(&owner, Arc::default));
        tasks.remove(&id);
        tasks.extend(after.map(|claim| (id, claim.clone())));
        let counts = |claim: &&Claim| !claim.state.has_ended();
        if let Some(before) = before.filter(counts)
            && let Some(used) = self.used.get_mut(&owner)
        {
            Arc::make_mut(used).sub(&before.need);
        }
        if let Some(after) = after.map(Arc::as_ref).filter(counts) {
            Arc::make_mut(self.used.entry(&owner, Arc::default)).add(&after.need);
        }
        if let (Some(before), Some(shared), (Some(tasks), used)) = (was, shared, held(self)) {
            shared.get(|| Posting { before, tasks, used });
        }
    }

    fn remove(&mut self, owner: PeerId, claim: &Claim) {
        let TaskId { app, service, slot } = &claim.task;
        let Some(services) = self.claims.get_mut(app).map(Arc::make_mut) else { return };
        let Some(slots) = services.get_mut(service) else { return };
        let Some(entries) = slots.get_mut(slot) else { return };
        if let Some(at) = entries.iter().position(|entry| entry.owner == owner && entry.claim.id == claim.id) {
            let old = entries.remove(at);
            if !old.claim.state.has_ended() {
                self.needs.sub(&old.claim.need, 1);
            }
        }
        if entries.is_empty() {
            slots.remove(slot);
        }
        if slots.is_empty() {
            services.remove(service);
        }
        if services.is_empty() {
            self.claims.remove(app);
        }
    }

    /// One claim of one owner.
    pub fn find(&self, owner: &PeerId, id: &ClaimId) -> Option<&ClaimEntry> {
        let task = &self.tasks.get(owner)?.get(id)?.task;
        let entries = self.claims.get(&task.app)?.get(&task.service)?.get(&task.slot)?;
        entries.iter().find(|entry| entry.owner == *owner && entry.claim.id == *id)
    }

    /// The claims of one machine.
    pub fn claims_of(&self, owner: &PeerId) -> impl Iterator<Item = &Arc<Claim>> {
        self.tasks.get(owner).into_iter().flat_map(|claims| claims.values())
    }

    /// The change records of an app.
    pub fn changes_of(&self, app: &AppId) -> impl Iterator<Item = &(PeerId, RecordKey)> + use<'_> {
        self.changes.get(app).into_iter().flat_map(|changes| changes.iter())
    }

    /// Every claim there is.
    pub fn all_claims(&self) -> impl Iterator<Item = &ClaimEntry> {
        self.claims.values().flat_map(|services| services.values()).flat_map(|slots| slots.values()).flatten()
    }

    /// Claims of one service, by slot.
    pub fn slots(&self, app: &AppId, service: &str) -> Option<&Slots> {
        self.claims.get(app)?.get(service)
    }

    /// What is taken of a machine by claims that have not ended.
    pub fn used(&self, machine: &PeerId) -> &Resources {
        static NOTHING: Resources = Resources(BTreeMap::new());
        self.used.get(machine).map_or(&NOTHING, Arc::as_ref)
    }

    /// When this image was brought in under this name, by whatever is known of it.
    pub fn brought(&self, name: &str, digest: &str) -> u64 {
        let held = self.images.get(name).into_iter().flat_map(BTreeMap::values);
        held.filter(|image| image.digest == digest).map(|image| image.at).max().unwrap_or(0)
    }

    /// The image that a name means: the one that was brought in last.
    pub fn image(&self, image: &str) -> Option<&Image> {
        self.images.get(self.image_name(image)?)?.values().max_by_key(|held| (held.at, &held.digest))
    }

    /// The name under which machines have an image: `web` is `web:latest`.
    pub fn image_name<'a>(&'a self, image: &'a str) -> Option<&'a str> {
        let bare = image.strip_suffix(":latest").unwrap_or(image);
        [image, bare].into_iter().find(|name| self.images.contains_key(*name)).or_else(|| {
            let tagged = format!("{image}:latest");
            self.images.get_key_value(&tagged).map(|(name, _)| name.as_str())
        })
    }
}

/// What stands under a key, new or known; the key is copied only where it is new.
fn entry<'a, K: Ord + Clone, V: Default>(map: &'a mut BTreeMap<K, V>, key: &K) -> &'a mut V {
    if !map.contains_key(key) {
        map.insert(key.clone(), V::default());
    }
    map.get_mut(key).expect("it is there now")
}
