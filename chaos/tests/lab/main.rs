//! The lab: three real peers, each on a machine of its own in network namespaces, real containers,
//! and everything that can go wrong with them. Needs root; says so and passes where it is not.
//!
//! Tests run one after another whatever the number of threads: they promise times, and two clusters
//! that share two cores keep no promise.

mod lab_wires;

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rialto_chaos::netns::{Lab, can_build};

static TURN: Mutex<()> = Mutex::new(());

/// The right to run now; none, with the reason printed, where no lab can be.
pub fn turn() -> Option<MutexGuard<'static, ()>> {
    // A test that failed has cleaned up after itself: the next one may go on.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    match can_build() {
        Ok(()) => Some(turn),
        Err(reason) => {
            // Not `eprintln!`: the test runner hides what a passing test prints.
            writeln!(std::io::stderr(), "skipped: {reason}").ok();
            None
        }
    }
}

/// `count` machines with nothing on them.
pub fn bare(count: usize) -> Option<(MutexGuard<'static, ()>, Lab)> {
    let turn = turn()?;
    Some((turn, Lab::bare(count).expect("machines")))
}
