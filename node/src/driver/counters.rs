//! Bad input, counted by kind and told of once in a while.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rialto_protocol::ids::PeerId;

/// One line a kind in this time, at most.
const SILENCE: Duration = Duration::from_secs(10);

/// The counters; cloning gives another door to them. Kinds are few and fixed.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
    told: Arc<Mutex<HashMap<&'static str, (Instant, u64)>>>,
}

impl Counters {
    /// Counts one, and says so unless that was said a moment ago.
    pub fn count(&self, what: &'static str, peer: Option<PeerId>) {
        let total = {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            match counts.get_mut(what) {
                Some(count) => {
                    *count += 1;
                    *count
                }
                None => {
                    counts.insert(what.to_owned(), 1);
                    1
                }
            }
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match told.get(what) {
            Some((at, _)) if now.duration_since(*at) < SILENCE => (),
            last => {
                let since = total - last.map_or(0, |(_, total)| *total);
                let from = peer.map_or_else(|| "somebody".to_owned(), |peer| peer.to_string());
                tracing::warn!(what, %from, since, total, "refused what came");
                told.insert(what, (now, total));
            }
        }
    }

    /// Takes over what is counted elsewhere.
    pub fn set(&self, counts: BTreeMap<String, u64>) {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).extend(counts);
    }

    /// The counters themselves, for those who show them.
    pub fn shared(&self) -> Arc<Mutex<BTreeMap<String, u64>>> {
        self.counts.clone()
    }
}
