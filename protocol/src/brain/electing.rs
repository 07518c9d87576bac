//! Who stewards an app: of the peers whose life is a minute old, or not much younger than the oldest, the one that
//! weighs most for it. Nobody votes; all who believe the same of the members reckon the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Brain;
use crate::event::Now;
use crate::ids::{AppId, PeerId, rendezvous};
use crate::model::Machine;

/// A life younger than this stewards nothing while there are older ones, ms.
const MATURE_MS: u64 = 60_000;
/// Those who started together mature together: the oldest is not to be the only steward until the others follow, one by
/// one, and every app changes hands each time.
const COHORT_MS: u64 = 15_000;
/// Clocks that differ by less than this do not matter.
pub(super) const CLOCKS_MS: u64 = 1_000;
/// For so long after a change of who may be a steward others may still believe what was true before it; who would be
/// the steward only since then waits so long before it places a new app, ms.
pub(super) const DOUBT_MS: u64 = 1_000;
/// As many may be an app's steward as far as this peer can tell: others may hold a few for dead, or for too young.
const PLAUSIBLE: usize = 3;
/// The most earlier beliefs that are kept.
const FORMER_MAX: usize = 8;
/// The most apps whose steward is remembered.
const FOUND_MAX: usize = 65_536;

/// Peers that may be stewards, and their places on the ring.
type Eligible = Arc<Vec<(PeerId, u64)>>;

/// Who may be a steward. Copies hold what is alike once.
#[derive(Clone, Debug)]
pub(super) struct Electorate {
    eligible: Eligible,
    /// The stewards of apps that were asked for lately, by the app's place on the ring: to weigh all peers again for
    /// each record of an app would cost more than reading it.
    found: Arc<BTreeMap<u64, PeerId>>,
    /// Who was eligible before, each with the time until which others may still believe it: monotonic, ms.
    former: Vec<(u64, Eligible)>,
    stale: bool,
    /// When a life matures next: monotonic, ms.
    until_ms: u64,
}

impl Electorate {
    pub fn new(now: Now) -> Self {
        Self { eligible: Arc::default(), found: Arc::default(), former: Vec::new(), stale: true, until_ms: now.ms }
    }

    /// When to look again although nobody came or went.
    pub fn deadline(&self) -> u64 {
        self.until_ms
    }

    /// Whether who is eligible has to be found anew.
    pub fn is_stale(&self, now_ms: u64) -> bool {
        self.stale || self.until_ms <= now_ms
    }

    /// Machines came, went or changed.
    pub fn members_changed(&mut self) {
        self.stale = true;
    }

    /// What is alike in both is held once from now on.
    pub fn share(&mut self, other: &Self) {
        if self.eligible == other.eligible {
            self.eligible = other.eligible.clone();
        }
        if self.found == other.found {
            self.found = other.found.clone();
        }
    }

    fn steward_of(&self, app: &AppId) -> Option<PeerId> {
        let ring = app.ring();
        self.found.get(&ring).copied().or_else(|| heaviest(&self.eligible, ring))
    }

    /// The steward of an app, and it is remembered.
    fn find(&mut self, app: &AppId) -> Option<PeerId> {
        let ring = app.ring();
        let found = self.found.get(&ring).copied();
        found.or_else(|| {
            let steward = heaviest(&self.eligible, ring)?;
            if self.found.len() == FOUND_MAX {
                self.found = Arc::default();
            }
            Arc::make_mut(&mut self.found).insert(ring, steward);
            Some(steward)
        })
    }
}

