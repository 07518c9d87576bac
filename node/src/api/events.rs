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

/// A wall-clock time in ms as RFC 3339 in UTC. The calendar is Howard Hinnant's `civil_from_days`.
pub fn rfc3339(wall_ms: u64) -> String {
    let (days, ms) = (wall_ms / 86_400_000, wall_ms % 86_400_000);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        let cases = [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ];
        for (ms, text) in cases {
            assert_eq!(rfc3339(ms), text);
        }
    }
}
