//! What the machine is and does, told to the brain at start and now and then.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rialto_protocol::Event;
use rialto_protocol::event::{Description, Request};
use rialto_protocol::model::{Executor, Range, Resources};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::config::Config;
use crate::handle::Handle;
use crate::machine::{self, Load};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(10);

/// What this machine says of itself.
pub struct Describe {
    config: Config,
    listen: SocketAddr,
    capacity: Resources,
    executor: Executor,
    /// Of whose addresses tasks have theirs.
    network: Option<Range>,
}

impl Describe {
    /// `port` is the one that the mesh listens at.
    pub fn new(config: &Config, port: u16, executor: Executor, network: Option<Range>) -> Self {
        let listen = SocketAddr::new(config.listen.ip(), port);
        let capacity = match executor {
            Executor::None(_) => Resources::of(0, 0),
            Executor::Container | Executor::Null => machine::capacity(config),
        };
        Self { config: config.clone(), listen, capacity, executor, network }
    }

    /// The description as of now: addresses come and go.
    pub fn now(&self) -> Description {
        Description {
            name: self.config.name.clone(),
            addresses: machine::addresses(&self.config, self.listen),
            labels: self.config.labels.clone(),
            capacity: self.capacity.clone(),
            allows: self.config.allow.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            executor: self.executor.clone(),
            network: self.network,
        }
    }
}

/// So much has to be free on the disk, bytes, and of a small one this part, where tasks are to start.
const DISK_BYTES_MIN: u64 = 64 << 20;
const DISK_PART_MIN: u64 = 20;

/// Whether what is started here would soon fail for want of room.
fn is_full(data: &Path) -> bool {
    nix::sys::statvfs::statvfs(data).is_ok_and(|disk| {
        let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
        bytes(disk.blocks_available()) < DISK_BYTES_MIN.min(bytes(disk.blocks()) / DISK_PART_MIN)
    })
}

/// Measures for as long as the brain listens. `each` does what else is to be done at each look.
pub async fn measure(
    describe: Arc<Describe>,
    images: impl Fn() -> Vec<String> + Send + 'static,
    each: impl Fn() + Send + 'static,
    handle: Handle,
    events: mpsc::Sender<Event>,
) {
    let mut load = Load::default();
    let mut said = describe.now();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        each();
        let disk_full = is_full(&describe.config.data);
        let measured = Event::Measured { load_millis: load.look(), images: images(), disk_full };
        if events.send(measured).await.is_err() {
            return;
        }
        let description = describe.now();
        if description != said {
            said = description.clone();
            tracing::info!(addresses = ?said.addresses, "the machine describes itself anew");
            let _ = handle.request(Request::Describe(description)).await;
        }
    }
}
