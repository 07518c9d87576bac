//! The steward's side of a bid: whom to ask, and who gets it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::crowd::Crowd;
use super::mix::Mix;
use super::score::{Ask, Room, place};
use super::wire::{Award, Bid, DeclineReason, Slot, Solicit};
use crate::ids::{AppId, BidId, ClaimId, PeerId};
use crate::ledger::readings::Readings;
use crate::model::{Resources, ServiceSpec};

/// How long a steward waits for bids, ms.
pub const BIDS_MS: u64 = 150;
/// An award that was not answered is sent again after this, ms.
pub const AWARD_RETRY_MS: u64 = 400;
/// How many bids are wanted, at least.
pub const WANTED: usize = 8;
/// How many bids are wanted, at most.
pub const WANTED_MAX: usize = 32;
/// How many machines are asked in one auction, those included that are asked in place of others who
/// declined.
pub const ASKED_MAX: usize = 64;
/// How many machines are asked for a gang.
pub const GANG_ASKED_MAX: usize = 2_048;
/// Of how many machines that would do it is worked out what the task would strand there.
pub const WEIGHED: usize = 128;

/// A call for bids that is not decided yet.
#[derive(Clone, Debug)]
pub struct Auction {
    pub app: AppId,
    pub service: String,
    pub revision: u64,
    /// What is to run, where it is not what the app wants now: a change of it rests, and a task comes back as it was.
    pub former: Option<Arc<ServiceSpec>>,
    pub slots: Vec<Slot>,
    pub solicit: Arc<Solicit>,
    /// How many bids are wanted.
    pub wanted: usize,
    pub asked: BTreeSet<PeerId>,
    /// Whom to ask in place of those who decline.
    pub next: VecDeque<PeerId>,
    pub bids: BTreeMap<PeerId, Bid>,
    pub declines: BTreeMap<PeerId, DeclineReason>,
    pub deadline_ms: u64,
    /// A single run: nothing is gained by hearing everybody.
    pub alone: bool,
    /// What runs is to be moved: where it does not fit, nothing waits for room.
    pub moves: bool,
}

impl Auction {
    /// Whether a decision now would be as good as one at the deadline: everybody has answered, or,
    /// for a single run, half have and one of them could start at once.
    pub fn is_ripe(&self) -> bool {
        let answers = self.bids.len() + self.declines.len();
        let ready = self.bids.values().any(|bid| bid.count as usize >= self.slots.len() && bid.start_estimate_ms == 0);
        let ready = ready && self.bids.values().any(|bid| bid.cost.is_none());
        answers >= self.asked.len() || (self.alone && ready && 2 * answers >= self.asked.len())
    }

    /// Somebody declined: whom to ask instead, where fewer bids than wanted can still come.
    pub fn instead(&mut self) -> Option<PeerId> {
        if self.asked.len() - self.declines.len().min(self.asked.len()) >= self.wanted {
            return None;
        }
        let next = self.next.pop_front()?;
        self.asked.insert(next);
        Some(next)
    }
}

/// An award whose claims are not seen yet: its slots are not given to anybody else.
#[derive(Clone, Debug)]
pub struct Outstanding {
    pub app: AppId,
    pub service: String,
    pub machine: PeerId,
    pub award: Arc<Award>,
    pub again_ms: u64,
    /// The claims, once the machine has acknowledged.
    pub claims: Option<Vec<(String, ClaimId)>>,
}

/// A machine that could be asked.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub peer: PeerId,
    /// Copies of the need that fit by the ledger's view.
    pub fits: u32,
    /// How crowded it and its surroundings are with tasks of the service: see [`super::crowd::Crowd::at`].
    pub crowd: Vec<u32>,
    /// Thousandths of its scarcest resource that are free.
    pub free: u64,
    /// It has GPUs: what a task strands there counts.
    pub gpus: bool,
    /// Whether it has the image.
    pub image: bool,
    /// The last choice: its vitals are old.
    pub stale: bool,
}

impl Candidate {
    /// A machine of this capacity, of which so much is used by the ledger's view. Whether it has tasks of
    /// the service, the image and news of late is the caller's to say.
    pub fn of(peer: PeerId, capacity: &Resources, used: &Resources, need: &Resources, count: u32) -> Self {
        let fits = capacity.copies(used, need, count);
        let gpus = capacity.has_gpus();
        Self { peer, fits, crowd: Vec::new(), free: free_share(capacity, used), gpus, image: true, stale: false }
    }
}

