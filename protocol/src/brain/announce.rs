//! What is announced: the numbers of frames to lazy links, those of vitals to all, and what is done about
//! what others announce and is not here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand_chacha::rand_core::RngCore;

use super::Brain;
use crate::ids::PeerId;
use crate::wire::{Have, Message};

/// What is announced and not here is asked for after this, ms, and under load after that: by then an eager link has
/// nearly always brought it.
const FRAME_MS: (u64, u64) = (120, 350);
/// and so much at random, ms: of those that lack the same, one asks first, and the others have it from there.
const APART_MS: u64 = 100;
/// The most that is waited for at once; the rest is left to anti-entropy.
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
        self.frames.due.first().map(|due| due.0)
    }
}

fn raise(numbers: &mut BTreeMap<u64, u64>, owner: &PeerId, last: u64) {
    let number = numbers.entry(owner.ring()).or_default();
    *number = last.max(*number);
}

impl Brain {
    /// Tells lazy links of the frames that went over eager ones, and all links of what came otherwise; and of vitals,
    /// where these are due.
    pub(super) fn flush_news(&mut self, with_vitals: bool) {
        let mut frames = std::mem::take(&mut self.spread.announcements.pushed);
        let pulled = std::mem::take(&mut self.spread.announcements.pulled);
        let vitals = if with_vitals { self.fresh_vitals() } else { Vec::new() };
        let to_eager = Have { frames: pulled.iter().map(|(ring, last)| (*ring, *last)).collect(), vitals };
        for (ring, last) in pulled {
            let number = frames.entry(ring).or_default();
            *number = last.max(*number);
        }
        let to_lazy = Have { frames: frames.into_iter().collect(), vitals: to_eager.vitals.clone() };
        self.announce(to_eager, self.spread.tree.eager().collect());
        self.announce(to_lazy, self.spread.tree.lazy().collect());
    }

    fn announce(&mut self, have: Have, to: Vec<PeerId>) {
        if have.frames.is_empty() && have.vitals.is_empty() {
            return;
        }
        let have = Arc::new(have);
        to.into_iter().for_each(|peer| self.send(peer, Message::Have(have.clone())));
    }

    /// What another has and this peer lacks may come by itself; if not, it is asked for.
    pub(super) fn await_frame(&mut self, owner: PeerId, last: u64, from: PeerId) {
        let loaded = self.spread.forwarding.is_loaded(self.now.ms);
        let after_ms = if loaded { FRAME_MS.1 } else { FRAME_MS.0 };
        let due_ms = self.now.ms + after_ms + self.rng.next_u64() % APART_MS;
        self.spread.announcements.frames.add(owner, last, due_ms, from);
    }

    /// Another tells what there is: frames that are not here are waited for, vitals are asked for.
    pub(super) fn take_have(&mut self, from: PeerId, have: &Have) {
        for (ring, last) in &have.frames {
            let lacking = self.ledger.owner_at(*ring).filter(|owner| owner.lacks(*last));
            if let Some(owner) = lacking.map(|owner| owner.id).filter(|owner| *owner != self.me) {
                self.await_frame(owner, *last, from);
            }
        }
        self.want_vitals(from, &have.vitals);
    }

    /// What was announced and did not come is asked for; the link that has it becomes an eager one.
    pub(super) fn graft_overdue(&mut self) {
        if self.spread.announcements.deadline().is_none_or(|due_ms| due_ms > self.now.ms) {
            return;
        }
        let mut asks: BTreeMap<PeerId, Vec<(PeerId, u64)>> = BTreeMap::new();
        let lacks = |owner: &PeerId, last| self.ledger.owner(owner).is_some_and(|held| held.lacks(last));
        for (owner, from) in self.spread.announcements.frames.overdue(self.now.ms, lacks) {
            if !self.spread.budgets.is_spent(self.now.ms, &owner) {
                let after = self.ledger.owner(&owner).map_or(0, |held| held.complete);
                asks.entry(from).or_default().push((owner, after));
            }
        }
        for (peer, after) in asks {
            self.spread.tree.graft(self.now.ms, &peer);
            self.send(peer, Message::Graft { after });
        }
    }

    /// The other end lacks something, and wants everything from now on.
    pub(super) fn take_graft(&mut self, from: PeerId, after: &[(PeerId, u64)]) {
        self.spread.tree.graft(self.now.ms, &from);
        self.answer_pull(from, after, false);
    }
}
