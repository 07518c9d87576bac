//! One blob on its way here: checked while it comes, taken up again where it broke off, and fetched
//! once however many need it.

use std::fs::File;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncSeekExt, AsyncWriteExt};
use tokio::sync::watch;

use super::blob::{Digest, Hashing, check};
use super::fetch::{Bytes, Source, Sources};
use super::manifest::Named;
use super::progress::Progress;
use super::registry::RegistryError;
use super::{ImageError, Images, blocking};

/// Tries in a row that bring nothing.
const TRIES_MAX: u32 = 5;
/// A try that brings at least so much is no failure.
const GAIN_BYTES_MIN: u64 = 64 << 10;
/// Between two tries, at first and at last.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Written at once; what a pull that ends in the middle loses of each blob.
const WRITE_BYTES: usize = 128 << 10;

/// A blob on its way.
#[derive(Default)]
pub struct Download {
    /// Whoever holds it fetches; the others wait, and find it here.
    turn: tokio::sync::Mutex<()>,
    /// How many of its bytes are in `partial/`.
    pub at: watch::Sender<u64>,
}

/// Why a try failed.
enum Trouble {
    /// It may go better the next time.
    Passing(String),
    Lasting(ImageError),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Lasting(error.into())
    }
}

impl From<RegistryError> for Trouble {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Unreachable(reason) => Trouble::Passing(reason),
            other => Trouble::Lasting(other.into()),
        }
    }
}

impl Images {
    /// What is known of a blob on its way; also before anybody has begun to fetch it.
    pub(super) fn on_its_way(&self, digest: &Digest) -> Arc<Download> {
        let mut downloads = self.0.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for any more make room.
        downloads.retain(|_, download| Arc::strong_count(download) > 1);
        downloads.entry(digest.clone()).or_default().clone()
    }

    /// Where the first bytes of a blob wait for the others.
    pub(super) fn partial_file(&self, digest: &Digest) -> PathBuf {
        self.path("partial").join(digest.hex())
    }

    /// Sees to it that a blob is here, whole and right, from the first of its sources that gives it.
    pub(super) async fn obtain(
        &self,
        blob: &Named,
        sources: &Sources<'_>,
        progress: &Progress,
    ) -> Result<(), ImageError> {
        if self.has_blob(&blob.digest) {
            return Ok(());
        }
        let download = self.on_its_way(&blob.digest);
        let _turn = download.turn.lock().await;
        if self.has_blob(&blob.digest) {
            return Ok(());
        }
        let _place = self.0.at_once.acquire().await.map_err(io::Error::other)?;
        let mut reasons = Vec::new();
        for source in sources.of(&blob.digest) {
            match self.take(blob, &source, sources, &download, progress).await {
                Ok(()) => return Ok(()),
                Err(error) => reasons.push(format!("{}: {error}", source.name())),
            }
        }
        Err(ImageError::Missing(format!("{:?} cannot be had: {}", blob.digest, reasons.join("; "))))
    }

