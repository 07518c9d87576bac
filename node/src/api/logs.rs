//! What tasks print: read here, or asked of the machine that has it.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Request;
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::stream::{BoxStream, StreamExt};
use rialto_protocol::api::{ErrorCode, LogLine};
use rialto_protocol::ids::ClaimId;
use rialto_protocol::view::{ClaimAt, TaskFilter};
use serde::Deserialize;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::io::StreamReader;

use super::extract::{Options, Segment, switch};
use super::follow::{Chosen, Follow, Lines, claim_of, follow, stream_of};
use super::forward::refusal;
use super::identity::{Identity, Verb};
use super::problem::Problem;
use super::progress::{Target, has_ended};
use super::watch::Watching;
use super::{Api, Shared};

/// The longest line that another peer may send.
const LINE_BYTES_MAX: usize = 1 << 20;
/// The most lines of the past that can be asked for.
const TAIL_MAX: usize = 1_000_000;
/// How long a log that has ended may keep its reader waiting for the next piece.
const REST_WITHIN: Duration = Duration::from_secs(10);

/// The machine's own logs, as the API needs them.
pub trait Logs: Send + Sync + 'static {
    /// What a claim's task has printed, from its last `tail` lines on, or everything that is kept. Where there is no
    /// log, the first item is an error of kind `NotFound`.
    fn read(&self, claim: ClaimId, tail: Option<usize>) -> LogStream;
    /// The same, and then what the task goes on to print; it ends when the task has and everything was given.
    fn follow(&self, claim: ClaimId, tail: Option<usize>) -> LogStream;
}

pub type LogStream = BoxStream<'static, io::Result<Chunk>>;

/// Some of what a task printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// Wall clock, ms.
    pub at: u64,
    /// At most 64 KiB.
    pub data: Bytes,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadOptions {
    #[serde(default, deserialize_with = "switch")]
    follow: bool,
    tail: Option<usize>,
    /// Changes of state are lines, too; for followers.
    #[serde(default, deserialize_with = "switch")]
    states: bool,
}

pub async fn read(
    api: Shared,
    identity: Identity,
    Segment(name): Segment,
    Options(options): Options<ReadOptions>,
) -> Result<Response, Problem> {
    identity.may(Verb::ReadLogs)?;
    let ReadOptions { follow: following, tail, states } = options;
    let tail = tail.map(|tail| tail.min(TAIL_MAX));
    let permit = api.follower()?;
    let target = find(&api, &name).await?;
    let watching = api.watches.watch(target.app()).await.ok_or_else(Problem::going_down)?;
    let fresh = Chosen::new(target.clone(), tail).fresh(&watching.seen);
    if let Identity::Peer(_) = identity {
        // A peer asks for what this machine has: never hand a request around.
        if fresh.iter().any(|(claim, _)| claim.owner != api.me) {
            return Err(Problem::not_found(format!("the log of {name}")).at(&api.machine));
        }
    }
    let (lines, body) = Lines::open();
    let api = api.0.clone();
    if following {
        // Where a single claim is meant and cannot be read, that is the answer, and not a line of it.
        if let (Target::Claim { .. }, [(claim, _)]) = (&target, &fresh[..]) {
            check_reachable(&api, claim)?;
        }
        tokio::spawn(follow(api, Follow { target, tail, states, deployed: None }, watching, lines, permit));
        return Ok(stream_of(body));
    }
    if let [(claim, tail)] = &fresh[..] {
        let source = open(&api, claim, *tail, false).await?;
        let claim = claim.clone();
        tokio::spawn(async move {
            pour(&api, &claim, source, &mut None, &lines).await;
            drop(permit);
        });
        return Ok(stream_of(body));
    }
    tokio::spawn(async move {
        for (claim, tail) in fresh {
            print(&api, claim, tail, None, &lines).await;
        }
        drop(permit);
    });
    Ok(stream_of(body))
}

