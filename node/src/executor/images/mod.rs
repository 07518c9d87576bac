//! The images of this machine: names, blobs by digest, and layers unpacked once each.
//!
//! ```text
//! images/names/NAME.json      what a name means: {name, digest of the manifest, bytes}
//! images/blobs/sha256/HEX     manifests, configurations and packed layers, as they came
//! images/layers/ID/           unpacked, in the form that overlayfs stacks; ID begins the layer's diff id
//! images/incoming/            what is not whole yet; emptied at each start
//! ```
//!
//! Nothing gets a name before everything that it needs is here and has the right digest.

mod blob;
mod fetch;
mod intake;
mod manifest;
mod unpack;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::folder::Image;
pub use blob::Digest;
pub use fetch::{Bytes, Fetch};
use manifest::Manifest;

/// The most that one image may take, packed or unpacked.
pub const IMAGE_BYTES_MAX: u64 = 32 << 30;
/// The most that a manifest, an index or a configuration may take.
pub const DOCUMENT_BYTES_MAX: u64 = 4 << 20;
/// overlayfs stacks no more.
const LAYERS_MAX: usize = 120;

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

/// The store; clones share it.
#[derive(Clone)]
pub struct Images(Arc<Store>);

struct Store {
    folder: PathBuf,
    /// One layer is unpacked at a time: the disk is one.
    unpacking: Mutex<()>,
    /// Fetches under way, by name: who needs the same image waits for the one that began.
    fetching: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Images {
    /// Opens the store of a data folder.
    pub fn open(data: &Path) -> io::Result<Self> {
        let folder = std::path::absolute(data)?.join("executor/images");
        let _ = fs::remove_dir_all(folder.join("incoming"));
        for name in ["names", "blobs/sha256", "layers", "incoming"] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder.join(name))?;
        }
        Ok(Self(Arc::new(Store { folder, unpacking: Mutex::default(), fetching: Mutex::default() })))
    }

    /// Takes in a tar stream, packed or not, of an OCI image layout. Blocks.
    pub fn import(&self, name: &str, archive: impl Read) -> Result<ImageInfo, ImageError> {
        check_name(name)?;
        intake::archive(self, name, archive)
    }

    /// Takes in the folder of an OCI image layout. Blocks.
    pub fn import_folder(&self, name: &str, folder: &Path) -> Result<ImageInfo, ImageError> {
        check_name(name)?;
        intake::folder(self, name, folder)
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

    /// The manifest that is meant, if it and everything that it needs is here: that of the digest, or else whatever
    /// the name means.
    fn held(&self, name: &str, digest: Option<&str>) -> Option<Vec<u8>> {
        let Some(digest) = digest else { return self.manifest(name) };
        let bytes = fs::read(self.blob(digest)?).ok()?;
        let manifest = Manifest::read(&bytes).ok()?;
        let config = manifest.config(&read_document(&self.blob_file(&manifest.config.digest)).ok()?).ok()?;
        let layers = self.path("layers");
        config.layers.iter().all(|id| layers.join(self.layer_name(id)).is_dir()).then_some(bytes)
    }

    /// What a container of this image is made of; everything is here already.
    fn ready(&self, name: &str, digest: Option<&str>) -> Result<Image, ImageError> {
        let missing = || ImageError::Missing("this machine does not have it".into());
        let bytes = self.held(name, digest).ok_or_else(missing)?;
        let manifest = Manifest::read(&bytes)?;
        let config = manifest.config(&read_document(&self.blob_file(&manifest.config.digest))?)?;
        let layers = config.layers.iter().rev().map(|id| self.layer_name(id)).collect();
        Ok(Image::Layers {
            digest: Digest::of(&bytes).to_string(),
            store: self.path("layers"),
            layers,
            entrypoint: config.entrypoint,
            command: config.command,
            environment: config.environment,
            working_dir: config.working_dir,
            user: config.user,
        })
    }

    /// Unpacks what is not unpacked yet, and gives the image its name. All blobs are here.
    fn install(&self, name: &str, manifest_bytes: &[u8]) -> Result<ImageInfo, ImageError> {
        let manifest = Manifest::read(manifest_bytes)?;
        let config = manifest.config(&read_document(&self.blob_file(&manifest.config.digest))?)?;
        let mut left = IMAGE_BYTES_MAX;
        for (layer, id) in manifest.layers.iter().zip(&config.layers) {
            left = self.unpack(&layer.digest, id, left)?;
        }
        let digest = Digest::of(manifest_bytes);
        self.keep(&self.blob_file(&digest), manifest_bytes)?;
        let info = ImageInfo {
            name: name.into(),
            digest: digest.to_string(),
            bytes: manifest.bytes() + manifest_bytes.len() as u64,
        };
        self.keep(&self.name_file(name), &serde_json::to_vec(&info).map_err(io::Error::from)?)?;
        Ok(info)
    }

    fn unpack(&self, blob: &Digest, id: &Digest, bytes_max: u64) -> Result<u64, ImageError> {
        let _one = self.0.unpacking.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.path("layers").join(self.layer_name(id));
        if place.is_dir() {
            return Ok(bytes_max);
        }
        let incoming = self.incoming()?;
        let root = incoming.path().join("layer");
        let packed = File::open(self.blob_file(blob))?;
        let (found, bytes) = unpack::layer(packed, &root, bytes_max)?;
        if found != *id {
            return Err(ImageError::Invalid(format!("layer {blob} unpacks to {found}, not to {id} as the image says")));
        }
        // On the disk before it has its name: a torn layer must never look whole.
        sync_filesystem(&root)?;
        fs::rename(&root, &place)?;
        Ok(bytes_max.saturating_sub(bytes))
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

    /// Half of the digest: still unique, and a hundred of them fit into the options of a mount.
    fn layer_name(&self, id: &Digest) -> String {
        id.hex()[..32].to_owned()
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

/// Names as registries have them: lower-case words with `.`, `_`, `-`, `/` and `:`.
fn check_name(name: &str) -> Result<(), ImageError> {
    const BYTES_MAX: usize = 200;
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/:".contains(c);
    let is_good = (1..=BYTES_MAX).contains(&name.len())
        && name.chars().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.split('/').all(|word| !word.is_empty() && word != "." && word != "..");
    match name {
        "host" => Err(ImageError::Invalid("`host` is the machine itself and no image".into())),
        _ if is_good => Ok(()),
        _ => Err(ImageError::Invalid(format!("{name:?} is no name of an image: a-z, 0-9 and . _ - / : make one"))),
    }
}

fn read_document(path: &Path) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(DOCUMENT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn sync_filesystem(path: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let folder = File::open(path)?;
    // SAFETY: the descriptor is open.
    nix::errno::Errno::result(unsafe { nix::libc::syncfs(folder.as_raw_fd()) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_lead_anywhere() {
        for good in ["web", "web:1", "registry.example/shop/web:1.2-rc_3"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "host", "../x", "a/../b", "/a", "a//b", "A", "a b", "a+b", ".", "a/.", &"a".repeat(300)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
