//! Locks and elections: taking a place in a queue and waiting there, looking at queues, and ending whoever holds.

use std::pin::pin;

use axum::Json;
use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, stream};
use rialto_locks::kv::KEY_BYTES_MAX;
use rialto_locks_service::Group;
use rialto_locks_service::queue::{self, Place, Taken};
use rialto_protocol::api::{Answer, ErrorCode, LockLine, LockPlace, LockPlaceBody, LockQueue, LockQueues};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::{Duration, Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::extract::{self, Options, Segment, switch};
use super::follow::{LINES_MAX, stream_of};
use super::identity::{Identity, Verb};
use super::lock_sessions::{group, number, refused};
use super::problem::Problem;

/// Room for the lease's number behind the name.
const NAME_BYTES_MAX: usize = KEY_BYTES_MAX - 17;
/// So many leases are looked at at once.
const LOOKS: usize = 32;
/// A waiting that is longer is one for ever.
const WAIT_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneOptions {
    #[serde(default, deserialize_with = "switch")]
    follow: bool,
}

pub async fn list(api: Shared, identity: Identity) -> Result<Json<Answer<LockQueues>>, Problem> {
    identity.may(Verb::Lock)?;
    let group = group(&api)?;
    group.fresh().await.map_err(refused)?;
    let look = group.look(|replica| {
        let store = replica.store();
        queue::names(store).into_iter().map(|name| (queue::queue(store, &name), name)).collect::<Vec<_>>()
    });
    let found = look.await.map_err(refused)?;
    let queues = stream::iter(found).map(|(taken, name)| timed(group.clone(), name, taken)).buffered(LOOKS).collect();
    api.answer_with(LockQueues { queues: queues.await }).await
}

pub async fn one(
    api: Shared,
    identity: Identity,
    Segment(name): Segment,
    Options(options): Options<OneOptions>,
) -> Result<Response, Problem> {
    identity.may(Verb::Lock)?;
    let group = group(&api)?;
    let name = named(name)?;
    group.fresh().await.map_err(refused)?;
    if !options.follow {
        let asked = name.clone();
        let taken = group.look(move |replica| queue::queue(replica.store(), &asked)).await.map_err(refused)?;
        return Ok(api.answer_with(timed(group, name, taken).await).await?.into_response());
    }
    let permit = api.follower()?;
    let (lines, body) = mpsc::channel(LINES_MAX);
    let closing = api.closing.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = follow(group, name, &lines) => {}
            () = lines.closed() => {}
            () = closing.cancelled() => {}
        }
        drop(permit);
    });
    Ok(stream_of(body))
}

/// Takes a place, and tells how it fares. Whoever goes leaves the queue.
pub async fn wait(
    api: Shared,
    identity: Identity,
    Segment(name): Segment,
    extract::Json(body): extract::Json<LockPlaceBody>,
) -> Result<Response, Problem> {
    identity.may(Verb::Lock)?;
    let group = group(&api)?;
    let (name, lease) = (named(name)?, number(&body.session)?);
    let permit = api.follower()?;
    let place = group.enqueue(&name, lease, body.value.clone().into_bytes()).await.map_err(refused)?;
    let (lines, sent) = mpsc::channel(LINES_MAX);
    let closing = api.closing.clone();
    tokio::spawn(async move {
        tokio::select! {
            line = held(&group, &place, &body, &lines, closing) => drop(send(&lines, &line).await),
            () = lines.closed() => {}
        }
        drop(permit);
    });
    Ok(stream_of(sent))
}

/// Ends the session of whoever holds, or leads; what else hangs on it ends, too.
pub async fn end(api: Shared, identity: Identity, Segment(name): Segment) -> Result<Json<Answer<LockPlace>>, Problem> {
    identity.may(Verb::Lock)?;
    let group = group(&api)?;
    let name = named(name)?;
    let (_, oldest) = group.oldest(&name).await.map_err(refused)?;
    let holder = oldest.ok_or_else(|| Problem::not_found(format!("a holder of {}", String::from_utf8_lossy(&name))))?;
    let taken = Taken { lease: holder.lease, token: holder.create_revision, value: holder.value, ttl_seconds: 0 };
    match holder.lease {
        0 => group.leave(&Place { name, key: holder.key, token: taken.token }).await.map_err(refused)?,
        lease => group.revoke(lease).await.map_err(refused)?,
    }
    api.answer_with(place_of(taken, None)).await
}

