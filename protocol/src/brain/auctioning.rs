//! The steward's side of the market: whom it asks, whom it awards, and what of it is still under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand_chacha::rand_core::RngCore;

use super::machine::HOST_IMAGE;
use super::planning::revision_of;
use super::stewarding::Waiting;
use super::{Brain, vitals};
use crate::ids::{AppId, BidId, PeerId};
use crate::market::auction::{
    AWARD_RETRY_MS, Auction, BIDS_MS, Candidate, Outstanding, choose, cost_by, decide, summary, wanted, wanted_for_all,
};
use crate::market::crowd::Crowd;
use crate::market::rank::Rank;
use crate::market::reasons::PassedOver;
use crate::market::wire::{Award, Bid, Decline, DeclineReason, Release, Slot, Solicit, Verdict};
use crate::membership::{Loss, State};
use crate::model::{ClaimState, Mode, Other, ServiceSpec};
use crate::wire::Message;

/// What does not fit is tried again after this at the latest, ms.
const RETRY_MAX_MS: u64 = 10_000;
/// Vitals that came longer ago than this, and than is usual three times over, make a machine the last choice, ms.
const STALE_MS: u64 = 60_000;

impl Brain {
    /// Calls for bids for slots of one service.
    pub(super) fn call_for_bids(
        &mut self,
        app: &AppId,
        name: &str,
        service: &ServiceSpec,
        slots: Vec<Slot>,
        together: bool,
        alone: bool,
    ) {
        if service.mode == Mode::Global {
            return self.ask_each(app, name, service, slots);
        }
        let need = service.need();
        let mix = self.readings.mix();
        let image = self.readings.image_name(&service.image).unwrap_or(&service.image).to_string();
        let has_image = |peer: &PeerId| {
            service.image == HOST_IMAGE || self.readings.images.get(&image).is_some_and(|at| at.contains_key(peer))
        };
        let has = self.tasks_by_machine(app, name);
        let crowd = self.crowd_of(app, name, service, &has);
        let rank = self.rank_of(app, name, service.priority, &slots);
        let stale_ms = STALE_MS.max(3 * vitals::every_ms(self.members.live_count()));
        let mut candidates = Vec::new();
        let mut unmet: Option<String> = None;
        for peer in self.members.live() {
            let Some(machine) = self.readings.machines.get(&peer) else { continue };
            match self.passed_over(app, &peer, machine, service, has.get(&peer).copied().unwrap_or(0)) {
                None => {}
                Some(PassedOver::Unfit(DeclineReason::Constraint(constraint))) => {
                    unmet = Some(constraint);
                    continue;
                }
                Some(PassedOver::Unfit(crowded @ (DeclineReason::Crowded(_) | DeclineReason::Volume { .. }))) => {
                    unmet = Some(crowded.to_string());
                    continue;
                }
                Some(_) => continue,
            }
            let vitals = self.readings.vitals.get(&peer);
            candidates.push(Candidate {
                crowd: crowd.at(&peer, &machine.labels),
                image: has_image(&peer),
                stale: vitals.is_none_or(|heard| self.now.ms.saturating_sub(heard.read_ms) > stale_ms),
                ..Candidate::of(peer, &machine.capacity, self.readings.used(&peer), &need, slots.len() as u32)
            });
        }
        let cost = cost_by(&self.readings, &need, &mix);
        let together = service.gang && together;
        let wanted = match together {
            true => wanted_for_all(&candidates, slots.len() as u32),
            false => wanted(slots.len() as u32),
        };
        let rng = &mut self.rng;
        let mut asked = choose(candidates, wanted, cost, || rng.next_u64());
        if asked.is_empty() {
            let reason = match unmet {
                Some(constraint) => format!("no machine will do: {constraint}"),
                None => "no machine takes work".into(),
            };
            return self.wait_for_room(app, name, slots.len() as u32, rank, vec![reason]);
        }
        let next = asked.split_off(wanted.min(asked.len()));
        let id = self.next_auction();
        let solicit = self.solicit_for(id, app, name, service, slots.len() as u32);
        let solicit = Arc::new(Solicit { rank, gang: together, ..solicit });
        for peer in &asked {
            self.send(*peer, Message::Solicit(solicit.clone()));
        }
        let revision = service.revision();
        let is_wanted = self.documents.get(app).is_some_and(|doc| revision_of(doc, name, service) == revision);
        let former = (!is_wanted).then(|| Arc::new(service.clone()));
        let auction = Auction {
            app: app.clone(),
            service: name.to_string(),
            revision,
            former,
            slots,
            solicit,
            wanted,
            asked: asked.into_iter().collect(),
            next: next.into(),
            bids: BTreeMap::new(),
            declines: BTreeMap::new(),
            deadline_ms: self.now.ms + BIDS_MS,
            alone,
            moves: false,
        };
        self.stewards.auctions.insert(id, auction);
    }

