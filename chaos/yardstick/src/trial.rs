//! What is done to a cluster, and what is found out about it.

use std::collections::BTreeMap;

use crate::detector::{Detector, Down};

/// Everybody has found everybody by then, µs.
const WARM_UP_US: u64 = 20_000_000;
/// A crash is watched for so long before what is not detected counts as missed, µs.
const WATCH_US: u64 = 60_000_000;
/// One crash follows the other after this, µs.
const BETWEEN_US: u64 = 7_300_000;
/// The paused pause anew after this, µs.
const PAUSES_US: u64 = 31_000_000;
/// One that has just woken is not held against anybody, µs.
const AWAKE_US: u64 = 5_000_000;
/// Verdicts of one machine within this time are one, µs.
const VERDICT_US: u64 = 30_000_000;

/// What happens to a cluster.
#[derive(Clone, Copy, Debug)]
pub enum Plan {
    /// So many machines lose power, one after the other.
    Crashes(usize),
    /// So many lose power at once.
    MassDeath(usize),
    /// Nothing, for so long.
    Rest { ms: u64 },
}

/// What a machine's surroundings are like.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    /// The share of all packets that is lost.
    pub loss: f64,
    /// Every hundredth machine, but one at least, loses this share of what it receives.
    pub deaf: f64,
    /// Every hundredth machine, but one at least, pauses for 5 to 30 s, then others do.
    pub pauses: bool,
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Trial {
    pub name: String,
    pub machines: usize,
    pub plan: Plan,
    pub weather: Weather,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// From each death until each survivor held the dead for down, s, in order.
    pub detected_s: Vec<f64>,
    /// Survivors that did not find a death out within a minute.
    pub missed: usize,
    /// Machines without fault that were held for down, and by how many in all.
    pub false_downs: (usize, usize),
    /// The same of machines that hear badly, which may well be held for down, and by those: they see too little
    /// to know better.
    pub deaf_downs: (usize, usize),
    /// Virtual time, s.
    pub lasted_s: f64,
    /// Standing links of a machine before anything happened: the fewest, the mean, the most.
    pub links: Option<(usize, f64, usize)>,
    pub costs: Vec<(&'static str, u64)>,
}

impl Outcome {
    /// The time within which this share of all was found out; `None`: there was nothing to find.
    pub fn within_s(&self, share: f64) -> Option<f64> {
        let all = self.detected_s.len() + self.missed;
        let rank = (share * all as f64).ceil() as usize;
        (all > 0).then(|| self.detected_s.get(rank.max(1) - 1).copied().unwrap_or(f64::INFINITY))
    }
}

/// What was done to the machines.
#[derive(Default)]
struct Done {
    dead_us: BTreeMap<usize, u64>,
    deaf: Vec<usize>,
    /// From, until.
    paused_us: BTreeMap<usize, Vec<(u64, u64)>>,
}

/// Does to a cluster what the trial says.
pub fn run(trial: &Trial, cluster: &mut dyn Detector) -> Outcome {
    let mut done = Done::default();
    cluster.run_until(cluster.now_us() + WARM_UP_US);
    cluster.downs();
    let links = cluster.links();
    let began_us = cluster.now_us();
    cluster.air().loss = trial.weather.loss;
    let hundredth = (trial.machines / 100).max(1);
    if trial.weather.deaf > 0.0 {
        done.deaf = cluster.air().dice.sample(trial.machines, hundredth);
        for machine in &done.deaf {
            cluster.air().deafen(*machine, trial.weather.deaf);
        }
    }
    let mut deaths = deaths(trial, cluster, &done);
    let last_us = deaths.last().map_or(began_us, |(at_us, _)| *at_us);
    let end_us = match trial.plan {
        Plan::Rest { ms } => began_us + ms * 1000,
        _ => last_us + WATCH_US,
    };
    let mut pause_us = if trial.weather.pauses { began_us } else { u64::MAX };
    deaths.reverse();
    loop {
        let death_us = deaths.last().map_or(u64::MAX, |(at_us, _)| *at_us);
        let next_us = death_us.min(pause_us).min(end_us);
        cluster.run_until(next_us);
        if next_us == end_us {
            break;
        } else if next_us == pause_us {
            pause_us += PAUSES_US;
            pause_some(cluster, &mut done, hundredth, trial.machines);
        } else if let Some((at_us, machine)) = deaths.pop() {
            cluster.kill(machine);
            done.dead_us.insert(machine, at_us);
        }
    }
    Outcome { links, ..judge(trial, cluster, &done, began_us) }
}

/// Who dies when, in order.
fn deaths(trial: &Trial, cluster: &mut dyn Detector, done: &Done) -> Vec<(u64, usize)> {
    let first_us = cluster.now_us() + BETWEEN_US;
    let mut machines = cluster.air().dice.sample(trial.machines, trial.machines);
    machines.retain(|machine| !done.deaf.contains(machine));
    match trial.plan {
        Plan::Rest { .. } => Vec::new(),
        Plan::MassDeath(count) => machines.into_iter().take(count).map(|machine| (first_us, machine)).collect(),
        Plan::Crashes(count) => {
            let turns = machines.into_iter().take(count).enumerate();
            turns.map(|(nth, machine)| (first_us + nth as u64 * BETWEEN_US, machine)).collect()
        }
    }
}

fn pause_some(cluster: &mut dyn Detector, done: &mut Done, count: usize, machines: usize) {
    let now_us = cluster.now_us();
    for machine in cluster.air().dice.sample(machines, count) {
        let ms = cluster.air().dice.between(5_000, 30_000);
        if !done.dead_us.contains_key(&machine) {
            cluster.pause(machine, ms);
            done.paused_us.entry(machine).or_default().push((now_us, now_us + ms * 1000));
        }
    }
}

fn judge(trial: &Trial, cluster: &mut dyn Detector, done: &Done, began_us: u64) -> Outcome {
    let end_us = cluster.now_us();
    let (mut first_us, mut falsely, mut deaf) = (BTreeMap::new(), Vec::new(), Vec::new());
    for down in cluster.downs() {
        if done.dead_us.get(&down.of).is_some_and(|dead_us| *dead_us <= down.at_us) {
            first_us.entry((down.of, down.by)).or_insert(down.at_us);
        } else if done.deaf.contains(&down.of) || done.deaf.contains(&down.by) {
            deaf.push(down);
        } else if !was_paused(done, &down) {
            falsely.push(down);
        }
    }
    let mut outcome = Outcome {
        false_downs: verdicts(&falsely),
        deaf_downs: verdicts(&deaf),
        lasted_s: (end_us - began_us) as f64 / 1e6,
        costs: cluster.costs(),
        ..Outcome::default()
    };
    let paused_now = |machine: usize| done.paused_us.get(&machine).is_some_and(|all| all.iter().any(|p| p.1 >= end_us));
    let survivors = |by: &usize| !done.dead_us.contains_key(by) && !done.deaf.contains(by) && !paused_now(*by);
    for (dead, dead_us) in &done.dead_us {
        for by in (0..trial.machines).filter(survivors) {
            if paused_since(done, by, *dead_us) {
                // One that slept meanwhile could not have known.
                continue;
            }
            match first_us.get(&(*dead, by)).filter(|_| cluster.holds_down(by, *dead)) {
                Some(at_us) => outcome.detected_s.push((at_us - dead_us) as f64 / 1e6),
                None => outcome.missed += 1,
            }
        }
    }
    outcome.detected_s.sort_by(f64::total_cmp);
    outcome
}

/// Whether a machine that was held for down had been paused just before.
fn was_paused(done: &Done, down: &Down) -> bool {
    let around = |(from, until): &(u64, u64)| (*from..until + AWAKE_US).contains(&down.at_us);
    done.paused_us.get(&down.of).is_some_and(|all| all.iter().any(around))
}

/// Whether a machine was paused when another died, or within half a minute after.
fn paused_since(done: &Done, machine: usize, since_us: u64) -> bool {
    let overlaps = |(from, until): &(u64, u64)| *until > since_us && *from < since_us + VERDICT_US;
    done.paused_us.get(&machine).is_some_and(|all| all.iter().any(overlaps))
}

/// Of those held for down, how many verdicts that were, and by how many they were held.
fn verdicts(downs: &[Down]) -> (usize, usize) {
    let mut last_us: BTreeMap<usize, u64> = BTreeMap::new();
    let mut verdicts = 0;
    for down in downs {
        let last = last_us.insert(down.of, down.at_us);
        verdicts += usize::from(last.is_none_or(|last| down.at_us > last + VERDICT_US));
    }
    (verdicts, downs.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ours, swim};

    fn trial(plan: Plan, weather: Weather) -> Trial {
        Trial { name: String::new(), machines: 20, plan, weather }
    }

    #[test]
    fn both_find_a_crash_and_accuse_nobody_else() {
        let trial = trial(Plan::Crashes(2), Weather::default());
        for cluster in [&mut ours::Cluster::new(20, 1) as &mut dyn Detector, &mut swim::Cluster::new(20, 1)] {
            let outcome = run(&trial, cluster);
            assert_eq!((outcome.detected_s.len(), outcome.missed, outcome.false_downs.0), (36, 0, 0));
            assert!(outcome.within_s(1.0).is_some_and(|s| s > 1.0 && s < 20.0), "{outcome:?}");
        }
    }

    #[test]
    fn ours_holds_nobody_for_down_falsely_at_a_fifth_lost_or_while_others_pause() {
        for weather in [
            Weather { loss: 0.2, ..Weather::default() },
            Weather { pauses: true, ..Weather::default() },
            Weather { deaf: 0.8, ..Weather::default() },
        ] {
            let outcome = run(&trial(Plan::Rest { ms: 120_000 }, weather), &mut ours::Cluster::new(20, 2));
            assert_eq!(outcome.false_downs, (0, 0), "{weather:?}");
        }
    }

    #[test]
    fn what_is_missed_lies_beyond_all_that_is_found() {
        let outcome = Outcome { detected_s: vec![1.0, 2.0, 3.0], missed: 1, ..Outcome::default() };
        assert_eq!(outcome.within_s(0.5), Some(2.0));
        assert_eq!(outcome.within_s(0.99), Some(f64::INFINITY));
        assert_eq!(Outcome::default().within_s(0.5), None);
    }
}
