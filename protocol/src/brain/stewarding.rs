//! The steward at work: which apps are this peer's to look after, and what it does for them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rand_chacha::rand_core::RngCore;

use super::Brain;
use super::agenda::Agenda;
use super::electing::{DOUBT_MS, Electorate};
use super::moving::Order;
use super::planning::Mind;
use super::writer::Urgency;
use crate::effect::Effect;
use crate::event::Now;
use crate::ids::{AppId, BidId, ClaimId, PeerId};
use crate::ledger::readings::{Slots, Stewardship};
use crate::ledger::record::{Kind, RecordKey};
use crate::market::auction::{Auction, Outstanding};
use crate::market::rank::Rank;
use crate::market::reasons::Answers;
use crate::market::wire::Release;
use crate::membership::Loss;
use crate::model::{AppSpec, Claim};
use crate::plant::Plant;
use crate::steward::reconcile::{Plan, Sight};
use crate::wire::{Message, StopReason, encode};

/// Whoever becomes steward of an app that others may have placed waits so long: longer than a
/// reservation lives, ms.
pub(super) const SETTLE_MS: u64 = 4_000;
/// Every app is looked at this often in any case, ms.
const SWEEP_MS: u64 = 30_000;
/// A machine that was asked to end a claim, or to start it, is asked again after this, ms.
const TELL_AGAIN_MS: u64 = 2_000;
/// The most slots in one auction.
const SLOTS_MAX: usize = 2_048;
/// An app with more claims and services than this is looked at only every [`LOOK_MS`].
const LARGE: usize = 200;
const LOOK_MS: u64 = 25;

/// Everything that this peer does as a steward.
#[derive(Debug)]
pub(crate) struct Stewards {
    pub(super) tended: BTreeMap<AppId, Tended>,
    pub(super) agenda: Agenda,
    pub(super) auctions: BTreeMap<u64, Auction>,
    pub(super) next_auction: u64,
    pub(super) outstanding: BTreeMap<BidId, Outstanding>,
    pub(super) electorate: Electorate,
    sweep_ms: u64,
    room_free: bool,
    /// Apps that came by anti-entropy this turn: their claims may still be on their way.
    old: BTreeSet<AppId>,
    /// Apps with a gang that is whole but for this machine's own part, which is not durable yet.
    unkept: BTreeSet<AppId>,
}

/// One app under this peer's care.
#[derive(Debug, Default)]
pub(super) struct Tended {
    pub(super) settle_until: Option<u64>,
    looked_ms: u64,
    /// Since when services waited under the stewards before this one: wall clock, ms.
    pub(super) waited: BTreeMap<String, u64>,
    /// What did not fit, by service.
    pub(super) waiting: BTreeMap<String, Waiting>,
    /// What the machines said in the last auction that left something of a service waiting.
    pub(super) answers: BTreeMap<String, Answers>,
    /// Tasks that are to be moved, one after the other.
    pub(super) orders: VecDeque<Order>,
    /// What was said of claims lately, and when it may be said again: monotonic, ms. `true`: that it may start.
    told: BTreeMap<(ClaimId, bool), u64>,
    pub(super) outcomes_ms: u64,
    pub(super) record: Option<Stewardship>,
    pub(super) record_ms: u64,
    held: u32,
    pub(super) overlaps: u32,
    /// What is kept in mind of each service.
    pub(super) minds: BTreeMap<String, Mind>,
    /// A single run was seen to have finished: monotonic, ms.
    pub(super) finished_ms: Option<u64>,
}

/// What of one service fits nowhere.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) count: u32,
    pub(crate) tries: u32,
    pub(crate) again_ms: u64,
    /// Its place among what waits.
    pub(crate) rank: Rank,
    pub(crate) reasons: Vec<String>,
}

impl Stewards {
    pub(super) fn new(now: Now) -> Self {
        Self {
            tended: BTreeMap::new(),
            agenda: Agenda::default(),
            auctions: BTreeMap::new(),
            next_auction: 0,
            outstanding: BTreeMap::new(),
            electorate: Electorate::new(now),
            sweep_ms: now.ms + SWEEP_MS,
            room_free: false,
            old: BTreeSet::new(),
            unkept: BTreeSet::new(),
        }
    }

