//! The named volumes of this machine, on its disk: below `DATA/volumes` a folder for each, by the volume's id. In it
//! `data` is what tasks see, and `name` tells people whose it is; `lock` is held by who uses it and `starting` by who
//! makes it ready, and `filling` and `restoring` are what is to take the place of `data` when it is whole. Nothing that
//! lies there by chance means that data is to be deleted: that says `leaving` alone, of a volume that no record tells of
//! any more.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use rialto_protocol::ids::VolumeId;

use super::mounts::clear;

/// What a folder that is being deleted is called, so that a life that ends in between leaves no half of one.
const GOING: &str = "going-";
/// Somebody deletes the volume: first this is written, then its record goes, then the folder.
const LEAVING: &str = "leaving";
/// What tasks see.
pub const DATA: &str = "data";
/// What is to be seen, until it is whole; afterwards what was.
pub const RESTORING: &str = "restoring";

/// `DATA/volumes`.
#[derive(Clone, Debug)]
pub struct VolumeStore(PathBuf);

impl VolumeStore {
    /// Names the folder.
    pub fn open(data: &Path) -> io::Result<Self> {
        let folder = data.join("volumes");
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&folder)?;
        Ok(Self(folder))
    }

    /// Goes on with what an earlier life did not finish: deletes what was being deleted and is in nobody's record, and
    /// what copies have left. It takes as long as that takes. `known`: asked for after what is there was listed, so that
    /// nobody makes a volume in between.
    pub fn sweep(&self, known: impl FnOnce() -> Option<BTreeSet<VolumeId>>) -> io::Result<()> {
        let names: Vec<String> =
            fs::read_dir(&self.0)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        let Some(known) = known() else { return Ok(()) };
        let mut last = Ok(());
        for name in names {
            let path = self.0.join(&name);
            let done = match VolumeId::from_hex(&name) {
                _ if name.starts_with(GOING) => fs::remove_dir_all(&path),
                Some(id) if path.join(LEAVING).exists() => match known.contains(&id) {
                    true => clear(&path.join(LEAVING)),
                    false => self.remove(id),
                },
                Some(_) => settle(&path),
                None => Ok(()),
            };
            let said = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
            last = last.and(done.map_err(said));
        }
        last
    }

    fn folder(&self, id: VolumeId) -> PathBuf {
        self.0.join(id.hex())
    }

    /// The folder around what tasks see, which is there; `name`: whose it is.
    pub fn around(&self, id: VolumeId, name: &str) -> io::Result<PathBuf> {
        self.make(id, name).map(|_| self.folder(id))
    }

    /// It is about to be deleted, or is not any more.
    pub fn mark(&self, id: VolumeId, leaving: bool) -> io::Result<()> {
        let mark = self.folder(id).join(LEAVING);
        match leaving {
            // Nobody has used it yet: there is nothing to delete.
            true if !self.folder(id).is_dir() => Ok(()),
            true => fs::File::create(mark)?.sync_all(),
            false => clear(&mark),
        }
    }

    /// What tasks see of it.
    pub fn data(&self, id: VolumeId) -> PathBuf {
        self.folder(id).join(DATA)
    }

    /// Makes it, unless it is there.
    pub fn make(&self, id: VolumeId, name: &str) -> io::Result<PathBuf> {
        let data = self.data(id);
        if !data.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(0o711).create(self.folder(id))?;
            fs::write(self.folder(id).join("name"), format!("{name}\n"))?;
            fs::DirBuilder::new().recursive(true).mode(0o755).create(&data)?;
        }
        Ok(data)
    }

    /// Deletes it with everything in it.
    pub fn remove(&self, id: VolumeId) -> io::Result<()> {
        let going = self.0.join(format!("{GOING}{}", id.hex()));
        match fs::rename(self.folder(id), &going) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => fs::remove_dir_all(going),
        }
    }

    /// The bytes that it takes on the disk, and how many files it has.
    pub fn measure(&self, id: VolumeId) -> io::Result<(u64, u64)> {
        let (mut bytes, mut files) = (0, 0);
        let mut folders = vec![self.data(id)];
        while let Some(folder) = folders.pop() {
            let entries = match fs::read_dir(&folder) {
                Ok(entries) => entries,
                // A task at work deletes what it likes.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for entry in entries.flatten() {
                let Ok(found) = entry.metadata() else { continue };
                bytes += found.blocks() * 512;
                match found.is_dir() {
                    true => folders.push(entry.path()),
                    false => files += 1,
                }
            }
        }
        Ok((bytes, files))
    }
}

/// Deletes what a copy has left, unless it goes on.
fn settle(volume: &Path) -> io::Result<()> {
    let beside = volume.join(RESTORING);
    if !beside.exists() {
        return Ok(());
    }
    match turn(volume)? {
        Some(_turn) => clear(&beside),
        None => Ok(()),
    }
}

/// The turn to restore a volume; none: somebody has it.
pub fn turn(volume: &Path) -> io::Result<Option<Flock<fs::File>>> {
    let lock = fs::File::options().create(true).append(true).open(volume.join("restore.lock"))?;
    match Flock::lock(lock, FlockArg::LockExclusiveNonblock) {
        Ok(turn) => Ok(Some(turn)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_made_measured_and_deleted() {
        let data = tempfile::tempdir().unwrap();
        let store = VolumeStore::open(data.path()).unwrap();
        let id = VolumeId([7; 16]);
        let made = store.make(id, "shop/data").unwrap();
        fs::write(made.join("a"), vec![1; 10_000]).unwrap();
        assert_eq!(store.make(id, "shop/data").unwrap(), made);
        let (bytes, files) = store.measure(id).unwrap();
        assert!(bytes >= 10_000 && files == 1, "{bytes} {files}");
        store.remove(id).unwrap();
        store.remove(id).unwrap();
        assert!(!made.exists());
    }

    #[test]
    fn what_a_crash_has_left_goes_and_data_that_somebody_has_stays() {
        let data = tempfile::tempdir().unwrap();
        let store = VolumeStore::open(data.path()).unwrap();
        let [kept, lost, taken_back, halfway] = [1, 2, 3, 4].map(|byte| VolumeId([byte; 16]));
        for id in [kept, lost, taken_back, halfway] {
            fs::write(store.make(id, "shop/data").unwrap().join("a"), "1").unwrap();
        }
        fs::create_dir_all(data.path().join("volumes").join(format!("{GOING}x/y"))).unwrap();
        // The daemon died before or after the record went.
        store.mark(lost, true).unwrap();
        store.mark(taken_back, true).unwrap();
        fs::create_dir_all(store.folder(halfway).join(RESTORING).join("half")).unwrap();
        store.mark(VolumeId([9; 16]), true).unwrap();
        let known = || Some(BTreeSet::from([taken_back, halfway]));
        let going_on = turn(&store.folder(halfway)).unwrap();
        store.sweep(known).unwrap();
        assert!(store.folder(halfway).join(RESTORING).exists(), "somebody is at it");
        drop(going_on);
        store.sweep(known).unwrap();
        // Of one that no record tells of, but that nobody deleted, the data stays: a ledger can be lost.
        for (id, stays) in [(kept, true), (lost, false), (taken_back, true), (halfway, true)] {
            assert_eq!(store.data(id).join("a").exists(), stays, "{id:?}");
        }
        assert!(!store.folder(taken_back).join(LEAVING).exists() && !store.folder(halfway).join(RESTORING).exists());
        assert_eq!(fs::read_dir(data.path().join("volumes")).unwrap().count(), 3);
        store.mark(lost, true).unwrap();
        store.sweep(|| None).unwrap();
    }
}
