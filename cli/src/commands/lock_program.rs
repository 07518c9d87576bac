//! A program that runs while something is held, and not longer.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::lock_session::Session;
use crate::exit::{Exit, Failure};
use crate::output::say;

/// The program is asked to end so long before its lease does, or a quarter of the lease's time where that is less.
const GRACE_MAX: Duration = Duration::from_secs(5);
/// It is killed so long before: the kill takes a moment.
const MARGIN: Duration = Duration::from_millis(300);
/// Where the lease has ended already it has so long to end itself.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What is held, for the program.
pub struct Held<'a> {
    pub name: &'a str,
    pub token: i64,
    pub ttl: Duration,
}

/// Runs the program to its end; the lease is the caller's to end.
///
/// # Errors
///
/// The program could not be started, or was ended because the lease could not be renewed.
pub async fn run(command: &[String], held: &Held<'_>, session: &Session) -> Result<Exit, Failure> {
    let (program, arguments) = command.split_first().ok_or_else(|| Failure::usage("there is no command"))?;
    let mut signals = Signals::new()?;
    let mut starting = Command::new(program);
    starting.args(arguments).env("RIALTO_FENCE_TOKEN", held.token.to_string()).env("RIALTO_LOCK", held.name);
    // A group of its own: what it starts ends with it.
    starting.process_group(0);
    #[cfg(target_os = "linux")]
    // SAFETY: one system call, which a child may make between fork and exec.
    unsafe {
        // Should this program be killed nobody would renew the lease.
        starting.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?));
    }
    let mut child = tokio::process::Command::from(starting).spawn().map_err(|error| not_started(program, &error))?;
    let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw) else {
        return Err(Failure::new(Exit::Own, format!("{program} has no process")));
    };
    let _terminal = Foreground::give(group);
    let grace = GRACE_MAX.min(held.ttl / 4);
    let mut asked: Option<Instant> = None;
    let mut killed = false;
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            signal = signals.next() => drop(killpg(group, signal)),
            () = session.is_about_to_end(grace), if asked.is_none() => {
                say(format!("{}: the lease {}; the command is asked to end", held.name, if session.has_ended() {
                    "has ended"
                } else {
                    "cannot be renewed"
                }));
                asked = Some(Instant::now());
                let _ = killpg(group, Signal::SIGTERM);
            }
            () = too_late(session, asked), if asked.is_some() && !killed => {
                killed = true;
                let _ = killpg(group, Signal::SIGKILL);
            }
        }
    };
    if asked.is_some() {
        // Of what it started nothing may go on.
        let _ = killpg(group, Signal::SIGKILL);
        return Err(Failure::new(Exit::Own, format!("{} was lost, and the command ended", held.name)));
    }
    Ok(Exit::Task(code_of(status)))
}

/// Waits until the program can be let live no longer.
async fn too_late(session: &Session, asked: Option<Instant>) {
    session.is_about_to_end(MARGIN).await;
    if let Some(asked) = asked.filter(|_| session.has_ended()) {
        sleep_until(asked + LAST_WORDS).await;
    }
}

fn not_started(program: &str, error: &io::Error) -> Failure {
    let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
    Failure::new(Exit::Task(code), format!("{program}: {error}"))
}

/// The code as a shell has it.
fn code_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// Signals that are meant for the program.
pub struct Signals(Vec<(Signal, tokio::signal::unix::Signal)>);

impl Signals {
    pub fn new() -> io::Result<Self> {
        use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
        let open = |kind: Signal| Ok((kind, signal(SignalKind::from_raw(kind as i32))?));
        [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2].into_iter().map(open).collect::<io::Result<_>>().map(Self)
    }

    pub async fn next(&mut self) -> Signal {
        let waiting = self.0.iter_mut().map(|(kind, signal)| {
            let kind = *kind;
            Box::pin(async move {
                signal.recv().await;
                kind
            })
        });
        futures::future::select_all(waiting).await.0
    }
}

/// The terminal is the program's, as a shell would have it; dropping this takes it back.
struct Foreground(Pid);

impl Foreground {
    fn give(group: Pid) -> Option<Self> {
        let own = getpgrp();
        let stdin = io::stdin();
        if tcgetpgrp(&stdin).ok()? != own {
            return None;
        }
        tcsetpgrp(&stdin, group).ok()?;
        // It may have been stopped for reading before the terminal was its own.
        let _ = killpg(group, Signal::SIGCONT);
        Some(Self(own))
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // From the background this is asked for with the signal that would stop it.
        let mut stops = SigSet::empty();
        stops.add(Signal::SIGTTOU);
        if stops.thread_block().is_ok() {
            let _ = tcsetpgrp(io::stdin(), self.0);
            let _ = stops.thread_unblock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_a_shells() {
        let of = |raw| code_of(ExitStatus::from_raw(raw));
        assert_eq!((of(0), of(3 << 8), of(15)), (0, 3, 143));
    }
}
