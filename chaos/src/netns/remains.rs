//! What killed peers leave in the kernel: cgroups and mounts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{LabError, Result, until};

/// The folder of every peer's cgroups, in each hierarchy.
const PEERS: &str = "rialto";
/// A peer's own folder therein is named by so many digits of its identity.
const PEER_DIGITS: usize = 12;
/// Where a machine's folder keeps those digits: a lab that was killed is swept by them.
const PEER_FILE: &str = "peer";
/// The kernel may take so long to let go of a cgroup whose last process has been killed.
const LETTING_GO: Duration = Duration::from_secs(5);

/// Notes whose cgroups a machine has.
pub(crate) fn remember_peer(folder: &Path, id: &str) -> Result<()> {
    let digits: String = id.chars().take(PEER_DIGITS).collect();
    std::fs::write(folder.join(PEER_FILE), digits).map_err(LabError::io("noting a peer's identity"))
}

/// Removes the cgroups of the machine with this folder; its processes are dead.
pub(crate) fn remove_cgroups(folder: &Path) {
    let Ok(peer) = std::fs::read_to_string(folder.join(PEER_FILE)) else { return };
    if peer.len() != PEER_DIGITS {
        return;
    }
    for cgroup in hierarchies().iter().map(|mount| mount.join(PEERS).join(&peer)) {
        // What stays for longer goes with the next sweep.
        let gone = || if remove_tree(&cgroup) { Ok(()) } else { Err("it is in use".into()) };
        until("the end of a cgroup", LETTING_GO, gone).ok();
    }
}

/// Where cgroups are mounted here: v1, hybrid and v2 alike.
fn hierarchies() -> Vec<PathBuf> {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mounts") else { return Vec::new() };
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields
        .filter(|field| field.len() > 2 && field[2].starts_with("cgroup"))
        .map(|field| PathBuf::from(field[1]))
        .collect()
}

/// Removes a cgroup with all beneath it; whether it is gone. A cgroup's files cannot be removed and need
/// not be: folders go from the leaves upwards.
fn remove_tree(folder: &Path) -> bool {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    std::fs::remove_dir(folder).is_ok() || !folder.exists()
}

/// Unmounts what is mounted beneath `folder`, the latest first.
pub(crate) fn unmount_beneath(folder: &Path) {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mounts") else { return };
    let points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    for point in points.iter().rev().filter(|point| Path::new(point).starts_with(folder)) {
        super::run("umount", &["--lazy", point]).ok();
    }
}
