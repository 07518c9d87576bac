//! Registries that people log in at: for the whole cluster, and never shown.

use axum::Json;
use rialto_protocol::api::{Answer, LoginBody, LoginRow, Logins, SecretSet};
use rialto_protocol::model::secret::{login_fault, login_name, registry_asked, registry_fault};
use serde::Deserialize;

use super::Shared;
use super::extract::{self, Options, Segment, switch};
use super::identity::{Identity, Verb};
use super::problem::Problem;

/// The most bytes of a user's name, and of a password: tokens are passwords, too.
const BYTES_MAX: usize = 16 << 10;

pub async fn list(api: Shared, who: Identity) -> Result<Json<Answer<Logins>>, Problem> {
    who.may(Verb::Look)?;
    api.answer(|view| Ok(Logins { logins: view.logins() })).await
}

/// What `PUT /v1/logins/{registry}` can be told.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Setting {
    /// The registry is not asked whether it opens.
    #[serde(deserialize_with = "switch")]
    unchecked: bool,
}

pub async fn set(
    api: Shared,
    who: Identity,
    Segment(registry): Segment,
    Options(setting): Options<Setting>,
    extract::Json(body): extract::Json<LoginBody>,
) -> Result<Json<Answer<SecretSet>>, Problem> {
    who.may(Verb::ChangeApps)?;
    if let Some(fault) = login_fault(&registry) {
        let way_out = "name it by an address that every machine reaches, or set 'registries.credentials' on each";
        return Err(Problem::invalid(fault).at("registry").hint(way_out));
    }
    let registry = registry_asked(&registry).to_string();
    for (field, value) in [("user", &body.user), ("password", &body.password)] {
        if value.is_empty() || value.len() > BYTES_MAX {
            return Err(Problem::invalid(format!("the {field} has 1 to {BYTES_MAX} bytes")).at(field));
        }
    }
    if !setting.unchecked {
        let opened = api.images.enter(registry.clone(), body.clone()).await;
        opened.map_err(|error| Problem::invalid(format!("{registry} does not open: {error}")).at("registry"))?;
    }
    let login = serde_json::to_vec(&body).map_err(|error| Problem::invalid(error.to_string()))?;
    let changed = api.secrets.put(login_name(&registry), Some(login)).await?;
    api.answer_with(SecretSet { name: registry, changed }).await
}

pub async fn remove(api: Shared, who: Identity, Segment(registry): Segment) -> Result<Json<Answer<LoginRow>>, Problem> {
    who.may(Verb::ChangeApps)?;
    check(&registry)?;
    let registry = registry_asked(&registry).to_string();
    let asked = registry.clone();
    let found =
        api.handle.read(move |brain, now| brain.view(now).logins().into_iter().find(|row| row.registry == asked));
    let row = found.await.ok_or_else(Problem::going_down)?;
    let row = row.ok_or_else(|| Problem::not_found(format!("login at {registry}")))?;
    api.secrets.put(login_name(&registry), None).await?;
    api.answer_with(row).await
}

fn check(registry: &str) -> Result<(), Problem> {
    registry_fault(registry).map_or(Ok(()), |fault| Err(Problem::invalid(fault).at("registry")))
}
