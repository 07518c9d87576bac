//! What goes over lazy links: numbers, and a request for what they show to be lacking.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Brain;
use super::vitals::age;
use crate::ids::PeerId;
use crate::wire::{Have, Message};

/// What is announced and not here is asked for after this and the time in which news are gathered, ms: by
/// then an eager link has nearly always brought it.
const FRAME_MS: u64 = 150;
/// Vitals are gathered on each hop.
const VITALS_HOPS: u64 = 10;
/// The most that is waited for at once, of each kind; the rest is left to anti-entropy.
const AWAITED_MAX: usize = 1_024;
/// Whoever was asked may lack it, too: it is asked for so often,
const TRIES: u32 = 3;
/// with this between, ms.
const AGAIN_MS: u64 = 1_000;

/// Numbers on their way to others, and what others announced and is not here.
#[derive(Debug, Default)]
pub(super) struct Announcements {
    /// What went over eager links: by place on the ring.
    pushed: BTreeMap<u64, u64>,
    /// What was asked for and came: eager links do not have it either.
    pulled: BTreeMap<u64, u64>,
    frames: Awaited,
    vitals: Awaited,
}

/// What is waited for.
#[derive(Debug, Default)]
struct Awaited {
    /// The highest number that was announced, and who has it.
    wanted: BTreeMap<PeerId, (u64, PeerId)>,
    /// When to ask, for what, and how often that was done.
    due: BTreeSet<(u64, PeerId, u32)>,
}

impl Awaited {
    fn add(&mut self, owner: PeerId, number: u64, due_ms: u64, from: PeerId) {
        if let Some(wanted) = self.wanted.get_mut(&owner) {
            if wanted.0 <= number {
                *wanted = (number, from);
            }
        } else if self.due.len() < AWAITED_MAX {
            self.wanted.insert(owner, (number, from));
            self.due.insert((due_ms, owner, 0));
        }
    }

    /// What should have come by now and has not, as `lacks` says, and who has it.
    fn overdue(&mut self, now_ms: u64, lacks: impl Fn(&PeerId, u64) -> bool) -> Vec<(PeerId, PeerId)> {
        let mut overdue = Vec::new();
        while let Some((due_ms, owner, tries)) = self.due.first().copied().filter(|due| due.0 <= now_ms) {
            self.due.remove(&(due_ms, owner, tries));
            match self.wanted.get(&owner) {
                Some((number, from)) if tries < TRIES && lacks(&owner, *number) => {
                    overdue.push((owner, *from));
                    self.due.insert((now_ms + AGAIN_MS, owner, tries + 1));
                }
                _ => drop(self.wanted.remove(&owner)),
            }
        }
        overdue
    }
}

impl Announcements {
    /// It went over eager links.
    pub fn pushed(&mut self, owner: &PeerId, last: u64) {
        raise(&mut self.pushed, owner, last);
    }

    /// It was asked for, and came.
    pub fn pulled(&mut self, owner: &PeerId, last: u64) {
        raise(&mut self.pulled, owner, last);
    }

    pub fn deadline(&self) -> Option<u64> {
        [&self.frames, &self.vitals].into_iter().filter_map(|awaited| awaited.due.first()).map(|due| due.0).min()
    }
}

fn raise(numbers: &mut BTreeMap<u64, u64>, owner: &PeerId, last: u64) {
    let number = numbers.entry(owner.ring()).or_default();
    *number = last.max(*number);
}

impl Brain {
    /// Hands on gathered vitals, and tells lazy links of everything that went over eager ones.
    pub(super) fn flush_news(&mut self) {
        let mut frames = std::mem::take(&mut self.spread.announcements.pushed);
        let pulled = std::mem::take(&mut self.spread.announcements.pulled);
        let vitals = self.flush_vitals();
        if !pulled.is_empty() {
            let have = Have { frames: pulled.iter().map(|(ring, last)| (*ring, *last)).collect(), vitals: Vec::new() };
            self.announce(have, self.spread.tree.eager().collect());
        }
        for (ring, last) in pulled {
            let number = frames.entry(ring).or_default();
            *number = last.max(*number);
        }
        if !frames.is_empty() || !vitals.is_empty() {
            self.announce(Have { frames: frames.into_iter().collect(), vitals }, self.spread.tree.lazy().collect());
        }
    }

    fn announce(&mut self, have: Have, to: Vec<PeerId>) {
        let have = Arc::new(have);
        to.into_iter().for_each(|peer| self.send(peer, Message::Have(have.clone())));
    }

    /// What another has and this peer lacks may come by itself; if not, it is asked for.
    pub(super) fn await_frame(&mut self, owner: PeerId, last: u64, from: PeerId) {
        let due_ms = self.now.ms + FRAME_MS + self.gather_ms();
        self.spread.announcements.frames.add(owner, last, due_ms, from);
    }

    /// A lazy link tells what there is: what is not here is waited for.
    pub(super) fn take_have(&mut self, from: PeerId, have: &Have) {
        let gather_ms = self.gather_ms();
        for (ring, last) in &have.frames {
            let lacking = self.ledger.owner_at(*ring).filter(|owner| owner.lacks(*last));
            if let Some(owner) = lacking.map(|owner| owner.id).filter(|owner| *owner != self.me) {
                self.await_frame(owner, *last, from);
            }
        }
        for (ring, there) in &have.vitals {
            let Some(owner) = self.ledger.owner_at(*ring).filter(|owner| owner.admitted).map(|owner| owner.id) else {
                continue;
            };
            if owner != self.me && self.vitals_age(&owner) < *there {
                let due_ms = self.now.ms + VITALS_HOPS * gather_ms;
                self.spread.announcements.vitals.add(owner, *there, due_ms, from);
            }
        }
    }

    /// What was announced and did not come is asked for; the link that has it becomes an eager one.
    pub(super) fn graft_overdue(&mut self) {
        if self.spread.announcements.deadline().is_none_or(|due_ms| due_ms > self.now.ms) {
            return;
        }
        let mut asks: BTreeMap<PeerId, (Vec<(PeerId, u64)>, Vec<PeerId>)> = BTreeMap::new();
        let lacks = |owner: &PeerId, last| self.ledger.owner(owner).is_some_and(|held| held.lacks(last));
        for (owner, from) in self.spread.announcements.frames.overdue(self.now.ms, lacks) {
            if !self.spread.budgets.is_spent(self.now.ms, &owner) {
                let after = self.ledger.owner(&owner).map_or(0, |held| held.complete);
                asks.entry(from).or_default().0.push((owner, after));
            }
        }
        let vitals = &self.readings.vitals;
        let lacks = |owner: &PeerId, there| vitals.get(owner).is_none_or(|held| age(&held.signed.vitals) < there);
        for (owner, from) in self.spread.announcements.vitals.overdue(self.now.ms, lacks) {
            asks.entry(from).or_default().1.push(owner);
        }
        for (peer, (after, vitals)) in asks {
            self.spread.tree.graft(&peer);
            self.send(peer, Message::Graft { after, vitals });
        }
    }

    /// The other end lacks something, and wants everything from now on.
    pub(super) fn take_graft(&mut self, from: PeerId, after: &[(PeerId, u64)], vitals: &[PeerId]) {
        self.spread.tree.graft(&from);
        self.answer_pull(from, after);
        let held = vitals.iter().take(AWAITED_MAX).filter_map(|owner| self.readings.vitals.get(owner));
        let held: Vec<_> = held.map(|heard| heard.signed.clone()).collect();
        if !held.is_empty() {
            self.send(from, Message::Vitals(held));
        }
    }
}
