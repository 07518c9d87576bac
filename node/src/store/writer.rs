//! The one thread that writes.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::Database;
use rialto_protocol::ledger::record::{Draft, Signature};
use tokio::sync::mpsc;

use super::tables::Tables;
use super::{Done, Job, Sign, StoreError};

/// Jobs that may wait for the writer; beyond it the brain waits, and so does whoever speaks to it.
const QUEUE_JOBS_MAX: usize = 4_096;
/// Jobs in one transaction.
const GROUP_JOBS_MAX: usize = 1_024;
/// How long a job that nobody waits for waits for company.
const LINGER: Duration = Duration::from_millis(250);

/// The door to the writer thread. Dropping it writes what is left and ends the thread.
pub struct Writer {
    jobs: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(database: Database, sign: Sign, done: mpsc::UnboundedSender<Done>) -> Self {
        let (jobs, queue) = sync_channel(QUEUE_JOBS_MAX);
        let work = Work { database, sign, done };
        let thread = std::thread::Builder::new()
            .name("store".into())
            .stack_size(512 << 10)
            .spawn(move || work.run(&queue))
            .expect("a thread can be started");
        Self { jobs: Some(jobs), thread: Some(thread) }
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
    sign: Sign,
    done: mpsc::UnboundedSender<Done>,
}

impl Work {
    fn run(&self, queue: &Receiver<Job>) {
        while let Some(group) = gather(queue) {
            match self.write(group) {
                Ok(words) => words.into_iter().for_each(|word| drop(self.done.send(word))),
                Err(error) => return drop(self.done.send(Done::Failed(error))),
            }
        }
    }

    /// Writes a group of jobs in one durable transaction; then there is this to tell.
    fn write(&self, group: Vec<Job>) -> Result<Vec<Done>, StoreError> {
        self.transact(group).map_err(|error| StoreError::Write(error.to_string()))
    }

    fn transact(&self, group: Vec<Job>) -> Result<Vec<Done>, redb::Error> {
        let transaction = self.database.begin_write()?;
        let mut words = Vec::new();
        {
            let mut tables = Tables::open(&transaction)?;
            for job in group {
                match job {
                    Job::Commit { commit, drafts, local } => {
                        let signatures = self.put_own(&mut tables, drafts)?;
                        local.iter().try_for_each(|local| tables.local(local))?;
                        words.push(Done::Committed { commit, signatures });
                    }
                    Job::Store { ops, token } => {
                        ops.iter().try_for_each(|op| tables.apply(op))?;
                        words.extend(token.map(|token| Done::Stored { token }));
                    }
                }
            }
        }
        transaction.commit()?;
        Ok(words)
    }

    /// Signs each draft and puts its records; the owner is complete through the last of them.
    fn put_own(&self, tables: &mut Tables<'_>, drafts: Vec<Draft>) -> Result<Vec<Signature>, redb::Error> {
        let mut signatures = Vec::with_capacity(drafts.len());
        for draft in drafts {
            let (owner, last) = (draft.owner, draft.prev + draft.records.len() as u64);
            let signature = (self.sign)(&draft.to_sign());
            let (_, stored) = draft.seal(signature);
            stored.iter().try_for_each(|stored| tables.put(stored))?;
            tables.reach(&owner, last)?;
            signatures.push(signature);
        }
        Ok(signatures)
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
