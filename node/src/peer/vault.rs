//! This peer's hand in the cluster's secrets: it seals what people set, opens what its tasks need, and seals keys for
//! others where that is its duty. Nothing that it opens is kept.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use rialto_protocol::api::LoginBody;
use rialto_protocol::effect::Refusal;
use rialto_protocol::event::Request;
use rialto_protocol::ids::KeyId;
use rialto_protocol::model::secret::{Duty, Seal, Sealed, Secret, login_name};
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::executor::Unseal;
use crate::executor::images::{Login, Logins};
use crate::handle::Handle;
use crate::identity::{Identity, random};
use crate::sealing::{SealError, SecretKey};

/// After a duty that could not be done it is tried again, at the earliest.
const AGAIN: Duration = Duration::from_secs(5);

/// Changes are gathered for so long before they are looked at.
const GATHER: Duration = Duration::from_millis(500);

/// See the module.
pub struct Vault {
    identity: Identity,
    handle: Handle,
}

/// Why a secret cannot be had or set.
#[derive(Debug, thiserror::Error)]
enum VaultError {
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the peer is going down")]
    GoingDown,
    #[error("the key that it lies under is not sealed to this machine yet; try again in a moment")]
    NoKey,
    #[error("it is not set: `rialto secret set` sets it")]
    NotSet,
}

impl Vault {
    pub fn new(identity: Identity, handle: Handle) -> Self {
        Self { identity, handle }
    }

    fn open_key(&self, sealed: Option<&Sealed>) -> Result<SecretKey, VaultError> {
        Ok(SecretKey::open(sealed.ok_or(VaultError::NoKey)?, &self.identity)?)
    }

    async fn key(&self, id: KeyId) -> Result<SecretKey, VaultError> {
        let sealed = self.handle.read(move |brain, now| brain.view(now).sealed_key(&id));
        self.open_key(sealed.await.ok_or(VaultError::GoingDown)?.as_ref())
    }

    /// The key to seal under; made where there is none.
    async fn current(&self) -> Result<(KeyId, SecretKey), VaultError> {
        let found = self.handle.read(|brain, now| {
            let view = brain.view(now);
            (view.secret_key(), view.secret_readers())
        });
        let (id, readers) = found.await.ok_or(VaultError::GoingDown)?;
        match id {
            Some(id) => Ok((id, self.key(id).await?)),
            None => self.new_key(&readers).await,
        }
    }

    async fn new_key(&self, readers: &[rialto_protocol::ids::PeerId]) -> Result<(KeyId, SecretKey), VaultError> {
        let (id, key) = (KeyId(random().map_err(SealError::Random)?), SecretKey::draw()?);
        self.seal_for(id, &key, readers).await?;
        Ok((id, key))
    }

    /// A member whose identity can be sealed to by nobody reads no secrets; the others do.
    async fn seal_for(
        &self,
        id: KeyId,
        key: &SecretKey,
        readers: &[rialto_protocol::ids::PeerId],
    ) -> Result<(), VaultError> {
        let sealed = readers.iter().filter_map(|peer| Some((*peer, key.seal_to(peer).ok()?))).collect();
        let at = self.handle.read(move |brain, now| brain.view(now).secret_key_made(&id));
        let at = at.await.ok_or(VaultError::GoingDown)?;
        self.handle.request(Request::Seal(Seal { key: id, at, sealed })).await?;
        Ok(())
    }

    async fn put(&self, name: String, value: Option<Vec<u8>>) -> Result<bool, VaultError> {
        if let (Some(value), Ok(held)) = (&value, self.get(&name).await)
            && *value == held
        {
            return Ok(false);
        }
        let (key, sealed) = match value {
            Some(value) => {
                let (id, key) = self.current().await?;
                (id, Some(key.seal(&name, &value)?))
            }
            None => (KeyId::default(), None),
        };
        let secret = Secret { name, at: 0, key, sealed };
        self.handle.request(Request::Secret { secret, anew: false }).await?;
        Ok(true)
    }

