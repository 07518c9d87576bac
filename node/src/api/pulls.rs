//! Images come from registries, and go again.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{Method, Request as HttpRequest};
use axum::response::Response;
use rialto_protocol::api::{Answer, ErrorCode, Freed, FreedRow, LayerRow, PullLine};
use rialto_protocol::event::Request;
use rialto_protocol::ids::PeerId;
use rialto_protocol::view::View;
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::MissedTickBehavior;

use super::apps::is_same_image;
use super::extract::{Options, Segment, switch};
use super::follow::{Lines, stream_of};
use super::forward::encode;
use super::identity::{Identity, Verb};
use super::images::{Given, check_new_name, told_of};
use super::problem::Problem;
use super::{Api, Shared};

/// Between two lines about one layer.
const TELL_EVERY: Duration = Duration::from_millis(100);
/// The most bytes of another machine's answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A machine of the cluster.
struct Machine {
    peer: PeerId,
    name: String,
    addresses: Vec<String>,
}

/// `POST /v1/images/{name}/pull`: brings an image to this machine, and tells how far it is.
pub async fn pull(api: Shared, identity: Identity, Segment(name): Segment) -> Result<Response, Problem> {
    identity.may(Verb::ImportImage)?;
    check_new_name(&name)?;
    let permit = api.follower()?;
    let asked = name.clone();
    let me = api.me;
    let holders = api.handle.read(move |brain, now| holders_of(&brain.view(now), &asked)).await;
    let holders = holders.ok_or_else(Problem::going_down)?;
    let holders = holders.into_iter().map(|machine| machine.peer).filter(|peer| *peer != me).collect();
    let (lines, body) = Lines::open();
    tokio::spawn(tell(api, name, holders, lines, permit));
    Ok(stream_of(body))
}

/// Ends with the pull, or when nobody reads any more: then the pull ends, too, and what has come is kept.
async fn tell(api: Shared, name: String, holders: Vec<PeerId>, lines: Lines, _permit: OwnedSemaphorePermit) {
    let (told, mut heard) = watch::channel(Vec::new());
    let mut pulling = api.images.pull(name, holders, told);
    let mut ticks = tokio::time::interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut seen: Vec<LayerRow> = Vec::new();
    let done = loop {
        tokio::select! {
            done = &mut pulling => break done,
            _ = ticks.tick() => if !tell_layers(&mut heard, &mut seen, &lines).await {
                return;
            },
            () = lines.closed() => return,
            () = api.closing.cancelled() => {
                send(&lines, &PullLine::Failed(Problem::going_down().into_body())).await;
                return;
            }
        }
    };
    drop(pulling);
    tell_layers(&mut heard, &mut seen, &lines).await;
    let last = match done {
        Ok(image) => told_of(&api, image).await,
        Err(error) => Err(error.into()),
    };
    send(&lines, &last.map_or_else(|problem| PullLine::Failed(problem.into_body()), PullLine::Pulled)).await;
}

/// Tells of the layers that have changed.
async fn tell_layers(heard: &mut watch::Receiver<Vec<LayerRow>>, seen: &mut Vec<LayerRow>, lines: &Lines) -> bool {
    let now = heard.borrow_and_update().clone();
    for (number, layer) in now.iter().enumerate() {
        if seen.get(number) != Some(layer) && !send(lines, &PullLine::Layer(layer.clone())).await {
            return false;
        }
    }
    *seen = now;
    true
}

