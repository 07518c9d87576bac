//! The steward at work: which apps are this peer's to look after, and what it does for them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand_chacha::rand_core::RngCore;

use super::Brain;
use super::machine::HOST_IMAGE;
use super::writer::Urgency;
use crate::event::Now;
use crate::ids::{AppId, BidId, ChangeId, ClaimId, PeerId, rendezvous};
use crate::ledger::Edit;
use crate::ledger::readings::{Pending, Slots, Stewardship};
use crate::ledger::record::Kind;
use crate::market::auction::{
    AWARD_RETRY_MS, Auction, BIDS_MS, Candidate, Outstanding, choose, decide, free_share, summary,
};
use crate::market::wire::{Award, Bid, Decline, NackReason, Release, Slot, Solicit, Verdict};
use crate::membership::{Loss, State};
use crate::model::{AppSpec, Executor, Outcome, ServiceSpec};
use crate::steward::reconcile::{Plan, Sight, reconcile};
use crate::wire::{Message, StopReason, encode};

/// A life younger than this stewards nothing while there are older ones, ms.
const MATURE_MS: u64 = 60_000;
/// A machine whose vitals have not come yet is looked at again after this, ms.
const UNHEARD_MS: u64 = 2_000;
/// Whoever becomes steward of an app that already has claims waits so long: longer than a
/// reservation lives, ms.
const SETTLE_MS: u64 = 4_000;
/// Every app is looked at this often in any case, ms.
const SWEEP_MS: u64 = 30_000;
/// What does not fit is tried again after this at the latest, ms.
const RETRY_MAX_MS: u64 = 10_000;
/// A machine that was asked to end a claim is asked again after this, ms.
const STOP_AGAIN_MS: u64 = 2_000;
/// Outcomes of one app are written at most this often, ms.
const OUTCOMES_MS: u64 = 1_000;
/// The most outcomes in one change.
const OUTCOMES_MAX: usize = 500;
/// A stewardship record is written at most this often, ms.
const RECORD_MS: u64 = 1_000;
/// The most slots in one auction.
const SLOTS_MAX: usize = 2_048;
/// An app with more claims than this is looked at only every [`LOOK_MS`].
const LARGE: usize = 200;
const LOOK_MS: u64 = 25;
/// Single runs are removed so long after they have finished, ms,
const SINGLE_RUN_MS: u64 = 3_600_000;
/// or when there are more finished ones than this.
const SINGLE_RUNS_MAX: usize = 1_000;
/// Vitals older than this make a machine the last choice, ms.
const STALE_MS: u64 = 60_000;

/// Everything that this peer does as a steward.
#[derive(Debug)]
pub(crate) struct Stewards {
    tended: BTreeMap<AppId, Tended>,
    auctions: BTreeMap<u64, Auction>,
    next_auction: u64,
    outstanding: BTreeMap<BidId, Outstanding>,
    /// Peers that may be stewards, and their places on the ring.
    eligible: Vec<(PeerId, u64)>,
    eligible_stale: bool,
    /// When a life matures next: monotonic, ms.
    eligible_until: u64,
    sweep_ms: u64,
    room_free: bool,
    /// Apps that came by anti-entropy this turn: their claims may still be on their way.
    old: BTreeSet<AppId>,
}

/// One app under this peer's care.
#[derive(Debug, Default)]
struct Tended {
    settle_until: Option<u64>,
    look_ms: Option<u64>,
    looked_ms: u64,
    /// What did not fit, by service.
    waiting: BTreeMap<String, Waiting>,
    stops: BTreeMap<ClaimId, u64>,
    outcomes_ms: u64,
    record: Option<Stewardship>,
    record_ms: u64,
    held: u32,
    overlaps: u32,
    /// A single run was seen to have finished: monotonic, ms.
    finished_ms: Option<u64>,
}

