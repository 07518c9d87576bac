//! The machine's side of a bid: one account, kept by one thread. Room is reserved in memory before
//! a bid leaves, a claim is durable before an award is acknowledged, and the room of a claim is
//! free only when its container is gone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::constraint;
use super::mix::Mix;
use super::score::{Ask, Room, place};
use super::wire::{Award, Bid, Decline, DeclineReason, Solicit};
use crate::ids::{BidId, ClaimId, PeerId};
use crate::model::resources::CPU_MILLIS;
use crate::model::{Claim, Machine, PortBinding, PortSpec, Resources, TaskSpec};

/// How long a reservation lives, ms.
pub const RESERVATION_MS: u64 = 3_000;
/// The most reservations at once; a solicitation beyond them is declined.
pub const RESERVATIONS_MAX: usize = 1_024;
/// The most solicitations that wait for reserved room.
pub const WAITING_MAX: usize = 256;
/// Where host ports are taken from when the app file names none.
pub const PORTS: std::ops::RangeInclusive<u16> = 20_000..=29_999;

/// Room set aside for one bid.
#[derive(Clone, Debug)]
pub struct Reservation {
    pub steward: PeerId,
    pub auction: u64,
    /// What each copy takes, GPUs aside.
    pub need: Resources,
    /// The GPUs that were chosen for each copy; empty where none are asked for.
    pub gpus: Vec<Resources>,
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
    /// What the cluster's tasks typically need; only a machine with GPUs has use for it.
    pub mix: Arc<Mix>,
    /// Why this machine takes nothing, if it does not.
    pub closed: Option<DeclineReason>,
    pub claims: BTreeMap<ClaimId, Mine>,
    by_bid: BTreeMap<BidId, Vec<(String, ClaimId)>>,
    used: Resources,
    reserved: Resources,
    reservations: BTreeMap<BidId, Reservation>,
    waiting: VecDeque<Waiting>,
}

impl Bidder {
    /// Takes over what the machine's own record says.
    pub fn describe(&mut self, machine: &Machine) {
        self.capacity = machine.capacity.clone();
        self.name = machine.name.clone();
        self.labels = machine.labels.clone();
    }

    /// What claims that have not ended take.
    pub fn used(&self) -> &Resources {
        &self.used
    }

