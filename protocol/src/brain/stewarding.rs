//! The steward at work: which apps are this peer's to look after, and what it does for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use rand_chacha::rand_core::RngCore;

use super::Brain;
use super::agenda::Agenda;
use super::moving::Order;
use crate::effect::Effect;
use crate::event::Now;
use crate::ids::{AppId, BidId, ClaimId, PeerId, rendezvous};
use crate::ledger::readings::{Slots, Stewardship};
use crate::market::auction::{Auction, Outstanding};
use crate::market::rank::Rank;
use crate::market::reasons::Answers;
use crate::market::wire::Release;
use crate::membership::Loss;
use crate::model::{AppSpec, Claim, Outcome};
use crate::plant::Plant;
use crate::steward::reconcile::{Plan, Sight, reconcile};
use crate::wire::{Message, StopReason};

/// A life younger than this stewards nothing while there are older ones, ms.
const MATURE_MS: u64 = 60_000;
/// A machine whose vitals have not come yet is looked at again after this, ms.
const UNHEARD_MS: u64 = 2_000;
/// Whoever becomes steward of an app that others may have placed waits so long: longer than a
/// reservation lives, ms.
const SETTLE_MS: u64 = 4_000;
/// For so long after a change of who may be a steward others may still believe what was true before it; who would be
/// the steward only since then waits so long before it places a new app, ms.
const DOUBT_MS: u64 = 1_000;
/// The most earlier beliefs that are kept.
const FORMER_MAX: usize = 8;
/// Every app is looked at this often in any case, ms.
const SWEEP_MS: u64 = 30_000;
/// A machine that was asked to end a claim, or to start it, is asked again after this, ms.
const TELL_AGAIN_MS: u64 = 2_000;
/// Outcomes of one app are written at most this often, ms.
const OUTCOMES_MS: u64 = 1_000;
/// The most slots in one auction.
const SLOTS_MAX: usize = 2_048;
/// An app with more claims than this is looked at only every [`LOOK_MS`].
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
    /// Peers that may be stewards, and their places on the ring.
    eligible: Vec<(PeerId, u64)>,
    /// The same as it was before, each with the time until which others may still believe it: monotonic, ms.
    former: Vec<(u64, Vec<(PeerId, u64)>)>,
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
pub(super) struct Tended {
    pub(super) settle_until: Option<u64>,
    looked_ms: u64,
    /// What did not fit, by service.
    pub(super) waiting: BTreeMap<String, Waiting>,
    /// What the machines said in the last auction that left something of a service waiting.
    pub(super) answers: BTreeMap<String, Answers>,
    /// Tasks that are to be moved, one after the other.
    pub(super) orders: VecDeque<Order>,
    /// What was said of claims lately, and when it may be said again: monotonic, ms. `true`: that it may start.
    told: BTreeMap<(ClaimId, bool), u64>,
    outcomes_ms: u64,
    pub(super) record: Option<Stewardship>,
    pub(super) record_ms: u64,
    held: u32,
    pub(super) overlaps: u32,
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
            eligible: Vec::new(),
            former: Vec::new(),
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
        let fixed = [self.sweep_ms, self.eligible_until];
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
        if self.stewards.eligible_stale || self.stewards.eligible_until <= self.now.ms {
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
        }
        for app in self.stewards.agenda.take_due(self.now.ms) {
            self.look(&app);
        }
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

    /// Peers whose present life is a minute old; where there are none, all that live. Whether they are others now.
    fn find_eligible(&mut self) -> bool {
        let mut young_ms = u64::MAX;
        let mut mature = Vec::new();
        let mut all = Vec::new();
        for peer in self.members.live() {
            let Some(machine) = self.readings.machines.get(&peer) else { continue };
            // Who has said goodbye answers nothing until it is back.
            if machine.draining || machine.restarting_until.is_some() {
                continue;
            }
            // By the machine's own clock, for ours may show anything: two peers have to agree on this. Before
            // its vitals have come ours has to do, or whoever has just started would hold itself for the only
            // steward; and then another look is due.
            let heard = self.readings.vitals.get(&peer).filter(|_| peer != self.me);
            let wall = heard.map_or(self.now.wall, |heard| heard.wall(self.now.ms));
            if heard.is_none() && peer != self.me {
                young_ms = young_ms.min(UNHEARD_MS);
            }
            let age = wall.saturating_sub(machine.life_since);
            if age >= MATURE_MS {
                mature.push((peer, peer.ring()));
            } else {
                young_ms = young_ms.min(MATURE_MS - age);
            }
            all.push((peer, peer.ring()));
        }
        if all.is_empty() {
            all.extend(self.members.live().map(|peer| (peer, peer.ring())));
        }
        let eligible = if mature.is_empty() { all } else { mature };
        let now = self.now.ms;
        self.stewards.former.retain(|(until_ms, _)| *until_ms > now);
        let changed = eligible != self.stewards.eligible;
        if changed {
            let before = std::mem::replace(&mut self.stewards.eligible, eligible);
            self.stewards.former.truncate(FORMER_MAX - 1);
            self.stewards.former.insert(0, (now + DOUBT_MS, before));
        }
        self.stewards.eligible_stale = false;
        self.stewards.eligible_until = self.now.ms + young_ms.min(MATURE_MS);
        changed
    }

    /// The steward of an app: the heaviest of the eligible.
    pub(crate) fn steward_of(&self, app: &AppId) -> Option<PeerId> {
        heaviest(&self.stewards.eligible, app)
    }

