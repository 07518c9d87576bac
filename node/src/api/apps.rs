//! Apps: what people want.

use axum::Json;
use rialto_protocol::api::{
    Answer, App, Apps, Changed, DeployBody, ErrorCode, History, RollbackBody, ScaleBody, Tasks,
};
use rialto_protocol::effect::Reply;
use rialto_protocol::event::Request;
use rialto_protocol::model::AppSpec;
use rialto_protocol::model::app::registry_of;
use rialto_protocol::view::View;
use serde::Deserialize;

use super::check::{check_app_name, check_replicas, check_service_name, check_spec};
use super::extract::{self, Options, Segment, change_id, switch};
use super::identity::{Identity, Verb};
use super::problem::Problem;
use super::progress::{Target, is_finished, is_running};
use super::tasks::{Until, wait as wait_for};
use super::{Api, Shared};

/// The machine's own programs: an image that is everywhere.
const HOST: &str = "host";

pub async fn list(api: Shared, identity: Identity) -> Result<Json<Answer<Apps>>, Problem> {
    identity.may(Verb::Look)?;
    api.answer(|view| Ok(Apps { apps: view.apps() })).await
}

pub async fn one(api: Shared, identity: Identity, Segment(name): Segment) -> Result<Json<Answer<App>>, Problem> {
    identity.may(Verb::Look)?;
    api.answer(move |view| view.app(&name).ok_or_else(|| no_such_app(&name))).await
}

pub async fn deploy(
    api: Shared,
    identity: Identity,
    Segment(app): Segment,
    extract::Json(body): extract::Json<DeployBody>,
) -> Result<Json<Answer<Changed>>, Problem> {
    identity.may(Verb::ChangeApps)?;
    check_app_name(&app)?;
    check_spec(&body.spec)?;
    let DeployBody { change, mut spec, resolve } = body;
    let change = change_id(&change)?;
    if resolve {
        spec = resolved(&api, spec).await?;
    }
    let asked = spec.clone();
    let shown = api.handle.read(move |brain, now| brain.view(now).unallowed_folder(&asked));
    if let Some((service, why)) = shown.await.ok_or_else(Problem::going_down)? {
        let problem = Problem::new(ErrorCode::Unplaceable, why).at(format!("spec.services.{service}.container.mounts"));
        return Err(problem.hint("a machine shows the folders that 'allow' in its rialtod.toml names"));
    }
    api.change(Request::Deploy { change, author: identity.name(), app, spec }).await
}

