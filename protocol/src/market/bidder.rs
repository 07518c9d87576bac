//! The machine's side of a bid: one account, kept by one thread. Room is reserved in memory before
//! a bid leaves, a claim is durable before an award is acknowledged, and the room of a claim is
//! free only when its container is gone.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::constraint;
use super::mix::Mix;
use super::score::{Ask, Room, place};
use super::victims::{self, is_prey, victims};
use super::wire::{Award, Bid, Cost, Decline, DeclineReason, Solicit};
use crate::event::Now;
use crate::ids::{AppId, BidId, ClaimId, PeerId};
use crate::model::container::unallowed;
use crate::model::{Claim, ClaimState, Machine, Other, Resources, Subnet, TaskSpec};

/// How long a reservation lives, ms.
pub const RESERVATION_MS: u64 = 3_000;
/// How long one for a gang does, ms: all of them have to be found first.
pub const GANG_RESERVATION_MS: u64 = 10_000;
/// How long room is kept for work that was not asked for, ms.
pub const OFFER_MS: u64 = 500;
/// The most copies in one bid.
const COUNT_MAX: u32 = 4_096;
/// The most reservations at once; a solicitation beyond them is declined.
pub const RESERVATIONS_MAX: usize = 1_024;
/// The most solicitations that wait for reserved room.
pub const WAITING_MAX: usize = 256;

/// Room set aside for one bid.
#[derive(Clone, Debug)]
pub struct Reservation {
    pub steward: PeerId,
    pub auction: u64,
    pub app: AppId,
    pub service: String,
    /// What each copy takes, GPUs aside.
    pub need: Resources,
    /// The GPUs that were chosen for each copy; empty where none are asked for.
    pub gpus: Vec<Resources>,
    /// The claims that have to end for each copy; empty where there is room.
    pub victims: Vec<Vec<ClaimId>>,
    pub cost: Option<Cost>,
    /// What it takes of the room that is free.
    pub held: Resources,
    pub count: u32,
    pub score: i64,
    pub expires_ms: u64,
}

impl Reservation {
    /// What one copy takes, counted from 0.
    pub fn need_of(&self, copy: usize) -> Resources {
        let mut need = self.need.clone();
        self.gpus.get(copy).into_iter().for_each(|gpus| need.add(gpus));
        need
    }

    /// What the first so many copies take.
    fn need_of_all(&self, copies: usize) -> Resources {
        let mut all = Resources::default();
        (0..copies).for_each(|copy| all.add(&self.need_of(copy)));
        all
    }
}

/// One of this machine's own claims.
#[derive(Clone, Debug)]
pub struct Mine {
    pub claim: Claim,
    /// Gone once the claim has ended.
    pub spec: Option<Arc<TaskSpec>>,
    /// A stop was ordered, for this reason.
    pub stopping: Option<crate::wire::StopReason>,
    /// The executor knows of it.
    pub started: bool,
    /// Of a gang: it waits for the word to start until then: monotonic, ms.
    pub hold_until_ms: Option<u64>,
}

/// A solicitation that waits for room that is only reserved.
#[derive(Clone, Debug)]
pub struct Waiting {
    pub steward: PeerId,
    pub solicit: Arc<Solicit>,
    /// Declined when this has passed: monotonic, ms.
    pub until_ms: u64,
}

/// What to answer a solicitation.
#[derive(Clone, Debug)]
pub enum Answer {
    Bid(Bid),
    Decline(Decline),
    /// Nothing yet: the room is reserved, not given away.
    Later,
}

