//! What people have logged in with at a registry, for the whole cluster. What a machine's own file has goes before it.

use futures::future::BoxFuture;

use super::registries::{Credentials, Endpoint};

/// Knows what opens registries.
pub trait Logins: Send + Sync {
    /// What somebody logged in with at a registry; `None`: nobody did.
    fn login(&self, registry: &str) -> BoxFuture<'_, Result<Option<Login>, String>>;
}

/// Nobody has logged in anywhere.
pub struct NoLogins;

impl Logins for NoLogins {
    fn login(&self, _: &str) -> BoxFuture<'_, Result<Option<Login>, String>> {
        Box::pin(async { Ok(None) })
    }
}

/// A user and a password. Never in a log.
pub struct Login {
    pub user: String,
    pub password: String,
}

impl From<Login> for Credentials {
    fn from(Login { user, password }: Login) -> Self {
        Credentials::Password { user, password }
    }
}

/// Gives the endpoints that have no credentials what people have logged in with. Where that cannot be opened the
/// registry is asked without: it may let everybody in.
pub async fn log_in(endpoints: &mut [Endpoint], logins: &dyn Logins) {
    for endpoint in endpoints.iter_mut().filter(|endpoint| endpoint.credentials.is_none()) {
        match logins.login(&endpoint.host).await {
            Ok(login) => endpoint.credentials = login.map(Credentials::from),
            Err(reason) => tracing::warn!(registry = endpoint.host, reason, "a login cannot be opened"),
        }
    }
}
