//! What is measured of either: a cluster that watches over itself.

use crate::air::Air;

/// A machine holds another for down from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Down {
    pub at_us: u64,
    pub by: usize,
    pub of: usize,
}

/// A whole cluster in virtual time. All its machines know each other from the beginning.
pub trait Detector {
    fn now_us(&self) -> u64;

    /// Lets everything happen through this time.
    fn run_until(&mut self, until_us: u64);

    fn air(&mut self) -> &mut Air;

    /// A machine loses its power: it says nothing any more, and nothing tells of that.
    fn kill(&mut self, machine: usize);

    /// A process is stopped for a while, as SIGSTOP does: its kernel goes on, and keeps what comes.
    fn pause(&mut self, machine: usize, ms: u64);

    /// Whether one machine holds another for down now.
    fn holds_down(&self, by: usize, of: usize) -> bool;

    /// All that were held for down since this was asked last.
    fn downs(&mut self) -> Vec<Down>;

    /// Standing links of a machine: the fewest, the mean, the most. `None`: it keeps none.
    fn links(&self) -> Option<(usize, f64, usize)>;

    /// Counts that say what the detecting cost: name and number.
    fn costs(&self) -> Vec<(&'static str, u64)>;
}
