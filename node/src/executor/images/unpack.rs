//! Unpacking one layer into the form that overlayfs stacks. The archive is hostile: every path is
//! resolved by the kernel within the layer's own folder, and what cannot be is refused.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags, fchmod, fstatat, makedev, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, mkfifoat, symlinkat, unlinkat};
use tar::EntryType;

use super::ImageError;
use super::blob::{Digest, Hashing};
use super::members::{self, Member};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// The same to overlayfs.
const OPAQUE_ATTRIBUTE: &str = "trusted.overlay.opaque";
/// Everything else that begins so is another union file system's own affair.
const WHITEOUT_META: &[u8] = b".wh..wh.";

/// What the layers of one image may still unpack to, together.
pub struct Budget {
    bytes: AtomicU64,
    entries: AtomicU64,
}

impl Budget {
    pub fn new(bytes: u64, entries: u64) -> Self {
        Self { bytes: bytes.into(), entries: entries.into() }
    }

    fn take(from: &AtomicU64, amount: u64) -> bool {
        from.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(amount)).is_ok()
    }
}

/// Ends with an error when the budget does.
struct Metered<'a, R> {
    inner: R,
    budget: &'a Budget,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        match Budget::take(&self.budget.bytes, count as u64) {
            true => Ok(count),
            false => Err(io::Error::other("it unpacks to more bytes than an image may have")),
        }
    }
}

/// What came of a layer.
pub struct Unpacked {
    /// Of the unpacked stream.
    pub digest: Digest,
    /// Folders that the archive holds things in, and does not describe.
    pub implied: Vec<PathBuf>,
}

/// Unpacks into the new folder `root`.
pub fn layer(packed: impl Read, root: &Path, budget: &Budget) -> Result<Unpacked, ImageError> {
    fs::create_dir(root)?;
    let layer = Layer { root: File::open(root)?.into(), implied: RefCell::default() };
    fchmod(&layer.root, Mode::from_bits_truncate(0o755)).map_err(io::Error::from)?;
    let stream = Metered { inner: decompressed(packed)?, budget };
    // The library reads headers by halves of a kilobyte.
    let stream = BufReader::with_capacity(128 << 10, Hashing::new(stream));
    let mut archive = tar::Archive::new(stream);
    // Folders get their dates last: each entry would change them.
    let mut folders: Vec<(PathBuf, TimeSpec)> = Vec::new();
    members::each(&mut archive, |member, content| {
        if !Budget::take(&budget.entries, 1) {
            return Err(ImageError::Invalid("it has more entries than an image may have".into()));
        }
        let path = within(&member.path)?;
        let put = layer.put(&member, content, &path).map_err(|error| match error {
            ImageError::Io(error) => ImageError::Invalid(format!("a layer's {}: {error}", path.display())),
            other => other,
        })?;
        if let Some(date) = put {
            folders.push((path, date));
        }
        Ok(())
    })?;
    for (path, date) in folders.iter().rev() {
        layer.date(path, date)?;
    }
    let mut stream = archive.into_inner();
    // What follows the archive's end is part of the stream, and of its digest.
    io::copy(&mut stream, &mut io::sink()).map_err(broken)?;
    let digest = stream.get_ref().digest();
    Ok(Unpacked { digest, implied: layer.implied.into_inner().into_iter().collect() })
}

/// The stream itself, whatever it is packed with: gzip, zstd or nothing.
pub fn decompressed<'a>(packed: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut packed = BufReader::with_capacity(128 << 10, packed);
    let first = packed.fill_buf()?;
    if first.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(packed)));
    }
    if first.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut unpacked = zstd::stream::read::Decoder::with_buffer(packed)?;
        // A frame may ask for gigabytes of memory; 128 MiB is what zstd's own tools grant.
        unpacked.window_log_max(27)?;
        return Ok(Box::new(unpacked));
    }
    Ok(Box::new(packed))
}

fn broken(error: io::Error) -> ImageError {
    ImageError::Invalid(format!("a layer cannot be read: {error}"))
}

/// The path, if it stays within; empty for the root itself.
fn within(path: &Path) -> Result<PathBuf, ImageError> {
    let refuse = || ImageError::Invalid(format!("a layer's path {} leads out of it", path.display()));
    let parts = path.components().filter(|part| !matches!(part, Component::CurDir));
    parts.map(|part| matches!(part, Component::Normal(_)).then_some(part).ok_or_else(refuse)).collect()
}

