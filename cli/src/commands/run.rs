//! `rialto run`: one command, followed to its end.

mod signals;
mod verdict;

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use rialto_client::{Client, Error, Lines, RunBody, Wait, new_change};
use rialto_protocol::api::{Answer, Changed, ErrorCode, LogLine, TaskRow};
use rialto_protocol::ids::ChangeId;
use rialto_protocol::model::resources::{CPU_MILLIS, MEMORY_BYTES};
use rialto_protocol::model::{AppSpec, OnLost, Resources, Restart, ServiceSpec};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::logs::decode;
use crate::args::{Format, Run};
use crate::exit::{Exit, Failure};
use crate::output::{Output, one_line, pass, say};
use signals::Signals;
use verdict::{Stopped, has_ended, verdict};

/// The one service of a run.
const SERVICE: &str = "run";
/// A peer that went away while it was followed is looked for this long: it may only have been restarted.
const REJOIN_MAX: Duration = Duration::from_secs(30);
const REJOIN_EVERY: Duration = Duration::from_millis(250);

pub async fn run(client: &Client, out: Output, run: Run) -> Result<Exit, Failure> {
    let change = new_change();
    let app = match &run.name {
        Some(name) => crate::args::app(name).map_err(|why| Failure::usage(format!("--name {name}: {why}")))?,
        None => name_of(change),
    };
    let task = format!("{app}.{SERVICE}.1");
    let (timeout, detach) = (run.timeout, run.detach);
    let body = RunBody { change: change.hex(), app: app.clone(), spec: spec(run) };
    if detach {
        client.start(&body).await?;
        out.data(&json!({ "task": task, "app": app }), || task.clone())?;
        return Ok(Exit::Done);
    }
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    let mut signals = Signals::listen()?;
    let lines = tokio::select! {
        lines = client.run(&body) => Ok(lines?),
        signal = signals.next() => Err(Stopped::Signal(signal)),
        () = at(deadline) => Err(Stopped::Late),
    };
    let following =
        Following { client, out, app, task, printed: BTreeMap::new(), row: None, unread: None, stopping: None };
    match lines {
        Ok(lines) => following.follow(lines, signals, deadline).await,
        Err(why) => following.give_up(why).await,
    }
}

/// Names what people have to type short: the random end of the change's id.
fn name_of(change: ChangeId) -> String {
    format!("run-{}", &change.hex()[22..])
}

fn spec(run: Run) -> AppSpec {
    let mut room = Resources::default();
    for (name, amount) in [(CPU_MILLIS, run.cpus), (MEMORY_BYTES, run.memory)] {
        if let Some(amount) = amount {
            room.set(name, amount);
        }
    }
    let from_here = |name: &String| std::env::var(name).ok();
    let environment = run.env.into_iter().filter_map(|variable| {
        let value = variable.value.or_else(|| from_here(&variable.name))?;
        Some((variable.name, value))
    });
    let service = ServiceSpec {
        image: run.image,
        command: run.command,
        environment: environment.collect(),
        replicas: 1,
        restart: Restart::No,
        ports: run.publish,
        network_mode: run.network.unwrap_or_default(),
        reservations: room.clone(),
        limits: room,
        on_lost: OnLost::Retry(run.retries),
        ..ServiceSpec::default()
    };
    AppSpec { services: BTreeMap::from([(SERVICE.into(), service)]), single_run: true }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

type Stopping = JoinHandle<Result<Answer<Changed>, Error>>;

/// A run under way.
struct Following<'a> {
    client: &'a Client,
    out: Output,
    app: String,
    task: String,
    /// Bytes that were passed on of each stream of the present attempt.
    printed: BTreeMap<String, u64>,
    /// The task as it was told of last.
    row: Option<TaskRow>,
    /// Why some of what the task printed could not be read.
    unread: Option<String>,
    /// Why it was told to stop.
    stopping: Option<Stopped>,
}

