//! The executor's images: as the API shows them, and as other peers give them.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use rialto_protocol::api::{LayerRow, LoginBody};
use rialto_protocol::event::Request;
use rialto_protocol::ids::PeerId;
use rialto_protocol::view::View;
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;

use super::network::Opener;
use crate::api::{self, Blob, Forward, Given, ImageError, Imported, Manifest, Streamed};
use crate::api::{fetch_blob, fetch_blob_of, fetch_manifest};
use crate::executor::images::{
    self as store, Bytes, Fetch, Freed, ImageInfo, Images, LayerAt, Login, Naming, Together,
};
use crate::handle::Handle;

/// Between two looks at the disk.
const RELIEVE_EVERY: Duration = Duration::from_secs(60);
/// The media type of a manifest that does not name its own.
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Why a machine without containers keeps no images.
const NO_IMAGES: &str = "this machine runs no containers and keeps no images: import it at another one";

/// The image store behind the API; without one everything is refused.
pub struct ImagesForApi {
    pub store: Option<Images>,
    pub fetch: Arc<dyn Fetch>,
}

impl ImagesForApi {
    fn store(&self) -> Result<Images, ImageError> {
        self.store.clone().ok_or_else(|| ImageError::Invalid(NO_IMAGES.into()))
    }
}

impl api::Images for ImagesForApi {
    fn import(
        &self,
        name: Option<String>,
        fallback: Option<String>,
        archive: Streamed,
    ) -> BoxFuture<'_, Result<Imported, ImageError>> {
        Box::pin(async move {
            let images = self.store()?;
            let archive = SyncIoBridge::new(StreamReader::new(archive));
            let import = move || {
                let naming = name.as_deref().map_or(Naming::OwnOr(fallback.as_deref()), Naming::As);
                images.import(naming, archive)
            };
            Ok(imported(blocking(import).await?))
        })
    }

    fn enter(&self, registry: String, login: LoginBody) -> BoxFuture<'_, Result<(), ImageError>> {
        Box::pin(async move {
            let login = Login { user: login.user, password: login.password };
            self.store()?.enter(&registry, login).await.map_err(refused)
        })
    }

    fn pull(
        &self,
        name: String,
        holders: Vec<PeerId>,
        told: watch::Sender<Vec<LayerRow>>,
    ) -> BoxFuture<'_, Result<Imported, ImageError>> {
        Box::pin(async move {
            let images = self.store()?;
            let mut progress = images.progress(&name).watch();
            let mut pulling = std::pin::pin!(images.pull(&name, &holders, &*self.fetch));
            loop {
                let done = tokio::select! {
                    done = &mut pulling => Some(done),
                    Ok(()) = progress.changed() => None,
                };
                told.send_replace(progress.borrow_and_update().layers.iter().map(row).collect());
                if let Some(done) = done {
                    return Ok(imported(done.map_err(refused)?));
                }
            }
        })
    }

    fn remove(&self, name: String) -> BoxFuture<'_, Result<Given, ImageError>> {
        Box::pin(async move {
            let images = self.store()?;
            let missing = ImageError::NotFound(format!("image {name}"));
            blocking(move || images.remove(&name)).await?.map(given).ok_or(missing)
        })
    }

    fn collect(&self, unused_for: Option<Duration>) -> BoxFuture<'_, Result<Given, ImageError>> {
        Box::pin(async move {
            match self.store.clone() {
                Some(images) => blocking(move || images.collect(unused_for)).await.map(given),
                None => Ok(Given::default()),
            }
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

    fn blob_of(&self, image: String, digest: String, bytes: u64) -> BoxFuture<'_, Result<Blob, ImageError>> {
        Box::pin(async move {
            let data = self.store()?.blob_of(&image, &digest, bytes).map_err(refused)?;
            Ok(Blob { bytes, data })
        })
    }
}

fn imported(image: ImageInfo) -> Imported {
    Imported { name: image.name, digest: image.digest, bytes: image.bytes }
}

fn given(freed: Freed) -> Given {
    Given { images: freed.images.into_iter().map(|image| (image.name, image.digest)).collect(), bytes: freed.bytes }
}

fn row(layer: &LayerAt) -> LayerRow {
    let state = layer.state.word().into();
    LayerRow { digest: layer.digest.clone(), bytes: layer.bytes, bytes_total: layer.bytes_total, state }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, store::ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(|error| ImageError::Io(io::Error::other(error)))?;
    done.map_err(refused)
}

