//! What a run came to.

use rialto_protocol::api::TaskRow;

use crate::exit::{Exit, Failure};
use crate::output::{one_line, say};

/// Why a task was told to stop by this command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// This program was sent a signal.
    Signal(u8),
    /// `--timeout` has passed.
    Late,
}

impl Stopped {
    /// What this program ends with once the task has been stopped.
    pub fn exit(self) -> Result<Exit, Failure> {
        match self {
            Stopped::Signal(signal) => Ok(Exit::Task(128 + signal)),
            Stopped::Late => Err(Failure::new(Exit::Own, "the time is over: the task was stopped")),
        }
    }
}

/// Whether nothing more comes of this attempt.
pub fn has_ended(row: &TaskRow) -> bool {
    row.lost || matches!(row.state.as_str(), "exited" | "failed" | "stopped" | "preempted" | "superseded")
}

/// How this program ends, after how the task did.
pub fn verdict(row: &TaskRow, stopped: Option<Stopped>) -> Result<Exit, Failure> {
    if row.lost {
        let machine = row.machine.as_deref().unwrap_or("its machine");
        return Err(Failure::new(Exit::Own, format!("{machine} was lost, the command may have run")));
    }
    if let Some(why) = stopped {
        return why.exit();
    }
    let reason = row.reason.as_deref().map(one_line);
    match (row.state.as_str(), row.exit_code.map(u8::try_from)) {
        ("exited", Some(Ok(code))) => {
            if row.oom_killed {
                say("rialto: the task ran out of memory and was killed; give it more by --memory");
            }
            Ok(Exit::Task(code))
        }
        ("failed", Some(Ok(code))) => {
            say(format!("rialto: {}", reason.unwrap_or_else(|| "the task failed".into())));
            Ok(Exit::Task(code))
        }
        ("failed", _) => Err(Failure::new(Exit::Own, reason.unwrap_or_else(|| "the task could not be started".into()))),
        ("exited", _) => Err(Failure::new(Exit::Own, "the task ended without an exit code")),
        (state, _) => {
            let because = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
            Err(Failure::new(Exit::Own, format!("the task was {state}{because}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &str, exit_code: Option<i32>) -> TaskRow {
        TaskRow {
            task: "run-1.run.1".into(),
            app: "run-1".into(),
            service: "run".into(),
            slot: "1".into(),
            machine: Some("m2".into()),
            state: state.into(),
            address: None,
            ports: vec![],
            attempt: 1,
            started_at: None,
            exit_code,
            claim: None,
            reason: Some("because".into()),
            oom_killed: false,
            health: None,
            outdated: false,
            lost: false,
            done: false,
            accepted_at: None,
            ended_at: None,
        }
    }

    #[test]
    fn a_run_ends_as_its_task_does() {
        let own = |message: &str| Err(Failure::new(Exit::Own, message));
        for (state, code, want) in [
            ("exited", Some(0), Ok(Exit::Task(0))),
            ("exited", Some(3), Ok(Exit::Task(3))),
            ("exited", Some(137), Ok(Exit::Task(137))),
            ("exited", Some(-1), own("the task ended without an exit code")),
            ("exited", None, own("the task ended without an exit code")),
            ("failed", Some(127), Ok(Exit::Task(127))),
            ("failed", None, own("because")),
            ("stopped", Some(143), own("the task was stopped: because")),
            ("preempted", None, own("the task was preempted: because")),
        ] {
            assert_eq!(verdict(&row(state, code), None), want, "{state} {code:?}");
        }
    }

    #[test]
    fn a_lost_machine_is_no_exit_code() {
        let lost = TaskRow { lost: true, ..row("running", None) };
        let want = Err(Failure::new(Exit::Own, "m2 was lost, the command may have run"));
        assert_eq!(verdict(&lost, None), want);
        assert_eq!(verdict(&lost, Some(Stopped::Signal(2))), want);
    }

    #[test]
    fn what_was_stopped_here_ends_with_the_signal() {
        assert_eq!(verdict(&row("stopped", Some(0)), Some(Stopped::Signal(2))), Ok(Exit::Task(130)));
        assert_eq!(verdict(&row("exited", Some(0)), Some(Stopped::Signal(15))), Ok(Exit::Task(143)));
        assert!(verdict(&row("stopped", Some(143)), Some(Stopped::Late)).is_err());
    }
}
