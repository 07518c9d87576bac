//! The control protocol between a daemon and a shim: lines of JSON over a Unix socket.
//!
//! Version 1. The one that connects says `{"verb":"hello","version":N}` with the newest version it
//! speaks; the shim answers `{"answer":"hello","version":M}` with the lower of N and its own, and
//! both keep to M. A shim lives as long as its task, so a newer daemon meets older shims: a verb
//! that a shim does not know is answered by `refused` and changes nothing, and fields that a
//! reader does not know are skipped.

use serde::{Deserialize, Serialize};

use super::folder::Exit;

/// The longest line, either way.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// What a shim is asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub enum Ask {
    Hello {
        version: u32,
    },
    /// Answered by `state`.
    Status,
    /// Answered by `state`, at once and at each change.
    Watch,
    /// The stop signal now, SIGKILL after the grace. A shorter grace replaces a longer one.
    Stop {
        grace_ms: u64,
    },
    /// The task's lease is sure until then, by the boot-time clock, ms: it is ended by then unless it is renewed again.
    Renew {
        until_ms: u64,
    },
    /// Sends one signal to the container's first process.
    Kill {
        signal: i32,
    },
    /// Answered by `output` as soon as the log reaches beyond `after`.
    Output {
        after: u64,
    },
    /// Answered by `done`; from then on the connection carries frames of [`rialto_protocol::session`].
    Attach,
    #[serde(other)]
    Unknown,
}

/// What a shim says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    Hello {
        version: u32,
    },
    State {
        state: State,
    },
    Done,
    /// Where the log ends now.
    Output {
        end: u64,
    },
    Refused {
        reason: String,
    },
    #[serde(other)]
    Unknown,
}

/// How the task fares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Starting,
    Running {
        started_at: u64,
        digest: Option<String>,
    },
    /// The container is gone.
    Ended {
        exit: Exit,
    },
}

/// A line of the protocol.
pub fn line(message: &impl Serialize) -> Vec<u8> {
    // These types hold strings, numbers and nothing that JSON could refuse.
    let mut line = serde_json::to_vec(message).unwrap_or_default();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_skipped_and_not_an_error() {
        let ask: Ask = serde_json::from_str(r#"{"verb":"exec","command":["sh"]}"#).unwrap();
        assert_eq!(ask, Ask::Unknown);
        let ask: Ask = serde_json::from_str(r#"{"verb":"stop","grace_ms":5,"why":"drain"}"#).unwrap();
        assert_eq!(ask, Ask::Stop { grace_ms: 5 });
        let answer: Answer = serde_json::from_str(r#"{"answer":"resized","cpu":1}"#).unwrap();
        assert_eq!(answer, Answer::Unknown);
    }

    #[test]
    fn lines_read_back() {
        let state = State::Ended { exit: Exit { exit_code: Some(3), oom_killed: true, ..Exit::failed("") } };
        let text = line(&Answer::State { state: state.clone() });
        assert_eq!(text.last(), Some(&b'\n'));
        assert_eq!(serde_json::from_slice::<Answer>(&text).unwrap(), Answer::State { state });
    }
}
