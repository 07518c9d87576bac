//! Single runs: one request deploys, and its answer is everything until the end.

use axum::response::{IntoResponse, Response};
use rialto_protocol::api::ErrorCode;
use rialto_protocol::event::Request;
use rialto_protocol::model::AppSpec;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::apps::unplaceable;
use super::check::{check_app_name, check_spec};
use super::extract::{Json, Options, change_id, switch};
use super::follow::{Follow, Lines, follow, stream_of};
use super::identity::{Identity, Verb};
use super::problem::Problem;
use super::progress::Target;
use super::{Api, Shared};

/// `POST /v1/runs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunBody {
    /// The run's name, a DNS label, made by the client.
    pub app: String,
    /// 32 hexadecimal digits, made by the client: sending twice is harmless.
    pub change: String,
    /// One service or more; `single_run` is set here.
    pub spec: AppSpec,
}

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
    let RunBody { app, change, mut spec } = body;
    check_app_name(&app)?;
    check_spec(&spec)?;
    let change = change_id(&change)?;
    spec.single_run = true;
    for service in spec.services.values_mut() {
        service.replicas = service.replicas.max(1);
    }
    check_free(&api, &app, &spec).await?;
    let request = Request::Deploy { change, author: identity.name(), app: app.clone(), spec };
    if !following {
        return Ok(api.change(request).await?.into_response());
    }
    // The following begins before the deploy is acknowledged: the task may be done by then.
    let permit = api.follower()?;
    let (lines, body) = Lines::open();
    let (deployed, told) = oneshot::channel();
    let what = Follow { target: Target::of(&app), tail: None, states: true, deployed: Some(told) };
    tokio::spawn(follow(api.0.clone(), what, lines, permit));
    let _accepted = api.change(request).await?;
    // The follower may have ended with its peer; then its last line says so.
    let _ = deployed.send(());
    Ok(stream_of(body))
}

/// Refuses what no known machine could ever hold, and a name that is another app's.
async fn check_free(api: &Api, app: &str, spec: &AppSpec) -> Result<(), Problem> {
    let (name, wanted) = (app.to_string(), spec.clone());
    let looked = api.handle.read(move |brain, now| {
        let view = brain.view(now);
        let taken = view.app(&name).is_some_and(|there| there.spec != wanted);
        (taken, view.unplaceable(&wanted))
    });
    match looked.await.ok_or_else(Problem::going_down)? {
        (true, _) => Err(Problem::new(ErrorCode::Conflict, format!("there is an app {app} already")).at("app")),
        (false, Some(short)) => Err(unplaceable(&short)),
        (false, None) => Ok(()),
    }
}
