//! How vitals spread: made now and then, gathered on each hop, and never written down.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand_chacha::rand_core::RngCore;

use super::Brain;
use crate::effect::{Bad, Effect};
use crate::ids::PeerId;
use crate::ledger::readings::Heard;
use crate::ledger::record::Signature;
use crate::model::Vitals;
use crate::wire::{Message, SignedVitals};

/// Vitals are made at most this often, ms; in large clusters less, see [`VITALS_MS_PER_PEER`].
const VITALS_MS: u64 = 2_000;
/// Vitals of N peers are made every N × this, ms.
const VITALS_MS_PER_PEER: u64 = 20;
/// How many vitals go with an anti-entropy exchange.
const EXCHANGED: usize = 32;
/// The most vitals in one message.
const VITALS_MAX: usize = 256;
/// The most names of images in one peer's vitals.
const IMAGES_MAX: usize = 64;
/// Vitals of one peer are taken at most this often, ms.
const TAKEN_MS: u64 = 500;

/// Vitals on their way.
#[derive(Debug, Default)]
pub(super) struct Spreading {
    made_ms: u64,
    /// Made, and not signed yet.
    unsigned: Option<Vitals>,
    counter: u64,
    /// Wall clock, ms.
    started: u64,
    /// To be handed on at the next flush, each with the link it came by.
    fresh: BTreeMap<PeerId, (PeerId, Arc<SignedVitals>)>,
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

/// Where vitals stand among those of the same peer: a later start goes before any count.
pub(super) fn age(vitals: &Vitals) -> u64 {
    vitals.started.saturating_add(vitals.counter)
}

impl Brain {
    pub(super) fn vitals_turn(&mut self) {
        if self.spread.vitals.made_ms <= self.now.ms {
            let members = self.members.live_count() as u64;
            self.spread.vitals.made_ms = self.now.ms + VITALS_MS.max(members * VITALS_MS_PER_PEER);
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
        let signed = Arc::new(SignedVitals { owner: self.me, vitals, signature });
        self.hear_vitals(signed, self.me);
    }

    /// Takes vitals, and hands them on with the next flush.
    fn hear_vitals(&mut self, signed: Arc<SignedVitals>, from: PeerId) {
        self.spread.gather(self.now.ms, self.members.live_count());
        self.spread.vitals.fresh.insert(signed.owner, (from, signed.clone()));
        self.readings.vitals.insert(signed.owner, Heard { signed, read_ms: self.now.ms });
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
        let (mut news, mut again) = (0, 0);
        for signed in all.into_iter().take(VITALS_MAX) {
            let is_small = signed.vitals.images.len() <= IMAGES_MAX;
            if !is_small {
                self.report(Some(from), Bad::Malformed);
            } else if !self.is_newer(&signed) {
                again += 1;
            } else if self.ledger.is_admitted(&signed.owner) && !self.is_rash(&signed.owner) {
                news += 1;
                self.hear_vitals(signed, from);
            }
        }
        self.brought(from, news, again);
    }

    /// Hands on what was gathered; the places on the ring and the ages of all of it.
    pub(super) fn flush_vitals(&mut self) -> Vec<(u64, u64)> {
        let fresh = std::mem::take(&mut self.spread.vitals.fresh);
        if fresh.is_empty() {
            return Vec::new();
        }
        for peer in self.spread.tree.eager().collect::<Vec<_>>() {
            let others = fresh.values().filter(|(from, signed)| *from != peer && signed.owner != peer);
            let others: Vec<_> = others.map(|(_, signed)| signed.clone()).collect();
            for some in others.chunks(VITALS_MAX) {
                self.send(peer, Message::Vitals(some.to_vec()));
            }
        }
        fresh.values().map(|(_, signed)| (signed.owner.ring(), age(&signed.vitals))).collect()
    }

    /// The newest vitals of some, beside every anti-entropy exchange.
    pub(super) fn send_vitals(&mut self, peer: PeerId) {
        let known = self.readings.vitals.len();
        let skip = if known > EXCHANGED { self.rng.next_u64() as usize % known } else { 0 };
        let some = self.readings.vitals.values().cycle().skip(skip).take(EXCHANGED.min(known));
        let some: Vec<_> = some.map(|heard| heard.signed.clone()).collect();
        if !some.is_empty() {
            self.send(peer, Message::Vitals(some));
        }
    }
}
