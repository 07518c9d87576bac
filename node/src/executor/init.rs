//! A small init for tasks that ask for one: the container's first process, which stays behind when
//! the task's own program is started as its child. It hands signals on, reaps what is orphaned,
//! and ends as its child does. It needs no file in the container: it is the shim's copy, gone on.

use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::{set_dumpable, set_name, set_pdeathsig};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Splits the process: it returns in the child, which is to become the task's program.
pub fn go_before() {
    let all = SigSet::all();
    // From here on nothing is lost: what comes before the child exists waits.
    if sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None).is_err() {
        return;
    }
    // SAFETY: the process has one thread.
    match unsafe { fork() } {
        Ok(ForkResult::Child) => {
            // What killed the first process killed this one, too: they share a pid namespace.
            let _ = set_pdeathsig(None);
            let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
        }
        Ok(ForkResult::Parent { child }) => stay(child, &all),
        // Without a second process the task's program does without an init.
        Err(_) => drop(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)),
    }
}

fn stay(child: Pid, all: &SigSet) -> ! {
    // Nothing in the container may look into this copy of a program of the machine's.
    let _ = set_dumpable(false);
    let _ = set_name(c"init");
    // Its streams are the task's: they end when the task closes them.
    // SAFETY: nothing in this process uses them any more.
    unsafe {
        for fd in 0..3 {
            libc::close(fd);
        }
    }
    loop {
        match all.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(child) {
                    // SAFETY: ends this process at once; nothing of the shim's that it copied may run.
                    unsafe { libc::_exit(code) }
                }
            }
            Ok(signal) => drop(kill(child, signal)),
            Err(_) => {}
        }
    }
}

/// Takes in everything that has ended; the child's code, if it has.
fn reap(child: Pid) -> Option<i32> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => code = Some(status),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => code = Some(128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return code,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return code,
        }
    }
}
