//! Which standing links are wanted: with one's observers, with those one observes, and with a few
//! of those that are down, in turn. After a split each side holds the other for down, and only
//! because somebody keeps trying do they find each other again.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::{Membership, Order};
use crate::event::Now;
use crate::ids::PeerId;

/// How many down members are tried at a time.
const PROBES: usize = 3;
/// A link with a down member is kept for so long, ms: time for it to hear of the verdict, to
/// refute, and to be linked with its observers.
const KEEP_MS: u64 = 30_000;

/// The down members that are tried now.
#[derive(Debug)]
pub(super) struct Probes {
    /// Each with the time since which it is tried.
    current: Vec<(u32, u64)>,
    /// Goes round in the order of identities, from one's own: so all begin elsewhere.
    last: PeerId,
    turn_ms: u64,
}

impl Probes {
    pub fn new(me: PeerId, now_ms: u64) -> Self {
        Self { current: Vec::new(), last: me, turn_ms: now_ms }
    }
}

impl Membership {
    /// When other members are tried; `None`: nobody is down.
    pub(super) fn probe_deadline(&self) -> Option<u64> {
        (!self.down.is_empty() || !self.probes.current.is_empty()).then_some(self.probes.turn_ms)
    }

    /// Tells of the links that are wanted, if they have changed.
    pub(super) fn want_links(&mut self, now: Now) {
        if self.probe_deadline().is_some_and(|ms| ms <= now.ms) {
            self.turn(now);
        }
        if !std::mem::take(&mut self.links_stale) {
            return;
        }
        let probed = self.probes.current.iter().map(|(at, _)| *at);
        let wanted: BTreeSet<PeerId> =
            self.watched.keys().copied().chain(probed).map(|at| self.peers[at as usize].id).collect();
        if !wanted.iter().eq(self.wanted.iter()) {
            self.wanted = wanted.into_iter().collect();
            self.orders.push(Order::Links(self.wanted.clone()));
        }
    }

    /// Keeps the probes that got through, for a while, and goes on to the next for the others.
    fn turn(&mut self, now: Now) {
        self.probes.turn_ms = now.ms + self.tuning.probe_ms;
        let mut current = std::mem::take(&mut self.probes.current);
        let keep = |(at, since): &(u32, u64)| {
            self.linked.contains_key(at) && now.ms < since + KEEP_MS && self.peers[*at as usize].left_ms.is_none()
        };
        current.retain(keep);
        let after = (Bound::Excluded(self.probes.last), Bound::Unbounded);
        let round = self.down.range(after).chain(self.down.range(..=self.probes.last)).map(|(id, _)| *id);
        for id in round {
            if current.len() == PROBES {
                break;
            }
            let at = self.index[&id];
            if current.iter().all(|(other, _)| *other != at) {
                current.push((at, now.ms));
                self.probes.last = id;
            }
        }
        self.probes.current = current;
        self.links_stale = true;
    }
}
