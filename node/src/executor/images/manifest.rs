//! The documents of an image, read with suspicion: OCI's, and Docker's of the same shape.

use std::collections::BTreeMap;

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use rialto_protocol::model::health::{HealthCheck, HealthTest};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::blob::Digest;
use super::{IMAGE_BYTES_MAX, ImageError, LAYERS_MAX};

/// A blob as a document names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub digest: Digest,
    pub bytes: u64,
}

/// What an image consists of.
#[derive(Clone, Debug)]
pub struct Manifest {
    pub config: Named,
    /// Lowest first.
    pub layers: Vec<Named>,
}

/// What of an image's configuration matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub environment: Vec<String>,
    pub working_dir: String,
    pub user: String,
    /// `SIGQUIT`, `QUIT` or a number.
    pub stop_signal: Option<String>,
    /// `80/tcp`.
    pub exposed_ports: Vec<String>,
    /// Paths that hold data.
    pub volumes: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// Docker's own addition.
    pub healthcheck: Option<Healthcheck>,
    /// Digests of the unpacked layers, lowest first.
    pub layers: Vec<Digest>,
}

/// How an image says its programs are to be looked after; times in nanoseconds, 0 where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`, or `CMD` and a program, or `CMD-SHELL` and a line for the shell.
    pub test: Vec<String>,
    pub interval: u64,
    pub timeout: u64,
    pub start_period: u64,
    pub start_interval: u64,
    pub retries: u64,
}

impl Manifest {
    pub fn read(bytes: &[u8]) -> Result<Self, ImageError> {
        let manifest: ImageManifest = document("manifest", bytes)?;
        let layers = manifest.layers().iter().map(named).collect::<Result<Vec<_>, _>>()?;
        let manifest = Self { config: named(manifest.config())?, layers };
        if manifest.layers.is_empty() || manifest.layers.len() > LAYERS_MAX {
            let count = manifest.layers.len();
            return Err(ImageError::Invalid(format!("the image has {count} layers; 1 to {LAYERS_MAX} can be stacked")));
        }
        if manifest.bytes() > IMAGE_BYTES_MAX {
            return Err(ImageError::Invalid(format!("the image is larger than {IMAGE_BYTES_MAX} bytes")));
        }
        Ok(manifest)
    }

    /// Everything that it names, together.
    pub fn bytes(&self) -> u64 {
        self.blobs().fold(0, |sum, blob| sum.saturating_add(blob.bytes))
    }

    /// The configuration and the layers.
    pub fn blobs(&self) -> impl Iterator<Item = &Named> {
        std::iter::once(&self.config).chain(&self.layers)
    }

    /// Reads the configuration that this manifest names.
    pub fn config(&self, bytes: &[u8]) -> Result<Config, ImageError> {
        let image: ImageConfiguration = document("configuration", bytes)?;
        let (wanted, found) = (architecture(), image.architecture().to_string());
        if found != wanted {
            return Err(ImageError::Invalid(format!("the image is made for {found}, and this machine is {wanted}")));
        }
        let ids = image.rootfs().diff_ids().iter();
        let layers: Option<Vec<Digest>> = ids.map(|id| Digest::parse(id)).collect();
        let layers = layers.filter(|layers| layers.len() == self.layers.len());
        let layers = layers
            .ok_or_else(|| ImageError::Invalid("its configuration names other layers than its manifest".into()))?;
        let config = image.config().clone().unwrap_or_default();
        Ok(Config {
            entrypoint: config.entrypoint().clone().unwrap_or_default(),
            command: config.cmd().clone().unwrap_or_default(),
            environment: config.env().clone().unwrap_or_default(),
            working_dir: config.working_dir().clone().unwrap_or_default(),
            user: config.user().clone().unwrap_or_default(),
            stop_signal: config.stop_signal().clone(),
            exposed_ports: config.exposed_ports().clone().unwrap_or_default(),
            volumes: config.volumes().clone().unwrap_or_default(),
            labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
            healthcheck: healthcheck(bytes),
            layers,
        })
    }
}

/// Docker's addition to the configuration; one that cannot be read counts as none.
fn healthcheck(bytes: &[u8]) -> Option<Healthcheck> {
    #[derive(Deserialize)]
    struct Whole {
        config: Option<Part>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Part {
        healthcheck: Option<Healthcheck>,
    }
    serde_json::from_slice::<Whole>(bytes).ok()?.config?.healthcheck
}

/// A manifest that an index offers.
#[derive(Clone, Debug)]
pub struct Choice {
    pub named: Named,
    /// What the index calls it.
    pub name: Option<String>,
}

/// The manifests that an index offers for this machine, likeliest first; those may be indexes too.
pub fn choices(bytes: &[u8]) -> Result<Vec<Choice>, ImageError> {
    let index: ImageIndex = document("index", bytes)?;
    let fits = |descriptor: &&Descriptor| {
        descriptor.platform().as_ref().is_none_or(|platform| {
            platform.os().to_string() == "linux" && platform.architecture().to_string() == architecture()
        })
    };
    let choice = |descriptor: &Descriptor| {
        let annotated = |key: &str| descriptor.annotations().as_ref()?.get(key).cloned();
        let name = annotated("io.containerd.image.name").or_else(|| annotated("org.opencontainers.image.ref.name"));
        Ok(Choice { named: named(descriptor)?, name })
    };
    index.manifests().iter().filter(fits).map(choice).collect()
}

/// Whether a document is an index, by its shape: its media type is often left out.
pub fn is_index(bytes: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Shape {
        manifests: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Shape>(bytes).is_ok_and(|shape| shape.manifests.is_some())
}

fn named(descriptor: &Descriptor) -> Result<Named, ImageError> {
    let digest = descriptor.digest().to_string();
    let digest =
        Digest::parse(&digest).ok_or_else(|| ImageError::Invalid(format!("{digest:?} is no sha256 digest")))?;
    Ok(Named { digest, bytes: descriptor.size() })
}

fn document<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, ImageError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ImageError::Invalid(format!("the image's {what} cannot be read: {error}")))
}

/// This machine, in the words of OCI.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        other => other,
    }
}

impl From<Healthcheck> for HealthCheck {
    fn from(check: Healthcheck) -> Self {
        let ms = |nanoseconds: u64| (nanoseconds > 0).then_some(nanoseconds / 1_000_000);
        let test = match check.test.split_first() {
            Some((kind, _)) if kind == "NONE" => Some(HealthTest::Nothing),
            Some((kind, words)) if kind == "CMD" && !words.is_empty() => Some(HealthTest::Command(words.to_vec())),
            Some((kind, [line, ..])) if kind == "CMD-SHELL" => Some(HealthTest::Shell(line.clone())),
            _ => None,
        };
        Self {
            test,
            interval_ms: ms(check.interval),
            timeout_ms: ms(check.timeout),
            retries: u32::try_from(check.retries).ok().filter(|retries| *retries > 0),
            start_period_ms: ms(check.start_period),
            start_interval_ms: ms(check.start_interval),
        }
    }
}
