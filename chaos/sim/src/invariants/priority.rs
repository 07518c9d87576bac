//! What goes first gets room first: among tasks that wait for the same, none of a lower rank starts before all of a
//! higher one.

use crate::World;

/// An app whose tasks wait, each for the same room.
#[derive(Clone, Debug)]
pub struct Contender {
    pub app: String,
    pub priority: i32,
    pub tasks: usize,
}

impl Contender {
    /// How many containers it has.
    pub fn has(&self, world: &World) -> usize {
        world.machines.iter().map(|machine| machine.executor.of_app(&self.app)).sum()
    }
}

/// The first contender that has what a higher one still waits for.
pub fn out_of_turn(world: &World, contenders: &[Contender]) -> Option<String> {
    let waits = contenders.iter().filter(|one| one.has(world) < one.tasks).max_by_key(|one| one.priority)?;
    let other = contenders.iter().find(|other| other.priority < waits.priority && other.has(world) > 0)?;
    Some(format!(
        "{} of priority {} has {} of {} tasks while {} of priority {} has {} of {}",
        other.app,
        other.priority,
        other.has(world),
        other.tasks,
        waits.app,
        waits.priority,
        waits.has(world),
        waits.tasks
    ))
}
