//! Where a lab stands: a number that no other living lab on this host has, and everything whose
//! name or address follows from it.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::fcntl::{Flock, FlockArg};

use super::{LabError, Result, processes, remains};

/// The numbers that this process holds.
static OWN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Labs at one time on one host.
const NUMBERS: u16 = 256;
/// Where this variable is set, a lab's folder (logs, ledgers) is left for people to look at. The next lab of
/// the same number clears it away.
const KEEP: &str = "RIALTO_LAB_KEEP";
/// The beginning of every name that a lab gives to a network namespace.
const PREFIX: &str = "rialto-lab-";

/// A lab's number, held by a lock that dies with this process, however it dies: a number whose
/// lock is free has no living lab, and what bears it is a leftover.
#[derive(Debug)]
pub(crate) struct Site {
    number: u16,
    _lock: Flock<File>,
}

impl Site {
    /// Takes the first free number, and clears away what a dead lab left under it.
    pub(crate) fn take() -> Result<Site> {
        let home = home()?;
        let site = (0..NUMBERS)
            .find_map(|number| lock(&home, number).map(|_lock| Site { number, _lock }))
            .ok_or_else(|| LabError::Impossible(format!("{NUMBERS} labs stand already")))?;
        own().insert(site.number);
        clear(site.number);
        std::fs::create_dir_all(site.folder()).map_err(LabError::io("making the lab's folder"))?;
        Ok(site)
    }

    /// The network namespace of `who`.
    pub(crate) fn netns(&self, who: &str) -> String {
        format!("{PREFIX}{}-{who}", self.number)
    }

    /// The address of a machine: one /24 for each lab, so that people can tell them apart.
    pub(crate) fn address(&self, machine: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 64, self.number as u8, machine as u8 + 1)
    }

    /// The address of a machine without a namespace of its own.
    pub(crate) fn loopback_address(&self, machine: usize) -> Ipv4Addr {
        Ipv4Addr::new(127, 64, self.number as u8, machine as u8 + 1)
    }

    /// Everything that the lab keeps on disk. Not under `/run`: a disk that is really memory would
    /// flatter every figure.
    pub(crate) fn folder(&self) -> PathBuf {
        folder(self.number)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let number = self.number;
        if std::env::var_os(KEEP).is_some() {
            end(number);
            eprintln!("kept: {}", folder(number).display());
        } else {
            clear(number);
        }
        own().remove(&number);
    }
}

/// Clears away what dead labs left behind; how many there were.
pub fn sweep() -> Result<usize> {
    let home = home()?;
    let mut swept = 0;
    for number in 0..NUMBERS {
        if (folder(number).exists() || !namespaces(number).is_empty())
            && let Some(_lock) = lock(&home, number)
        {
            clear(number);
            swept += 1;
        }
    }
    Ok(swept)
}

/// Clears away the labs of this process, which is about to end.
pub(crate) fn clear_own() {
    own().iter().for_each(|number| clear(*number));
}

fn own() -> MutexGuard<'static, BTreeSet<u16>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes away everything of lab `number`, its folder included.
fn clear(number: u16) {
    end(number);
    std::fs::remove_dir_all(folder(number)).ok();
}

/// Ends every process of lab `number`, and takes away its namespaces, mounts and cgroups.
fn end(number: u16) {
    let namespaces = namespaces(number);
    processes::kill_all(&namespaces);
    for machine in std::fs::read_dir(folder(number)).into_iter().flatten().flatten() {
        remains::remove_cgroups(&machine.path());
    }
    for name in &namespaces {
        // One that cannot go now goes with the next sweep.
        super::run("ip", &["netns", "del", name]).ok();
    }
    remains::unmount_beneath(&folder(number));
}

/// The network namespaces of lab `number` that exist.
fn namespaces(number: u16) -> Vec<String> {
    let prefix = format!("{PREFIX}{number}-");
    let Ok(entries) = std::fs::read_dir("/run/netns") else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

fn folder(number: u16) -> PathBuf {
    home_path().join(number.to_string())
}

/// Of each user his own: a lab of root's and one of a user's never share a folder.
fn home_path() -> PathBuf {
    std::env::temp_dir().join(format!("rialto-lab-{}", nix::unistd::geteuid()))
}

fn home() -> Result<PathBuf> {
    let home = home_path();
    std::fs::create_dir_all(&home).map_err(LabError::io(format!("making {}", home.display())))?;
    Ok(home)
}

/// The lock of one number, if nobody holds it. The pid inside is for people.
fn lock(home: &Path, number: u16) -> Option<Flock<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(home.join(format!("{number}.lock")));
    let mut lock = Flock::lock(file.ok()?, FlockArg::LockExclusiveNonblock).ok()?;
    lock.set_len(0).ok();
    writeln!(lock, "{}", std::process::id()).ok();
    Some(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_labs_never_share_a_number_and_a_dead_ones_folder_is_gone() {
        let one = Site::take().unwrap();
        let two = Site::take().unwrap();
        assert_ne!(one.address(0), two.address(0));
        assert_ne!(one.netns("m1"), two.netns("m1"));
        let folder = one.folder();
        assert!(folder.is_dir());
        drop(one);
        assert!(!folder.exists());
        assert!(two.folder().is_dir());
    }
}
