//! Files out of a container and into it, as a tar archive. Every path is resolved by the kernel
//! within the container's root, whatever links the container has laid: none leads outside.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2, readlinkat};
use nix::sys::stat::{Mode, fchmod, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, symlinkat, unlinkat};
use rialto_protocol::api::ErrorCode;
use rialto_protocol::session::{FRAME_BYTES_MAX, Failed, Frame};
use tar::{Builder, EntryType, Header};

use super::talk::{Heard, Talk};
use super::{broken, failed};

/// To whom what is copied in belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// To root, as everything that comes from outside.
    Root,
    /// To whom the archive says, and as old as it says.
    Kept,
}

impl Owners {
    fn give(self, made: &impl AsFd, header: &Header) -> io::Result<()> {
        if self == Owners::Root {
            return Ok(());
        }
        let (uid, gid) = (header.uid()?, header.gid()?);
        let ids = (u32::try_from(uid).map_err(io::Error::other)?, u32::try_from(gid).map_err(io::Error::other)?);
        let (uid, gid) = (Some(ids.0.into()), Some(ids.1.into()));
        nix::unistd::fchownat(made, "", uid, gid, nix::fcntl::AtFlags::AT_EMPTY_PATH)?;
        if header.entry_type() == EntryType::Regular {
            let time = TimeSpec::new(header.mtime()?.min(i64::MAX as u64) as i64, 0);
            futimens(made.as_fd(), &time, &time)?;
        }
        Ok(())
    }
}

/// Folders in folders.
const DEPTH_MAX: usize = 256;

/// Sends what lies at `path`, under its own name.
pub fn read(root: &File, path: &str, talk: &mut Talk) -> Result<(), Failed> {
    let (parent, name) = place(path)?;
    let missing = |error: io::Error| at(path, error);
    let folder = open(root, &parent, OFlag::O_PATH | OFlag::O_DIRECTORY).map_err(missing)?;
    let mut archive = Builder::new(Outwards { talk, held: Vec::with_capacity(FRAME_BYTES_MAX) });
    let added = match &name {
        Some(name) => add(&mut archive, &folder, name, Path::new(name), 0),
        None => add_content(&mut archive, &folder, Path::new("."), 0),
    };
    added.map_err(missing)?;
    let mut outwards = archive.into_inner().map_err(broken("the archive"))?;
    outwards.flush().map_err(broken("the archive"))
}

/// Sends everything in the root folder, and what that is itself.
pub fn read_whole(root: &File, talk: &mut Talk) -> Result<(), Failed> {
    let mut archive = Builder::new(Outwards { talk, held: Vec::with_capacity(FRAME_BYTES_MAX) });
    let mut add_all = || {
        let mut header = Header::new_gnu();
        header.set_metadata_in_mode(&root.metadata()?, tar::HeaderMode::Complete);
        header.set_size(0);
        archive.append_data(&mut header, ".", io::empty())?;
        add_content(&mut archive, root, Path::new("."), 0)
    };
    add_all().map_err(|error| at("/", error))?;
    let mut outwards = archive.into_inner().map_err(broken("the archive"))?;
    outwards.flush().map_err(broken("the archive"))
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
    let mut archive = tar::Archive::new(Inwards { talk, held: Vec::new(), at: 0, ended: false, is_dry: false });
    let unreadable = |error: io::Error| failed(ErrorCode::Invalid, format!("the archive cannot be read: {error}"));
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let named = entry.path().map_err(unreadable)?.into_owned();
        let inner =
            inside(&named).ok_or_else(|| failed(ErrorCode::Invalid, format!("{}: leads out", named.display())))?;
        let inner = match &rename {
            Some(name) => Path::new(name).join(inner.components().skip(1).collect::<PathBuf>()),
            None => inner,
        };
        if inner.as_os_str().is_empty() {
            if owners == Owners::Kept && entry.header().entry_type() == EntryType::Directory {
                own(root, owners, entry.header()).map_err(|error| at("/", error))?;
            }
            continue;
        }
        // Without a trailing slash, which a joined empty path leaves.
        let target: PathBuf = folder.join(inner).components().collect();
        put(root, &target, owners, &mut entry).map_err(|error| at(&format!("/{}", target.display()), error))?;
    }
    match archive.into_inner().is_dry && owners == Owners::Kept {
        true => Err(failed(ErrorCode::Invalid, "the archive is cut short: it has no end")),
        false => Ok(()),
    }
}

