//! Secrets: set, listed and removed, and never shown.

use axum::Json;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::future::BoxFuture;
use rialto_protocol::api::{Answer, SecretBody, SecretSet, Secrets};
use rialto_protocol::effect::Refusal;
use rialto_protocol::model::volume::{SECRET_BYTES_MAX, whole_name_fault};

use super::Shared;
use super::extract::{self, Segment};
use super::identity::{Identity, Verb};
use super::problem::Problem;

/// Seals what people set.
pub trait SecretKeeper: Send + Sync + 'static {
    /// Sets a secret, or removes it; `false` where it said so already.
    fn put(&self, name: String, value: Option<Vec<u8>>) -> BoxFuture<'_, Result<bool, Refusal>>;
}

pub async fn list(api: Shared, who: Identity) -> Result<Json<Answer<Secrets>>, Problem> {
    who.may(Verb::Look)?;
    api.answer(|view| Ok(Secrets { secrets: view.secrets() })).await
}

pub async fn set(
    api: Shared,
    who: Identity,
    Segment(name): Segment,
    extract::Json(body): extract::Json<SecretBody>,
) -> Result<Json<Answer<SecretSet>>, Problem> {
    who.may(Verb::ChangeApps)?;
    check(&name)?;
    let value = STANDARD.decode(&body.value);
    let value = value.map_err(|_| Problem::invalid("the value is no base64").at("value"))?;
    if value.is_empty() || value.len() > SECRET_BYTES_MAX {
        let message = format!("a secret has 1 to {SECRET_BYTES_MAX} bytes, and this one {}", value.len());
        return Err(Problem::invalid(message).at("value"));
    }
    let changed = api.secrets.put(name.clone(), Some(value)).await?;
    api.answer_with(SecretSet { name, changed }).await
}

pub async fn remove(api: Shared, who: Identity, Segment(name): Segment) -> Result<Json<Answer<SecretSet>>, Problem> {
    who.may(Verb::ChangeApps)?;
    check(&name)?;
    let changed = api.secrets.put(name.clone(), None).await?;
    api.answer_with(SecretSet { name, changed }).await
}

fn check(name: &str) -> Result<(), Problem> {
    whole_name_fault(name).map_or(Ok(()), |fault| Err(Problem::invalid(fault).at("name")))
}
