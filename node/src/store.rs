//! What a peer remembers: one redb file, read whole at start and written by one thread.
//!
//! The writer takes the jobs in the order in which the brain gave them and puts as many as are
//! waiting into one transaction. A job that somebody waits for (own records, a token) is written
//! at once; others' records wait a little for company, for a lost tail of them is fetched again.
//! So there is one kind of transaction, always durable, and what is on disk is always a beginning
//! of what the brain ordered.
//!
//! A disk that is full is waited for: what was ordered stays in the queue until there is room, and nothing that depends
//! on it is said meanwhile.
//!
//! No type of redb leaves this module.

#[cfg(test)]
mod faults;
mod tables;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Builder, Database};
use rialto_protocol::Restored;
use rialto_protocol::effect::{Local, StoreOp};
use rialto_protocol::ledger::record::{Draft, Signature};
use tokio::sync::mpsc;

pub use writer::Writer;

/// Pages that redb keeps in memory, bytes. Everything is read once and held by the brain.
const CACHE_BYTES: usize = 8 << 20;

/// Makes this peer's signature over 32 bytes.
pub type Sign = Arc<dyn Fn(&[u8; 32]) -> Signature + Send + Sync>;

/// Why a ledger could not be read or written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    #[error("the ledger {path} cannot be opened: {reason}")]
    Open { path: PathBuf, reason: String },
    #[error("the ledger cannot be read: {0}")]
    Read(String),
    #[error("the ledger cannot be written: {0}")]
    Write(String),
    #[error(
        "the ledger is damaged: {table} {key}: {reason}; restore the data folder, or move it away and join again as a new machine"
    )]
    Corrupt { table: &'static str, key: String, reason: String },
    #[error("the ledger has schema {found}, this program reads {known}: run the newer program that wrote it")]
    Schema { found: u64, known: u64 },
}

/// One thing to write.
#[derive(Debug)]
pub enum Job {
    /// Own records, yet to be signed, and what goes with them.
    Commit { commit: u64, drafts: Vec<Draft>, local: Vec<Local> },
    /// Others' records; with a token somebody waits.
    Store { ops: Vec<StoreOp>, token: Option<u64> },
}

/// What has become durable, in the order of the jobs.
#[derive(Debug)]
pub enum Done {
    Committed {
        commit: u64,
        signatures: Vec<Signature>,
    },
    Stored {
        token: u64,
    },
    /// Nothing more will be written: the disk is broken.
    Failed(StoreError),
}

/// Makes an empty ledger under another name first: whatever happens meanwhile, a file that cannot be opened never has
/// the ledger's.
fn make(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let making = path.with_extension("making");
    match std::fs::remove_file(&making) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        _ => {}
    }
    let database = Builder::new().set_cache_size(CACHE_BYTES).create(&making)?;
    tables::prepare(&database)?;
    drop(database);
    std::fs::File::open(&making)?.sync_all()?;
    std::fs::rename(&making, path)?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn reopen(path: &Path) -> Result<Database, redb::DatabaseError> {
    Builder::new().set_cache_size(CACHE_BYTES).open(path)
}

/// An open ledger, not yet written to.
#[derive(Debug)]
pub struct Store {
    database: Database,
    /// Where it can be opened again.
    path: Option<PathBuf>,
}

impl Store {
    /// Opens the ledger file, making it where there is none, and reads everything in it.
    pub fn open(path: &Path) -> Result<(Store, Restored), StoreError> {
        let failed = |reason: String| StoreError::Open { path: path.into(), reason };
        if !path.exists() {
            make(path).map_err(|error| failed(error.to_string()))?;
        }
        let (store, restored) = Self::of(reopen(path).map_err(|error| failed(error.to_string()))?)?;
        Ok((Store { path: Some(path.to_owned()), ..store }, restored))
    }

    fn of(database: Database) -> Result<(Store, Restored), StoreError> {
        tables::prepare(&database)?;
        let restored = tables::read(&database)?;
        Ok((Store { database, path: None }, restored))
    }

    /// Starts the writer thread. What became durable comes out of `done`: an unbounded channel,
    /// since each job yields one word at most and the queue of jobs is bounded.
    pub fn start(self, sign: Sign, done: mpsc::UnboundedSender<Done>) -> Writer {
        Writer::start(self.database, self.path, sign, done)
    }
}
