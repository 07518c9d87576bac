//! Files out of a container and into it, as a tar archive. Every path is resolved by the kernel
//! within the container's root, whatever links the container has laid: none leads outside.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, fchmod, futimens, mkdirat, umask};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, fchownat, linkat, mkfifoat, symlinkat, unlinkat};
use rialto_protocol::api::ErrorCode;
use rialto_protocol::session::{FRAME_BYTES_MAX, Failed, Frame};
use tar::{Builder, EntryType, Header};

use super::talk::{Heard, Talk};
use super::{broken, failed};
use crate::executor::images::ImageError;
use crate::executor::images::members::{self, Member};
use crate::executor::{attributes, holes};

/// To whom what is copied in belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// To root, as everything that comes from outside.
    Root,
    /// To whom the archive says, and as old as it says.
    Kept,
}

/// Finds what has a name, and does not touch it.
const LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Folders in folders.
const DEPTH_MAX: usize = 256;
/// Files of several names that are remembered; of those beyond each name is a file of its own.
const LINKS_MAX: usize = 1 << 18;

/// Sends what lies at `path`, under its own name.
pub fn read(root: &File, path: &str, talk: &mut Talk) -> Result<(), Failed> {
    let (parent, name) = place(path)?;
    let missing = |error: io::Error| at(path, error);
    let folder = open(root, &parent, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(missing)?;
    let mut packing = Packing::new(talk);
    let added = match &name {
        Some(name) => packing.add(&folder, name, Path::new(name), 0),
        None => packing.add_content(&folder, Path::new("."), 0),
    };
    added.map_err(missing)?;
    packing.finish().map_err(broken("the archive"))
}

/// Sends everything in the root folder, and what that is itself.
pub fn read_whole(root: &File, talk: &mut Talk) -> Result<(), Failed> {
    let mut packing = Packing::new(talk);
    let added = packing.add_folder(root, Path::new("."), 0);
    added.map_err(|error| at("/", error))?;
    packing.finish().map_err(broken("the archive"))
}

/// An archive that is made.
struct Packing<'a> {
    archive: Builder<Outwards<'a>>,
    /// Files of several names, by what they are, with the first.
    links: BTreeMap<(u64, u64), PathBuf>,
}

impl<'a> Packing<'a> {
    fn new(talk: &'a mut Talk) -> Self {
        let outwards = Outwards { talk, held: Vec::with_capacity(FRAME_BYTES_MAX) };
        Self { archive: Builder::new(outwards), links: BTreeMap::new() }
    }

    fn finish(self) -> io::Result<()> {
        self.archive.into_inner()?.flush()
    }

    /// Adds an entry of a folder. Sockets and device files are left out: they hold no data.
    fn add(
        &mut self,
        folder: &impl AsFd,
        name: &(impl AsRef<std::ffi::OsStr> + ?Sized),
        as_path: &Path,
        depth: usize,
    ) -> io::Result<()> {
        let name = Path::new(name.as_ref());
        let found: File = openat(folder, name, LOOK, Mode::empty())?.into();
        let metadata = found.metadata()?;
        let kind = metadata.file_type();
        let mut header = head(&metadata);
        if kind.is_dir() {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            return self.add_folder(&File::from(openat(folder, name, flags, Mode::empty())?), as_path, depth + 1);
        }
        if metadata.nlink() > 1 {
            let id = (metadata.dev(), metadata.ino());
            if let Some(first) = self.links.get(&id) {
                header.set_entry_type(EntryType::Link);
                return self.archive.append_link(&mut header, as_path, first);
            }
            if self.links.len() < LINKS_MAX {
                self.links.insert(id, as_path.to_owned());
            }
        }
        if kind.is_symlink() {
            return self.archive.append_link(&mut header, as_path, readlinkat(folder, name)?);
        }
        if kind.is_fifo() {
            return self.archive.append_data(&mut header, as_path, io::empty());
        }
        if kind.is_file() {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let file: File = openat(folder, name, flags, Mode::empty())?.into();
            // It is what it was, and as long as its head says, however it grows or shrinks meanwhile.
            let now = file.metadata()?;
            if (now.dev(), now.ino()) != (metadata.dev(), metadata.ino()) {
                return Err(io::Error::other("it was replaced while it was read"));
            }
            header.set_size(now.len());
            self.add_attributes(&file)?;
            return self.archive.append_data(&mut header, as_path, file.chain(io::repeat(0)).take(now.len()));
        }
        Ok(())
    }

    fn add_folder(&mut self, folder: &File, as_path: &Path, depth: usize) -> io::Result<()> {
        self.add_attributes(folder)?;
        self.archive.append_data(&mut head(&folder.metadata()?), as_path, io::empty())?;
        self.add_content(folder, as_path, depth)
    }

