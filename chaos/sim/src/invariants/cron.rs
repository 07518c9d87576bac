//! Every instant of a schedule is run at least once; exactly once where nothing broke around it; and where it was run
//! twice, the event log says so.

use std::collections::{BTreeMap, BTreeSet};

use rialto_protocol::ids::TaskId;
use rialto_protocol::model::schedule::{Instants, slot_of};
use rialto_protocol::model::{CatchUp, Overlap, Schedule};
use rialto_protocol::steward::array;
use rialto_protocol::view::View;

use crate::World;

/// Clocks that agree are apart by no more than this, ms.
pub const AGREE_MS: u64 = 6_000;

/// A schedule that was in force, and when its runs had to be.
pub struct Times<'a> {
    pub app: &'a str,
    pub service: &'a str,
    pub generation: Option<u32>,
    pub schedule: &'a Schedule,
    /// The instants after the first and through the second: wall clock, ms.
    pub span: (u64, u64),
    /// Times in which machines died or did not hear each other.
    pub broken: &'a [(u64, u64)],
}

impl Times<'_> {
    fn instants(&self) -> Vec<u64> {
        let Ok(instants) = Instants::of(self.schedule) else { return Vec::new() };
        let (mut at, until) = self.span;
        let mut found = Vec::new();
        while let Some(next) = instants.after(at).filter(|next| *next <= until) {
            found.push(next);
            at = next;
        }
        found
    }

    fn is_excused(&self, instant: u64) -> bool {
        self.broken.iter().any(|(from, until)| (*from..=*until).contains(&instant))
    }

    /// Whether its rule for runs that overlap lets it pass over an instant though nothing breaks: another peer becomes the
    /// steward, as that has been up for long enough, and waits before it starts anything. A run that came late by that
    /// was still going on, or the next instant came before this one's run could begin; never twice in a row.
    fn is_passed(&self, world: &World, instant: u64) -> bool {
        let of = |task: &TaskId| task.app.name == self.app && task.service == self.service;
        let all = world.promises.history.all().filter(|(task, _)| of(task));
        let ran: Vec<(u64, u64)> = all
            .filter_map(|(task, runs)| {
                let ended = runs.iter().map(|run| run.ended.map_or(u64::MAX, |(at, _)| world.wall_at(at)));
                Some((array::instant(&task.slot)?, ended.max()?))
            })
            .collect();
        match self.schedule.overlap {
            Overlap::Allow => false,
            Overlap::Forbid => ran.iter().any(|(of, ended)| *of < instant && *ended + AGREE_MS > instant),
            Overlap::Replace => {
                let before = self.instants().into_iter().rfind(|other| *other < instant);
                before.is_none_or(|before| ran.iter().any(|(of, _)| *of == before))
                    && ran.iter().any(|(of, _)| *of > instant)
            }
        }
    }

    /// How often each task of it was run.
    fn runs(&self, world: &World) -> BTreeMap<String, usize> {
        let of = |task: &TaskId| {
            task.app.name == self.app
                && task.service == self.service
                && self.generation.is_none_or(|one| task.app.generation == one)
        };
        let all = world.promises.history.all().filter(|(task, _)| of(task));
        all.map(|(task, runs)| (task.slot.clone(), runs.len())).collect()
    }
}

/// What is wrong with the runs of a schedule of which every instant is to be run.
pub fn faults(
    world: &World,
    view: View<'_>,
    (app, service): (&str, &str),
    schedule: &Schedule,
    span: (u64, u64),
    broken: &[(u64, u64)],
) -> Vec<String> {
    let times = Times { app, service, generation: None, schedule, span, broken };
    let runs = times.runs(world);
    let told = told_of(&view, app);
    let mut found = Vec::new();
    for instant in times.instants() {
        let slot = slot_of(instant);
        let count = runs.get(&slot).copied().unwrap_or(0);
        let subject = format!("{app}.{service}.{slot}");
        match count {
            0 => found.push(format!("{subject} was never run")),
            1 => {}
            _ if !times.is_excused(instant) => {
                found.push(format!("{subject} was run {count} times though nothing broke"));
            }
            _ if !told.contains(&subject) => found.push(format!("{subject} was run {count} times, and nobody says so")),
            _ => {}
        }
    }
    found
}

/// What is wrong with the runs of a schedule in a world in which anything may have broken. What its own rules let it pass
/// over need not have been run where something broke. Of what ran twice the log says so where both copies came to a good
/// end, and are known to: a copy that its machine or another's word ended was no second run.
pub fn faults_of_any(world: &World, view: &View<'_>, times: &Times<'_>, size: u32) -> Vec<String> {
    let runs = times.runs(world);
    let told = told_of(view, times.app);
    let may_pass = times.schedule.catch_up != CatchUp::All || times.schedule.overlap != Overlap::Allow;
    let mut ended_well: BTreeMap<String, usize> = BTreeMap::new();
    // No container could be made: that was its only try.
    let mut unmade: BTreeSet<String> = BTreeSet::new();
    for entry in view.claims(times.app) {
        if entry.row.state == "failed" {
            unmade.insert(entry.row.task.clone());
        }
        if entry.row.state == "exited" && entry.row.exit_code == Some(0) {
            *ended_well.entry(entry.row.task).or_default() += 1;
        }
    }
    let mut found = Vec::new();
    for instant in times.instants() {
        for slot in array::slots(Some(&slot_of(instant)), size) {
            let subject = format!("{}.{}.{slot}", times.app, times.service);
            let forged = |task: &TaskId| task.app.name == times.app && task.slot == slot;
            if world.promises.forged.iter().any(forged) {
                continue;
            }
            let is_excused = times.is_excused(instant);
            match runs.get(&slot).copied().unwrap_or(0) {
                0 if unmade.contains(&subject) => {}
                0 if may_pass && (is_excused || times.is_passed(world, instant)) => {}
                0 => found.push(format!("{subject} was never run: {:?}", times.schedule)),
                1 => {}
                count if !is_excused => found.push(format!("{subject} was run {count} times though nothing broke")),
                count => {
                    let twice = ended_well.get(&subject).is_some_and(|ended| *ended > 1);
                    if twice && !told.contains(&subject) {
                        found.push(format!("{subject} was run {count} times, and nobody says so"));
                    }
                }
            }
        }
    }
    found
}

/// The tasks of which the log says that they were run twice.
fn told_of(view: &View<'_>, app: &str) -> Vec<String> {
    view.events(app, None).into_iter().filter(|event| event.what == "overlap").map(|event| event.subject).collect()
}
