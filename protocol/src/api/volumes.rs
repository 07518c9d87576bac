//! Volumes and secrets.

use serde::{Deserialize, Serialize};

/// `GET /v1/volumes` -> `{"volumes": [VolumeRow]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volumes {
    pub volumes: Vec<VolumeRow>,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRow {
    /// `APP/NAME`, or `NAME` of one that apps share.
    pub name: String,
    /// In hexadecimal: the name of its folder.
    pub id: String,
    /// The machine that holds it.
    pub machine: String,
    /// `here`, `down` (its machine is), `given up` (another of its name counts, or it was released), or `gone` (its
    /// machine is no member any more).
    pub state: String,
    /// RFC 3339.
    pub made_at: String,
    /// Services that name it: `APP/SERVICE`.
    pub services: Vec<String>,
    /// What it takes, and how many files it has: only where its machine was asked for this one volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Where it lies on its machine: as `bytes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

/// `GET /v1/secrets` -> `{"secrets": [SecretRow]}`: what is set, never what it says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    pub secrets: Vec<SecretRow>,
}

/// One secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRow {
    /// `APP/NAME`, or `NAME` of one that apps share.
    pub name: String,
    /// RFC 3339.
    pub set_at: String,
    /// Services that get it as a file: `APP/SERVICE`.
    pub services: Vec<String>,
}

/// Body of `PUT /v1/secrets/{name}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretBody {
    /// Base64 (RFC 4648, with padding).
    pub value: String,
}

impl SecretBody {
    /// What a secret says, as it travels.
    pub fn of(value: &[u8]) -> Self {
        use base64::Engine;
        Self { value: base64::engine::general_purpose::STANDARD.encode(value) }
    }
}

/// Nothing prints what a secret says.
impl std::fmt::Debug for SecretBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretBody(…)")
    }
}

/// Answers a secret that was set or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretSet {
    pub name: String,
    /// It said something else before.
    pub changed: bool,
}

/// Body of `POST /v1/volumes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeBody {
    pub name: String,
    /// By name or id; the one that is asked where none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
}
