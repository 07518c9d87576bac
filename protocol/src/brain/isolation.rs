//! A machine that hears no other. It stops nothing by default; a service may want its tasks ended then.

use super::Brain;
use crate::ids::ClaimId;
use crate::model::ClaimState;
use crate::wire::StopReason;

impl Brain {
    /// Takes note of whether others are heard of, and ends what may run no longer without.
    pub(super) fn isolation_turn(&mut self) {
        let now = self.now.ms;
        let alone = self.members.live_count() <= 1 && self.has_others();
        let since = match alone {
            true => *self.machine.isolated_since_ms.get_or_insert(now),
            false => {
                self.machine.isolated_since_ms = None;
                self.bidder.isolated_ms = 0;
                return;
            }
        };
        self.bidder.isolated_ms = (now - since).max(1);
        let over: Vec<ClaimId> = self.must_end().filter(|(until_ms, _)| *until_ms <= now).map(|(_, id)| id).collect();
        over.into_iter().for_each(|claim| self.stop_asked(claim, StopReason::Isolated));
    }

    /// When the next task has to end because nobody is heard: monotonic, ms.
    pub(super) fn isolation_deadline(&self) -> Option<u64> {
        self.machine.isolated_since_ms?;
        self.must_end().map(|(until_ms, _)| until_ms).min()
    }

    /// Tasks that have to end while nobody is heard, and when: monotonic, ms.
    fn must_end(&self) -> impl Iterator<Item = (u64, ClaimId)> {
        let since = self.machine.isolated_since_ms;
        let live = self.bidder.claims.values().filter(|mine| mine.claim.state < ClaimState::Stopping);
        live.filter_map(move |mine| {
            Some((since?.saturating_add(mine.spec.as_ref()?.stop_when_isolated_ms?), mine.claim.id))
        })
    }

    /// Whether there are members other than this one that have not left.
    fn has_others(&self) -> bool {
        let mut others = self.readings.admissions.keys();
        others.any(|peer| *peer != self.me && !self.readings.departed.contains_key(peer))
    }
}
