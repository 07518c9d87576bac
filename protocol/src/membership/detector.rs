//! When silence is an accusation, and when it is rather this peer's own doing.

use super::{Membership, Order, State};
use crate::event::Now;
use crate::membership::peer::Accusation;

/// The most that patience is ever multiplied by.
const MULTIPLIER_MAX: u64 = 8;
/// The multiplier falls by one each time this has passed without a refutation, ms.
const RECOVERY_MS: u64 = 10_000;

/// A peer that is down and linked has so long to refute what others wrote, ms.
const REMIND_MS: u64 = 10_000;

/// How far this peer trusts its own ears: 1 is well, 8 is as bad as it gets (Lifeguard).
#[derive(Debug)]
pub(super) struct Health {
    multiplier: u64,
    changed_ms: u64,
}

impl Health {
    pub fn new(now_ms: u64) -> Self {
        Self { multiplier: 1, changed_ms: now_ms }
    }

    /// What this peer held of another was wrong, or it was paused.
    pub fn worsen(&mut self, now_ms: u64) {
        self.multiplier = MULTIPLIER_MAX.min(self.multiplier + 1);
        self.changed_ms = now_ms;
    }

    /// Time heals; whether it has now.
    fn recover(&mut self, now_ms: u64) -> bool {
        let steps = now_ms.saturating_sub(self.changed_ms) / RECOVERY_MS;
        if steps > 0 {
            self.multiplier = self.multiplier.saturating_sub(steps).max(1);
            self.changed_ms += steps * RECOVERY_MS;
        }
        steps > 0
    }
}

impl Membership {
    /// Every call comes through here: a peer that notices that it was not called for longer than it
    /// asked for was paused, and what it missed is still in the sockets. Everybody gets a fresh
    /// grace, and the accused their full time to refute.
    pub(super) fn arrive(&mut self, now: Now) {
        let gap = now.ms.saturating_sub(self.last_ms);
        self.last_ms = now.ms.max(self.last_ms);
        if self.health.recover(now.ms) {
            self.accuse_ms = 0;
        }
        if gap <= 2 * self.tuning.heartbeat_ms {
            return;
        }
        self.woke_ms = now.ms;
        self.accuse_ms = 0;
        self.health.worsen(now.ms);
        self.gate.slept(gap);
        self.gate_stale = true;
        self.touched.extend(self.alarms.iter().map(|alarm| alarm.1));
        for at in &self.touched {
            if let Some(accused) = &mut self.peers[*at as usize].accused {
                accused.seen_ms = now.ms;
            }
        }
    }

    /// When this peer accuses another if it hears nothing; `None`: it is accused already.
    pub(super) fn due(&self, at: u32, watched_since: u64) -> Option<u64> {
        let peer = &self.peers[at as usize];
        if peer.state != State::Alive || peer.standing().is_some() {
            return None;
        }
        let multiplier = MULTIPLIER_MAX.min(self.health.multiplier * peer.doubt());
        let patience = self.tuning.heartbeat_ms * self.tuning.misses * multiplier;
        let silent_since = watched_since.max(peer.heard_ms).max(self.woke_ms);
        Some(peer.excused_until().max(silent_since + patience))
    }

    /// Accuses those watched that were silent for too long.
    pub(super) fn accuse(&mut self, now: Now) {
        debug_assert!(!self.watched.contains_key(&self.me));
        if now.ms < self.accuse_ms {
            return;
        }
        self.accuse_ms = 0;
        let due = |(at, since): (&u32, &u64)| self.due(*at, *since).is_some_and(|ms| ms <= now.ms).then_some(*at);
        let silent: Vec<u32> = self.watched.iter().filter_map(due).collect();
        for at in silent {
            let peer = &mut self.peers[at as usize];
            peer.accused = Some(Accusation { life: peer.life, seen_ms: now.ms });
            peer.mine = Some(peer.life);
            self.orders.push(Order::Accuse { subject: peer.id, life: peer.life });
            self.touched.insert(at);
        }
    }

    /// Reckons when the next is to be accused, where that has changed. A word from one of them puts it off,
    /// but that is found out when the time has come: there are many words, and they change nothing else.
    pub(super) fn reckon(&mut self) {
        if self.accuse_ms == 0 {
            let due = self.watched.iter().filter_map(|(at, since)| self.due(*at, *since));
            self.accuse_ms = due.min().unwrap_or(u64::MAX);
        }
    }

    /// Accuses those that are down here and yet have been heard for a while: they do not know of the
    /// verdict, which may have gone with the peer that wrote it, and cannot refute what they cannot
    /// read.
    pub(super) fn remind(&mut self, now: Now) {
        for (at, since) in &self.linked {
            let peer = &mut self.peers[*at as usize];
            let heard = now.ms <= peer.heard_ms + 2 * self.tuning.heartbeat_ms && now.ms >= since + REMIND_MS;
            let Some(accused) = peer.standing().filter(|_| peer.state == State::Down && heard) else { continue };
            if peer.mine < Some(accused.life) {
                peer.mine = Some(accused.life);
                self.orders.push(Order::Accuse { subject: peer.id, life: accused.life });
            }
        }
    }
}
