//! Taking in an image: an OCI image layout, or what `docker save` writes. Whatever comes is hostile
//! until its digest is right: an archive gives names to nothing on this machine, and only what the
//! image needs is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::libc;

use super::blob::{Digest, Hashing, receive};
use super::docker::{self, Saved};
use super::manifest::{Choice, Manifest, Named, choices, is_index};
use super::members;
use super::name::{check_name, familiar};
use super::unpack::decompressed;
use super::{DOCUMENT_BYTES_MAX, IMAGE_BYTES_MAX, ImageError, ImageInfo, Images, Incoming, Origin, read_document};

const ENTRIES_MAX: usize = 10_000;
/// Indexes within indexes.
const DEPTH_MAX: usize = 3;
/// Links of links.
const LINKS_MAX: usize = 8;

/// What an image is to be called here.
#[derive(Clone, Copy, Debug)]
pub enum Naming<'a> {
    As(&'a str),
    /// As the archive calls it, or else so.
    OwnOr(Option<&'a str>),
}

impl<'a> Naming<'a> {
    fn chosen(self) -> Option<&'a str> {
        match self {
            Naming::As(name) => Some(name),
            Naming::OwnOr(_) => None,
        }
    }

    /// Refuses what can be no name.
    pub fn check(self) -> Result<(), ImageError> {
        match self {
            Naming::As(name) | Naming::OwnOr(Some(name)) => check_name(name),
            Naming::OwnOr(None) => Ok(()),
        }
    }
}

/// Takes in a tar stream.
pub fn archive(images: &Images, name: Naming<'_>, archive: impl Read) -> Result<ImageInfo, ImageError> {
    let mut intake = Intake::new(images)?;
    let archive = decompressed(archive)?.take(IMAGE_BYTES_MAX);
    let mut archive = tar::Archive::new(archive);
    let mut count = 0;
    members::each(&mut archive, |member, content| {
        count += 1;
        if count > ENTRIES_MAX {
            return Err(ImageError::Invalid(format!("the archive has more than {ENTRIES_MAX} entries")));
        }
        let parts = parts(&member.path)?;
        match &member.link {
            Some(target) if member.kind.is_symlink() => intake.link(&parts, target),
            Some(_) => Err(a_link(&parts)),
            None if member.kind.is_dir() => Ok(()),
            None if member.kind.is_file() => intake.put(&parts, content).map_err(torn),
            None => Err(ImageError::Invalid(format!("the archive holds a thing that is no file, {}", parts.join("/")))),
        }
    })?;
    intake.finish(images, name)
}

/// Takes in a folder.
pub fn folder(images: &Images, name: Naming<'_>, folder: &Path) -> Result<ImageInfo, ImageError> {
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
    /// What has come, by its digest.
    blobs: BTreeSet<Digest>,
    /// Docker's: the list of images, and what has come under other names than digests.
    saved: Option<Vec<u8>>,
    files: BTreeMap<String, Named>,
    links: BTreeMap<String, String>,
}

impl Intake {
    fn new(images: &Images) -> io::Result<Self> {
        Ok(Self {
            incoming: images.incoming()?,
            bytes_left: IMAGE_BYTES_MAX,
            has_layout: false,
            index: None,
            blobs: BTreeSet::new(),
            saved: None,
            files: BTreeMap::new(),
            links: BTreeMap::new(),
        })
    }

