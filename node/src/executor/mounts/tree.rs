//! Showing what lies at one place at another: the mount is made out of sight, is given its attributes, and only then
//! gets its place, so that nobody ever sees it without them.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;

use crate::executor::userns::Users;

/// As <linux/mount.h> has it.
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 4;

/// Shows `found` at `to`, with everything that is mounted below it. `attributes`: `MOUNT_ATTR_…`, for all of it;
/// `propagation`: with `MS_PRIVATE` what is mounted later on the one side is not seen on the other, 0 leaves that as it
/// is. With `users` its files have the owners there that those know by their numbers on the disk.
pub fn show(found: &impl AsFd, to: &Path, attributes: u64, propagation: u64, users: Option<&Users>) -> io::Result<()> {
    let below = (libc::AT_EMPTY_PATH | libc::AT_RECURSIVE) as libc::c_uint;
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | below;
    let none = c"".as_ptr();
    let fd = found.as_fd().as_raw_fd();
    // SAFETY: the path is a C string, and the descriptor is open.
    let tree = Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, fd, none, flags) })?;
    // SAFETY: the kernel has just opened it for us, and nobody else knows of it.
    let tree = unsafe { OwnedFd::from_raw_fd(tree as i32) };
    let (idmap, namespace) = users.map_or((0, 0), |users| (libc::MOUNT_ATTR_IDMAP, users.namespace.as_raw_fd() as u64));
    let attributes = libc::mount_attr { attr_set: attributes | idmap, attr_clr: 0, propagation, userns_fd: namespace };
    // SAFETY: the path is a C string, and the size is that of the structure.
    let set = unsafe {
        let size = size_of::<libc::mount_attr>();
        libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), none, below, &raw const attributes, size)
    };
    Errno::result(set).map_err(|errno| match errno {
        Errno::ENOSYS => {
            let message =
                "this kernel cannot restrict what is mounted below a folder (mount_setattr): 5.12 or later can";
            io::Error::new(io::ErrorKind::Unsupported, message)
        }
        Errno::EINVAL if users.is_some() => {
            let message = "its file system, or one below it, cannot show other owners (idmapped mounts)";
            io::Error::new(io::ErrorKind::Unsupported, message)
        }
        errno => errno.into(),
    })?;
    let to = CString::new(to.as_os_str().as_bytes())?;
    // SAFETY: the paths are C strings.
    let moved = unsafe {
        let (tree, to) = (tree.as_raw_fd(), to.as_ptr());
        libc::syscall(libc::SYS_move_mount, tree, none, libc::AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH)
    };
    Errno::result(moved)?;
    Ok(())
}
