//! The images of this machine: names, blobs by digest, and layers unpacked once each.
//!
//! ```text
//! images/names/NAME.json      what a name means: {name, digest of the manifest, bytes}
//! images/blobs/sha256/HEX     manifests, configurations and packed layers, as they came
//! images/layers/ID/           unpacked, in the form that overlayfs stacks; ID begins the layer's diff id
//! images/unsettled/ID         that a layer is not finished and on the disk yet: it goes at the next start
//! images/partial/HEX          the first bytes of blobs that are on their way
//! images/incoming/            what is not whole yet; emptied at each start
//! ```
//!
//! Nothing gets a name before everything that it needs is here and has the right digest.

mod blob;
mod docker;
mod download;
mod fetch;
mod follow;
mod gc;
mod inherit;
mod intake;
mod layers;
mod logins;
mod manifest;
pub(in crate::executor) mod members;
mod name;
mod progress;
mod pull;
mod registries;
mod registry;
mod unpack;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use super::folder::{Image, Layers};
pub use blob::Digest;
use download::Download;
pub use fetch::{Bytes, Fetch, Together};
use gc::Leases;
pub use gc::{Freed, Lease};
pub use intake::Naming;
use logins::NoLogins;
pub use logins::{Login, Logins};
use manifest::Manifest;
pub use manifest::{Config, Healthcheck};
use name::check_name;
pub use name::{DOCKER_HUB, Reference};
pub use progress::{LayerAt, LayerState, Progress, Pulling};
use pull::Pull;
pub use registries::{Host, Registries};
use registry::Connections;

/// The most that one image may take, packed or unpacked.
pub const IMAGE_BYTES_MAX: u64 = 32 << 30;
/// The most that a manifest, an index or a configuration may take.
pub const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// The most files, folders and links that one image may unpack to.
const ENTRIES_MAX: u64 = 2_000_000;
/// overlayfs stacks no more.
const LAYERS_MAX: usize = 120;
/// Blobs on their way at once, of all images together.
const BLOBS_AT_ONCE_MAX: usize = 8;

/// Why an image is refused or cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The archive, a document in it or the name is wrong. Nothing was kept.
    #[error("{0}")]
    Invalid(String),
    /// Neither this machine nor any of those named has it.
    #[error("{0}")]
    Missing(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageInfo {
    pub name: String,
    /// The manifest's, `sha256:…`.
    pub digest: String,
    /// Of the manifest, the configuration and the packed layers together.
    pub bytes: u64,
}

/// Where an image came from: what came from a registry can be had again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    Import,
    Peer,
    Registry(String),
}

/// The file of a name.
#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(flatten)]
    info: ImageInfo,
    #[serde(default = "imported")]
    origin: Origin,
}

fn imported() -> Origin {
    Origin::Import
}

/// What a store is told by its machine's configuration.
#[derive(Clone, Default)]
pub struct Settings {
    pub registries: Registries,
    /// What people have logged in with; `None`: nobody has.
    pub logins: Option<Arc<dyn Logins>>,
    /// Of what one image may unpack to: tests ask for less.
    pub bytes_max: Option<u64>,
    pub entries_max: Option<u64>,
    /// Bytes of the disk that are left to everything else: else a tenth of it, and 10 GiB at most.
    pub free_bytes_min: Option<u64>,
}

/// The store; clones share it.
#[derive(Clone)]
pub struct Images(Arc<Store>);

struct Store {
    folder: PathBuf,
    /// Of the tasks, whose plans say what they are made of.
    tasks: PathBuf,
    free_bytes_min: Option<u64>,
    registries: Registries,
    logins: Arc<dyn Logins>,
    connections: Connections,
    /// The most bytes, and entries, that one image may unpack to.
    bounds: (u64, u64),
    /// Layers that are being unpacked: who needs the same one waits for it.
    unpacking: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// Images on their way, by name: who needs the same one waits for the one that began.
    pulling: Mutex<BTreeMap<String, Arc<Pull>>>,
    /// Blobs on their way.
    downloads: Mutex<BTreeMap<Digest, Arc<Download>>>,
    at_once: Semaphore,
    leases: Mutex<Leases>,
    /// Rises with each change of what names mean.
    changes: watch::Sender<u64>,
}

