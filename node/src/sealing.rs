//! Seals what must not be read by others, with keys of a library. A secret lies under a key that all members can open
//! (XChaCha20-Poly1305, bound to its name); that key is sealed to each of them (X25519, XSalsa20-Poly1305: libsodium's
//! sealed boxes). A member's key for that is its identity's, in the other form of the same curve (RFC 7748, RFC 8032).

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use crypto_box::aead::{Error, OsRng};
use rialto_protocol::ids::PeerId;
use rialto_protocol::model::secret::Sealed;

use crate::identity::{Identity, random};

const NONCE_BYTES: usize = 24;

/// The key that secrets lie under.
#[derive(Clone)]
pub struct SecretKey([u8; 32]);

/// Why something cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    #[error("the kernel gives no random bytes: {0}")]
    Random(#[from] std::io::Error),
    #[error("{0} is no key that can be sealed to")]
    NoKey(PeerId),
    #[error("it does not open: it was sealed to somebody else, or changed")]
    Broken,
}

impl From<Error> for SealError {
    fn from(_: Error) -> Self {
        SealError::Broken
    }
}

impl SecretKey {
    /// A new one.
    pub fn draw() -> Result<Self, SealError> {
        Ok(Self(random()?))
    }

    /// Opens what [`SecretKey::seal_to`] made for this identity.
    pub fn open(sealed: &Sealed, identity: &Identity) -> Result<Self, SealError> {
        let bytes = identity.agreement_key().unseal(&sealed.0)?;
        bytes.try_into().map(Self).map_err(|_| SealError::Broken)
    }

    /// As only `peer` can open it.
    pub fn seal_to(&self, peer: &PeerId) -> Result<Sealed, SealError> {
        let public = Identity::agreement_key_of(peer).ok_or(SealError::NoKey(*peer))?;
        Ok(Sealed(public.seal(&mut OsRng, &self.0)?))
    }

    /// Seals a secret; only under its name does it open.
    pub fn seal(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_BYTES] = random()?;
        let payload = Payload { msg: secret, aad: name.as_bytes() };
        let sealed = self.cipher().encrypt(XNonce::from_slice(&nonce), payload)?;
        Ok([&nonce[..], &sealed].concat())
    }

    /// Opens what [`SecretKey::seal`] made.
    pub fn unseal(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES).ok_or(SealError::Broken)?;
        let payload = Payload { msg: sealed, aad: name.as_bytes() };
        Ok(self.cipher().decrypt(XNonce::from_slice(nonce), payload)?)
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&self.0.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_it_is_sealed_to_opens_it() {
        let (one, other) = (Identity::from_secret([1; 32]), Identity::from_secret([2; 32]));
        let key = SecretKey::draw().unwrap();
        let sealed = key.seal_to(&one.peer()).unwrap();
        assert!(SecretKey::open(&sealed, &other).is_err());
        let secret = SecretKey::open(&sealed, &one).unwrap();
        let text = key.seal("shop/db", b"hush").unwrap();
        assert_eq!(secret.unseal("shop/db", &text).unwrap(), b"hush");
        assert!(secret.unseal("shop/other", &text).is_err(), "it is bound to its name");
        assert!(!text.windows(4).any(|part| part == b"hush"));
        let mut changed = text;
        *changed.last_mut().unwrap() ^= 1;
        assert!(secret.unseal("shop/db", &changed).is_err() && secret.unseal("shop/db", b"short").is_err());
    }
}
