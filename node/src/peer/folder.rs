//! The data folder: one process at a time has it.

use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Locked while a peer uses the folder; holds the peer's process id.
const LOCK_FILE: &str = "lock";
/// There once the identity was retired; holds the reason.
const RETIRED_FILE: &str = "retired";
/// What is lost together: these go when a cluster is given up.
const OF_ONE_LIFE: [&str; 5] = ["identity.key", "cluster.cbor", "ledger.redb", "peers.json", "peers.cbor"];

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("data folder {0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("data folder {0} is used by another rialtod, process {1}: give this one a folder of its own (--data DIR)")]
    Taken(PathBuf, i32),
    #[error(
        "the identity in data folder {0} was retired ({1}): move the folder away, and join as a new machine with --join"
    )]
    Retired(PathBuf, String),
}

/// A data folder that is this process's alone, until it is dropped.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Makes the folder if there is none, and takes it.
    pub fn take(path: &Path) -> Result<Self, FolderError> {
        let failed = |error| FolderError::Io(path.into(), error);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let mut lock = open_lock(path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => {
                return Err(FolderError::Taken(path.into(), owner(&mut lock).map_err(failed)?));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let write_pid = |lock: &mut File| {
            lock.set_len(0)?;
            lock.rewind()?;
            writeln!(lock, "{}", std::process::id())
        };
        write_pid(&mut lock).map_err(failed)?;
        let folder = Self { path: path.into(), _lock: lock };
        match fs::read_to_string(folder.file(RETIRED_FILE)) {
            Ok(reason) => Err(FolderError::Retired(path.into(), reason.trim().into())),
            Err(_) => Ok(folder),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a file in the folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Marks the identity as one that must write no more.
    pub fn retire(&self, reason: &str) {
        if let Err(error) = fs::write(self.file(RETIRED_FILE), reason) {
            tracing::error!(%error, "the retirement could not be noted in the data folder");
        }
    }

    /// Puts identity, ledger and addresses aside, so that another life can begin here. Returns
    /// where they are kept. Images and logs stay.
    pub fn put_aside(&self, name: &str) -> Result<PathBuf, FolderError> {
        let aside = self.file(&format!("given-up-{name}"));
        let move_all = || {
            fs::create_dir_all(&aside)?;
            fs::set_permissions(&aside, Permissions::from_mode(0o700))?;
            for file in OF_ONE_LIFE {
                match fs::rename(self.file(file), aside.join(file)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => (),
                }
            }
            File::open(&self.path)?.sync_all()
        };
        move_all().map_err(|error| FolderError::Io(self.path.clone(), error))?;
        Ok(aside)
    }
}

/// Waits until the folder is nobody's.
pub fn wait_until_free(path: &Path) -> io::Result<()> {
    open_lock(path)?.lock()
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join(LOCK_FILE))
}

/// The process id in a lock file; 0 where its owner has not written it yet.
fn owner(lock: &mut File) -> io::Result<i32> {
    let mut text = String::new();
    lock.read_to_string(&mut text)?;
    Ok(text.trim().parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_peers_alone() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/b");
        let folder = Folder::take(&path).unwrap();
        let taken = Folder::take(&path).unwrap_err();
        assert!(matches!(taken, FolderError::Taken(_, pid) if pid == std::process::id() as i32), "{taken}");

        fs::write(folder.file("identity.key"), "k").unwrap();
        fs::write(folder.file("images"), "i").unwrap();
        let aside = folder.put_aside("abc").unwrap();
        assert!(aside.join("identity.key").exists() && !folder.file("identity.key").exists());
        assert!(folder.file("images").exists());

        folder.retire("its records were written by a later life");
        drop(folder);
        let retired = Folder::take(&path).unwrap_err();
        assert!(retired.to_string().contains("a later life"), "{retired}");
    }
}
