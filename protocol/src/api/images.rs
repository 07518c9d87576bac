//! Images, and the registries that they come from.

use serde::{Deserialize, Serialize};

use super::ErrorBody;

/// `GET /v1/images` -> `{"images": [ImageRow]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images {
    pub images: Vec<ImageRow>,
}

/// One image that a machine of the cluster has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageRow {
    pub name: String,
    pub digest: String,
    pub bytes: u64,
    /// The names of the machines that have it.
    pub machines: Vec<String>,
}

/// One line of `POST /v1/images/{name}/pull` (`application/x-ndjson`): how far it is, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullLine {
    /// A layer, as it is now. The first line of each names them all, lowest first.
    Layer(LayerRow),
    /// The last line: the image is here.
    Pulled(ImageRow),
    /// The last line: it could not be had.
    Failed(ErrorBody),
}

/// A layer of an image on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRow {
    /// Of the packed layer, `sha256:…`.
    pub digest: String,
    /// Bytes that are here.
    pub bytes: u64,
    pub bytes_total: u64,
    /// `waiting`, `fetching`, `unpacking` or `ready`.
    pub state: String,
}

/// `DELETE /v1/images/{name}`, `POST /v1/blobs/gc` -> `{"machines": [FreedRow]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freed {
    pub machines: Vec<FreedRow>,
}

/// What a machine has given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FreedRow {
    pub machine: String,
    /// The images that it has no more.
    pub images: Vec<String>,
    /// Bytes on its disk.
    pub bytes: u64,
    /// Why it has given nothing back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// `GET /v1/logins` -> `{"logins": [LoginRow]}`: the registries that people have logged in at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logins {
    pub logins: Vec<LoginRow>,
}

/// One registry that opens to the whole cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginRow {
    /// `HOST[:PORT]`.
    pub registry: String,
    /// RFC 3339.
    pub set_at: String,
}

/// Body of `PUT /v1/logins/{registry}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginBody {
    pub user: String,
    pub password: String,
}

/// Nothing prints a password.
impl std::fmt::Debug for LoginBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LoginBody({}, …)", self.user)
    }
}
