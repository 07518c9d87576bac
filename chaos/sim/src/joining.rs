//! How a machine becomes a member: an invitation at some peer, `hello`, a chain of admissions.

use rialto_protocol::effect::{Refusal, Reply};
use rialto_protocol::event::Request;
use rialto_protocol::ids::InvitationId;

use crate::machine::Asker;
use crate::world::{Happening, World};

/// A newcomer that hears nothing tries again after this long, µs.
const AGAIN_US: u64 = 2_000_000;

impl World {
    /// Has a machine join, and try until it is a member.
    pub fn join(&mut self, newcomer: usize, at_ms: u64) {
        self.schedule(at_ms * 1000, Happening::Hello { newcomer });
    }

    pub(super) fn hello(&mut self, newcomer: usize) {
        if self.machines[newcomer].joined || self.machines[newcomer].dead {
            return;
        }
        self.schedule(self.now_us + AGAIN_US, Happening::Hello { newcomer });
        let able = |at: &usize| self.machines[*at].serves() && self.network.open_both(*at, newcomer);
        let introducers: Vec<usize> = (0..self.machines.len()).filter(able).collect();
        let Some(introducer) = self.dice.pick(&introducers).copied() else { return };
        let (invitation, secret_hash) = (self.dice.bytes(), self.dice.bytes());
        let request = Request::Invite { invitation: InvitationId(invitation), secret_hash, uses: 1, ttl_ms: 3_600_000 };
        self.request(introducer, Asker::Invitation { newcomer, secret_hash, invitation }, request);
    }

    pub(super) fn joining_answered(&mut self, machine: usize, asker: Asker, reply: Result<Reply, Refusal>) {
        match (asker, reply) {
            (Asker::Invitation { newcomer, secret_hash, invitation }, Ok(_)) => {
                let at_us = self.now_us + 4 * self.network.delay();
                let introducer = machine;
                self.schedule(at_us, Happening::Admit { newcomer, introducer, secret_hash, invitation });
            }
            (Asker::Hello { newcomer }, Ok(Reply::Admitted { chain })) => {
                let target = &mut self.machines[newcomer];
                // It may have lost its disk, and with it its name, since it asked.
                let is_it = chain.last().is_some_and(|last| *last.record.key.id == *target.id.hex());
                if !target.joined && is_it {
                    target.joined = true;
                    target.chain = chain;
                    let at_us = self.now_us + 4 * self.network.delay();
                    self.schedule(at_us, Happening::Start { machine: newcomer });
                }
            }
            (_, reply) => self.trace.line(self.now_us, || format!("m{machine} answers a newcomer: {reply:?}")),
        }
    }

    pub(super) fn admit(&mut self, newcomer: usize, introducer: usize, secret_hash: [u8; 32], invitation: [u8; 16]) {
        let request = Request::Admit {
            key: self.machines[newcomer].id,
            cluster: self.cluster,
            invitation: InvitationId(invitation),
            secret_hash,
        };
        self.request(introducer, Asker::Hello { newcomer }, request);
    }
}
