//! What keys were before: for watchers that come late, and reads of the past. It is bounded, and forgets the oldest.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::cost;
use crate::kv::{KeyValue, Refusal};

/// The most changes that are remembered.
pub const CHANGES_MAX: usize = 10_000;
/// What they may come to, bytes.
pub const HISTORY_BYTES_MAX: usize = 16 << 20;

/// One key was written, or deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub revision: i64,
    /// What was written; none: it was deleted.
    pub key: Option<Arc<KeyValue>>,
    /// What it was before; none: it was not there.
    pub previous: Option<Arc<KeyValue>>,
}

impl Change {
    /// The key's name.
    pub fn name(&self) -> &[u8] {
        self.key.as_ref().or(self.previous.as_ref()).map_or(&[], |key| key.key.as_slice())
    }

    fn cost(&self) -> usize {
        [&self.key, &self.previous].into_iter().flatten().map(|key| cost(key)).sum()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct History {
    changes: VecDeque<Change>,
    bytes: usize,
    /// Changes up to this revision are forgotten.
    compacted: i64,
}

impl History {
    pub fn compacted(&self) -> i64 {
        self.compacted
    }

    pub fn last_revision(&self) -> Option<i64> {
        self.changes.back().map(|change| change.revision)
    }

    pub fn push(&mut self, change: Change) {
        self.bytes += change.cost();
        self.changes.push_back(change);
    }

    /// Forgets changes up to and with this revision.
    pub fn forget_to(&mut self, revision: i64) {
        self.compacted = self.compacted.max(revision);
        while let Some(oldest) = self.changes.front().filter(|oldest| oldest.revision <= revision) {
            self.bytes -= oldest.cost();
            self.changes.pop_front();
        }
    }

    /// Keeps the bounds; a revision is remembered whole or not at all.
    pub fn trim(&mut self) {
        while self.changes.len() > CHANGES_MAX || self.bytes > HISTORY_BYTES_MAX {
            let Some(oldest) = self.changes.front() else { return };
            self.forget_to(oldest.revision);
        }
    }

    pub fn since(&self, from: i64, at_most: usize) -> Result<Vec<Change>, Refusal> {
        if from <= self.compacted {
            return Err(Refusal::Compacted);
        }
        let first = self.changes.partition_point(|change| change.revision < from);
        let mut found: Vec<Change> = Vec::new();
        for change in self.changes.range(first..) {
            let is_next = found.last().is_some_and(|last| last.revision < change.revision);
            if is_next && found.len() >= at_most {
                break;
            }
            found.push(change.clone());
        }
        Ok(found)
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The changes behind this revision, the newest first.
    pub fn back_to(&self, revision: i64) -> impl Iterator<Item = &Change> {
        self.changes.iter().rev().take_while(move |change| change.revision > revision)
    }
}
