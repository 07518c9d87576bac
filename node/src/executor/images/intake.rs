//! Taking in an OCI image layout. Whatever comes is hostile until its digest is right: an archive
//! gives names to nothing on this machine, and only what the image needs is kept.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::libc;

use super::blob::{Digest, receive};
use super::manifest::{Manifest, choices, is_index};
use super::unpack::decompressed;
use super::{DOCUMENT_BYTES_MAX, IMAGE_BYTES_MAX, ImageError, ImageInfo, Images, Incoming, Origin, read_document};

const ENTRIES_MAX: usize = 10_000;
/// Indexes within indexes.
const DEPTH_MAX: usize = 3;

/// Takes in a tar stream.
pub fn archive(images: &Images, name: &str, archive: impl Read) -> Result<ImageInfo, ImageError> {
    let mut intake = Intake::new(images)?;
    let archive = decompressed(archive)?.take(IMAGE_BYTES_MAX);
    let mut archive = tar::Archive::new(archive);
    for (count, entry) in archive.entries().map_err(unreadable)?.enumerate() {
        if count == ENTRIES_MAX {
            return Err(ImageError::Invalid(format!("the archive has more than {ENTRIES_MAX} entries")));
        }
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.into_owned();
        let kind = entry.header().entry_type();
        let parts = parts(&path)?;
        if kind.is_symlink() || kind.is_hard_link() {
            return Err(ImageError::Invalid(format!("the archive holds a link, {}", path.display())));
        }
        if kind.is_file() {
            intake.put(&parts, &mut entry)?;
        }
    }
    intake.finish(images, name)
}

/// Takes in a folder.
pub fn folder(images: &Images, name: &str, folder: &Path) -> Result<ImageInfo, ImageError> {
    let mut intake = Intake::new(images)?;
    for document in ["oci-layout", "index.json"] {
        intake.put(&[document.to_owned()], &mut open(&folder.join(document))?)?;
    }
    for (count, entry) in fs::read_dir(folder.join("blobs/sha256"))?.enumerate() {
        let entry = entry?;
        if count == ENTRIES_MAX {
            return Err(ImageError::Invalid(format!("the layout has more than {ENTRIES_MAX} blobs")));
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        intake.put(&["blobs".to_owned(), "sha256".to_owned(), name], &mut open(&entry.path())?)?;
    }
    intake.finish(images, name)
}

fn open(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)
}

struct Intake {
    incoming: Incoming,
    bytes_left: u64,
    has_layout: bool,
    index: Option<Vec<u8>>,
    blobs: BTreeSet<Digest>,
}

impl Intake {
    fn new(images: &Images) -> io::Result<Self> {
        let incoming = images.incoming()?;
        Ok(Self { incoming, bytes_left: IMAGE_BYTES_MAX, has_layout: false, index: None, blobs: BTreeSet::new() })
    }

    fn put(&mut self, path: &[String], from: &mut impl Read) -> Result<(), ImageError> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path[..] {
            ["oci-layout"] => {
                #[derive(serde::Deserialize)]
                #[serde(rename_all = "camelCase")]
                struct Layout {
                    image_layout_version: String,
                }
                let layout: Layout = serde_json::from_slice(&document(from)?)
                    .map_err(|error| ImageError::Invalid(format!("oci-layout cannot be read: {error}")))?;
                if !layout.image_layout_version.starts_with("1.") {
                    let version = layout.image_layout_version;
                    return Err(ImageError::Invalid(format!("the layout is of version {version}, not 1")));
                }
                self.has_layout = true;
            }
            ["index.json"] => self.index = Some(document(from)?),
            ["blobs", "sha256", name] => {
                let digest = Digest::from_hex(name)
                    .ok_or_else(|| ImageError::Invalid(format!("a blob is called {name:?}, which is no digest")))?;
                self.bytes_left -= receive(from, &self.place(&digest), &digest, self.bytes_left)?;
                self.blobs.insert(digest);
            }
            // What other tools put beside the layout means nothing here.
            _ => {}
        }
        Ok(())
    }

    fn finish(self, images: &Images, name: &str) -> Result<ImageInfo, ImageError> {
        if !self.has_layout {
            return Err(ImageError::Invalid("this is no OCI image layout: it has no file `oci-layout`".into()));
        }
        let index = self.index.clone().ok_or_else(|| ImageError::Invalid("the layout has no index.json".into()))?;
        let bytes = self.choose(&index, DEPTH_MAX)?;
        let manifest = Manifest::read(&bytes)?;
        for blob in manifest.blobs() {
            if !self.blobs.contains(&blob.digest) {
                return Err(ImageError::Invalid(format!("the layout lacks blob {}", blob.digest)));
            }
            let size = fs::metadata(self.place(&blob.digest))?.len();
            if size != blob.bytes {
                let (digest, promised) = (&blob.digest, blob.bytes);
                return Err(ImageError::Invalid(format!(
                    "blob {digest} has {size} bytes, not {promised} as its image says"
                )));
            }
        }
        manifest.config(&read_document(&self.place(&manifest.config.digest))?)?;
        for digest in manifest.blobs().map(|blob| &blob.digest).collect::<BTreeSet<_>>() {
            fs::rename(self.place(digest), images.blob_file(digest))?;
        }
        images.install(name, &bytes, Origin::Import)
    }

    /// The manifest for this machine.
    fn choose(&self, index: &[u8], depth: usize) -> Result<Vec<u8>, ImageError> {
        let here = choices(index)?.into_iter().find(|choice| self.blobs.contains(&choice.digest));
        let here = here.ok_or_else(|| ImageError::Invalid("the layout has no image for this machine".into()))?;
        let bytes = read_document(&self.place(&here.digest))?;
        match (is_index(&bytes), depth) {
            (false, _) => Ok(bytes),
            (true, 0) => Err(ImageError::Invalid("the layout's indexes lead nowhere".into())),
            (true, _) => self.choose(&bytes, depth - 1),
        }
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.incoming.path().join(digest.hex())
    }
}

fn document(from: &mut impl Read) -> Result<Vec<u8>, ImageError> {
    let mut bytes = Vec::new();
    from.take(DOCUMENT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
        return Err(ImageError::Invalid(format!("a document is larger than {DOCUMENT_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

/// The names on a path that stays within.
fn parts(path: &Path) -> Result<Vec<String>, ImageError> {
    let refuse = || ImageError::Invalid(format!("the archive's path {} leads out of it", path.display()));
    path.components()
        .filter(|component| !matches!(component, Component::CurDir))
        .map(|component| match component {
            Component::Normal(name) => Ok(name.to_string_lossy().into_owned()),
            _ => Err(refuse()),
        })
        .collect()
}

fn unreadable(error: io::Error) -> ImageError {
    ImageError::Invalid(format!("the archive cannot be read: {error}"))
}
