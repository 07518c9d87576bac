//! A new volume begins with what the image has at its place, as Docker does it. Nothing in an image leads the look
//! outside of it.

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, fchown, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::executor::userns::{Remap, inside};
use crate::executor::{attributes, holes};

/// Folders in folders.
const DEPTH_MAX: usize = 256;

/// What is copied, until it is whole: beside what tasks see.
const FILLING: &str = "filling";

/// Fills the folder `to`, if it is empty, with what lies below `at` in the image: the whole of it at once, or nothing.
/// Nobody else has the folder meanwhile. What an earlier life broke off begins anew; what tasks see is never emptied.
pub fn fill(root: &Path, at: &str, to: &Path, remap: Option<Remap>) -> io::Result<()> {
    let filling = to.parent().ok_or(io::ErrorKind::InvalidInput)?.join(FILLING);
    clear(&filling)?;
    if fs::read_dir(to)?.next().is_some() {
        return Ok(());
    }
    let Some(from) = folder_in(root, at)? else { return Ok(()) };
    fs::create_dir(&filling)?;
    let from = PathBuf::from(format!("/proc/self/fd/{}", from.as_raw_fd()));
    let copied = copy_folder(&from, &filling, remap, &mut BTreeMap::new(), 0)
        .and_then(|()| dress(&File::open(from.join("."))?, remap, &File::open(&filling)?))
        .and_then(|()| fs::rename(&filling, to));
    if copied.is_err() {
        // Room on a full disk; what cannot be deleted is, before the next one.
        let _ = clear(&filling);
    }
    copied
}

/// Deletes what lies there, if anything does.
pub fn clear(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// The image's folder there, if it has one.
fn folder_in(root: &Path, at: &str) -> io::Result<Option<OwnedFd>> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    match openat2(File::open(root)?, at, how) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// `links`: files that have several names, by what they are, with the first copy.
fn copy_folder(
    from: &Path,
    to: &Path,
    remap: Option<Remap>,
    links: &mut BTreeMap<(u64, u64), PathBuf>,
    depth: usize,
) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::other(format!("more than {DEPTH_MAX} folders lie in one another")));
    }
    for entry in fs::read_dir(from)? {
        let (from, to) = {
            let name = entry?.file_name();
            (from.join(&name), to.join(&name))
        };
        let found = fs::symlink_metadata(&from)?;
        let kind = found.file_type();
        if !kind.is_dir() && found.nlink() > 1 {
            if let Some(first) = links.get(&(found.dev(), found.ino())) {
                fs::hard_link(first, &to)?;
                continue;
            }
            links.insert((found.dev(), found.ino()), to.clone());
        }
        if kind.is_dir() {
            fs::create_dir(&to)?;
            copy_folder(&from, &to, remap, links, depth + 1)?;
            dress(&File::open(&from)?, remap, &File::open(&to)?)?;
        } else if kind.is_file() {
            let (from, mut to) = (File::open(&from)?, File::create_new(&to)?);
            holes::copy(&from, &mut to)?;
            dress(&from, remap, &to)?;
        } else if kind.is_symlink() {
            symlink(fs::read_link(&from)?, &to)?;
            own(&found, remap, &to)?;
        } else if kind.is_fifo() {
            mkfifo(&to, Mode::from_bits_truncate(0o600))?;
            own(&found, remap, &to)?;
            fs::set_permissions(&to, fs::Permissions::from_mode(found.mode() & 0o7777))?;
        }
        // Sockets mean nothing without who listens, and device files are no data.
    }
    Ok(())
}

/// On the disk a volume's files have the owners that tasks know.
fn own(found: &fs::Metadata, remap: Option<Remap>, to: &Path) -> io::Result<()> {
    lchown(to, Some(inside(remap, found.uid())), Some(inside(remap, found.gid())))
}

