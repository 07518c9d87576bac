//! Images: imported by people, fetched by peers.

use std::io;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use futures::future::BoxFuture;
use rialto_protocol::api::{Answer, ErrorCode, ImageRow, Images as ImageRows};
use rialto_protocol::event::Request;
use serde::Deserialize;

use super::Shared;
use super::check::check_image_name;
use super::extract::{Options, Segment};
use super::forward::{Blob, Streamed};
use super::identity::{Identity, Verb};
use super::problem::Problem;

/// The machine's own image store, as the API needs it.
pub trait Images: Send + Sync + 'static {
    /// Takes in a tar of an OCI image layout; durable when it returns.
    fn import(&self, name: String, archive: Streamed) -> BoxFuture<'_, Result<Imported, ImageError>>;
    /// The manifest of an image by its name.
    fn manifest(&self, name: String) -> BoxFuture<'_, Result<Manifest, ImageError>>;
    /// A blob by its digest, `sha256:` and 64 hexadecimal digits.
    fn blob(&self, digest: String) -> BoxFuture<'_, Result<Blob, ImageError>>;
}

/// An image that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// Of the manifest.
    pub digest: String,
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
    /// The archive is no sound image.
    #[error("{0}")]
    Invalid(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<ImageError> for Problem {
    fn from(error: ImageError) -> Self {
        let code = match &error {
            ImageError::NotFound(_) => ErrorCode::NotFound,
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
    name: String,
}

pub async fn import(
    api: Shared,
    identity: Identity,
    Options(ImportOptions { name }): Options<ImportOptions>,
    body: Body,
) -> Result<Json<Answer<ImageRow>>, Problem> {
    identity.may(Verb::ImportImage)?;
    check_image_name(&name)?;
    if name == "host" {
        return Err(Problem::invalid("`host` is the machine's own programs, and no image").at("name"));
    }
    let archive = body.into_data_stream().map(|chunk| chunk.map_err(io::Error::other));
    let Imported { digest, bytes } = api.images.import(name.clone(), archive.boxed()).await?;
    let request = Request::Image { name: name.clone(), digest: digest.clone(), bytes, present: true };
    api.handle.request(request).await?;
    api.answer_with(ImageRow { name, digest, bytes, machines: vec![api.machine.clone()] }).await
}

pub async fn manifest(api: Shared, identity: Identity, Segment(name): Segment) -> Result<Response, Problem> {
    identity.may(Verb::FetchImage)?;
    check_image_name(&name)?;
    let Manifest { digest, media_type, bytes } = api.images.manifest(name).await?;
    Ok(([(header::CONTENT_TYPE.as_str(), media_type), ("digest", digest)], bytes).into_response())
}

pub async fn blob(api: Shared, identity: Identity, Segment(digest): Segment) -> Result<Response, Problem> {
    identity.may(Verb::FetchImage)?;
    if !is_digest(&digest) {
        return Err(Problem::invalid("a digest is `sha256:` and 64 hexadecimal digits").at("digest"));
    }
    let Blob { bytes, data } = api.images.blob(digest).await?;
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
