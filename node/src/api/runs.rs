//! Single runs: one request deploys, and its answer is everything until the end.

use axum::response::{IntoResponse, Response};
use rialto_protocol::api::{ErrorCode, RunBody};
use rialto_protocol::event::Request;
use rialto_protocol::model::AppSpec;
use serde::Deserialize;
use tokio::sync::oneshot;

use super::apps::never;
use super::check::{check_app_name, check_spec};
use super::extract::{Json, Options, change_id, switch};
use super::follow::{Follow, Lines, follow, stream_of};
use super::identity::{Identity, Verb};
use super::problem::Problem;
use super::progress::Target;
use super::{Api, Shared};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunOptions {
    #[serde(default, deserialize_with = "switch")]
    follow: bool,
}

pub async fn run(
    api: Shared,
    identity: Identity,
    Options(RunOptions { follow: following }): Options<RunOptions>,
    Json(body): Json<RunBody>,
) -> Result<Response, Problem> {
    identity.may(Verb::ChangeApps)?;
    let RunBody { change, app, mut spec } = body;
    check_app_name(&app)?;
    check_spec(&spec)?;
    let change = change_id(&change)?;
    spec.single_run = true;
    for service in spec.services.values_mut() {
        service.replicas = service.replicas.max(1);
    }
    // Watched from before the deploy: what is left of an earlier app of that name is then known for what it is.
    let watching = api.watches.watch(&app).await.ok_or_else(Problem::going_down)?;
    let named = app.clone();
    let sent_before = api.handle.read(move |brain, now| brain.view(now).has_change(&named, &change));
    let sent_before = sent_before.await.ok_or_else(Problem::going_down)?;
    if watching.seen.app.is_some() && !sent_before {
        let problem = Problem::new(ErrorCode::Conflict, format!("there is an app {app} already")).at("app");
        return Err(problem.hint(format!("take another name, or `rialto rm {app}` first")));
    }
    check_placeable(&api, &spec).await?;
    let request = Request::Deploy { change, author: identity.name(), app: app.clone(), spec };
    if !following {
        return Ok(api.change(request).await?.into_response());
    }
    // The following begins before the deploy is acknowledged: the task may be done by then.
    let permit = api.follower()?;
    let (lines, body) = Lines::open();
    let (deployed, told) = oneshot::channel();
    let what = Follow { target: Target::of(&app), tail: None, states: true, deployed: Some(told) };
    tokio::spawn(follow(api.0.clone(), what, watching, lines, permit));
    let _accepted = api.change(request).await?;
    // The follower may have ended with its peer; then its last line says so.
    let _ = deployed.send(());
    Ok(stream_of(body))
}

/// Refuses what could never run on the machines that are known.
async fn check_placeable(api: &Api, spec: &AppSpec) -> Result<(), Problem> {
    let wanted = spec.clone();
    let never = api.handle.read(move |brain, now| never(brain.view(now), &wanted)).await;
    never.ok_or_else(Problem::going_down)?.map_or(Ok(()), Err)
}
