//! Volumes: listed from any peer, and made, measured, removed and copied by the machine that holds them.

use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper_util::rt::TokioIo;
use rialto_protocol::api::{Answer, ErrorCode, VolumeBody, VolumeRow, Volumes};
use rialto_protocol::effect::Reply;
use rialto_protocol::event;
use rialto_protocol::explain::{NoVolume, VolumeAt};
use rialto_protocol::ids::{PeerId, VolumeId};
use rialto_protocol::session::UPGRADE;
use serde::Deserialize;
use tokio::io::copy_bidirectional;

use super::extract::{self, Options, Segment, switch};
use super::forward::{Duplex, refusal};
use super::identity::{Identity, Verb};
use super::problem::Problem;
use super::{Api, Shared};

/// Which volume of a name is meant, and how sure somebody is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Which {
    /// The machine that has it, by name or id; the one that holds it where none is named. Of two on one machine the one
    /// that was given up is meant.
    machine: Option<String>,
    #[serde(deserialize_with = "switch")]
    force: bool,
}

pub async fn list(api: Shared, who: Identity) -> Result<Json<Answer<Volumes>>, Problem> {
    who.may(Verb::Look)?;
    api.answer(|view| Ok(Volumes { volumes: view.volumes() })).await
}

/// One volume; what it takes its machine alone can tell, and is left out where that is not reached.
pub async fn one(
    api: Shared,
    who: Identity,
    Segment(name): Segment,
    Options(which): Options<Which>,
) -> Result<Response, Problem> {
    who.may(Verb::Look).or_else(|_| who.may(Verb::Operate))?;
    let at = find(&api, &name, which.machine.as_deref()).await?;
    if at.owner != api.me && at.reachable && !matches!(who, Identity::Peer(_)) {
        let path = format!("/v1/volumes/{}?machine={}", at.volume.id.hex(), at.owner.hex());
        if let Ok(response) = ask(&api, &at, Method::GET, path).await
            && response.status().is_success()
        {
            return Ok(response);
        }
    }
    let id = at.volume.id.hex();
    let rows = api.handle.read(move |brain, now| brain.view(now).volumes());
    let rows = rows.await.ok_or_else(Problem::going_down)?;
    let row = rows.into_iter().find(|row| row.id == id);
    let mut row: VolumeRow = row.ok_or_else(|| Problem::not_found(format!("volume {name}")))?;
    if at.owner == api.me
        && let Ok((bytes, files, path)) = api.containers.measure_volume(at.volume.id).await
    {
        (row.bytes, row.files, row.path) = (Some(bytes), Some(files), Some(path.display().to_string()));
    }
    Ok(api.answer_with(row).await?.into_response())
}

/// Makes a volume on this machine, or on the one that is named.
pub async fn make(
    api: Shared,
    who: Identity,
    extract::Json(VolumeBody { name, machine }): extract::Json<VolumeBody>,
) -> Result<Response, Problem> {
    who.may(Verb::Operate)?;
    let asked = machine.clone().unwrap_or_else(|| api.me.hex());
    let found = api.handle.read(move |brain, now| brain.view(now).machine(&asked));
    let found = found.await.ok_or_else(Problem::going_down)?;
    let missing = || Problem::not_found(format!("machine {}", machine.unwrap_or_default())).at("machine");
    let (peer, row) = found.ok_or_else(missing)?;
    if peer == api.me {
        return match api.handle.request(event::Request::VolumeMake { name: name.clone() }).await? {
            Reply::Volume(volume) => row_of(&api, &volume.id).await,
            _ => Err(Problem::new(ErrorCode::Internal, "the brain answered with something else than a volume")),
        };
    }
    never_around(&api, who, &name)?;
    let body = VolumeBody { name, machine: Some(peer.hex()) };
    let bytes = serde_json::to_vec(&body).map_err(|error| Problem::invalid(error.to_string()))?;
    let request = Request::builder().method(Method::POST).uri("/v1/volumes").body(Body::from(bytes));
    send(&api, peer, &row.name, request.map_err(|error| Problem::invalid(error.to_string()))?).await
}

async fn row_of(api: &Api, id: &VolumeId) -> Result<Response, Problem> {
    let id = id.hex();
    let row = move |rows: Vec<VolumeRow>| rows.into_iter().find(|row| row.id == id);
    let missing = || Problem::not_found("the volume");
    let answer = api.answer(move |view| row(view.volumes()).ok_or_else(missing)).await?;
    Ok(answer.into_response())
}

/// Removes a volume that nothing uses, and its data with it.
pub async fn remove(
    api: Shared,
    who: Identity,
    Segment(name): Segment,
    Options(which): Options<Which>,
) -> Result<Response, Problem> {
    who.may(Verb::Operate)?;
    let at = find(&api, &name, which.machine.as_deref()).await?;
    if at.owner != api.me {
        never_around(&api, who, &name)?;
        if !at.reachable {
            let message = format!("volume {name} is on {}, which is down", at.machine);
            let way_out = match at.counts {
                true => format!("'rialto volume release {name}' gives it up"),
                false => "it can be deleted when the machine is back".into(),
            };
            return Err(Problem::unreachable(&at.machine, message).hint(way_out));
        }
        let force = if which.force { "&force=true" } else { "" };
        let path = format!("/v1/volumes/{}?machine={}{force}", at.volume.id.hex(), at.owner.hex());
        return ask(&api, &at, Method::DELETE, path).await;
    }
    let id = at.volume.id;
    let row = row_of(&api, &id).await?;
    let wrong = |error| Problem::new(ErrorCode::Internal, format!("its data cannot be deleted: {error}"));
    // Between the record and the data this life may end: the next one finds the mark.
    api.containers.mark_volume(id, true).await.map_err(wrong)?;
    if let Err(refused) = api.handle.request(event::Request::VolumeRemove { id, force: which.force }).await {
        api.containers.mark_volume(id, false).await.map_err(wrong)?;
        return Err(refused.into());
    }
    api.containers.remove_volume(id).await.map_err(wrong)?;
    Ok(row)
}

