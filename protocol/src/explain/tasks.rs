//! What each waiting task waits for, and what the steward is at.

use super::TASKS_MAX;
use super::words::{count, time};
use crate::api::{ServiceExplained, WaitingTask};
use crate::brain::Efforts;
use crate::brain::planning::revision_of;
use crate::ids::{AppId, PeerId};
use crate::ledger::Document;
use crate::ledger::readings::ClaimEntry;
use crate::membership::State;
use crate::model::ClaimState;
use crate::steward::reconcile::Wait;
use crate::view::View;

impl View<'_> {
    /// Tells of each task that does not run; how many of them have no place.
    pub(super) fn explain_tasks(
        &self,
        app: &AppId,
        document: &Document,
        service: &str,
        only: Option<&str>,
        efforts: &Efforts<'_>,
        told: &mut ServiceExplained,
    ) -> u32 {
        let spec = &document.spec.services[service];
        let revision = revision_of(document, service, spec);
        let (slots, outcomes) = (self.brain.readings.slots(app, service), document.outcomes.get(service));
        let volume = self.waits_for_volume(app, spec);
        let mut placeless = 0;
        for slot in self.brain.shown_slots(app, document, service, spec) {
            if only.is_some_and(|only| only != slot) {
                continue;
            }
            let entries = slots.and_then(|slots| slots.get(&slot)).map_or(&[][..], Vec::as_slice);
            let outcome = outcomes.and_then(|all| all.get(&slot)).filter(|outcome| outcome.revision == revision);
            if outcome.is_some() || self.is_finished(app, service, &slot, spec) {
                told.finished += 1;
                continue;
            }
            let here = |entry: &&ClaimEntry| {
                !entry.claim.state.has_ended() && self.brain.members.state(&entry.owner) <= State::Suspect
            };
            let live = entries.iter().filter(here).min_by_key(|entry| entry.claim.state != ClaimState::Running);
            if live.is_some_and(|entry| entry.claim.state == ClaimState::Running) {
                told.running += 1;
                continue;
            }
            told.waiting += 1;
            placeless += u32::from(live.is_none() && !efforts.plan.waits.contains_key(&slot));
            if told.tasks.len() < TASKS_MAX {
                let why = match (&volume, live) {
                    (Some(volume), None) => volume.clone(),
                    _ => self.why(&slot, spec.gang, live, entries, efforts),
                };
                told.tasks.push(WaitingTask { task: format!("{}.{service}.{slot}", app.name), why });
            }
        }
        placeless
    }

    fn why(
        &self,
        slot: &str,
        gang: bool,
        live: Option<&ClaimEntry>,
        all: &[ClaimEntry],
        efforts: &Efforts<'_>,
    ) -> String {
        let name = |peer: &PeerId| self.brain.machine_name(peer);
        let left = |until_ms: u64| time(until_ms.saturating_sub(self.now.ms));
        if let Some(entry) = live {
            let at = name(&entry.owner);
            let age = time(self.now.wall.saturating_sub(entry.claim.accepted_at));
            return match entry.claim.state {
                ClaimState::Stopping => format!("its last run is being stopped on {at}"),
                ClaimState::Starting => {
                    format!("{at} fetches its image or makes its container; it was placed {age} ago")
                }
                ClaimState::Accepted if gang => format!("{at} keeps room for it until all of its gang have theirs"),
                ClaimState::Accepted if entry.claim.reason.is_some() => {
                    format!("{at} {}", entry.claim.reason.as_deref().unwrap_or_default())
                }
                _ => format!("{at} has accepted it {age} ago and is about to start it"),
            };
        }
        if let Some(settle_ms) = efforts.settle_ms.filter(|settle_ms| *settle_ms > self.now.ms) {
            return format!(
                "the steward is new to the app, and listens for what already runs for another {}",
                left(settle_ms)
            );
        }
        match efforts.plan.waits.get(slot) {
            Some(Wait::Lost { machine, until_ms }) => {
                return format!("{} is down; replaced in {}, unless it comes back", name(machine), left(*until_ms));
            }
            Some(Wait::Held { machine, until_ms: Some(until_ms) }) => {
                return format!(
                    "{} is down, and replacing is held back for another {}, for too few machines are seen",
                    name(machine),
                    left(*until_ms)
                );
            }
            Some(Wait::Held { machine, until_ms: None }) => {
                return format!("{} is down, and replacing is held back until more machines are seen", name(machine));
            }
            Some(Wait::BackOff { times, until_ms }) => {
                let last = all.iter().max_by_key(|entry| entry.claim.attempt);
                let how = last.map_or(String::new(), |entry| match (&entry.claim.reason, entry.claim.exit_code) {
                    (Some(reason), _) => format!(" ({reason})"),
                    (None, Some(code)) => format!(" (last with code {code})"),
                    (None, None) => String::new(),
                });
                let times = count(u64::from(*times), "time");
                return format!(
                    "it ended {times} in a row soon after its start{how}; started again in {}",
                    left(*until_ms)
                );
            }
            Some(Wait::Depends(on)) => return on.clone(),
            Some(Wait::Turn) => return "as many of its service run as may at once".into(),
            None => {}
        }
        if let Some(machine) = efforts.awarded.get(slot) {
            return format!("{} was chosen, and its word is awaited", name(machine));
        }
        if let Some(until_ms) = efforts.in_auction.get(slot) {
            let (asked, heard) = efforts.asked;
            return format!(
                "bids are under way: {heard} of {asked} machines have answered, decided in {}",
                left(*until_ms)
            );
        }
        match efforts.waiting {
            Some(_) => "no machine takes it".into(),
            None => "it is to be placed next".into(),
        }
    }

    /// What the steward is at; of another peer nothing is known of that.
    pub(super) fn explain_steward(&self, efforts: &Efforts<'_>, placeless: u32) -> Vec<String> {
        let mut said = Vec::new();
        if let Some(waiting) = efforts.waiting.filter(|_| placeless > 0) {
            let since = time(self.now.wall.saturating_sub(waiting.rank.since));
            let again = time(waiting.again_ms.saturating_sub(self.now.ms));
            let tries = count(u64::from(waiting.tries) + 1, "time");
            let tasks = count(u64::from(waiting.count), "task");
            said.push(format!(
                "{tasks} without a place for {since}; machines were asked {tries}, next in {again} or as soon as room is free"
            ));
        }
        said
    }
}