impl Candidate {
    /// The best machines to ask first.
    fn order(&self) -> (bool, bool, &[u32], bool, u64, PeerId) {
        (self.fits == 0, self.stale, &self.crowd, !self.image, u64::MAX - self.free, self.peer)
    }
}

/// What one more task of this need would strand on a machine with GPUs, by what was read.
pub fn cost_by(readings: &Readings, need: &Resources, mix: &Mix) -> impl Fn(&PeerId) -> i64 {
    let ask = Ask::of(need);
    move |peer| {
        let machine = readings.machines.get(peer);
        let room = machine.map(|machine| Room::of(&machine.capacity, readings.used(peer)));
        room.and_then(|room| place(&room, &ask, mix)).map_or(i64::MAX, |placement| placement.cost)
    }
}

/// How many bids are wanted for so many copies.
pub fn wanted(count: u32) -> usize {
    (count as usize / 4).clamp(WANTED, WANTED_MAX)
}

/// How many bids are wanted where all copies have to be placed, or none: of as many machines as would hold them twice by
/// the ledger's view.
pub fn wanted_for_all(candidates: &[Candidate], count: u32) -> usize {
    let mut room: Vec<u32> = candidates.iter().map(|candidate| candidate.fits).collect();
    room.sort_unstable();
    let mut left = 2 * u64::from(count);
    let needed = room.iter().rev().take_while(|fits| {
        let more = left > 0;
        left = left.saturating_sub(u64::from(**fits));
        more
    });
    needed.count().clamp(wanted(count), GANG_ASKED_MAX)
}

/// Chooses whom to ask, in this order: `wanted` machines at first, and one more for each that declines.
/// `cost` tells what the task would strand on a machine with GPUs, by the ledger's view; `draw` gives
/// random numbers.
///
/// The view lags behind what others place, and all would ask the same machines if they trusted it. So
/// chance has a hand. Without GPUs a sample of those with most room is asked; with GPUs, where tasks are to be
/// packed, a sample that favours the better ones and leaves none out. Machines that are full by the view
/// are asked only to make up the number: room may be free again.
pub fn choose(
    candidates: Vec<Candidate>,
    wanted: usize,
    cost: impl Fn(&PeerId) -> i64,
    draw: impl FnMut() -> u64,
) -> Vec<PeerId> {
    let packs = candidates.iter().any(|candidate| candidate.gpus);
    if packs { packing(candidates, wanted, cost, draw) } else { spreading(candidates, wanted, draw) }
}

/// A sample among the best `4 × wanted`, best first by spread, image and room.
fn spreading(mut candidates: Vec<Candidate>, wanted: usize, mut draw: impl FnMut() -> u64) -> Vec<PeerId> {
    candidates.sort_by(|a, b| a.order().cmp(&b.order()));
    let fit = candidates.iter().filter(|candidate| candidate.fits > 0).count();
    candidates.truncate(fit.max(wanted).min(4 * wanted));
    let mut others = Vec::new();
    while candidates.len() > wanted {
        let at = (draw() % candidates.len() as u64) as usize;
        others.push(candidates.remove(at));
    }
    // What was drawn last among the others stood longest.
    let others = others.into_iter().rev().filter(|other| other.fits > 0);
    let chosen = candidates.into_iter().chain(others);
    chosen.take(ASKED_MAX.max(wanted)).map(|candidate| candidate.peer).collect()
}

/// Of [`WEIGHED`] machines at random the better ones more often: the place in their order is the square of
/// an even draw.
fn packing(
    mut candidates: Vec<Candidate>,
    wanted: usize,
    cost: impl Fn(&PeerId) -> i64,
    mut draw: impl FnMut() -> u64,
) -> Vec<PeerId> {
    let mut fit: Vec<Candidate> = candidates.extract_if(.., |c| c.fits > 0 && !c.stale).collect();
    let weighed = WEIGHED.max(wanted);
    for at in 0..fit.len().min(weighed) {
        let other = at + (draw() % (fit.len() - at) as u64) as usize;
        fit.swap(at, other);
    }
    fit.truncate(weighed);
    fit.sort_by_cached_key(|c| (c.crowd.clone(), !c.image, if c.gpus { cost(&c.peer) } else { -(c.free as i64) }));
    let mut order: Vec<PeerId> = Vec::with_capacity(ASKED_MAX);
    while !fit.is_empty() && order.len() < ASKED_MAX.max(wanted) {
        let even = u128::from(draw());
        let at = (((even * even) >> 64) * fit.len() as u128) >> 64;
        order.push(fit.remove(at as usize).peer);
    }
    candidates.sort_by(|a, b| a.order().cmp(&b.order()));
    let missing = wanted.saturating_sub(order.len());
    order.extend(candidates.into_iter().take(missing).map(|candidate| candidate.peer));
    order
}