    fn put(&mut self, path: &[String], from: &mut dyn Read) -> Result<(), ImageError> {
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
            ["manifest.json"] => self.saved = Some(document(from)?),
            ["blobs", "sha256", name] => {
                let digest = Digest::from_hex(name)
                    .ok_or_else(|| ImageError::Invalid(format!("a blob is called {name:?}, which is no digest")))?;
                self.bytes_left -= receive(from, &self.place(&digest), &digest, self.bytes_left)?;
                self.blobs.insert(digest);
            }
            _ if docker::is_part(&path) => self.put_part(&path.join("/"), from)?,
            // What other tools put beside the image means nothing here.
            _ => {}
        }
        Ok(())
    }

    /// A file whose digest nobody has promised.
    fn put_part(&mut self, path: &str, from: &mut dyn Read) -> Result<(), ImageError> {
        let temporary = self.incoming.path().join("part");
        let mut file = Hashing::new(File::create(&temporary)?);
        io::copy(&mut from.take(self.bytes_left.saturating_add(1)), &mut file)?;
        if file.bytes > self.bytes_left {
            return Err(ImageError::Invalid(format!("the image is larger than {IMAGE_BYTES_MAX} bytes")));
        }
        self.bytes_left -= file.bytes;
        let named = Named { digest: file.digest(), bytes: file.bytes };
        fs::rename(temporary, self.place(&named.digest))?;
        self.blobs.insert(named.digest.clone());
        self.files.insert(path.to_owned(), named);
        Ok(())
    }

    /// Docker writes a layer once and links to it: within the archive, to another part of an image.
    fn link(&mut self, path: &[String], target: &Path) -> Result<(), ImageError> {
        let target = target.to_str().ok_or_else(|| a_link(path))?;
        let target = target.strip_prefix("../").unwrap_or(target);
        let as_parts = |text: &str| docker::is_part(&text.split('/').collect::<Vec<_>>());
        if !as_parts(&path.join("/")) || !as_parts(target) {
            return Err(a_link(path));
        }
        self.links.insert(path.join("/"), target.to_owned());
        Ok(())
    }

    fn finish(mut self, images: &Images, naming: Naming<'_>) -> Result<ImageInfo, ImageError> {
        let (bytes, own) = match (&self.index, &self.saved) {
            (Some(index), _) if self.has_layout => self.choose(index, naming.chosen(), DEPTH_MAX)?,
            (_, Some(saved)) if !self.has_layout => {
                let saved = docker::read(saved)?;
                self.resolve_links();
                self.choose_saved(&saved, naming.chosen())?
            }
            _ if self.has_layout => return Err(ImageError::Invalid("the layout has no index.json".into())),
            _ => {
                let reason =
                    "this is no image: it has neither `oci-layout`, as OCI has it, nor Docker's `manifest.json`";
                return Err(ImageError::Invalid(reason.into()));
            }
        };
        let name = match (naming, own) {
            (Naming::As(name), _) => name.to_owned(),
            (Naming::OwnOr(_), Some(own)) if check_name(&own).is_ok() => own,
            (Naming::OwnOr(Some(name)), _) => name.to_owned(),
            _ => return Err(ImageError::Invalid("the archive gives the image no name: choose one".into())),
        };
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
        let config = manifest.config(&read_document(&self.place(&manifest.config.digest))?)?;
        // The blobs are in the same file system already: what is still to come is what they unpack to.
        images.relieve(manifest.bytes().saturating_mul(2))?;
        let lease = images.lease(&Digest::of(&bytes), &manifest, Some(&config));
        for digest in manifest.blobs().map(|blob| &blob.digest).collect::<BTreeSet<_>>() {
            fs::rename(self.place(digest), images.blob_file(digest))?;
        }
        let installed = images.install(&name, &bytes, Origin::Import);
        drop(lease);
        if installed.is_err() {
            // What is refused leaves nothing behind.
            images.collect(None)?;
        }
        installed
    }

    /// The manifest for this machine, and what the archive calls it.
    fn choose(&self, index: &[u8], name: Option<&str>, depth: usize) -> Result<(Vec<u8>, Option<String>), ImageError> {
        let all: Vec<Choice> =
            choices(index)?.into_iter().filter(|choice| self.blobs.contains(&choice.named.digest)).collect();
        let called = all.iter().find(|choice| name.is_some() && choice.name.as_deref().map(familiar) == name);
        let here = called.or_else(|| all.first());
        let here = here.ok_or_else(|| ImageError::Invalid("the layout has no image for this machine".into()))?;
        let bytes = read_document(&self.place(&here.named.digest))?;
        // `latest` alone is a tag and names nothing.
        let own = here.name.as_deref().map(familiar).filter(|name| *name != "latest").map(str::to_owned);
        match (is_index(&bytes), depth) {
            (false, _) => Ok((bytes, own)),
            (true, 0) => Err(ImageError::Invalid("the layout's indexes lead nowhere".into())),
            (true, _) => self.choose(&bytes, name, depth - 1).map(|(bytes, inner)| (bytes, own.or(inner))),
        }
    }

    fn choose_saved(&self, all: &[Saved], name: Option<&str>) -> Result<(Vec<u8>, Option<String>), ImageError> {
        let called =
            all.iter().find(|saved| name.is_some_and(|name| saved.names().iter().any(|own| familiar(own) == name)));
        let chosen = match (called, all) {
            (Some(called), _) => called,
            (None, [only]) => only,
            _ => {
                let names: Vec<&str> = all.iter().flat_map(Saved::names).map(String::as_str).collect();
                let names = names.join(", ");
                return Err(ImageError::Invalid(format!("the archive has several images: choose one of {names}")));
            }
        };
        let own = chosen.names().first().map(|own| familiar(own).to_owned());
        Ok((chosen.manifest(&self.files)?, own))
    }

    fn resolve_links(&mut self) {
        for (path, first) in &self.links {
            let mut target = first;
            for _ in 0..LINKS_MAX {
                match self.links.get(target) {
                    Some(further) => target = further,
                    None => break,
                }
            }
            if let Some(named) = self.files.get(target).cloned() {
                self.files.insert(path.clone(), named);
            }
        }
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.incoming.path().join(digest.hex())
    }
}

fn a_link(path: &[String]) -> ImageError {
    ImageError::Invalid(format!("the archive holds a link, {}", path.join("/")))
}

/// What goes wrong while a member is read is the archive's fault, unless the disk is to blame.
fn torn(error: ImageError) -> ImageError {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match error {
        ImageError::Io(error) if matches!(error.kind(), UnexpectedEof | InvalidData | InvalidInput) => {
            ImageError::Invalid(format!("the archive cannot be read: {error}"))
        }
        other => other,
    }
}

fn document(from: &mut dyn Read) -> Result<Vec<u8>, ImageError> {
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
