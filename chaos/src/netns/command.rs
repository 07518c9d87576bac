//! Running programs, never for longer than they are allowed to.

use std::ffi::OsStr;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;

use super::{LabError, Result};

/// How long a program of the system (`ip`, `nft`) may take.
const SYSTEM_LIMIT: Duration = Duration::from_secs(20);

/// What a program said, and how it ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// The command line, for messages.
    pub command: String,
    /// The exit code; 128 + n after signal n.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    /// From the start of the process to its end, output read.
    pub took: Duration,
}

impl Output {
    /// This output, if the program succeeded.
    pub fn ok(self) -> Result<Self> {
        if self.code == 0 {
            return Ok(self);
        }
        let said = format!("{} {}", self.stdout.trim(), self.stderr.trim());
        Err(LabError::Command { command: self.command, outcome: format!("ended with {}", self.code), said })
    }

    /// The standard output as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_str(&self.stdout).map_err(|error| LabError::Unreadable {
            what: self.command.clone(),
            error: error.to_string(),
            said: self.stdout.chars().take(2000).collect(),
        })
    }
}

/// Runs `command` to its end and reads what it says; kills it after `limit`.
pub fn run_within(command: &mut Command, limit: Duration) -> Result<Output> {
    let line = describe(command);
    let began = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| LabError::Io { what: format!("`{line}`"), error })?;
    let pid = Pid::from_raw(child.id() as i32);
    let (ended, end) = mpsc::channel();
    // The waiter ends with the child, and the child ends at the limit at the latest.
    std::thread::spawn(move || drop(ended.send(child.wait_with_output())));
    let Ok(output) = end.recv_timeout(limit) else {
        kill(pid, Signal::SIGKILL).ok();
        return Err(LabError::Command {
            command: line,
            outcome: format!("ran longer than {limit:?}"),
            said: String::new(),
        });
    };
    let output = output.map_err(|error| LabError::Io { what: format!("`{line}`"), error })?;
    Ok(Output {
        code: exit_code(output.status),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: began.elapsed(),
        command: line,
    })
}

/// Runs a program of the system that must succeed.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<Output> {
    run_within(Command::new(program).args(arguments), SYSTEM_LIMIT)?.ok()
}

/// Runs a program of the system that reads `input`, and must succeed.
pub(crate) fn feed(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let line = format!("{program} {}", arguments.join(" "));
    let io = |error| LabError::Io { what: format!("`{line}`"), error };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that refuses its input early closes the pipe; what it says follows below.
        stdin.write_all(input.as_bytes()).ok();
    }
    let output = child.wait_with_output().map_err(io)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(LabError::Command { command: line, outcome: format!("ended with {}", exit_code(output.status)), said })
}

/// The code that a shell would show.
pub(crate) fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
