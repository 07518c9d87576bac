//! The typed readings of the ledger: machines, claims, images, invitations' results. A value that
//! does not read leaves the last good reading in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{AppId, ClaimId, ClusterId, InvitationId, PeerId, TaskId};
use crate::ledger::record::RecordKey;
use crate::market::mix::{Cluster, Mix, Needs};
use crate::model::{Claim, Machine, Resources};
use crate::wire::SignedVitals;

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
    /// How a rollout stands; opaque to all but the stewards of one version.
    #[serde(default, with = "serde_bytes")]
    pub rollout: Vec<u8>,
    pub pending: Vec<Pending>,
}

/// What of one service waits for room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub service: String,
    pub count: u32,
    pub need: Resources,
    pub priority: i32,
    /// Wall clock, ms: since when the oldest waits.
    pub oldest: u64,
    /// What the machines that were asked said, most frequent first.
    pub reasons: Vec<String>,
}

/// One claim and its owner.
#[derive(Clone, Debug)]
pub struct ClaimEntry {
    pub owner: PeerId,
    pub claim: Arc<Claim>,
    /// When this version was read here: monotonic, ms.
    pub read_ms: u64,
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

/// Everything that was read.
#[derive(Debug, Default)]
pub struct Readings {
    pub machines: BTreeMap<PeerId, Machine>,
    pub vitals: BTreeMap<PeerId, Heard>,
    /// By app, service and slot.
    pub claims: BTreeMap<AppId, BTreeMap<String, Slots>>,
    tasks: BTreeMap<(PeerId, ClaimId), TaskId>,
    /// What each machine's claims take, ended ones aside.
    used: BTreeMap<PeerId, Resources>,
    /// By name, the machines that have it.
    pub images: BTreeMap<String, BTreeMap<PeerId, Image>>,
    pub stewardships: BTreeMap<AppId, BTreeMap<PeerId, Stewardship>>,
    pub admissions: BTreeMap<PeerId, (PeerId, Admission)>,
    pub departed: std::collections::BTreeSet<PeerId>,
    /// The change records of each app.
    pub changes: BTreeMap<AppId, Vec<(PeerId, RecordKey)>>,
    /// What tasks with GPUs typically need: those that run, and those that wait.
    needs: Needs,
    mix: Arc<Mix>,
    /// How many machines there were when the mix was made.
    mix_machines: usize,
}

/// Of one service, no more waiting tasks than this count as typical.
const PENDING_MAX: u32 = 1_000;

impl Readings {
    /// What the cluster's tasks typically need; made anew when it has changed enough to matter.
    pub fn mix(&mut self) -> Arc<Mix> {
        if self.needs.is_other() || self.mix_machines != self.machines.len() {
            let mut cluster = Cluster::default();
            self.machines.values().for_each(|machine| cluster.add(&machine.capacity));
            self.mix = Arc::new(self.needs.mix(&cluster));
            self.mix_machines = self.machines.len();
        }
        self.mix.clone()
    }

    /// The mix as it was when a bid last asked for it.
    pub fn last_mix(&self) -> Arc<Mix> {
        self.mix.clone()
    }

    /// Reads how a steward fares with an app: what waits is typical, too.
    pub fn stewardship(&mut self, owner: PeerId, app: AppId, stewardship: Stewardship) {
        let count = |pending: &Pending| u64::from(pending.count.min(PENDING_MAX));
        stewardship.pending.iter().for_each(|pending| self.needs.add(&pending.need, count(pending)));
        if let Some(old) = self.stewardships.entry(app).or_default().insert(owner, stewardship) {
            old.pending.iter().for_each(|pending| self.needs.sub(&pending.need, count(pending)));
        }
    }

    /// Reads a claim, or that it is forgotten; the app it belongs to.
    pub fn claim(&mut self, now_ms: u64, owner: PeerId, id: ClaimId, claim: Option<Arc<Claim>>) -> Option<AppId> {
        let task = self.tasks.get(&(owner, id)).cloned();
        if let Some(task) = &task {
            self.remove(owner, id, task);
        }
        let Some(claim) = claim else {
            self.tasks.remove(&(owner, id));
            return task.map(|task| task.app);
        };
        let task = claim.task.clone();
        if !claim.state.has_ended() {
            self.used.entry(owner).or_default().add(&claim.need);
            self.needs.add(&claim.need, 1);
        }
        self.tasks.insert((owner, id), task.clone());
        let services = self.claims.entry(task.app.clone()).or_default();
        services.entry(task.service).or_default().entry(task.slot).or_default().push(ClaimEntry {
            owner,
            claim,
            read_ms: now_ms,
        });
        Some(task.app)
    }

    fn remove(&mut self, owner: PeerId, id: ClaimId, task: &TaskId) {
        let Some(services) = self.claims.get_mut(&task.app) else { return };
        let Some(slots) = services.get_mut(&task.service) else { return };
        let Some(entries) = slots.get_mut(&task.slot) else { return };
        if let Some(at) = entries.iter().position(|entry| entry.owner == owner && entry.claim.id == id) {
            let old = entries.remove(at);
            if !old.claim.state.has_ended()
                && let Some(used) = self.used.get_mut(&owner)
            {
                used.sub(&old.claim.need);
                self.needs.sub(&old.claim.need, 1);
            }
        }
        if entries.is_empty() {
            slots.remove(&task.slot);
        }
        if slots.is_empty() {
            services.remove(&task.service);
        }
        if services.is_empty() {
            self.claims.remove(&task.app);
        }
    }

    /// One claim of one owner.
    pub fn find(&self, owner: &PeerId, id: &ClaimId) -> Option<&ClaimEntry> {
        let task = self.tasks.get(&(*owner, *id))?;
        let entries = self.claims.get(&task.app)?.get(&task.service)?.get(&task.slot)?;
        entries.iter().find(|entry| entry.owner == *owner && entry.claim.id == *id)
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
        self.used.get(machine).unwrap_or(&NOTHING)
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