#[derive(Clone, Debug)]
struct Waiting {
    count: u32,
    tries: u32,
    again_ms: u64,
    /// Wall clock, ms.
    oldest: u64,
    reasons: Vec<String>,
}

impl Stewards {
    pub(super) fn new(now: Now) -> Self {
        Self {
            tended: BTreeMap::new(),
            auctions: BTreeMap::new(),
            next_auction: 0,
            outstanding: BTreeMap::new(),
            eligible: Vec::new(),
            eligible_stale: true,
            eligible_until: now.ms,
            sweep_ms: now.ms + SWEEP_MS,
            room_free: false,
            old: BTreeSet::new(),
        }
    }

    /// Machines came, went or changed.
    pub(super) fn members_changed(&mut self) {
        self.eligible_stale = true;
    }

    /// An app that came by anti-entropy: others may have placed it long ago.
    pub(super) fn not_new(&mut self, app: &AppId) {
        self.old.insert(app.clone());
    }

    /// What waits may fit now.
    pub(super) fn room_may_be_free(&mut self) {
        self.room_free = true;
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        let auctions = self.auctions.values().map(|auction| auction.deadline_ms);
        let awards = self.outstanding.values().filter(|out| out.claims.is_none()).map(|out| out.again_ms);
        let looks = self.tended.values().filter_map(|tended| tended.look_ms);
        let fixed = [self.sweep_ms, self.eligible_until];
        auctions.chain(awards).chain(looks).chain(fixed).min()
    }

    /// Replacements that the storm gate holds back, as this steward sees them.
    pub(crate) fn held(&self) -> u32 {
        self.tended.values().map(|tended| tended.held).sum()
    }
}

impl Brain {
    pub(super) fn steward_turn(&mut self) {
        if self.stewards.eligible_stale || self.stewards.eligible_until <= self.now.ms {
            self.find_eligible();
            let apps: Vec<AppId> = self.documents.keys().cloned().collect();
            for app in apps {
                self.settle_rank(&app);
            }
            // A machine that came, went or was given up changes what is to be done.
            for tended in self.stewards.tended.values_mut() {
                tended.look_ms = Some(self.now.ms);
            }
        }
        for app in std::mem::take(&mut self.touched) {
            if self.settle_rank(&app)
                && let Some(tended) = self.stewards.tended.get_mut(&app)
            {
                tended.look_ms = Some(self.now.ms);
            }
        }
        self.stewards.old.clear();
        self.decide_auctions();
        self.award_again();
        if std::mem::take(&mut self.stewards.room_free) {
            let now = self.now.ms;
            for tended in self.stewards.tended.values_mut().filter(|tended| !tended.waiting.is_empty()).take(16) {
                tended
                    .waiting
                    .values_mut()
                    .for_each(|waiting| waiting.again_ms = now.max(waiting.again_ms.min(now + 100)));
                tended.look_ms = Some(now);
            }
        }
        if self.stewards.sweep_ms <= self.now.ms {
            self.stewards.sweep_ms = self.now.ms + SWEEP_MS;
            for tended in self.stewards.tended.values_mut() {
                tended.look_ms = Some(self.now.ms);
            }
            self.remove_old_runs();
        }
        let now = self.now.ms;
        let due: Vec<AppId> = self
            .stewards
            .tended
            .iter()
            .filter(|(_, tended)| tended.look_ms.is_some_and(|look| look <= now))
            .map(|(app, _)| app.clone())
            .collect();
        for app in due {
            self.look(&app);
        }
    }