    /// Begins with what another peer believes of who stewards what.
    pub(super) fn beside(&mut self, other: &Self) {
        self.electorate = other.electorate.clone();
    }

    pub(super) fn share(&mut self, other: &Self) {
        self.electorate.share(&other.electorate);
    }

    /// Machines came, went or changed.
    pub(super) fn members_changed(&mut self) {
        self.electorate.members_changed();
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
        let fixed = [self.sweep_ms, self.electorate.deadline()];
        auctions.chain(awards).chain(self.agenda.next()).chain(fixed).min()
    }

    /// All apps are looked at by then.
    fn look_at_all_by(&mut self, ms: u64) {
        self.tended.keys().for_each(|app| self.agenda.look_by(app, ms));
    }

    /// Replacements that the storm gate holds back, as this steward sees them.
    pub(crate) fn held(&self) -> u32 {
        self.tended.values().map(|tended| tended.held).sum()
    }
}

impl Brain {
    pub(super) fn steward_turn(&mut self) {
        if self.stewards.electorate.is_stale(self.now.ms) {
            if self.find_eligible() {
                let apps: Vec<AppId> =
                    self.documents.keys().filter(|app| !self.touched.contains(*app)).cloned().collect();
                for app in apps {
                    self.settle_rank(&app, true);
                }
            }
            // A machine that came, went or was given up changes what is to be done.
            self.stewards.look_at_all_by(self.now.ms);
        }
        let old = std::mem::take(&mut self.stewards.old);
        for app in std::mem::take(&mut self.touched) {
            if self.settle_rank(&app, old.contains(&app)) {
                self.stewards.agenda.look_by(&app, self.now.ms);
            }
        }
        self.decide_auctions();
        self.award_again();
        if std::mem::take(&mut self.stewards.room_free) {
            self.try_again_soon();
        }
        if self.stewards.sweep_ms <= self.now.ms {
            self.stewards.sweep_ms = self.now.ms + SWEEP_MS;
            self.stewards.look_at_all_by(self.now.ms);
            self.remove_old_runs();
            self.tidy_journal();
        }
        let mut due = self.stewards.agenda.take_due(self.now.ms);
        // What goes first asks first.
        due.sort_by_key(|app| Reverse(self.highest_priority(app)));
        due.iter().for_each(|app| self.look(app));
    }

    fn highest_priority(&self, app: &AppId) -> Option<i32> {
        self.documents.get(app)?.spec.services.values().map(|service| service.priority).max()
    }

    /// Room may be free: some of what waits for it need not wait out its time.
    fn try_again_soon(&mut self) {
        let now = self.now.ms;
        let waits = self.stewards.tended.iter_mut().filter_map(|(app, tended)| {
            let first = tended.waiting.values().map(|waiting| waiting.rank).min()?;
            Some((first, app, tended))
        });
        let mut waits: Vec<_> = waits.collect();
        waits.sort_by_key(|(rank, ..)| *rank);
        for (_, app, tended) in waits.into_iter().take(16) {
            tended.waiting.values_mut().for_each(|waiting| waiting.again_ms = now.max(waiting.again_ms.min(now + 100)));
            self.stewards.agenda.look_by(app, now);
        }
    }

