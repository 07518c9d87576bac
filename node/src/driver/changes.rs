//! Telling those who watch that something has changed, without letting them watch the brain to death.
//!
//! Whoever is told looks again, and looks on the brain's own thread. So the next word waits until the
//! looks that followed the last one are at most a tenth of the time since: cheap looks are never
//! slowed, and costly ones of thousands of tasks never crowd out the work that they look at.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// Looking takes at most one part in so many of the brain's time.
const SHARE: u32 = 10;

pub struct Changes {
    count: watch::Sender<u64>,
    /// There is something to tell.
    pending: bool,
    told: Instant,
    /// Time spent on looks since then.
    looked: Duration,
}

impl Changes {
    pub fn new(count: watch::Sender<u64>) -> Self {
        Self { count, pending: false, told: Instant::now(), looked: Duration::ZERO }
    }

    /// Something has changed.
    pub fn note(&mut self) {
        self.pending = true;
    }

    /// Somebody has looked, and it took so long.
    pub fn looked(&mut self, took: Duration) {
        self.looked += took;
    }

    /// When watchers are to be told; `None`: there is nothing to tell.
    pub fn due(&self) -> Option<Instant> {
        self.pending.then(|| self.told + self.looked * SHARE)
    }

    /// Tells watchers, if it is time.
    pub fn tell(&mut self) {
        let now = Instant::now();
        if self.due().is_some_and(|due| due <= now) {
            (self.pending, self.told, self.looked) = (false, now, Duration::ZERO);
            self.count.send_modify(|count| *count += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costly_looks_delay_the_next_word() {
        let (count, seen) = watch::channel(0);
        let mut changes = Changes::new(count);
        changes.tell();
        assert_eq!(*seen.borrow(), 0, "nothing has changed");
        changes.note();
        changes.tell();
        assert_eq!(*seen.borrow(), 1);
        changes.note();
        changes.looked(Duration::from_secs(60));
        changes.tell();
        assert_eq!(*seen.borrow(), 1);
        assert!(changes.due().unwrap() > Instant::now() + Duration::from_secs(500));
    }
}