/// Gives up a volume whose machine is down.
pub async fn release(api: Shared, who: Identity, Segment(name): Segment) -> Result<Response, Problem> {
    who.may(Verb::Operate)?;
    let at = find(&api, &name, None).await?;
    api.handle.request(event::Request::VolumeRelease { name: at.volume.name }).await?;
    row_of(&api, &at.volume.id).await
}

/// Upgrades the connection to a session with the volume: an archive out of it, or into it.
pub async fn copy(
    api: Shared,
    who: Identity,
    Segment(name): Segment,
    Options(which): Options<Which>,
    request: Request,
) -> Result<Response, Problem> {
    who.may(Verb::Enter)?;
    let asked = request.headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
    if !asked.is_some_and(|protocol| protocol.eq_ignore_ascii_case(UPGRADE)) {
        let problem = Problem::invalid(format!("this needs a connection that upgrades to {UPGRADE}"));
        return Err(problem.at("upgrade").with_status(StatusCode::UPGRADE_REQUIRED));
    }
    let permit = api.follower()?;
    let at = find(&api, &name, which.machine.as_deref()).await?;
    let mut there = match at.owner == api.me {
        true => here(&api, &at).await?,
        false => {
            never_around(&api, who, &name)?;
            over(&api, &at).await?
        }
    };
    let closing = api.closing.clone();
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(request).await else { return };
        let mut client = TokioIo::new(upgraded);
        tokio::select! {
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

/// Whether it may be written decides the process that has it.
async fn here(api: &Api, at: &VolumeAt) -> Result<Box<dyn Duplex>, Problem> {
    let id = at.volume.id;
    let user = api.handle.read(move |brain, now| brain.view(now).volume_user(&id));
    let user = user.await.ok_or_else(Problem::going_down)?;
    let opened = api.containers.copy_volume(&at.volume, user).await;
    opened.map_err(|error| Problem::new(ErrorCode::Internal, format!("the volume cannot be opened: {error}")))
}

async fn over(api: &Api, at: &VolumeAt) -> Result<Box<dyn Duplex>, Problem> {
    let path = format!("/v1/volumes/{}/copy?machine={}", at.volume.id.hex(), at.owner.hex());
    let request = Request::get(path)
        .header(header::CONNECTION, "upgrade")
        .header(header::UPGRADE, UPGRADE)
        .body(Body::empty())
        .map_err(|error| Problem::invalid(error.to_string()))?;
    let response = send(api, at.owner, &at.machine, request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(response).await);
    }
    let broke = |error| Problem::unreachable(&at.machine, format!("{} cannot be reached: {error}", at.machine));
    Ok(Box::new(TokioIo::new(hyper::upgrade::on(response).await.map_err(broke)?)))
}

/// The volume that is meant: by its name, or by its id.
async fn find(api: &Api, name: &str, machine: Option<&str>) -> Result<VolumeAt, Problem> {
    let (asked, machine) = (name.to_string(), machine.map(str::to_string));
    let found = api.handle.read(move |brain, now| {
        let view = brain.view(now);
        let peer = match &machine {
            Some(name) => Some(view.machine(name).ok_or_else(|| Problem::not_found(format!("machine {name}")))?.0),
            None => None,
        };
        view.volume(&asked, peer.as_ref()).map_err(Problem::from)
    });
    found.await.ok_or_else(Problem::going_down)?
}

impl From<NoVolume> for Problem {
    fn from(none: NoVolume) -> Self {
        let (message, way_out) = (none.to_string(), none.way_out());
        let problem = match none {
            NoVolume::Several { .. } => Problem::new(ErrorCode::Conflict, message),
            NoVolume::Missing(name) => Problem::not_found(format!("volume {name}")),
            NoVolume::GivenUp { .. } => Problem::new(ErrorCode::NotFound, message),
        };
        problem.at("volume").hint(way_out)
    }
}

/// A peer asks for what this machine has: a request is never handed around.
fn never_around(api: &Api, who: Identity, name: &str) -> Result<(), Problem> {
    match who {
        Identity::Peer(_) => Err(Problem::not_found(format!("volume {name} here")).at(&api.machine)),
        _ => Ok(()),
    }
}

async fn ask(api: &Api, at: &VolumeAt, method: Method, path: String) -> Result<Response, Problem> {
    let request = Request::builder().method(method).uri(path).body(Body::empty());
    send(api, at.owner, &at.machine, request.map_err(|error| Problem::invalid(error.to_string()))?).await
}

async fn send(api: &Api, peer: PeerId, machine: &str, request: Request) -> Result<Response, Problem> {
    let addresses = api.handle.read(move |brain, now| brain.view(now).addresses(&peer));
    let addresses = addresses.await.ok_or_else(Problem::going_down)?;
    let answer = api.peers.call(peer, addresses, request).await;
    answer.map_err(|error| Problem::unreachable(machine, format!("{machine} cannot be reached: {error}")))
}