/// The account of one machine.
#[derive(Debug, Default)]
pub struct Bidder {
    pub capacity: Resources,
    /// The machine's name and labels, for constraints.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// What it allows beyond the usual.
    pub allows: Vec<String>,
    /// What the cluster's tasks typically need; only a machine with GPUs has use for it.
    pub mix: Arc<Mix>,
    /// Why this machine takes nothing, if it does not.
    pub closed: Option<DeclineReason>,
    /// How long it has heard no other machine, ms; 0: it hears some, or there are none.
    pub isolated_ms: u64,
    pub claims: BTreeMap<ClaimId, Mine>,
    by_bid: BTreeMap<BidId, Vec<(String, ClaimId)>>,
    /// What live claims take, as if none took over the room of others;
    used: Resources,
    /// and what of that is counted twice.
    shared: Resources,
    reserved: Resources,
    /// Claims that wait for others to end, and claims that wait for their gang.
    heirs: BTreeSet<ClaimId>,
    holds: BTreeSet<ClaimId>,
    /// Claims that have not ended and may run for so long only.
    timed: BTreeSet<ClaimId>,
    reservations: BTreeMap<BidId, Reservation>,
    /// Those of them that nobody asked for.
    offered: BTreeSet<BidId>,
    /// Of whose addresses its tasks get theirs; `None`: they use the machine's network.
    pub subnet: Option<Subnet>,
    /// Addresses of live claims, and the one that was given last.
    addresses: BTreeSet<Ipv4Addr>,
    last_address: Option<Ipv4Addr>,
    waiting: VecDeque<Waiting>,
}

impl Bidder {
    /// Takes over what the machine's own record says.
    pub fn describe(&mut self, machine: &Machine) {
        self.capacity = machine.capacity.clone();
        self.name = machine.name.clone();
        self.labels = machine.labels.clone();
        self.subnet = machine.network.and_then(|network| network.subnet);
        self.allows = machine.allows.clone();
    }