/// Gives slots to bidders: where nothing has to end for it before where something has, then where fewest tasks of the
/// service are, over labels and machines, then by score. Slots beyond all bids stay out.
pub fn decide<'a>(
    slots: &[Slot],
    bids: &BTreeMap<PeerId, Bid>,
    mut crowd: Crowd,
    labels: impl Fn(&PeerId) -> Option<&'a BTreeMap<String, String>>,
) -> BTreeMap<PeerId, (BidId, Vec<Slot>)> {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    let labels = |peer: &PeerId| labels(peer).unwrap_or(&NONE);
    let key = |crowd: &Crowd, peer: &PeerId, bid: &Bid| {
        (bid.cost, crowd.at(peer, labels(peer)), bid.start_estimate_ms, Reverse(bid.score), *peer)
    };
    let mut awards: BTreeMap<PeerId, (BidId, Vec<Slot>)> = BTreeMap::new();
    // The least first; what a slot changes is put back with its new key. Over labels one slot changes the keys of
    // others too: a key that was too good when its turn comes goes back.
    let open = bids.iter().filter(|(_, bid)| bid.count > 0);
    let mut order: BTreeMap<_, &Bid> = open.map(|(peer, bid)| (key(&crowd, peer, bid), bid)).collect();
    for slot in slots {
        let chosen = loop {
            let Some((held, bid)) = order.pop_first() else { return awards };
            let (.., peer) = held;
            let now = key(&crowd, &peer, bid);
            if now == held {
                break (peer, bid);
            }
            order.insert(now, bid);
        };
        let (peer, bid) = chosen;
        let (_, given) = awards.entry(peer).or_insert_with(|| (bid.bid, Vec::new()));
        given.push(slot.clone());
        let more = (given.len() as u32) < bid.count;
        crowd.add(&peer, labels(&peer));
        if more {
            order.insert(key(&crowd, &peer, bid), bid);
        }
    }
    awards
}

