//! The log's disk: redb, on a thread of its own that writes at once whatever has come meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use rialto_locks::consensus::{Saved, Writes};
use tokio::sync::mpsc::UnboundedSender;

/// The file's name in its folder.
pub const FILE: &str = "locks.redb";

const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
const HARD: &str = "hard";
const SNAPSHOT: &str = "snapshot";
const EPOCH: &str = "epoch";
/// The epoch of the first group, and of whoever knows of none.
const FIRST_EPOCH: u64 = 1;
/// Pages that redb keeps in memory, bytes: everything is read once.
const CACHE_BYTES: usize = 1 << 20;
/// The most writes of one transaction.
const GROUP_MAX: usize = 1024;

/// Why the log could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
    #[error("the lock group's log {path} cannot be opened: {reason}")]
    Open { path: PathBuf, reason: String },
    #[error("the lock group's log cannot be written: {0}")]
    Write(String),
    #[error("the lock group's log is damaged: {0}")]
    Damaged(String),
}

pub enum Order {
    Write(Writes),
    /// Everything is replaced by this.
    Replace(u64, Saved),
}

/// The open file.
pub struct Log {
    database: Database,
    /// Of what is written now.
    epoch: u64,
}

fn failed(error: impl std::fmt::Display) -> LogError {
    LogError::Write(error.to_string())
}

impl Log {
    /// Opens the file, making it where there is none; what it has, and of which epoch.
    pub fn open(folder: &Path) -> Result<(Self, u64, Saved), LogError> {
        let path = folder.join(FILE);
        let opened = Builder::new().set_cache_size(CACHE_BYTES).create(&path);
        let database = opened.map_err(|error| LogError::Open { path, reason: error.to_string() })?;
        let (epoch, saved) = read(&database).map_err(|error| LogError::Damaged(error.to_string()))?;
        Ok((Self { database, epoch }, epoch, saved))
    }

    /// Replaces everything.
    pub fn replace(&mut self, epoch: u64, saved: &Saved) -> Result<(), LogError> {
        self.commit(&[Order::Replace(epoch, saved.clone())])
    }

    /// Starts the thread. The highest number of what is on the disk, and its epoch, come out of `done`; nothing more comes
    /// when the disk fails: a replica that cannot write promises nothing.
    pub fn start(mut self, orders: mpsc::Receiver<Order>, done: UnboundedSender<(u64, u64)>) {
        let write = move || {
            while let Ok(first) = orders.recv() {
                let mut group = vec![first];
                group.extend(orders.try_iter().take(GROUP_MAX));
                if let Err(error) = self.commit(&group) {
                    tracing::error!(%error, "this peer votes no more");
                    return;
                }
                // Numbers begin anew with what was replaced.
                let number = group.iter().fold(0, |highest, order| match order {
                    Order::Write(writes) => writes.number.max(highest),
                    Order::Replace(..) => 0,
                });
                if done.send((self.epoch, number)).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("locks-log".into()).spawn(write).expect("a thread can be had at the start");
    }

    fn commit(&mut self, group: &[Order]) -> Result<(), LogError> {
        let mut transaction = self.database.begin_write().map_err(failed)?;
        let is_lazy =
            |order: &Order| matches!(order, Order::Write(writes) if !writes.must_sync && writes.snapshot.is_none());
        if group.iter().all(is_lazy) {
            // It goes to the disk with the next that has to.
            transaction.set_durability(Durability::None).map_err(failed)?;
        }
        {
            let mut meta = transaction.open_table(META).map_err(failed)?;
            let mut entries = transaction.open_table(ENTRIES).map_err(failed)?;
            for order in group {
                let writes = match order {
                    Order::Write(writes) => writes,
                    Order::Replace(epoch, saved) => {
                        meta.retain(|_, _| false).map_err(failed)?;
                        meta.insert(EPOCH, epoch.to_be_bytes().as_slice()).map_err(failed)?;
                        self.epoch = *epoch;
                        &Writes {
                            hard: saved.hard.clone(),
                            snapshot: saved.snapshot.clone(),
                            reset: true,
                            ..Writes::default()
                        }
                    }
                };
                for (key, value) in [(HARD, &writes.hard), (SNAPSHOT, &writes.snapshot)] {
                    if let Some(value) = value {
                        meta.insert(key, value.as_slice()).map_err(failed)?;
                    }
                }
                if writes.reset {
                    entries.retain(|_, _| false).map_err(failed)?;
                }
                if let Some((first, _)) = writes.entries.first() {
                    entries.retain_in(*first.., |_, _| false).map_err(failed)?;
                }
                for (index, entry) in &writes.entries {
                    entries.insert(index, entry.as_slice()).map_err(failed)?;
                }
                if writes.trim_to > 0 {
                    entries.retain_in(..=writes.trim_to, |_, _| false).map_err(failed)?;
                }
            }
        }
        transaction.commit().map_err(failed)
    }
}

fn read(database: &Database) -> Result<(u64, Saved), Box<dyn std::error::Error>> {
    let making = database.begin_write()?;
    making.open_table(META)?;
    making.open_table(ENTRIES)?;
    making.commit()?;
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let get = |key: &str| Ok::<_, redb::StorageError>(meta.get(key)?.map(|value| value.value().to_vec()));
    let epoch = get(EPOCH)?.and_then(|bytes| bytes.try_into().ok()).map_or(FIRST_EPOCH, u64::from_be_bytes);
    let mut entries = BTreeMap::new();
    for entry in transaction.open_table(ENTRIES)?.iter()? {
        let (index, bytes) = entry?;
        entries.insert(index.value(), bytes.value().to_vec());
    }
    Ok((epoch, Saved { hard: get(HARD)?, snapshot: get(SNAPSHOT)?, entries }))
}
