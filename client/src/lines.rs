//! An answer that comes line by line, one JSON value each (`application/x-ndjson`).

use std::marker::PhantomData;

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::Error;

/// The longest line that is read: far above the longest that a peer writes.
const LINE_BYTES_MAX: usize = 4 << 20;

/// A stream of values; it ends when the peer has told everything.
pub struct Lines<T> {
    peer: String,
    body: Incoming,
    unread: BytesMut,
    /// Up to here `unread` holds no end of a line.
    searched: usize,
    ended: bool,
    kind: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    pub(crate) fn new(peer: String, body: Incoming) -> Self {
        Self { peer, body, unread: BytesMut::new(), searched: 0, ended: false, kind: PhantomData }
    }

    /// The next value; `None` when the peer has ended the stream in good order. Nothing is lost when
    /// the future is dropped before it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::BrokeOff`] where the stream ended in the middle, [`Error::Unreadable`] where a line
    /// is not what was expected.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            while let Some(at) = self.unread[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.unread.split_to(self.searched + at);
                self.unread.advance(1);
                self.searched = 0;
                // A blank line only keeps the connection alive.
                if !line.trim_ascii().is_empty() {
                    return self.value(&line).map(Some);
                }
            }
            self.searched = self.unread.len();
            if self.ended {
                let rest = self.unread.split();
                self.searched = 0;
                return if rest.trim_ascii().is_empty() { Ok(None) } else { self.value(&rest).map(Some) };
            }
            if self.unread.len() > LINE_BYTES_MAX {
                return Err(self.unreadable("a line is too long"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.unread.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => {
                    let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                    return Err(Error::BrokeOff { peer: self.peer.clone(), why });
                }
                None => self.ended = true,
            }
        }
    }

    fn value(&self, line: &[u8]) -> Result<T, Error> {
        serde_json::from_slice(line).map_err(|error| self.unreadable(&error.to_string()))
    }

    fn unreadable(&self, why: &str) -> Error {
        Error::Unreadable { peer: self.peer.clone(), why: why.to_string() }
    }
}