    async fn get(&self, name: &str) -> Result<Vec<u8>, VaultError> {
        let asked = name.to_string();
        let found = self.handle.read(move |brain, now| brain.view(now).secret(&asked));
        let (secret, key) = found.await.ok_or(VaultError::GoingDown)?.ok_or(VaultError::NotSet)?;
        let sealed = secret.sealed.ok_or(VaultError::NotSet)?;
        Ok(self.open_key(key.as_ref())?.unseal(name, &sealed)?)
    }

    /// Does what there is to do for the others, until the peer goes down.
    pub async fn keep(self: std::sync::Arc<Self>, closing: CancellationToken) {
        let mut changes = self.handle.changes();
        loop {
            let duty = self.handle.read(|brain, now| brain.view(now).secret_duty()).await;
            let failed = match duty {
                None => return,
                Some(duty) if duty.is_none() => false,
                Some(duty) => match self.serve(duty).await {
                    Ok(()) => false,
                    Err(error) => {
                        tracing::warn!(%error, "secrets cannot be sealed for all who may read them");
                        true
                    }
                },
            };
            let again = async {
                match failed {
                    true => tokio::time::sleep(AGAIN).await,
                    false => {
                        drop(changes.changed().await);
                        // Of many changes few are about secrets.
                        tokio::time::sleep(GATHER).await;
                    }
                }
            };
            tokio::select! {
                () = again => {}
                () = closing.cancelled() => return,
            }
            if changes.has_changed().is_err() {
                return;
            }
        }
    }

    async fn serve(&self, duty: Duty) -> Result<(), VaultError> {
        if let Some(readers) = duty.new_key {
            self.new_key(&readers).await?;
            return Ok(());
        }
        let (id, key) = self.current().await?;
        if !duty.newcomers.is_empty() {
            self.seal_for(id, &key, &duty.newcomers).await?;
        }
        let mut served = Ok(());
        for secret in duty.stale {
            // One that is damaged keeps no other from being sealed anew.
            served = served.and(self.seal_anew(id, &key, secret).await);
        }
        served
    }

    async fn seal_anew(&self, id: KeyId, key: &SecretKey, secret: Secret) -> Result<(), VaultError> {
        let Some(sealed) = &secret.sealed else { return Ok(()) };
        let text = self.key(secret.key).await?.unseal(&secret.name, sealed)?;
        let sealed = Some(key.seal(&secret.name, &text)?);
        self.handle.request(Request::Secret { secret: Secret { key: id, sealed, ..secret }, anew: true }).await?;
        Ok(())
    }
}

impl Unseal for Vault {
    fn unseal(&self, name: &str) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        let name = name.to_string();
        async move { self.get(&name).await.map_err(|error| error.to_string()) }.boxed()
    }
}

impl Logins for Vault {
    fn login(&self, registry: &str) -> BoxFuture<'_, Result<Option<Login>, String>> {
        let name = login_name(registry);
        async move {
            match self.get(&name).await {
                Ok(text) => match serde_json::from_slice(&text) {
                    Ok(LoginBody { user, password }) => Ok(Some(Login { user, password })),
                    // The parser's own words could quote it.
                    Err(_) => Err("it is not as this version keeps logins".into()),
                },
                Err(VaultError::NotSet) => Ok(None),
                Err(error) => Err(error.to_string()),
            }
        }
        .boxed()
    }
}

impl api::SecretKeeper for Vault {
    fn put(&self, name: String, value: Option<Vec<u8>>) -> BoxFuture<'_, Result<bool, Refusal>> {
        async move {
            self.put(name, value).await.map_err(|error| match error {
                VaultError::Refused(refusal) => refusal,
                other => Refusal::Denied(other.to_string()),
            })
        }
        .boxed()
    }
}