    pub(super) fn next_auction(&mut self) -> u64 {
        if self.stewards.next_auction == 0 {
            self.stewards.next_auction = self.rng.next_u64() >> 16;
        }
        self.stewards.next_auction += 1;
        self.stewards.next_auction
    }

    /// A call for bids for so many tasks of a service, as it stands.
    pub(super) fn solicit_for(&self, auction: u64, app: &AppId, name: &str, spec: &ServiceSpec, count: u32) -> Solicit {
        Solicit {
            auction,
            app: app.clone(),
            service: name.to_string(),
            count,
            need: spec.need(),
            priority: spec.priority,
            rank: Rank::of(spec.priority, self.now.wall, self.now.wall),
            image: spec.image.clone(),
            asks: spec.container.asks(),
            constraints: spec.constraints.clone(),
            max_per_machine: spec.placement.max_per_machine,
            apart_from: self.apart_from(app, name, spec),
            volumes: spec.container.mounts.names(app).collect(),
            gang: false,
            stop_when_isolated_ms: spec.stop_when_isolated_ms,
            deadline_ms: BIDS_MS,
        }
    }

    /// The services whose tasks a service must be apart from: those that it names, and those of its app that name it.
    fn apart_from(&self, app: &AppId, name: &str, service: &ServiceSpec) -> Vec<Other> {
        let named = service.placement.apart_from.iter().filter_map(|other| Other::read(&app.name, other));
        let own = Other { app: app.name.clone(), service: name.to_string() };
        let mut all: BTreeSet<Other> = named.collect();
        for (other, spec) in self.documents.get(app).into_iter().flat_map(|doc| &doc.spec.services) {
            let names_it = |text: &String| Other::read(&app.name, text).is_some_and(|read| read == own);
            if spec.placement.apart_from.iter().any(names_it) {
                all.insert(Other { app: app.name.clone(), service: other.clone() });
            }
        }
        // To be apart from its own kind is to be one on a machine, which has a word of its own.
        all.into_iter().filter(|other| *other != own).collect()
    }

    /// The place of these slots among what waits. What had to leave its room keeps the age that it had.
    fn rank_of(&self, app: &AppId, service: &str, priority: i32, slots: &[Slot]) -> Rank {
        let wall = self.now.wall;
        let tended = self.stewards.tended.get(app);
        let waiting = tended.and_then(|tended| tended.waiting.get(service));
        let waited = tended.and_then(|tended| tended.waited.get(service)).copied();
        let held = self.readings.slots(app, service);
        let left = slots.iter().filter_map(|slot| {
            let last = held?.get(&slot.slot)?.iter().max_by_key(|entry| entry.claim.attempt)?;
            (last.claim.state == ClaimState::Preempted).then_some(last.claim.accepted_at)
        });
        let since = waiting
            .map(|waiting| waiting.rank.since)
            .into_iter()
            .chain(waited)
            .chain(left)
            .min()
            .unwrap_or(wall)
            .min(wall);
        Rank::of(priority, since, wall)
    }

    fn labels(&self, peer: &PeerId) -> Option<&BTreeMap<String, String>> {
        self.readings.machines.get(peer).map(|machine| &machine.labels)
    }