    /// Takes up an app, or lets it go at once: whether it is this peer's. `old`: it is not new, so that others may
    /// have placed it, and what they did may still be on its way.
    fn settle_rank(&mut self, app: &AppId, old: bool) -> bool {
        if !self.is_steward_of(app) || !self.documents.contains_key(app) {
            if let Some(tended) = self.stewards.tended.remove(app) {
                self.let_go(app, tended);
            }
            return false;
        }
        if self.stewards.tended.contains_key(app) {
            return true;
        }
        let now = self.now.ms;
        let minds = self.take_over_minds(app);
        let mut tended = Tended::default();
        if old || self.readings.claims.contains_key(app) {
            tended.settle_until = Some(now + SETTLE_MS);
            let mut others: Vec<PeerId> = self.members.live().filter(|peer| *peer != self.me).collect();
            while others.len() > 2 {
                let at = (self.rng.next_u64() % others.len() as u64) as usize;
                others.swap_remove(at);
            }
            others.into_iter().for_each(|peer| self.spread.comparing.with(peer));
        } else if self.is_in_doubt(app) {
            tended.settle_until = Some(now + DOUBT_MS);
        }
        let records = self.readings.stewardships.get(app);
        tended.minds = minds;
        tended.record = records.and_then(|all| all.get(&self.me)).cloned();
        for pending in records.into_iter().flat_map(|all| all.values()).flat_map(|record| &record.pending) {
            let since = tended.waited.entry(pending.service.clone()).or_insert(pending.rank.since);
            *since = pending.rank.since.min(*since);
        }
        self.stewards.tended.insert(app.clone(), tended);
        self.stewards.agenda.look_by(app, now);
        true
    }

    /// Another peer stewards the app now: its auctions end here, and reservations go back.
    fn let_go(&mut self, app: &AppId, tended: Tended) {
        self.stewards.agenda.strike(app);
        if let Some(record) = tended.record.filter(|record| !record.pending.is_empty()) {
            // Nothing waits by this peer's word any more.
            let nothing = Stewardship { pending: Vec::new(), ..record };
            let value = encode(&(app.clone(), nothing));
            self.write(Kind::STEWARDSHIP, &app.to_string(), Some(value), Urgency::Ordinary);
        }
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
        if self.has(Plant::NeedMajority) && self.members.live_count() * 2 <= self.members.known_count() {
            return;
        }
        let Some(document) = self.documents.get(app) else { return };
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        if let Some(until) = tended.settle_until {
            if now.ms < until {
                self.stewards.agenda.look_by(app, until);
                return;
            }
            tended.settle_until = None;
        }
        let claims: usize = self.readings.claims.get(app).map_or(0, |held| held.values().map(Slots::len).sum());
        if claims + document.spec.services.len() > LARGE && now.ms < tended.looked_ms + LOOK_MS {
            self.stewards.agenda.look_by(app, tended.looked_ms + LOOK_MS);
            return;
        }
        tended.looked_ms = now.ms;
        tended.told.retain(|_, again| *again > now.ms);
        let spec = if document.deleted { Arc::default() } else { document.spec.clone() };
        self.see_claims(app);
        let mut services: BTreeSet<String> = spec.services.keys().cloned().collect();
        services.extend(self.readings.claims.get(app).into_iter().flat_map(|held| held.keys().cloned()));
        let (mut held, mut overlaps) = (0, 0);
        let mut restarts = BTreeMap::new();
        let given = self.given(app);
        let mut outcomes = BTreeMap::new();
        for name in services {
            self.heed_others(app, &name);
            let mut plan = self.plan_among(app, &spec, &name, given.get(&name).unwrap_or(&BTreeSet::new()));
            held += plan.held;
            overlaps += plan.overlaps;
            restarts.extend(plan.restarts.iter().map(|(slot, count)| (format!("{name}.{slot}"), *count)));
            self.keep_in_mind(app, &name, &mut plan);
            if let Some(revision) = plan.revert {
                self.revert(app, &name, revision);
            }
            let finished = std::mem::take(&mut plan.outcomes);
            if !finished.is_empty() {
                outcomes.insert(name.clone(), finished);
            }
            self.carry_out(app, &spec, &name, plan, given.contains_key(&name));
        }
        self.settle(app, outcomes);
        self.move_on(app, &spec);
        self.tell_overlap(app, overlaps);
        if let Some(tended) = self.stewards.tended.get_mut(app) {
            tended.held = held;
            tended.answers.retain(|service, _| tended.waiting.contains_key(service));
        }
        self.write_stewardship(app, &spec, restarts);
    }

