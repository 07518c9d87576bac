//! Secrets as the ledger holds them: sealed. Every admitted peer can open them, nobody else can, and the brain does not:
//! it hands bytes around that mean nothing to it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::ids::{KeyId, PeerId};
use crate::model::volume::{SECRET_BYTES_MAX, STAMP_MS_MAX, whole_name_fault};

/// The most bytes of a sealed secret,
const SEALED_BYTES_MAX: usize = SECRET_BYTES_MAX + 256;
/// and of a sealed key.
const KEY_BYTES_MAX: usize = 256;

/// The value of a `secret` record; its key is the name. Of several the one with the latest stamp counts, then that
/// under the later key, then that of the higher owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    pub name: String,
    /// Wall clock when a person set or removed it, ms; sealing it anew under another key changes nothing of that.
    pub at: u64,
    /// The key that it is sealed under.
    pub key: KeyId,
    /// `None`: it was removed.
    #[serde(with = "serde_bytes")]
    pub sealed: Option<Vec<u8>>,
}

impl Secret {
    /// What is wrong with it, whoever tells of it.
    pub fn fault(&self) -> Option<String> {
        let is_long = self.sealed.as_ref().is_some_and(|sealed| sealed.len() > SEALED_BYTES_MAX);
        let too_long = is_long.then(|| "the secret is too long".into());
        name_fault(&self.name).or(too_long).or_else(|| stamp_fault(self.at))
    }
}

/// The value of a `seal` record: a key, sealed to each of these peers. Its own key is the key's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    pub key: KeyId,
    /// Wall clock when the key was made, ms: of several keys the latest is the one to seal under, then the highest.
    pub at: u64,
    pub sealed: BTreeMap<PeerId, Sealed>,
}

impl Seal {
    /// What is wrong with it, whoever tells of it.
    pub fn fault(&self) -> Option<String> {
        let is_long = self.sealed.values().any(|sealed| sealed.0.len() > KEY_BYTES_MAX);
        let too_long = is_long.then(|| "a sealed key is too long".into());
        too_long.or_else(|| stamp_fault(self.at))
    }
}

fn stamp_fault(at: u64) -> Option<String> {
    (at > STAMP_MS_MAX).then(|| "it is of a time later than any clock can say".into())
}

/// A key as only one peer can open it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(#[serde(with = "serde_bytes")] pub Vec<u8>);

/// What somebody who can open keys is to do for the others. Each field by itself; nothing: nothing is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Duty {
    /// A new key is to be made, sealed to all of these, and all secrets are to be sealed anew under it: a peer that has
    /// departed can open the last one, or there is none and somebody has set a secret.
    pub new_key: Option<Vec<PeerId>>,
    /// The key that counts is to be sealed to these, too: they were admitted after it was made.
    pub newcomers: Vec<PeerId>,
    /// Secrets that lie under another key than the one that counts.
    pub stale: Vec<Secret>,
}

impl Duty {
    /// Whether nothing is to be done.
    pub fn is_none(&self) -> bool {
        *self == Duty::default()
    }
}

/// The names of secrets that open registries begin so, as no app's secret does.
const LOGIN: &str = "@registry/";
/// The most bytes of a registry's name.
const REGISTRY_BYTES_MAX: usize = 255;

/// Docker's own registry, as its images are named, and what else it is called.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_TOO: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

/// The secret that opens a registry, `HOST[:PORT]`.
pub fn login_name(registry: &str) -> String {
    format!("{LOGIN}{}", registry_asked(registry))
}

/// The name of a registry under which it is asked: of several names for one the one that images have.
pub fn registry_asked(registry: &str) -> &str {
    if DOCKER_HUB_TOO.contains(&registry) { DOCKER_HUB } else { registry }
}

