//! Every refusal says, as every answer does, how fresh the view is that it was made from.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Response, header};
use axum::middleware::Next;
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use super::Shared;

/// The most bytes of a refusal.
const REFUSAL_BYTES_MAX: usize = 64 << 10;

/// Adds `as_of` and `members_seen` to refusals, while the brain answers.
pub async fn stamp(State(api): State<Shared>, request: Request, next: Next) -> Response<Body> {
    let response = next.run(request).await;
    let kind = response.headers().get(header::CONTENT_TYPE);
    let is_json = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if response.status().is_success() || !is_json {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let Ok(body) = Limited::new(body, REFUSAL_BYTES_MAX).collect().await else {
        return Response::from_parts(head, Body::empty());
    };
    let bytes = body.to_bytes();
    let seen = api.handle.read(|brain, now| (now.wall, brain.view(now).members_seen())).await;
    let (Ok(Value::Object(mut refusal)), Some((as_of, members_seen))) = (serde_json::from_slice(&bytes), seen) else {
        return Response::from_parts(head, bytes.into());
    };
    refusal.insert("as_of".into(), as_of.into());
    refusal.insert("members_seen".into(), members_seen.into());
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Value::Object(refusal).to_string().into())
}
