//! The end of a task's lease, as its shim counts it: by the kernel's clock that goes on while the machine sleeps, whatever
//! becomes of the daemon. What was told last is in the task's folder, too.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use rialto_protocol::lease::{kill_at, term_at};

use crate::executor::folder::Lease;
use crate::executor::process::boot_ms;

/// What the lease wants done to the task now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    Nothing,
    Stop,
    Kill,
}

/// A lease that runs out.
pub struct Ending {
    timer: TimerFd,
    lease: Lease,
    /// The task was told to stop: no renewal undoes that.
    stops: bool,
}

impl Ending {
    pub fn of(lease: Lease) -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_BOOTTIME, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let ending = Self { timer, lease, stops: false };
        ending.arm()?;
        Ok(ending)
    }

    /// Readable when something is due.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// Whether there is no time left to start anything in.
    pub fn is_over(lease: &Lease) -> bool {
        term_at(lease.until_ms, lease.grace_ms) <= boot_ms()
    }

    /// The task may run until then: later than before, or not even so long.
    pub fn renew(&mut self, until_ms: u64) {
        self.lease.until_ms = until_ms;
        // A timer that cannot be set again fires when it would have: what is due is looked at then.
        let _ = self.arm();
    }

    /// What is due, and has not been said before.
    pub fn due(&mut self) -> Due {
        let now = boot_ms();
        let Lease { until_ms, grace_ms, .. } = self.lease;
        let due = match () {
            () if kill_at(until_ms) <= now => Due::Kill,
            () if term_at(until_ms, grace_ms) <= now && !self.stops => Due::Stop,
            () => return Due::Nothing,
        };
        self.stops = true;
        let _ = self.arm();
        due
    }

    fn arm(&self) -> io::Result<()> {
        let Lease { until_ms, grace_ms, .. } = self.lease;
        let at_ms = if self.stops { kill_at(until_ms) } else { term_at(until_ms, grace_ms) };
        // A task that SIGKILL does not end at once gets another a moment later.
        let at_ms = if self.stops { at_ms.max(boot_ms() + 50) } else { at_ms };
        let at = TimeSpec::from(Duration::from_millis(at_ms.max(1)));
        Ok(self.timer.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, poll};
    use rialto_protocol::lease::KILL_MS;

    fn waits(ending: &Ending, ms: u16) -> bool {
        let mut fds = [PollFd::new(ending.fd(), PollFlags::POLLIN)];
        poll(&mut fds, ms).unwrap() == 1
    }

    #[test]
    fn a_lease_stops_and_then_kills_and_a_renewal_puts_that_off() {
        let lease = |after_ms| Lease { until_ms: boot_ms() + KILL_MS + after_ms, grace_ms: 100 };
        assert!(!Ending::is_over(&lease(10_000)) && Ending::is_over(&lease(50)));
        let mut ending = Ending::of(lease(150)).unwrap();
        assert_eq!(ending.due(), Due::Nothing);
        ending.renew(boot_ms() + KILL_MS + 400);
        assert!(!waits(&ending, 200), "it was renewed");
        assert!(waits(&ending, 1_000));
        assert_eq!((ending.due(), ending.due()), (Due::Stop, Due::Nothing));
        assert!(waits(&ending, 1_000));
        assert_eq!(ending.due(), Due::Kill);
        // One that has ended already.
        let mut over = Ending::of(Lease { until_ms: 1, grace_ms: 100 }).unwrap();
        assert!(waits(&over, 1_000) && over.due() == Due::Kill);
    }
}
