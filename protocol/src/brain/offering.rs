//! Room that comes free, and who gets it: the order of what waits is enforced here, at the machine, the only place
//! where it can be.
//!
//! Every steward writes down what it could not place. A machine with room for some of that keeps the room for a moment
//! and offers it to the steward of what goes first; work that goes after it gets what is left, or waits.

use std::sync::Arc;

use rand_chacha::rand_core::RngCore;

use super::Brain;
use crate::ids::{AppId, PeerId};
use crate::market::bidder::Answer;
use crate::market::rank::Rank;
use crate::market::wire::{Offer, Release, Solicit};
use crate::membership::State;
use crate::model::Mode;
use crate::plant::Plant;
use crate::wire::Message;

/// The most of what waits that is looked at, at once,
const LOOKED_AT_MAX: usize = 64;
/// and how far into the queue: what is there by the word of one who stewards it no more does not count.
const SEARCHED_MAX: usize = 1_024;
/// The most offers at once.
const OFFERS_MAX: usize = 8;
/// What was offered is not offered again by this machine before this, ms: its steward has something in the way.
const OFFER_AGAIN_MS: u64 = 2_000;

impl Brain {
    /// Offers free room to what waits for it.
    pub(super) fn offer_room(&mut self) {
        self.offer(None);
    }

    /// Offers room to what goes before a solicitation; what is left is for that.
    pub(super) fn offer_before(&mut self, solicit: &Solicit) {
        self.offer(Some(solicit));
    }

    fn offer(&mut self, before: Option<&Solicit>) {
        if self.readings.queue.is_empty() || self.bidder.closed.is_some() {
            return;
        }
        let now = self.now.ms;
        self.machine.offered.retain(|_, until_ms| *until_ms > now);
        let goes_before = |(rank, app, service, _): &&(Rank, AppId, String, PeerId)| {
            before.is_none_or(|solicit| *rank < solicit.rank && (solicit.app != *app || solicit.service != *service))
        };
        let mut waits: Vec<_> = self
            .readings
            .queue
            .iter()
            .take(SEARCHED_MAX)
            .take_while(goes_before)
            .filter(|(_, app, _, steward)| self.steward_of(app) == Some(*steward))
            .take(LOOKED_AT_MAX)
            .cloned()
            .collect();
        if self.has(Plant::JumpTheQueue) {
            waits.reverse();
        }
        let mut offers = 0;
        for (rank, app, service, steward) in waits {
            if offers == OFFERS_MAX {
                return;
            }
            let key = (app, service);
            if self.machine.offered.contains_key(&key) {
                continue;
            }
            if let Some(offer) = self.offer_to(steward, rank, &key.0, &key.1) {
                offers += 1;
                self.machine.offered.insert(key, now + OFFER_AGAIN_MS);
                self.send(steward, Message::Offer(offer));
            }
        }
    }

    /// Room for what waits, kept for a moment; `None` where it does not fit, or has to be asked for in another way.
    fn offer_to(&mut self, steward: PeerId, rank: Rank, app: &AppId, service: &str) -> Option<Offer> {
        let document = self.documents.get(app).filter(|document| !document.deleted)?;
        let spec = document.spec.clone();
        let spec = spec.services.get(service)?;
        if spec.mode == Mode::Global && !self.machine_slots(app, spec).values().any(|peer| *peer == self.me) {
            return None;
        }
        // A gang needs all its room at once: its steward is told that some is free, and asks everybody.
        let pending = self.readings.stewardships.get(app)?.get(&steward)?.pending.iter();
        let count = pending.filter(|pending| pending.service == service).map(|pending| pending.count).next()?;
        let auction = self.rng.next_u64() | 1 << 63;
        // Nobody is ended for work that did not ask for it.
        let solicit = Solicit { priority: i32::MIN, rank, ..self.solicit_for(auction, app, service, spec, count) };
        let solicit = Arc::new(solicit);
        let fits = self.bidder.capacity.copies(&self.bidder.used(), &solicit.need, 1) > 0;
        if !fits || self.members.state(&steward) != State::Alive {
            return None;
        }
        let Answer::Bid(bid) = self.answer_to(steward, &solicit, self.now.ms) else { return None };
        self.bidder.keep_for_offer(&bid.bid, self.now.ms);
        Some(Offer { app: app.clone(), service: service.to_string(), revision: spec.revision(), bid })
    }

    /// A machine has room for what waits here.
    pub(super) fn offered(&mut self, from: PeerId, offer: Offer) {
        let Offer { app, service, revision, bid } = offer;
        if self.stewards.outstanding.contains_key(&bid.bid) {
            return;
        }
        let now = self.now.ms;
        let release = Message::Release(Release { auction: bid.auction, bid: bid.bid });
        let spec = self.documents.get(&app).filter(|doc| !doc.deleted).map(|doc| doc.spec.clone());
        let service_spec = spec.as_ref().and_then(|spec| spec.services.get(&service));
        let tended = self.stewards.tended.get_mut(&app);
        let waiting = tended.filter(|tended| tended.settle_until.is_none()).and_then(|t| t.waiting.get_mut(&service));
        let (Some(waiting), Some(spec), Some(service_spec)) = (waiting, &spec, service_spec) else {
            return self.send(from, release);
        };
        // Whatever becomes of this offer: there is room again.
        waiting.again_ms = now;
        // Of a service on each machine, too, every machine is asked for its own.
        if service_spec.gang || service_spec.mode == Mode::Global || service_spec.revision() != revision {
            self.send(from, release);
        } else if let Some(id) = self.auction_of(&app, &service, revision) {
            // Bids are being asked for: this is one, and what is let go would be taken by what goes after it.
            self.bid_unasked(id, from, bid);
        } else {
            let mut slots = self.plan(&app, spec, &service).missing;
            slots.truncate(bid.count as usize);
            self.with_volumes(&app, spec, &service, &mut slots);
            match slots.is_empty() {
                true => self.send(from, release),
                false => self.give(from, bid.auction, bid.bid, &app, &service, service_spec, false, slots),
            }
        }
        self.look_at(app);
    }
}
