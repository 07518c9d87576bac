//! The simulator: the production brain in a virtual world.
//!
//! A world is a queue of happenings, ordered by virtual time and then by when they were scheduled.
//! Each machine has a brain, a disk, an executor and clocks of its own; the network between them
//! delays, loses, doubles, reorders and cuts as its weather and the faults say. Nothing here reads
//! a real clock or a real source of chance: the seed is all there is, and one seed gives one story.

pub mod dice;
pub mod disk;
pub mod executor;
mod joining;
mod links;
pub mod machine;
pub mod many;
mod narrate;
pub mod network;
mod perform;
pub mod run;
pub mod scenario;
pub mod signing;
pub mod trace;
pub mod world;

pub use dice::Dice;
pub use many::{Ran, run_many};
pub use run::{Outcome, Settings, run};
pub use scenario::Scenario;
pub use world::{Plant, World};
