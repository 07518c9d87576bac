//! One task starts anew. Only its own machine can end it.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{Method, Request};
use axum::response::{IntoResponse, Response};
use rialto_protocol::api::TaskRow;
use rialto_protocol::event;
use rialto_protocol::ids::ClaimId;

use super::Shared;
use super::extract::Segment;
use super::identity::{Identity, Verb};
use super::problem::Problem;
use super::sessions::running;

/// What was written elsewhere is heard of sooner.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// `POST /v1/tasks/{task}/restart`: answers with the row of what ends.
pub async fn restart(api: Shared, who: Identity, Segment(name): Segment) -> Result<Response, Problem> {
    who.may(Verb::Operate)?;
    let claim = running(&api, &name).await?;
    if claim.owner == api.me {
        api.handle.request(event::Request::Restart(claim.claim)).await?;
        let answer: Json<_> = api.answer_with(claim.row).await?;
        return Ok(answer.into_response());
    }
    if matches!(who, Identity::Peer(_)) {
        // A peer asks for what this machine has: never hand a request around.
        return Err(Problem::not_found(format!("the task {name}")).at(&api.machine));
    }
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
    let request = Request::builder().method(Method::POST).uri(format!("/v1/tasks/{}/restart", claim.claim.hex()));
    let request = request.body(Body::empty()).map_err(|error| Problem::invalid(error.to_string()))?;
    let answer = api.peers.call(owner, addresses, request).await;
    let answer = answer.map_err(|error| unreachable(format!(": {error}")))?;
    if answer.status().is_success() {
        // Whoever looks here next is not to see the task as if nothing had been said.
        let _ = tokio::time::timeout(HEARD_WITHIN, ends(&api, claim.claim)).await;
    }
    Ok(answer)
}

/// Comes when this peer has heard that a claim does not run any more.
async fn ends(api: &Shared, claim: ClaimId) {
    let mut changes = api.handle.changes();
    let runs = |row: &TaskRow| row.state == "running";
    loop {
        changes.borrow_and_update();
        let rows = api.handle.read(move |brain, now| brain.view(now).claims(&claim.hex())).await;
        if !rows.is_some_and(|rows| rows.iter().any(|found| runs(&found.row))) || changes.changed().await.is_err() {
            return;
        }
    }
}
