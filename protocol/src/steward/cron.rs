//! Schedules: which instants are to be run, which are passed over, and until when everything is settled.
//!
//! The task that runs at an instant is named for it, so that whoever starts it starts the same task. What has begun is
//! told by claims; what was settled long ago by a cursor in the document, which passes an instant only when its run has
//! ended as it should or a rule says that there is none. So nobody has to remember anything: a new steward reads from the
//! ledger what the one before it knew.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::Now;
use crate::ids::PeerId;
use crate::ledger::readings::{ClaimEntry, Slots};
use crate::model::schedule::{Instants, slot_of};
use crate::model::{CatchUp, Overlap, Schedule, ServiceSpec};

use super::array;

/// An instant that nobody could start anything at for so long was missed, ms: a new steward is there much sooner.
pub const LATE_MS: u64 = 60_000;
/// The most instants without a run that are looked at, at once.
const DUE_MAX: usize = 1_000;
/// The most runs at once, where they may overlap.
const RUNS_MAX: usize = 100;
/// The cursor is written when so many instants lie behind it,
const SETTLED_MAX: usize = 500;
/// or the oldest of them so long, ms: well before their claims may be forgotten.
const SETTLED_MS: u64 = 30 * 60_000;

/// What a schedule wants now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Due {
    /// Instants whose runs are to be brought to their end, the oldest first.
    pub run: Vec<u64>,
    /// Instants whose runs have to make room for a later one.
    pub replaced: Vec<u64>,
    /// The first that cannot be told yet, or has to wait for others to end.
    pub waits: Option<u64>,
    /// Instants that nothing runs at, with the reason: the newest last.
    pub passed: Vec<(u64, &'static str)>,
    /// Everything through here is settled: wall clock, ms.
    pub settled: u64,
    /// Whether that is to be written down.
    pub write: bool,
    /// When something is due next: wall clock, ms.
    pub next: Option<u64>,
    /// How many tasks those runs have that began with another number than their service has now.
    sizes: BTreeMap<u64, u32>,
}

impl Due {
    /// How many tasks the run of an instant has: what it began with, or what its service says now.
    pub fn size(&self, instant: u64, spec: &ServiceSpec) -> u32 {
        self.sizes.get(&instant).copied().unwrap_or_else(|| spec.run_size())
    }

    /// The names of the tasks of the run of an instant.
    pub fn slots(&self, instant: u64, spec: &ServiceSpec) -> Vec<String> {
        array::slots(Some(&slot_of(instant)), self.size(instant, spec)).collect()
    }
}

