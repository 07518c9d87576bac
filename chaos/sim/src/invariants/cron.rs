//! Every instant of a schedule is run at least once; exactly once where nothing broke around it; and where it was run
//! twice, the event log says so.

use std::collections::BTreeMap;

use rialto_protocol::model::Schedule;
use rialto_protocol::model::schedule::{Instants, slot_of};
use rialto_protocol::view::View;

use crate::World;

/// What is wrong with the runs of the instants after `from` and through `until` (wall clock, ms). `broken`: times in which
/// machines died or did not hear each other.
pub fn faults(
    world: &World,
    view: View<'_>,
    (app, service): (&str, &str),
    schedule: &Schedule,
    (from, until): (u64, u64),
    broken: &[(u64, u64)],
) -> Vec<String> {
    let mut runs: BTreeMap<String, usize> = BTreeMap::new();
    for (task, all) in world.promises.history.all() {
        if task.app.name == app && task.service == service {
            *runs.entry(task.slot.clone()).or_default() += all.len();
        }
    }
    let told: Vec<String> =
        view.events(app, None).into_iter().filter(|e| e.what == "overlap").map(|e| e.subject).collect();
    let mut found = Vec::new();
    let Ok(instants) = Instants::of(schedule) else { return vec!["the schedule does not read".into()] };
    let mut at = from;
    while let Some(next) = instants.after(at).filter(|next| *next <= until) {
        at = next;
        let slot = slot_of(next);
        let count = runs.get(&slot).copied().unwrap_or(0);
        let excused = broken.iter().any(|(from, until)| (*from..=*until).contains(&next));
        let subject = format!("{app}.{service}.{slot}");
        match count {
            0 => found.push(format!("{subject} was never run")),
            1 => {}
            _ if !excused => found.push(format!("{subject} was run {count} times though nothing broke")),
            _ if !told.contains(&subject) => found.push(format!("{subject} was run {count} times, and nobody says so")),
            _ => {}
        }
    }
    found
}