    /// Peers whose present life is a minute old; where there are none, all that live.
    fn find_eligible(&mut self) {
        let mut young_ms = u64::MAX;
        let mut mature = Vec::new();
        let mut all = Vec::new();
        for peer in self.members.live() {
            let Some(machine) = self.readings.machines.get(&peer) else { continue };
            if machine.draining {
                continue;
            }
            // By the machine's own clock, for ours may show anything: two peers have to agree on this.
            let at = match self.readings.vitals.get(&peer) {
                _ if peer == self.me => Some(self.now.wall),
                signed => signed.map(|signed| signed.vitals.at),
            };
            match at.map(|at| at.saturating_sub(machine.life_since)) {
                Some(age) if age >= MATURE_MS => mature.push((peer, peer.ring())),
                Some(age) => young_ms = young_ms.min(MATURE_MS - age),
                None => young_ms = young_ms.min(UNHEARD_MS),
            }
            all.push((peer, peer.ring()));
        }
        if all.is_empty() {
            all.extend(self.members.live().map(|peer| (peer, peer.ring())));
        }
        self.stewards.eligible = if mature.is_empty() { all } else { mature };
        self.stewards.eligible_stale = false;
        self.stewards.eligible_until = self.now.ms + young_ms.min(MATURE_MS);
    }

    /// The steward of an app: the heaviest of the eligible.
    pub(crate) fn steward_of(&self, app: &AppId) -> Option<PeerId> {
        let key = app.ring();
        self.stewards.eligible.iter().max_by_key(|(peer, ring)| (rendezvous(key, *ring), *peer)).map(|(peer, _)| *peer)
    }

    /// Takes up an app, or lets it go at once: whether it is this peer's.
    fn settle_rank(&mut self, app: &AppId) -> bool {
        if self.steward_of(app) != Some(self.me) || !self.documents.contains_key(app) {
            if self.stewards.tended.remove(app).is_some() {
                self.let_go(app);
            }
            return false;
        }
        if self.stewards.tended.contains_key(app) {
            return true;
        }
        let now = self.now.ms;
        let has_claims = self.readings.claims.contains_key(app) || self.stewards.old.contains(app);
        let mut tended = Tended { look_ms: Some(now), ..Tended::default() };
        if has_claims {
            tended.settle_until = Some(now + SETTLE_MS);
            let mut others: Vec<PeerId> = self.members.live().filter(|peer| *peer != self.me).collect();
            while others.len() > 2 {
                let at = (self.rng.next_u64() % others.len() as u64) as usize;
                others.swap_remove(at);
            }
            others.into_iter().for_each(|peer| self.spread.compare_with(peer));
        }
        tended.record = self.readings.stewardships.get(app).and_then(|all| all.get(&self.me)).cloned();
        self.stewards.tended.insert(app.clone(), tended);
        true
    }

    /// Another peer stewards the app now: its auctions end here, and reservations go back.
    fn let_go(&mut self, app: &AppId) {
        let doomed: Vec<u64> =
            self.stewards.auctions.iter().filter(|(_, auction)| auction.app == *app).map(|(id, _)| *id).collect();
        for id in doomed {
            let Some(auction) = self.stewards.auctions.remove(&id) else { continue };
            for (peer, bid) in auction.bids {
                self.send(peer, Message::Release(Release { auction: id, bid: bid.bid }));
            }
        }
        self.stewards.outstanding.retain(|_, out| out.app != *app);
    }

    /// Compares what one app wants with what runs, and acts on the difference.
    fn look(&mut self, app: &AppId) {
        let now = self.now;
        let Some(document) = self.documents.get(app) else { return };
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        tended.look_ms = None;
        if let Some(until) = tended.settle_until {
            if now.ms < until {
                tended.look_ms = Some(until);
                return;
            }
            tended.settle_until = None;
        }
        let size: usize = self.readings.claims.get(app).map_or(0, |services| services.values().map(Slots::len).sum());
        if size > LARGE && now.ms < tended.looked_ms + LOOK_MS {
            tended.look_ms = Some(tended.looked_ms + LOOK_MS);
            return;
        }
        tended.looked_ms = now.ms;
        let spec = if document.deleted { Arc::default() } else { document.spec.clone() };
        self.see_claims(app);
        let mut services: BTreeSet<String> = spec.services.keys().cloned().collect();
        services.extend(self.readings.claims.get(app).into_iter().flat_map(|held| held.keys().cloned()));
        let (mut held, mut overlaps) = (0, 0);
        let mut restarts = BTreeMap::new();
        for name in services {
            let plan = self.plan(app, &spec, &name);
            held += plan.held;
            overlaps += plan.overlaps;
            restarts.extend(plan.restarts.iter().map(|(slot, count)| (format!("{name}.{slot}"), *count)));
            self.carry_out(app, &spec, &name, plan);
        }
        self.tell_overlap(app, overlaps);
        if let Some(tended) = self.stewards.tended.get_mut(app) {
            tended.held = held;
        }
        self.write_stewardship(app, &spec, restarts);
    }

