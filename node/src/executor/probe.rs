//! Whether this process can run containers here.

use std::fs;
use std::path::Path;

use super::cgroup::Hierarchies;

const CAP_SYS_ADMIN: u32 = 21;

/// `Err` with the reason, for people, where it cannot.
pub fn probe() -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("containers need root, and this peer does not run as root".into());
    }
    let status = fs::read_to_string("/proc/self/status").map_err(|error| format!("/proc/self/status: {error}"))?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    if effective & (1 << CAP_SYS_ADMIN) == 0 {
        return Err("containers need the capability CAP_SYS_ADMIN, and this peer lacks it".into());
    }
    for kind in ["pid", "mnt", "ipc", "uts", "cgroup"] {
        if !Path::new("/proc/self/ns").join(kind).exists() {
            return Err(format!("this kernel has no {kind} namespaces"));
        }
    }
    let hierarchies = Hierarchies::find().map_err(|error| format!("/proc/self/mounts: {error}"))?;
    for controller in ["cpu", "memory", "pids"] {
        let Some(at) = hierarchies.of(controller) else {
            return Err(format!("no cgroup hierarchy below /sys/fs/cgroup has the {controller} controller"));
        };
        let writable = nix::unistd::access(at, nix::unistd::AccessFlags::W_OK);
        writable.map_err(|errno| format!("{} cannot be written to: {}", at.display(), errno.desc()))?;
    }
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    if !filesystems.lines().any(|line| line.ends_with("\toverlay")) {
        // A module may yet be loaded by the first mount, so this is only worth a word.
        tracing::warn!("this kernel does not list overlayfs: only the image `host` is sure to run");
    }
    Ok(())
}
