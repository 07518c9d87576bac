//! While the task runs: one wait for its end, its output, the visitors and the end of a grace.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::guests::Guests;
use super::lease::{Due, Ending};
use super::output::Outputs;
use super::visitors::{Order, Visitors};
use crate::executor::process::Pidfd;

/// Reads of one stream between two looks at everything else: a megabyte.
const READS_MAX: usize = 16;

/// A running task.
pub struct Watch<'a> {
    pub init: Pid,
    pub pidfd: &'a Pidfd,
    /// What asks it to end.
    pub stop_signal: i32,
    pub outputs: Outputs,
    pub visitors: &'a mut Visitors,
    pub guests: Guests,
    /// Of a task that runs under one.
    pub lease: Option<Ending>,
}

impl Watch<'_> {
    /// Sees the task through; the exit code, 128 + n where signal n ended it, and whether its lease ended it.
    pub fn until_end(mut self) -> (i32, bool) {
        let (mut expired, mut stopped) = (false, false);
        let mut kill_at: Option<Instant> = None;
        loop {
            let (ended, output) = self.wait(kill_at);
            if output || ended {
                // All writers are gone with the first process: what is left is finite.
                let guests = &mut self.guests;
                self.outputs
                    .copy(if ended { usize::MAX } else { READS_MAX }, |stream, bytes| guests.show(stream, bytes));
                self.visitors.tell_of_output(self.outputs.end());
            }
            if ended {
                let code = self.exit_code();
                self.guests.farewell(code);
                return (code, expired);
            }
            for order in self.visitors.serve(Some(self.outputs.end())) {
                match order {
                    Order::Kill { signal } => drop(self.pidfd.signal(signal)),
                    Order::Renew { until_ms } => {
                        if let Some(lease) = &mut self.lease {
                            lease.renew(until_ms);
                        }
                    }
                    Order::Stop { grace_ms } => {
                        stopped = true;
                        let deadline = self.stop(grace_ms);
                        kill_at = Some(kill_at.map_or(deadline, |earlier| earlier.min(deadline)));
                    }
                }
            }
            self.visitors.leaving().into_iter().for_each(|stream| self.guests.admit(stream));
            self.guests.serve(self.pidfd);
            match self.lease.as_mut().map_or(Due::Nothing, Ending::due) {
                Due::Nothing => {}
                Due::Stop => {
                    // Whatever its grace: the end of the lease is when it is killed.
                    let _ = self.stop(0);
                    expired = !stopped;
                }
                Due::Kill => {
                    let _ = self.pidfd.signal(libc::SIGKILL);
                    expired |= !stopped;
                }
            }
            if kill_at.is_some_and(|deadline| deadline <= Instant::now()) {
                let _ = self.pidfd.signal(libc::SIGKILL);
                kill_at = None;
            }
        }
    }

    /// Waits for anything; whether the task has ended, and whether it may have written.
    fn wait(&self, kill_at: Option<Instant>) -> (bool, bool) {
        let watched = std::iter::once(self.pidfd.0.as_fd()).chain(self.outputs.fds()).chain(self.visitors.fds());
        let watched: Vec<BorrowedFd> = watched.chain(self.lease.as_ref().map(Ending::fd)).collect();
        let mut fds: Vec<PollFd> = watched.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        fds.extend(self.guests.fds().map(|(fd, reads, writes)| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, reads);
            flags.set(PollFlags::POLLOUT, writes);
            PollFd::new(fd, flags)
        }));
        let timeout = kill_at.map_or(PollTimeout::NONE, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis();
            // Rounded up: waking a moment early would only mean waiting again.
            PollTimeout::try_from(left.saturating_add(1).min(60_000) as i32).unwrap_or(PollTimeout::MAX)
        });
        let outputs = self.outputs.fds().count();
        let ready = |fd: &PollFd| fd.any().unwrap_or(true);
        match poll(&mut fds, timeout) {
            Ok(_) => (ready(&fds[0]), fds[1..=outputs].iter().any(ready)),
            Err(_) => (false, true),
        }
    }

    /// Sends the stop signal; when to kill.
    fn stop(&self, grace_ms: u64) -> Instant {
        let now = Instant::now();
        if drops(self.init, self.stop_signal) {
            return now;
        }
        let _ = self.pidfd.signal(self.stop_signal);
        now.checked_add(Duration::from_millis(grace_ms)).unwrap_or(now)
    }

    fn exit_code(&self) -> i32 {
        loop {
            match waitpid(self.init, None) {
                Ok(WaitStatus::Exited(_, code)) => return code,
                Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as i32,
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                // Only this process can have waited for its child, and it has not.
                Err(_) => return 255,
            }
        }
    }
}

/// Whether the kernel would drop a signal: it does so for the first process of a pid namespace that
/// has neither a handler for it nor blocks it. No grace is of any use to such a process.
fn drops(init: Pid, signal: i32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{init}/status")) else { return false };
    let holds = |name: &str| {
        let mask = status.lines().find_map(|line| line.strip_prefix(name));
        let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(u64::MAX);
        mask & (1 << (signal - 1)) != 0
    };
    !holds("SigCgt:") && !holds("SigBlk:") && !holds("SigIgn:") && !waits_for_signals(init)
}

/// Whether one of its threads waits for signals by name: while it does the kernel shows none of them as blocked, and
/// drops none.
fn waits_for_signals(init: Pid) -> bool {
    const THREADS_MAX: usize = 4096;
    let call = libc::SYS_rt_sigtimedwait.to_string();
    let threads = std::fs::read_dir(format!("/proc/{init}/task")).into_iter().flatten().flatten().take(THREADS_MAX);
    threads.into_iter().any(|thread| {
        let call_now = std::fs::read_to_string(thread.path().join("syscall")).unwrap_or_default();
        call_now.split(' ').next() == Some(&call)
    })
}
