//! A change never leaves fewer tasks running than its policy allows: of those wanted all but one batch.

use std::collections::{BTreeMap, BTreeSet};

use rialto_protocol::model::{RolloutPolicy, Sequence};

use crate::World;
use crate::executor::Phase;

/// How many slots of a service have a container that runs.
pub fn running(world: &World, app: &str, service: &str) -> usize {
    running_with(world, app, service, &BTreeMap::new())
}

/// How many of them have one that was told all of this.
pub fn running_with(world: &World, app: &str, service: &str, told: &BTreeMap<String, String>) -> usize {
    let live = world.machines.iter().flat_map(|machine| machine.executor.live.values());
    let of = live.filter(|one| one.spec.task.app.name == app && one.spec.task.service == service);
    let of = of.filter(|one| told.iter().all(|(key, value)| one.spec.environment.get(key) == Some(value)));
    let slots = of.filter(|one| one.phase == Phase::Running).map(|one| one.spec.task.slot.clone());
    slots.collect::<BTreeSet<String>>().len()
}

/// How many of so many tasks a change may take away at once. `is_bad`: what is new ends as soon as it runs, and then it
/// helps nobody that it started first.
pub fn at_once(policy: &RolloutPolicy, wanted: usize, is_bad: bool) -> usize {
    let of = |back: bool| {
        let pace = policy.pace(back);
        match (pace.parallelism, pace.order) {
            (_, Sequence::StartFirst) if !is_bad => 0,
            (0, _) => wanted,
            (some, _) => (some as usize).min(wanted),
        }
    };
    match is_bad {
        // A task that ends as soon as it runs has served for a moment: by the time that anybody hears of its end the next
        // batch has begun. And what fails may be taken back, at the pace of that.
        true => (2 * of(false).max(of(true))).min(wanted),
        false => of(false),
    }
}

/// Whether too few run.
pub fn too_few(world: &World, app: &str, service: &str, wanted: usize, at_once: usize) -> Result<(), String> {
    let running = running(world, app, service);
    match running + at_once < wanted {
        true => {
            Err(format!("{running} of {wanted} tasks of {app}.{service} run, and at most {at_once} may be missing"))
        }
        false => Ok(()),
    }
}
