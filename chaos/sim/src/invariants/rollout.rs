//! A change never leaves fewer tasks running than its policy allows: of those wanted all but one batch.

use crate::World;
use crate::executor::Phase;

/// How many slots of a service have a container that runs.
pub fn running(world: &World, app: &str, service: &str) -> usize {
    let live = world.machines.iter().flat_map(|machine| machine.executor.live.values());
    let of = live.filter(|one| one.spec.task.app.name == app && one.spec.task.service == service);
    let slots = of.filter(|one| one.phase == Phase::Running).map(|one| one.spec.task.slot.clone());
    slots.collect::<std::collections::BTreeSet<String>>().len()
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
