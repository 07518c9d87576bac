//! The cluster and its machines: health, status, draining, invitations.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{Method, Request};
use axum::response::{IntoResponse, Response};
use rialto_protocol::api::{Answer, ErrorCode, InviteBody, Invited, MachineRow, Machines, Status};
use rialto_protocol::event;
use rialto_protocol::ids::InvitationId;
use rialto_protocol::rfc3339::rfc3339;
use serde::{Deserialize, Serialize};

use super::extract::{self, Options, Segment, switch};
use super::identity::{Identity, Verb};
use super::problem::Problem;
use super::{Api, Shared};

/// The longest that an invitation may be good for: a year, in seconds.
const TTL_SECONDS_MAX: u64 = 365 * 86_400;
/// The most newcomers of one invitation.
const USES_MAX: u32 = 10_000;
/// A brain that does not answer for so long is not healthy.
const HEALTHY_WITHIN: Duration = Duration::from_secs(2);

/// An invitation before the brain knows of it.
pub struct Invitation {
    pub id: InvitationId,
    /// What the brain keeps of the secret.
    pub secret_hash: [u8; 32],
    /// `rialto1.…`
    pub token: String,
}

/// Makes invitations: it knows the cluster, this peer's key and its addresses.
pub trait Inviter: Send + Sync + 'static {
    fn draw(&self) -> Invitation;
}

/// `GET /v1/healthz`.
#[derive(Serialize, Deserialize)]
pub struct Health {
    pub status: String,
}

/// `GET /v1/version`.
#[derive(Serialize, Deserialize)]
pub struct Version {
    pub version: String,
    /// The highest version of the protocol between peers.
    pub protocol: u32,
    pub machine: String,
}

/// Answers a machine's drain or undrain.
#[derive(Serialize, Deserialize)]
pub struct Drained {
    pub machine: String,
    pub draining: bool,
}

pub async fn healthz(api: Shared) -> Result<Json<Answer<Health>>, Problem> {
    let answer = api.answer_with(Health { status: "ok".into() });
    let late = |_| Problem::new(ErrorCode::Busy, "the peer does not answer in time");
    let answer = tokio::time::timeout(HEALTHY_WITHIN, answer).await.map_err(late).flatten();
    answer.map_err(|problem| problem.with_status(axum::http::StatusCode::SERVICE_UNAVAILABLE))
}

pub async fn version(api: Shared, identity: Identity) -> Result<Json<Answer<Version>>, Problem> {
    identity.may(Verb::Look)?;
    let version = env!("CARGO_PKG_VERSION").to_string();
    let protocol = rialto_protocol::wire::PROTOCOL;
    api.answer_with(Version { version, protocol, machine: api.machine.clone() }).await
}

pub async fn status(api: Shared, identity: Identity) -> Result<Json<Answer<Status>>, Problem> {
    identity.may(Verb::Look)?;
    let warnings = api.warnings.lock().expect("no holder panics").clone();
    let refused = api.refused.lock().expect("no holder panics").clone();
    let network = api.network.clone();
    api.answer(move |view| {
        let mut status = view.status();
        status.warnings.extend(warnings);
        if let Some(network) = network {
            status.warnings.extend(network.troubles());
            status.links = network.links();
        }
        for (kind, count) in refused {
            *status.refused.entry(kind).or_default() += count;
        }
        Ok(status)
    })
    .await
}

pub async fn list(api: Shared, identity: Identity) -> Result<Json<Answer<Machines>>, Problem> {
    identity.may(Verb::Look)?;
    let me = api.me.hex();
    api.answer(move |view| {
        let mut machines = view.machines();
        for machine in &mut machines {
            machine.this = machine.id == me;
        }
        Ok(Machines { machines })
    })
    .await
}

pub async fn drain(api: Shared, identity: Identity, Segment(machine): Segment) -> Result<Response, Problem> {
    set_draining(&api, identity, machine, true).await
}

pub async fn undrain(api: Shared, identity: Identity, Segment(machine): Segment) -> Result<Response, Problem> {
    set_draining(&api, identity, machine, false).await
}

/// Answers the opening of the storm gate.
#[derive(Serialize, Deserialize)]
pub struct Unfrozen {
    /// Replacements that were held back, as this peer saw it.
    pub released: u32,
}

