//! Giving back what nothing needs: no name, no task that runs, nobody who is just about to use it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use super::blob::Digest;
use super::manifest::{Config, Manifest};
use super::name::check_name;
use super::{Entry, ImageError, ImageInfo, Images, Incoming, Origin, Reference, read_document};
use crate::executor::folder::{Folder, Image};

/// Room that is left to everything else on the disk: a tenth of it, and no more than this.
const FREE_BYTES_MAX: u64 = 10 << 30;
/// Half a blob that nobody has gone on with for so long is given up.
const PARTIAL_FOR: Duration = Duration::from_secs(86_400);

/// What was given back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Names that mean nothing any more.
    pub images: Vec<ImageInfo>,
    /// On the disk.
    pub bytes: u64,
}

impl Freed {
    fn and(mut self, other: Freed) -> Freed {
        self.images.extend(other.images);
        Freed { bytes: self.bytes + other.bytes, ..self }
    }
}

/// What somebody is about to use; it stays for as long as this lives.
pub struct Lease {
    images: Images,
    number: u64,
}

/// Blobs and layers, by the names of their files.
#[derive(Clone, Default)]
pub(super) struct Needed {
    blobs: BTreeSet<String>,
    layers: BTreeSet<String>,
}

/// Leases that are out.
#[derive(Default)]
pub(super) struct Leases {
    last: u64,
    out: BTreeMap<u64, Needed>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.images.leases().out.remove(&self.number);
    }
}

impl Images {
    fn leases(&self) -> MutexGuard<'_, Leases> {
        self.0.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds what an image is made of; its layers, too, once its configuration is known.
    pub(super) fn lease(&self, digest: &Digest, manifest: &Manifest, config: Option<&Config>) -> Lease {
        let mut needed = Needed::default();
        needed.add(self, digest, manifest, config);
        self.lease_of(needed)
    }

    /// Holds one blob.
    pub(super) fn lease_blob(&self, digest: &Digest) -> Lease {
        self.lease_of(Needed { blobs: BTreeSet::from([digest.hex()]), ..Default::default() })
    }

    fn lease_of(&self, needed: Needed) -> Lease {
        let mut leases = self.leases();
        leases.last += 1;
        let number = leases.last;
        leases.out.insert(number, needed);
        drop(leases);
        Lease { images: self.clone(), number }
    }

    /// Takes a name away, and what only it needed; `None` where there is no such name. A task that runs
    /// keeps what it is made of until it ends.
    pub fn remove(&self, name: &str) -> Result<Option<Freed>, ImageError> {
        check_name(name)?;
        let Some(info) = self.get(name) else { return Ok(None) };
        self.drop_name(&info)?;
        let swept = self.sweep(PARTIAL_FOR)?;
        Ok(Some(Freed { images: vec![info], bytes: 0 }.and(swept)))
    }

    /// Gives back what nothing needs. With `unused_for` images count as needed by nothing, too, that no
    /// task has used for so long and that can be had again.
    pub fn collect(&self, unused_for: Option<Duration>) -> Result<Freed, ImageError> {
        let mut freed = Freed::default();
        if let Some(unused_for) = unused_for {
            let now = SystemTime::now();
            for (used, info) in self.droppable() {
                if now.duration_since(used).unwrap_or_default() >= unused_for {
                    self.drop_name(&info)?;
                    freed.images.push(info);
                }
            }
        }
        Ok(freed.and(self.sweep(PARTIAL_FOR)?))
    }

    /// Makes room for so many bytes where the disk is short of it: first what nothing needs, then what can be
    /// had again, the longest unused first. It may not succeed.
    pub fn relieve(&self, bytes: u64) -> Result<Freed, ImageError> {
        if !self.is_short_of(bytes)? {
            return Ok(Freed::default());
        }
        let mut freed = self.sweep(Duration::ZERO)?;
        for (_, info) in self.droppable() {
            if !self.is_short_of(bytes)? {
                break;
            }
            self.drop_name(&info)?;
            freed.images.push(info);
            freed = freed.and(self.sweep(Duration::ZERO)?);
        }
        let (images, bytes) = (freed.images.len(), freed.bytes);
        tracing::info!(images, bytes, "the disk is short of room: images were given up");
        Ok(freed)
    }

    fn is_short_of(&self, bytes: u64) -> io::Result<bool> {
        let disk = nix::sys::statvfs::statvfs(&self.0.folder)?;
        let unit = disk.fragment_size();
        let (free, all) = (disk.blocks_available() * unit, disk.blocks() * unit);
        let spare = self.0.free_bytes_min.unwrap_or((all / 10).min(FREE_BYTES_MAX));
        Ok(free < bytes.saturating_add(spare))
    }

