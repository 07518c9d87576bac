//! What the operating system tells a peer to do.

use std::io;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{self, SignalKind};

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM or SIGINT: as the settings say.
    AsSet,
    /// SIGUSR1, from `rialtod --stop-tasks`: the tasks end too.
    WithTasks,
}

/// The signals that a peer listens to.
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    with_tasks: unix::Signal,
}

impl Signals {
    /// From now on these signals no longer end the process by themselves.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            with_tasks: unix::signal(SignalKind::user_defined1())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Stop {
        tokio::select! {
            _ = self.terminate.recv() => Stop::AsSet,
            _ = self.interrupt.recv() => Stop::AsSet,
            _ = self.with_tasks.recv() => Stop::WithTasks,
        }
    }
}

/// Tells the peer that is process `pid` to end its tasks and itself.
pub fn stop_with_tasks(pid: i32) -> io::Result<()> {
    kill(Pid::from_raw(pid), Signal::SIGUSR1).map_err(io::Error::from)
}