/// Looks at a schedule at a time of the wall clock that most machines show. `cursor`: everything through here is settled. `is_lost`: whether a
/// machine is held for lost, so that nothing goes on there any more.
pub fn due(
    now: Now,
    spec: &ServiceSpec,
    schedule: &Schedule,
    cursor: u64,
    claims: &Slots,
    is_lost: impl Fn(&PeerId) -> bool,
) -> Due {
    let wall = now.wall;
    let mut due = Due::default();
    let Ok(instants) = Instants::of(schedule) else { return due };
    let cursor = cursor.max(schedule.since);
    let begun = begun(now, spec, claims, cursor, is_lost);
    due.sizes = begun.iter().map(|(instant, run)| (*instant, run.size)).collect();
    if spec.replicas == 0 {
        // It is suspended: what runs goes on to its end, and no instant counts.
        let open = begun.iter().filter(|(_, run)| !run.settled).map(|(instant, _)| *instant);
        due.run = open.collect();
        due.settled = due.run.first().map_or(wall, |first| first - 1).max(cursor);
        // What would have been due meanwhile is not to be caught up with.
        let any = instants.after(cursor).is_some_and(|first| first <= due.settled);
        due.write = any && due.settled > cursor + SETTLED_MS;
        return due;
    }
    let late = wall.saturating_sub(LATE_MS);
    let mut fresh: BTreeSet<u64> = BTreeSet::new();
    let mut from = match schedule.catch_up {
        CatchUp::All => cursor,
        CatchUp::Last | CatchUp::Skip => cursor.max(late),
    };
    if schedule.catch_up == CatchUp::Last {
        fresh.extend(instants.through(late).filter(|last| *last > cursor && !begun.contains_key(last)));
    }
    // A run that was missed counts where nothing was passed over without a word.
    let skipped = schedule.catch_up != CatchUp::All && instants.after(cursor).is_some_and(|first| first <= late);
    if skipped && let Some(last) = instants.through(late) {
        let ran = begun.contains_key(&last) || fresh.contains(&last);
        let before = if ran { instants.through(last - 1) } else { Some(last) };
        let missed = before.filter(|missed| *missed > cursor && !begun.contains_key(missed));
        due.passed.extend(missed.map(|missed| (missed, "nobody could start it in time")));
    }
    while fresh.len() < DUE_MAX
        && let Some(next) = instants.after(from)
    {
        if next > wall {
            due.next = Some(next);
            break;
        }
        if !begun.contains_key(&next) {
            fresh.insert(next);
        }
        from = next;
    }
    due.next = due.next.or_else(|| instants.after(wall));
    let through = if fresh.len() < DUE_MAX { wall } else { from };
    sift(wall, schedule, &begun, fresh, &mut due);
    let first_open = due.run.iter().chain(&due.replaced).chain(&due.waits).min().map(|first| first - 1);
    due.settled = first_open.unwrap_or(through).min(through).max(cursor);
    // Where nothing was due there is nothing to write.
    let passed = due.passed.iter().map(|(instant, _)| *instant);
    let behind: BTreeSet<u64> = begun.keys().copied().chain(passed).filter(|one| *one <= due.settled).collect();
    let is_old = behind.first().is_some_and(|oldest| due.settled.saturating_sub(*oldest) >= SETTLED_MS);
    due.write = due.settled > cursor && (behind.len() >= SETTLED_MAX || is_old);
    due
}

/// Applies the rules for runs that overlap or come too late, the oldest first.
fn sift(wall: u64, schedule: &Schedule, begun: &BTreeMap<u64, Run>, fresh: BTreeSet<u64>, due: &mut Due) {
    let newest = begun.keys().next_back().copied().max(fresh.last().copied());
    let all: BTreeSet<u64> = begun.keys().copied().chain(fresh).collect();
    let mut open = 0;
    // Until when some earlier run went on; `MAX`: it does so still.
    let mut busy_until = 0;
    let mut undecided = false;
    for instant in all {
        let run = begun.get(&instant);
        if schedule.overlap == Overlap::Replace && Some(instant) != newest {
            match run {
                Some(run) if run.live => due.replaced.push(instant),
                Some(_) => {}
                None => due.passed.push((instant, "a later run has taken its place")),
            }
            continue;
        }
        if let Some(run) = run {
            if !run.settled {
                due.run.push(instant);
                open += 1;
            }
            busy_until = busy_until.max(if run.settled { run.ended } else { u64::MAX });
            continue;
        }
        // Runs that may not overlap begin one after the other: whoever began a later one had passed this one over. So all say
        // the same, though they heard of the end of the run before at times of their own.
        let was_passed =
            schedule.overlap == Overlap::Forbid && begun.keys().next_back().is_some_and(|last| *last > instant);
        let too_late = schedule.starting_deadline_ms.is_some_and(|most| wall.saturating_sub(instant) > most);
        if too_late {
            due.passed.push((instant, "it could not be started before its deadline"));
        } else if was_passed || schedule.overlap == Overlap::Forbid && busy_until > instant {
            due.passed.push((instant, "the run before it went on"));
        } else if open < RUNS_MAX && !undecided {
            due.run.push(instant);
            open += 1;
            // What comes after it cannot be told before it has begun.
            undecided = schedule.overlap == Overlap::Forbid;
        } else {
            due.waits.get_or_insert(instant);
        }
    }
}