    /// Whether others may hold somebody else for the app's steward, for they learn a little sooner or later than this
    /// peer who may be one. A peer that has just started knows of nobody, and there may be many.
    fn is_in_doubt(&self, app: &AppId) -> bool {
        let now = self.now.ms;
        let former = self.stewards.former.iter().filter(|(until_ms, _)| *until_ms > now);
        former.map(|(_, eligible)| heaviest(eligible, app)).any(|steward| steward != Some(self.me))
    }

    /// Takes up an app, or lets it go at once: whether it is this peer's. `old`: it is not new, so that others may
    /// have placed it, and what they did may still be on its way.
    fn settle_rank(&mut self, app: &AppId, old: bool) -> bool {
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
        tended.record = self.readings.stewardships.get(app).and_then(|all| all.get(&self.me)).cloned();
        self.stewards.tended.insert(app.clone(), tended);
        self.stewards.agenda.look_by(app, now);
        true
    }

    /// Another peer stewards the app now: its auctions end here, and reservations go back.
    fn let_go(&mut self, app: &AppId) {
        self.stewards.agenda.strike(app);
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
        if let Some(until) = tended.settle_until {
            if now.ms < until {
                self.stewards.agenda.look_by(app, until);
                return;
            }
            tended.settle_until = None;
        }
        let size: usize = self.readings.claims.get(app).map_or(0, |services| services.values().map(Slots::len).sum());
        if size > LARGE && now.ms < tended.looked_ms + LOOK_MS {
            self.stewards.agenda.look_by(app, tended.looked_ms + LOOK_MS);
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
        self.move_on(app, &spec);
        self.tell_overlap(app, overlaps);
        if let Some(tended) = self.stewards.tended.get_mut(app) {
            tended.held = held;
            tended.answers.retain(|service, _| tended.waiting.contains_key(service));
        }
        self.write_stewardship(app, &spec, restarts);
    }

    pub(super) fn plan(&self, app: &AppId, spec: &AppSpec, service: &str) -> Plan {
        static NONE: Slots = Slots::new();
        static NO_OUTCOMES: BTreeMap<String, Outcome> = BTreeMap::new();
        let claims = self.readings.slots(app, service).unwrap_or(&NONE);
        let document = self.documents.get(app).filter(|_| !self.has(Plant::ForgetFinished));
        let outcomes = document.and_then(|doc| doc.outcomes.get(service)).unwrap_or(&NO_OUTCOMES);
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
            if why == StopReason::Duplicate && self.has(Plant::KeepDuplicates) {
                continue;
            }
            self.tell(app, owner, claim, Message::Stop { claim, app: app.clone(), why });
        }
        for (owner, claim) in plan.go {
            self.tell(app, owner, claim, Message::Go { claim, app: app.clone() });
        }
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        let agenda = &mut self.stewards.agenda;
        plan.look_ms.into_iter().for_each(|ms| agenda.look_by(app, ms));
        let mut outcomes = plan.outcomes;
        if !outcomes.is_empty() && now < tended.outcomes_ms + OUTCOMES_MS {
            agenda.look_by(app, tended.outcomes_ms + OUTCOMES_MS);
            outcomes.clear();
        }
        let mut missing = plan.missing;
        let in_auction = self.stewards.auctions.values().any(|a| a.app == *app && a.service == service);
        match tended.waiting.get(service) {
            _ if missing.is_empty() && !in_auction => {
                tended.waiting.remove(service);
            }
            Some(waiting) if now < waiting.again_ms => {
                agenda.look_by(app, waiting.again_ms);
                missing.clear();
            }
            _ => {}
        }
        if !outcomes.is_empty() {
            tended.outcomes_ms = now;
            self.write_outcomes(app, service, outcomes);
        }
        if let Some(wanted) = spec.services.get(service)
            && !missing.is_empty()
        {
            missing.truncate(SLOTS_MAX);
            self.call_for_bids(app, service, wanted, missing, plan.together, spec.single_run);
        }
    }

    /// Says something about a claim to its machine, and again while it seems not to have been heard.
    fn tell(&mut self, app: &AppId, owner: PeerId, claim: ClaimId, message: Message) {
        let now = self.now.ms;
        let Some(tended) = self.stewards.tended.get_mut(app) else { return };
        tended.told.retain(|_, again| *again > now);
        let again = now + TELL_AGAIN_MS;
        self.stewards.agenda.look_by(app, again);
        let key = (claim, matches!(message, Message::Go { .. }));
        if tended.told.contains_key(&key) {
            return;
        }
        tended.told.insert(key, again);
        // Of what was seen to be accepted this machine's own part may not be durable yet.
        self.hold(Effect::Send { to: owner, message });
    }
}

/// Rank 0 of rendezvous hashing (Thaler and Ravishankar, 1998).
fn heaviest(eligible: &[(PeerId, u64)], app: &AppId) -> Option<PeerId> {
    let key = app.ring();
    eligible.iter().max_by_key(|(peer, ring)| (rendezvous(key, *ring), *peer)).map(|(peer, _)| *peer)
}

impl Sight for Brain {
    fn loss(&self, machine: &PeerId, lost_after_ms: u64) -> Loss {
        self.members.loss(self.now, machine, lost_after_ms)
    }

    fn gives_way(&self, claim: &Claim) -> bool {
        self.is_moving(&claim.task.app, &claim.id)
    }

    fn draining(&self, machine: &PeerId) -> bool {
        self.readings.machines.get(machine).is_some_and(|machine| machine.draining)
    }
}
