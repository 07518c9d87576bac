//! How far an image has come on its way here.

use std::sync::Arc;

use tokio::sync::watch;

use super::manifest::Named;

/// A change that is smaller is told with the next: nobody can see it.
const BYTES_TOLD: u64 = 256 << 10;

/// An image on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pulling {
    /// The configuration is none of them; empty until the manifest is here.
    pub layers: Vec<LayerAt>,
}

/// A layer on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerAt {
    /// Of the packed layer, `sha256:…`.
    pub digest: String,
    /// That are here.
    pub bytes: u64,
    pub bytes_total: u64,
    pub state: LayerState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LayerState {
    Waiting,
    Fetching,
    Unpacking,
    Ready,
}

impl LayerState {
    /// As the API says it.
    pub fn word(self) -> &'static str {
        match self {
            LayerState::Waiting => "waiting",
            LayerState::Fetching => "fetching",
            LayerState::Unpacking => "unpacking",
            LayerState::Ready => "ready",
        }
    }
}

/// Where progress is told; clones tell of the same image.
#[derive(Clone, Debug)]
pub struct Progress(Arc<watch::Sender<Pulling>>);

impl Default for Progress {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Pulling::default())))
    }
}

impl Progress {
    pub fn watch(&self) -> watch::Receiver<Pulling> {
        self.0.subscribe()
    }

    /// Whether anybody else holds it or listens.
    pub(super) fn is_watched(&self) -> bool {
        Arc::strong_count(&self.0) > 1 || self.0.receiver_count() > 0
    }

    pub(super) fn begin(&self, layers: &[Named]) {
        let of = |layer: &Named| LayerAt {
            digest: layer.digest.to_string(),
            bytes: 0,
            bytes_total: layer.bytes,
            state: LayerState::Waiting,
        };
        self.0.send_replace(Pulling { layers: layers.iter().map(of).collect() });
    }

    /// So much of a blob is here. One that is no layer is not told of.
    pub(super) fn fetched(&self, blob: &Named, bytes: u64) {
        self.change(blob, |layer| {
            let tell = bytes < layer.bytes || bytes - layer.bytes >= BYTES_TOLD || bytes == layer.bytes_total;
            if tell {
                (layer.bytes, layer.state) = (bytes, LayerState::Fetching);
            }
            tell
        });
    }

    pub(super) fn is(&self, blob: &Named, state: LayerState) {
        self.change(blob, |layer| {
            layer.state = state;
            if state >= LayerState::Unpacking {
                layer.bytes = layer.bytes_total;
            }
            true
        });
    }

    fn change(&self, blob: &Named, change: impl Fn(&mut LayerAt) -> bool) {
        let digest = blob.digest.to_string();
        self.0.send_if_modified(|pulling| {
            // The same layer may be in an image twice.
            let same = pulling.layers.iter_mut().filter(|layer| layer.digest == digest);
            same.map(&change).filter(|told| *told).count() > 0
        });
    }
}
