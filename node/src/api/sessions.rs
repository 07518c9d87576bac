//! Sessions with containers: commands, copies, and the task's own streams. The request asks to
//! upgrade the connection; from then on it carries frames ([`rialto_protocol::session`]) between the
//! client and a process on the task's machine, over the mesh where that is another one.

use std::io;
use std::path::PathBuf;

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use rialto_protocol::api::ErrorCode;
use rialto_protocol::ids::{ClaimId, VolumeId};
use rialto_protocol::model::Volume;
use rialto_protocol::session::UPGRADE;
use rialto_protocol::view::ClaimAt;
use tokio::io::copy_bidirectional;

use super::extract::Segment;
use super::forward::{Duplex, refusal};
use super::identity::{Identity, Verb};
use super::problem::Problem;
use super::progress::has_ended;
use super::{Api, Shared};
use crate::executor::Usage;

/// The machine's own containers, as the API needs them.
pub trait Containers: Send + Sync + 'static {
    /// A connection to a process that serves one session in a container.
    fn enter(&self, claim: ClaimId) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>>;
    /// A connection to the streams of the container's first process.
    fn attach(&self, claim: ClaimId) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>>;
    /// A connection to a process that serves one copy out of a volume of this machine, or into it; `user`: the task that
    /// has it.
    fn copy_volume(&self, volume: &Volume, user: Option<String>) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>>;
    /// Writes down that a volume is about to be deleted, or that it stays.
    fn mark_volume(&self, id: VolumeId, leaving: bool) -> BoxFuture<'_, io::Result<()>>;
    /// Deletes the data of a volume that is no more.
    fn remove_volume(&self, id: VolumeId) -> BoxFuture<'_, io::Result<()>>;
    /// The bytes of a volume, how many files it has, and where it lies.
    fn measure_volume(&self, id: VolumeId) -> BoxFuture<'_, io::Result<(u64, u64, PathBuf)>>;
    /// What the running tasks of this machine use.
    fn usage(&self) -> BoxFuture<'_, Vec<Usage>>;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Exec,
    Copy,
    Attach,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Exec => "exec",
            Kind::Copy => "copy",
            Kind::Attach => "attach",
        }
    }
}

pub async fn exec(api: Shared, who: Identity, task: Segment, request: Request) -> Result<Response, Problem> {
    open(&api, who, task.0, Kind::Exec, request).await
}

pub async fn copy(api: Shared, who: Identity, task: Segment, request: Request) -> Result<Response, Problem> {
    open(&api, who, task.0, Kind::Copy, request).await
}

pub async fn attach(api: Shared, who: Identity, task: Segment, request: Request) -> Result<Response, Problem> {
    open(&api, who, task.0, Kind::Attach, request).await
}

async fn open(api: &Shared, who: Identity, name: String, kind: Kind, request: Request) -> Result<Response, Problem> {
    who.may(Verb::Enter)?;
    let asked = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if !asked.is_some_and(|protocol| protocol.eq_ignore_ascii_case(UPGRADE)) {
        let problem = Problem::invalid(format!("this needs a connection that upgrades to {UPGRADE}"));
        return Err(problem.at("upgrade").with_status(StatusCode::UPGRADE_REQUIRED));
    }
    let permit = api.follower()?;
    let claim = running(api, &name).await?;
    if matches!(who, Identity::Peer(_)) && claim.owner != api.me {
        // A peer asks for what this machine has: never hand a request around.
        return Err(Problem::not_found(format!("the task {name}")).at(&api.machine));
    }
    let mut there = match claim.owner == api.me {
        true => here(api, &claim, kind).await?,
        false => over(api, &claim, kind).await?,
    };
    let closing = api.closing.clone();
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let mut client = TokioIo::new(upgraded);
        tokio::select! {
            // An end that breaks off ends the other; what is lost with it both know of.
            _ = copy_bidirectional(&mut client, &mut there) => {}
            () = closing.cancelled() => {}
        }
        drop(permit);
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(UPGRADE));
    Ok(response)
}

/// The one running task that a name means: a task, a claim, or a service or app that has only one.
pub(super) async fn running(api: &Api, name: &str) -> Result<ClaimAt, Problem> {
    let asked = name.to_string();
    let claims = api.handle.read(move |brain, now| brain.view(now).claims(&asked));
    let claims = claims.await.ok_or_else(Problem::going_down)?;
    let Some(newest) = claims.first() else {
        let hint = "a task is APP.SERVICE.SLOT; 'rialto ps' lists them";
        return Err(Problem::not_found(format!("task {name}")).at("task").hint(hint));
    };
    let mut live: Vec<&ClaimAt> = claims.iter().filter(|claim| claim.row.state == "running").collect();
    // What a partition has doubled is one task, and what is heard of it is meant.
    live.sort_by_key(|claim| (!claim.reachable, claim.row.task.clone()));
    match live[..] {
        [] => {
            let row = &newest.row;
            let state = if has_ended(row) { "has ended" } else { "has not started yet" };
            let message = format!("{} {state}: it is {}", row.task, row.state);
            Err(Problem::new(ErrorCode::Conflict, message).at("task"))
        }
        [claim, ..] if live.iter().all(|other| other.row.task == claim.row.task) => Ok(claim.clone()),
        _ => {
            let names: Vec<&str> = live.iter().take(5).map(|claim| claim.row.task.as_str()).collect();
            let message = format!("{name} has {} tasks: name one, as {}", live.len(), names.join(", "));
            Err(Problem::invalid(message).at("task"))
        }
    }
}

async fn here(api: &Api, claim: &ClaimAt, kind: Kind) -> Result<Box<dyn Duplex>, Problem> {
    let opened = match kind {
        Kind::Exec | Kind::Copy => api.containers.enter(claim.claim).await,
        Kind::Attach => api.containers.attach(claim.claim).await,
    };
    opened.map_err(|error| {
        let message = format!("{}: {error}", claim.row.task);
        let code = match error.kind() {
            io::ErrorKind::NotFound => ErrorCode::NotFound,
            io::ErrorKind::NotConnected => ErrorCode::Conflict,
            io::ErrorKind::Unsupported => ErrorCode::NotSupported,
            _ => ErrorCode::Internal,
        };
        Problem::new(code, message).at(&api.machine)
    })
}

async fn over(api: &Api, claim: &ClaimAt, kind: Kind) -> Result<Box<dyn Duplex>, Problem> {
    let unreachable = |why: String| {
        let (task, machine) = (&claim.row.task, &claim.owner_name);
        Problem::unreachable(machine, format!("{task} is on {machine}, which cannot be reached{why}"))
    };
    if !claim.reachable {
        return Err(unreachable(String::new()));
    }
    let owner = claim.owner;
    let addresses = api.handle.read(move |brain, now| brain.view(now).addresses(&owner));
    let addresses = addresses.await.ok_or_else(Problem::going_down)?;
    let request = Request::get(format!("/v1/tasks/{}/{}", claim.claim.hex(), kind.word()))
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, UPGRADE)
        .body(Body::empty())
        .map_err(|error| Problem::invalid(error.to_string()))?;
    let response =
        api.peers.call(owner, addresses, request).await.map_err(|error| unreachable(format!(": {error}")))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(response).await);
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| unreachable(format!(": {error}")))?;
    Ok(Box::new(TokioIo::new(upgraded)))
}
