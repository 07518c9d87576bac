//! What follows from the news: who is suspect, who is down, and what the gate makes of it.

use std::collections::BTreeSet;

use super::gate::Sight;
use super::peer::Peer;
use super::{Membership, Order, State};
use crate::event::Now;
use crate::ids::PeerId;

impl Membership {
    /// How long the accused have to refute.
    pub(super) fn refute_ms(&self) -> u64 {
        self.tuning.refute_ms + self.known as u64 / 10
    }

    /// Somebody accused this peer, which is alive to read it.
    pub(super) fn refute(&mut self, life: u64) {
        let above = life.saturating_add(1);
        if life >= self.peers[self.me as usize].life && above > self.refuted {
            self.refuted = above;
            self.orders.push(Order::Refute { life: above });
        }
    }

    /// A peer shows a life, higher than before perhaps: what was held against the lives before is void.
    pub(super) fn raise(&mut self, now: Now, at: u32, life: u64) {
        let refute_ms = self.refute_ms();
        let peer = &mut self.peers[at as usize];
        if life > peer.life {
            peer.life = life;
            // It lives, however the news came.
            peer.heard_ms = now.ms;
            if peer.mine.is_some() && peer.refuted_soon(now.ms, refute_ms) {
                peer.doubted(now.ms);
                self.health.worsen(now.ms);
            }
            self.touched.insert(at);
        }
    }

    /// Judges everybody of whom there is news or whose time is over.
    pub(super) fn judge(&mut self, now: Now) {
        while let Some(alarm) = self.alarms.first().copied().filter(|alarm| alarm.0 <= now.ms) {
            self.alarms.remove(&alarm);
            self.touched.insert(alarm.1);
        }
        let refute_ms = self.refute_ms();
        let mut lost = Vec::new();
        if !self.touched.is_empty() {
            self.accuse_ms = 0;
        }
        for at in std::mem::take(&mut self.touched) {
            let peer = &mut self.peers[at as usize];
            if peer.mine.is_some_and(|life| life < peer.life || peer.left_ms.is_some()) {
                peer.mine = None;
                self.orders.push(Order::Withdraw { subject: peer.id });
            }
            if !peer.known {
                continue;
            }
            let (state, again) = if at == self.me { peer.judged_self() } else { peer.judged(now.ms, refute_ms) };
            self.alarms.extend(again.map(|ms| (ms, at)));
            if state == peer.state {
                continue;
            }
            let (was_live, before) = (peer.is_live(), peer.state);
            peer.state = state;
            peer.since_ms = now.ms;
            self.orders.push(Order::Changed { peer: peer.id, state });
            if was_live && state == State::Down && !peer.draining {
                lost.push(peer.id);
            }
            if state == State::Down {
                self.down.insert(peer.id, peer.accused.map_or(peer.life, |accused| accused.life));
                self.remember_stale = true;
            } else if before == State::Down {
                self.down.remove(&peer.id);
                self.remember_stale = true;
            }
            let is_live = peer.is_live();
            if was_live != is_live {
                self.live = if is_live { self.live + 1 } else { self.live - 1 };
                self.epoch += 1;
                self.gate_stale = true;
                self.draw.present(at, is_live);
            }
            if state == State::Left {
                self.known -= 1;
                self.gate_stale = true;
            }
        }
        if !lost.is_empty() {
            let before = || self.peers.iter().filter(|peer| peer.is_live()).map(|peer| peer.id);
            self.gate.lose(now.ms, || before().chain(lost.iter().copied()).collect());
        }
    }

    /// Has the storm gate look again, where anything has changed for it.
    pub(super) fn review(&mut self, now: Now) {
        if !self.gate_stale && self.gate.deadline().is_none_or(|ms| now.ms < ms) {
            return;
        }
        self.gate_stale = false;
        let reference_before = self.gate.reference().map_or(0, BTreeSet::len);
        let row = |id: &PeerId| self.index.get(id).map(|at| &self.peers[*at as usize]);
        // One that drains and is there bears witness like any other; that it goes is no loss.
        let planned = |peer: &Peer| peer.left_ms.is_some() || peer.draining && !peer.is_live();
        self.gate.plan(|id| row(id).is_some_and(planned));
        let lately = now.ms.saturating_sub(self.tuning.loss_ms);
        let mut sight = Sight::default();
        for (nth, id) in self.gate.reference().into_iter().flatten().enumerate() {
            let peer = row(id);
            let seen = peer.is_some_and(Peer::is_live);
            sight.of += 1;
            sight.sees += u32::from(seen);
            sight.lowest |= nth == 0 && seen;
            sight.lost_lately += u32::from(peer.is_some_and(|p| p.state == State::Down && p.since_ms >= lately));
        }
        self.gate.review(now.ms, sight);
        self.remember_stale |= self.gate.reference().map_or(0, BTreeSet::len) != reference_before;
        let held = self.gate.held(now.ms);
        if held != self.held {
            self.held = held;
            self.orders.push(Order::Held(held));
        }
    }
}
