//! Naming a process so that nobody else is ever mistaken for it: a pid alone is used again.

use std::fs;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use serde::{Deserialize, Serialize};

/// One process of one boot of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: i32,
    /// Clock ticks since the boot at which it started.
    pub start_time: u64,
}

impl Process {
    /// The process that has `pid` now; `None` where there is none, or only its corpse.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything, even parentheses: fields are counted after it.
        let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
        let state = fields.next()?;
        let start_time = fields.nth(18)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { pid, start_time })
    }

    /// A descriptor of exactly this process; `None` where it is gone.
    pub fn open(self) -> Option<Pidfd> {
        let pidfd = Pidfd::of(self.pid).ok()?;
        // The descriptor pins whoever has the pid now; only then is the question who that is settled.
        (Process::of(self.pid) == Some(self)).then_some(pidfd)
    }
}

/// A descriptor of a process: readable once it has ended.
pub struct Pidfd(pub OwnedFd);

impl Pidfd {
    /// Opens whatever process has `pid`.
    pub fn of(pid: i32) -> io::Result<Self> {
        // SAFETY: the call takes no pointers, and what it returns belongs to nobody else.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
        // SAFETY: the descriptor was made just now.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// Sends a signal; a process that has ended already is no error.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let info = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a null siginfo asks the kernel to fill it in as kill(2) would.
        let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, info, 0) };
        match Errno::result(sent) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until the process has ended, or for so many milliseconds; whether it has.
    pub fn wait(&self, ms_max: u16) -> bool {
        use nix::poll::{PollFd, PollFlags, poll};
        use std::os::fd::AsFd;
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, ms_max), Ok(1))
    }
}

/// Names this boot of the machine: another one, and every process of the last is gone.
pub fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// The clock that counts while the machine sleeps, too, ms since the boot.
pub fn boot_ms() -> u64 {
    use nix::time::{ClockId, clock_gettime};
    let at = clock_gettime(ClockId::CLOCK_BOOTTIME).map_or_else(|_| Duration::ZERO, Duration::from);
    at.as_millis() as u64
}

/// The wall clock, ms since 1970.
pub fn wall_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_again_and_a_dead_one_is_not() {
        let me = Process::of(std::process::id() as i32).unwrap();
        assert!(me.open().is_some());
        assert!(Process { start_time: me.start_time + 1, ..me }.open().is_none());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        assert!(Pidfd::of(pid).unwrap().wait(5_000));
        assert_eq!(Process::of(pid), None, "a corpse is no process");
        child.wait().unwrap();
    }
}
