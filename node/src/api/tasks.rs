//! What runs, what waits, and waiting for it.

use std::time::Duration;

use axum::Json;
use rialto_protocol::api::{Answer, ErrorCode, TaskRow, Tasks};
use rialto_protocol::view::TaskFilter;
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::extract::{Options, Segment, switch};
use super::identity::{Identity, Verb};
use super::problem::Problem;
use super::progress::{Target, is_final, present};
use super::watch::Seen;
use super::{Api, Shared};

/// How long a wait lasts when it does not say.
const WAIT_MS: u64 = 60_000;
/// The longest wait of one request.
const WAIT_MS_MAX: u64 = 600_000;

/// What a request may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Until {
    Running,
    Finished,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListOptions {
    app: Option<String>,
    service: Option<String>,
    #[serde(default, deserialize_with = "switch")]
    all: bool,
}

pub async fn list(
    api: Shared,
    identity: Identity,
    Options(options): Options<ListOptions>,
) -> Result<Json<Answer<Tasks>>, Problem> {
    identity.may(Verb::Look)?;
    if options.service.is_some() && options.app.is_none() {
        return Err(Problem::invalid("`service` needs an `app`").at("query"));
    }
    let ListOptions { app, service, all } = options;
    api.answer(move |view| {
        let remarks = view.remarks();
        Ok(Tasks { tasks: view.tasks(&TaskFilter { app, service, slot: None, all }), remarks })
    })
    .await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitOptions {
    wait: Option<Until>,
    timeout_ms: Option<u64>,
}

pub async fn one(
    api: Shared,
    identity: Identity,
    Segment(name): Segment,
    Options(options): Options<WaitOptions>,
) -> Result<Json<Answer<TaskRow>>, Problem> {
    identity.may(Verb::Look)?;
    let target = Target::of(&name);
    let Target::Tasks { slot: Some(_), .. } = target else {
        return Err(Problem::invalid(format!("`{name}` is no task")).at("task").hint("a task is app.service.slot"));
    };
    let row_of = |seen: &Seen| present(seen.rows.iter().filter(|row| target.means(row))).into_values().next().cloned();
    let row = match options.wait {
        None => row_of(&api.watches.watch(target.app()).await.ok_or_else(Problem::going_down)?.seen),
        Some(until) => {
            wait(&api, target.app(), options.timeout_ms, |seen| match row_of(seen) {
                None => Some(None),
                Some(row) => {
                    let done = is_final(&row, seen.app.as_ref()) || until == Until::Running && row.state == "running";
                    done.then_some(Some(row))
                }
            })
            .await?
        }
    };
    let row = row.ok_or_else(|| Problem::not_found(format!("task {name}")).at("task"))?;
    api.answer_with(row).await
}

/// Waits until `look` finds what it wants in an app, asked again whenever the app shows something else.
pub async fn wait<T>(
    api: &Api,
    app: &str,
    timeout_ms: Option<u64>,
    mut look: impl FnMut(&Seen) -> Option<T>,
) -> Result<T, Problem> {
    let _follower = api.follower()?;
    let deadline = Instant::now() + Duration::from_millis(timeout_ms.unwrap_or(WAIT_MS).min(WAIT_MS_MAX));
    let mut watching = api.watches.watch(app).await.ok_or_else(Problem::going_down)?;
    loop {
        if let Some(found) = look(&watching.seen) {
            return Ok(found);
        }
        tokio::select! {
            changed = timeout_at(deadline, watching.changed()) => match changed {
                Ok(true) => {}
                Ok(false) => return Err(Problem::going_down()),
                Err(_) => return Err(Problem::new(ErrorCode::TimedOut, "it has not come to that yet").at(app)),
            },
            () = api.closing.cancelled() => return Err(Problem::going_down()),
        }
    }
}