/// Gives a file or folder the owner, attributes, permissions and time of another, in the order in which none undoes
/// another. `remap`: who owns the other on the machine.
pub fn dress(from: &File, remap: Option<Remap>, to: &File) -> io::Result<()> {
    let found = from.metadata()?;
    fchown(to, Some(inside(remap, found.uid())), Some(inside(remap, found.gid())))?;
    let mut given = attributes::read(from)?;
    if remap.is_some() {
        let rights = given.iter_mut().filter(|(name, _)| name == attributes::CAPABILITY);
        rights.for_each(|(_, value)| *value = attributes::for_any_root(std::mem::take(value)));
    }
    attributes::write(to, &given)?;
    to.set_permissions(fs::Permissions::from_mode(found.mode() & 0o7777))?;
    to.set_times(FileTimes::new().set_modified(found.modified()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_volume_begins_as_the_image_has_it_and_no_other() {
        let (root, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let to = volume.path().join("data");
        fs::create_dir(&to).unwrap();
        let inside = root.path().join("var/lib/db");
        fs::create_dir_all(inside.join("sub")).unwrap();
        fs::write(inside.join("sub/a"), "1").unwrap();
        fs::hard_link(inside.join("sub/a"), inside.join("b")).unwrap();
        symlink("sub/a", inside.join("c")).unwrap();
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o700)).unwrap();
        let attribute = vec![("user.who".to_owned(), b"me".to_vec())];
        attributes::write(&File::open(inside.join("b")).unwrap(), &attribute).unwrap();
        let kept = attributes::read(&File::open(inside.join("b")).unwrap()).unwrap();
        fill(root.path(), "/var/lib/db", &to, None).unwrap();
        assert_eq!(fs::read_to_string(to.join("c")).unwrap(), "1");
        assert_eq!(fs::metadata(to.join("b")).unwrap().nlink(), 2);
        assert_eq!(attributes::read(&File::open(to.join("sub/a")).unwrap()).unwrap(), kept);
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o700);

        fs::write(inside.join("later"), "2").unwrap();
        fill(root.path(), "/var/lib/db", &to, None).unwrap();
        assert!(!to.join("later").exists(), "it is not empty any more");
        // Whatever a life that was cut short has left, what tasks have written stays.
        for left in ["a mark", "half a copy"] {
            match left {
                "a mark" => drop(File::create(volume.path().join(FILLING)).unwrap()),
                _ => fs::create_dir_all(volume.path().join(FILLING).join("half")).unwrap(),
            }
            fs::write(to.join("written"), left).unwrap();
            fill(root.path(), "/var/lib/db", &to, None).unwrap();
            assert_eq!(fs::read_to_string(to.join("written")).unwrap(), left);
            assert!(to.join("sub/a").exists() && !to.join("later").exists() && !volume.path().join(FILLING).exists());
        }
        // Of one that never was filled the copy begins anew.
        fs::remove_dir_all(&to).unwrap();
        fs::create_dir(&to).unwrap();
        fs::create_dir_all(volume.path().join(FILLING).join("half")).unwrap();
        fill(root.path(), "/var/lib/db", &to, None).unwrap();
        assert!(to.join("later").exists() && !to.join("half").exists() && !volume.path().join(FILLING).exists());
        assert_eq!(fs::metadata(&to).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_cannot_be_copied_whole_leaves_nothing() {
        let (root, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let to = volume.path().join("data");
        fs::create_dir(&to).unwrap();
        let mut deep = root.path().join("data");
        (0..=DEPTH_MAX + 1).for_each(|_| deep.push("d"));
        fs::create_dir_all(&deep).unwrap();
        assert!(fill(root.path(), "/data", &to, None).is_err());
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
        assert!(!volume.path().join(FILLING).exists());
    }

    #[test]
    fn a_link_of_the_image_leads_nowhere_else() {
        let (root, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let to = volume.path().join("data");
        fs::create_dir(&to).unwrap();
        symlink("/etc", root.path().join("data")).unwrap();
        fill(root.path(), "/data", &to, None).unwrap();
        assert_eq!(fs::read_dir(&to).unwrap().count(), 0);
    }
}
