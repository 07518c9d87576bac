//! What is answered from the state, when it is certain to be no older than the question: reads, and looks at leases.

use super::Replica;
use crate::kv::{Answer, Applied, Bytes, LeaseState, Range, Refusal};
use crate::pending::{Origin, Reads, Wait};
use crate::plant::Plant;
use crate::replica::{ANSWER_MS_MAX, PENDING_MAX, Ticket};

/// Whoever leads is asked again after so long, ms: the question or its answer was lost, or it has only begun to lead.
const ASK_AGAIN_MS: u64 = 150;

impl Replica {
    pub(super) fn read(&mut self, ticket: Ticket, range: Range) {
        if self.plant == Some(Plant::StaleRead) {
            let answer = self.store.range(&range);
            return self.answer(Origin::Here(ticket), answer);
        }
        if self.pending.len() >= PENDING_MAX {
            return self.answer(Origin::Here(ticket), Err(Refusal::Busy));
        }
        self.pending.fresh.push((Wait::Read { ticket, range }, self.now_ms + ANSWER_MS_MAX));
    }

    /// One round for all that have come since the last.
    pub(super) fn ask_for_reads(&mut self) {
        if self.pending.fresh.is_empty() || self.consensus.leader() == 0 {
            return;
        }
        let waits = std::mem::take(&mut self.pending.fresh);
        self.ask_round(waits);
    }

    fn ask_round(&mut self, waits: Vec<(Wait, u64)>) {
        let number = self.number();
        self.pending.reads.insert(number, Reads { asked_ms: self.now_ms, index: None, waits });
        // Of another start of this replica no answer may count.
        self.consensus.read([self.config.seed.to_be_bytes(), number.to_be_bytes()].concat());
    }

    /// Rounds that nothing was heard of are asked for anew.
    pub(super) fn ask_again(&mut self) {
        let is_lost = |reads: &Reads| reads.index.is_none() && reads.asked_ms + ASK_AGAIN_MS <= self.now_ms;
        let lost: Vec<u64> =
            self.pending.reads.iter().filter(|(_, reads)| is_lost(reads)).map(|(number, _)| *number).collect();
        for number in lost {
            if let Some(reads) = self.pending.reads.remove(&number) {
                self.pending.fresh.extend(reads.waits);
            }
        }
    }

    /// The group has said how far a round has to wait.
    pub(super) fn learn_indexes(&mut self, reads: Vec<(Vec<u8>, u64)>) {
        for (context, index) in reads {
            let number = context.get(8..16).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
            let is_ours = context.get(..8) == Some(&self.config.seed.to_be_bytes()[..]);
            if let Some(round) = number.filter(|_| is_ours).and_then(|number| self.pending.reads.get_mut(&number)) {
                round.index = Some(index);
            }
        }
    }

    /// Answers rounds whose state has been reached.
    pub(super) fn answer_reads(&mut self) {
        let applied = self.consensus.applied();
        let is_due = |reads: &Reads| reads.index.is_some_and(|index| index <= applied);
        let due: Vec<u64> = self.pending.reads.iter().filter(|(_, reads)| is_due(reads)).map(|(at, _)| *at).collect();
        for number in due {
            let Some(reads) = self.pending.reads.remove(&number) else { continue };
            for (wait, _) in reads.waits {
                match wait {
                    Wait::Read { ticket, range } => {
                        let answer = self.store.range(&range);
                        self.answer(Origin::Here(ticket), answer);
                    }
                    Wait::Renew { origin, lease } => self.renew(origin, lease),
                    Wait::Look { origin, lease } => {
                        let answer = self.look(lease);
                        self.answer(origin, answer);
                    }
                }
            }
        }
    }

    /// Gives a lease its whole time anew. It has been confirmed since the question that this replica leads.
    pub(super) fn renew(&mut self, origin: Origin, lease: i64) {
        if self.leads.is_none() {
            return self.answer(origin, Err(Refusal::NotLeader));
        }
        let ttl_seconds = self.store.lease(lease).map(|lease| lease.ttl_seconds);
        // What is ending has ended, for its owner.
        let answer = match ttl_seconds.filter(|ttl_seconds| self.start_lease(lease, *ttl_seconds)) {
            Some(_) => self.look(lease),
            None => Err(Refusal::LeaseNotFound),
        };
        self.answer(origin, answer);
    }

    fn look(&self, id: i64) -> Result<Applied, Refusal> {
        if self.leads.is_none() {
            return Err(Refusal::NotLeader);
        }
        let lease = self.store.lease(id).ok_or(Refusal::LeaseNotFound)?;
        let left_ms = self.lessor.left_ms(id, self.now_ms).map_or(-1, |left| i64::try_from(left).unwrap_or(i64::MAX));
        let keys = lease.keys().map(|key| Bytes(key.to_vec())).collect();
        let state = LeaseState { id, granted_seconds: lease.ttl_seconds, left_ms, keys };
        Ok(Applied { revision: self.store.revision(), answer: Answer::Lease(state) })
    }
}
