//! Folders that a layer holds things in without saying what they are like. Unpacked by itself the layer
//! has to make them up, and stacked they would hide what the layers below say of them: that `/tmp` is
//! everybody's, whose a home is. So they take that over.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, fchmod, futimens};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown};

/// Dresses the folders `implied` of a layer as the topmost of those `below`, lowest first, that has them.
pub fn inherit(layer: &Path, implied: &[PathBuf], below: &[PathBuf]) -> io::Result<()> {
    if implied.is_empty() {
        return Ok(());
    }
    let own = File::open(layer)?;
    let below = below.iter().rev().map(File::open).collect::<io::Result<Vec<_>>>()?;
    for path in implied {
        let Some(folder) = open(&own, path)? else { continue };
        for lower in &below {
            if let Some(like) = open(lower, path)? {
                dress(&folder, &like)?;
                break;
            }
        }
    }
    Ok(())
}

fn dress(folder: &File, like: &File) -> io::Result<()> {
    let found = like.metadata()?;
    fchown(folder, Some(Uid::from_raw(found.uid())), Some(Gid::from_raw(found.gid())))?;
    fchmod(folder, Mode::from_bits_truncate(found.mode() & 0o7777))?;
    let date = TimeSpec::new(found.mtime(), found.mtime_nsec());
    Ok(futimens(folder, &date, &date)?)
}

/// A folder below another one, by no link on the way; `None` where there is none.
fn open(root: &File, path: &Path) -> io::Result<Option<File>> {
    let resolve = ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    let how = OpenHow::new().flags(OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC).resolve(resolve);
    match openat2(root, path, how) {
        Ok(folder) => Ok(Some(folder.into())),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}
