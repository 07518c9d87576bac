//! What happened to an app, as all peers saw it: a list, lines, or server-sent events (WHATWG HTML, section 9.2), which a
//! client resumes by the id of the last one it has.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use rialto_protocol::api::{AppEvent, AppEvents};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use super::apps::no_such_app;
use super::check::check_app_name;
use super::extract::{Options, Segment, switch};
use super::follow::{LINES_MAX, stream_of};
use super::identity::{Identity, Verb};
use super::problem::Problem;
use super::watch::Watching;
use super::{Api, Shared};

const SSE: &str = "text/event-stream";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListOptions {
    #[serde(default, deserialize_with = "switch")]
    follow: bool,
    after: Option<String>,
}

pub async fn list(
    api: Shared,
    identity: Identity,
    Segment(app): Segment,
    Options(options): Options<ListOptions>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    identity.may(Verb::Look)?;
    check_app_name(&app)?;
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let sse = header(header::ACCEPT.as_str()).is_some_and(|kinds| kinds.contains(SSE));
    let after = header("last-event-id").map(str::to_string).or(options.after);
    if !options.follow && !sse {
        let found = move |view: rialto_protocol::view::View<'_>| {
            let events = view.events(&app, after.as_deref());
            if events.is_empty() && view.app(&app).is_none() {
                return Err(no_such_app(&app));
            }
            Ok(AppEvents { events })
        };
        return Ok(api.answer(found).await?.into_response());
    }
    let permit = api.follower()?;
    let watching = api.watches.watch(&app).await.ok_or_else(Problem::going_down)?;
    let (sender, lines) = mpsc::channel(LINES_MAX);
    tokio::spawn(follow(api.0.clone(), app, after, watching, sse, sender, permit));
    if !sse {
        return Ok(stream_of(lines));
    }
    let body = Body::from_stream(ReceiverStream::new(lines).map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, SSE), (header::CACHE_CONTROL, "no-store")], body).into_response())
}

/// Tells everything behind `after`, and what comes to be known later, each once.
async fn follow(
    api: Arc<Api>,
    app: String,
    after: Option<String>,
    mut watching: Watching,
    sse: bool,
    lines: mpsc::Sender<Bytes>,
    _permit: OwnedSemaphorePermit,
) {
    let mut told: BTreeSet<String> = BTreeSet::new();
    loop {
        let (name, behind) = (app.clone(), after.clone());
        let read = api.handle.read(move |brain, now| brain.view(now).events(&name, behind.as_deref())).await;
        let Some(events) = read else { return };
        // The log is bounded, and so is what of it was told.
        told.retain(|id| events.iter().any(|event| event.id == *id));
        for event in events.into_iter().filter(|event| !told.contains(&event.id)).collect::<Vec<_>>() {
            let Some(line) = line(&event, sse) else { continue };
            if lines.send(line).await.is_err() {
                return;
            }
            told.insert(event.id);
        }
        tokio::select! {
            changed = watching.changed() => if !changed { return },
            () = lines.closed() => return,
            () = api.closing.cancelled() => return,
        }
    }
}

fn line(event: &AppEvent, sse: bool) -> Option<Bytes> {
    let json = serde_json::to_string(event).ok()?;
    Some(match sse {
        true => format!("id: {}\nevent: {}\ndata: {json}\n\n", event.id, event.what).into(),
        false => format!("{json}\n").into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line_or_a_block_with_its_id() {
        let event = AppEvent {
            id: "1-a-2".into(),
            at: "2026-01-01T00:00:00.000Z".into(),
            machine: "m1".into(),
            what: "rollout".into(),
            subject: "shop.web".into(),
            text: "two\nlines".into(),
        };
        let text = |sse| String::from_utf8(line(&event, sse).unwrap().to_vec()).unwrap();
        assert!(text(true).starts_with("id: 1-a-2\nevent: rollout\ndata: {"));
        assert_eq!((text(true).lines().count(), text(false).lines().count()), (4, 1));
    }
}
