//! Images that this machine lacks: whom to ask for them, and in which order. Other peers first,
//! then the registry that the name means.

use std::io;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use rialto_protocol::ids::{PeerId, rendezvous};

use super::blob::Digest;
use super::logins::log_in;
use super::manifest::Named;
use super::name::Reference;
use super::registry::{Registry, RegistryError};
use super::{DOCUMENT_BYTES_MAX, ImageError, Images};

/// A blob as it comes.
pub type Bytes = BoxStream<'static, io::Result<bytes::Bytes>>;

/// Other peers that are asked to fetch a layer before this one does so itself.
const FETCHERS_MAX: usize = 2;
/// The longest silence of a peer in the middle of a blob. A registry's is shorter: it has nobody to wait for.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How another peer is asked. What it answers is checked here, not by the implementation.
pub trait Fetch: Send + Sync {
    /// `GET /v1/images/{name}/manifest`: byte for byte.
    fn manifest<'a>(&'a self, from: PeerId, image: &'a str) -> BoxFuture<'a, io::Result<Bytes>>;

    /// `GET /v1/blobs/{digest}`.
    fn blob<'a>(&'a self, from: PeerId, digest: &'a str) -> BoxFuture<'a, io::Result<Bytes>>;

    /// `GET /v1/blobs/{digest}?image=&bytes=`: a blob of so many bytes that it may first have to fetch
    /// from the image's registry.
    fn blob_of<'a>(&'a self, from: PeerId, _: &'a str, digest: &'a str, _: u64) -> BoxFuture<'a, io::Result<Bytes>> {
        self.blob(from, digest)
    }

    /// Who was given tasks of the image: each layer is asked of the registry by one of them.
    fn together<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Option<Together>> {
        Box::pin(async { None })
    }
}

/// The machines that need an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Together {
    pub me: PeerId,
    /// This one may be among them.
    pub all: Vec<PeerId>,
}

/// Nobody to ask.
impl Fetch for () {
    fn manifest<'a>(&'a self, _: PeerId, _: &'a str) -> BoxFuture<'a, io::Result<Bytes>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }

    fn blob<'a>(&'a self, _: PeerId, _: &'a str) -> BoxFuture<'a, io::Result<Bytes>> {
        Box::pin(async { Err(io::ErrorKind::NotFound.into()) })
    }
}

/// Who may have what an image is made of.
pub(super) struct Sources<'a> {
    pub image: &'a str,
    pub fetch: &'a dyn Fetch,
    /// Peers that have the image.
    pub holders: Vec<PeerId>,
    pub together: Option<Together>,
    /// Mirrors first.
    pub registries: Vec<Registry>,
}

/// One of them.
pub(super) enum Source<'a> {
    Holder(PeerId),
    /// A peer whose turn it is to ask the registry.
    Fetcher(PeerId),
    Registry(&'a Registry),
}

impl Source<'_> {
    pub fn name(&self) -> String {
        match self {
            Source::Holder(peer) | Source::Fetcher(peer) => format!("peer {peer}"),
            Source::Registry(registry) => registry.host().to_owned(),
        }
    }

    /// Whether it can go on in the middle.
    pub fn resumes(&self) -> bool {
        matches!(self, Source::Registry(_))
    }

    /// A peer that fails is passed over: the next source is as good.
    pub fn tries_max(&self, of_registry: u32) -> u32 {
        if self.resumes() { of_registry } else { 1 }
    }
}

impl<'a> Sources<'a> {
    /// Of an image that some peers have, and perhaps a registry.
    pub async fn new(
        images: &Images,
        image: &'a str,
        holders: &[PeerId],
        fetch: &'a dyn Fetch,
    ) -> Result<Self, ImageError> {
        let mut endpoints = images.0.registries.endpoints(&Reference::parse(image)?)?;
        log_in(&mut endpoints, &*images.0.logins).await;
        let opened = endpoints.into_iter().map(|endpoint| Registry::new(&images.0.connections, endpoint));
        let registries = opened.collect::<Result<Vec<_>, _>>()?;
        Ok(Self { image, fetch, holders: holders.to_vec(), together: None, registries })
    }

    /// Where the manifest is to be had.
    pub fn of_manifest(&self) -> impl Iterator<Item = Source<'_>> {
        let holders = self.holders.iter().map(|peer| Source::Holder(*peer));
        holders.chain(self.registries.iter().map(Source::Registry))
    }

    /// Where a blob is to be had, in the order in which they are to be asked.
    pub fn of(&self, digest: &Digest) -> Vec<Source<'_>> {
        let mut sources: Vec<Source<'_>> = self.holders.iter().map(|peer| Source::Holder(*peer)).collect();
        if !self.registries.is_empty() {
            sources.extend(self.fetchers(digest).into_iter().map(Source::Fetcher));
        }
        sources.extend(self.registries.iter().map(Source::Registry));
        sources
    }

    /// The peers before this one in the layer's own order of those who need it: all of them reckon the
    /// same, so one asks the registry and the others ask it.
    fn fetchers(&self, digest: &Digest) -> Vec<PeerId> {
        let Some(Together { me, all }) = &self.together else { return Vec::new() };
        let mut ranked: Vec<&PeerId> = all.iter().collect();
        ranked.sort_unstable_by_key(|peer| std::cmp::Reverse((rendezvous(digest.ring(), peer.ring()), **peer)));
        ranked.into_iter().take_while(|peer| *peer != me).take(FETCHERS_MAX).copied().collect()
    }

    /// A manifest, or a registry's index.
    pub async fn manifest(&self, source: &Source<'_>, digest: Option<&Digest>) -> Result<Vec<u8>, ImageError> {
        match source {
            Source::Registry(registry) => Ok(registry.manifest(digest).await?),
            Source::Holder(peer) | Source::Fetcher(peer) => {
                let mut bytes = Vec::new();
                // What another peer's name means is its own affair; what a digest means is not.
                let stream = match digest {
                    Some(digest) => self.fetch.blob(*peer, &digest.to_string()).await?,
                    None => self.fetch.manifest(*peer, self.image).await?,
                };
                let mut stream = attentive(stream);
                while let Some(chunk) = stream.next().await {
                    bytes.extend_from_slice(&chunk?);
                    if bytes.len() as u64 > DOCUMENT_BYTES_MAX {
                        return Err(ImageError::Invalid("its manifest is too large".into()));
                    }
                }
                Ok(bytes)
            }
        }
    }

    /// A blob from its byte `from` on, or from an earlier one: which, and what comes.
    pub async fn open(&self, source: &Source<'_>, blob: &Named, from: u64) -> Result<(u64, Bytes), RegistryError> {
        let digest = blob.digest.to_string();
        let stream = match source {
            Source::Registry(registry) => return registry.blob(&blob.digest, from).await,
            Source::Holder(peer) => self.fetch.blob(*peer, &digest).await,
            Source::Fetcher(peer) => self.fetch.blob_of(*peer, self.image, &digest, blob.bytes).await,
        };
        stream.map(|stream| (0, attentive(stream))).map_err(|error| RegistryError::Unreachable(error.to_string()))
    }
}

/// A stream that ends with an error when nothing comes for too long.
fn attentive(stream: Bytes) -> Bytes {
    let next = |mut stream: Bytes| async move {
        let silent = || io::Error::new(io::ErrorKind::TimedOut, "nothing came for a minute");
        let chunk = tokio::time::timeout(SILENCE_MAX, stream.next()).await.unwrap_or_else(|_| Some(Err(silent())));
        chunk.map(|chunk| (chunk, stream))
    };
    futures::stream::unfold(stream, next).boxed()
}
