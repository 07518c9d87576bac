//! Anti-entropy: what the push has missed is made whole, with one random peer at a time.
//!
//! Two peers compare a few hashes; where these differ, what each holds of the owners concerned; and
//! then each sends what the other lacks.

use std::collections::{BTreeMap, BTreeSet};

use rand_chacha::rand_core::RngCore;

use super::Brain;
use crate::ids::PeerId;
use crate::ledger::replica::EXCHANGE_BYTES_MAX;
use crate::plant::Plant;
use crate::wire::{Mark, Message, Records, Stand};

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

    /// What two hold differently is exchanged both ways: what is missing after a number, or, where the numbers are the
    /// same and what is held is not, everything.
    pub(super) fn take_digest(&mut self, from: PeerId, of: u16, ranges: &[u16], theirs: &[(PeerId, Stand)]) {
        // What jumped a gap would be found by this, too.
        let numbers_alone = self.has(Plant::NumbersAlone) || self.has(Plant::JumpGaps);
        let disagree = |one: &Stand, other: &Stand| {
            !numbers_alone && (one.complete, one.loose) == (other.complete, other.loose) && one.held != other.held
        };
        let mut pull = Vec::new();
        for (owner, stand) in theirs {
            if *owner == self.me {
                // A number alone proves nothing: the record itself would. Where the numbers are the same and what is held
                // is not, one may have been given twice, by a disk that was put back.
                let own = self.ledger.owner(owner).map(|held| held.stand());
                if stand.complete > self.writer.last() {
                    pull.push((self.me, self.writer.last()));
                } else if own.is_some_and(|own| disagree(stand, &own)) {
                    pull.push((self.me, 0));
                }
                continue;
            }
            let Some(held) = self.ledger.owner(owner).filter(|held| held.admitted) else { continue };
            let after = if held.lacks(stand.complete) || (stand.loose != 0 && stand.loose != held.loose()) {
                held.complete
            } else if disagree(stand, &held.stand()) {
                0
            } else {
                continue;
            };
            if !self.spread.budgets.is_spent(self.now.ms, owner) {
                pull.push((*owner, after));
            }
        }
        if !pull.is_empty() {
            self.send(from, Message::Pull { after: pull, on: false });
        }
        let theirs: BTreeMap<PeerId, Stand> = theirs.iter().copied().collect();
        // Each range once, however often it is named.
        let ranges: BTreeSet<u16> = ranges.iter().copied().filter(|range| *range < of).collect();
        let ranges: Vec<u16> = ranges.into_iter().collect();
        let mut behind: Vec<(PeerId, u64)> = Vec::new();
        for (owner, stand) in self.ledger.digest(&ranges, of).into_iter().filter(|(owner, _)| *owner != from) {
            let their = theirs.get(&owner).copied().unwrap_or_default();
            if their.complete < stand.complete || (stand.loose != 0 && stand.loose != their.loose) {
                behind.push((owner, their.complete));
            } else if disagree(&stand, &their) {
                behind.push((owner, 0));
            }
        }
        self.answer_pull(from, &behind, false);
    }

    pub(super) fn answer_pull(&mut self, to: PeerId, wanted: &[(PeerId, u64)], on: bool) {
        let mut bytes = EXCHANGE_BYTES_MAX;
        // Where little is missing comes first: nobody starves the others by writing much.
        let above = |(owner, after): &(PeerId, u64)| self.ledger.owner(owner).map_or(0, |held| held.above(*after));
        // Each owner once, however often it is named.
        let wanted: BTreeMap<PeerId, u64> = wanted.iter().copied().collect();
        let mut wanted: Vec<(PeerId, u64)> = wanted.into_iter().collect();
        wanted.sort_by_cached_key(above);
        for (owner, after) in wanted {
            for part in self.ledger.answer(&owner, after, on, &mut bytes) {
                self.send(to, Message::Records(part));
            }
        }
    }

    /// An answer was too long for one exchange. A list goes on where it ended; anything else with what a comparison
    /// finds. Either brings something each time, so that nobody is kept asking for nothing.
    pub(super) fn pull_rest(&mut self, from: PeerId, answer: &Records, brought: bool) {
        let is_list = answer.replaces_below > 0;
        if answer.cut && is_list && answer.through > answer.after && !answer.records.is_empty() {
            self.send(from, Message::Pull { after: vec![(answer.owner, answer.through)], on: true });
        } else if brought && (answer.cut || (is_list && !answer.more)) {
            self.spread.comparing.with(from);
        }
    }

    pub(super) fn pull_gap(&mut self, from: PeerId, owner: PeerId) {
        let asked = &mut self.spread.comparing.asked;
        let again = asked.get(&owner).copied().unwrap_or(0);
        if again <= self.now.ms && !self.spread.budgets.is_spent(self.now.ms, &owner) {
            asked.retain(|_, until| *until > self.now.ms);
            asked.insert(owner, self.now.ms + PULL_AGAIN_MS);
            let after = self.ledger.owner(&owner).map_or(0, |held| held.complete);
            self.send(from, Message::Pull { after: vec![(owner, after)], on: false });
        }
    }
}