struct Layer {
    root: OwnedFd,
    /// Folders that were made only to hold something.
    implied: RefCell<BTreeSet<PathBuf>>,
}

impl Layer {
    /// Puts one entry into its place; for a folder, its date.
    fn put(&self, member: &Member, content: &mut dyn Read, path: &Path) -> Result<Option<TimeSpec>, ImageError> {
        let kind = member.kind;
        let Some(name) = path.file_name() else {
            return self.dress_root(member).map(|()| None).map_err(ImageError::from);
        };
        let parent = self.parent(path)?;
        let bytes = name.as_bytes();
        if bytes == OPAQUE {
            set_xattr(&parent, None, OPAQUE_ATTRIBUTE, b"y")?;
            return Ok(None);
        }
        if bytes.starts_with(WHITEOUT_META) {
            return Ok(None);
        }
        if let Some(hidden) =
            bytes.strip_prefix(WHITEOUT).filter(|hidden| !hidden.is_empty() && *hidden != b"." && *hidden != b"..")
        {
            hide(&parent, OsStr::from_bytes(hidden))?;
            return Ok(None);
        }
        self.implied.borrow_mut().remove(path);
        let made = self.make(member, content, &parent, name)?;
        if !made {
            return Ok(None);
        }
        if !kind.is_hard_link() {
            dress(member, &parent, name)?;
        }
        Ok(kind.is_dir().then(|| date_of(member)))
    }

    /// Makes what the entry names; `false` for what has no place in a container.
    fn make(
        &self,
        member: &Member,
        content: &mut dyn Read,
        parent: &OwnedFd,
        name: &OsStr,
    ) -> Result<bool, ImageError> {
        let kind = member.kind;
        let link = || {
            let target = member.link.as_deref().filter(|target| !target.as_os_str().is_empty());
            target.ok_or_else(|| ImageError::Invalid("a layer's link leads nowhere".into()))
        };
        let io_error = io::Error::from;
        if kind.is_dir() {
            if !is(parent, name, SFlag::S_IFDIR) {
                let was_hidden = is(parent, name, SFlag::S_IFCHR);
                remove(parent, name)?;
                mkdirat(parent, name, Mode::from_bits_truncate(0o755)).map_err(io_error)?;
                if was_hidden {
                    // What the layers below have in it stays hidden.
                    set_xattr(parent, Some(name), OPAQUE_ATTRIBUTE, b"y")?;
                }
            }
            return Ok(true);
        }
        match kind {
            EntryType::Symlink => {
                let target = link()?;
                remove(parent, name)?;
                symlinkat(target, parent, name).map_err(io_error)?;
            }
            EntryType::Link => {
                let target = within(link()?)?;
                let Some(target_name) = target.file_name() else {
                    return Err(ImageError::Invalid("a layer's link leads to the root".into()));
                };
                let target_parent = self.parent(&target)?;
                if is(&target_parent, target_name, SFlag::S_IFDIR) {
                    return Err(ImageError::Invalid("a layer links to a folder".into()));
                }
                remove(parent, name)?;
                linkat(&target_parent, target_name, parent, name, AtFlags::empty()).map_err(io_error)?;
            }
            EntryType::Fifo => {
                remove(parent, name)?;
                mkfifoat(parent, name, Mode::from_bits_truncate(0o600)).map_err(io_error)?;
            }
            // A task gets its devices from its container, never from an image.
            EntryType::Char | EntryType::Block => return Ok(false),
            _ => {
                remove(parent, name)?;
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
                let mut file = File::from(open(parent, Path::new(name), flags)?);
                io::copy(content, &mut file)?;
            }
        }
        Ok(true)
    }

    /// The folder that holds `path`; those that the archive left out are made.
    fn parent(&self, path: &Path) -> io::Result<OwnedFd> {
        let parent = path.parent().unwrap_or(Path::new(""));
        if parent.as_os_str().is_empty() {
            return self.root.try_clone();
        }
        match open(&self.root, parent, OFlag::O_DIRECTORY | OFlag::O_RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (grandparent, name) = (self.parent(parent)?, parent.file_name().unwrap_or_default());
                mkdirat(&grandparent, name, Mode::from_bits_truncate(0o755))?;
                self.implied.borrow_mut().insert(parent.to_owned());
                open(&self.root, parent, OFlag::O_DIRECTORY | OFlag::O_RDONLY)
            }
            opened => opened,
        }
    }

    fn date(&self, path: &Path, date: &TimeSpec) -> io::Result<()> {
        let Some(name) = path.file_name() else { return Ok(()) };
        let parent = self.parent(path)?;
        // A later entry may have replaced the folder, and its date with it.
        match utimensat(&parent, name, date, date, UtimensatFlags::NoFollowSymlink) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn dress_root(&self, member: &Member) -> io::Result<()> {
        let (user, group) = owner(member)?;
        fchownat(&self.root, "", Some(user), Some(group), AtFlags::AT_EMPTY_PATH)?;
        Ok(fchmod(&self.root, Mode::from_bits_truncate(member.mode & 0o7777))?)
    }
}

