//! What killed peers leave in the kernel: cgroups and mounts.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The first part of the path of every cgroup that a peer makes.
const PEERS: &str = "rialto";

/// The folder of the peer that a process is a task of, in each cgroup hierarchy; none for a
/// process that is no task of any peer.
pub(crate) fn cgroups_of(pid: i32) -> Vec<PathBuf> {
    let Ok(lines) = std::fs::read_to_string(format!("/proc/{pid}/cgroup")) else { return Vec::new() };
    let mounts = hierarchies();
    let peers: BTreeSet<String> = lines.lines().filter_map(|line| peer_of(line.splitn(3, ':').nth(2)?)).collect();
    mounts.iter().flat_map(|mount| peers.iter().map(move |peer| mount.join(PEERS).join(peer))).collect()
}

/// The part of a cgroup's path that names the peer: `/rialto/PEER/TASK` anywhere in the path.
fn peer_of(path: &str) -> Option<String> {
    let mut parts = path.split('/').skip_while(|part| *part != PEERS);
    parts.next()?;
    parts.next().filter(|peer| !peer.is_empty()).map(str::to_owned)
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

/// Removes these cgroups with all beneath them. One that still has a process stays.
pub(crate) fn remove_cgroups(cgroups: &BTreeSet<PathBuf>) {
    for cgroup in cgroups {
        remove_tree(cgroup);
    }
}

/// A cgroup's files cannot be removed and need not be: folders go from the leaves upwards.
fn remove_tree(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    std::fs::remove_dir(folder).ok();
}

/// Unmounts what is mounted beneath `folder`, the latest first.
pub(crate) fn unmount_beneath(folder: &Path) {
    let Ok(mounts) = std::fs::read_to_string("/proc/self/mounts") else { return };
    let points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    for point in points.iter().rev().filter(|point| Path::new(point).starts_with(folder)) {
        super::run("umount", &["--lazy", point]).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_known_by_its_cgroup_and_nothing_else_is() {
        assert_eq!(peer_of("/rialto/ab12/cd34"), Some("ab12".into()));
        assert_eq!(peer_of("/outer/rialto/ab12"), Some("ab12".into()));
        assert_eq!(peer_of("/rialto"), None);
        assert_eq!(peer_of("/user.slice/rialto-like"), None);
    }
}
