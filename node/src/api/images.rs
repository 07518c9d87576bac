//! Images: imported by people, fetched by peers.

use std::io;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::future::BoxFuture;
use rialto_protocol::api::{Answer, ErrorCode, ImageRow, Images as ImageRows, LayerRow, LoginBody};
use rialto_protocol::event::Request;
use rialto_protocol::ids::PeerId;
use serde::Deserialize;
use tokio::sync::watch;

use super::check::check_image_name;
use super::extract::{Options, Segment};
use super::forward::{Blob, Streamed};
use super::identity::{Identity, Verb};
use super::problem::Problem;
use super::upload::Upload;
use super::{Api, Shared};

/// The machine's own image store, as the API needs it.
pub trait Images: Send + Sync + 'static {
    /// Takes in a tar of an OCI image layout, or of what `docker save` writes; durable when it returns. Without a name
    /// it keeps its own, or else has the `fallback`.
    fn import(
        &self,
        name: Option<String>,
        fallback: Option<String>,
        archive: Streamed,
    ) -> BoxFuture<'_, Result<Imported, ImageError>>;
    /// Brings an image here as its registry has it, or else as `holders` have it. `told` is how far each layer is.
    fn pull(
        &self,
        name: String,
        holders: Vec<PeerId>,
        told: watch::Sender<Vec<LayerRow>>,
    ) -> BoxFuture<'_, Result<Imported, ImageError>>;
    /// Whether a registry opens to a user.
    fn enter(&self, registry: String, login: LoginBody) -> BoxFuture<'_, Result<(), ImageError>>;
    /// Takes a name away, and what only it needed.
    fn remove(&self, name: String) -> BoxFuture<'_, Result<Given, ImageError>>;
    /// Gives back what nothing needs; with a time, also images that no task has used for so long.
    fn collect(&self, unused_for: Option<Duration>) -> BoxFuture<'_, Result<Given, ImageError>>;
    /// The manifest of an image by its name.
    fn manifest(&self, name: String) -> BoxFuture<'_, Result<Manifest, ImageError>>;
    /// A blob by its digest, `sha256:` and 64 hexadecimal digits.
    fn blob(&self, digest: String) -> BoxFuture<'_, Result<Blob, ImageError>>;
    /// A blob of so many bytes of an image, fetched from the image's registry if it is not here.
    fn blob_of(&self, image: String, digest: String, bytes: u64) -> BoxFuture<'_, Result<Blob, ImageError>>;
}

/// An image that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    pub name: String,
    /// Of the manifest.
    pub digest: String,
    pub bytes: u64,
}

/// What was given back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Names that mean nothing here any more, each with its digest.
    pub images: Vec<(String, String)>,
    /// On the disk.
    pub bytes: u64,
}

/// The manifest of an image, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub digest: String,
    pub media_type: String,
    pub bytes: Bytes,
}

/// What the image store refuses.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("{0} is not here")]
    NotFound(String),
    /// Nobody who was asked gives it.
    #[error("{0}")]
    Unavailable(String),
    /// The archive is no sound image.
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<ImageError> for Problem {
    fn from(error: ImageError) -> Self {
        let code = match &error {
            ImageError::NotFound(_) | ImageError::Unavailable(_) => ErrorCode::NotFound,
            ImageError::Invalid(_) => ErrorCode::Invalid,
            ImageError::Io(_) => ErrorCode::Internal,
        };
        Problem::new(code, error.to_string()).at("image")
    }
}

pub async fn list(api: Shared, identity: Identity) -> Result<Json<Answer<ImageRows>>, Problem> {
    identity.may(Verb::Look)?;
    api.answer(|view| Ok(ImageRows { images: view.images() })).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportOptions {
    name: Option<String>,
    /// For an archive that gives its image no name.
    fallback: Option<String>,
}

pub async fn import(
    api: Shared,
    identity: Identity,
    Options(ImportOptions { name, fallback }): Options<ImportOptions>,
    body: Body,
) -> Result<Json<Answer<ImageRow>>, Problem> {
    let archive = Upload::new(body);
    identity.may(Verb::ImportImage)?;
    for name in [&name, &fallback].into_iter().flatten() {
        check_new_name(name)?;
    }
    let imported = api.images.import(name, fallback, archive.boxed()).await?;
    let row = told_of(&api, imported).await?;
    api.answer_with(row).await
}

/// Whether an image here can have this name.
pub(super) fn check_new_name(name: &str) -> Result<(), Problem> {
    check_image_name(name)?;
    match name {
        "host" => Err(Problem::invalid("`host` is the machine's own programs, and no image").at("name")),
        _ => Ok(()),
    }
}

/// Tells the cluster of an image that is here now.
pub(super) async fn told_of(api: &Api, image: Imported) -> Result<ImageRow, Problem> {
    let Imported { name, digest, bytes } = image;
    let request = Request::Image { name: name.clone(), digest: digest.clone(), bytes, present: true, brought: true };
    api.handle.request(request).await?;
    Ok(ImageRow { name, digest, bytes, machines: vec![api.machine.clone()] })
}

pub async fn manifest(api: Shared, identity: Identity, Segment(name): Segment) -> Result<Response, Problem> {
    identity.may(Verb::FetchImage)?;
    check_image_name(&name)?;
    let Manifest { digest, media_type, bytes } = api.images.manifest(name).await?;
    Ok(([(header::CONTENT_TYPE.as_str(), media_type), ("digest", digest)], bytes).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobOptions {
    image: Option<String>,
    bytes: Option<u64>,
}

pub async fn blob(
    api: Shared,
    identity: Identity,
    Segment(digest): Segment,
    Options(BlobOptions { image, bytes }): Options<BlobOptions>,
) -> Result<Response, Problem> {
    identity.may(Verb::FetchImage)?;
    if !is_digest(&digest) {
        return Err(Problem::invalid("a digest is `sha256:` and 64 hexadecimal digits").at("digest"));
    }
    let Blob { bytes, data } = match (image, bytes) {
        (Some(image), Some(bytes)) => {
            check_image_name(&image)?;
            api.images.blob_of(image, digest, bytes).await?
        }
        (None, None) => api.images.blob(digest).await?,
        _ => return Err(Problem::invalid("`image` and `bytes` go together").at("query")),
    };
    let kind = "application/octet-stream".to_string();
    let headers = [(header::CONTENT_TYPE, kind), (header::CONTENT_LENGTH, bytes.to_string())];
    Ok((headers, Body::from_stream(data)).into_response())
}

fn is_digest(text: &str) -> bool {
    let hexadecimal = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && hexadecimal(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_digest_is_a_digest() {
        assert!(is_digest(&format!("sha256:{}", &"0af".repeat(22)[..64])));
        for bad in ["", "sha256:", "sha256:../../etc/passwd", &format!("sha256:{}", "A".repeat(64)), "sha512:00"] {
            assert!(!is_digest(bad), "{bad:?}");
        }
    }
}
