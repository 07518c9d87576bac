//! How vitals spread: made now and then, announced on each hop, and asked for once. They are never
//! pushed, for nobody waits for them, and never written down.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand_chacha::rand_core::RngCore;

use super::Brain;
use super::electing::CLOCKS_MS;
use crate::effect::{Bad, Effect};
use crate::ids::PeerId;
use crate::ledger::readings::Heard;
use crate::ledger::record::Signature;
use crate::model::Vitals;
use crate::wire::{Have, Message, SignedVitals};

/// Vitals are made at most this often, ms; in large clusters less, see [`VITALS_MS_PER_PEER`].
const VITALS_MS: u64 = 2_000;
/// Vitals of N peers are made every N × this, ms.
const VITALS_MS_PER_PEER: u64 = 20;
/// The vitals of so many are announced with an anti-entropy exchange.
const EXCHANGED: usize = 256;
/// The most vitals in one message.
const VITALS_MAX: usize = 256;
/// What the vitals of one peer take on the wire beside the names of its images, about,
const VITALS_BYTES: usize = 512;
/// and what those in one message may.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// What was asked for and did not come is asked for again after this, ms.
const ASK_AGAIN_MS: u64 = 2_000;
/// The most names of images in one peer's vitals.
const IMAGES_MAX: usize = 64;
/// A clock that was put back by more than this is not made up for, ms: a year.
const CLOCK_MS_MAX: u64 = 366 * 86_400_000;
/// Vitals of one peer are taken at most this often, ms.
const TAKEN_MS: u64 = 500;

/// Vitals on their way.
#[derive(Debug, Default)]
pub(super) struct Spreading {
    made_ms: u64,
    /// Made, and not signed yet.
    unsigned: Option<Vitals>,
    counter: u64,
    /// Wall clock at the start, ms, or what goes beyond the vitals of earlier starts.
    started: u64,
    /// To be announced with the next flush: place on the ring and age.
    fresh: BTreeMap<u64, u64>,
    /// What was asked for, and when.
    asked: BTreeMap<u64, u64>,
}

impl Spreading {
    pub fn new(started: u64, now_ms: u64) -> Self {
        Self { started, made_ms: now_ms, ..Self::default() }
    }

    /// When vitals are made next.
    pub fn deadline(&self) -> u64 {
        self.made_ms
    }
}

/// How often each of so many peers makes vitals, ms.
pub(super) fn every_ms(members: usize) -> u64 {
    VITALS_MS.max(members as u64 * VITALS_MS_PER_PEER)
}

/// Where vitals stand among those of the same peer: a later start goes before any count.
pub(super) fn age(vitals: &Vitals) -> u64 {
    vitals.started.saturating_add(vitals.counter)
}

impl Brain {
    pub(super) fn vitals_turn(&mut self) {
        if self.spread.vitals.made_ms <= self.now.ms {
            // Not all at the same time, though all may have been switched on together.
            let every_ms = every_ms(self.members.live_count());
            self.spread.vitals.made_ms = self.now.ms + every_ms * 3 / 4 + self.rng.next_u64() % (every_ms / 2);
            self.make_vitals();
        }
    }

    fn make_vitals(&mut self) {
        if self.bidder.capacity.0.is_empty() {
            return;
        }
        self.spread.vitals.counter += 1;
        let vitals = Vitals {
            started: self.spread.vitals.started,
            counter: self.spread.vitals.counter,
            at: self.now.wall,
            used: self.bidder.used().into_owned(),
            load_millis: self.machine.load_millis,
            images: self.machine.images.iter().take(IMAGES_MAX).cloned().collect(),
        };
        self.spread.vitals.unsigned = Some(vitals.clone());
        self.out.push(Effect::SignVitals { vitals });
    }

    pub(super) fn vitals_signed(&mut self, counter: u64, signature: Signature) {
        let unsigned = &mut self.spread.vitals.unsigned;
        let Some(vitals) = unsigned.take_if(|vitals| vitals.counter == counter) else { return };
        let signed = Arc::new(SignedVitals::new(self.me, vitals, signature));
        self.hear_vitals(signed);
    }

    /// Takes vitals, and announces them with the next flush.
    fn hear_vitals(&mut self, signed: Arc<SignedVitals>) {
        self.spread.gather(self.now.ms, self.members.live_count());
        let ring = signed.owner.ring();
        self.spread.vitals.asked.remove(&ring);
        self.spread.vitals.fresh.insert(ring, age(&signed.vitals));
        let (owner, at) = (signed.owner, signed.vitals.at);
        match self.readings.vitals.insert(owner, Heard { signed, read_ms: self.now.ms }) {
            None => self.first_vitals(&owner),
            // A clock that was set makes its machine's life older or younger, and others the stewards.
            Some(before) if before.wall(self.now.ms).abs_diff(at) > CLOCKS_MS => self.stewards.members_changed(),
            Some(_) => {}
        }
    }

