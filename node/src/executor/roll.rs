//! The roll of this machine's tasks: who is on it, how each fares, and what is wished of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::ClaimId;
use tokio::sync::watch;
use tokio::time::Instant;

/// How far a task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has no shim yet.
    Starting,
    /// It has, or had until a moment ago.
    Live,
    /// Its container is gone.
    Ended,
}

/// What is wished of a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// It shall be gone by then.
    pub gone_by: Option<Instant>,
    /// Nothing shall be left of it.
    pub forget: bool,
}

struct Entry {
    last: TaskReport,
    phase: watch::Sender<Phase>,
    wish: watch::Sender<Wish>,
}

/// All tasks between their start and their being forgotten. Their number is the brain's to bound.
#[derive(Default)]
pub struct Roll(Mutex<BTreeMap<ClaimId, Entry>>);

impl Roll {
    /// Puts a task on it; `Err` with the last report where it is on it already.
    pub fn enter(&self, claim: ClaimId, phase: Phase, first: TaskReport) -> Result<watch::Receiver<Wish>, TaskReport> {
        let mut entries = self.entries();
        if let Some(entry) = entries.get(&claim) {
            return Err(entry.last.clone());
        }
        let (wish, wished) = watch::channel(Wish::default());
        entries.insert(claim, Entry { last: first, phase: watch::Sender::new(phase), wish });
        Ok(wished)
    }

    /// Notes how a task fares; whether that is news.
    pub fn note(&self, claim: ClaimId, phase: Phase, report: &TaskReport) -> bool {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&claim) else { return true };
        let is_news = entry.last != *report;
        entry.last = report.clone();
        entry.phase.send_replace(phase);
        is_news
    }

    /// Wishes for a task's end; the earlier of two ends holds. `Err` where nobody is there to hear
    /// of it: with the last report of an ended task, with none for one that was never here.
    pub fn wish(&self, claim: ClaimId, gone_by: Instant, forget: bool) -> Result<(), Option<TaskReport>> {
        let entries = self.entries();
        let entry = entries.get(&claim).ok_or(None)?;
        if *entry.phase.borrow() == Phase::Ended {
            return Err(Some(entry.last.clone()));
        }
        entry.wish.send_modify(|wish| {
            wish.gone_by = Some(wish.gone_by.map_or(gone_by, |earlier| earlier.min(gone_by)));
            wish.forget |= forget;
        });
        Ok(())
    }

    /// Takes a task off it.
    pub fn strike(&self, claim: ClaimId) {
        self.entries().remove(&claim);
    }

    /// How far a task is.
    pub fn phase(&self, claim: ClaimId) -> Option<Phase> {
        self.entries().get(&claim).map(|entry| *entry.phase.borrow())
    }

    /// The same, to be watched.
    pub fn watch(&self, claim: ClaimId) -> Option<watch::Receiver<Phase>> {
        self.entries().get(&claim).map(|entry| entry.phase.subscribe())
    }

    /// Those whose containers are not gone.
    pub fn alive(&self) -> Vec<ClaimId> {
        let entries = self.entries();
        entries.iter().filter(|(_, entry)| *entry.phase.borrow() != Phase::Ended).map(|(claim, _)| *claim).collect()
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<ClaimId, Entry>> {
        // Nothing is done under the lock that could leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
