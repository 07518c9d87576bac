//! The executor's images: as the API shows them, and as other peers give them.

use std::io;

use futures::StreamExt;
use futures::future::BoxFuture;
use rialto_protocol::ids::PeerId;
use serde::Deserialize;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

use super::network::Opener;
use crate::api::{self, Blob, Forward, ImageError, Imported, Manifest, Streamed, fetch_blob, fetch_manifest};
use crate::executor::images::{self as store, Bytes, Fetch, Images};

/// The media type of a manifest that does not name its own.
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Why a machine without containers keeps no images.
const NO_IMAGES: &str = "this machine runs no containers and keeps no images: import it at another one";

/// The image store behind the API; without one everything is refused.
pub struct ImagesForApi(pub Option<Images>);

impl ImagesForApi {
    fn store(&self) -> Result<Images, ImageError> {
        self.0.clone().ok_or_else(|| ImageError::Invalid(NO_IMAGES.into()))
    }
}

impl api::Images for ImagesForApi {
    fn import(&self, name: String, archive: Streamed) -> BoxFuture<'_, Result<Imported, ImageError>> {
        Box::pin(async move {
            let images = self.store()?;
            let archive = SyncIoBridge::new(StreamReader::new(archive));
            let taken = blocking(move || images.import(&name, archive)).await?;
            Ok(Imported { digest: taken.digest, bytes: taken.bytes })
        })
    }

    fn manifest(&self, name: String) -> BoxFuture<'_, Result<Manifest, ImageError>> {
        Box::pin(async move {
            let images = self.store()?;
            let missing = ImageError::NotFound(format!("image {name}"));
            let found = blocking(move || Ok(images.get(&name).zip(images.manifest(&name)))).await?;
            let (info, bytes) = found.ok_or(missing)?;
            Ok(Manifest { digest: info.digest, media_type: media_type(&bytes), bytes: bytes.into() })
        })
    }

    fn blob(&self, digest: String) -> BoxFuture<'_, Result<Blob, ImageError>> {
        Box::pin(async move {
            let path = self.store()?.blob(&digest).ok_or_else(|| ImageError::NotFound(format!("blob {digest}")))?;
            let file = tokio::fs::File::open(path).await?;
            let bytes = file.metadata().await?.len();
            Ok(Blob { bytes, data: ReaderStream::with_capacity(file, 64 << 10).boxed() })
        })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, store::ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| ImageError::Io(io::Error::other(error)))?;
    done.map_err(|error| match error {
        store::ImageError::Invalid(reason) => ImageError::Invalid(reason),
        store::ImageError::Missing(what) => ImageError::NotFound(what),
        store::ImageError::Io(error) => ImageError::Io(error),
    })
}

fn media_type(manifest: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Typed {
        #[serde(rename = "mediaType")]
        media_type: Option<String>,
    }
    let named = serde_json::from_slice::<Typed>(manifest).ok().and_then(|typed| typed.media_type);
    named.unwrap_or_else(|| MANIFEST_TYPE.into())
}

/// Asks other peers for images, by their API over the mesh, which knows their addresses.
pub struct FetchByMesh(Forward<Opener>);

impl FetchByMesh {
    pub fn new(opener: Opener) -> Self {
        Self(Forward::new(opener))
    }
}

impl Fetch for FetchByMesh {
    fn manifest<'a>(&'a self, from: PeerId, image: &'a str) -> BoxFuture<'a, io::Result<Bytes>> {
        Box::pin(async move {
            let manifest = fetch_manifest(&self.0, from, Vec::new(), image).await.map_err(io::Error::other)?;
            Ok(futures::stream::iter([Ok(manifest.bytes)]).boxed())
        })
    }

    fn blob<'a>(&'a self, from: PeerId, digest: &'a str) -> BoxFuture<'a, io::Result<Bytes>> {
        Box::pin(async move { Ok(fetch_blob(&self.0, from, Vec::new(), digest).await.map_err(io::Error::other)?.data) })
    }
}
