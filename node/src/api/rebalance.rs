//! Evening out what runs, on request.

use axum::Json;
use rialto_protocol::api::{Answer, Rebalance};
use rialto_protocol::event;

use super::Shared;
use super::identity::{Identity, Verb};
use super::problem::Problem;

/// What would be moved, and what that would come to.
pub async fn plan(api: Shared, identity: Identity) -> Result<Json<Answer<Rebalance>>, Problem> {
    identity.may(Verb::Look)?;
    api.answer(|view| Ok(view.rebalance().0)).await
}

/// Has it moved: the apps' stewards move one task of each at a time.
pub async fn begin(api: Shared, identity: Identity) -> Result<Json<Answer<Rebalance>>, Problem> {
    identity.may(Verb::ChangeApps)?;
    let planned = api.handle.read(|brain, now| brain.view(now).rebalance());
    let (mut told, orders) = planned.await.ok_or_else(Problem::going_down)?;
    if !orders.is_empty() {
        api.handle.request(event::Request::Relocate(orders)).await?;
        told.begun = true;
    }
    api.answer_with(told).await
}
