//! Anti-entropy: what the push has missed is made whole, with one random peer at a time.
//!
//! Two peers compare a few hashes; where these differ, what each holds of the owners concerned; and
//! then each sends what the other lacks.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::rand_core::RngCore;

use super::Brain;
use crate::ids::PeerId;
use crate::ledger::Owner;
use crate::ledger::replica::EXCHANGE_BYTES_MAX;
use crate::wire::{Mark, Message};

/// With one random peer, this often on average, ms.
const COMPARE_MS: u64 = 10_000;
/// One peer is compared with at most this often, ms.
const COMPARE_AGAIN_MS: u64 = 250;
/// When so many peers were compared with, those of long ago are forgotten.
const COMPARED_MAX: usize = 64;
/// A gap is asked about at most this often, ms.
const PULL_AGAIN_MS: u64 = 300;

/// Whom to compare with, and what was asked for.
#[derive(Debug)]
pub(super) struct Comparing {
    random_ms: u64,
    /// Peers to compare with as soon as may be.
    wanted: BTreeSet<PeerId>,
    /// When each peer was last compared with.
    last: BTreeMap<PeerId, u64>,
    /// Owners whose gap was asked about, and until when nobody asks again.
    asked: BTreeMap<PeerId, u64>,
}

impl Comparing {
    pub fn new(now_ms: u64, draw: u64) -> Self {
        let random_ms = now_ms + draw % COMPARE_MS;
        Self { random_ms, wanted: BTreeSet::new(), last: BTreeMap::new(), asked: BTreeMap::new() }
    }

    pub fn deadline(&self) -> u64 {
        self.wanted.iter().map(|peer| self.again_ms(peer)).fold(self.random_ms, u64::min)
    }

    /// When a peer may be compared with again.
    fn again_ms(&self, peer: &PeerId) -> u64 {
        self.last.get(peer).map_or(0, |last| last + COMPARE_AGAIN_MS)
    }

    fn take_due(&mut self, now_ms: u64) -> Vec<PeerId> {
        let due: Vec<PeerId> = self.wanted.iter().copied().filter(|peer| self.again_ms(peer) <= now_ms).collect();
        for peer in &due {
            self.wanted.remove(peer);
            self.last.insert(*peer, now_ms);
        }
        if self.last.len() > COMPARED_MAX {
            self.last.retain(|_, last| *last + COMPARE_AGAIN_MS > now_ms);
        }
        due
    }

    pub fn with(&mut self, peer: PeerId) {
        self.wanted.insert(peer);
    }

    /// A link is new: whatever was compared before, it is time to do it again.
    pub fn with_at_once(&mut self, peer: PeerId) {
        self.wanted.insert(peer);
        self.last.remove(&peer);
    }
}

impl Brain {
    pub(super) fn compare_turn(&mut self) {
        if self.spread.comparing.random_ms <= self.now.ms {
            let again_ms = COMPARE_MS * 4 / 5 + self.rng.next_u64() % (COMPARE_MS * 2 / 5);
            self.spread.comparing.random_ms = self.now.ms + again_ms;
            if let Some(peer) = self.members.random(self.rng.next_u64()) {
                self.spread.comparing.with(peer);
            }
        }
        if self.spread.comparing.wanted.is_empty() {
            return;
        }
        let due = self.spread.comparing.take_due(self.now.ms);
        let sums = if due.is_empty() { Vec::new() } else { self.ledger.sums() };
        for peer in due {
            let yours = self.ledger.mark(&peer);
            self.send(peer, Message::Compare { sums: sums.clone(), yours });
            self.announce_vitals(peer);
        }
    }

    pub(super) fn take_compare(&mut self, from: PeerId, theirs: &[u64], yours: Mark) {
        self.look_at_mark(from, yours);
        let ranges = self.ledger.differing(theirs);
        if !ranges.is_empty() {
            let of = theirs.len() as u16;
            let owners = self.ledger.digest(&ranges, of);
            self.send(from, Message::Digest { of, ranges, owners });
        }
    }

    pub(super) fn take_digest(&mut self, from: PeerId, of: u16, ranges: &[u16], theirs: &[(PeerId, u64, u64)]) {
        let mut pull = Vec::new();
        for (owner, complete, loose) in theirs {
            if *owner == self.me {
                // A number alone proves nothing: the record itself would.
                if *complete > self.writer.last() {
                    pull.push((self.me, self.writer.last()));
                }
                continue;
            }
            let differs = |held: &Owner| held.lacks(*complete) || (*loose != 0 && *loose != held.loose());
            let held = self.ledger.owner(owner).filter(|held| held.admitted && differs(held));
            if let Some(held) = held
                && !self.spread.budgets.is_spent(self.now.ms, owner)
            {
                pull.push((*owner, held.complete));
            }
        }
        if !pull.is_empty() {
            self.send(from, Message::Pull { after: pull });
        }
        let theirs: BTreeMap<PeerId, (u64, u64)> =
            theirs.iter().map(|(owner, complete, loose)| (*owner, (*complete, *loose))).collect();
        let mut behind: Vec<(PeerId, u64)> = Vec::new();
        for (owner, complete, loose) in self.ledger.digest(ranges, of) {
            let (their_complete, their_loose) = theirs.get(&owner).copied().unwrap_or_default();
            if owner != from && (their_complete < complete || (loose != 0 && loose != their_loose)) {
                behind.push((owner, their_complete));
            }
        }
        self.answer_pull(from, &behind);
    }

    pub(super) fn answer_pull(&mut self, to: PeerId, wanted: &[(PeerId, u64)]) {
        let mut bytes = EXCHANGE_BYTES_MAX;
        // Where little is missing comes first: nobody starves the others by writing much.
        let above = |(owner, after): &&(PeerId, u64)| self.ledger.owner(owner).map_or(0, |held| held.above(*after));
        let mut wanted: Vec<&(PeerId, u64)> = wanted.iter().collect();
        wanted.sort_by_cached_key(above);
        for (owner, after) in wanted {
            for part in self.ledger.answer(owner, *after, &mut bytes) {
                self.send(to, Message::Records(part));
            }
        }
    }

    pub(super) fn pull_gap(&mut self, from: PeerId, owner: PeerId) {
        let asked = &mut self.spread.comparing.asked;
        let again = asked.get(&owner).copied().unwrap_or(0);
        if again <= self.now.ms && !self.spread.budgets.is_spent(self.now.ms, &owner) {
            asked.retain(|_, until| *until > self.now.ms);
            asked.insert(owner, self.now.ms + PULL_AGAIN_MS);
            let after = self.ledger.owner(&owner).map_or(0, |held| held.complete);
            self.send(from, Message::Pull { after: vec![(owner, after)] });
        }
    }
}
