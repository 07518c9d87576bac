//! A group that is made anew, by a person, when most of its voters are gone for good.

use std::cmp::Ordering;

use super::{Origin, Output, Replica};
use crate::consensus::{Consensus, Saved};
use crate::kv::Refusal;
use crate::lessor::Lessor;
use crate::pending::Pending;
use crate::store::Store;
use crate::wire::Body;

/// An epoch counts, in its upper half, how often the group was made anew.
const COUNT_SHIFT: u32 = 32;

impl Replica {
    /// Makes the group anew from what is here, with this replica as its only voter.
    pub(super) fn force_new(&mut self) {
        if self.consensus.is_blank() {
            return;
        }
        let count = (self.config.epoch >> COUNT_SHIFT).saturating_add(1).min(u64::from(u32::MAX));
        let chance = self.config.seed & u64::from(u32::MAX);
        let saved = Self::founding(self.config.node, &self.store.clone().reborn());
        self.begin_anew(count << COUNT_SHIFT | chance, saved);
    }

    /// Somebody speaks for a group of another epoch. True: this replica belongs to that one from now on.
    ///
    /// Only a later group is followed: by whoever has a part in none, and by others if it is a voter of their own group
    /// that calls them. What they have is lost then, as the person was told who asked for it.
    pub(super) fn follows(&mut self, epoch: u64, from: u64) -> bool {
        let follows = match epoch.cmp(&self.config.epoch) {
            Ordering::Greater => self.consensus.is_blank() || self.consensus.group().voters.contains(&from),
            Ordering::Less => {
                self.send(from, Body::Anew);
                false
            }
            Ordering::Equal => true,
        };
        if follows {
            self.begin_anew(epoch, Saved::default());
        }
        follows && !self.damaged
    }

    /// Forgets the group that this replica had a part in, and begins with this.
    fn begin_anew(&mut self, epoch: u64, saved: Saved) {
        self.give_all_up();
        let (consensus, state) = match Consensus::restore(self.config.node, self.config.seed ^ epoch, &saved) {
            Ok(restored) => restored,
            Err(_) => return self.damaged = true,
        };
        match state.map_or_else(|| Ok(Store::default()), |state| Store::decode(&state)) {
            Ok(store) => self.store = store,
            Err(_) => return self.damaged = true,
        }
        self.consensus = consensus;
        self.config.epoch = epoch;
        self.lessor = Lessor::default();
        (self.leads, self.leader) = (None, 0);
        self.held.clear();
        (self.awaited, self.persisted, self.applied_bytes) = (0, 0, 0);
        (self.voters_changed, self.gone) = (false, false);
        self.out.push(Output::Replace { epoch, saved });
    }

    /// Nobody learns any more what has come of what was under way.
    fn give_all_up(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        let Pending { batch, proposed, fresh, reads, forwarded, leaderless } = pending;
        let done = proposed.into_values().flat_map(|proposed| proposed.origins);
        let there = forwarded.into_values().map(|forwarded| Origin::Here(forwarded.ticket));
        let unknown: Vec<_> = done.chain(there).collect();
        let waits = reads.into_values().flat_map(|reads| reads.waits).chain(fresh);
        let asked = leaderless.into_iter().map(|(ticket, ..)| Origin::Here(ticket));
        let not_done = batch.into_iter().map(|(origin, _)| origin);
        let not_done: Vec<_> = not_done.chain(waits.map(|(wait, _)| wait.origin())).chain(asked).collect();
        for origin in unknown {
            self.answer(origin, Err(Refusal::Unknown));
        }
        for origin in not_done {
            self.answer(origin, Err(Refusal::NoLeader));
        }
    }
}
