//! How it ends: exit codes, and what is said of a failure.

use std::io::{self, Write};
use std::process::ExitCode;

use rialto_client::Error;
use rialto_protocol::api::ErrorCode;
use serde_json::Value;

/// Every exit code of `rialto`. Scripts depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: it failed, for a reason that has no code of its own.
    Failed,
    /// 2: the command line is wrong.
    Usage,
    /// 3: there is no such app, task, machine or image.
    NotFound,
    /// 4: refused, or what was asked for is invalid.
    Refused,
    /// 5: no peer could be reached.
    NoPeer,
    /// 6: the time was over first.
    TimedOut,
    /// 7: no machine could ever hold it.
    Unplaceable,
    /// Where something is run: its code, 128 + n where signal n ended it; 126 and 127 where its
    /// program could not be started or found.
    Task(u8),
    /// 124, `lock` and `elect` only: not had in time.
    NotHeld,
    /// 125, where something is run: Rialto's own failure.
    Own,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Refused => 4,
            Exit::NoPeer => 5,
            Exit::TimedOut => 6,
            Exit::Unplaceable => 7,
            Exit::Task(code) => code,
            Exit::NotHeld => 124,
            Exit::Own => 125,
        }
    }

    /// Whether it is what the task itself came to, or that it never began.
    pub fn is_tasks(self) -> bool {
        matches!(self, Exit::Task(_) | Exit::NotHeld)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// A failure as people read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    /// Empty where nothing is left to say.
    pub message: String,
    pub hint: Option<String>,
    /// The same for programs, which is printed on stdout with `-o json`.
    pub data: Option<Value>,
}

impl Failure {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, data: None }
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Everything was said already.
    pub fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub fn with(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    /// Says it on stderr. Nobody may be there to read it.
    pub fn tell(&self) {
        if self.message.is_empty() {
            return;
        }
        let mut err = io::stderr().lock();
        let _ = writeln!(err, "rialto: {}", self.message);
        if let Some(hint) = &self.hint {
            let _ = writeln!(err, "  hint: {hint}");
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::NoPeer(_) => Exit::NoPeer,
            Error::Silent { .. } => Exit::TimedOut,
            Error::BrokeOff { .. } | Error::Unreadable { .. } | Error::Source(_) => Exit::Failed,
            Error::Refused(body) => of_code(body.code),
        };
        match error {
            Error::NoPeer(tried) => {
                let forbidden = tried.iter().any(|tried| tried.forbidden);
                let hint = if forbidden {
                    "a peer is there, but its socket is not yours to open: become root, or join the socket's group"
                } else {
                    "start a peer here by 'rialtod', or name another by --api URL (RIALTO_API) or --socket PATH"
                };
                Failure::new(exit, Error::NoPeer(tried).to_string()).hint(hint)
            }
            Error::Refused(body) => {
                let message = match &body.place {
                    Some(place) if !body.message.contains(place.as_str()) => format!("{place}: {}", body.message),
                    _ => body.message,
                };
                Failure { exit, message, hint: body.hint, data: None }
            }
            other => Failure::new(exit, other.to_string()),
        }
    }
}

/// The exit code of a peer's refusal.
pub fn of_code(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::NotFound => Exit::NotFound,
        ErrorCode::Invalid | ErrorCode::Unauthorized | ErrorCode::Denied => Exit::Refused,
        ErrorCode::Conflict | ErrorCode::NotSupported => Exit::Refused,
        ErrorCode::TimedOut => Exit::TimedOut,
        ErrorCode::Unplaceable => Exit::Unplaceable,
        ErrorCode::Unreachable | ErrorCode::Busy | ErrorCode::Internal => Exit::Failed,
    }
}

/// Writing what was asked for. A reader that went away has seen enough.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::silent(Exit::Done),
            _ => Failure::new(Exit::Failed, error.to_string()),
        }
    }
}
