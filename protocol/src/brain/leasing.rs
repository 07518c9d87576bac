//! Tasks that need something of the lock group before they start: it is asked for when their claim is durable, and what
//! comes of it is a word from outside. The brain knows no locks: while none is heard the claim waits, and so nothing of
//! what is ordinary waits for a lock.

use std::sync::Arc;

use super::Brain;
use super::writer::Urgency;
use crate::effect::Effect;
use crate::ids::ClaimId;
use crate::lease::{Need, Word};
use crate::model::singleton::Guard;
use crate::model::volume::{Content, FileMount};
use crate::model::{Claim, ClaimState, TaskSpec};
use crate::wire::StopReason;

/// Where a task finds its fencing token, beside its environment.
const FENCE_TOKEN_FILE: &str = "/run/rialto/fence-token";
/// Why the end of a task's lease ended it.
const ENDED: &str = "its lease of the lock group ended";

impl Brain {
    /// Asks for what a task needs before it starts. Once is enough.
    pub(super) fn ask_for_lease(&mut self, id: &ClaimId, guard: Guard) {
        if self.machine.leases.insert(*id)
            && let Some(need) = self.need_of(id, guard)
        {
            self.hold(Effect::Acquire { claim: *id, need });
        }
    }

    /// What runs from an earlier life of this peer goes on under the lease that it has.
    pub(super) fn keep_leases(&mut self) {
        let runs = self.bidder.claims.values().filter(|mine| !mine.claim.state.has_ended());
        let leased = runs.filter(|mine| mine.claim.fence.is_some());
        let guarded = |mine: &crate::market::bidder::Mine| mine.spec.as_ref().and_then(|spec| spec.guard);
        let leased: Vec<ClaimId> =
            leased.filter(|mine| guarded(mine) == Some(Guard::Lease)).map(|mine| mine.claim.id).collect();
        for id in leased {
            self.machine.leases.insert(id);
            let need = self.need_of(&id, Guard::Lease);
            self.out.extend(need.map(|need| Effect::Acquire { claim: id, need }));
        }
    }

    fn need_of(&self, id: &ClaimId, guard: Guard) -> Option<Need> {
        let claim = &self.bidder.claims.get(id)?.claim;
        Some(Need::of(guard, &claim.task, id, &self.machine_name(&self.me), claim.fence))
    }

    /// A task is gone: what it had is another's.
    pub(super) fn give_lease_up(&mut self, id: &ClaimId) {
        if self.machine.leases.remove(id) {
            self.out.push(Effect::Release { claim: *id });
        }
    }

    /// Something is heard of what a task needs.
    pub(super) fn lease_told(&mut self, id: ClaimId, word: Word) {
        let Some(mine) = self.bidder.claims.get(&id) else { return };
        let state = mine.claim.state;
        let has_begun = mine.started || mine.claim.fence.is_some();
        match word {
            Word::Granted { token } if !has_begun && self.bidder.may_start(&id) => self.start_fenced(id, token),
            Word::Waits(why) if !has_begun && state == ClaimState::Accepted => {
                self.say_of(id, Some(format!("waits for the lock group: {why}")));
            }
            Word::Lost(_) if !state.has_ended() => self.stop_asked(id, StopReason::Unleased),
            Word::Spent(by) if !has_begun && state == ClaimState::Accepted => self.never_runs(id, &by),
            _ => {}
        }
    }

    /// Starts a task that has what it needs. That it may have run is durable before it does.
    fn start_fenced(&mut self, id: ClaimId, token: u64) {
        let Some(mine) = self.bidder.claims.get_mut(&id) else { return };
        let Some(spec) = mine.spec.take() else { return };
        let mut spec = TaskSpec::clone(&spec);
        spec.environment.insert("RIALTO_FENCE_TOKEN".into(), token.to_string());
        let files = &mut spec.container.mounts.files;
        if files.iter().all(|file| file.path != FENCE_TOKEN_FILE) {
            let content = Content::Text(format!("{token}\n"));
            files.push(FileMount { path: FENCE_TOKEN_FILE.into(), content, uid: 0, gid: 0, mode: 0o444 });
        }
        let spec = Arc::new(spec);
        mine.spec = Some(spec.clone());
        mine.claim.fence = Some(token);
        mine.claim.reason = None;
        let claim = mine.claim.clone();
        self.write_claim(&claim, Urgency::Now);
        self.hold(Effect::Start { claim: id, spec });
    }

    fn say_of(&mut self, id: ClaimId, reason: Option<String>) {
        let Some(mine) = self.bidder.claims.get_mut(&id).filter(|mine| mine.claim.reason != reason) else { return };
        mine.claim.reason = reason;
        let claim = mine.claim.clone();
        self.write_claim(&claim, Urgency::Ordinary);
    }

    /// Another has the run of this claim, or had it.
    fn never_runs(&mut self, id: ClaimId, by: &str) {
        let wall = self.now.wall;
        let Some(mine) = self.bidder.claims.get_mut(&id) else { return };
        mine.claim.state = ClaimState::Failed;
        mine.claim.ended_at = Some(wall);
        mine.claim.reason = Some(format!("it runs exactly once, and that run is of claim {by}"));
        let claim = mine.claim.clone();
        self.end(&claim);
        self.write_claim(&claim, Urgency::Now);
    }
}

/// What becomes of the claim of a task that its shim ended because its lease did.
pub(super) fn expired(claim: &mut Claim, exit_code: i32, ended_at: u64) {
    claim.state = ClaimState::Stopped;
    claim.started_at = claim.started_at.or(Some(ended_at));
    (claim.exit_code, claim.ended_at) = (Some(exit_code), Some(ended_at));
    claim.reason = Some(ENDED.into());
}
