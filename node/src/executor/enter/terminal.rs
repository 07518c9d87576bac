//! A terminal of a container's own: made in its own instance of devpts, without a look at any path
//! that the container could have laid there instead.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::libc;
use nix::sys::stat::fstat;
use nix::sys::statfs::fstatfs;
use rialto_protocol::session::Size;

/// `ptmx` of an instance of devpts has this number there.
const PTMX_INODE: u64 = 2;
const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Both ends.
pub struct Terminal {
    pub master: OwnedFd,
    pub slave: OwnedFd,
}

impl Terminal {
    /// Makes a terminal of the container with the root `root`, which `uid` owns.
    pub fn open(root: &File, size: Size, uid: u32) -> io::Result<Self> {
        let how = OpenHow::new()
            .flags(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let master = openat2(root, "dev/pts/ptmx", how)?;
        if fstatfs(&master)?.filesystem_type().0 as i64 != DEVPTS_MAGIC || fstat(&master)?.st_ino != PTMX_INODE {
            return Err(io::Error::other("the container has no terminals at /dev/pts"));
        }
        let unlock: libc::c_int = 0;
        // SAFETY: the request reads one integer.
        Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) })?;
        let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
        // SAFETY: the request takes flags and returns a descriptor that belongs to nobody else.
        let slave = Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) })?;
        // SAFETY: the descriptor was made just now.
        let slave = unsafe { OwnedFd::from_raw_fd(slave) };
        nix::unistd::fchown(&slave, Some(uid.into()), None)?;
        let terminal = Self { master, slave };
        resize(&terminal.master, size)?;
        Ok(terminal)
    }
}

/// The terminal has another size now; whoever runs on it is told by the kernel.
pub fn resize(master: &OwnedFd, size: Size) -> io::Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one structure of that type.
    Errno::result(unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}