/// Why nobody can log in at a registry for a whole cluster; `None`: somebody can.
pub fn login_fault(registry: &str) -> Option<String> {
    let host = match registry.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, _)) => inside,
        None => registry.rsplit_once(':').map_or(registry, |(host, _)| host),
    };
    let is_loopback = host == "localhost"
        || host.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
    let message =
        || format!("{registry} is another registry on each machine: what one has for its own users no other may");
    registry_fault(registry).or_else(|| is_loopback.then(message))
}

/// The registry that a secret opens, if that is what it is for.
pub fn registry_of(name: &str) -> Option<&str> {
    name.strip_prefix(LOGIN)
}

/// What is wrong with a secret's name.
pub fn name_fault(name: &str) -> Option<String> {
    match registry_of(name) {
        Some(registry) => registry_fault(registry),
        None => whole_name_fault(name),
    }
}

/// What is wrong with a registry's name; `None`: nothing.
pub fn registry_fault(registry: &str) -> Option<String> {
    let is_known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-:[]".contains(c);
    let is_one = !registry.is_empty() && registry.len() <= REGISTRY_BYTES_MAX && registry.chars().all(is_known);
    (!is_one)
        .then(|| format!("'{}' is no registry: write HOST or HOST:PORT", registry.chars().take(99).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_have_secrets_that_no_app_can_name() {
        assert_eq!(registry_of(&login_name("r.example:5000")), Some("r.example:5000"));
        assert!(whole_name_fault(&login_name("r.example")).is_some());
        for (name, is_one) in [
            ("@registry/r.example:5000", true),
            ("@registry/[::1]:5000", true),
            ("shop/password", true),
            ("@registry/", false),
            ("@registry/https://r.example", false),
            ("@registry/R.example", false),
            ("@other/r.example", false),
        ] {
            assert_eq!(name_fault(name).is_none(), is_one, "{name}");
        }
    }

    #[test]
    fn a_login_is_for_the_registry_that_is_asked_and_for_every_machine() {
        for name in ["docker.io", "index.docker.io", "registry-1.docker.io"] {
            assert_eq!(login_name(name), "@registry/docker.io");
        }
        assert_eq!(login_name("r.example:5000"), "@registry/r.example:5000");
        for (registry, is_one) in [
            ("r.example", true),
            ("r.example:5000", true),
            ("192.0.2.1:5000", true),
            ("[2001:db8::1]:5000", true),
            ("localhost.example", true),
            ("localhost", false),
            ("localhost:5000", false),
            ("hub.localhost", false),
            ("127.0.0.1:5000", false),
            ("127.1.2.3", false),
            ("[::1]:5000", false),
            ("[::ffff:127.0.0.1]", false),
            ("https://r.example", false),
        ] {
            assert_eq!(login_fault(registry).is_none(), is_one, "{registry}");
        }
    }

    #[test]
    fn what_no_honest_peer_writes_is_not_believed() {
        let secret =
            |name: &str, at, bytes| Secret { name: name.into(), at, key: KeyId([1; 16]), sealed: Some(vec![0; bytes]) };
        for (secret, is_sound) in [
            (secret("shop/key", 1, 10), true),
            (secret("shop/key", STAMP_MS_MAX, SEALED_BYTES_MAX), true),
            (secret("shop/key", STAMP_MS_MAX + 1, 10), false),
            (secret("shop/key", u64::MAX, 10), false),
            (secret("shop/key", 1, SEALED_BYTES_MAX + 1), false),
            (secret("../key", 1, 10), false),
            (secret("shop/a/b", 1, 10), false),
        ] {
            assert_eq!(secret.fault().is_none(), is_sound, "{} {}", secret.name, secret.at);
        }
        let seal = |at, bytes| Seal {
            key: KeyId([1; 16]),
            at,
            sealed: BTreeMap::from([(PeerId([1; 32]), Sealed(vec![0; bytes]))]),
        };
        assert!(seal(1, 80).fault().is_none());
        assert!(seal(u64::MAX, 80).fault().is_some() && seal(1, KEY_BYTES_MAX + 1).fault().is_some());
    }
}