    fn plan(&self, app: &AppId, spec: &AppSpec, service: &str) -> Plan {
        static NONE: Slots = Slots::new();
        static NO_OUTCOMES: BTreeMap<String, Outcome> = BTreeMap::new();
        let claims = self.readings.slots(app, service).unwrap_or(&NONE);
        let outcomes = self.documents.get(app).and_then(|doc| doc.outcomes.get(service)).unwrap_or(&NO_OUTCOMES);
        let auctions = self.stewards.auctions.values().filter(|a| a.app == *app && a.service == service);
        let awards = self.stewards.outstanding.values().filter(|o| o.app == *app && o.service == service);
        let given = auctions
            .flat_map(|auction| auction.slots.iter())
            .chain(awards.flat_map(|out| out.award.slots.iter()))
            .map(|slot| slot.slot.clone())
            .collect();
        reconcile(self.now, spec.services.get(service), claims, outcomes, &given, self)
    }

    fn carry_out(&mut self, app: &AppId, spec: &AppSpec, service: &str, plan: Plan) {
        let now = self.now.ms;
        for (owner, claim, why) in plan.stop {
            self.ask_to_stop(app, owner, claim, why);
        }
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        let mut look = plan.look_ms;
        let mut look_by = |ms: u64| look = Some(look.map_or(ms, |held| held.min(ms)));
        let mut outcomes = plan.outcomes;
        if !outcomes.is_empty() && now < tended.outcomes_ms + OUTCOMES_MS {
            look_by(tended.outcomes_ms + OUTCOMES_MS);
            outcomes.clear();
        }
        let mut missing = plan.missing;
        let in_auction = self.stewards.auctions.values().any(|a| a.app == *app && a.service == service);
        match tended.waiting.get(service) {
            _ if missing.is_empty() && !in_auction => {
                tended.waiting.remove(service);
            }
            Some(waiting) if now < waiting.again_ms => {
                look_by(waiting.again_ms);
                missing.clear();
            }
            _ => {}
        }
        if let Some(ms) = look {
            tended.look_ms = Some(tended.look_ms.map_or(ms, |held| held.min(ms)));
        }
        if !outcomes.is_empty() {
            tended.outcomes_ms = now;
            self.write_outcomes(app, service, outcomes);
        }
        if let Some(wanted) = spec.services.get(service)
            && !missing.is_empty()
        {
            missing.truncate(SLOTS_MAX);
            self.call_for_bids(app, service, wanted, missing, spec.single_run);
        }
    }

    fn ask_to_stop(&mut self, app: &AppId, owner: PeerId, claim: ClaimId, why: StopReason) {
        let now = self.now.ms;
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        tended.stops.retain(|_, again| *again > now);
        let again = now + STOP_AGAIN_MS;
        tended.look_ms = Some(tended.look_ms.map_or(again, |held| held.min(again)));
        if tended.stops.contains_key(&claim) {
            return;
        }
        tended.stops.insert(claim, again);
        self.send(owner, Message::Stop { claim, app: app.clone(), why });
    }