    pub(super) fn is_newer(&self, signed: &SignedVitals) -> bool {
        signed.owner != self.me && self.vitals_age(&signed.owner) < age(&signed.vitals)
    }

    /// How new the vitals are that are held of a peer; 0: none are.
    pub(super) fn vitals_age(&self, owner: &PeerId) -> u64 {
        self.readings.vitals.get(owner).map_or(0, |heard| age(&heard.signed.vitals))
    }

    /// Whether a peer's vitals came only just now: nobody needs others so soon.
    fn is_rash(&self, owner: &PeerId) -> bool {
        self.readings.vitals.get(owner).is_some_and(|heard| self.now.ms < heard.read_ms + TAKEN_MS)
    }

    pub(super) fn take_vitals(&mut self, from: PeerId, all: Vec<Arc<SignedVitals>>) {
        for signed in all.into_iter().take(VITALS_MAX) {
            if signed.vitals.images.len() > IMAGES_MAX {
                self.report(Some(from), Bad::Malformed);
            } else if self.is_newer(&signed) && self.ledger.is_admitted(&signed.owner) && !self.is_rash(&signed.owner) {
                self.hear_vitals(signed);
            }
        }
    }

    /// What is to be announced of vitals, for all links.
    pub(super) fn fresh_vitals(&mut self) -> Vec<(u64, u64)> {
        std::mem::take(&mut self.spread.vitals.fresh).into_iter().collect()
    }

    /// Others announce vitals: those that are newer than what is here are asked for, of the first who has them.
    pub(super) fn want_vitals(&mut self, from: PeerId, there: &[(u64, u64)]) {
        let now = self.now.ms;
        let mut want = Vec::new();
        for (ring, age) in there.iter().take(VITALS_MAX) {
            if *ring == self.me.ring() {
                self.outlive(*age);
                continue;
            }
            let owner = self.ledger.owner_at(*ring).filter(|owner| owner.admitted).map(|owner| owner.id);
            let is_newer = owner.is_some_and(|owner| self.vitals_age(&owner) < *age);
            let asked = &mut self.spread.vitals.asked;
            if is_newer && asked.get(ring).is_none_or(|asked_ms| asked_ms + ASK_AGAIN_MS <= now) {
                asked.insert(*ring, now);
                want.push(*ring);
            }
        }
        if !want.is_empty() {
            self.send(from, Message::Want(want));
        }
    }

    /// Others hold own vitals of this age. If they are newer than any of this start, then the clock was put back before
    /// it, and nobody would take what is made now.
    fn outlive(&mut self, age: u64) {
        let spreading = &mut self.spread.vitals;
        let own = spreading.started.saturating_add(spreading.counter);
        if age > own && age - own < CLOCK_MS_MAX {
            spreading.started = age;
            spreading.made_ms = self.now.ms;
        }
    }

    pub(super) fn vitals_wanted(&mut self, from: PeerId, rings: &[u64]) {
        let held = |ring: &u64| self.readings.vitals.get(&self.ledger.owner_at(*ring)?.id);
        let held = rings.iter().take(VITALS_MAX).filter_map(held).map(|heard| heard.signed.clone());
        let mut parts: Vec<(usize, Vec<Arc<SignedVitals>>)> = Vec::new();
        for one in held.collect::<Vec<_>>() {
            let bytes = VITALS_BYTES + one.vitals.images.iter().map(|name| name.len() + 8).sum::<usize>();
            match parts.last_mut().filter(|(sum, _)| sum + bytes <= MESSAGE_BYTES_MAX) {
                Some((sum, part)) => {
                    *sum += bytes;
                    part.push(one);
                }
                None => parts.push((bytes, vec![one])),
            }
        }
        parts.into_iter().for_each(|(_, part)| self.send(from, Message::Vitals(part)));
    }

    /// The ages of some vitals, beside every anti-entropy exchange.
    pub(super) fn announce_vitals(&mut self, peer: PeerId) {
        let known = self.readings.vitals.len();
        let skip = if known > EXCHANGED { self.rng.next_u64() as usize % known } else { 0 };
        let some = self.readings.vitals.values().cycle().skip(skip).take(EXCHANGED.min(known));
        let vitals: Vec<_> = some.map(|heard| (heard.signed.owner.ring(), age(&heard.signed.vitals))).collect();
        if !vitals.is_empty() {
            self.send(peer, Message::Have(Arc::new(Have { frames: Vec::new(), vitals })));
        }
    }
}