    /// Where a service's tasks are. A machine that could not start one counts as if it had it: another is tried first.
    fn crowd_of(&self, app: &AppId, name: &str, spec: &ServiceSpec, has: &BTreeMap<PeerId, u32>) -> Crowd {
        let mut crowd = Crowd::of(&spec.placement, has, |peer| self.labels(peer));
        for entry in self.readings.slots(app, name).into_iter().flat_map(|slots| slots.values()).flatten() {
            if entry.claim.state == ClaimState::Failed {
                crowd.shun(&entry.owner);
            }
        }
        crowd
    }

    /// How many tasks of a service each machine holds or is about to.
    pub(super) fn tasks_by_machine(&self, app: &AppId, service: &str) -> BTreeMap<PeerId, u32> {
        let mut has: BTreeMap<PeerId, u32> = BTreeMap::new();
        for entry in self.readings.slots(app, service).into_iter().flat_map(|slots| slots.values()).flatten() {
            if !entry.claim.state.has_ended() {
                *has.entry(entry.owner).or_default() += 1;
            }
        }
        for out in self.stewards.outstanding.values().filter(|out| out.app == *app && out.service == service) {
            *has.entry(out.machine).or_default() += out.award.slots.len() as u32;
        }
        has
    }

    pub(super) fn bid_came(&mut self, from: PeerId, bid: Bid) {
        let id = bid.auction;
        match self.stewards.auctions.get_mut(&id).filter(|auction| auction.asked.contains(&from)) {
            Some(auction) => {
                auction.bids.insert(from, bid);
                self.close_early(id);
            }
            // Too late, or of an auction before a restart: the room is not kept waiting.
            None if !self.stewards.outstanding.contains_key(&bid.bid) => {
                self.send(from, Message::Release(Release { auction: id, bid: bid.bid }));
            }
            None => {}
        }
    }

    /// The auction that is under way for a service, if there is one.
    pub(super) fn auction_of(&self, app: &AppId, service: &str, revision: u64) -> Option<u64> {
        let is_it = |auction: &Auction| {
            auction.app == *app && auction.service == service && auction.revision == revision && !auction.moves
        };
        self.stewards.auctions.iter().find(|(_, auction)| is_it(auction)).map(|(id, _)| *id)
    }

    /// A machine offers room while bids are being asked for: that is a bid like any other.
    pub(super) fn bid_unasked(&mut self, id: u64, from: PeerId, bid: Bid) {
        let Some(auction) = self.stewards.auctions.get_mut(&id) else { return };
        if auction.bids.contains_key(&from) {
            return self.send(from, Message::Release(Release { auction: bid.auction, bid: bid.bid }));
        }
        auction.asked.insert(from);
        auction.declines.remove(&from);
        auction.bids.insert(from, bid);
        self.close_early(id);
    }

    pub(super) fn decline_came(&mut self, from: PeerId, decline: Decline) {
        if let Some(auction) = self.stewards.auctions.get_mut(&decline.auction)
            && auction.asked.contains(&from)
        {
            auction.declines.insert(from, decline.reason);
            // What is too little time for an answer is not asked for.
            let left_ms = auction.deadline_ms.saturating_sub(self.now.ms);
            if left_ms >= BIDS_MS / 4
                && let Some(instead) = auction.instead()
            {
                let solicit = Solicit { deadline_ms: left_ms, ..Solicit::clone(&auction.solicit) };
                self.send(instead, Message::Solicit(Arc::new(solicit)));
            }
            self.close_early(decline.auction);
        }
    }

    /// Everybody has answered, or enough have: the decision need not wait.
    fn close_early(&mut self, id: u64) {
        if let Some(auction) = self.stewards.auctions.get_mut(&id)
            && auction.is_ripe()
        {
            auction.deadline_ms = self.now.ms;
        }
    }

