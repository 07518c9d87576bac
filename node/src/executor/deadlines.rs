//! Until when tasks may run that have a lease: told by whoever keeps the leases, heard by whoever holds the tasks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rialto_protocol::ids::ClaimId;
use tokio::sync::watch;

/// The deadline of each task that has one, by the boot-time clock, ms. Their number is that of the machine's claims.
#[derive(Clone, Default)]
pub struct Deadlines(Arc<Mutex<BTreeMap<ClaimId, watch::Sender<Option<u64>>>>>);

impl Deadlines {
    /// A task may run until then.
    pub fn set(&self, claim: ClaimId, until_ms: u64) {
        self.with(claim, |told| {
            told.send_replace(Some(until_ms));
        });
    }

    /// A task is gone.
    pub fn forget(&self, claim: &ClaimId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(claim);
    }

    /// Hears of each new deadline of a task; `None` while it has none.
    pub fn of(&self, claim: ClaimId) -> watch::Receiver<Option<u64>> {
        self.with(claim, |told| told.subscribe())
    }

    fn with<T>(&self, claim: ClaimId, act: impl FnOnce(&watch::Sender<Option<u64>>) -> T) -> T {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        act(all.entry(claim).or_default())
    }
}