    fn drop_name(&self, info: &ImageInfo) -> io::Result<()> {
        match fs::remove_file(self.name_file(&info.name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        File::open(self.path("names"))?.sync_all()?;
        self.tell_of_change();
        Ok(())
    }

    /// Images that no task runs and that can be had again, the longest unused first.
    fn droppable(&self) -> Vec<(SystemTime, ImageInfo)> {
        let running: BTreeSet<String> = self.running().into_iter().map(|(digest, _)| digest).collect();
        let entries = fs::read_dir(self.path("names")).into_iter().flatten().flatten();
        let droppable = entries.filter_map(|file| {
            let used = file.metadata().ok()?.modified().ok()?;
            let Entry { info, origin } = serde_json::from_slice(&fs::read(file.path()).ok()?).ok()?;
            let comes_again = match origin {
                Origin::Import => false,
                Origin::Registry(_) => true,
                Origin::Peer => {
                    let endpoints = Reference::parse(&info.name).and_then(|name| self.0.registries.endpoints(&name));
                    endpoints.is_ok_and(|endpoints| !endpoints.is_empty())
                }
            };
            (comes_again && !running.contains(&info.digest)).then_some((used, info))
        });
        let mut droppable: Vec<_> = droppable.collect();
        droppable.sort_by(|(one, a), (other, b)| (one, &a.name).cmp(&(other, &b.name)));
        droppable
    }

    /// What the tasks that have not ended are made of: their images' digests and layers.
    fn running(&self) -> Vec<(String, Vec<String>)> {
        let tasks = fs::read_dir(&self.0.tasks).into_iter().flatten().flatten();
        let made_of = tasks.filter_map(|task| {
            let folder = Folder::at(task.path());
            match folder.read_plan().ok()?.image {
                Image::Layers(image) if folder.read_exit().is_err() => Some((image.digest, image.layers)),
                _ => None,
            }
        });
        made_of.collect()
    }

    /// Removes blobs and layers that nothing needs, and what has lain half fetched for so long.
    fn sweep(&self, partial_for: Duration) -> Result<Freed, ImageError> {
        let incoming = self.incoming()?;
        {
            // While it is held nobody can begin to use anything; who has begun is seen.
            let leases = self.leases();
            let needed = self.needed(&leases);
            self.set_aside("blobs/sha256", &needed.blobs, &incoming)?;
            self.set_aside("layers", &needed.layers, &incoming)?;
            self.give_up_partials(partial_for)?;
        }
        Ok(Freed { images: Vec::new(), bytes: bytes_below(incoming.path()) })
    }

    fn needed(&self, leases: &Leases) -> Needed {
        let mut needed = Needed::default();
        for lease in leases.out.values() {
            needed.blobs.extend(lease.blobs.iter().cloned());
            needed.layers.extend(lease.layers.iter().cloned());
        }
        for (_, layers) in self.running() {
            needed.layers.extend(layers);
        }
        for digest in self.list().iter().filter_map(|info| Digest::parse(&info.digest)) {
            let manifest = fs::read(self.blob_file(&digest)).ok().and_then(|bytes| Manifest::read(&bytes).ok());
            let Some(manifest) = manifest else { continue };
            let config = read_document(&self.blob_file(&manifest.config.digest));
            let config = config.ok().and_then(|bytes| manifest.config(&bytes).ok());
            needed.add(self, &digest, &manifest, config.as_ref());
        }
        needed
    }

    /// Moves what is not needed out of sight; it is removed with `incoming`.
    fn set_aside(&self, folder: &str, needed: &BTreeSet<String>, incoming: &Incoming) -> io::Result<()> {
        let aside = incoming.path().join(folder.replace('/', "-"));
        fs::create_dir(&aside)?;
        for entry in fs::read_dir(self.path(folder))?.flatten() {
            let name = entry.file_name();
            if !name.to_str().is_some_and(|name| needed.contains(name)) {
                fs::rename(entry.path(), aside.join(&name))?;
                let _ = fs::remove_file(self.path("unsettled").join(&name));
            }
        }
        Ok(())
    }

    fn give_up_partials(&self, partial_for: Duration) -> io::Result<()> {
        let downloads = self.0.downloads.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in fs::read_dir(self.path("partial"))?.flatten() {
            let digest = entry.file_name().to_str().and_then(Digest::from_hex);
            let is_used = digest.is_some_and(|digest| downloads.contains_key(&digest));
            let age = |found: Metadata| SystemTime::now().duration_since(found.modified().ok()?).ok();
            let is_old = entry.metadata().ok().and_then(age).is_some_and(|age| age >= partial_for);
            if is_old && !is_used {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Needed {
    fn add(&mut self, images: &Images, digest: &Digest, manifest: &Manifest, config: Option<&Config>) {
        self.blobs.insert(digest.hex());
        self.blobs.extend(manifest.blobs().map(|blob| blob.digest.hex()));
        self.layers.extend(config.iter().flat_map(|config| &config.layers).map(|id| images.layer_name(id)));
    }
}

/// What a folder takes on its disk, files that have other names elsewhere included.
fn bytes_below(folder: &Path) -> u64 {
    let mut folders: Vec<PathBuf> = vec![folder.to_owned()];
    let mut bytes = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            bytes += found.blocks() * 512;
            if found.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    bytes
}