/// The reasons of those who declined, most frequent first: `2 × full: memory_bytes`.
pub fn summary(declines: &BTreeMap<PeerId, DeclineReason>) -> Vec<String> {
    let mut counts: BTreeMap<&DeclineReason, u32> = BTreeMap::new();
    for reason in declines.values() {
        *counts.entry(reason).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts.into_iter().take(8).map(|(reason, count)| format!("{count} × {reason}")).collect()
}

/// Thousandths of the scarcest dimension that are free.
pub fn free_share(capacity: &Resources, used: &Resources) -> u64 {
    let share = |(name, all): (&String, &u64)| capacity.free(used, name).saturating_mul(1000) / (*all).max(1);
    capacity.0.iter().map(share).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::market::wire::Cost;
    use crate::model::Placement;

    fn bid(n: u8, count: u32, score: i64) -> (PeerId, Bid) {
        (PeerId([n; 32]), Bid { auction: 1, bid: BidId([n; 16]), count, score, ..Bid::default() })
    }

    fn slots(n: u32) -> Vec<Slot> {
        (1..=n).map(|slot| Slot { slot: slot.to_string(), attempt: 1, of: 0 }).collect()
    }

    #[test]
    fn slots_are_spread_before_scores_count() {
        let bids = BTreeMap::from([bid(1, 9, 100), bid(2, 9, 50), bid(3, 1, 900)]);
        let has = BTreeMap::from([(PeerId([1; 32]), 1)]);
        let awards = decide(&slots(5), &bids, Crowd::of(&Placement::default(), &has, |_| None), |_| None);
        let given: Vec<usize> = (1..=3).map(|n| awards.get(&PeerId([n; 32])).map_or(0, |(_, s)| s.len())).collect();
        assert_eq!(given, [2, 2, 1]);
    }

    #[test]
    fn slots_beyond_all_bids_stay_out() {
        let crowd = Crowd::of(&Placement::default(), &BTreeMap::new(), |_| None);
        let awards = decide(&slots(5), &BTreeMap::from([bid(1, 2, 0)]), crowd, |_| None);
        assert_eq!(awards.values().map(|(_, slots)| slots.len()).sum::<usize>(), 2);
    }

    #[test]
    fn tasks_are_spread_over_labels_before_machines_and_room_goes_before_victims() {
        let zone = |n: u8| BTreeMap::from([("zone".to_string(), if n < 4 { "a" } else { "b" }.to_string())]);
        let labels: BTreeMap<PeerId, _> = (1..=4).map(|n| (PeerId([n; 32]), zone(n))).collect();
        let placement = Placement { spread: vec!["zone".into()], ..Placement::default() };
        let bids = (1..=4).map(|n| bid(n, 9, i64::from(10 - n))).collect();
        let crowd = Crowd::of(&placement, &BTreeMap::new(), |peer| labels.get(peer));
        let awards = decide(&slots(6), &bids, crowd, |peer| labels.get(peer));
        let given = |n: u8| awards.get(&PeerId([n; 32])).map_or(0, |(_, slots)| slots.len());
        assert_eq!([given(1), given(2), given(3), given(4)], [1, 1, 1, 3]);

        let mut bids = BTreeMap::from([bid(1, 1, 0), bid(2, 9, 100)]);
        bids.get_mut(&PeerId([2; 32])).unwrap().cost = Some(Cost { priority: 0, tasks: 1, ran_ms: 0 });
        let crowd = Crowd::of(&Placement::default(), &BTreeMap::from([(PeerId([1; 32]), 5)]), |_| None);
        let awards = decide(&slots(1), &bids, crowd, |_| None);
        assert!(awards.contains_key(&PeerId([1; 32])));
    }

    fn candidate(n: u8, gpus: bool) -> Candidate {
        Candidate { peer: PeerId([n; 32]), fits: 1, crowd: Vec::new(), free: 0, gpus, image: true, stale: false }
    }

    fn chosen(machines: u8, gpus: bool, seed: u64) -> Vec<PeerId> {
        let mut state = seed;
        let draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ (state >> 29)
        };
        choose((1..=machines).map(|n| candidate(n, gpus)).collect(), WANTED, |peer| i64::from(peer.0[0]), draw)
    }

    #[test]
    fn everybody_is_asked_at_most_once_and_in_a_small_cluster_everybody() {
        for gpus in [false, true] {
            for seed in 1..50 {
                let all = chosen(5, gpus, seed);
                assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 5);
                let some = chosen(200, gpus, seed);
                assert_eq!(some.iter().collect::<BTreeSet<_>>().len(), some.len());
                assert!(some.len() >= 4 * WANTED && some.len() <= ASKED_MAX);
            }
        }
    }

    #[test]
    fn packing_favours_what_strands_less_and_leaves_none_out() {
        let mut times = [0u32; 101];
        for seed in 0..2_000 {
            chosen(100, true, seed).iter().take(WANTED).for_each(|peer| times[usize::from(peer.0[0])] += 1);
        }
        let (best, worst): (u32, u32) = (times[1..=25].iter().sum(), times[76..=100].iter().sum());
        assert!(best > 2 * worst, "{best} of the best quarter, {worst} of the worst");
        assert!(times[1..].iter().all(|times| *times > 0));
    }

    #[test]
    fn who_does_not_fit_is_asked_last() {
        let mut all: Vec<Candidate> = (1..=20).map(|n| candidate(n, true)).collect();
        all.iter_mut().take(10).for_each(|full| full.fits = 0);
        let order = choose(all, WANTED, |_| 0, || 0);
        assert_eq!(order.len(), 10);
        assert!(order.iter().all(|peer| peer.0[0] > 10));
    }

    #[test]
    fn another_is_asked_for_each_that_declines_while_bids_are_wanted() {
        let solicit = Solicit {
            auction: 1,
            app: crate::ids::AppId { namespace: "default".into(), name: "shop".into(), generation: 1 },
            service: "web".into(),
            count: 1,
            deadline_ms: BIDS_MS,
            ..Solicit::default()
        };
        let mut auction = Auction {
            app: solicit.app.clone(),
            service: "web".into(),
            revision: 1,
            former: None,
            slots: slots(1),
            solicit: Arc::new(solicit),
            wanted: 2,
            asked: [1, 2].map(|n| PeerId([n; 32])).into(),
            next: [3, 4].map(|n| PeerId([n; 32])).into(),
            bids: BTreeMap::new(),
            declines: BTreeMap::new(),
            deadline_ms: 0,
            alone: false,
            moves: false,
        };
        assert_eq!(auction.instead(), None);
        for (declined, instead) in [(1, Some(3)), (2, Some(4)), (3, None)] {
            auction.declines.insert(PeerId([declined; 32]), DeclineReason::Draining);
            assert_eq!(auction.instead(), instead.map(|n| PeerId([n; 32])));
        }
        assert!(!auction.is_ripe());
    }
}