    /// Answers a solicitation; the same asked again gets the same bid. `bid` names a new bid.
    pub fn solicited(
        &mut self,
        now_ms: u64,
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
        if let Some(reason) = &self.closed {
            return decline(reason.clone());
        }
        if solicit.need.has_gpus() {
            return decline(DeclineReason::Unsupported("a GPU that is asked for by its number".into()));
        }
        if let Some(unmet) = constraint::unmet(&solicit.constraints, &self.name, &self.labels) {
            return decline(DeclineReason::Constraint(unmet.to_string()));
        }
        if !images.known {
            return decline(DeclineReason::NoImage(solicit.image.clone()));
        }
        if let Some(dimension) = self.capacity.lacks(&Resources::default(), &solicit.need) {
            return decline(DeclineReason::TooSmall(dimension));
        }
        let mut taken = self.used.clone();
        taken.add(&self.reserved);
        let count = self.capacity.copies(&taken, &solicit.need, solicit.count);
        if count > 0
            && self.reservations.len() < RESERVATIONS_MAX
            && let Some(reservation) = self.reserve(now_ms, steward, solicit, count, &taken, images)
        {
            let answer = Answer::Bid(bid_of(&reservation, bid, images));
            self.reservations.insert(bid, reservation);
            self.recount_reserved();
            return answer;
        }
        if self.capacity.copies(&self.used, &solicit.need, 1) > 0 && self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(Waiting { steward, solicit: solicit.clone(), until_ms });
            return Answer::Later;
        }
        decline(DeclineReason::Full(self.capacity.lacks(&taken, &solicit.need).unwrap_or_default()))
    }

    /// Room for `count` copies, or as many as can be bound to GPUs; `None` where that is none.
    fn reserve(
        &self,
        now_ms: u64,
        steward: PeerId,
        solicit: &Solicit,
        count: u32,
        taken: &Resources,
        images: Images<'_>,
    ) -> Option<Reservation> {
        let expires_ms = now_ms + RESERVATION_MS;
        let auction = solicit.auction;
        let bonus = if images.present { 1000 } else { 0 };
        if !self.capacity.has_gpus() {
            let (need, score) = (solicit.need.clone(), self.score(&solicit.need) + bonus);
            return Some(Reservation { steward, auction, need, gpus: Vec::new(), count, score, expires_ms });
        }
        let ask = Ask::of(&solicit.need);
        let names: Vec<&str> = self.capacity.gpus(taken).map(|(name, _)| name).collect();
        let mut room = Room::of(&self.capacity, taken);
        let mut gpus = Vec::new();
        let first = place(&room, &ask, &self.mix)?;
        let score = bonus - first.cost;
        if !ask.wants_gpus() {
            let need = solicit.need.clone();
            return Some(Reservation { steward, auction, need, gpus, count, score, expires_ms });
        }
        let mut next = Some(first);
        while let Some(placement) = next {
            let bound = placement.gpus.iter().filter_map(|(gpu, taken)| Some((names.get(*gpu)?.to_string(), *taken)));
            gpus.push(Resources(bound.collect()));
            room.take(&ask, &placement);
            next = if gpus.len() < count as usize { place(&room, &ask, &self.mix) } else { None };
        }
        let (need, count) = (solicit.need.without_gpus(), gpus.len() as u32);
        Some(Reservation { steward, auction, need, gpus, count, score, expires_ms })
    }

    /// What a machine without GPUs knows, in thousandths: the share of its scarcest dimension that stays
    /// free after one more task.
    fn score(&self, need: &Resources) -> i64 {
        let share = |name: &String| {
            let capacity = self.capacity.get(name).max(1);
            let free = self.capacity.free(&self.used, name).saturating_sub(need.get(name));
            (free.saturating_mul(1000) / capacity) as i64
        };
        self.capacity.0.keys().map(share).min().unwrap_or(0)
    }

    /// A steward needs its reservation no more; solicitations that can be looked at again.
    pub fn released(&mut self, bid: &BidId) -> Vec<Waiting> {
        if self.reservations.remove(bid).is_none() {
            return Vec::new();
        }
        self.recount_reserved();
        self.look_again()
    }

    /// Solicitations that waited: whoever calls this asks [`Bidder::solicited`] for each again.
    pub fn look_again(&mut self) -> Vec<Waiting> {
        self.waiting.drain(..).collect()
    }

    /// Lets what is overdue go: reservations, and waiting solicitations with their refusals.
    pub fn expire(&mut self, now_ms: u64) -> Vec<(PeerId, Decline)> {
        let before = self.reservations.len();
        self.reservations.retain(|_, reservation| reservation.expires_ms > now_ms);
        if self.reservations.len() != before {
            self.recount_reserved();
        }
        let mut late = Vec::new();
        self.waiting.retain(|waiting| {
            let over = waiting.until_ms <= now_ms;
            if over {
                let reason = DeclineReason::Full("reserved for others".into());
                late.push((waiting.steward, Decline { auction: waiting.solicit.auction, reason }));
            }
            !over
        });
        late
    }

    /// When something is overdue next.
    pub fn deadline(&self) -> Option<u64> {
        let reservations = self.reservations.values().map(|reservation| reservation.expires_ms).min();
        let waiting = self.waiting.iter().map(|waiting| waiting.until_ms).min();
        [reservations, waiting].into_iter().flatten().min()
    }

    /// The reservation of a bid, while it lives.
    pub fn reservation(&self, bid: &BidId) -> Option<&Reservation> {
        self.reservations.get(bid)
    }

    /// The claims that a bid became.
    pub fn claims_of(&self, bid: &BidId) -> Option<&Vec<(String, ClaimId)>> {
        self.by_bid.get(bid)
    }

    /// Turns a reservation into claims; what was reserved beyond them is free again.
    pub fn accept(&mut self, award: &Award, claims: Vec<(Claim, TaskSpec)>) {
        self.reservations.remove(&award.bid);
        self.recount_reserved();
        for (claim, spec) in claims {
            self.used.add(&claim.need);
            self.by_bid.entry(claim.bid).or_default().push((claim.task.slot.clone(), claim.id));
            self.claims.insert(claim.id, Mine { claim, spec: Some(Arc::new(spec)), stopping: None, started: false });
        }
    }

    /// Takes back an own claim that the disk remembers.
    pub fn restore(&mut self, claim: Claim, spec: Option<TaskSpec>) {
        if !claim.state.has_ended() {
            self.used.add(&claim.need);
        }
        self.by_bid.entry(claim.bid).or_default().push((claim.task.slot.clone(), claim.id));
        self.claims.insert(claim.id, Mine { claim, spec: spec.map(Arc::new), stopping: None, started: false });
    }

    /// A claim has ended: its room is free.
    pub fn ended(&mut self, claim: &ClaimId) {
        if let Some(mine) = self.claims.get_mut(claim) {
            self.used.sub(&mine.claim.need);
            mine.spec = None;
        }
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

    /// Host ports for one task: the fixed ones, and free ones from [`PORTS`] from `start` on.
    /// `None` where too few are free.
    pub fn ports(&self, wanted: &[PortSpec], start: u16, also_taken: &BTreeSet<u16>) -> Option<Vec<PortBinding>> {
        let mut taken = also_taken.clone();
        let mut bindings = Vec::with_capacity(wanted.len());
        let fixed: BTreeSet<u16> = wanted.iter().filter_map(|port| port.host).collect();
        let mut candidates = PORTS.cycle().skip(usize::from(start) % PORTS.len()).take(PORTS.len());
        for port in wanted {
            let host = match port.host {
                Some(host) => host,
                None => candidates.find(|number| {
                    !taken.contains(number) && !fixed.contains(number) && {
                        let port = Resources::port(*number);
                        self.used.get(&port) + self.reserved.get(&port) == 0
                    }
                })?,
            };
            taken.insert(host);
            let protocol = port.protocol.clone();
            bindings.push(PortBinding { name: port.name.clone(), host, container: port.container, protocol });
        }
        Some(bindings)
    }

    fn recount_reserved(&mut self) {
        self.reserved = Resources::default();
        for reservation in self.reservations.values() {
            for (name, amount) in &reservation.need.0 {
                let sum = self.reserved.0.entry(name.clone()).or_default();
                *sum = sum.saturating_add(amount.saturating_mul(u64::from(reservation.count)));
            }
            reservation.gpus.iter().for_each(|gpus| self.reserved.add(gpus));
        }
    }

    /// The share of the processor that is promised, in thousandths.
    pub fn promised_millis(&self) -> u64 {
        self.used.get(CPU_MILLIS).saturating_mul(1000) / self.capacity.get(CPU_MILLIS).max(1)
    }
}