impl Brain {
    /// Finds the peers that may be stewards; where there are none, all that live. Whether they are others now.
    pub(super) fn find_eligible(&mut self) -> bool {
        let mut ages = Vec::new();
        for peer in self.members.live() {
            let Some(machine) = self.readings.machines.get(&peer) else { continue };
            // Who has said goodbye answers nothing until it is back.
            if machine.draining || machine.restarting_until.is_some() {
                continue;
            }
            ages.push((peer, self.age_ms(&peer, machine)));
        }
        let oldest = ages.iter().map(|(_, age)| *age).max().unwrap_or(0);
        let ripe = MATURE_MS.min(oldest.saturating_sub(COHORT_MS));
        let young_ms = ages.iter().filter(|(_, age)| *age < ripe).map(|(_, age)| MATURE_MS - age).min();
        let mut eligible: Vec<(PeerId, u64)> =
            ages.iter().filter(|(_, age)| *age >= ripe).map(|(peer, _)| (*peer, peer.ring())).collect();
        if eligible.is_empty() {
            eligible.extend(self.members.live().map(|peer| (peer, peer.ring())));
        }
        let now = self.now.ms;
        let electorate = &mut self.stewards.electorate;
        electorate.former.retain(|(until_ms, _)| *until_ms > now);
        let changed = eligible != *electorate.eligible;
        if changed {
            let before = std::mem::replace(&mut electorate.eligible, Arc::new(eligible));
            electorate.found = Arc::default();
            electorate.former.truncate(FORMER_MAX - 1);
            electorate.former.insert(0, (now + DOUBT_MS, before));
        }
        electorate.stale = false;
        electorate.until_ms = now + young_ms.map_or(MATURE_MS, |ms| ms.min(MATURE_MS));
        changed
    }

    /// The age of a machine's present life, ms: by its own clock, for ours may show anything, and two peers have to agree
    /// on this. Before its vitals have come ours has to do, or whoever has just started would hold itself for the
    /// only steward (see [`Brain::first_vitals`]).
    fn age_ms(&self, peer: &PeerId, machine: &Machine) -> u64 {
        let heard = self.readings.vitals.get(peer).filter(|_| *peer != self.me);
        heard.map_or(self.now.wall, |heard| heard.wall(self.now.ms)).saturating_sub(machine.life_since)
    }

    /// The first vitals of a machine tell its clock: where that makes its life younger or older than ours did, others
    /// are to be stewards.
    pub(super) fn first_vitals(&mut self, peer: &PeerId) {
        let Some(machine) = self.readings.machines.get(peer) else { return };
        let by_ours = self.now.wall.saturating_sub(machine.life_since).min(MATURE_MS + COHORT_MS);
        if by_ours.abs_diff(self.age_ms(peer, machine).min(MATURE_MS + COHORT_MS)) > CLOCKS_MS {
            self.stewards.members_changed();
        }
    }

    /// The steward of an app: the heaviest of the eligible.
    pub(crate) fn steward_of(&self, app: &AppId) -> Option<PeerId> {
        self.stewards.electorate.steward_of(app)
    }

    /// Whether a peer may hold itself for an app's steward with good reason, though this peer may believe otherwise of
    /// a few: hardly anybody who is eligible weighs more, or it was the steward a moment ago.
    pub fn may_steward(&self, app: &AppId, peer: &PeerId) -> bool {
        let (ring, electorate) = (app.ring(), &self.stewards.electorate);
        let weight = rendezvous(ring, peer.ring());
        let heavier = electorate.eligible.iter().filter(|(_, place)| rendezvous(ring, *place) > weight);
        heavier.take(PLAUSIBLE).count() < PLAUSIBLE
            || electorate.former.iter().any(|(_, eligible)| heaviest(eligible, ring) == Some(*peer))
    }

    /// Whether this peer stewards an app.
    pub(super) fn is_steward_of(&mut self, app: &AppId) -> bool {
        self.stewards.electorate.find(app) == Some(self.me)
    }

    /// Whether others may hold somebody else for the app's steward, for they learn a little sooner or later than this
    /// peer who may be one. A peer that has just started knows of nobody, and there may be many.
    pub(super) fn is_in_doubt(&self, app: &AppId) -> bool {
        let (now, ring) = (self.now.ms, app.ring());
        let former = self.stewards.electorate.former.iter().filter(|(until_ms, _)| *until_ms > now);
        former.map(|(_, eligible)| heaviest(eligible, ring)).any(|steward| steward != Some(self.me))
    }
}

fn heaviest(eligible: &[(PeerId, u64)], app: u64) -> Option<PeerId> {
    eligible.iter().max_by_key(|(peer, ring)| (rendezvous(app, *ring), *peer)).map(|(peer, _)| *peer)
}
