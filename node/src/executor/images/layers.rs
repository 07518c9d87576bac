//! Layers: each is unpacked once, however many images have it, and finished before a container sees it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};

use super::blob::Digest;
use super::manifest::{Config, Manifest};
use super::pull::LAYERS_AT_ONCE_MAX;
use super::unpack::{self, Budget, Unpacked};
use super::{ImageError, Images, inherit};

impl Images {
    /// Whether all of them are unpacked and finished.
    pub(super) fn has_layers(&self, ids: &[Digest]) -> bool {
        let is_there = |folder: &str, id: &Digest| self.path(folder).join(self.layer_name(id)).exists();
        ids.iter().all(|id| is_there("layers", id) && !is_there("unsettled", id))
    }

    /// Several at once: unpacking waits for a processor more than for the disk. They are on the disk
    /// when it returns.
    pub(super) fn unpack_all(&self, manifest: &Manifest, config: &Config) -> Result<(), ImageError> {
        let layers: Vec<_> = manifest.layers.iter().map(|layer| &layer.digest).zip(&config.layers).collect();
        let budget = self.budget();
        let next = AtomicUsize::new(0);
        let work = || -> Result<(), ImageError> {
            while let Some((blob, id)) = layers.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.unpack(blob, id, &budget)?;
            }
            Ok(())
        };
        let hands = std::thread::available_parallelism().map_or(1, usize::from).min(LAYERS_AT_ONCE_MAX);
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..hands.min(layers.len())).map(|_| scope.spawn(work)).collect();
            let own = work();
            let panicked = |_| Err(ImageError::Io(io::Error::other("a layer's unpacking has panicked")));
            others.into_iter().fold(own, |all, other| all.and(other.join().unwrap_or_else(panicked)))
        })?;
        Ok(self.settle(&config.layers)?)
    }

    pub(super) fn budget(&self) -> Arc<Budget> {
        Arc::new(Budget::new(self.0.bounds.0, self.0.bounds.1))
    }

    /// Unpacks a layer unless it is unpacked already.
    pub(super) fn unpack(&self, blob: &Digest, id: &Digest, budget: &Budget) -> Result<(), ImageError> {
        let name = self.layer_name(id);
        let turn = {
            let mut unpacking = self.0.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
            unpacking.retain(|_, turn| Arc::strong_count(turn) > 1);
            unpacking.entry(name.clone()).or_default().clone()
        };
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.path("layers").join(&name);
        if place.is_dir() {
            return Ok(());
        }
        let incoming = self.incoming()?;
        let root = incoming.path().join("layer");
        let packed = File::open(self.blob_file(blob))?;
        let Unpacked { digest: found, implied } = unpack::layer(packed, &root, budget)?;
        if found != *id {
            return Err(ImageError::Invalid(format!("layer {blob} unpacks to {found}, not to {id} as the image says")));
        }
        // The mark reaches the disk before the layer's name does: a journal keeps the order.
        let implied: Vec<&[u8]> = implied.iter().map(|path| path.as_os_str().as_bytes()).collect();
        fs::write(self.path("unsettled").join(&name), implied.join(&0))?;
        fs::rename(&root, &place)?;
        Ok(())
    }

    /// Finishes layers, lowest first, and sees to it that they are on the disk: a torn one must never look whole.
    fn settle(&self, ids: &[Digest]) -> io::Result<()> {
        let names: Vec<String> = ids.iter().map(|id| self.layer_name(id)).collect();
        let layers: Vec<PathBuf> = names.iter().map(|name| self.path("layers").join(name)).collect();
        let mut marks = Vec::new();
        for (number, name) in names.iter().enumerate() {
            let mark = self.path("unsettled").join(name);
            let Ok(implied) = fs::read(&mark) else { continue };
            let implied = implied.split(|byte| *byte == 0).filter(|path| !path.is_empty());
            let implied: Vec<PathBuf> = implied.map(|path| OsStr::from_bytes(path).into()).collect();
            inherit::inherit(&layers[number], &implied, &layers[..number])?;
            marks.push(mark);
        }
        if marks.is_empty() {
            return Ok(());
        }
        sync_filesystem(&self.0.folder)?;
        for mark in marks {
            match fs::remove_file(mark) {
                // Another image with the same layer was faster.
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Half of the digest: still unique, and a hundred of them fit into the options of a mount.
    pub(super) fn layer_name(&self, id: &Digest) -> String {
        id.hex()[..32].to_owned()
    }
}

fn sync_filesystem(path: &Path) -> io::Result<()> {
    let folder = File::open(path)?;
    // SAFETY: the descriptor is open.
    nix::errno::Errno::result(unsafe { nix::libc::syncfs(folder.as_raw_fd()) })?;
    Ok(())
}