async fn send(lines: &Lines, line: &PullLine) -> bool {
    let Ok(mut bytes) = serde_json::to_vec(line) else { return true };
    bytes.push(b'\n');
    lines.send_raw(bytes.into()).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveOptions {
    /// At this machine only.
    #[serde(default, deserialize_with = "switch")]
    here: bool,
    /// Even if an app wants it.
    #[serde(default, deserialize_with = "switch")]
    force: bool,
}

/// `DELETE /v1/images/{name}`: at every machine that has it.
pub async fn remove(
    api: Shared,
    identity: Identity,
    Segment(name): Segment,
    Options(RemoveOptions { here, force }): Options<RemoveOptions>,
) -> Result<Json<Answer<Freed>>, Problem> {
    identity.may(Verb::Operate)?;
    check_new_name(&name)?;
    if here {
        let row = given(&api, api.images.remove(name).await?).await?;
        return api.answer_with(Freed { machines: vec![row] }).await;
    }
    let asked = name.clone();
    let found = api.handle.read(move |brain, now| {
        let view = brain.view(now);
        (holders_of(&view, &asked), user_of(&view, &asked))
    });
    let (holders, user) = found.await.ok_or_else(Problem::going_down)?;
    if let Some(user) = user.filter(|_| !force) {
        return Err(Problem::new(ErrorCode::Conflict, format!("{user} wants the image {name}"))
            .at("image")
            .hint("remove the app first, or force it"));
    }
    if holders.is_empty() {
        return Err(Problem::not_found(format!("image {name}")).at("image"));
    }
    let path = format!("/v1/images/{}?here=true", encode(&name));
    everywhere(&api, holders, Method::DELETE, &path, || api.images.remove(name.clone())).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CollectOptions {
    #[serde(default, deserialize_with = "switch")]
    here: bool,
    /// Images that no task has used for so long go, too.
    unused_ms: Option<u64>,
}

/// `POST /v1/blobs/gc`: at every machine.
pub async fn collect(
    api: Shared,
    identity: Identity,
    Options(CollectOptions { here, unused_ms }): Options<CollectOptions>,
) -> Result<Json<Answer<Freed>>, Problem> {
    identity.may(Verb::Operate)?;
    let unused_for = unused_ms.map(Duration::from_millis);
    if here {
        let row = given(&api, api.images.collect(unused_for).await?).await?;
        return api.answer_with(Freed { machines: vec![row] }).await;
    }
    let all = api.handle.read(|brain, now| {
        let view = brain.view(now);
        let keeping = view.machines().into_iter().filter(|row| !matches!(row.state.as_str(), "down" | "left"));
        keeping.filter_map(|row| machine(&view, &row.id)).collect::<Vec<_>>()
    });
    let all = all.await.ok_or_else(Problem::going_down)?;
    let unused = unused_ms.map(|ms| format!("&unused_ms={ms}")).unwrap_or_default();
    let path = format!("/v1/blobs/gc?here=true{unused}");
    everywhere(&api, all, Method::POST, &path, || api.images.collect(unused_for)).await
}

/// Does it here, and has the others do it.
async fn everywhere<'a, F>(
    api: &'a Api,
    machines: Vec<Machine>,
    method: Method,
    path: &str,
    own: impl Fn() -> F,
) -> Result<Json<Answer<Freed>>, Problem>
where
    F: Future<Output = Result<Given, super::ImageError>> + 'a,
{
    let mut rows = Vec::with_capacity(machines.len());
    for Machine { peer, name, addresses } in machines {
        let row = if peer == api.me {
            match own().await {
                Ok(freed) => given(api, freed).await,
                Err(error) => Err(error.into()),
            }
        } else {
            ask(api, peer, addresses, method.clone(), path).await
        };
        rows.push(row.unwrap_or_else(|problem| FreedRow {
            machine: name,
            images: Vec::new(),
            bytes: 0,
            error: Some(problem.into_body().message),
        }));
    }
    api.answer_with(Freed { machines: rows }).await
}

async fn ask(api: &Api, peer: PeerId, addresses: Vec<String>, method: Method, path: &str) -> Result<FreedRow, Problem> {
    let failed = |why: String| Problem::new(ErrorCode::Unreachable, why);
    let request = HttpRequest::builder().method(method).uri(path).body(Body::empty());
    let request = request.map_err(|error| failed(error.to_string()))?;
    let response = api.peers.call(peer, addresses, request).await.map_err(|error| failed(error.to_string()))?;
    if !response.status().is_success() {
        return Err(super::forward::refusal(response).await);
    }
    let bytes = axum::body::to_bytes(response.into_body(), ANSWER_BYTES_MAX).await;
    let bytes = bytes.map_err(|error| failed(error.to_string()))?;
    let answer: Answer<Freed> = serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))?;
    answer.data.machines.into_iter().next().ok_or_else(|| failed("it has not said what it gave back".into()))
}

/// Tells the cluster which images are here no more.
async fn given(api: &Api, given: Given) -> Result<FreedRow, Problem> {
    let mut images = Vec::with_capacity(given.images.len());
    for (name, digest) in given.images {
        api.handle
            .request(Request::Image { name: name.clone(), digest, bytes: 0, present: false, brought: false })
            .await?;
        images.push(name);
    }
    Ok(FreedRow { machine: api.machine.clone(), images, bytes: given.bytes, error: None })
}

/// The machines that have the image of this name.
fn holders_of(view: &View<'_>, image: &str) -> Vec<Machine> {
    let rows = view.images().into_iter().filter(|row| row.name == image);
    let mut machines: Vec<Machine> =
        rows.flat_map(|row| row.machines).filter_map(|name| machine(view, &name)).collect();
    machines.sort_by(|one, other| one.name.cmp(&other.name));
    machines.dedup_by_key(|machine| machine.peer);
    machines
}

/// A machine by its name or its id.
fn machine(view: &View<'_>, name: &str) -> Option<Machine> {
    let (peer, row) = view.machine(name)?;
    Some(Machine { peer, name: row.name, addresses: view.addresses(&peer) })
}

/// A service that wants the image: an app's as long as it is deployed, a single run's as long as it runs.
fn user_of(view: &View<'_>, image: &str) -> Option<String> {
    view.apps().into_iter().find_map(|app| {
        let single = app.spec.single_run;
        let name = |service: &str| format!("{}.{service}", app.app);
        let runs = |service: &str| view.claims(&name(service)).iter().any(|claim| claim.row.ended_at.is_none());
        let mut services = app.spec.services.iter();
        let user = services.find(|(service, spec)| {
            is_same_image(&spec.image, image) && if single { runs(service) } else { spec.replicas > 0 }
        });
        user.map(|(service, _)| name(service))
    })
}