/// What a name means: an app, a service, a task, or a claim by (a beginning of) its number.
async fn find(api: &Api, name: &str) -> Result<Target, Problem> {
    let tasks = Target::of(name);
    let Target::Tasks { app, service, slot } = tasks.clone() else { return Ok(tasks) };
    let asked = name.to_string();
    let found = api.handle.read(move |brain, now| {
        let view = brain.view(now);
        let claims = view.claims(&asked);
        let by_number = |claim: &&ClaimAt| asked.len() >= 8 && claim.claim.hex().starts_with(&asked);
        if let Some(claim) = claims.first().filter(by_number).filter(|claim| claim.row.app != asked) {
            return Some(Target::Claim { app: claim.row.app.clone(), claim: claim.claim.hex() });
        }
        let wanted = match (&service, view.app(&app)) {
            (None, Some(_)) => true,
            (Some(service), Some(app)) if slot.is_none() => app.spec.services.contains_key(service),
            _ => false,
        };
        let filter = TaskFilter { app: Some(app), service, slot, all: true };
        (wanted || !claims.is_empty() || !view.tasks(&filter).is_empty()).then_some(tasks)
    });
    let found = found.await.ok_or_else(Problem::going_down)?;
    found.ok_or_else(|| Problem::not_found(name).hint("a name is APP, APP.SERVICE or APP.SERVICE.SLOT"))
}

