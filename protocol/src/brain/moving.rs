//! Moving a task that runs: its replacement starts on the machine that was named, and only when that runs does
//! the old one end. Never fewer run than are wanted, and where the replacement finds no room or does not start, all
//! stays as it was.
//!
//! An order lives in the memory of the app's steward alone. With it two claims of the task are as it should be, and the
//! older gives way; without it (the steward died, or the order was given up) the older stays, as of any duplicates.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Brain;
use crate::event::Relocation;
use crate::ids::{AppId, ClaimId, PeerId};
use crate::market::auction::{Auction, BIDS_MS};
use crate::market::wire::{Slot, Solicit};
use crate::model::{AppSpec, ClaimState, Machine, ServiceSpec};
use crate::wire::Message;

/// The most orders for one app that wait for their turn.
const ORDERS_MAX: usize = 128;
/// A replacement that does not run by then is given up, ms: its image may have to be fetched.
const STARTS_MS_MAX: u64 = 120_000;

/// A task on its way.
#[derive(Clone, Debug)]
pub(super) struct Order {
    claim: ClaimId,
    to: PeerId,
    /// Since it is this one's turn: the machine was asked, and it is given up at this time. Monotonic, ms.
    until_ms: Option<u64>,
}

impl Brain {
    /// A person wants tasks moved: each app's steward hears of its own.
    pub(super) fn relocate(&mut self, all: Vec<Relocation>) {
        for Relocation { app, claim, to } in all {
            if let Some(steward) = self.steward_of(&app) {
                self.send(steward, Message::Move { app, claim, to });
            }
        }
    }

    pub(super) fn move_asked(&mut self, app: AppId, claim: ClaimId, to: PeerId) {
        let Some(tended) = self.stewards.tended.get_mut(&app) else { return };
        if tended.orders.len() < ORDERS_MAX && !tended.orders.iter().any(|order| order.claim == claim) {
            tended.orders.push_back(Order { claim, to, until_ms: None });
            self.touched.insert(app);
        }
    }

    /// Whether a claim is to end once another of its task runs.
    pub(super) fn is_moving(&self, app: &AppId, claim: &ClaimId) -> bool {
        let orders = self.stewards.tended.get(app).map(|tended| &tended.orders);
        orders.and_then(|orders| orders.front()).is_some_and(|order| order.claim == *claim)
    }

    /// Brings the first order of an app on: one task moves at a time.
    pub(super) fn move_on(&mut self, app: &AppId, spec: &AppSpec) {
        let now = self.now.ms;
        while let Some(order) = self.stewards.tended.get(app).and_then(|tended| tended.orders.front()).cloned() {
            match self.stand(app, &order) {
                Stand::Waits if order.until_ms.is_none_or(|until| now < until) => {
                    order.until_ms.into_iter().for_each(|until| self.stewards.agenda.look_by(app, until));
                    return;
                }
                Stand::Stays { service, slot } if order.until_ms.is_none() => {
                    let until = now + STARTS_MS_MAX;
                    if self.ask_one(app, spec, &service, slot, order.to) {
                        if let Some(first) = self.stewards.tended.get_mut(app).and_then(|t| t.orders.front_mut()) {
                            first.until_ms = Some(until);
                        }
                        return self.stewards.agenda.look_by(app, until);
                    }
                }
                // The machine had no room after all, the replacement did not start, or the old task is gone.
                Stand::Waits | Stand::Stays { .. } | Stand::Gone => {}
            }
            if let Some(tended) = self.stewards.tended.get_mut(app) {
                tended.orders.pop_front();
                self.stewards.agenda.look_by(app, now);
            }
        }
    }

    fn stand(&self, app: &AppId, order: &Order) -> Stand {
        let claims = self.readings.claims.get(app).into_iter().flat_map(|services| services.values());
        let mut slots = claims.flat_map(|slots| slots.values());
        let Some(entries) = slots.find(|entries| entries.iter().any(|entry| entry.claim.id == order.claim)) else {
            return Stand::Gone;
        };
        let old = entries.iter().find(|entry| entry.claim.id == order.claim && !entry.claim.state.has_ended());
        let Some(old) = old else { return Stand::Gone };
        let task = &old.claim.task;
        let begun = entries.iter().any(|one| one.claim.id != order.claim && !one.claim.state.has_ended());
        let asked = self.stewards.auctions.values().any(|auction| {
            auction.app == *app && auction.service == task.service && auction.slots.iter().any(|s| s.slot == task.slot)
        });
        let awarded = self.stewards.outstanding.values().any(|out| {
            out.app == *app && out.service == task.service && out.award.slots.iter().any(|s| s.slot == task.slot)
        });
        if begun || asked || awarded || old.claim.state != ClaimState::Running {
            return Stand::Waits;
        }
        let attempt = entries.iter().map(|entry| entry.claim.attempt).max().unwrap_or(0).saturating_add(1);
        Stand::Stays {
            service: task.service.clone(),
            slot: Slot { slot: task.slot.clone(), attempt, of: old.claim.of },
        }
    }

    /// Calls for a bid of one machine; `false` where it would not be asked.
    fn ask_one(&mut self, app: &AppId, spec: &AppSpec, name: &str, slot: Slot, to: PeerId) -> bool {
        let Some(service) = spec.services.get(name) else { return false };
        let has = self.tasks_by_machine(app, name).get(&to).copied().unwrap_or(0);
        let fit = |machine: &Arc<Machine>| self.passed_over(app, &to, machine, service, has).is_none();
        if !self.readings.machines.get(&to).is_some_and(fit) {
            return false;
        }
        // Nobody is ended for a move.
        self.ask_alone(app, name, service, slot, to, true);
        true
    }

    /// Calls for the bids of machines each of which is to have a task of its own.
    pub(super) fn ask_each(&mut self, app: &AppId, name: &str, service: &ServiceSpec, slots: Vec<Slot>) {
        let machines = self.machine_slots(app, service);
        for slot in slots {
            if let Some(to) = machines.get(&slot.slot) {
                self.ask_alone(app, name, service, slot, *to, false);
            }
        }
    }

    fn ask_alone(&mut self, app: &AppId, name: &str, service: &ServiceSpec, slot: Slot, to: PeerId, moves: bool) {
        let id = self.next_auction();
        let asked = self.solicit_for(id, app, name, service, 1);
        let priority = if moves { i32::MIN } else { asked.priority };
        let solicit = Arc::new(Solicit { priority, ..asked });
        self.send(to, Message::Solicit(solicit.clone()));
        let auction = Auction {
            app: app.clone(),
            service: name.to_string(),
            revision: service.revision(),
            former: None,
            slots: vec![slot],
            solicit,
            wanted: 1,
            asked: [to].into(),
            next: Default::default(),
            bids: BTreeMap::new(),
            declines: BTreeMap::new(),
            deadline_ms: self.now.ms + BIDS_MS,
            alone: true,
            moves,
        };
        self.stewards.auctions.insert(id, auction);
    }
}

/// How an order stands.
enum Stand {
    /// The task runs where it ran, and nobody was asked.
    Stays { service: String, slot: Slot },
    /// Something is under way.
    Waits,
    /// The old claim has ended.
    Gone,
}