    fn carry_out(&mut self, app: &AppId, spec: &AppSpec, service: &str, plan: Plan, in_auction: bool) {
        let now = self.now.ms;
        for (owner, claim, why) in plan.stop {
            if why == StopReason::Duplicate && self.has(Plant::KeepDuplicates) {
                continue;
            }
            self.tell(app, owner, claim, Message::Stop { claim, app: app.clone(), why });
        }
        self.let_gang_go(app, &plan.go);
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        let agenda = &mut self.stewards.agenda;
        plan.look_ms.into_iter().for_each(|ms| agenda.look_by(app, ms));
        let mut missing = plan.missing;
        let (revision, mut lost) = plan.former;
        match tended.waiting.get(service) {
            _ if missing.is_empty() && lost.is_empty() && !in_auction => {
                tended.waiting.remove(service);
                tended.waited.remove(service);
            }
            Some(waiting) if now < waiting.again_ms => {
                agenda.look_by(app, waiting.again_ms);
                missing.clear();
                lost.clear();
            }
            _ => {}
        }
        if !lost.is_empty() {
            lost.truncate(SLOTS_MAX);
            match self.former(app, service, revision) {
                Some(former) => self.call_for_bids(app, service, &former, lost, false, false),
                // It is not known any more.
                None => missing.append(&mut lost),
            }
        }
        if let Some(wanted) = spec.services.get(service)
            && !missing.is_empty()
        {
            missing.truncate(SLOTS_MAX);
            self.with_volumes(app, spec, service, &mut missing);
            if missing.is_empty() {
                // Whoever makes its volume brings this app up again.
                return;
            }
            self.call_for_bids(app, service, wanted, missing, plan.together, spec.single_run);
        }
    }

    /// Tells the claims of a gang that it is whole. This machine's own are read before they are durable: until they are,
    /// another may end.
    fn let_gang_go(&mut self, app: &AppId, gang: &[(PeerId, ClaimId)]) {
        let mut own = gang.iter().filter(|(owner, _)| *owner == self.me);
        let is_kept =
            |id: &ClaimId| self.ledger.get(&self.me, &RecordKey { kind: Kind::CLAIM, id: id.hex().into() }).is_some();
        if !own.all(|(_, id)| is_kept(id)) {
            self.stewards.unkept.insert(app.clone());
            return;
        }
        for (owner, claim) in gang {
            self.tell(app, *owner, *claim, Message::Go { claim: *claim, app: app.clone() });
        }
    }

    /// Own records are durable: gangs that waited for that are looked at again.
    pub(super) fn look_at_gangs(&mut self) {
        for app in std::mem::take(&mut self.stewards.unkept) {
            self.stewards.agenda.look_by(&app, self.now.ms);
        }
    }

    /// Says something about a claim to its machine, and again while it seems not to have been heard.
    fn tell(&mut self, app: &AppId, owner: PeerId, claim: ClaimId, message: Message) {
        let now = self.now.ms;
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        let again = now + TELL_AGAIN_MS;
        self.stewards.agenda.look_by(app, again);
        let key = (claim, matches!(message, Message::Go { .. }));
        if tended.told.get(&key).is_some_and(|again| *again > now) {
            return;
        }
        tended.told.insert(key, again);
        // Of what was seen to be accepted this machine's own part may not be durable yet.
        self.hold(Effect::Send { to: owner, message });
    }
}

impl Sight for Brain {
    fn loss(&self, machine: &PeerId, lost_after_ms: u64) -> Loss {
        self.members.loss(self.now, machine, lost_after_ms)
    }

    fn gives_way(&self, claim: &Claim) -> bool {
        self.is_moving(&claim.task.app, &claim.id)
    }

    fn astray(&self, machine: &PeerId, claim: &Claim) -> bool {
        self.is_astray(machine, claim)
    }

    fn draining(&self, machine: &PeerId) -> bool {
        self.readings.machines.get(machine).is_some_and(|machine| machine.draining)
    }
}
