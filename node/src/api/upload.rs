//! What people send at length.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use futures::{Stream, StreamExt};

/// How much of a refused upload is still taken in,
const REST_BYTES_MAX: usize = 1 << 30;
/// and for how long.
const REST_WITHIN: Duration = Duration::from_secs(10);

/// The body of a request. Whoever refuses it before its end has the rest taken in all the same, for a while: a sender
/// whose connection is closed under its hands never reads why.
pub struct Upload(Option<BodyDataStream>);

impl Upload {
    pub fn new(body: Body) -> Self {
        Self(Some(body.into_data_stream()))
    }
}

impl Stream for Upload {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let polled = body.poll_next_unpin(context);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            self.0 = None;
            return polled.map(|end| end.map(|error| error.map_err(io::Error::other)));
        }
        polled.map(|chunk| chunk.map(|chunk| chunk.map_err(io::Error::other)))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let (Some(mut rest), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) else { return };
        runtime.spawn(tokio::time::timeout(REST_WITHIN, async move {
            let mut bytes = 0;
            while let Some(Ok(chunk)) = rest.next().await {
                bytes += chunk.len();
                if bytes > REST_BYTES_MAX {
                    return;
                }
            }
        }));
    }
}
