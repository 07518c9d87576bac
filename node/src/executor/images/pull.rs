//! From a name to an image that is ready to run: its manifest, its blobs, its layers unpacked while
//! others still come.

use std::sync::{Arc, PoisonError};

use futures::FutureExt;
use futures::stream::{self, StreamExt, TryStreamExt};
use rialto_protocol::ids::PeerId;

use super::blob::Digest;
use super::fetch::{Bytes, Fetch, Source, Sources};
use super::logins::Login;
use super::manifest::{Config, Manifest, Named, choices, is_index};
use super::name::Reference;
use super::progress::{LayerState, Progress};
use super::registries::Endpoint;
use super::registry::Registry;
use super::{IMAGE_BYTES_MAX, ImageError, ImageInfo, Images, Lease, Origin, blocking, read_document};
use crate::executor::folder::Image;

/// Indexes within indexes.
const DEPTH_MAX: usize = 3;
/// What an image takes, packed and unpacked, in multiples of its packed size: roughly.
const ROOM: u64 = 4;
/// Layers of one image on their way at once.
pub(super) const LAYERS_AT_ONCE_MAX: usize = 4;

/// An image on its way.
#[derive(Default)]
pub(super) struct Pull {
    /// Whoever holds it brings the image; the others wait, and find it here.
    turn: tokio::sync::Mutex<()>,
    progress: Progress,
}

impl Images {
    /// What a container of the image is made of, fetched if it is not here: from the first of the
    /// peers `from` that has it, else from the registry that its name means. The digest says which of
    /// all that ever had the name; without one, whatever is here under it will do.
    pub(in crate::executor) async fn ensure(
        &self,
        name: &str,
        digest: Option<&str>,
        from: &[PeerId],
        fetch: &dyn Fetch,
    ) -> Result<(Image, Lease), ImageError> {
        super::check_name(name)?;
        let wrong = |digest| ImageError::Invalid(format!("{digest:?} is no digest"));
        let digest = digest.map(|digest| Digest::parse(digest).ok_or_else(|| wrong(digest))).transpose()?;
        for last in [false, true] {
            if self.held(name, digest.as_ref()).is_none() {
                let pull = self.pulling(name);
                let _turn = pull.turn.lock().await;
                if self.held(name, digest.as_ref()).is_none() {
                    let mut sources = Sources::new(self, name, from, fetch).await?;
                    sources.together = fetch.together(name).await;
                    self.bring(digest.as_ref(), &sources, &pull.progress).await?;
                }
            }
            let (images, own, digest) = (self.clone(), name.to_owned(), digest.clone());
            match blocking(move || images.ready(&own, digest.as_ref())).await {
                // It may have been given up in this moment.
                Err(ImageError::Missing(_)) if !last => {}
                ready => return ready,
            }
        }
        Err(ImageError::Missing("it is given up again and again".into()))
    }

    /// Brings an image here as its registry has it now; where no registry can be asked, as the peers
    /// `from` have it.
    pub async fn pull(&self, name: &str, from: &[PeerId], fetch: &dyn Fetch) -> Result<ImageInfo, ImageError> {
        let pull = self.pulling(name);
        let _turn = pull.turn.lock().await;
        let holders = Sources::new(self, name, from, fetch).await?;
        let registry = Sources { holders: Vec::new(), ..Sources::new(self, name, &[], fetch).await? };
        let mut reasons = Vec::new();
        for source in registry.of_manifest().chain(holders.holders.iter().map(|peer| Source::Holder(*peer))) {
            match self.bring_by(None, &source, &holders, &pull.progress).await {
                Ok(info) => return Ok(info),
                Err(error) => reasons.push(format!("{}: {error}", source.name())),
            }
        }
        Err(nowhere(reasons))
    }

    /// Whether a registry opens to somebody. `registry` is `HOST[:PORT]`.
    pub async fn enter(&self, registry: &str, login: Login) -> Result<(), ImageError> {
        let endpoint = Endpoint { credentials: Some(login.into()), ..self.0.registries.door(registry)? };
        Ok(Registry::new(&self.0.connections, endpoint)?.enter().await?)
    }

    /// How far an image is on its way; also before anybody has begun to fetch it.
    pub fn progress(&self, name: &str) -> Progress {
        self.pulling(name).progress.clone()
    }