    fn add_content(&mut self, folder: &impl AsFd, as_path: &Path, depth: usize) -> io::Result<()> {
        if depth > DEPTH_MAX {
            return Err(io::Error::other(format!("more than {DEPTH_MAX} folders lie in one another")));
        }
        let listed = reopened(folder)?;
        for entry in fs::read_dir(format!("/proc/self/fd/{}", listed.as_raw_fd()))? {
            let name = entry?.file_name();
            match self.add(folder, &name, &as_path.join(&name), depth) {
                // It was there a moment ago.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// What is said of the next entry beside its head, in the words that GNU tar and images have.
    fn add_attributes(&mut self, file: &File) -> io::Result<()> {
        let attributes = attributes::read(file)?;
        if attributes.is_empty() {
            return Ok(());
        }
        let named: Vec<(String, Vec<u8>)> =
            attributes.into_iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value)).collect();
        self.archive.append_pax_extensions(named.iter().map(|(name, value)| (name.as_str(), value.as_slice())))
    }
}

/// The head of an entry without content.
fn head(metadata: &fs::Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_metadata_in_mode(metadata, tar::HeaderMode::Complete);
    header.set_size(0);
    header
}

/// Puts an archive's entries into the folder at `path`; where there is no such folder, but the one above it, the
/// archive's one top entry gets the name.
pub fn write(root: &File, path: &str, owners: Owners, talk: &mut Talk) -> Result<(), Failed> {
    let (parent, name) = place(path)?;
    let whole = name.as_ref().map_or(parent.clone(), |name| parent.join(name));
    let is_folder = open(root, &whole, OFlag::O_PATH | OFlag::O_DIRECTORY).is_ok();
    let (folder, rename) = match name {
        Some(name) if !is_folder => {
            open(root, &parent, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(|error| at(path, error))?;
            (parent, Some(name))
        }
        _ => (whole, None),
    };
    // Where a name in the archive lies; none: the folder itself.
    let target = |named: &Path| -> Result<Option<PathBuf>, Failed> {
        let leads_out = || failed(ErrorCode::Invalid, format!("{}: leads out", named.display()));
        let inner = inside(named).ok_or_else(leads_out)?;
        let inner = match &rename {
            Some(name) => Path::new(name).join(inner.components().skip(1).collect::<PathBuf>()),
            None => inner,
        };
        // Without a trailing slash, which a joined empty path leaves.
        let target = || folder.join(&inner).components().collect::<PathBuf>();
        Ok((!inner.as_os_str().is_empty()).then(target))
    };
    let mut archive = tar::Archive::new(Inwards { talk, held: Vec::new(), at: 0, ended: false, is_dry: false });
    members::each(&mut archive, |member, content| {
        let Some(to) = target(&member.path)? else {
            return match owners == Owners::Kept && member.kind.is_dir() && folder == Path::new(".") {
                true => dress(root, owners, &member).map_err(|error| at("/", error)),
                false => Ok(()),
            };
        };
        let link = member.link.as_deref().filter(|_| member.kind.is_hard_link());
        let put = match link.map(target).transpose()?.flatten() {
            Some(first) => link_to(root, &first, &to),
            None => put(root, &to, owners, &member, content),
        };
        put.map_err(|error| at(&format!("/{}", to.display()), error))
    })?;
    match archive.into_inner().is_dry && owners == Owners::Kept {
        true => Err(failed(ErrorCode::Invalid, "the archive is cut short: it has no end")),
        false => Ok(()),
    }
}

impl From<ImageError> for Failed {
    fn from(error: ImageError) -> Self {
        failed(ErrorCode::Invalid, error.to_string())
    }
}

/// Gives what was made owner, attributes, permissions and time, in the order in which none undoes another.
fn dress(made: &impl AsFd, owners: Owners, member: &Member) -> io::Result<()> {
    own(made, owners, member)?;
    attributes::write(made, &member.attributes)?;
    fchmod(made.as_fd(), Mode::from_bits_truncate(member.mode & 0o7777))?;
    if owners == Owners::Kept && !member.kind.is_dir() {
        let time = TimeSpec::new(member.date.0, member.date.1);
        futimens(made.as_fd(), &time, &time)?;
    }
    Ok(())
}

fn own(made: &impl AsFd, owners: Owners, member: &Member) -> io::Result<()> {
    if owners == Owners::Root {
        return Ok(());
    }
    let (uid, gid) =
        (u32::try_from(member.uid).map_err(io::Error::other)?, u32::try_from(member.gid).map_err(io::Error::other)?);
    fchownat(made, "", Some(uid.into()), Some(gid.into()), AtFlags::AT_EMPTY_PATH)?;
    Ok(())
}

/// The folder that holds what a path names, and its name there; none for the root itself. Relative to the root.
fn place(path: &str) -> Result<(PathBuf, Option<String>), Failed> {
    let invalid = || failed(ErrorCode::Invalid, format!("'{path}' is no absolute path in a container"));
    if !path.starts_with('/') || path.contains('\0') {
        return Err(invalid());
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    match parts.split_last() {
        None => Ok((PathBuf::from("."), None)),
        Some((&"..", _)) => Err(invalid()),
        Some((name, above)) => Ok((Path::new(".").join(above.iter().collect::<PathBuf>()), Some((*name).into()))),
    }
}

fn inside(path: &Path) -> Option<PathBuf> {
    let parts = path.components().filter(|part| !matches!(part, Component::CurDir));
    parts.map(|part| matches!(part, Component::Normal(_)).then_some(part)).collect()
}

fn open(root: &File, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(flags | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    Ok(openat2(root, path, how)?)
}

/// A descriptor of the same folder that can be listed.
fn reopened(folder: &impl AsFd) -> io::Result<OwnedFd> {
    Ok(openat(folder, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// The folder that holds a path, and the path's name there.
fn above<'a>(root: &File, path: &'a Path) -> io::Result<(OwnedFd, &'a Path)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((open(root, parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?, Path::new(name)))
}

/// Gives a file that has been copied another name.
fn link_to(root: &File, first: &Path, to: &Path) -> io::Result<()> {
    let ((folder, name), (first_folder, first_name)) = (above(root, to)?, above(root, first)?);
    if first == to {
        return Ok(());
    }
    clear(&folder, name)?;
    Ok(linkat(&first_folder, first_name, &folder, name, AtFlags::empty())?)
}

/// Puts one entry into its place.
fn put(root: &File, to: &Path, owners: Owners, member: &Member, content: &mut dyn Read) -> io::Result<()> {
    let (folder, name) = above(root, to)?;
    match member.kind {
        EntryType::Directory => {
            match mkdirat(&folder, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) => {
                    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                    dress(&openat(&folder, name, flags, Mode::empty())?, owners, member)
                }
                // One that is there stays as it is; a link to a folder serves as one.
                Err(Errno::EEXIST) => open(root, to, OFlag::O_PATH | OFlag::O_DIRECTORY).map(drop),
                Err(errno) => Err(errno.into()),
            }
        }
        EntryType::Regular | EntryType::Continuous => {
            clear(&folder, name)?;
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mut file: File = openat(&folder, name, flags, Mode::from_bits_truncate(0o600))?.into();
            holes::copy(content, &mut file)?;
            dress(&file, owners, member)
        }
        EntryType::Symlink => {
            let link = member.link.as_deref().ok_or_else(|| io::Error::other("a link that leads nowhere"))?;
            clear(&folder, name)?;
            symlinkat(link, &folder, name)?;
            own(&openat(&folder, name, LOOK, Mode::empty())?, owners, member)
        }
        EntryType::Fifo => {
            clear(&folder, name)?;
            // As it is to be at once: whoever changes it by its name may meet what the container has laid there.
            let before = umask(Mode::empty());
            let made = mkfifoat(&folder, name, Mode::from_bits_truncate(member.mode & 0o777));
            umask(before);
            made?;
            own(&openat(&folder, name, LOOK, Mode::empty())?, owners, member)
        }
        other => Err(io::Error::new(io::ErrorKind::Unsupported, format!("an entry of kind {other:?} is not copied"))),
    }
}

/// Makes way for a file. A folder stays, and is in the way.
fn clear(folder: &OwnedFd, name: &Path) -> io::Result<()> {
    match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn at(path: &str, error: io::Error) -> Failed {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text).to_lowercase();
    let code = match error.kind() {
        io::ErrorKind::NotFound => ErrorCode::NotFound,
        io::ErrorKind::BrokenPipe => ErrorCode::Internal,
        _ => ErrorCode::Invalid,
    };
    failed(code, format!("{path}: {words}"))
}

/// An archive on its way out.
struct Outwards<'a> {
    talk: &'a mut Talk,
    held: Vec<u8>,
}

impl Write for Outwards<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(FRAME_BYTES_MAX - self.held.len());
        self.held.extend_from_slice(&bytes[..count]);
        if self.held.len() == FRAME_BYTES_MAX {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        self.talk.say(&Frame::Output(std::mem::take(&mut self.held)))
    }
}

/// An archive on its way in.
struct Inwards<'a> {
    talk: &'a mut Talk,
    held: Vec<u8>,
    at: usize,
    ended: bool,
    /// More was wanted than has come: it lacks its end.
    is_dry: bool,
}

impl Read for Inwards<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.held.len() && !self.ended {
            match self.talk.hear()? {
                Heard::Frame(Frame::Input(bytes)) => (self.held, self.at) = (bytes, 0),
                Heard::Frame(Frame::InputEnd) => self.ended = true,
                Heard::Frame(_) => return Err(io::Error::other("something else than an archive came")),
                Heard::Nothing => {}
                Heard::Gone => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = buffer.len().min(self.held.len() - self.at);
        self.is_dry |= count == 0 && !buffer.is_empty();
        buffer[..count].copy_from_slice(&self.held[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