/// Owner, extended attributes, mode and date, in the order in which none undoes another.
fn dress(member: &Member, parent: &OwnedFd, name: &OsStr) -> Result<(), ImageError> {
    let (user, group) = owner(member)?;
    fchownat(parent, name, Some(user), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(io::Error::from)?;
    if !member.kind.is_symlink() {
        let mode = Mode::from_bits_truncate(member.mode & 0o7777);
        // The entry was made by this process in a folder that nobody else reaches: it is no link.
        let flags = nix::sys::stat::FchmodatFlags::FollowSymlink;
        nix::sys::stat::fchmodat(parent, name, mode, flags).map_err(io::Error::from)?;
    }
    if is_regular(member.kind) || member.kind.is_dir() {
        for (attribute, value) in &member.attributes {
            // `trusted.overlay.…` would speak to overlayfs itself.
            if attribute.starts_with("user.") || attribute == "security.capability" {
                set_xattr(parent, Some(name), attribute, value)?;
            }
        }
    }
    let date = date_of(member);
    utimensat(parent, name, &date, &date, UtimensatFlags::NoFollowSymlink).map_err(io::Error::from)?;
    Ok(())
}

/// Everything that is nothing else is a file, as tar has it.
fn is_regular(kind: EntryType) -> bool {
    !(kind.is_dir() || kind.is_symlink() || kind.is_hard_link() || kind.is_fifo())
}

fn owner(member: &Member) -> io::Result<(Uid, Gid)> {
    // The last number means nobody to the kernel, and would leave the owner as it is.
    let number = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    let impossible = || io::Error::new(io::ErrorKind::InvalidData, "an impossible owner");
    let (user, group) = number(member.uid).zip(number(member.gid)).ok_or_else(impossible)?;
    Ok((Uid::from_raw(user), Gid::from_raw(group)))
}

fn date_of(member: &Member) -> TimeSpec {
    TimeSpec::new(member.date.0, member.date.1)
}

/// Opens within `folder`: links are followed as if it were the root, and never out of it.
fn open(folder: &OwnedFd, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let mode = if flags.contains(OFlag::O_CREAT) { Mode::from_bits_truncate(0o600) } else { Mode::empty() };
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
    Ok(openat2(folder, path, how)?)
}

/// Hides what the layers below have under a name. What this layer itself has there stays: a whiteout is
/// about lower layers only, wherever in the archive it stands.
fn hide(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    if is(parent, name, SFlag::S_IFDIR) {
        return set_xattr(parent, Some(name), OPAQUE_ATTRIBUTE, b"y");
    }
    match mknodat(parent, name, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)) {
        // A file of this layer hides as well as a whiteout.
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether something is there and of this kind; the only devices here are whiteouts.
fn is(parent: &OwnedFd, name: &OsStr, kind: SFlag) -> bool {
    fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW)
        .is_ok_and(|found| SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == kind)
}

/// Removes what an entry replaces.
fn remove(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        // Through a descriptor: the path to it may be longer than a path may be.
        Err(Errno::EISDIR) => {
            fs::remove_dir_all(Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name))
        }
        Err(errno) => Err(errno.into()),
    }
}

fn set_xattr(folder: &OwnedFd, name: Option<&OsStr>, attribute: &str, value: &[u8]) -> io::Result<()> {
    let mut path = format!("/proc/self/fd/{}", folder.as_fd().as_raw_fd()).into_bytes();
    if let Some(name) = name {
        path.push(b'/');
        path.extend(name.as_bytes());
    }
    let (path, attribute) = (CString::new(path)?, CString::new(attribute)?);
    // Without a name the link is the descriptor's own and must be followed; a name must not be.
    let set = if name.is_some() { libc::lsetxattr } else { libc::setxattr };
    // SAFETY: both are C strings, and the value has the length that is given.
    let result = unsafe { set(path.as_ptr(), attribute.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(result)?;
    Ok(())
}
