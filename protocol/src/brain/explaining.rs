//! What a steward can tell of its own decisions: whom it passes over, what those said whom it asked, and
//! what it waits for.

use std::collections::BTreeMap;

use super::Brain;
use super::stewarding::Waiting;
use crate::ids::{AppId, PeerId};
use crate::market::auction::Auction;
use crate::market::constraint;
use crate::market::reasons::{Answers, PassedOver};
use crate::market::wire::DeclineReason;
use crate::membership::State;
use crate::model::container::unallowed;
use crate::model::{AppSpec, Executor, Machine, ServiceSpec};
use crate::steward::reconcile::Plan;

/// What a peer is at with one service.
#[derive(Debug)]
pub(crate) struct Efforts<'a> {
    /// What it would do now; of whoever is not the steward: what it would do in the steward's place.
    pub plan: Plan,
    /// Until when it waits to hear what already runs: monotonic, ms.
    pub settle_ms: Option<u64>,
    /// Slots that bids are awaited for, each with the time of the decision: monotonic, ms.
    pub in_auction: BTreeMap<&'a str, u64>,
    /// Machines asked and answers heard in auctions under way.
    pub asked: (usize, usize),
    /// Slots that a machine was chosen for whose word is awaited.
    pub awarded: BTreeMap<&'a str, PeerId>,
    pub waiting: Option<&'a Waiting>,
    pub answers: Option<&'a Answers>,
    /// Tasks of the service by machine.
    pub has: BTreeMap<PeerId, u32>,
}

impl Brain {
    /// Why a machine that has so many tasks of a service is not asked to bid for more; `None`: it may be asked.
    pub(crate) fn passed_over(
        &self,
        app: &AppId,
        peer: &PeerId,
        machine: &Machine,
        service: &ServiceSpec,
        has: u32,
    ) -> Option<PassedOver> {
        match self.members.state(peer) {
            State::Alive => {}
            State::Suspect => return Some(PassedOver::Suspect),
            State::Down | State::Left => return Some(PassedOver::Down),
        }
        if let Executor::None(reason) = &machine.executor {
            return Some(PassedOver::Unfit(DeclineReason::NoExecutor(reason.clone())));
        }
        if machine.draining {
            return Some(PassedOver::Unfit(DeclineReason::Draining));
        }
        if machine.restarting_until.is_some() {
            return Some(PassedOver::Restarting);
        }
        if let Some(unmet) = constraint::unmet(&service.constraints, &machine.name, &machine.labels) {
            return Some(PassedOver::Unfit(DeclineReason::Constraint(unmet.to_string())));
        }
        if let Some(ask) = unallowed(&service.container.asks(), &machine.allows) {
            return Some(PassedOver::Unfit(DeclineReason::Forbidden(ask.into())));
        }
        if let Some(reason) = self.astray(peer, service.container.mounts.names(app)) {
            return Some(PassedOver::Unfit(reason));
        }
        let most = service.placement.max_per_machine;
        (most > 0 && has >= most).then_some(PassedOver::Unfit(DeclineReason::Crowded(most)))
    }

    /// An auction left tasks without a place: what the machines said is kept until the next one.
    pub(super) fn keep_answers(&mut self, auction: &Auction) {
        if let Some(tended) = self.stewards.tended.get_mut(&auction.app) {
            tended.answers.insert(auction.service.clone(), Answers::of(auction));
        }
    }

    /// What this peer is at with one service.
    pub(crate) fn efforts<'a>(&'a self, app: &AppId, spec: &AppSpec, service: &str) -> Efforts<'a> {
        let tended = self.stewards.tended.get(app);
        let mut efforts = Efforts {
            plan: self.plan(app, spec, service),
            settle_ms: tended.and_then(|tended| tended.settle_until),
            in_auction: BTreeMap::new(),
            asked: (0, 0),
            awarded: BTreeMap::new(),
            waiting: tended.and_then(|tended| tended.waiting.get(service)),
            answers: tended.and_then(|tended| tended.answers.get(service)),
            has: self.tasks_by_machine(app, service),
        };
        for auction in self.stewards.auctions.values().filter(|one| one.app == *app && one.service == service) {
            efforts.in_auction.extend(auction.slots.iter().map(|slot| (slot.slot.as_str(), auction.deadline_ms)));
            efforts.asked.0 += auction.asked.len();
            efforts.asked.1 += auction.bids.len() + auction.declines.len();
        }
        for out in self.stewards.outstanding.values().filter(|out| out.app == *app && out.service == service) {
            efforts.awarded.extend(out.award.slots.iter().map(|slot| (slot.slot.as_str(), out.machine)));
        }
        efforts
    }
}