fn bid_of(reservation: &Reservation, bid: BidId, images: Images<'_>) -> Bid {
    let start_estimate_ms = if images.present { 0 } else { 2_000 };
    let (auction, count, score) = (reservation.auction, reservation.count, reservation.score);
    Bid { auction, bid, count, score, start_estimate_ms }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::AppId;

    const STEWARD: PeerId = PeerId([9; 32]);

    fn solicit(auction: u64, count: u32) -> Arc<Solicit> {
        let app = AppId { namespace: "default".into(), name: "shop".into(), generation: 1 };
        let need = Resources::of(500, 100);
        let (service, image) = ("web".into(), "host".into());
        Arc::new(Solicit {
            auction,
            app,
            service,
            count,
            need,
            priority: 0,
            image,
            constraints: Vec::new(),
            deadline_ms: 150,
        })
    }

    fn ask(bidder: &mut Bidder, now_ms: u64, auction: u64, count: u32) -> Answer {
        let images = Images { known: true, present: true, name: "host" };
        bidder.solicited(now_ms, STEWARD, &solicit(auction, count), now_ms + 150, images, BidId([auction as u8; 16]))
    }

    #[test]
    fn it_never_reserves_more_than_it_has() {
        let mut bidder = Bidder { capacity: Resources::of(2000, 1000), ..Default::default() };
        assert!(matches!(ask(&mut bidder, 0, 1, 3), Answer::Bid(Bid { count: 3, .. })));
        assert!(matches!(ask(&mut bidder, 0, 1, 3), Answer::Bid(Bid { count: 3, .. })), "asked again");
        assert!(matches!(ask(&mut bidder, 0, 2, 3), Answer::Bid(Bid { count: 1, .. })));
        assert!(matches!(ask(&mut bidder, 0, 3, 1), Answer::Later), "reserved is not full");
        assert_eq!(bidder.released(&BidId([1; 16])).len(), 1);
        assert!(matches!(ask(&mut bidder, 0, 3, 1), Answer::Bid(Bid { count: 1, .. })));
        bidder.expire(RESERVATION_MS);
        assert!(matches!(ask(&mut bidder, RESERVATION_MS, 4, 9), Answer::Bid(Bid { count: 4, .. })));
    }

    fn ask_for(bidder: &mut Bidder, auction: u64, count: u32, need: Resources) -> Answer {
        let solicit = Arc::new(Solicit { need, ..Solicit::clone(&solicit(auction, count)) });
        let images = Images { known: true, present: true, name: "host" };
        bidder.solicited(0, STEWARD, &solicit, 150, images, BidId([auction as u8; 16]))
    }

    #[test]
    fn gpus_are_bound_when_they_are_reserved() {
        let mut bidder = Bidder { capacity: Resources::of(9000, 9000), ..Default::default() };
        (0..2).for_each(|gpu| bidder.capacity.set(format!("gpu_milli:{gpu}"), 1000));
        let mut share = Resources::of(1, 1);
        share.set("gpu_milli", 400);
        assert!(matches!(ask_for(&mut bidder, 1, 9, share.clone()), Answer::Bid(Bid { count: 4, .. })));
        let reservation = bidder.reservation(&BidId([1; 16])).unwrap().clone();
        for copy in 0..4 {
            let need = reservation.need_of(copy);
            assert!(need.has_gpus() && need.get("gpu_milli") == 0);
        }
        let mut whole = Resources::of(1, 1);
        whole.set("gpu", 1);
        assert!(matches!(ask_for(&mut bidder, 2, 1, whole.clone()), Answer::Later), "all are reserved in part");
        bidder.released(&BidId([1; 16]));
        assert!(matches!(ask_for(&mut bidder, 3, 9, whole.clone()), Answer::Bid(Bid { count: 2, .. })));
        whole.set("gpu", 3);
        let Answer::Decline(decline) = ask_for(&mut bidder, 4, 1, whole) else { panic!("three of two") };
        assert_eq!(decline.reason, DeclineReason::TooSmall("gpu".into()));
        let mut numbered = Resources::of(1, 1);
        numbered.set("gpu_milli:0", 10);
        assert!(matches!(ask_for(&mut bidder, 5, 1, numbered), Answer::Decline(_)), "by its number");
    }

    #[test]
    fn a_constraint_that_is_not_met_is_the_reason() {
        let mut bidder = Bidder { capacity: Resources::of(9000, 9000), ..Default::default() };
        let constraints = vec!["node.labels.disk == ssd".parse().unwrap()];
        let solicit = Arc::new(Solicit { constraints, ..Solicit::clone(&solicit(1, 1)) });
        let images = Images { known: true, present: true, name: "host" };
        let ask = |bidder: &mut Bidder| bidder.solicited(0, STEWARD, &solicit, 150, images, BidId([1; 16]));
        let Answer::Decline(decline) = ask(&mut bidder) else { panic!("it has no such label") };
        assert_eq!(decline.reason.to_string(), "not node.labels.disk == ssd");
        bidder.labels.insert("disk".into(), "ssd".into());
        assert!(matches!(ask(&mut bidder), Answer::Bid(_)));
    }

    #[test]
    fn a_waiting_call_is_declined_at_its_deadline() {
        let mut bidder = Bidder { capacity: Resources::of(500, 1000), ..Default::default() };
        ask(&mut bidder, 0, 1, 1);
        assert!(matches!(ask(&mut bidder, 0, 2, 1), Answer::Later));
        assert_eq!(bidder.deadline(), Some(150));
        assert_eq!(bidder.expire(150).len(), 1);
    }

    #[test]
    fn ports_differ_from_each_other_and_from_what_is_taken() {
        let bidder = Bidder::default();
        let any = PortSpec { container: 80, host: None, protocol: "tcp".into(), name: None };
        let fixed = PortSpec { host: Some(20_000), ..any.clone() };
        let ports = bidder.ports(&[any.clone(), fixed, any], 0, &BTreeSet::from([20_001])).unwrap();
        assert_eq!(ports.iter().map(|port| port.host).collect::<Vec<_>>(), [20_002, 20_000, 20_003]);
    }
}