    fn write_outcomes(&mut self, app: &AppId, service: &str, outcomes: Vec<Outcome>) {
        for some in outcomes.chunks(OUTCOMES_MAX) {
            for lost in some.iter().filter(|outcome| outcome.lost) {
                let machine = lost.machine.map(|peer| self.machine_name(&peer)).unwrap_or_default();
                let task = format!("{}.{service}.{}", app.name, lost.slot);
                self.note("lost", task, format!("{machine} was lost; the task may have run, and is not repeated"));
            }
            let batch = crate::ids::hex(&self.draw16()[..8]);
            let change = ChangeId(self.draw16());
            let edit = Edit::Outcomes { service: service.to_string(), batch, outcomes: some.to_vec() };
            self.edit(app, &edit, "steward", change, Urgency::Ordinary);
        }
    }

    fn tell_overlap(&mut self, app: &AppId, overlaps: u32) {
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        let before = std::mem::replace(&mut tended.overlaps, overlaps);
        if overlaps > before {
            self.note("overlap", app.name.clone(), format!("{overlaps} tasks run twice for the moment"));
        }
    }

    /// Calls for bids for slots of one service.
    fn call_for_bids(&mut self, app: &AppId, name: &str, service: &ServiceSpec, slots: Vec<Slot>, alone: bool) {
        let need = service.need();
        let image = self.readings.image_name(&service.image).unwrap_or(&service.image).to_string();
        let has_image = |peer: &PeerId| {
            service.image == HOST_IMAGE || self.readings.images.get(&image).is_some_and(|at| at.contains_key(peer))
        };
        let has = self.tasks_by_machine(app, name);
        let mut candidates = Vec::new();
        for peer in self.members.live() {
            let Some(machine) = self.readings.machines.get(&peer) else { continue };
            let runs = !matches!(machine.executor, Executor::None(_)) && !machine.draining;
            if !runs || self.members.state(&peer) != State::Alive {
                continue;
            }
            let used = self.readings.used(&peer);
            let vitals = self.readings.vitals.get(&peer);
            candidates.push(Candidate {
                peer,
                fits: machine.capacity.copies(&used, &need, slots.len() as u32),
                has: has.get(&peer).copied().unwrap_or(0),
                free: free_share(&machine.capacity, &used),
                image: has_image(&peer),
                stale: vitals.is_none_or(|signed| self.now.wall.saturating_sub(signed.vitals.at) > STALE_MS),
            });
        }
        let rng = &mut self.rng;
        let asked = choose(candidates, slots.len() as u32, || rng.next_u64());
        if asked.is_empty() {
            return self.wait_for_room(app, name, slots.len() as u32, vec!["no machine takes work".into()]);
        }
        if self.stewards.next_auction == 0 {
            self.stewards.next_auction = self.rng.next_u64() >> 16;
        }
        self.stewards.next_auction += 1;
        let id = self.stewards.next_auction;
        let solicit = Arc::new(Solicit {
            auction: id,
            app: app.clone(),
            service: name.to_string(),
            count: slots.len() as u32,
            need,
            priority: service.priority,
            image: service.image.clone(),
            deadline_ms: BIDS_MS,
        });
        for peer in &asked {
            self.send(*peer, Message::Solicit(solicit.clone()));
        }
        let auction = Auction {
            app: app.clone(),
            service: name.to_string(),
            revision: service.revision(),
            slots,
            asked: asked.into_iter().collect(),
            bids: BTreeMap::new(),
            declines: BTreeMap::new(),
            deadline_ms: self.now.ms + BIDS_MS,
            alone,
        };
        self.stewards.auctions.insert(id, auction);
    }

