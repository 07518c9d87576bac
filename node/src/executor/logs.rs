//! Reading what tasks wrote, also while they write it and after they have ended.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures::Stream as AsyncStream;
use rialto_protocol::ids::ClaimId;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;

use super::client::Client;
use super::control::{Answer, Ask};
use super::folder::Folder;
pub use super::log_file::{Output, Stream};
use super::log_file::{read, tail};
use super::roll::{Phase, Roll};

/// The bound of one task's log; the oldest half goes first.
pub const LOG_BYTES_MAX: u64 = 8 << 20;
const READ_BYTES: u64 = 256 << 10;
const FOLLOW_QUEUE: usize = 16;

/// The logs of this machine's tasks.
#[derive(Clone)]
pub struct LogStore {
    pub(super) tasks: PathBuf,
    pub(super) roll: Arc<Roll>,
}

impl LogStore {
    /// Where the log of a task lies: `log` and the older `log.1`, in the frames of [`super::log_file`].
    pub fn path(&self, claim: ClaimId) -> PathBuf {
        self.tasks.join(claim.hex())
    }

    /// Whether this machine has, or is about to have, a log of that task.
    pub fn has(&self, claim: ClaimId) -> bool {
        self.roll.phase(claim).is_some() || self.path(claim).is_dir()
    }

    /// What the task has written so far, or the last `lines` lines of it. `NotFound` where this
    /// machine knows nothing of the task.
    pub async fn read(&self, claim: ClaimId, lines: Option<usize>) -> io::Result<Vec<Output>> {
        Ok(self.read_all(claim, lines).await?.0)
    }

    /// The same, and then what the task writes, until it has ended.
    pub fn follow(
        &self,
        claim: ClaimId,
        lines: Option<usize>,
    ) -> impl AsyncStream<Item = io::Result<Output>> + Send + use<> {
        let (send, receive) = mpsc::channel(FOLLOW_QUEUE);
        let store = self.clone();
        tokio::spawn(async move {
            // An error of the channel means that nobody listens any more: no error of ours.
            if let Err(error) = store.follow_into(claim, lines, &send).await {
                let _ = send.send(Err(error)).await;
            }
        });
        ReceiverStream::new(receive)
    }

    async fn read_all(&self, claim: ClaimId, lines: Option<usize>) -> io::Result<(Vec<Output>, u64)> {
        if !self.has(claim) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "this machine has no log of that task"));
        }
        let path = self.path(claim);
        let (outputs, position) = blocking(move || read(&path, 0, u64::MAX)).await?;
        let outputs = match lines {
            Some(lines) => tail(outputs, lines),
            None => outputs,
        };
        Ok((outputs, position))
    }

    async fn follow_into(
        &self,
        claim: ClaimId,
        lines: Option<usize>,
        to: &mpsc::Sender<io::Result<Output>>,
    ) -> io::Result<()> {
        let (mut outputs, mut position) = self.read_all(claim, lines).await?;
        let mut phases = self.roll.watch(claim);
        let mut client: Option<Client> = None;
        while !to.is_closed() {
            for output in outputs.drain(..) {
                if to.send(Ok(output)).await.is_err() {
                    return Ok(());
                }
            }
            // Asked before reading: what is written in between is read now.
            let phase = phases.as_mut().map_or(Phase::Ended, |phases| *phases.borrow_and_update());
            let path = self.path(claim);
            let before = position;
            (outputs, position) = blocking(move || read(&path, before, READ_BYTES)).await?;
            if position > before {
                continue;
            }
            match phase {
                Phase::Ended => return Ok(()),
                Phase::Starting => changed(&mut phases, to).await,
                Phase::Live => {
                    if client.is_none() {
                        client = Client::connect(&Folder::at(self.path(claim))).await.ok();
                    }
                    let ask = Ask::Output { after: position };
                    let told = match &mut client {
                        Some(client) => tokio::select! {
                            told = client.ask(&ask) => matches!(told, Ok(Answer::Output { .. })),
                            () = changed(&mut phases, to) => true,
                        },
                        None => false,
                    };
                    if !told {
                        // The shim is gone, so the end is near: the roll will say so.
                        client = None;
                        changed(&mut phases, to).await;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Waits until the task fares otherwise, or nobody listens any more.
async fn changed(phases: &mut Option<watch::Receiver<Phase>>, to: &mpsc::Sender<io::Result<Output>>) {
    if let Some(receiver) = phases {
        tokio::select! {
            changed = receiver.changed() => if changed.is_err() { *phases = None },
            () = to.closed() => {}
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
