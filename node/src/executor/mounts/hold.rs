//! Who uses a volume. A task holds each of its volumes, together with others, for as long as its shim lives; whoever
//! replaces what lies in one holds it alone. The kernel lets go of what a process held, however that ends.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// Beside a volume's data: who has it,
const LOCK: &str = "lock";
/// and whose turn it is to make it ready.
const TURN: &str = "starting";

/// A volume that is held: until this is dropped.
#[derive(Debug)]
pub struct Held(Flock<File>);

impl Held {
    /// Lets others hold it, too.
    fn share(self) -> io::Result<Self> {
        self.0.relock(FlockArg::LockShared)?;
        Ok(self)
    }
}

/// Holds a volume alone; none: somebody else holds it. `volume` is the folder around its data.
pub fn alone(volume: &Path) -> io::Result<Option<Held>> {
    match lock(volume, LOCK, FlockArg::LockExclusiveNonblock) {
        Ok(held) => Ok(Some(Held(held))),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}

/// Holds a volume together with others, once nobody holds it alone. Whoever comes first makes it ready before anybody
/// else has it; an empty one that others use is as they want it.
pub fn shared(volume: &Path, ready: impl FnOnce() -> io::Result<()>) -> io::Result<Held> {
    // One after the other: whoever finds others at it finds it ready, or somebody who replaces it.
    let _turn = lock(volume, TURN, FlockArg::LockExclusive)?;
    let held = match alone(volume)? {
        Some(first) => {
            ready()?;
            first
        }
        None => {
            let held = Held(lock(volume, LOCK, FlockArg::LockShared)?);
            // It was replaced, and nobody has it now.
            match held.0.relock(FlockArg::LockExclusiveNonblock) {
                Ok(()) => ready()?,
                Err(Errno::EWOULDBLOCK) => {}
                Err(errno) => return Err(errno.into()),
            }
            held
        }
    };
    held.share()
}

fn lock(volume: &Path, name: &str, how: FlockArg) -> io::Result<Flock<File>> {
    Flock::lock(open(volume, name)?, how).map_err(|(_, errno)| errno.into())
}

fn open(volume: &Path, name: &str) -> io::Result<File> {
    File::options().create(true).append(true).open(volume.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_replaces_a_volume_has_it_alone() {
        let volume = tempfile::tempdir().unwrap();
        let mut made = 0;
        let first = shared(volume.path(), || {
            made += 1;
            Ok(())
        })
        .unwrap();
        let second = shared(volume.path(), || {
            made += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(made, 1, "the second finds it ready");
        assert!(alone(volume.path()).unwrap().is_none());
        drop(first);
        assert!(alone(volume.path()).unwrap().is_none());
        drop(second);
        let alone_now = alone(volume.path()).unwrap();
        assert!(alone_now.is_some() && alone(volume.path()).unwrap().is_none());
    }

    #[test]
    fn who_comes_later_waits_for_who_makes_it_ready() {
        let volume = tempfile::tempdir().unwrap();
        let first = alone(volume.path()).unwrap().unwrap();
        let (said, hear) = std::sync::mpsc::channel();
        let path = volume.path().to_path_buf();
        let second = std::thread::spawn(move || {
            let held = shared(&path, || Ok(()));
            said.send(()).unwrap();
            held
        });
        assert!(hear.recv_timeout(std::time::Duration::from_millis(50)).is_err());
        drop(first);
        hear.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
        second.join().unwrap().unwrap();
    }

    #[test]
    fn of_several_that_wait_one_makes_it_ready() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let volume = tempfile::tempdir().unwrap();
        let made = AtomicUsize::new(0);
        // Whoever was at it has failed.
        assert!(shared(volume.path(), || Err(io::ErrorKind::StorageFull.into())).is_err());
        let first = alone(volume.path()).unwrap().unwrap();
        let start = || {
            shared(volume.path(), || {
                made.fetch_add(1, Ordering::Relaxed);
                Ok(())
            })
        };
        std::thread::scope(|scope| {
            let waiting = [(); 8].map(|()| scope.spawn(start));
            drop(first);
            // All of them have it at once.
            let held = waiting.map(|one| one.join().unwrap().unwrap());
            assert_eq!((held.len(), made.load(Ordering::Relaxed)), (8, 1));
        });
    }
}