impl Images {
    /// Opens the store of a data folder, which knows no registry but those that names say.
    pub fn open(data: &Path) -> io::Result<Self> {
        Self::with(data, Settings::default())
    }

    /// Opens the store of a data folder.
    pub fn with(data: &Path, settings: Settings) -> io::Result<Self> {
        let folder = std::path::absolute(data)?.join("executor/images");
        let _ = fs::remove_dir_all(folder.join("incoming"));
        for name in ["names", "blobs/sha256", "layers", "unsettled", "partial", "incoming"] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.join(name))?;
        }
        // What may have been torn when the machine went down; it is unpacked again when it is needed.
        for marker in fs::read_dir(folder.join("unsettled"))?.flatten() {
            let _ = fs::remove_dir_all(folder.join("layers").join(marker.file_name()));
            fs::remove_file(marker.path())?;
        }
        let Settings { registries, logins, bytes_max, entries_max, free_bytes_min } = settings;
        Ok(Self(Arc::new(Store {
            tasks: folder.with_file_name("tasks"),
            free_bytes_min,
            folder,
            registries,
            logins: logins.unwrap_or_else(|| Arc::new(NoLogins)),
            connections: Connections::default(),
            bounds: (bytes_max.unwrap_or(IMAGE_BYTES_MAX), entries_max.unwrap_or(ENTRIES_MAX)),
            unpacking: Mutex::default(),
            pulling: Mutex::default(),
            downloads: Mutex::default(),
            at_once: Semaphore::new(BLOBS_AT_ONCE_MAX),
            leases: Mutex::default(),
            changes: watch::Sender::default(),
        })))
    }

    /// Takes in a tar stream, packed or not, of an OCI image layout or of what `docker save` writes.
    /// Blocks.
    pub fn import(&self, name: Naming<'_>, archive: impl Read) -> Result<ImageInfo, ImageError> {
        name.check()?;
        intake::archive(self, name, archive)
    }

    /// Takes in the folder of an OCI image layout. Blocks.
    pub fn import_folder(&self, name: Naming<'_>, folder: &Path) -> Result<ImageInfo, ImageError> {
        name.check()?;
        intake::folder(self, name, folder)
    }

    /// Rises whenever a name comes, goes or means something else.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    fn tell_of_change(&self) {
        self.0.changes.send_modify(|count| *count += 1);
    }

    /// All images, by name.
    pub fn list(&self) -> Vec<ImageInfo> {
        let entries = fs::read_dir(self.path("names")).into_iter().flatten().flatten();
        let mut all: Vec<ImageInfo> =
            entries.filter_map(|entry| serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()).collect();
        all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// One image.
    pub fn get(&self, name: &str) -> Option<ImageInfo> {
        check_name(name).ok()?;
        serde_json::from_slice(&fs::read(self.name_file(name)).ok()?).ok()
    }

    /// The manifest of an image, byte for byte.
    pub fn manifest(&self, name: &str) -> Option<Vec<u8>> {
        let digest = Digest::parse(&self.get(name)?.digest)?;
        fs::read(self.blob_file(&digest)).ok()
    }

    /// Where a blob lies, for handing it to another peer. `None` also for what is no digest.
    pub fn blob(&self, digest: &str) -> Option<PathBuf> {
        let path = self.blob_file(&Digest::parse(digest)?);
        path.is_file().then_some(path)
    }

    /// What an image says of itself.
    pub fn configuration(&self, name: &str) -> Option<Config> {
        let manifest = Manifest::read(&self.manifest(name)?).ok()?;
        manifest.config(&read_document(&self.blob_file(&manifest.config.digest)).ok()?).ok()
    }

    /// The manifest that is meant, if it and everything that it needs is here: that of the digest, or else whatever
    /// the name means.
    fn held(&self, name: &str, digest: Option<&Digest>) -> Option<Vec<u8>> {
        let Some(digest) = digest else { return self.manifest(name) };
        let bytes = fs::read(self.blob_file(digest)).ok()?;
        Manifest::read(&bytes).ok()?.blobs().all(|blob| self.has_blob(&blob.digest)).then_some(bytes)
    }

    /// What a container of this image is made of, held until it is in the plan of a task; all blobs are here.
    fn ready(&self, name: &str, digest: Option<&Digest>) -> Result<(Image, Lease), ImageError> {
        let missing = || ImageError::Missing("this machine does not have it".into());
        let bytes = self.held(name, digest).ok_or_else(missing)?;
        let (digest, manifest) = (Digest::of(&bytes), Manifest::read(&bytes)?);
        let config = manifest.config(&read_document(&self.blob_file(&manifest.config.digest))?)?;
        let lease = self.lease(&digest, &manifest, Some(&config));
        if !self.has_blob(&digest) {
            return Err(ImageError::Missing("it was given up just now".into()));
        }
        if !self.has_layers(&config.layers) {
            // After a torn life a layer may have to be unpacked again.
            self.unpack_all(&manifest, &config)?;
        }
        // Its file's date says when it was used.
        let _ = File::options()
            .write(true)
            .open(self.name_file(name))
            .and_then(|file| file.set_modified(SystemTime::now()));
        let image = Image::Layers(Box::new(Layers {
            digest: digest.to_string(),
            store: self.path("layers"),
            layers: config.layers.iter().rev().map(|id| self.layer_name(id)).collect(),
            entrypoint: config.entrypoint,
            command: config.command,
            environment: config.environment,
            working_dir: config.working_dir,
            user: config.user,
            volumes: config.volumes,
            stop_signal: config.stop_signal,
            health: config.healthcheck.map(Into::into),
        }));
        Ok((image, lease))
    }

    /// Unpacks what is not unpacked yet, and gives the image its name. All blobs are here.
    fn install(&self, name: &str, manifest_bytes: &[u8], origin: Origin) -> Result<ImageInfo, ImageError> {
        let manifest = Manifest::read(manifest_bytes)?;
        let config = manifest.config(&read_document(&self.blob_file(&manifest.config.digest))?)?;
        self.unpack_all(&manifest, &config)?;
        let digest = Digest::of(manifest_bytes);
        self.keep(&self.blob_file(&digest), manifest_bytes)?;
        let info = ImageInfo {
            name: name.into(),
            digest: digest.to_string(),
            bytes: manifest.bytes() + manifest_bytes.len() as u64,
        };
        let entry = Entry { info, origin };
        self.keep(&self.name_file(name), &serde_json::to_vec(&entry).map_err(io::Error::from)?)?;
        self.tell_of_change();
        Ok(entry.info)
    }

    fn has_blob(&self, digest: &Digest) -> bool {
        self.blob_file(digest).is_file()
    }

    /// Writes a file whole or not at all, and to the disk.
    fn keep(&self, place: &Path, bytes: &[u8]) -> io::Result<()> {
        let incoming = self.incoming()?;
        let temporary = incoming.path().join("file");
        let mut file = File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(temporary, place)
    }

    /// A folder of its own for something that is not whole yet.
    fn incoming(&self) -> io::Result<Incoming> {
        let path = self.path("incoming").join(uuid::Uuid::now_v7().simple().to_string());
        fs::create_dir(&path)?;
        Ok(Incoming(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.folder.join(name)
    }

    fn blob_file(&self, digest: &Digest) -> PathBuf {
        self.path("blobs/sha256").join(digest.hex())
    }

    fn name_file(&self, name: &str) -> PathBuf {
        // A plus sign is in no name.
        self.path("names").join(format!("{}.json", name.replace('/', "+")))
    }
}

/// A folder that goes away again, with what was left in it.
struct Incoming(PathBuf);

impl Incoming {
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn read_document(path: &Path) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