/// Where a claim's output comes from.
pub enum Source {
    Here(LogStream),
    /// Lines as they are to be sent on.
    There(BoxStream<'static, io::Result<String>>),
}

/// Opens a claim's log. That it cannot be read is told here, and not by silence.
async fn open(api: &Api, claim: &ClaimAt, tail: Option<usize>, following: bool) -> Result<Source, Problem> {
    if claim.owner == api.me {
        if following {
            return Ok(Source::Here(api.logs.follow(claim.claim, tail)));
        }
        let mut stream = api.logs.read(claim.claim, tail);
        return match stream.next().await {
            None => Ok(Source::Here(futures::stream::empty().boxed())),
            Some(Ok(first)) => Ok(Source::Here(futures::stream::iter([Ok(first)]).chain(stream).boxed())),
            Some(Err(error)) if error.kind() == io::ErrorKind::NotFound && claim.row.started_at.is_none() => {
                Ok(Source::Here(futures::stream::empty().boxed()))
            }
            Some(Err(error)) => Err(unreadable(claim, &error)),
        };
    }
    check_reachable(api, claim)?;
    let owner = claim.owner;
    let addresses = api.handle.read(move |brain, now| brain.view(now).addresses(&owner));
    let addresses = addresses.await.ok_or_else(Problem::going_down)?;
    let tail = tail.map(|tail| format!("&tail={tail}")).unwrap_or_default();
    let path = format!("/v1/logs/{}?follow={}{tail}", claim.claim.hex(), following);
    let request = Request::get(path).body(Body::empty()).map_err(|error| Problem::invalid(error.to_string()))?;
    let response = api.peers.call(claim.owner, addresses, request).await.map_err(|error| {
        Problem::unreachable(&claim.owner_name, format!("{} cannot be reached: {error}", claim.owner_name))
    })?;
    if !response.status().is_success() {
        return Err(refusal(response).await);
    }
    let bytes = response.into_body().into_data_stream().map(|chunk| chunk.map_err(io::Error::other));
    let lines = FramedRead::new(StreamReader::new(bytes), LinesCodec::new_with_max_length(LINE_BYTES_MAX));
    Ok(Source::There(lines.map(|line| line.map_err(io::Error::other)).boxed()))
}

fn check_reachable(api: &Api, claim: &ClaimAt) -> Result<(), Problem> {
    if claim.owner == api.me || claim.reachable {
        return Ok(());
    }
    let (task, machine) = (&claim.row.task, &claim.owner_name);
    Err(Problem::unreachable(machine, format!("the log of {task} is on {machine}, which cannot be reached")))
}

fn unreadable(claim: &ClaimAt, error: &io::Error) -> Problem {
    let (task, machine) = (&claim.row.task, &claim.owner_name);
    let problem = match error.kind() {
        io::ErrorKind::NotFound => Problem::not_found(format!("{machine} keeps the log of {task} no longer: it was")),
        _ => Problem::unreachable(machine, format!("the log of {task} on {machine} cannot be read: {error}")),
    };
    problem.at(machine)
}

/// Sends everything that a claim prints, and follows it where it is `watching`.
pub async fn print(api: &Api, claim: ClaimAt, tail: Option<usize>, mut watching: Option<Watching>, lines: &Lines) {
    loop {
        let source = match open(api, &claim, tail, watching.is_some()).await {
            Ok(source) => source,
            Err(problem) => {
                lines.fail(problem).await;
                return;
            }
        };
        if pour(api, &claim, source, &mut watching, lines).await == Poured::All {
            return;
        }
        // The claim is known before its log is made: whatever happens to it next may bring the log.
        if !changed(&mut watching).await {
            return;
        }
    }
}

#[derive(PartialEq, Eq)]
enum Poured {
    /// Everything that will ever come, or that anybody wants.
    All,
    /// Nothing: there is no log yet.
    NotYet,
}

/// Sends what comes from a source. While it is followed, its end and its machine's are looked out for.
async fn pour(
    api: &Api,
    claim: &ClaimAt,
    mut source: Source,
    watching: &mut Option<Watching>,
    lines: &Lines,
) -> Poured {
    loop {
        let now = watching.as_ref().and_then(|watching| claim_of(watching, claim)).cloned();
        let has_ended = now.as_ref().is_none_or(|now| has_ended(&now.row));
        if let Some(problem) = now.as_ref().and_then(|now| check_reachable(api, now).err()) {
            lines.fail(problem).await;
            return Poured::All;
        }
        let line = tokio::select! {
            line = source.next(claim) => line,
            // Without its peer's brain nothing is known of the claim any more: the stream goes on by itself.
            changed = changed(watching) => {
                if !changed {
                    *watching = None;
                }
                continue;
            }
            // A log that goes on may be silent for years; one that has ended may not.
            () = tokio::time::sleep(REST_WITHIN), if has_ended => {
                let message = format!("the rest of what {} printed did not arrive in time", claim.row.task);
                lines.fail(Problem::new(ErrorCode::TimedOut, message).at(&claim.owner_name)).await;
                return Poured::All;
            }
            () = lines.closed() => return Poured::All,
        };
        match line {
            None => return Poured::All,
            Some(Ok(line)) => {
                if !lines.send_raw(line).await {
                    return Poured::All;
                }
            }
            Some(Err(error)) => {
                let no_log = error.kind() == io::ErrorKind::NotFound;
                match now {
                    Some(_) if no_log && !has_ended => return Poured::NotYet,
                    // It never began, and so never printed anything.
                    Some(now) if no_log && now.row.started_at.is_none() => {}
                    _ => {
                        lines.fail(unreadable(claim, &error)).await;
                    }
                }
                return Poured::All;
            }
        }
    }
}

/// Waits for news of what is watched; for ever where nothing is.
async fn changed(watching: &mut Option<Watching>) -> bool {
    match watching {
        Some(watching) => watching.changed().await,
        None => std::future::pending().await,
    }
}

impl Source {
    /// The next line, its end included.
    async fn next(&mut self, claim: &ClaimAt) -> Option<io::Result<Bytes>> {
        match self {
            Source::Here(stream) => {
                let chunk = match stream.next().await? {
                    Ok(chunk) => chunk,
                    Err(error) => return Some(Err(error)),
                };
                let (task, data) = (claim.row.task.clone(), STANDARD.encode(&chunk.data));
                let line = LogLine::Output { task, stream: chunk.stream.into(), at: chunk.at, data };
                Some(serde_json::to_vec(&line).map_err(io::Error::other).map(|mut line| {
                    line.push(b'\n');
                    line.into()
                }))
            }
            Source::There(lines) => Some(lines.next().await?.map(|mut line| {
                line.push('\n');
                line.into()
            })),
        }
    }
}
