//! The lock group in a virtual world: the replicas that peers run, on virtual machines with disks that forget, wires
//! that lose, clocks that drift and processors that stop; people who write, read, and queue for a lock; and what has
//! to hold of all that whatever happens:
//!
//! - what each key was seen to be is linearizable ([`linear`]);
//! - nobody holds the lock while another believes to hold it, and each holder's token is higher than the last's;
//! - replicas that have applied as much hold the same bytes;
//! - when all is well again everybody is served.

mod clients;
mod disk;
mod faults;
pub mod history;
pub mod linear;
mod lock;
mod world;

pub use faults::Only;
pub use world::{Outcome, Settings, run};