fn refused(error: store::ImageError) -> ImageError {
    match error {
        store::ImageError::Invalid(reason) => ImageError::Invalid(reason),
        store::ImageError::Missing(what) => ImageError::Unavailable(what),
        store::ImageError::Io(error) => ImageError::Io(error),
    }
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
pub struct FetchByMesh {
    me: PeerId,
    forward: Forward<Opener>,
    handle: Handle,
}

impl FetchByMesh {
    pub fn new(me: PeerId, opener: Opener, handle: Handle) -> Self {
        Self { me, forward: Forward::new(opener), handle }
    }
}

impl Fetch for FetchByMesh {
    fn manifest<'a>(&'a self, from: PeerId, image: &'a str) -> BoxFuture<'a, io::Result<Bytes>> {
        Box::pin(async move {
            let manifest = fetch_manifest(&self.forward, from, Vec::new(), image).await.map_err(io::Error::other)?;
            Ok(futures::stream::iter([Ok(manifest.bytes)]).boxed())
        })
    }

    fn blob<'a>(&'a self, from: PeerId, digest: &'a str) -> BoxFuture<'a, io::Result<Bytes>> {
        Box::pin(async move {
            let blob = fetch_blob(&self.forward, from, Vec::new(), digest).await;
            Ok(blob.map_err(io::Error::other)?.data)
        })
    }

    fn blob_of<'a>(
        &'a self,
        from: PeerId,
        image: &'a str,
        digest: &'a str,
        bytes: u64,
    ) -> BoxFuture<'a, io::Result<Bytes>> {
        Box::pin(async move {
            let blob = fetch_blob_of(&self.forward, from, image, digest, bytes).await;
            Ok(blob.map_err(io::Error::other)?.data)
        })
    }

    /// Those that have claims of tasks of the image, as far as the ledger has them here.
    fn together<'a>(&'a self, image: &'a str) -> BoxFuture<'a, Option<Together>> {
        Box::pin(async move {
            let image = image.to_owned();
            let all = self.handle.read(move |brain, now| owners(&brain.view(now), &image)).await?;
            Some(Together { me: self.me, all })
        })
    }
}

/// The live machines with tasks of an image, ended ones not counted.
fn owners(view: &View<'_>, image: &str) -> Vec<PeerId> {
    let mut owners = BTreeSet::new();
    for app in view.apps() {
        let services = app.spec.services.iter().filter(|(_, service)| api::is_same_image(&service.image, image));
        for (service, _) in services {
            let claims = view.claims(&format!("{}.{service}", app.app)).into_iter();
            owners.extend(
                claims.filter(|claim| claim.reachable && claim.row.ended_at.is_none()).map(|claim| claim.owner),
            );
        }
    }
    owners.into_iter().collect()
}

/// Keeps what the cluster is told of this machine's images true: some come with tasks, and some go for
/// want of room. Ends with the peer.
pub async fn announce(images: Images, machine: String, handle: Handle) {
    let mut changes = images.changes();
    loop {
        changes.borrow_and_update();
        let (store, name) = (images.clone(), machine.clone());
        let here = tokio::task::spawn_blocking(move || store.list()).await.unwrap_or_default();
        let told = handle.read(move |brain, now| {
            let rows = brain.view(now).images().into_iter().filter(|row| row.machines.contains(&name));
            rows.map(|row| (row.name, row.digest)).collect::<BTreeSet<_>>()
        });
        let Some(told) = told.await else { return };
        let mut requests = Vec::new();
        for ImageInfo { name, digest, bytes } in &here {
            if !told.contains(&(name.clone(), digest.clone())) {
                let (name, digest) = (name.clone(), digest.clone());
                requests.push(Request::Image { name, digest, bytes: *bytes, present: true, brought: false });
            }
        }
        for (name, digest) in told.into_iter().filter(|(name, _)| here.iter().all(|image| image.name != *name)) {
            requests.push(Request::Image { name, digest, bytes: 0, present: false, brought: false });
        }
        for request in requests {
            if handle.request(request).await.is_err() {
                return;
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Makes room for as long as the disk is short of it.
pub async fn relieve(images: Images, closing: CancellationToken) {
    let mut ticks = tokio::time::interval(RELIEVE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while closing.run_until_cancelled(ticks.tick()).await.is_some() {
        let images = images.clone();
        if let Err(error) = blocking(move || images.relieve(0)).await {
            tracing::warn!(%error, "what no task needs cannot be given up");
        }
    }
}
