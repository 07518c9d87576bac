//! Images that this machine lacks, from peers that have them.

use std::fs::File;
use std::io;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use rialto_protocol::ids::PeerId;
use tokio::io::AsyncWriteExt;

use super::blob::{Digest, Hashing, check};
use super::manifest::{Manifest, Named};
use super::{DOCUMENT_BYTES_MAX, ImageError, Images};
use crate::executor::folder::Image;

/// A blob as it comes.
pub type Bytes = BoxStream<'static, io::Result<bytes::Bytes>>;

/// How another peer is asked. What it answers is checked here, not by the implementation.
pub trait Fetch: Send + Sync {
    /// `GET /v1/images/{name}/manifest`: byte for byte.
    fn manifest<'a>(&'a self, from: PeerId, image: &'a str) -> BoxFuture<'a, io::Result<Bytes>>;
    /// `GET /v1/blobs/{digest}`.
    fn blob<'a>(&'a self, from: PeerId, digest: &'a str) -> BoxFuture<'a, io::Result<Bytes>>;
}

/// Nobody to ask.
impl Fetch for () {
    fn manifest<'a>(&'a self, _: PeerId, _: &'a str) -> BoxFuture<'a, io::Result<Bytes>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }

    fn blob<'a>(&'a self, _: PeerId, _: &'a str) -> BoxFuture<'a, io::Result<Bytes>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}

impl Images {
    /// What a container of the image is made of, fetched from the first of `from` that has it if
    /// it is not here. The digest says which of all that ever had the name; without one, whatever is here under it will
    /// do.
    pub(in crate::executor) async fn ensure(
        &self,
        name: &str,
        digest: Option<&str>,
        from: &[PeerId],
        fetch: &dyn Fetch,
    ) -> Result<Image, ImageError> {
        super::check_name(name)?;
        if self.held(name, digest).is_none() {
            let turn = {
                let mut fetching = self.0.fetching.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                // Those that nobody waits for any more make room.
                fetching.retain(|_, turn| std::sync::Arc::strong_count(turn) > 1);
                fetching.entry(name.to_owned()).or_default().clone()
            };
            let _turn = turn.lock().await;
            if self.held(name, digest).is_none() {
                self.fetch_from_any(name, digest, from, fetch).await?;
            }
        }
        let (images, name, digest) = (self.clone(), name.to_owned(), digest.map(str::to_owned));
        blocking(move || images.ready(&name, digest.as_deref())).await
    }

    async fn fetch_from_any(
        &self,
        name: &str,
        digest: Option<&str>,
        from: &[PeerId],
        fetch: &dyn Fetch,
    ) -> Result<(), ImageError> {
        let mut reasons = Vec::new();
        for peer in from {
            match self.fetch_from(name, digest, *peer, fetch).await {
                Ok(()) => return Ok(()),
                Err(error) => reasons.push(format!("peer {peer}: {error}")),
            }
        }
        Err(ImageError::Missing(match reasons.is_empty() {
            true => "no machine is known to have it; `rialto image import` brings it in".into(),
            false => format!("it cannot be fetched from any machine that has it: {}", reasons.join("; ")),
        }))
    }

    async fn fetch_from(
        &self,
        name: &str,
        digest: Option<&str>,
        peer: PeerId,
        fetch: &dyn Fetch,
    ) -> Result<(), ImageError> {
        let mut bytes = Vec::new();
        let mut stream = match digest {
            Some(digest) => fetch.blob(peer, digest).await?,
            None => fetch.manifest(peer, name).await?,
        };
        while let Some(chunk) = stream.next().await {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
                return Err(ImageError::Invalid("its manifest is too large".into()));
            }
        }
        if digest.is_some_and(|digest| Digest::of(&bytes).to_string() != digest) {
            return Err(ImageError::Invalid("what it gave is not the manifest that was asked for".into()));
        }
        let manifest = Manifest::read(&bytes)?;
        for blob in manifest.blobs() {
            if self.blob(&blob.digest.to_string()).is_none() {
                self.fetch_blob(blob, peer, fetch).await?;
            }
        }
        let (images, name) = (self.clone(), name.to_owned());
        blocking(move || images.install(&name, &bytes)).await?;
        Ok(())
    }

    async fn fetch_blob(&self, blob: &Named, peer: PeerId, fetch: &dyn Fetch) -> Result<(), ImageError> {
        let incoming = self.incoming()?;
        let temporary = incoming.path().join("blob");
        let mut file = tokio::fs::File::create(&temporary).await?;
        let mut seen = Hashing::new(io::sink());
        let mut stream = fetch.blob(peer, &blob.digest.to_string()).await?;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk?;
            io::Write::write_all(&mut seen, &chunk)?;
            if seen.bytes > blob.bytes {
                break;
            }
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        file.sync_all().await?;
        check(&seen, &blob.digest, blob.bytes)?;
        let place = self.blob_file(&Digest::clone(&blob.digest));
        std::fs::rename(&temporary, &place)?;
        File::open(self.path("blobs/sha256"))?.sync_all()?;
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