    /// What claims that have not ended take.
    pub fn used(&self) -> Cow<'_, Resources> {
        if self.shared.0.is_empty() {
            return Cow::Borrowed(&self.used);
        }
        let mut used = self.used.clone();
        used.sub(&self.shared);
        Cow::Owned(used)
    }

    /// What is taken: by claims, and by reservations.
    fn taken(&self) -> Resources {
        let mut taken = self.used().into_owned();
        taken.add(&self.reserved);
        taken
    }

    /// Answers a solicitation; the same asked again gets the same bid. `bid` names a new bid.
    pub fn solicited(
        &mut self,
        now: Now,
        steward: PeerId,
        solicit: &Arc<Solicit>,
        until_ms: u64,
        images: Images<'_>,
        bid: BidId,
    ) -> Answer {
        let again = self.reservations.iter().find(|(_, r)| r.steward == steward && r.auction == solicit.auction);
        if let Some((bid, reservation)) = again {
            return Answer::Bid(bid_of(reservation, *bid, images));
        }
        let decline = |reason| Answer::Decline(Decline { auction: solicit.auction, reason });
        let most = match self.suits(solicit, images) {
            Ok(most) => most,
            Err(reason) => return decline(reason),
        };
        let (used, taken) = (self.used(), self.taken());
        let count = self.capacity.copies(&taken, &solicit.need, most);
        if self.reservations.len() < RESERVATIONS_MAX {
            let reservation = match count {
                0 => None,
                _ => self.reserve(now, steward, solicit, count, &taken, images),
            };
            let is_kept = || self.capacity.copies(&used, &solicit.need, 1) > 0;
            let reservation = match reservation {
                None if !is_kept() => self.reserve_over_others(now, steward, solicit, most, &taken, images),
                reservation => reservation,
            };
            if let Some(reservation) = reservation {
                let answer = Answer::Bid(bid_of(&reservation, bid, images));
                self.reservations.insert(bid, reservation);
                self.recount_reserved();
                return answer;
            }
        }
        if self.capacity.copies(&used, &solicit.need, 1) > 0 && self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(Waiting { steward, solicit: solicit.clone(), until_ms });
            return Answer::Later;
        }
        decline(DeclineReason::Full(self.capacity.lacks(&taken, &solicit.need).unwrap_or_default()))
    }

    /// How many copies may be here at most, whatever room there is; or why none may.
    fn suits(&self, solicit: &Solicit, images: Images<'_>) -> Result<u32, DeclineReason> {
        if let Some(reason) = &self.closed {
            return Err(reason.clone());
        }
        if solicit.stop_when_isolated_ms.is_some_and(|most_ms| most_ms <= self.isolated_ms) {
            return Err(DeclineReason::Isolated);
        }
        if solicit.need.has_gpus() {
            return Err(DeclineReason::Unsupported("a GPU that is asked for by its number".into()));
        }
        if let Some(unmet) = constraint::unmet(&solicit.constraints, &self.name, &self.labels) {
            return Err(DeclineReason::Constraint(unmet.to_string()));
        }
        if let Some(ask) = unallowed(&solicit.asks, &self.allows) {
            return Err(DeclineReason::Forbidden(ask.into()));
        }
        if let Some(other) = solicit.apart_from.iter().find(|other| self.tasks_of(&solicit.app.namespace, other) > 0) {
            return Err(DeclineReason::Apart(other.to_string()));
        }
        let count = solicit.count.min(COUNT_MAX);
        let most = match solicit.max_per_machine {
            0 => count,
            most => {
                let own = Other { app: solicit.app.name.clone(), service: solicit.service.clone() };
                count.min(most.saturating_sub(self.tasks_of(&solicit.app.namespace, &own)))
            }
        };
        let addresses = self.addresses_free();
        if addresses == 0 {
            return Err(DeclineReason::Full("addresses".into()));
        }
        let most = most.min(addresses);
        if most == 0 {
            return Err(DeclineReason::Crowded(solicit.max_per_machine));
        }
        if !images.known {
            return Err(DeclineReason::NoImage(solicit.image.clone()));
        }
        match self.capacity.lacks(&Resources::default(), &solicit.need) {
            Some(dimension) => Err(DeclineReason::TooSmall(dimension)),
            None => Ok(most),
        }
    }

    /// Tasks of a service that are here or have room reserved here.
    fn tasks_of(&self, namespace: &str, other: &Other) -> u32 {
        let is = |app: &AppId, service: &str| {
            app.namespace == namespace && app.name == other.app && service == other.service
        };
        let live = self.claims.values().filter(|mine| !mine.claim.state.has_ended());
        let held = live.filter(|mine| is(&mine.claim.task.app, &mine.claim.task.service)).count() as u32;
        let reserved = self.reservations.values().filter(|one| is(&one.app, &one.service)).map(|one| one.count);
        held.saturating_add(reserved.sum())
    }

    /// Room for `count` copies, or as many as can be bound to GPUs; `None` where that is none.
    fn reserve(
        &self,
        now: Now,
        steward: PeerId,
        solicit: &Solicit,
        count: u32,
        taken: &Resources,
        images: Images<'_>,
    ) -> Option<Reservation> {
        let life_ms = if solicit.gang { GANG_RESERVATION_MS } else { RESERVATION_MS };
        let bonus = if images.present { 1000 } else { 0 };
        let mut reservation = Reservation {
            steward,
            auction: solicit.auction,
            app: solicit.app.clone(),
            service: solicit.service.clone(),
            need: solicit.need.clone(),
            gpus: Vec::new(),
            victims: Vec::new(),
            cost: None,
            held: Resources::default(),
            count,
            score: bonus,
            expires_ms: now.ms + life_ms,
        };
        if !self.capacity.has_gpus() {
            reservation.score += self.score(&solicit.need);
        } else {
            let ask = Ask::of(&solicit.need);
            let names: Vec<&str> = self.capacity.gpus(taken).map(|(name, _)| name).collect();
            let mut room = Room::of(&self.capacity, taken);
            let first = place(&room, &ask, &self.mix)?;
            reservation.score -= first.cost;
            let mut next = Some(first).filter(|_| ask.wants_gpus());
            while let Some(placement) = next {
                let bound = placement.gpus.iter();
                let bound = bound.filter_map(|(gpu, taken)| Some((names.get(*gpu)?.to_string(), *taken)));
                reservation.gpus.push(Resources(bound.collect()));
                room.take(&ask, &placement);
                let more = reservation.gpus.len() < count as usize;
                next = if more { place(&room, &ask, &self.mix) } else { None };
            }
            if ask.wants_gpus() {
                (reservation.need, reservation.count) = (solicit.need.without_gpus(), reservation.gpus.len() as u32);
            }
        }
        reservation.held = reservation.need_of_all(reservation.count as usize);
        Some(reservation)
    }

    /// Room that others have to leave: of a lower priority, and not yet on their way out. As many copies as that makes
    /// room for, each with victims of its own.
    fn reserve_over_others(
        &self,
        now: Now,
        steward: PeerId,
        solicit: &Solicit,
        most: u32,
        taken: &Resources,
        images: Images<'_>,
    ) -> Option<Reservation> {
        let spoken_for: BTreeSet<ClaimId> =
            self.reservations.values().flat_map(|one| one.victims.iter().flatten()).copied().collect();
        let heirs = self.claims.values().filter(|mine| !mine.claim.state.has_ended());
        let spoken_for: BTreeSet<ClaimId> =
            heirs.flat_map(|mine| mine.claim.takes_over.iter().copied()).chain(spoken_for).collect();
        let prey = |mine: &&Mine| {
            let claim = &mine.claim;
            // One that waits for its own victims has no room of its own yet to leave.
            let has_room = !self.heirs.contains(&claim.id) && !spoken_for.contains(&claim.id);
            claim.state < ClaimState::Stopping && is_prey(claim, solicit.priority) && has_room
        };
        let mut prey: Vec<&Claim> = self.claims.values().filter(prey).map(|mine| &mine.claim).collect();
        let mut whole: Option<Reservation> = None;
        let mut left = taken.clone();
        let mut ended: Vec<&Claim> = Vec::new();
        while whole.as_ref().is_none_or(|whole| whole.count < most) && !prey.is_empty() {
            let Some(chosen) = victims(&self.capacity, &left, &solicit.need, prey.iter().copied()) else { break };
            let before = left.clone();
            chosen.iter().for_each(|claim| left.sub(&claim.need));
            let Some(one) = self.reserve(now, steward, solicit, 1, &left, images) else { break };
            left.add(&one.held);
            // What its victims leave beside it is free only when they are gone, and no other copy would wait for that.
            left = left.most(&before);
            prey.retain(|claim| !chosen.iter().any(|other| other.id == claim.id));
            let whole = whole.get_or_insert_with(|| Reservation { count: 0, gpus: Vec::new(), ..one.clone() });
            whole.count += 1;
            whole.gpus.extend(one.gpus);
            whole.victims.push(victims::names(&chosen));
            ended.extend(chosen);
        }
        let mut whole = whole?;
        whole.cost = victims::cost(ended.iter().copied(), now.wall);
        whole.held = whole.need_of_all(whole.count as usize);
        ended.iter().for_each(|claim| whole.held.sub(&claim.need));
        Some(whole)
    }

    /// Whether what an award takes of its reservation is still there: a victim that ended by itself has left its room to
    /// everybody.
    pub fn still_fits(&self, reservation: &Reservation, slots: usize) -> bool {
        if reservation.victims.is_empty() {
            return true;
        }
        let mut taken = self.taken();
        taken.sub(&reservation.held);
        let live = |id: &&ClaimId| self.claims.get(id).is_some_and(|mine| mine.claim.state < ClaimState::Stopping);
        for victim in reservation.victims.iter().take(slots).flatten().filter(live) {
            taken.sub(&self.claims[victim].claim.need);
        }
        self.capacity.lacks(&taken, &reservation.need_of_all(slots)).is_none()
    }

    /// Keeps room for work that has not asked for it, shorter than for a bid.
    pub fn keep_for_offer(&mut self, bid: &BidId, now_ms: u64) {
        if let Some(reservation) = self.reservations.get_mut(bid) {
            reservation.expires_ms = now_ms + OFFER_MS;
            self.offered.insert(*bid);
        }
    }

    /// What a machine without GPUs knows, in thousandths: the share of its scarcest dimension that stays
    /// free after one more task.
    fn score(&self, need: &Resources) -> i64 {
        let used = self.used();
        let share = |name: &String| {
            let capacity = self.capacity.get(name).max(1);
            let free = self.capacity.free(&used, name).saturating_sub(need.get(name));
            (free.saturating_mul(1000) / capacity) as i64
        };
        self.capacity.0.keys().map(share).min().unwrap_or(0)
    }

    /// A steward needs its reservation no more; solicitations that can be looked at again.
    pub fn released(&mut self, bid: &BidId) -> Vec<Waiting> {
        if self.reservations.remove(bid).is_none() {
            return Vec::new();
        }
        self.offered.remove(bid);
        self.recount_reserved();
        self.look_again()
    }

    /// Solicitations that waited, what goes first in front: whoever calls this asks [`Bidder::solicited`] for each again.
    pub fn look_again(&mut self) -> Vec<Waiting> {
        let mut waiting: Vec<Waiting> = self.waiting.drain(..).collect();
        waiting.sort_by_key(|waiting| waiting.solicit.rank);
        waiting
    }

    /// Lets what is overdue go: waiting solicitations with their refusals, and reservations; whether any of these did.
    pub fn expire(&mut self, now_ms: u64) -> (Vec<(PeerId, Decline)>, bool) {
        let before = self.reservations.len();
        self.reservations.retain(|_, reservation| reservation.expires_ms > now_ms);
        let freed = self.reservations.len() != before;
        if freed {
            self.recount_reserved();
        }
        let is_offered = !self.offered.is_empty();
        self.offered.retain(|bid| self.reservations.contains_key(bid));
        let mut late = Vec::new();
        self.waiting.retain(|waiting| {
            let over = waiting.until_ms <= now_ms;
            if over {
                let reason = match is_offered {
                    true => DeclineReason::Queued,
                    false => DeclineReason::Full("reserved for others".into()),
                };
                late.push((waiting.steward, Decline { auction: waiting.solicit.auction, reason }));
            }
            !over
        });
        (late, freed)
    }

    /// When something is overdue next.
    pub fn deadline(&self) -> Option<u64> {
        let reservations = self.reservations.values().map(|reservation| reservation.expires_ms).min();
        let waiting = self.waiting.iter().map(|waiting| waiting.until_ms).min();
        let held = self.holds.iter().filter_map(|id| self.claims.get(id)?.hold_until_ms).min();
        [reservations, waiting, held].into_iter().flatten().min()
    }

    /// The reservation of a bid, while it lives.
    pub fn reservation(&self, bid: &BidId) -> Option<&Reservation> {
        self.reservations.get(bid)
    }

    /// The claims that a bid became.
    pub fn claims_of(&self, bid: &BidId) -> Option<&Vec<(String, ClaimId)>> {
        self.by_bid.get(bid)
    }

    /// Turns a reservation into claims; what was reserved beyond them is free again. Those of a gang wait until
    /// `hold_until_ms` for the word to start.
    pub fn accept(&mut self, award: &Award, claims: Vec<(Claim, TaskSpec)>, hold_until_ms: Option<u64>) {
        self.reservations.remove(&award.bid);
        self.offered.remove(&award.bid);
        self.recount_reserved();
        for (claim, spec) in claims {
            self.by_bid.entry(claim.bid).or_default().push((claim.task.slot.clone(), claim.id));
            self.take_room(&claim);
            let id = claim.id;
            if spec.deadline_ms.is_some() {
                self.timed.insert(id);
            }
            let spec = Some(Arc::new(spec));
            self.claims.insert(id, Mine { claim, spec, stopping: None, started: false, hold_until_ms });
            if hold_until_ms.is_some() {
                self.holds.insert(id);
            }
        }
        self.recount_inherited();
    }

    /// Takes back an own claim that the disk remembers.
    pub fn restore(&mut self, claim: Claim, spec: Option<TaskSpec>) {
        if !claim.state.has_ended() {
            self.take_room(&claim);
            if spec.as_ref().is_some_and(|spec| spec.deadline_ms.is_some()) {
                self.timed.insert(claim.id);
            }
        }
        self.by_bid.entry(claim.bid).or_default().push((claim.task.slot.clone(), claim.id));
        let spec = spec.map(Arc::new);
        self.claims.insert(claim.id, Mine { claim, spec, stopping: None, started: false, hold_until_ms: None });
    }

    fn take_room(&mut self, claim: &Claim) {
        self.used.add(&claim.need);
        self.addresses.extend(claim.address);
        if !claim.takes_over.is_empty() {
            self.heirs.insert(claim.id);
        }
    }

    /// A claim has ended: its room is free. Answers the claims that waited for it, and wait for nothing more.
    pub fn ended(&mut self, claim: &ClaimId) -> Vec<ClaimId> {
        self.holds.remove(claim);
        self.timed.remove(claim);
        if let Some(mine) = self.claims.get_mut(claim) {
            self.used.sub(&mine.claim.need);
            if let Some(address) = &mine.claim.address {
                self.addresses.remove(address);
            }
            mine.spec = None;
            mine.hold_until_ms = None;
        }
        let before: Vec<ClaimId> = self.heirs.iter().copied().collect();
        self.recount_inherited();
        before.into_iter().filter(|heir| !self.heirs.contains(heir) && self.may_start(heir)).collect()
    }

    /// Whether nothing keeps an accepted claim from its start: neither a gang nor what it takes the room of.
    pub fn may_start(&self, claim: &ClaimId) -> bool {
        let Some(mine) = self.claims.get(claim) else { return false };
        mine.claim.state <= ClaimState::Starting && mine.hold_until_ms.is_none() && !self.heirs.contains(claim)
    }

    /// Has a claim of a gang wait for the word.
    pub fn hold(&mut self, claim: &ClaimId, until_ms: u64) {
        if let Some(mine) = self.claims.get_mut(claim) {
            mine.hold_until_ms = Some(until_ms);
            self.holds.insert(*claim);
        }
    }

    /// The word has come: whether the claim may start now.
    pub fn go(&mut self, claim: &ClaimId) -> bool {
        let Some(mine) = self.claims.get_mut(claim) else { return false };
        let waited = mine.hold_until_ms.take().is_some();
        self.holds.remove(claim);
        waited && self.may_start(claim)
    }

    /// Claims that may run for so long only.
    pub fn timed(&self) -> impl Iterator<Item = &Mine> {
        self.timed.iter().filter_map(|id| self.claims.get(id))
    }

    /// Claims that have waited for the word for too long.
    pub fn forsaken(&self, now_ms: u64) -> Vec<ClaimId> {
        let over =
            |id: &&ClaimId| self.claims.get(id).and_then(|mine| mine.hold_until_ms).is_some_and(|ms| ms <= now_ms);
        self.holds.iter().filter(over).copied().collect()
    }

    /// A claim and those whose room it takes over share that room: what both would take is counted once.
    pub fn recount_inherited(&mut self) {
        let live = |id: &ClaimId| self.claims.get(id).filter(|mine| !mine.claim.state.has_ended());
        let mut shared = Resources::default();
        let mut heirs = BTreeSet::new();
        for heir in &self.heirs {
            let Some(mine) = live(heir) else { continue };
            let mut left = Resources::default();
            mine.claim.takes_over.iter().filter_map(live).for_each(|victim| left.add(&victim.claim.need));
            if mine.claim.takes_over.iter().any(|victim| live(victim).is_some()) {
                heirs.insert(*heir);
                shared.add(&left.least(&mine.claim.need));
            }
        }
        self.heirs = heirs;
        self.shared = shared;
    }

    /// Drops an ended claim from memory.
    pub fn forget(&mut self, claim: &ClaimId) {
        if let Some(mine) = self.claims.remove(claim)
            && let Some(claims) = self.by_bid.get_mut(&mine.claim.bid)
        {
            claims.retain(|(_, id)| id != claim);
            if claims.is_empty() {
                self.by_bid.remove(&mine.claim.bid);
            }
        }
    }

    fn recount_reserved(&mut self) {
        self.reserved = Resources::default();
        self.reservations.values().for_each(|reservation| self.reserved.add(&reservation.held));
    }
}

fn bid_of(reservation: &Reservation, bid: BidId, images: Images<'_>) -> Bid {
    let start_estimate_ms = if images.present { 0 } else { 2_000 };
    let Reservation { auction, count, score, cost, .. } = *reservation;
    Bid { auction, bid, count, score, start_estimate_ms, cost }
}

/// What a machine knows of the image that a solicitation names.
#[derive(Clone, Copy, Debug)]
pub struct Images<'a> {
    /// It, or a machine that it knows, has the image.
    pub known: bool,
    /// It has the image itself.
    pub present: bool,
    pub name: &'a str,
}

mod doors;
pub use doors::{Doors, PORTS};
#[cfg(test)]
mod tests;
