//! Performs effects, in order.

use std::collections::VecDeque;

use rialto_protocol::ids::AppId;
use rialto_protocol::wire::vitals_to_sign;
use rialto_protocol::{Effect, Event};

use super::{Driver, Ended, clock};
use crate::news::Scope;
use crate::store::Job;

/// What watchers have to look at.
fn scope(apps: Vec<AppId>, machines: bool) -> Scope {
    match machines {
        true => Scope::Everything,
        false => Scope::Apps(apps.into_iter().map(|app| app.name).collect()),
    }
}

impl Driver {
    /// Performs effects in order. What they bring about at once (signed vitals) is taken by the
    /// brain in its turn, and those effects come after the ones that stand already.
    pub(super) fn perform(&mut self, effects: Vec<Effect>) -> Result<(), Ended> {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Send { to, message } => self.ports.network.send(to, message),
                Effect::Commit { commit, drafts, local } => self.writer.write(Job::Commit { commit, drafts, local }),
                Effect::Store { ops, token } => self.writer.write(Job::Store { ops, token }),
                Effect::SignVitals { vitals } => {
                    let signature = (self.ports.sign)(&vitals_to_sign(&self.ports.me, &vitals));
                    let signed = Event::VitalsSigned { counter: vitals.counter, signature };
                    effects.extend(self.brain.handle(clock::now(), signed));
                }
                Effect::Links { peers } => self.ports.network.links(peers),
                Effect::Members { peers } => self.ports.network.members(peers),
                Effect::Start { claim, spec } => self.ports.tasks.start(claim, spec),
                Effect::Stop { claim, grace_ms } => self.ports.tasks.stop(claim, grace_ms),
                Effect::Acquire { claim, need } => self.ports.leases.acquire(claim, need),
                Effect::Release { claim } => self.ports.leases.release(claim),
                Effect::Forget { claim } => self.ports.tasks.forget(claim),
                Effect::Reply { request, reply } => self.pending.answer(request, reply),
                Effect::Report { peer, what } => self.ports.counters.count(what.name(), peer),
                Effect::Changed { apps, machines } => self.changes.note(scope(apps, machines)),
                Effect::Note { note } => {
                    tracing::debug!(what = note.what, subject = %note.subject, "{}", note.text);
                    self.ports.events.push(note, clock::now().wall);
                }
                Effect::Retire { reason } => return Err(Ended::Retired(reason)),
            }
        }
        Ok(())
    }
}
