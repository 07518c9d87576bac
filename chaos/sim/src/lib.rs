//! The simulator: the production brain in a virtual world.
//!
//! A seed decides what people ask for ([`workload`]), what breaks and when ([`faults`]), and what the
//! promises of the design say about it ([`invariants`], [`oracle`]) is checked as it goes. What fails,
//! fails again under the same seed.
//!
//! A world is a queue of happenings, ordered by virtual time and then by when they were scheduled.
//! Each machine has a brain, a disk, an executor and clocks of its own; the network between them
//! delays, loses, doubles, reorders and cuts as its weather and the faults say. Nothing here reads
//! a real clock or a real source of chance: the seed is all there is, and one seed gives one story.

mod changes;
pub mod dice;
mod disasters;
pub mod disk;
pub mod executor;
pub mod faults;
pub mod foresee;
mod hostile;
pub mod invariants;
mod joining;
mod leases;
mod links;
pub mod machine;
pub mod many;
mod narrate;
pub mod network;
pub mod oracle;
mod perform;
pub mod plants;
pub mod run;
mod rush;
pub mod scenario;
pub mod signing;
pub mod size;
mod steps;
pub mod trace;
pub mod workload;
pub mod world;

pub use dice::Dice;
pub use many::{Ran, run_many};
pub use plants::Plant;
pub use run::{Outcome, Settings, run};
pub use scenario::Scenario;
pub use world::World;
