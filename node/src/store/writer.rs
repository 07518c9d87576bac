//! The one thread that writes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::backends::InMemoryBackend;
use redb::{Builder, Database};
use rialto_protocol::effect::{Local, StoreOp};
use rialto_protocol::ids::PeerId;
use rialto_protocol::ledger::record::{Signature, Stored};
use tokio::sync::mpsc;

use super::tables::Tables;
use super::{Done, Job, Sign, StoreError};

/// Jobs that may wait for the writer; beyond it the brain waits, and so does whoever speaks to it.
const QUEUE_JOBS_MAX: usize = 4_096;
/// Jobs in one transaction.
const GROUP_JOBS_MAX: usize = 1_024;
/// How long a job that nobody waits for waits for company.
const LINGER: Duration = Duration::from_millis(250);

/// How long a full disk is left alone before it is tried again.
const PATIENCE: Duration = Duration::from_millis(500);

/// The door to the writer thread. Dropping it writes what is left, as far as there is room, and ends the thread.
pub struct Writer {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// No room is waited for any more.
    quit: Arc<AtomicBool>,
}

impl Writer {
    pub(super) fn start(
        database: Database,
        path: Option<PathBuf>,
        sign: Sign,
        done: mpsc::UnboundedSender<Done>,
    ) -> Self {
        let (jobs, queue) = sync_channel(QUEUE_JOBS_MAX);
        let quit = Arc::new(AtomicBool::new(false));
        let work = Work { database, path, sign, done, quit: quit.clone() };
        let thread = std::thread::Builder::new()
            .name("store".into())
            .stack_size(512 << 10)
            .spawn(move || work.run(&queue))
            .expect("a thread can be started");
        Self { jobs: Some(jobs), thread: Some(thread), quit }
    }

    /// Queues a job; waits while the queue is full. After a failed write it does nothing: the
    /// failure has been told.
    pub fn write(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.quit.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread panicked");
        }
    }
}

struct Work {
    database: Database,
    path: Option<PathBuf>,
    sign: Sign,
    done: mpsc::UnboundedSender<Done>,
    quit: Arc<AtomicBool>,
}

/// A job as it is to be written, as often as it takes.
enum Ready {
    Commit { commit: u64, frames: Vec<Sealed>, local: Vec<Local> },
    Store { ops: Vec<StoreOp>, token: Option<u64> },
}

/// Own records, signed; the owner is complete through `last`.
struct Sealed {
    owner: PeerId,
    last: u64,
    signature: Signature,
    records: Vec<Arc<Stored>>,
}

impl Work {
    fn run(mut self, queue: &Receiver<Job>) {
        while let Some(group) = gather(queue) {
            let group: Vec<Ready> = group.into_iter().map(|job| self.ready(job)).collect();
            match self.write(&group) {
                Ok(()) => group.into_iter().filter_map(Ready::word).for_each(|word| drop(self.done.send(word))),
                Err(error) => return drop(self.done.send(Done::Failed(StoreError::Write(error)))),
            }
        }
    }

    fn ready(&self, job: Job) -> Ready {
        match job {
            Job::Commit { commit, drafts, local } => {
                let frames = drafts.into_iter().map(|draft| {
                    let (owner, last) = (draft.owner, draft.prev + draft.records.len() as u64);
                    let signature = (self.sign)(&draft.to_sign());
                    Sealed { owner, last, signature, records: draft.seal(signature).1 }
                });
                Ready::Commit { commit, frames: frames.collect(), local }
            }
            Job::Store { ops, token } => Ready::Store { ops, token },
        }
    }

    /// Writes a group of jobs in one durable transaction, once there is room for it.
    fn write(&mut self, group: &[Ready]) -> Result<(), String> {
        let mut error = match transact(&self.database, group) {
            Err(error) if is_full(&error) => error.to_string(),
            other => return other.map_err(|error| error.to_string()),
        };
        let Some(path) = self.path.clone() else { return Err(error) };
        tracing::error!(%error, "the disk of the ledger is full: nothing is promised until there is room on it");
        while !self.quit.load(Ordering::Relaxed) {
            std::thread::sleep(PATIENCE);
            match self.again(&path, group) {
                Ok(()) => {
                    tracing::info!("the disk of the ledger has room again");
                    return Ok(());
                }
                Err(failed) if is_full(&failed) => error = failed.to_string(),
                Err(failed) => return Err(failed.to_string()),
            }
        }
        Err(error)
    }

    /// A ledger that could not be written has to be opened anew; what was written of the group has no effect, or the same.
    fn again(&mut self, path: &Path, group: &[Ready]) -> Result<(), redb::Error> {
        // The file is locked for as long as it is open.
        self.database = Builder::new().create_with_backend(InMemoryBackend::new())?;
        self.database = super::reopen(path)?;
        transact(&self.database, group)
    }
}

fn is_full(error: &redb::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error, redb::Error::Io(error) if matches!(error.kind(), StorageFull | QuotaExceeded))
}

fn transact(database: &Database, group: &[Ready]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut tables = Tables::open(&transaction)?;
        for job in group {
            match job {
                Ready::Commit { frames, local, .. } => {
                    for Sealed { owner, last, records, .. } in frames {
                        records.iter().try_for_each(|stored| tables.put(stored))?;
                        tables.reach(owner, *last)?;
                    }
                    local.iter().try_for_each(|local| tables.local(local))?;
                }
                Ready::Store { ops, .. } => ops.iter().try_for_each(|op| tables.apply(op))?,
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

impl Ready {
    /// What is to be told once it is written.
    fn word(self) -> Option<Done> {
        match self {
            Ready::Commit { commit, frames, .. } => {
                let signatures = frames.into_iter().map(|frame| frame.signature).collect();
                Some(Done::Committed { commit, signatures })
            }
            Ready::Store { token, .. } => token.map(|token| Done::Stored { token }),
        }
    }
}

/// The next jobs to write together; `None` when there will be no more.
fn gather(queue: &Receiver<Job>) -> Option<Vec<Job>> {
    let first = queue.recv().ok()?;
    let mut awaited = is_awaited(&first);
    let mut group = vec![first];
    let until = Instant::now() + LINGER;
    while group.len() < GROUP_JOBS_MAX {
        let patience = if awaited { Duration::ZERO } else { until.saturating_duration_since(Instant::now()) };
        match queue.recv_timeout(patience) {
            Ok(job) => {
                awaited |= is_awaited(&job);
                group.push(job);
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
        }
    }
    Some(group)
}

fn is_awaited(job: &Job) -> bool {
    matches!(job, Job::Commit { .. } | Job::Store { token: Some(_), .. })
}