/// What is known of the run of an instant.
#[derive(Debug)]
struct Run {
    /// Nothing more is to be done for it.
    settled: bool,
    live: bool,
    /// When the last of its tasks ended: wall clock, ms.
    ended: u64,
    /// How many tasks it has.
    size: u32,
}

fn begun(
    now: Now,
    spec: &ServiceSpec,
    claims: &Slots,
    cursor: u64,
    is_lost: impl Fn(&PeerId) -> bool,
) -> BTreeMap<u64, Run> {
    let mut runs: BTreeMap<u64, Vec<&Vec<ClaimEntry>>> = BTreeMap::new();
    for (slot, entries) in claims {
        if let Some(instant) = array::instant(slot).filter(|instant| *instant > cursor) {
            runs.entry(instant).or_default().push(entries);
        }
    }
    let of = |tasks: Vec<&Vec<ClaimEntry>>| {
        let stands = |entry: &&ClaimEntry| entry.claim.state.has_ended() || !is_lost(&entry.owner);
        let all = || tasks.iter().flat_map(|entries| entries.iter()).filter(stands);
        let live = all().any(|entry| !entry.claim.state.has_ended());
        let done = tasks.iter().all(|entries| array::last(spec, entries.iter().filter(stands)).is_some());
        // As its first claim says: its service may have another number by now.
        let first = tasks
            .iter()
            .flat_map(|entries| entries.iter())
            .min_by_key(|entry| (entry.claim.attempt, entry.claim.accepted_at));
        let size = first.map(|entry| entry.claim.of).filter(|of| *of > 0).unwrap_or_else(|| spec.run_size());
        let whole = tasks.len() >= size as usize;
        let ended = all().filter_map(|entry| entry.ended_at(now)).max().unwrap_or(0);
        Run { settled: done && whole, live, ended, size }
    };
    runs.into_iter().map(|(instant, tasks)| (instant, of(tasks))).collect()
}