impl Following<'_> {
    async fn follow(
        mut self,
        mut lines: Lines<LogLine>,
        mut signals: Signals,
        deadline: Option<Instant>,
    ) -> Result<Exit, Failure> {
        let mut stop: Option<Stopping> = None;
        loop {
            let why = tokio::select! {
                line = lines.next() => match line {
                    Ok(Some(line)) => match self.take(line) {
                        Ok(()) => continue,
                        // Whoever read the output is gone; a program would be ended by that, too.
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Stopped::Signal(signals::PIPE),
                        Err(error) => return Err(error.into()),
                    },
                    Ok(None) => break,
                    Err(error) => {
                        say(format!("rialto: {error}"));
                        break;
                    }
                },
                signal = signals.next() => Stopped::Signal(signal),
                () = at(deadline), if self.stopping.is_none() => Stopped::Late,
                answer = async { stop.as_mut().expect("polled only where there is one").await }, if stop.is_some() => {
                    stop = None;
                    if let Ok(Err(error)) = answer {
                        return Err(Failure::from(error).hint(format!("the task may go on: rialto stop {}", self.app)));
                    }
                    continue;
                }
            };
            match (self.stopping, why) {
                (None, why) => {
                    self.stopping = Some(why);
                    if io::stderr().is_terminal() && matches!(why, Stopped::Signal(_)) {
                        say("stopping the task; once more to leave it alone and exit");
                    }
                    stop = Some(self.stop());
                }
                // The pipe stays broken; a second signal is from a person without patience.
                (Some(_), Stopped::Signal(signal)) if signal != signals::PIPE => return Ok(Exit::Task(128 + signal)),
                _ => {}
            }
        }
        if let Some(row) = self.row.take_if(|row| has_ended(row)) {
            if self.unread.is_some() && !row.lost {
                // What could not be read as it came may be read now; else the end is no success of anybody's.
                self.print_rest(&row).await?;
            }
            return verdict(&row, self.stopping);
        }
        if let Some(why) = self.stopping {
            // Nothing more comes of it: it was stopped before it began, or the peer that told of it is gone.
            if let Some(stop) = stop {
                drop(stop.await);
            }
            return why.exit();
        }
        tokio::select! {
            row = self.rejoin() => {
                let row = row?;
                self.print_rest(&row).await?;
                verdict(&row, self.stopping)
            }
            signal = signals.next() => Ok(Exit::Task(128 + signal)),
            () = at(deadline), if self.stopping.is_none() => self.give_up(Stopped::Late).await,
        }
    }

    fn take(&mut self, line: LogLine) -> io::Result<()> {
        if self.out.format == Format::Json {
            self.out.json_line(&line).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        match line {
            LogLine::Output { stream, data, .. } => {
                let data = decode(&data).map_err(|failure| io::Error::other(failure.message))?;
                *self.printed.entry(stream.clone()).or_default() += data.len() as u64;
                if self.out.format == Format::Table {
                    pass(&stream, &data)?;
                }
            }
            LogLine::State(row) => self.see(*row),
            // A peer that goes down is followed by another, or by its next life.
            LogLine::Failed(problem) if problem.code == ErrorCode::Busy => {}
            LogLine::Failed(problem) => self.unread = Some(one_line(&problem.message)),
        }
        Ok(())
    }

    fn see(&mut self, row: TaskRow) {
        let before = self.row.as_ref();
        if before.is_some_and(|before| before.attempt != row.attempt && before.claim.is_some()) {
            self.printed.clear();
        }
        if row.state == "pending"
            && let Some(reason) = &row.reason
            && before.and_then(|before| before.reason.as_ref()) != Some(reason)
            && io::stderr().is_terminal()
        {
            say(format!("waiting: {}", one_line(reason)));
        }
        self.row = Some(row);
    }

    /// Tells the cluster to stop the task. It goes on while the output is still followed.
    fn stop(&self) -> Stopping {
        let (client, app) = (self.client.clone(), self.app.clone());
        tokio::spawn(async move { client.scale(&app, None, 0, new_change()).await })
    }

    /// Stops the task without having seen anything of it, or more of it.
    async fn give_up(&self, why: Stopped) -> Result<Exit, Failure> {
        match self.client.scale(&self.app, None, 0, new_change()).await {
            Err(error) if error.code() == Some(ErrorCode::NotFound) => {}
            other => drop(other?),
        }
        why.exit()
    }

    /// Waits for the end at whatever peer can be found.
    async fn rejoin(&self) -> Result<TaskRow, Failure> {
        let mut lost_at = Instant::now();
        loop {
            match self.client.task(&self.task, Some((Wait::Finished, Duration::from_secs(60)))).await {
                Ok(answer) => return Ok(answer.data),
                Err(error) => match error.code() {
                    Some(ErrorCode::TimedOut) => lost_at = Instant::now(),
                    // Nobody tells when a peer is back: it is asked for now and then.
                    None | Some(ErrorCode::Busy) if lost_at.elapsed() < REJOIN_MAX => sleep(REJOIN_EVERY).await,
                    _ => {
                        let hint = format!("the task may still run: rialto ps {}", self.app);
                        return Err(Failure::from(error).hint(hint));
                    }
                },
            }
        }
    }

    /// What was printed and not passed on yet. Output that nobody can read is a failure: whoever asked would take
    /// its absence for the task's silence.
    async fn print_rest(&mut self, row: &TaskRow) -> Result<(), Failure> {
        let same = self.row.as_ref().is_none_or(|before| before.claim == row.claim || before.claim.is_none());
        if !same {
            self.printed.clear();
        }
        let mut lines = match self.client.logs(&self.task, false, None).await {
            Ok(lines) => lines,
            Err(error) => return Err(unreadable(row, error.to_string())),
        };
        let mut skip = std::mem::take(&mut self.printed);
        while let Some(line) = lines.next().await.map_err(|error| unreadable(row, error.to_string()))? {
            let LogLine::Output { stream, data, .. } = &line else {
                if let LogLine::Failed(problem) = &line {
                    return Err(unreadable(row, one_line(&problem.message)));
                }
                continue;
            };
            let data = decode(data)?;
            let known = skip.entry(stream.clone()).or_default();
            let old = (*known).min(data.len() as u64);
            *known -= old;
            let new = &data[old as usize..];
            match self.out.format {
                Format::Table => pass(stream, new)?,
                Format::Json if old == 0 => self.out.json_line(&line)?,
                Format::Json => {}
            }
        }
        Ok(())
    }
}

/// The task's own end is told with the reason, for its code cannot be the answer any more.
fn unreadable(row: &TaskRow, why: String) -> Failure {
    let end = row.exit_code.map_or(row.state.clone(), |code| format!("ended with code {code}"));
    Failure::new(Exit::Own, format!("{} {end}, and its output cannot be read: {why}", row.task))
        .hint(format!("try again later: rialto logs {}", row.task))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_after_its_change() {
        let (one, other) = (name_of(new_change()), name_of(new_change()));
        assert_ne!(one, other);
        assert_eq!(one.len(), "run-".len() + 10);
        assert!(rialto_protocol::model::app::is_dns_label(&one));
    }
}
