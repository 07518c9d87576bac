//! A blob read while it still comes: what another peer is given of a layer that this one fetches.

use std::io::{self, SeekFrom};

use bytes::BytesMut;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::task::JoinHandle;

use super::fetch::Bytes;
use super::manifest::Named;
use super::{ImageError, Images, Lease};

const READ_BYTES: usize = 256 << 10;

struct Follow {
    images: Images,
    blob: Named,
    /// Ends when the blob is here, or cannot be had.
    fetching: Option<JoinHandle<Result<(), ImageError>>>,
    sent: u64,
    over: bool,
    _lease: Lease,
}

/// What is here of the blob, and then what comes. Whoever reads it checks the digest.
pub(super) fn follow(images: Images, blob: Named, fetching: JoinHandle<Result<(), ImageError>>) -> Bytes {
    let _lease = images.lease_blob(&blob.digest);
    let follow = Follow { images, blob, fetching: Some(fetching), sent: 0, over: false, _lease };
    let next = |mut follow: Follow| async move {
        if follow.over || (follow.sent == follow.blob.bytes && follow.fetching.is_none()) {
            return None;
        }
        let chunk = follow.next().await;
        follow.over = !matches!(&chunk, Ok(chunk) if !chunk.is_empty());
        match chunk {
            Ok(chunk) if chunk.is_empty() => None,
            chunk => Some((chunk, follow)),
        }
    };
    futures::stream::unfold(follow, next).boxed()
}

impl Follow {
    /// The next piece; an empty one at the end.
    async fn next(&mut self) -> io::Result<bytes::Bytes> {
        let download = self.images.on_its_way(&self.blob.digest);
        let mut at = download.at.subscribe();
        loop {
            let there = if self.fetching.is_none() { self.blob.bytes } else { *at.borrow_and_update() };
            if there > self.sent {
                return self.read(there).await;
            }
            let Some(fetching) = self.fetching.as_mut() else { return Ok(bytes::Bytes::new()) };
            tokio::select! {
                ended = fetching => {
                    self.fetching = None;
                    ended.map_err(io::Error::other)?.map_err(io::Error::other)?;
                }
                // The sender lives as long as `download`.
                _ = at.changed() => {}
            }
        }
    }

    async fn read(&mut self, there: u64) -> io::Result<bytes::Bytes> {
        // Under the one name or under the other; it may be renamed in between.
        let (whole, partial) = (self.images.blob_file(&self.blob.digest), self.images.partial_file(&self.blob.digest));
        let mut file = match tokio::fs::File::open(&whole).await {
            Ok(file) => file,
            Err(_) => match tokio::fs::File::open(&partial).await {
                Ok(file) => file,
                Err(_) => tokio::fs::File::open(&whole).await?,
            },
        };
        file.seek(SeekFrom::Start(self.sent)).await?;
        let length = (there - self.sent).min(READ_BYTES as u64);
        let mut bytes = BytesMut::with_capacity(length as usize);
        let mut rest = file.take(length);
        while rest.read_buf(&mut bytes).await? > 0 {}
        if bytes.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it begins anew"));
        }
        self.sent += bytes.len() as u64;
        Ok(bytes.freeze())
    }
}
