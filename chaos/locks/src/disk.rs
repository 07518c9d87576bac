//! A disk: what was not on it yet when its machine lost power is gone. What comes while it writes it writes next, all at
//! once, as the peers' does.

use std::collections::VecDeque;

use rialto_locks::consensus::{Saved, Writes};

#[derive(Default)]
pub struct Disk {
    /// What survives.
    pub safe: Saved,
    /// What is on its way, in order.
    queue: VecDeque<Writes>,
    /// So many of them are being written now.
    writing: usize,
}

impl Disk {
    /// Takes a write; true: it begins to write now.
    pub fn take(&mut self, writes: Writes) -> bool {
        self.queue.push_back(writes);
        self.writing == 0 && self.begin()
    }

    fn begin(&mut self) -> bool {
        self.writing = self.queue.len();
        self.writing > 0
    }

    /// What it wrote is safe now: the highest number of it. True: it begins to write what has come meanwhile.
    pub fn sync(&mut self) -> (u64, bool) {
        let mut number = 0;
        for writes in self.queue.drain(..self.writing) {
            self.safe.write(&writes);
            number = number.max(writes.number);
        }
        (number, self.begin())
    }

    /// Power is lost.
    pub fn crash(&mut self) {
        self.queue.clear();
        self.writing = 0;
    }
}