    pub(super) fn decide_auctions(&mut self) {
        let now = self.now.ms;
        let due: Vec<u64> = self
            .stewards
            .auctions
            .iter()
            .filter(|(_, auction)| auction.deadline_ms <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            if let Some(auction) = self.stewards.auctions.remove(&id) {
                self.decide(id, auction);
            }
        }
    }

    fn decide(&mut self, id: u64, auction: Auction) {
        let offered: u64 = auction.bids.values().map(|bid| u64::from(bid.count)).sum();
        if offered < auction.slots.len() as u64 && !auction.moves {
            self.keep_answers(&auction);
        }
        let Auction { app, service, revision, former, slots, bids, declines, solicit, moves, .. } = auction;
        let wanted = self.documents.get(&app).filter(|doc| !doc.deleted).map(|doc| doc.spec.clone());
        let now = wanted.as_ref().and_then(|spec| spec.services.get(&service));
        let spec = now.and_then(|now| former.as_deref().or(Some(now).filter(|now| now.revision() == revision)));
        let has = self.tasks_by_machine(&app, &service);
        let mut awards = match spec {
            Some(spec) => {
                let crowd = self.crowd_of(&app, &service, spec, &has);
                decide(&slots, &bids, crowd, |peer| self.labels(peer))
            }
            None => BTreeMap::new(),
        };
        // Of a gang all, or none: what some would hold, another gang may need.
        if solicit.gang && awards.values().map(|(_, slots)| slots.len()).sum::<usize>() < slots.len() {
            awards.clear();
        }
        for (peer, bid) in bids.iter().filter(|(peer, _)| !awards.contains_key(peer)) {
            self.send(*peer, Message::Release(Release { auction: id, bid: bid.bid }));
        }
        let given: usize = awards.values().map(|(_, slots)| slots.len()).sum();
        if let Some(spec) = spec {
            for (machine, (bid, slots)) in awards {
                self.give(machine, id, bid, &app, &service, spec, solicit.gang, slots);
            }
        }
        if given < slots.len() && spec.is_some() && !moves {
            let mut reasons = summary(&declines);
            if reasons.is_empty() && given == 0 {
                reasons.push("no machine answered".into());
            }
            let rank = self.rank_of(&app, &service, solicit.priority, &slots);
            self.wait_for_room(&app, &service, (slots.len() - given) as u32, rank, reasons);
        } else if let Some(tended) = self.stewards.tended.get_mut(&app).filter(|_| !moves) {
            tended.waiting.remove(&service);
        }
        self.touched.insert(app.clone());
        self.changed.insert(app);
    }