/// Gives a folder the owner and permissions of its entry.
fn own(folder: &impl AsFd, owners: Owners, header: &Header) -> io::Result<()> {
    owners.give(folder, header)?;
    Ok(fchmod(folder.as_fd(), Mode::from_bits_truncate(header.mode()? & 0o7777))?)
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

/// Adds an entry of a folder. What is neither file, folder nor link is left out: it holds no data.
fn add(
    archive: &mut Builder<impl Write>,
    folder: &impl AsFd,
    name: &(impl AsRef<std::ffi::OsStr> + ?Sized),
    as_path: &Path,
    depth: usize,
) -> io::Result<()> {
    let name = Path::new(name.as_ref());
    let found: File = openat(folder, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?.into();
    let metadata = found.metadata()?;
    let mut header = Header::new_gnu();
    header.set_metadata_in_mode(&metadata, tar::HeaderMode::Complete);
    if metadata.is_symlink() {
        let target = readlinkat(folder, name)?;
        header.set_size(0);
        return archive.append_link(&mut header, as_path, target);
    }
    if metadata.is_dir() {
        header.set_size(0);
        archive.append_data(&mut header, as_path, io::empty())?;
        let inner = openat(
            folder,
            name,
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        return add_content(archive, &inner, as_path, depth + 1);
    }
    if metadata.is_file() {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file: File = openat(folder, name, flags, Mode::empty())?.into();
        // It is what it was, and as long as its head says, however it grows or shrinks meanwhile.
        let now = file.metadata()?;
        if (now.dev(), now.ino()) != (metadata.dev(), metadata.ino()) {
            return Err(io::Error::other("it was replaced while it was read"));
        }
        header.set_size(now.len());
        return archive.append_data(&mut header, as_path, file.chain(io::repeat(0)).take(now.len()));
    }
    Ok(())
}

fn add_content(archive: &mut Builder<impl Write>, folder: &impl AsFd, as_path: &Path, depth: usize) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!("more than {DEPTH_MAX} folders lie in one another")));
    }
    let listed = reopened(folder)?;
    for entry in fs::read_dir(format!("/proc/self/fd/{}", listed.as_raw_fd()))? {
        let name = entry?.file_name();
        match add(archive, folder, &name, &as_path.join(&name), depth) {
            // It was there a moment ago.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(())
}

/// A descriptor of the same folder that can be listed.
fn reopened(folder: &impl AsFd) -> io::Result<OwnedFd> {
    Ok(openat(folder, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Puts one entry into its place.
fn put(root: &File, target: &Path, owners: Owners, entry: &mut tar::Entry<'_, impl Read>) -> io::Result<()> {
    let (parent, name) = match (target.parent(), target.file_name()) {
        (Some(parent), Some(name)) => (parent, Path::new(name)),
        _ => return Ok(()),
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let folder = open(root, parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let mode = Mode::from_bits_truncate(entry.header().mode().unwrap_or(0o644) & 0o7777);
    match entry.header().entry_type() {
        EntryType::Directory => {
            match mkdirat(&folder, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) => {
                    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                    let made = openat(&folder, name, flags, Mode::empty())?;
                    own(&made, owners, entry.header())?;
                }
                // One that is there stays as it is; a link to a folder serves as one.
                Err(Errno::EEXIST) => drop(open(root, target, OFlag::O_PATH | OFlag::O_DIRECTORY)?),
                Err(errno) => return Err(errno.into()),
            }
            Ok(())
        }
        EntryType::Regular | EntryType::Continuous => {
            clear(&folder, name)?;
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let mut file: File = openat(&folder, name, flags, Mode::from_bits_truncate(0o600))?.into();
            io::copy(entry, &mut file)?;
            owners.give(&file, entry.header())?;
            fchmod(file.as_fd(), mode)?;
            Ok(())
        }
        EntryType::Symlink => {
            let link =
                entry.link_name_bytes().ok_or_else(|| io::Error::other("a link that leads nowhere"))?.into_owned();
            clear(&folder, name)?;
            symlinkat(Path::new(std::ffi::OsStr::from_bytes(&link)), &folder, name)?;
            let made = openat(&folder, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
            owners.give(&made, entry.header())
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
