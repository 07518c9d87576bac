//! What happened, as this peer saw it.

use std::sync::Arc;

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use rialto_protocol::api::{EventRow, Events as EventRows};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

use super::extract::{Options, switch};
use super::follow::{LINES_MAX, stream_of};
use super::identity::{Identity, Verb};
use super::problem::Problem;
use super::{Api, Shared};

/// The event log, as the API needs it.
pub trait Events: Send + Sync + 'static {
    /// The events with a number above `id` that are still kept, oldest first; the log itself is bounded.
    fn after(&self, id: u64) -> Vec<EventRow>;
    /// Rises with each event.
    fn changes(&self) -> watch::Receiver<u64>;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListOptions {
    #[serde(default, deserialize_with = "switch")]
    follow: bool,
    #[serde(default)]
    after: u64,
}

pub async fn list(
    api: Shared,
    identity: Identity,
    Options(options): Options<ListOptions>,
) -> Result<Response, Problem> {
    identity.may(Verb::Look)?;
    if !options.follow {
        let events = api.events.after(options.after);
        return Ok(api.answer_with(EventRows { events }).await?.into_response());
    }
    let permit = api.follower()?;
    let (sender, lines) = mpsc::channel(LINES_MAX);
    tokio::spawn(follow(api.0.clone(), options.after, sender, permit));
    Ok(stream_of(lines))
}

async fn follow(api: Arc<Api>, mut after: u64, lines: mpsc::Sender<Bytes>, _permit: OwnedSemaphorePermit) {
    let mut changes = api.events.changes();
    loop {
        changes.borrow_and_update();
        for event in api.events.after(after) {
            after = event.id;
            let Ok(mut line) = serde_json::to_vec(&event) else { continue };
            line.push(b'\n');
            if lines.send(line.into()).await.is_err() {
                return;
            }
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = lines.closed() => return,
            () = api.closing.cancelled() => return,
        }
    }
}
