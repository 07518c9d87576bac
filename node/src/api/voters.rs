//! Locks are kept by the peers that vote: what another is asked for about them it asks of one of those.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use rialto_protocol::api::ErrorCode;
use rialto_protocol::ids::PeerId;

use super::Shared;
use super::extract::BODY_BYTES_MAX;
use super::identity::Identity;
use super::problem::Problem;

/// Knows who votes.
pub trait Voters: Send + Sync + 'static {
    /// The voters that can be found; none where none is known.
    fn find(&self) -> BoxFuture<'_, Vec<PeerId>>;
}

/// Lets a request pass where this peer votes, and carries it to one that does otherwise.
pub async fn carry(State(api): State<Shared>, request: Request, next: Next) -> Response {
    if api.locks.as_ref().is_some_and(|locks| locks.told().votes()) {
        return next.run(request).await;
    }
    over(&api, request).await.unwrap_or_else(IntoResponse::into_response)
}

async fn over(api: &Shared, request: Request) -> Result<Response, Problem> {
    if let Some(Identity::Peer(_)) = request.extensions().get::<Identity>() {
        // Never hand a request around: whoever asked knows of others.
        return Err(Problem::new(ErrorCode::Busy, "this peer does not vote on locks").at(&api.machine));
    }
    let (head, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES_MAX).await.map_err(|error| Problem::invalid(error.to_string()).at("body"))?;
    let mut why = "none is known".to_owned();
    for voter in api.voters.find().await.into_iter().filter(|voter| *voter != api.me) {
        let addresses = api.handle.read(move |brain, now| brain.view(now).addresses(&voter));
        let addresses = addresses.await.ok_or_else(Problem::going_down)?;
        let again = Request::builder().method(head.method.clone()).uri(head.uri.clone()).body(Body::from(body.clone()));
        let again = again.map_err(|error| Problem::invalid(error.to_string()))?;
        match api.peers.call(voter, addresses, again).await {
            // It votes no more, or is on its way out.
            Ok(response) if response.status() == StatusCode::TOO_MANY_REQUESTS => {
                why = "the last one has no time".into()
            }
            Ok(response) => return Ok(response),
            Err(error) => why = error.to_string(),
        }
    }
    let message = format!("no voter of the lock group can be reached: {why}");
    Err(Problem::new(ErrorCode::Unreachable, message).hint("'rialto locks status' at other peers says who votes"))
}
