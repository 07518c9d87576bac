//! Arrays: the tasks of one run of a service, by number, and how a task of a batch comes to its end.

use std::collections::BTreeMap;

use crate::ids::ChangeId;
use crate::ledger::readings::ClaimEntry;
use crate::model::schedule::instant_of;
use crate::model::{ClaimState, Restart, ServiceSpec};

/// The names of the tasks of one run. `run`: its name; `None`: the one that a batch has by itself, whose tasks are
/// `1`, `2` and so on.
pub fn slots(run: Option<&str>, size: u32) -> impl Iterator<Item = String> + use<'_> {
    (1..=size).map(move |index| match run {
        None => index.to_string(),
        Some(run) if size == 1 => run.to_string(),
        Some(run) => format!("{run}-{index}"),
    })
}

/// The run that a task belongs to, where it is not the one that its service has by itself, and its number in it, from 1;
/// 0: its name tells none.
pub fn parts(slot: &str) -> (Option<&str>, u32) {
    if let Ok(index) = slot.parse::<u32>() {
        return (None, index);
    }
    let (run, index) = slot.rsplit_once('-').unwrap_or((slot, "1"));
    if is_run(run) { (Some(run), index.parse().unwrap_or(1)) } else { (None, 0) }
}

/// Whether a name is of a run at an instant, or of one that somebody asked for.
fn is_run(name: &str) -> bool {
    let asked = |name: &str| name.len() == 8 && name.bytes().skip(1).all(|byte| byte.is_ascii_hexdigit());
    instant_of(name).is_some() || (name.starts_with('r') && asked(name))
}

/// The name of a run that somebody asked for, by the change that says so.
pub fn run_name(change: &ChangeId) -> String {
    format!("r{}", &change.hex()[..7])
}

/// The instant of the run of a schedule that a task belongs to.
pub fn instant(slot: &str) -> Option<u64> {
    instant_of(parts(slot).0?)
}

/// Whether a slot is one of a service's own: of `1` to the number of its replicas.
pub fn is_own(slot: &str, replicas: u32) -> bool {
    matches!(parts(slot), (None, index) if (1..=replicas).contains(&index))
}

/// The claim by which a batch's task is finished, if it is: one that ended well, or the last of those that may fail.
pub fn last<'a>(spec: &ServiceSpec, entries: impl Iterator<Item = &'a ClaimEntry>) -> Option<&'a ClaimEntry> {
    let mut failed: BTreeMap<(u32, u64), &ClaimEntry> = BTreeMap::new();
    let mut live = false;
    for entry in entries {
        let claim = &entry.claim;
        match claim.state {
            ClaimState::Exited if spec.finishes(claim.exit_code) => return Some(entry),
            // What its machine lost hold of in the middle is no failure of its own: see `on_lost`.
            ClaimState::Failed if claim.started_at.is_some() => {}
            ClaimState::Exited | ClaimState::Failed => drop(failed.insert((claim.attempt, claim.accepted_at), entry)),
            state => live |= !state.has_ended(),
        }
    }
    // What is tried once may fail once.
    let most = spec.batch.retries.or((spec.restart == Restart::No).then_some(0))? as usize;
    (failed.len() > most && !live).then(|| failed.into_values().next_back()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_tells_its_run_and_its_number() {
        assert_eq!(slots(None, 2).collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(slots(Some("rb12cd34"), 1).collect::<Vec<_>>(), ["rb12cd34"]);
        assert_eq!(slots(Some("20260228t235907z"), 2).last().as_deref(), Some("20260228t235907z-2"));
        for (slot, run, index) in [
            ("7", None, 7),
            ("100000", None, 100_000),
            ("rb12cd34-3", Some("rb12cd34"), 3),
            ("rabbit-3", None, 0),
            ("r\u{e4}12cd34", None, 0),
            ("20260228t235907z", Some("20260228t235907z"), 1),
        ] {
            assert_eq!(parts(slot), (run, index), "{slot}");
        }
        assert!(instant("20260228t235907z-2").is_some() && instant("rb12cd34-2").is_none());
        assert!(is_own("3", 3) && !is_own("4", 3) && !is_own("0", 3) && !is_own("m1", 3));
    }
}
