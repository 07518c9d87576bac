//! What only the leader does, and what changes when another leads.

use super::Replica;
use crate::kv::{Op, Refusal};
use crate::pending::{Forwarded, Origin, Wait};
use crate::plant::Plant;
use crate::voters;
use crate::wire::Ask;

/// The most leases that are ended with one tick.
const ENDS_MAX: usize = 256;

impl Replica {
    /// Does what only a leader can, or says that this replica is none.
    pub(super) fn lead(&mut self, origin: Origin, ask: Ask) {
        if !self.consensus.is_leader() {
            return self.answer(origin, Err(Refusal::NotLeader));
        }
        let until_ms = self.now_ms + super::ANSWER_MS_MAX;
        match ask {
            Ask::Write(op) => self.pending.batch.push((origin, op)),
            Ask::Renew(lease) if self.plant == Some(Plant::BlindRenewal) => self.renew(origin, lease),
            Ask::Renew(lease) => self.pending.fresh.push((Wait::Renew { origin, lease }, until_ms)),
            Ask::Look(lease) => self.pending.fresh.push((Wait::Look { origin, lease }, until_ms)),
        }
    }

    /// Notices who leads now.
    pub(super) fn follow_leader(&mut self) {
        let leads = self.consensus.is_leader().then(|| self.consensus.term());
        if leads != self.leads {
            if self.leads.is_some() {
                self.stop_leading();
            }
            self.leads = leads;
            if leads.is_some() {
                let now_ms = self.now_ms;
                self.lessor.begin(&self.store, now_ms);
                self.halve_leases();
            }
        }
        let leader = self.consensus.leader();
        self.gone &= leader == 0;
        if leader != 0 && leader != self.leader {
            self.leader = leader;
            self.ask_the_new_one(leader);
        }
    }

    /// Entries that this replica proposed may be another's to commit, or nobody's.
    fn stop_leading(&mut self) {
        self.lessor.end();
        for proposed in std::mem::take(&mut self.pending.proposed).into_values() {
            for origin in proposed.origins {
                self.answer(origin, Err(Refusal::Unknown));
            }
        }
        let rounds = std::mem::take(&mut self.pending.reads).into_values().flat_map(|reads| reads.waits);
        let waits: Vec<(Wait, u64)> = rounds.chain(std::mem::take(&mut self.pending.fresh)).collect();
        for (wait, until_ms) in waits {
            match wait {
                Wait::Read { .. } => self.pending.fresh.push((wait, until_ms)),
                Wait::Renew { origin, lease } => self.elsewhere(origin, Ask::Renew(lease), until_ms),
                Wait::Look { origin, lease } => self.elsewhere(origin, Ask::Look(lease), until_ms),
            }
        }
    }

    /// Another has to do it.
    fn elsewhere(&mut self, origin: Origin, ask: Ask, until_ms: u64) {
        match origin {
            Origin::Here(ticket) => self.pending.leaderless.push_back((ticket, ask, until_ms)),
            origin => self.answer(origin, Err(Refusal::NotLeader)),
        }
    }

    /// What waited for a leader goes to it. What the one before was asked to write it may have written, or not.
    fn ask_the_new_one(&mut self, leader: u64) {
        for (id, forwarded) in std::mem::take(&mut self.pending.forwarded) {
            let Forwarded { ticket, ask, to, until_ms } = forwarded;
            match ask {
                ask if to == leader => {
                    self.pending.forwarded.insert(id, Forwarded { ticket, ask, to, until_ms });
                }
                Ask::Write(_) => self.answer(Origin::Here(ticket), Err(Refusal::Unknown)),
                ask => self.pending.leaderless.push_back((ticket, ask, until_ms)),
            }
        }
        self.ask_leader();
    }

    /// Whoever waits for a leader is brought to it, if there is one.
    fn ask_leader(&mut self) {
        if self.consensus.leader() == 0 {
            return;
        }
        for (ticket, ask, until_ms) in std::mem::take(&mut self.pending.leaderless) {
            self.route(ticket, ask, until_ms);
        }
    }

    /// With every tick: ends leases whose time is over, and sees to it that the right ones vote.
    pub(super) fn lead_on(&mut self) {
        self.ask_leader();
        if self.leads.is_none() {
            return;
        }
        for id in self.lessor.take_over(self.now_ms, ENDS_MAX) {
            self.pending.batch.push((Origin::Lessor(id), Op::Revoke { id, expired: true }));
        }
        if self.candidates.is_empty() {
            return;
        }
        let group = self.consensus.group();
        let wanted = voters::wanted(&group.voters, &self.candidates);
        let learners = voters::learner(&wanted, &self.candidates).into_iter().collect();
        self.consensus.change(&wanted, &learners);
    }

    /// Refuses what has waited for too long.
    pub(super) fn give_up(&mut self) {
        // Whoever belongs to the group no more waits in vain.
        let now_ms = if self.gone { u64::MAX } else { self.now_ms };
        let mut late = Vec::new();
        self.pending.leaderless.retain(|(ticket, _, until_ms)| {
            let waits = *until_ms > now_ms;
            late.extend((!waits).then_some((Origin::Here(*ticket), Refusal::NoLeader)));
            waits
        });
        self.pending.forwarded.retain(|_, forwarded| {
            let waits = forwarded.until_ms > now_ms;
            late.extend((!waits).then_some((Origin::Here(forwarded.ticket), Refusal::Unknown)));
            waits
        });
        self.pending.proposed.retain(|_, proposed| {
            let waits = proposed.until_ms > now_ms;
            if !waits {
                late.extend(proposed.origins.iter().map(|origin| (*origin, Refusal::Unknown)));
            }
            waits
        });
        let rounds = self.pending.reads.values_mut().map(|reads| &mut reads.waits);
        for waits in rounds.chain([&mut self.pending.fresh]) {
            waits.retain(|(wait, until_ms)| {
                let waits = *until_ms > now_ms;
                late.extend((!waits).then(|| (wait.origin(), Refusal::NoLeader)));
                waits
            });
        }
        self.pending.reads.retain(|_, reads| !reads.waits.is_empty());
        for (origin, refusal) in late {
            self.answer(origin, Err(refusal));
        }
    }

    pub(super) fn start_lease(&mut self, id: i64, ttl_seconds: i64) -> bool {
        let now_ms = self.now_ms;
        let renewed = self.lessor.start(id, ttl_seconds, now_ms);
        self.halve_leases();
        renewed
    }

    /// Only for [`Plant::DoubleGrant`].
    fn halve_leases(&mut self) {
        if self.plant == Some(Plant::DoubleGrant) {
            self.lessor.halve(self.now_ms);
        }
    }
}
