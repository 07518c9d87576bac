//! Whether this process can run containers here.

use std::fs;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::libc;

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
    if !has_overlayfs() {
        tracing::warn!("this kernel has no overlayfs: only the image `host` runs here");
    }
    Ok(())
}

/// Asks for it as a mount would, so that the kernel loads its module where it is one.
fn has_overlayfs() -> bool {
    /// As <linux/mount.h> has it.
    const FSOPEN_CLOEXEC: libc::c_uint = 1;
    // SAFETY: the name ends in a zero and outlives the call, which keeps no reference to it.
    let context = unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), FSOPEN_CLOEXEC) };
    match RawFd::try_from(context) {
        // SAFETY: the kernel has just opened it for us, and nobody else knows of it.
        Ok(context) if context >= 0 => drop(unsafe { OwnedFd::from_raw_fd(context) }),
        _ => return false,
    }
    true
}
