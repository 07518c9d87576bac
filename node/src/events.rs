//! What happened, as this peer saw it: a bounded memory for people.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use rialto_protocol::effect::Note;
use tokio::sync::watch;

/// Events that are remembered; the oldest goes first.
pub const EVENTS_MAX: usize = 10_000;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedEvent {
    /// Counts from 1 since the peer started.
    pub id: u64,
    /// Wall clock, ms since 1970.
    pub at: u64,
    /// A word: `deployed`, `placed`, `exited`, `lost`, `overlap`, `down`, …
    pub what: String,
    /// An app, a task or a machine by name.
    pub subject: String,
    pub text: String,
}

/// The memory; cloning gives another door to it.
#[derive(Clone, Debug)]
pub struct EventLog {
    ring: Arc<Mutex<Ring>>,
    last: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    last: u64,
    events: VecDeque<Arc<LoggedEvent>>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self { ring: Arc::default(), last: watch::Sender::new(0) }
    }
}

impl EventLog {
    /// Remembers a note that was made at `at` (wall clock, ms).
    pub fn push(&self, note: Note, at: u64) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.last += 1;
        let Note { what, subject, text } = note;
        let event = Arc::new(LoggedEvent { id: ring.last, at, what: what.into(), subject, text });
        if ring.events.len() == EVENTS_MAX {
            ring.events.pop_front();
        }
        ring.events.push_back(event);
        // Told under the lock, so that the number never falls.
        self.last.send_replace(ring.last);
    }

    /// The remembered events with a number above `after`, oldest first; of more than `most` the newest.
    pub fn after(&self, after: u64, most: usize) -> Vec<Arc<LoggedEvent>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let first = ring.events.partition_point(|event| event.id <= after);
        let first = first.max(ring.events.len().saturating_sub(most));
        ring.events.range(first..).cloned().collect()
    }

    /// The number of the newest event: a follower waits for it to rise, and asks
    /// [`EventLog::after`] for what it has not seen.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(n: usize) -> Note {
        Note { what: "placed", subject: format!("web.{n}"), text: String::new() }
    }

    #[test]
    fn the_oldest_goes_first_and_numbers_rise() {
        let log = EventLog::default();
        let follower = log.changes();
        (1..=EVENTS_MAX + 5).for_each(|n| log.push(note(n), n as u64));
        let all = log.after(0, usize::MAX);
        assert_eq!((all.len(), all[0].id), (EVENTS_MAX, 6));
        assert_eq!(log.after(EVENTS_MAX as u64, 3).iter().map(|e| e.id % 10).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(*follower.borrow(), EVENTS_MAX as u64 + 5);
    }
}