    /// Awards slots to a machine, and keeps in mind that it has.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn give(
        &mut self,
        machine: PeerId,
        auction: u64,
        bid: BidId,
        app: &AppId,
        service: &str,
        spec: &ServiceSpec,
        gang: bool,
        slots: Vec<Slot>,
    ) {
        let award = Arc::new(Award { gang, ..self.award(auction, bid, app, service, spec, slots) });
        self.send(machine, Message::Award(award.clone()));
        let again_ms = self.now.ms + AWARD_RETRY_MS;
        let out = Outstanding { app: app.clone(), service: service.into(), machine, award, again_ms, claims: None };
        self.stewards.outstanding.insert(bid, out);
    }

    fn award(
        &self,
        auction: u64,
        bid: BidId,
        app: &AppId,
        service: &str,
        spec: &ServiceSpec,
        slots: Vec<Slot>,
    ) -> Award {
        let at = self.readings.image_name(&spec.image).and_then(|name| self.readings.images.get(name));
        let is_it = |digest: &String| spec.image_digest.as_ref().is_none_or(|wanted| wanted == digest);
        let alive = at.into_iter().flatten().filter(|(peer, _)| self.members.state(peer) == State::Alive);
        // A machine at which the name means something newer by now may well have kept what it meant before.
        let (sure, perhaps): (Vec<_>, Vec<_>) = alive.partition(|(_, image)| is_it(&image.digest));
        let image_at = sure.into_iter().chain(perhaps).map(|(peer, _)| *peer).take(16).collect();
        Award {
            auction,
            bid,
            app: app.clone(),
            service: service.to_string(),
            revision: spec.revision(),
            slots,
            image: self.readings.image_name(&spec.image).unwrap_or(&spec.image).to_string(),
            image_digest: spec.image_digest.clone(),
            image_at,
            command: spec.command.clone(),
            environment: spec.environment.clone(),
            ports: spec.ports.clone(),
            limits: spec.limits.clone(),
            container: spec.container.clone(),
            grace_ms: spec.grace_ms(),
            priority: spec.priority,
            on_lost: spec.on_lost,
            gang: false,
            stop_when_isolated_ms: spec.stop_when_isolated_ms,
            network_mode: spec.network_mode,
            drain_ms: spec.drain_ms(),
            count: spec.run_size(),
            deadline_ms: spec.batch.deadline_ms,
            guard: spec.guard(),
        }
    }

    /// What fits nowhere stays pending, and is tried again when room may be free.
    fn wait_for_room(&mut self, app: &AppId, service: &str, count: u32, rank: Rank, reasons: Vec<String>) {
        let ms = self.now.ms;
        let chance = self.rng.next_u64();
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        let before = tended.waiting.get(service);
        let tries = before.map_or(0, |before| before.tries + 1);
        let most_ms = 250u64.saturating_mul(1 << tries.min(8)).min(RETRY_MAX_MS);
        // Two that ask at the same time and take each other's room would do so for ever.
        let again_ms = ms + most_ms / 2 + chance % (most_ms / 2 + 1);
        tended.waiting.insert(service.to_string(), Waiting { count, tries, again_ms, rank, reasons });
        self.stewards.agenda.look_by(app, again_ms);
    }

    /// The machine's last word on an award.
    pub(super) fn verdict_came(&mut self, from: PeerId, verdict: Verdict) {
        let Some(out) = self.stewards.outstanding.get_mut(&verdict.bid).filter(|out| out.machine == from) else {
            return;
        };
        let app = out.app.clone();
        match verdict.answer {
            Ok(claims) => out.claims = Some(claims),
            Err(_) => {
                self.stewards.outstanding.remove(&verdict.bid);
            }
        }
        self.touched.insert(app);
    }

    /// An award without an answer is sent again while its machine lives; a machine that is lost
    /// will not answer.
    pub(super) fn award_again(&mut self) {
        let now = self.now.ms;
        let due: Vec<BidId> = self
            .stewards
            .outstanding
            .iter()
            .filter(|(_, out)| out.claims.is_none() && out.again_ms <= now)
            .map(|(bid, _)| *bid)
            .collect();
        for bid in due {
            let Some(out) = self.stewards.outstanding.get_mut(&bid) else { continue };
            out.again_ms = now + AWARD_RETRY_MS;
            let (machine, award, app) = (out.machine, out.award.clone(), out.app.clone());
            if self.is_lost(&machine) {
                self.stewards.outstanding.remove(&bid);
                self.touched.insert(app);
            } else {
                self.send(machine, Message::Award(award));
            }
        }
    }

    pub(super) fn is_lost(&self, machine: &PeerId) -> bool {
        let after = crate::model::app::SERVICE_LOST_AFTER_MS;
        matches!(self.members.loss(self.now, machine, after), Loss::Lost)
    }

    /// Awards whose claims are seen, or whose machine is lost, are no longer outstanding.
    pub(super) fn see_claims(&mut self, app: &AppId) {
        let seen = |out: &Outstanding| {
            let claims = out.claims.as_ref();
            claims.is_some_and(|claims| claims.iter().all(|(_, id)| self.readings.find(&out.machine, id).is_some()))
        };
        let done: Vec<BidId> = self
            .stewards
            .outstanding
            .iter()
            .filter(|(_, out)| out.app == *app && (seen(out) || self.is_lost(&out.machine)))
            .map(|(bid, _)| *bid)
            .collect();
        for bid in done {
            self.stewards.outstanding.remove(&bid);
        }
    }
}
