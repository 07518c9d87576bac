//! The log in memory, as the library reads it.

use std::collections::VecDeque;

use prost::Message as _;
use prost_of_raft as prost;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::util::limit_size;
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::{Damaged, Saved};

/// Entries that are kept behind a snapshot, for voters that lag a little.
const ENTRIES_KEPT: u64 = 1024;
const ENTRIES_KEPT_BYTES: usize = 8 << 20;

/// The log in memory: what Raft reads. What is on the disk is at most behind it.
#[derive(Default)]
pub struct Log {
    pub hard: HardState,
    pub snapshot: Snapshot,
    /// Behind `trimmed`, without gaps.
    entries: VecDeque<Entry>,
    /// Index and term of the last entry that is not here any more.
    trimmed: (u64, u64),
}

impl Log {
    pub fn restore(saved: &Saved) -> Result<Self, Damaged> {
        let damaged = |error: prost::DecodeError| Damaged(error.to_string());
        let mut log = Self::default();
        if let Some(hard) = &saved.hard {
            log.hard = HardState::decode(hard.as_slice()).map_err(damaged)?;
        }
        if let Some(snapshot) = &saved.snapshot {
            log.snapshot = Snapshot::decode(snapshot.as_slice()).map_err(damaged)?;
        }
        let metadata = log.snapshot.get_metadata();
        let (index, term) = (metadata.index, metadata.term);
        log.trimmed = (index, term);
        for (at, bytes) in &saved.entries {
            let entry = Entry::decode(bytes.as_slice()).map_err(damaged)?;
            let expected = log.entries.back().map(|last| last.index + 1);
            if entry.index != *at || expected.is_some_and(|expected| expected != *at) {
                return Err(Damaged(format!("entry {at} is not where it belongs")));
            }
            log.entries.push_back(entry);
        }
        let Some(first) = log.entries.front().map(|entry| entry.index) else { return Ok(log) };
        if first > index + 1 {
            return Err(Damaged(format!("entries {} to {} are missing", index + 1, first - 1)));
        }
        if first <= index {
            // Those up to the snapshot are kept for others; the first of them tells the term of what went before.
            let term = log.entries.pop_front().map_or(0, |entry| entry.term);
            log.trimmed = (first, term);
        }
        Ok(log)
    }

    pub fn last(&self) -> u64 {
        self.entries.back().map_or(self.trimmed.0, |entry| entry.index)
    }

    pub fn install(&mut self, snapshot: Snapshot) {
        let metadata = snapshot.get_metadata();
        self.trimmed = (metadata.index, metadata.term);
        self.entries.clear();
        self.snapshot = snapshot;
    }

    pub fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        self.entries.truncate(first.saturating_sub(self.trimmed.0 + 1) as usize);
        self.entries.extend(entries);
    }

    /// The last entry that nobody needs who lags but a little.
    pub fn keep_from(&self, applied: u64) -> u64 {
        let behind = self.entries.iter().rev().skip_while(|entry| entry.index > applied);
        let mut bytes = 0;
        let kept = behind.take(ENTRIES_KEPT as usize).take_while(|entry| {
            bytes += entry.data.len();
            bytes <= ENTRIES_KEPT_BYTES
        });
        applied - kept.count() as u64
    }

    pub fn trim(&mut self, to: u64) {
        while let Some(entry) = self.entries.front().filter(|entry| entry.index <= to) {
            self.trimmed = (entry.index, entry.term);
            self.entries.pop_front();
        }
    }
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let conf: ConfState = self.snapshot.get_metadata().get_conf_state().clone();
        Ok(RaftState { hard_state: self.hard.clone(), conf_state: conf })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.trimmed.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let at = |index: u64| (index - self.trimmed.0 - 1) as usize;
        if at(high) > self.entries.len() {
            return Err(raft::Error::Store(StorageError::Unavailable));
        }
        let mut found: Vec<Entry> = self.entries.range(at(low)..at(high)).cloned().collect();
        limit_size(&mut found, max_size.into());
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let metadata = self.snapshot.get_metadata();
        match index {
            index if index == self.trimmed.0 => Ok(self.trimmed.1),
            index if index == metadata.index => Ok(metadata.term),
            index if index < self.trimmed.0 => Err(raft::Error::Store(StorageError::Compacted)),
            index => {
                let entry = self.entries.get((index - self.trimmed.0 - 1) as usize);
                entry.map(|entry| entry.term).ok_or(raft::Error::Store(StorageError::Unavailable))
            }
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.trimmed.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, _: u64) -> raft::Result<Snapshot> {
        if self.snapshot.get_metadata().index < request_index {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        Ok(self.snapshot.clone())
    }
}