fn named(name: String) -> Result<Vec<u8>, Problem> {
    match name.len() {
        1..=NAME_BYTES_MAX => Ok(name.into_bytes()),
        _ => Err(Problem::invalid(format!("a name has 1 to {NAME_BYTES_MAX} bytes")).at("name")),
    }
}

/// Waits in the queue, as long as that may be; the last line.
async fn held(
    group: &Group,
    place: &Place,
    body: &LockPlaceBody,
    lines: &mpsc::Sender<Bytes>,
    closing: CancellationToken,
) -> LockLine {
    let until = body.wait_ms.map(|ms| Instant::now() + Duration::from_millis(ms).min(WAIT_MAX));
    let (tell, mut before) = watch::channel(0);
    let mut waiting = pin!(group.wait_at(place, move |count| {
        tell.send_replace(count as u64);
    }));
    let refusal = loop {
        tokio::select! {
            biased;
            ended = &mut waiting => match ended {
                Ok(_) => {
                    let value = body.value.clone();
                    let (session, token) = (body.session.clone(), place.token);
                    return LockLine::Held(LockPlace { session, token, value, ttl_seconds: 0, left_ms: None });
                }
                Err(refusal) => break refused(refusal),
            },
            Ok(()) = before.changed() => {
                let count = *before.borrow_and_update();
                if body.wait_ms == Some(0) {
                    break taken_by(group, place).await;
                }
                if !send(lines, &LockLine::Waiting(count)).await {
                    break Problem::going_down();
                }
            }
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some_and(|_| body.wait_ms != Some(0)) => {
                break Problem::new(ErrorCode::TimedOut, format!("{} was not had in time", words(&place.name)));
            }
            () = closing.cancelled() => break Problem::going_down(),
        }
    };
    LockLine::Failed(refusal.into_body())
}

/// Why whoever does not wait does not get it.
async fn taken_by(group: &Group, place: &Place) -> Problem {
    let name = place.name.clone();
    let holder = match group.look(move |replica| queue::queue(replica.store(), &name)).await {
        Ok(taken) => taken.into_iter().next().map(|taken| place_of(taken, None)),
        Err(refusal) => return refused(refusal),
    };
    let by = match holder {
        Some(LockPlace { session, value, .. }) if value.is_empty() => format!(" by session {session}"),
        Some(LockPlace { value, .. }) => format!(" by {value}"),
        None => String::new(),
    };
    Problem::new(ErrorCode::Conflict, format!("{} is held{by}", words(&place.name)))
}

fn words(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// Tells of a queue whenever it has changed, as long as this peer votes.
async fn follow(group: Group, name: Vec<u8>, lines: &mpsc::Sender<Bytes>) {
    let (mut revisions, mut told) = (group.revisions(), group.changes());
    let mut last = None;
    loop {
        revisions.borrow_and_update();
        let asked = name.clone();
        let Ok(taken) = group.look(move |replica| queue::queue(replica.store(), &asked)).await else { return };
        if last.as_ref() != Some(&taken) {
            let places = taken.iter().cloned().map(|taken| place_of(taken, None)).collect();
            if !send(lines, &queue_of(&name, places)).await {
                return;
            }
            last = Some(taken);
        }
        tokio::select! {
            changed = revisions.changed() => if changed.is_err() { return },
            votes_no_more = told.wait_for(|told| !told.votes()) => {
                drop(votes_no_more);
                return;
            }
        }
    }
}

async fn send(lines: &mpsc::Sender<Bytes>, line: &impl Serialize) -> bool {
    let Ok(mut bytes) = serde_json::to_vec(line) else { return true };
    bytes.push(b'\n');
    lines.send(bytes.into()).await.is_ok()
}

/// A queue, with what is left of each lease.
async fn timed(group: Group, name: Vec<u8>, taken: Vec<Taken>) -> LockQueue {
    let places = stream::iter(taken).map(|taken| {
        let group = group.clone();
        async move {
            let state = group.look_at_lease(taken.lease).await.ok();
            place_of(taken, state.and_then(|state| u64::try_from(state.left_ms).ok()))
        }
    });
    let places: Vec<LockPlace> = places.buffered(LOOKS).collect().await;
    queue_of(&name, places)
}

fn queue_of(name: &[u8], places: Vec<LockPlace>) -> LockQueue {
    let mut places = places.into_iter();
    LockQueue { name: words(name), holder: places.next(), waiting: places.collect() }
}

fn place_of(taken: Taken, left_ms: Option<u64>) -> LockPlace {
    let Taken { lease, token, value, ttl_seconds } = taken;
    LockPlace { session: format!("{lease:x}"), token, value: words(&value), ttl_seconds, left_ms }
}