    async fn take(
        &self,
        blob: &Named,
        source: &Source<'_>,
        sources: &Sources<'_>,
        download: &Download,
        progress: &Progress,
    ) -> Result<(), ImageError> {
        let mut tries = 0;
        loop {
            let before = *download.at.borrow();
            let trouble = match self.receive(blob, source, sources, download, progress).await {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            let gained = download.at.borrow().saturating_sub(before) >= GAIN_BYTES_MIN;
            tries = if gained { 1 } else { tries + 1 };
            match trouble {
                Trouble::Lasting(error) => return Err(error),
                Trouble::Passing(reason) if tries >= source.tries_max(TRIES_MAX) => {
                    return Err(ImageError::Missing(reason));
                }
                Trouble::Passing(reason) => {
                    tracing::debug!(digest = ?blob.digest, reason, tries, "a blob is tried again");
                    tokio::time::sleep((PAUSE_MIN * (1 << tries.min(10))).min(PAUSE_MAX)).await;
                }
            }
        }
    }

    /// One try, from where the last one ended.
    async fn receive(
        &self,
        blob: &Named,
        source: &Source<'_>,
        sources: &Sources<'_>,
        download: &Download,
        progress: &Progress,
    ) -> Result<(), Trouble> {
        let partial = self.partial_file(&blob.digest);
        let (mut seen, resumed) = self.so_far(blob, &partial, source).await?;
        let mut file = tokio::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&partial).await?;
        if seen.bytes < blob.bytes || blob.bytes == 0 {
            let opened = sources.open(source, blob, seen.bytes).await;
            if resumed && matches!(opened, Err(RegistryError::Refused(_))) {
                // What lies here may be what it cannot go on from: the next pull begins anew.
                tokio::fs::remove_file(&partial).await?;
            }
            let (from, mut stream) = opened?;
            if from != seen.bytes {
                seen = Hashing::new(io::sink());
            }
            file.set_len(seen.bytes).await?;
            file.seek(SeekFrom::Start(seen.bytes)).await?;
            self.write(blob, &mut stream, &mut seen, &mut file, download, progress).await?;
        }
        if let Err(error) = check(&seen, &blob.digest, blob.bytes) {
            tokio::fs::remove_file(&partial).await?;
            download.at.send_replace(0);
            // What lay here may have been what was wrong.
            return Err(if resumed { Trouble::Passing(error.to_string()) } else { Trouble::Lasting(error) });
        }
        file.sync_all().await?;
        drop(file);
        std::fs::rename(&partial, self.blob_file(&blob.digest))?;
        File::open(self.path("blobs/sha256"))?.sync_all()?;
        download.at.send_replace(blob.bytes);
        Ok(())
    }

    /// The hash of what is here already, and whether that is anything.
    async fn so_far(
        &self,
        blob: &Named,
        partial: &Path,
        source: &Source<'_>,
    ) -> Result<(Hashing<io::Sink>, bool), Trouble> {
        let fresh = (Hashing::new(io::sink()), false);
        if !source.resumes() {
            return Ok(fresh);
        }
        let (partial, bytes_max) = (partial.to_owned(), blob.bytes);
        let read = blocking(move || {
            let mut seen = Hashing::new(io::sink());
            match File::open(&partial) {
                Ok(file) if file.metadata()?.len() <= bytes_max => drop(io::copy(&mut &file, &mut seen)?),
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            Ok(seen)
        });
        let seen = read.await.map_err(Trouble::Lasting)?;
        let resumed = seen.bytes > 0;
        Ok((seen, resumed))
    }

    /// Writes what comes. It is kept however it ends, and told of once it can be read.
    async fn write(
        &self,
        blob: &Named,
        stream: &mut Bytes,
        seen: &mut Hashing<io::Sink>,
        file: &mut tokio::fs::File,
        download: &Download,
        progress: &Progress,
    ) -> Result<(), Trouble> {
        let mut held = Vec::with_capacity(WRITE_BYTES);
        let mut broken = None;
        loop {
            match stream.next().await {
                Some(Ok(chunk)) => {
                    io::Write::write_all(seen, &chunk)?;
                    held.extend_from_slice(&chunk);
                    progress.fetched(blob, seen.bytes);
                }
                Some(Err(error)) => broken = Some(error.to_string()),
                None if seen.bytes < blob.bytes => {
                    let (have, all) = (seen.bytes, blob.bytes);
                    broken = Some(format!("it broke off after {have} of {all} bytes"));
                }
                None => {}
            }
            let is_over = broken.is_some() || seen.bytes >= blob.bytes;
            if is_over || held.len() >= WRITE_BYTES {
                file.write_all(&held).await?;
                file.flush().await?;
                held.clear();
                download.at.send_replace(seen.bytes);
            }
            if is_over {
                return broken.map_or(Ok(()), |reason| Err(Trouble::Passing(reason)));
            }
        }
    }
}