/// The identity of a run: the same for whoever starts it, and a key for what must not be done twice.
pub fn run_id(app: &crate::ids::AppId, service: &str, run: &str) -> String {
    let name = format!("rialto run 1 {app}/{service}/{run}");
    crate::ids::hex(&blake3::hash(name.as_bytes()).as_bytes()[..16])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ids::{AppId, ClaimId, TaskId};
    use crate::model::{Claim, ClaimState, Restart};

    const DAY_MS: u64 = 86_400_000;
    /// So long nobody follows a steward that has died.
    const GAP_MS: u64 = 20_000;

    fn spec(cron: &str, catch_up: CatchUp, overlap: Overlap) -> (ServiceSpec, Schedule) {
        let schedule = Schedule { cron: cron.into(), catch_up, overlap, ..Schedule::default() };
        let spec =
            ServiceSpec { replicas: 1, restart: Restart::No, schedule: Some(schedule.clone()), ..Default::default() };
        (spec, schedule)
    }

    fn entry(instant: u64, started: u64, ended: Option<u64>) -> ClaimEntry {
        let app = AppId { namespace: "default".into(), name: "shop".into(), generation: 1 };
        let task = TaskId { app, service: "nightly".into(), slot: slot_of(instant) };
        let claim = Claim {
            id: ClaimId([1; 16]),
            task,
            attempt: 1,
            state: if ended.is_some() { ClaimState::Exited } else { ClaimState::Running },
            exit_code: ended.map(|_| 0),
            accepted_at: started,
            started_at: Some(started),
            ended_at: ended,
            ..Claim::default()
        };
        ClaimEntry { owner: PeerId([1; 32]), claim: Arc::new(claim), ended_ms: ended.unwrap_or(0) }
    }

    fn at(wall: u64) -> Now {
        Now { ms: wall, wall }
    }

    fn claims(all: &[(u64, u64, Option<u64>)]) -> Slots {
        let of = |(instant, started, ended): &(u64, u64, Option<u64>)| {
            (slot_of(*instant), vec![entry(*instant, *started, *ended)])
        };
        all.iter().map(of).collect()
    }

    #[test]
    fn what_was_missed_is_skipped_caught_up_by_one_or_by_all() {
        let minute = 60_000;
        for (catch_up, run) in [
            (CatchUp::Skip, vec![]),
            (CatchUp::Last, vec![9 * minute]),
            (CatchUp::All, (1..=9).map(|n| n * minute).collect()),
        ] {
            let (spec, schedule) = spec("* * * * *", catch_up, Overlap::Allow);
            let wall = 9 * minute + LATE_MS - 1;
            let late = due(at(wall + 1), &spec, &schedule, 1, &Slots::new(), |_| false);
            // At exactly a minute the tenth is due, and nobody is late for it.
            let all: Vec<u64> = run.iter().copied().chain([10 * minute]).collect();
            assert_eq!(late.run, all, "{catch_up:?}");
            assert_eq!(late.next, Some(11 * minute));
        }
    }

    #[test]
    fn a_deadline_passes_over_what_comes_too_late() {
        let (spec, mut schedule) = spec("* * * * *", CatchUp::All, Overlap::Allow);
        schedule.starting_deadline_ms = Some(90_000);
        let late = due(at(300_000), &spec, &schedule, 1, &Slots::new(), |_| false);
        assert_eq!(late.run, [240_000, 300_000]);
        assert_eq!(late.passed.len(), 3);
    }

    #[test]
    fn an_earlier_run_forbids_or_makes_room() {
        let (first, second) = (60_000, 120_000);
        let (spec_of, schedule) = spec("* * * * *", CatchUp::Last, Overlap::Forbid);
        let busy = due(at(second), &spec_of, &schedule, 1, &claims(&[(first, first, None)]), |_| false);
        assert_eq!((busy.run, busy.passed.len(), busy.settled), (vec![first], 1, first - 1));
        // When the first has ended since, the second stays passed over; and both are settled.
        let over =
            due(at(second + 30_000), &spec_of, &schedule, 1, &claims(&[(first, first, Some(second + 9_000))]), |_| {
                false
            });
        assert_eq!((over.run, over.settled), (vec![], second + 30_000));
        // Nor is it run when somebody else has passed it over and gone on to the third.
        let (third, ended) = (180_000, Some(second - 1));
        let gone_on = claims(&[(first, first, ended), (third, third, Some(third + 1))]);
        let passed = due(at(third + 30_000), &spec_of, &schedule, 1, &gone_on, |_| false);
        assert_eq!((passed.run, passed.passed.len()), (vec![], 1));
        let free = due(at(second), &spec_of, &schedule, 1, &claims(&[(first, first, Some(second - 9_000))]), |_| false);
        assert_eq!(free.run, [second]);
        let (spec_of, schedule) = spec("* * * * *", CatchUp::Last, Overlap::Replace);
        let replaces = due(at(second), &spec_of, &schedule, 1, &claims(&[(first, first, None)]), |_| false);
        assert_eq!((replaces.run, replaces.replaced), (vec![second], vec![first]));
    }

    #[test]
    fn who_is_suspended_runs_nothing_and_a_run_has_one_name() {
        let (mut spec, schedule) = spec("* * * * *", CatchUp::All, Overlap::Allow);
        spec.replicas = 0;
        assert_eq!(due(at(300_000), &spec, &schedule, 1, &Slots::new(), |_| false).run, [0; 0]);
        let app = AppId { namespace: "default".into(), name: "shop".into(), generation: 1 };
        assert_eq!(run_id(&app, "nightly", &slot_of(60_000)), run_id(&app, "nightly", "19700101t000100z"));
        assert_ne!(run_id(&app, "nightly", &slot_of(60_000)), run_id(&app, "nightly", &slot_of(120_000)));
    }

    /// One side of a cluster: the claims and the cursor that it knows of.
    #[derive(Clone, Default)]
    struct Side {
        claims: Slots,
        cursor: u64,
    }

    /// A year of a schedule under stewards that remember nothing but the ledger. Each week a steward dies, and none
    /// follows it for twenty seconds; each month the cluster is in two parts for an hour, and both run what is due. How
    /// often each instant was run, and how many instants there were.
    fn year(cron: &str, days: u64) -> (BTreeMap<u64, u32>, Vec<(u64, u64)>, u64) {
        let (spec, mut schedule) = spec(cron, CatchUp::All, Overlap::Allow);
        schedule.since = 1_767_225_600_000;
        let (mut wall, end) = (schedule.since, schedule.since + days * DAY_MS);
        let mut sides = vec![Side { cursor: schedule.since, ..Side::default() }];
        let mut runs: BTreeMap<u64, u32> = BTreeMap::new();
        let (mut splits, mut writes) = (Vec::new(), 0);
        while wall < end {
            let age = wall - schedule.since;
            let is_split = age % (30 * DAY_MS) > 29 * DAY_MS && age % DAY_MS < 3_600_000;
            if is_split && sides.len() == 1 {
                sides.push(sides[0].clone());
                splits.push((wall, wall));
            } else if !is_split && sides.len() == 2 {
                let other = sides.remove(1);
                sides[0].cursor = sides[0].cursor.max(other.cursor);
                for (slot, entries) in other.claims {
                    sides[0].claims.entry(slot).or_default().extend(entries);
                }
                splits.last_mut().expect("it began").1 = wall;
            }
            let mut next = u64::MAX;
            for side in &mut sides {
                let found = due(at(wall), &spec, &schedule, side.cursor, &side.claims, |_| false);
                for instant in &found.run {
                    *runs.entry(*instant).or_default() += 1;
                    side.claims.insert(slot_of(*instant), vec![entry(*instant, wall, Some(wall + 200))]);
                }
                if found.write {
                    (side.cursor, writes) = (found.settled, writes + 1);
                    // Machines forget what is an hour old and written down.
                    let cursor = side.cursor;
                    side.claims.retain(|slot, _| {
                        array::instant(slot).is_none_or(|at| at > cursor || wall.saturating_sub(at) < 3_600_000)
                    });
                }
                next = next.min(found.next.unwrap_or(end));
            }
            // Once a week the steward dies shortly before an instant.
            let dies = next / (7 * DAY_MS) > wall / (7 * DAY_MS);
            wall = next + if dies { GAP_MS } else { 0 };
        }
        (runs, splits, writes)
    }

    fn judge(cron: &str, days: u64) -> usize {
        let (runs, splits, writes) = year(cron, days);
        let (_, schedule) = spec(cron, CatchUp::All, Overlap::Allow);
        let instants = Instants::of(&schedule).unwrap();
        let (mut at, mut count, mut twice) = (1_767_225_600_000, 0, 0);
        let last = *runs.keys().next_back().unwrap();
        while let Some(next) = instants.after(at).filter(|next| *next <= last) {
            (at, count) = (next, count + 1);
            let times = runs.get(&next).copied().unwrap_or(0);
            // What waited for a new steward may have been begun in a split that was not there when it was due.
            let in_split = splits.iter().any(|(from, until)| (from.saturating_sub(GAP_MS)..=*until).contains(&next));
            assert!(times >= 1, "{} was never run", slot_of(next));
            assert!(times == 1 || in_split, "{} was run {times} times", slot_of(next));
            twice += usize::from(times > 1);
        }
        assert_eq!(runs.len(), count, "nothing was run that was not due");
        println!("{count} instants, {twice} of them twice in {} splits; {writes} cursors written", splits.len());
        count
    }

    #[test]
    fn a_simulated_year_runs_every_instant() {
        // The last instant is the end of the year, and of the world.
        assert_eq!(judge("*/30 * * * *", 365), 365 * 48 - 1);
    }

    /// `cargo test --release --workspace --lib -- --ignored a_year_of_minutes`
    #[test]
    #[ignore = "half a million instants take minutes"]
    fn a_year_of_minutes_runs_every_instant() {
        assert_eq!(judge("* * * * *", 365), 365 * 1_440 - 1);
    }
}
