//! The steward's side of a bid: whom to ask, and who gets it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::wire::{Award, Bid, DeclineReason, Slot};
use crate::ids::{AppId, BidId, ClaimId, PeerId};
use crate::model::Resources;

/// How long a steward waits for bids, ms.
pub const BIDS_MS: u64 = 150;
/// An award that was not answered is sent again after this, ms.
pub const AWARD_RETRY_MS: u64 = 400;
/// How many machines are asked for bids, at least.
pub const ASKED: usize = 8;
/// How many machines are asked for bids, at most.
pub const ASKED_MAX: usize = 32;

/// A call for bids that is not decided yet.
#[derive(Clone, Debug)]
pub struct Auction {
    pub app: AppId,
    pub service: String,
    pub revision: u64,
    pub slots: Vec<Slot>,
    pub asked: BTreeSet<PeerId>,
    pub bids: BTreeMap<PeerId, Bid>,
    pub declines: BTreeMap<PeerId, DeclineReason>,
    pub deadline_ms: u64,
    /// A single run: nothing is gained by hearing everybody.
    pub alone: bool,
}

impl Auction {
    /// Whether a decision now would be as good as one at the deadline: everybody has answered, or,
    /// for a single run, half have and one of them could start at once.
    pub fn is_ripe(&self) -> bool {
        let answers = self.bids.len() + self.declines.len();
        let ready = self.bids.values().any(|bid| bid.count as usize >= self.slots.len() && bid.start_estimate_ms == 0);
        answers >= self.asked.len() || (self.alone && ready && 2 * answers >= self.asked.len())
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
    /// Tasks of the service that it has already.
    pub has: u32,
    /// Thousandths of its scarcest resource that are free.
    pub free: u64,
    /// Whether it has the image.
    pub image: bool,
    /// The last choice: its vitals are old.
    pub stale: bool,
}

/// Chooses whom to ask: a sample of `k` among the best `4k`, best first by spread, image and room.
/// `draw` gives random numbers.
pub fn choose(mut candidates: Vec<Candidate>, count: u32, mut draw: impl FnMut() -> u64) -> Vec<PeerId> {
    let k = (count as usize / 4).clamp(ASKED, ASKED_MAX);
    candidates.sort_by_key(|c| (c.fits == 0, c.stale, c.has, !c.image, u64::MAX - c.free, c.peer));
    candidates.truncate(4 * k);
    while candidates.len() > k {
        let at = (draw() % candidates.len() as u64) as usize;
        candidates.remove(at);
    }
    candidates.into_iter().map(|candidate| candidate.peer).collect()
}

/// Gives slots to bidders: spread over machines first (by the tasks of the service that each has),
/// then by score. Slots beyond all bids stay out.
pub fn decide(
    slots: &[Slot],
    bids: &BTreeMap<PeerId, Bid>,
    has: impl Fn(&PeerId) -> u32,
) -> BTreeMap<PeerId, (BidId, Vec<Slot>)> {
    let mut room: BTreeMap<PeerId, (u32, &Bid)> = bids.iter().map(|(peer, bid)| (*peer, (has(peer), bid))).collect();
    let mut awards: BTreeMap<PeerId, (BidId, Vec<Slot>)> = BTreeMap::new();
    for slot in slots {
        let given = |peer: &PeerId| awards.get(peer).map_or(0, |(_, slots)| slots.len() as u32);
        let best = room
            .iter()
            .filter(|(peer, (_, bid))| given(peer) < bid.count)
            .min_by_key(|(peer, (has, bid))| (has + given(peer), bid.start_estimate_ms, -bid.score, **peer));
        let Some((peer, (_, bid))) = best else { break };
        let (peer, bid) = (*peer, bid.bid);
        awards.entry(peer).or_insert_with(|| (bid, Vec::new())).1.push(slot.clone());
    }
    room.clear();
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

    fn bid(n: u8, count: u32, score: i64) -> (PeerId, Bid) {
        (PeerId([n; 32]), Bid { auction: 1, bid: BidId([n; 16]), count, score, start_estimate_ms: 0 })
    }

    fn slots(n: u32) -> Vec<Slot> {
        (1..=n).map(|slot| Slot { slot: slot.to_string(), attempt: 1 }).collect()
    }

    #[test]
    fn slots_are_spread_before_scores_count() {
        let bids = BTreeMap::from([bid(1, 9, 100), bid(2, 9, 50), bid(3, 1, 900)]);
        let awards = decide(&slots(5), &bids, |peer| u32::from(peer.0[0] == 1));
        let given: Vec<usize> = (1..=3).map(|n| awards.get(&PeerId([n; 32])).map_or(0, |(_, s)| s.len())).collect();
        assert_eq!(given, [2, 2, 1]);
    }

    #[test]
    fn slots_beyond_all_bids_stay_out() {
        let awards = decide(&slots(5), &BTreeMap::from([bid(1, 2, 0)]), |_| 0);
        assert_eq!(awards.values().map(|(_, slots)| slots.len()).sum::<usize>(), 2);
    }

    #[test]
    fn in_a_small_cluster_everybody_is_asked() {
        let candidate =
            |n: u8| Candidate { peer: PeerId([n; 32]), fits: 1, has: 0, free: 0, image: true, stale: false };
        assert_eq!(choose((1..=5).map(candidate).collect(), 1, || 0).len(), 5);
        assert_eq!(choose((1..=100).map(candidate).collect(), 1, || 3).len(), ASKED);
    }
}