    /// A blob that another peer needs of an image, while it comes from the image's registry.
    pub fn blob_of(&self, name: &str, digest: &str, bytes: u64) -> Result<Bytes, ImageError> {
        let digest = Digest::parse(digest).ok_or_else(|| ImageError::Invalid(format!("{digest:?} is no digest")))?;
        let blob = Named { digest, bytes };
        if bytes > IMAGE_BYTES_MAX {
            return Err(ImageError::Invalid("no blob is that large".into()));
        }
        if !self.has_blob(&blob.digest) && self.0.registries.endpoints(&Reference::parse(name)?)?.is_empty() {
            return Err(ImageError::Missing("it is not here, and no registry has it".into()));
        }
        let (images, name, wanted) = (self.clone(), name.to_owned(), blob.clone());
        let fetching = tokio::spawn(async move {
            // It goes on when the one who asked is gone: others will ask, too.
            let sources = Sources::new(&images, &name, &[], &()).await?;
            images.obtain(&wanted, &sources, &Progress::default()).await
        });
        Ok(super::follow::follow(self.clone(), blob, fetching))
    }

    fn pulling(&self, name: &str) -> Arc<Pull> {
        let mut pulling = self.0.pulling.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for any more make room.
        pulling.retain(|_, pull| Arc::strong_count(pull) > 1 || pull.progress.is_watched());
        pulling.entry(name.to_owned()).or_default().clone()
    }

    async fn bring(
        &self,
        digest: Option<&Digest>,
        sources: &Sources<'_>,
        progress: &Progress,
    ) -> Result<ImageInfo, ImageError> {
        let mut reasons = Vec::new();
        for source in sources.of_manifest() {
            match self.bring_by(digest, &source, sources, progress).await {
                Ok(info) => return Ok(info),
                Err(error) => reasons.push(format!("{}: {error}", source.name())),
            }
        }
        Err(nowhere(reasons))
    }

    /// Brings the image whose manifest this source has.
    async fn bring_by(
        &self,
        digest: Option<&Digest>,
        source: &Source<'_>,
        sources: &Sources<'_>,
        progress: &Progress,
    ) -> Result<ImageInfo, ImageError> {
        let mut bytes = sources.manifest(source, digest).await?;
        for _ in 0..DEPTH_MAX {
            if !is_index(&bytes) {
                break;
            }
            let here = choices(&bytes)?.into_iter().next();
            let here = here.ok_or_else(|| ImageError::Invalid("it is not made for this kind of machine".into()))?;
            bytes = sources.manifest(source, Some(&here.named.digest)).await?;
        }
        if let Some(digest) = digest.filter(|digest| **digest != Digest::of(&bytes)) {
            return Err(ImageError::Invalid(format!("its manifest is another than {digest:?}")));
        }
        let (own, manifest) = (Digest::of(&bytes), Manifest::read(&bytes)?);
        let _blobs = self.lease(&own, &manifest, None);
        let (images, room) = (self.clone(), manifest.bytes().saturating_mul(ROOM));
        blocking(move || images.relieve(room)).await?;
        self.obtain(&manifest.config, sources, progress).await?;
        let config = manifest.config(&read_document(&self.blob_file(&manifest.config.digest))?)?;
        let _layers = self.lease(&own, &manifest, Some(&config));
        progress.begin(&manifest.layers);
        self.bring_layers(&manifest, &config, sources, progress).await?;
        let origin = match source {
            Source::Registry(registry) => Origin::Registry(registry.host().to_owned()),
            Source::Holder(_) | Source::Fetcher(_) => Origin::Peer,
        };
        let (images, name) = (self.clone(), sources.image.to_owned());
        blocking(move || images.install(&name, &bytes, origin)).await
    }

    /// Each layer is unpacked as soon as it is here.
    async fn bring_layers(
        &self,
        manifest: &Manifest,
        config: &Config,
        sources: &Sources<'_>,
        progress: &Progress,
    ) -> Result<(), ImageError> {
        let budget = self.budget();
        let layers = manifest.layers.iter().zip(&config.layers);
        let bring = layers.map(|(layer, id)| {
            let budget = budget.clone();
            let bring = async move {
                self.obtain(layer, sources, progress).await?;
                progress.is(layer, LayerState::Unpacking);
                let (images, packed, id) = (self.clone(), layer.digest.clone(), id.clone());
                blocking(move || images.unpack(&packed, &id, &budget)).await?;
                progress.is(layer, LayerState::Ready);
                Ok::<(), ImageError>(())
            };
            bring.boxed()
        });
        stream::iter(bring.collect::<Vec<_>>()).buffer_unordered(LAYERS_AT_ONCE_MAX).try_collect().await
    }
}

fn nowhere(reasons: Vec<String>) -> ImageError {
    ImageError::Missing(match reasons.is_empty() {
        true => "no machine is known to have it, and its name says no registry: bring it in by \
                 `rialto image import`, or name a registry (HOST/NAME)"
            .into(),
        false => format!("it cannot be fetched: {}", reasons.join("; ")),
    })
}