/// The same with every image's name read as of now.
async fn resolved(api: &Api, mut spec: AppSpec) -> Result<AppSpec, Problem> {
    let read = api.handle.read(move |brain, now| {
        let view = brain.view(now);
        spec.services.values_mut().for_each(|service| service.image_digest = view.image_digest(&service.image));
        spec
    });
    read.await.ok_or_else(Problem::going_down)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeOptions {
    change: Option<String>,
}

pub async fn remove(
    api: Shared,
    identity: Identity,
    Segment(app): Segment,
    Options(options): Options<ChangeOptions>,
) -> Result<Json<Answer<Changed>>, Problem> {
    identity.may(Verb::ChangeApps)?;
    check_app_name(&app)?;
    let change = options.change.ok_or_else(|| {
        Problem::invalid("a removal needs an id, so that sending it twice is harmless")
            .at("change")
            .hint("add ?change= and 32 hexadecimal digits")
    })?;
    api.change(Request::Remove { change: change_id(&change)?, author: identity.name(), app }).await
}

pub async fn scale(
    api: Shared,
    identity: Identity,
    Segment(app): Segment,
    extract::Json(body): extract::Json<ScaleBody>,
) -> Result<Json<Answer<Changed>>, Problem> {
    identity.may(Verb::ChangeApps)?;
    check_app_name(&app)?;
    check_replicas(body.replicas)?;
    if let Some(service) = &body.service {
        check_service_name(service)?;
    }
    let ScaleBody { change, service, replicas } = body;
    let change = change_id(&change)?;
    api.change(Request::Scale { change, author: identity.name(), app, service, replicas }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistoryOptions {
    #[serde(default, deserialize_with = "switch")]
    all: bool,
}

pub async fn history(
    api: Shared,
    identity: Identity,
    Segment(app): Segment,
    Options(HistoryOptions { all }): Options<HistoryOptions>,
) -> Result<Json<Answer<History>>, Problem> {
    identity.may(Verb::Look)?;
    api.answer(move |view| view.history(&app, all).ok_or_else(|| no_such_app(&app))).await
}

pub async fn rollback(
    api: Shared,
    identity: Identity,
    Segment(app): Segment,
    extract::Json(body): extract::Json<RollbackBody>,
) -> Result<Json<Answer<Changed>>, Problem> {
    identity.may(Verb::ChangeApps)?;
    check_app_name(&app)?;
    let RollbackBody { change, to } = body;
    let is_beginning = (4..=32).contains(&to.len()) && to.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_beginning {
        return Err(Problem::invalid("a revision is 4 to 32 hexadecimal digits of its name").at("to"));
    }
    let change = change_id(&change)?;
    api.change(Request::Rollback { change, author: identity.name(), app, to: to.to_ascii_lowercase() }).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitOptions {
    until: Until,
    timeout_ms: Option<u64>,
}

pub async fn wait(
    api: Shared,
    identity: Identity,
    Segment(app): Segment,
    Options(options): Options<WaitOptions>,
) -> Result<Json<Answer<Tasks>>, Problem> {
    identity.may(Verb::Look)?;
    let asked = app.clone();
    let never = api.handle.read(move |brain, now| {
        let view = brain.view(now);
        view.app(&asked).and_then(|app| never(view, &app.spec))
    });
    if let Some(problem) = never.await.ok_or_else(Problem::going_down)? {
        return Err(problem);
    }
    let target = Target::of(&app);
    let found = wait_for(&api, &app, options.timeout_ms, |seen| {
        let Some(app) = &seen.app else { return Some(None) };
        let done = match options.until {
            Until::Running => is_running(&target, app, &seen.rows),
            Until::Finished => is_finished(&target, Some(app), &seen.rows),
        };
        done.then(|| Some(seen.rows.clone()))
    });
    let tasks = found.await?.ok_or_else(|| no_such_app(&app))?;
    api.answer(move |view| Ok(Tasks { tasks, remarks: view.remarks() })).await
}

/// Why an app could never run on the machines that are known, should that be so.
pub fn never(view: View<'_>, spec: &AppSpec) -> Option<Problem> {
    if let Some(short) = view.unplaceable(spec) {
        let problem = Problem::new(ErrorCode::Unplaceable, format!("no machine could ever hold it: {short}"));
        return Some(problem.at("spec").hint("ask for less, or add a machine that has it"));
    }
    let images = view.images();
    // What a registry has is for the machine to find out that runs it.
    let is_there = |image: &str| {
        image == HOST || registry_of(image).is_some() || images.iter().any(|row| is_same_image(&row.name, image))
    };
    let missing = spec.services.iter().find(|(_, service)| !is_there(&service.image));
    missing.map(|(name, service)| {
        Problem::new(ErrorCode::Unplaceable, format!("no machine has the image {}", service.image))
            .at(format!("spec.services.{name}.image"))
            .hint("bring it in with `rialto image import` or `rialto image pull`, or name its registry (HOST/NAME)")
    })
}

/// `web` and `web:latest` are one image.
pub fn is_same_image(one: &str, other: &str) -> bool {
    let (one, other) = (one.strip_suffix(":latest").unwrap_or(one), other.strip_suffix(":latest").unwrap_or(other));
    one == other
}

pub(super) fn no_such_app(name: &str) -> Problem {
    Problem::not_found(format!("app {name}")).at("app")
}

impl Api {
    /// Has the brain change a document.
    pub(super) async fn change(&self, request: Request) -> Result<Json<Answer<Changed>>, Problem> {
        match self.handle.request(request).await? {
            Reply::Changed { app, copies, changed } => {
                self.answer_with(Changed { app: app.name, generation: app.generation, copies, changed }).await
            }
            other => {
                tracing::error!(?other, "the brain answered a change with something else");
                Err(Problem::new(ErrorCode::Internal, "the change was answered with something else"))
            }
        }
    }
}
