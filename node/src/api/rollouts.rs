//! What becomes of a service that is being changed, and runs that somebody asks for.

use axum::Json;
use rialto_protocol::api::{Answer, Changed, DispatchBody, RolloutBody, Rollouts};
use rialto_protocol::event::Request;
use rialto_protocol::model::OrderWord;
use rialto_protocol::view::View;

use super::Shared;
use super::apps::no_such_app;
use super::check::{check_app_name, check_service_name};
use super::extract::{self, Segment, change_id};
use super::identity::{Identity, Verb};
use super::problem::Problem;

pub async fn list(api: Shared, identity: Identity, Segment(app): Segment) -> Result<Json<Answer<Rollouts>>, Problem> {
    identity.may(Verb::Look)?;
    let found = move |view: View<'_>| {
        view.rollouts(&app).map(|rollouts| Rollouts { rollouts }).ok_or_else(|| no_such_app(&app))
    };
    api.answer(found).await
}

pub async fn order(
    api: Shared,
    identity: Identity,
    Segment(app): Segment,
    extract::Json(body): extract::Json<RolloutBody>,
) -> Result<Json<Answer<Changed>>, Problem> {
    identity.may(Verb::ChangeApps)?;
    check_app_name(&app)?;
    let RolloutBody { change, service, action } = body;
    if let Some(service) = &service {
        check_service_name(service)?;
    }
    let word = match action.as_str() {
        "pause" => OrderWord::Pause,
        "resume" => OrderWord::Resume,
        "promote" => OrderWord::Promote,
        "rollback" => OrderWord::Back,
        _ => return Err(Problem::invalid("an action is pause, resume, promote or rollback").at("action")),
    };
    let change = change_id(&change)?;
    api.change(Request::Rollout { change, author: identity.name(), app, service, word }).await
}

pub async fn run(
    api: Shared,
    identity: Identity,
    Segment(app): Segment,
    extract::Json(body): extract::Json<DispatchBody>,
) -> Result<Json<Answer<Changed>>, Problem> {
    identity.may(Verb::ChangeApps)?;
    check_app_name(&app)?;
    check_service_name(&body.service)?;
    let change = change_id(&body.change)?;
    api.change(Request::Run { change, author: identity.name(), app, service: body.service }).await
}
