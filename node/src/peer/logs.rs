//! The executor's logs, as the API reads them.

use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use rialto_protocol::ids::ClaimId;
use rialto_protocol::model::Executor;

use crate::api::{self, Chunk, LogStream};
use crate::executor::logs::{LogStore, Output, Stream as From};
use crate::handle::Handle;

/// The most bytes of one chunk.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// The logs behind the API.
pub struct LogsForApi {
    pub store: Option<LogStore>,
    pub described: Executor,
    pub handle: Handle,
}

impl api::Logs for LogsForApi {
    fn read(&self, claim: ClaimId, tail: Option<usize>) -> LogStream {
        match self.store.clone() {
            Some(store) => stream::once(async move { store.read(claim, tail).await }).flat_map(all).boxed(),
            None => self.nothing(),
        }
    }

    fn follow(&self, claim: ClaimId, tail: Option<usize>) -> LogStream {
        let Some(store) = self.store.clone() else { return self.nothing() };
        let handle = self.handle.clone();
        let begin = async move {
            if begun(&store, claim, &handle).await {
                store.follow(claim, tail).flat_map(|output| all(output.map(|output| vec![output]))).boxed()
            } else {
                stream::empty().boxed()
            }
        };
        stream::once(begin).flatten().boxed()
    }
}

impl LogsForApi {
    /// Tasks of the null executor print nothing; where nothing runs there is nothing to read.
    fn nothing(&self) -> LogStream {
        if self.described == Executor::Null {
            return stream::empty().boxed();
        }
        let error = io::Error::new(io::ErrorKind::NotFound, "this machine runs nothing and has no logs");
        stream::iter([Err(error)]).boxed()
    }
}

/// Waits until the executor has heard of a claim: it does shortly after the claim is durable.
/// `false`: the claim ended without ever having a log.
async fn begun(store: &LogStore, claim: ClaimId, handle: &Handle) -> bool {
    let mut changes = handle.changes();
    loop {
        changes.mark_unchanged();
        if store.has(claim) {
            return true;
        }
        let name = claim.hex();
        let lives = handle.read(move |brain, now| {
            brain.view(now).claims(&name).first().is_some_and(|claim| has_not_ended(&claim.row.state))
        });
        if lives.await != Some(true) || changes.changed().await.is_err() {
            return store.has(claim);
        }
    }
}

fn has_not_ended(state: &str) -> bool {
    ["accepted", "starting", "running", "stopping"].contains(&state)
}

/// Outputs as chunks of bounded size.
fn all(outputs: io::Result<Vec<Output>>) -> impl Stream<Item = io::Result<Chunk>> {
    let chunks: Vec<io::Result<Chunk>> = match outputs {
        Err(error) => vec![Err(error)],
        Ok(outputs) => outputs.into_iter().flat_map(chunks).map(Ok).collect(),
    };
    stream::iter(chunks)
}

fn chunks(output: Output) -> Vec<Chunk> {
    let stream = match output.stream {
        From::Stdout => "stdout",
        From::Stderr => "stderr",
    };
    let at_ms = output.at;
    let bytes = Bytes::from(output.bytes);
    let starts = (0..bytes.len()).step_by(CHUNK_BYTES_MAX);
    starts.map(|at| Chunk { stream, at: at_ms, data: bytes.slice(at..bytes.len().min(at + CHUNK_BYTES_MAX)) }).collect()
}