    /// How many tasks of a service each machine holds or is about to.
    fn tasks_by_machine(&self, app: &AppId, service: &str) -> BTreeMap<PeerId, u32> {
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

    pub(super) fn decline_came(&mut self, from: PeerId, decline: Decline) {
        if let Some(auction) = self.stewards.auctions.get_mut(&decline.auction)
            && auction.asked.contains(&from)
        {
            auction.declines.insert(from, decline.reason);
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

    fn decide_auctions(&mut self) {
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
        let Auction { app, service, revision, slots, bids, declines, .. } = auction;
        let wanted = self.documents.get(&app).filter(|doc| !doc.deleted).map(|doc| doc.spec.clone());
        let spec = wanted.as_ref().and_then(|spec| spec.services.get(&service)).filter(|s| s.revision() == revision);
        let has = self.tasks_by_machine(&app, &service);
        let awards = match spec {
            Some(_) => decide(&slots, &bids, |peer| has.get(peer).copied().unwrap_or(0)),
            None => BTreeMap::new(),
        };
        for (peer, bid) in bids.iter().filter(|(peer, _)| !awards.contains_key(peer)) {
            self.send(*peer, Message::Release(Release { auction: id, bid: bid.bid }));
        }
        let given: usize = awards.values().map(|(_, slots)| slots.len()).sum();
        if let Some(spec) = spec {
            for (machine, (bid, slots)) in awards {
                let award = Arc::new(self.award(id, bid, &app, &service, spec, slots));
                self.send(machine, Message::Award(award.clone()));
                let again_ms = self.now.ms + AWARD_RETRY_MS;
                let out =
                    Outstanding { app: app.clone(), service: service.clone(), machine, award, again_ms, claims: None };
                self.stewards.outstanding.insert(bid, out);
            }
        }
        if given < slots.len() && spec.is_some() {
            let mut reasons = summary(&declines);
            if reasons.is_empty() && given == 0 {
                reasons.push("no machine answered".into());
            }
            self.wait_for_room(&app, &service, (slots.len() - given) as u32, reasons);
        } else if let Some(tended) = self.stewards.tended.get_mut(&app) {
            tended.waiting.remove(&service);
        }
        self.touched.insert(app.clone());
        self.changed.insert(app);
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
        let holders = at.into_iter().flat_map(|at| at.keys());
        let image_at = holders.filter(|peer| self.members.state(peer) == State::Alive).copied().take(16).collect();
        Award {
            auction,
            bid,
            app: app.clone(),
            service: service.to_string(),
            revision: spec.revision(),
            slots,
            image: self.readings.image_name(&spec.image).unwrap_or(&spec.image).to_string(),
            image_at,
            command: spec.command.clone(),
            environment: spec.environment.clone(),
            ports: spec.ports.clone(),
            limits: spec.limits.clone(),
            grace_ms: spec.grace_ms(),
            priority: spec.priority,
            on_lost: spec.on_lost,
        }
    }

    /// What fits nowhere stays pending, and is tried again when room may be free.
    fn wait_for_room(&mut self, app: &AppId, service: &str, count: u32, reasons: Vec<String>) {
        let Now { ms, wall } = self.now;
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        let before = tended.waiting.get(service);
        let tries = before.map_or(0, |before| before.tries + 1);
        let again_ms = ms + 250u64.saturating_mul(1 << tries.min(8)).min(RETRY_MAX_MS);
        let oldest = before.map_or(wall, |before| before.oldest);
        tended.waiting.insert(service.to_string(), Waiting { count, tries, again_ms, oldest, reasons });
        tended.look_ms = Some(tended.look_ms.map_or(again_ms, |held| held.min(again_ms)));
    }

    /// The machine's last word on an award.
    pub(super) fn verdict_came(&mut self, from: PeerId, verdict: Verdict) {
        let Some(out) = self.stewards.outstanding.get_mut(&verdict.bid).filter(|out| out.machine == from) else {
            return;
        };
        let app = out.app.clone();
        match verdict.answer {
            Ok(claims) => out.claims = Some(claims),
            Err(NackReason::Expired | NackReason::TooMany | NackReason::NoPort | NackReason::Draining) => {
                self.stewards.outstanding.remove(&verdict.bid);
            }
        }
        self.touched.insert(app);
    }

    /// An award without an answer is sent again while its machine lives; a machine that is lost
    /// will not answer.
    fn award_again(&mut self) {
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

    fn is_lost(&self, machine: &PeerId) -> bool {
        let after = crate::steward::reconcile::SERVICE_LOST_AFTER_MS;
        matches!(self.members.loss(self.now, machine, after), Loss::Lost)
    }

    /// Awards whose claims are seen, or whose machine is lost, are no longer outstanding.
    fn see_claims(&mut self, app: &AppId) {
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

    /// What others should know of this peer's care for an app: what waits, and why.
    fn write_stewardship(&mut self, app: &AppId, spec: &AppSpec, restarts: BTreeMap<String, u32>) {
        let now = self.now.ms;
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        let pending: Vec<Pending> = tended
            .waiting
            .iter()
            .filter_map(|(service, waiting)| {
                let wanted = spec.services.get(service)?;
                Some(Pending {
                    service: service.clone(),
                    count: waiting.count,
                    need: wanted.need(),
                    priority: wanted.priority,
                    oldest: waiting.oldest,
                    reasons: waiting.reasons.clone(),
                })
            })
            .collect();
        let record = Stewardship {
            revisions: spec.services.iter().map(|(name, service)| (name.clone(), service.revision())).collect(),
            restarts,
            rollout: Vec::new(),
            pending,
        };
        // A single run that just runs needs no record of how it is cared for.
        let worth_it = !record.pending.is_empty() || !record.restarts.is_empty() || !spec.single_run;
        if tended.record.as_ref() == Some(&record) || (tended.record.is_none() && !worth_it) {
            return;
        }
        if now < tended.record_ms + RECORD_MS && tended.record_ms > 0 {
            let again = tended.record_ms + RECORD_MS;
            tended.look_ms = Some(tended.look_ms.map_or(again, |held| held.min(again)));
            return;
        }
        tended.record_ms = now;
        tended.record = Some(record.clone());
        let value = encode(&(app.clone(), record.clone()));
        self.readings.stewardships.entry(app.clone()).or_default().insert(self.me, record);
        self.changed.insert(app.clone());
        self.write(Kind::STEWARDSHIP, &app.to_string(), Some(value), Urgency::Ordinary);
    }

    /// Single runs that finished long ago, or are too many, end their generation.
    fn remove_old_runs(&mut self) {
        let mut finished: Vec<(u64, AppId)> = Vec::new();
        for app in self.stewards.tended.keys() {
            let Some(document) = self.documents.get(app).filter(|doc| doc.spec.single_run && !doc.deleted) else {
                continue;
            };
            let ended = |(name, service): (&String, &ServiceSpec)| {
                let slots = document.outcomes.get(name)?;
                (slots.len() >= service.replicas as usize)
                    .then(|| slots.values().filter_map(|outcome| outcome.ended_at).max().unwrap_or(0))
            };
            let ends: Option<Vec<u64>> = document.spec.services.iter().map(ended).collect();
            if let Some(last) = ends.and_then(|ends| ends.into_iter().max()) {
                finished.push((last, app.clone()));
            }
        }
        finished.sort_unstable();
        let surplus = finished.len().saturating_sub(SINGLE_RUNS_MAX);
        for (at, (_, app)) in finished.into_iter().enumerate() {
            // By this peer's own clock: that of the machine may be anything.
            let now = self.now.ms;
            let Some(tended) = self.stewards.tended.get_mut(&app) else { continue };
            let seen = *tended.finished_ms.get_or_insert(now);
            if at < surplus || now.saturating_sub(seen) > SINGLE_RUN_MS {
                let change = ChangeId(self.draw16());
                self.edit(&app, &Edit::Delete, "steward", change, Urgency::Ordinary);
            }
        }
    }
}

impl Sight for Brain {
    fn loss(&self, machine: &PeerId, lost_after_ms: u64) -> Loss {
        self.members.loss(self.now, machine, lost_after_ms)
    }

    fn draining(&self, machine: &PeerId) -> bool {
        self.readings.machines.get(machine).is_some_and(|machine| machine.draining)
    }
}