pub async fn unfreeze(api: Shared, identity: Identity) -> Result<Json<Answer<Unfrozen>>, Problem> {
    identity.may(Verb::Operate)?;
    let held = api.handle.read(|brain, now| brain.view(now).status().holding_back);
    let released = held.await.ok_or_else(Problem::going_down)?;
    api.handle.request(event::Request::Unfreeze).await?;
    api.answer_with(Unfrozen { released }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveOptions {
    #[serde(default, deserialize_with = "switch")]
    force: bool,
    /// For a stolen key: the last number that counts.
    last: Option<u64>,
}

/// Answers the removal of a machine.
#[derive(Serialize, Deserialize)]
pub struct Removed {
    pub machine: String,
    pub id: String,
}

pub async fn remove(
    api: Shared,
    identity: Identity,
    Segment(name): Segment,
    Options(RemoveOptions { force, last }): Options<RemoveOptions>,
) -> Result<Json<Answer<Removed>>, Problem> {
    identity.may(Verb::Operate)?;
    let asked = name.clone();
    let found = api.handle.read(move |brain, now| brain.view(now).machine(&asked));
    let found = found.await.ok_or_else(Problem::going_down)?;
    let (peer, row) = found.ok_or_else(|| Problem::not_found(format!("machine {name}")).at("machine"))?;
    api.handle.request(event::Request::Depart { peer, force, last }).await?;
    api.answer_with(Removed { machine: row.name, id: row.id }).await
}

/// Only the machine itself can say that it drains: its record has one writer.
async fn set_draining(api: &Api, identity: Identity, name: String, on: bool) -> Result<Response, Problem> {
    identity.may(Verb::Operate)?;
    let asked = name.clone();
    let found = api.handle.read(move |brain, now| {
        let view = brain.view(now);
        view.machine(&asked).map(|(peer, row)| (peer, row, view.addresses(&peer)))
    });
    let found = found.await.ok_or_else(Problem::going_down)?;
    let (peer, row, addresses): (_, MachineRow, _) =
        found.ok_or_else(|| Problem::not_found(format!("machine {name}")).at("machine"))?;
    if peer == api.me {
        api.handle.request(event::Request::Drain { on }).await?;
        return Ok(api.answer_with(Drained { machine: row.name, draining: on }).await?.into_response());
    }
    if let Identity::Peer(_) = identity {
        // The asking peer holds a name for this machine's that is another's: never hand a request around.
        return Err(Problem::not_found(format!("machine {name} here")).at("machine"));
    }
    if matches!(row.state.as_str(), "down" | "left") {
        let message = format!("{} is {}: only it can begin or end its drain", row.name, row.state);
        return Err(Problem::unreachable(&row.name, message));
    }
    let verb = if on { "drain" } else { "undrain" };
    let request = Request::builder().method(Method::POST).uri(format!("/v1/machines/{}/{verb}", peer.hex()));
    let request = request.body(Body::empty()).map_err(|error| Problem::invalid(error.to_string()))?;
    let answer = api.peers.call(peer, addresses, request).await;
    answer.map_err(|error| Problem::unreachable(&row.name, format!("{} cannot be reached: {error}", row.name)))
}

pub async fn invite(
    api: Shared,
    identity: Identity,
    extract::Json(body): extract::Json<InviteBody>,
) -> Result<Json<Answer<Invited>>, Problem> {
    identity.may(Verb::Invite)?;
    let InviteBody { ttl_seconds, uses } = body;
    if !(1..=TTL_SECONDS_MAX).contains(&ttl_seconds) {
        return Err(Problem::invalid("an invitation is good for a second to a year").at("ttl_seconds"));
    }
    if !(1..=USES_MAX).contains(&uses) {
        return Err(Problem::invalid(format!("an invitation is for 1 to {USES_MAX} newcomers")).at("uses"));
    }
    let Invitation { id, secret_hash, token } = api.inviter.draw();
    let request = event::Request::Invite { invitation: id, secret_hash, uses, ttl_ms: ttl_seconds * 1000 };
    api.handle.request(request).await?;
    let mut answer = api.answer_with(Invited { token, expires_at: String::new(), uses }).await?;
    answer.0.data.expires_at = rfc3339(answer.0.as_of + ttl_seconds * 1000);
    Ok(answer)
}
