//! Why tasks wait, and the ledger whole for whoever wants to know what would happen.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, Request, header};
use axum::response::{IntoResponse, Response};
use rialto_protocol::api::{Answer, ErrorCode, Explanation};
use rialto_protocol::explain::{ExplainError, Subject};

use super::extract::Segment;
use super::forward::{encode, refusal};
use super::identity::{Identity, Verb};
use super::problem::Problem;
use super::{Api, Shared};

/// What a snapshot of a ledger is sent as: CBOR (RFC 8949).
const CBOR: HeaderValue = HeaderValue::from_static("application/cbor");

pub async fn explain(api: Shared, identity: Identity, Segment(name): Segment) -> Result<Response, Problem> {
    identity.may(Verb::Explain)?;
    let subject = Subject::of(&name);
    let asked = subject.clone();
    let steward = api.handle.read(move |brain, now| {
        let view = brain.view(now);
        view.steward(&asked.app).map(|peer| (peer, view.addresses(&peer), view.name_of(&peer)))
    });
    let steward = steward.await.ok_or_else(Problem::going_down)?;
    // What a peer asks is answered here: two peers that disagree must not hand it around.
    let other = steward.filter(|(peer, ..)| *peer != api.me && !matches!(identity, Identity::Peer(_)));
    let Some((peer, addresses, steward)) = other else {
        return Ok(told_here(&api, subject, None).await?.into_response());
    };
    let request = Request::get(format!("/v1/explain/{}", encode(&name))).body(Body::empty());
    let request = request.map_err(|error| Problem::invalid(error.to_string()))?;
    let why = match api.peers.call(peer, addresses, request).await {
        Ok(response) if response.status().is_success() => return Ok(response),
        Ok(response) => refusal(response).await.body().message.clone(),
        Err(error) => error.to_string(),
    };
    let remark = format!(
        "{steward}, which looks after {}, cannot be asked ({why}): this is what {} knows from the ledger",
        subject.app, api.machine
    );
    Ok(told_here(&api, subject, Some(remark)).await?.into_response())
}

async fn told_here(api: &Api, subject: Subject, remark: Option<String>) -> Result<Json<Answer<Explanation>>, Problem> {
    api.answer(move |view| {
        let mut told = view.explain(&subject).map_err(|error| {
            let place = match &error {
                ExplainError::NoApp(_) => "app",
                ExplainError::NoService { .. } => "service",
                ExplainError::NoTask { .. } => "task",
            };
            Problem::new(ErrorCode::NotFound, error.to_string()).at(place)
        })?;
        told.remarks.extend(remark);
        Ok(told)
    })
    .await
}

pub async fn ledger(api: Shared, identity: Identity) -> Result<Response, Problem> {
    identity.may(Verb::ReadLedger)?;
    let snapshot = api.handle.read(|brain, now| brain.view(now).snapshot());
    let snapshot = snapshot.await.ok_or_else(Problem::going_down)?;
    // Records are shared with the brain; only here, off its thread, they become bytes.
    let bytes = tokio::task::spawn_blocking(move || snapshot.to_bytes()).await;
    let bytes = bytes.map_err(|error| Problem::new(ErrorCode::Internal, error.to_string()))?;
    let mut response = Response::new(Body::from(bytes));
    response.headers_mut().insert(header::CONTENT_TYPE, CBOR);
    Ok(response)
}
