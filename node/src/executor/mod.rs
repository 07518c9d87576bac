//! Runs tasks: each in a container of its own, held by a [shim](shim), which lives on when this
//! process does not. The daemon never calls the container library itself.
//!
//! ```text
//! Executor::container(config, images, fetch, reports) -> io::Result<Executor>   adopts what earlier lives left
//! Executor::null(reports)                             -> Executor               does nothing, fast
//!     .order(Order::{Start, Stop, Forget})     never waits; the same order twice is harmless
//!     .logs() -> Option<LogStore>              .read(claim, lines) .follow(claim, lines) -> Stream<io::Result<Output>>
//!     .images() -> Option<&Images>             .import .list .get .manifest .blob
//!     .stop_all(grace_ms).await                ends every task; dropping the executor ends none
//! probe() -> Result<(), String>                whether this process may run containers, or why not
//! shim_main(args) -> !                         `rialtod shim FOLDER`, before the process has a second thread
//! ```
//!
//! What becomes of tasks is told as [`Told`]: first everything that was found, then
//! [`Told::Found`], then whatever happens. A `Start` of a task that is on the [roll](roll) already
//! is answered by its last report, and so is a `Stop` of one that has ended; a `Stop` of one that
//! was never here is answered by `Failed`. A task that ended keeps its log until it is forgotten.
//!
//! On the disk, below `DATA/executor`: `tasks/CLAIM/` ([`folder`]), `images/` ([`images`]), `etc/`
//! (what tasks of the image `host` see as theirs), `bench/` (empty: where each shim mounts its own).

mod adopt;
mod attributes;
mod cgroup;
mod client;
mod container;
mod containers;
mod control;
pub mod deadlines;
mod device_program;
pub mod devices;
mod docker_seccomp;
mod enter;
mod etc;
mod folder;
mod health;
mod holes;
mod identity;
pub mod images;
mod init;
mod listening;
mod log_file;
pub mod logs;
mod mounts;
mod names;
pub mod network;
mod null;
mod options;
mod prepared;
mod probe;
mod process;
mod roll;
mod rootfs;
mod seccomp;
mod sessions;
mod shim;
mod stats;
pub mod userns;
mod volumes;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::ClaimId;
use rialto_protocol::model::TaskSpec;
use tokio::sync::mpsc;
use tokio::time::Instant;

use containers::Containers;
use deadlines::Deadlines;
use devices::DeviceClass;
pub use enter::enter_main;
use images::{Fetch, Images};
use logs::LogStore;
use network::Network;
pub use probe::probe;
pub use sessions::Sessions;
pub use shim::shim_main;
pub use stats::Usage;
use userns::Remap;

/// Why a task that was never here has ended.
const NOTHING_HERE: &str = "this machine has no container of it";

/// What an executor of containers must know of its machine.
#[derive(Clone)]
pub struct Config {
    /// The data folder; `executor/` in it is ours.
    pub data: PathBuf,
    /// Prefix of all cgroups, no other peer's on this kernel: `rialto/` and 12 digits of the peer's id.
    pub prefix: String,
    /// Never to be seen by tasks, wherever they lie; the data folder always is among them.
    pub hide: Vec<PathBuf>,
    /// Of tasks with addresses of their own; `None`: all use the machine's.
    pub network: Option<Network>,
    /// What of the machine tasks may have.
    pub provisions: Provisions,
    /// Which users of the machine those of tasks are; `None`: the same.
    pub remap: Option<Remap>,
    /// Until when tasks may run that have a lease.
    pub deadlines: Deadlines,
    /// Where this peer serves etcd's clients; tasks with addresses of their own find it at their machine's.
    pub etcd: Option<SocketAddr>,
    /// The program that is a shim when its first argument is `shim`: `/proc/self/exe`.
    pub shim: PathBuf,
}

/// What of this machine tasks may have beside what is every task's.
#[derive(Clone, Default)]
pub struct Provisions {
    /// As [`rialto_protocol::model::Machine::allows`].
    pub allows: Vec<String>,
    /// By class.
    pub devices: BTreeMap<String, DeviceClass>,
    /// Opens secrets; `None`: there are none here.
    pub secrets: Option<Arc<dyn Unseal>>,
}

/// Opens what is kept sealed.
pub trait Unseal: Send + Sync {
    /// What a secret says, or why that cannot be told.
    fn unseal(&self, name: &str) -> BoxFuture<'_, Result<Vec<u8>, String>>;
}

/// Something to do.
#[derive(Clone, Debug)]
pub enum Order {
    /// Start a task, unless it was started already.
    Start { claim: ClaimId, spec: Arc<TaskSpec> },
    /// Its stop signal now, SIGKILL after the grace. The shorter of two graces holds.
    Stop { claim: ClaimId, grace_ms: u64 },
    /// It is of no interest any more: end it if it runs, and drop its log.
    Forget { claim: ClaimId },
}

/// Something that an executor tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// What became of a task.
    Task { claim: ClaimId, report: TaskReport },
    /// All that earlier lives of this peer left has been told of. Once, after the start.
    Found,
}

/// Runs tasks. Dropping it leaves containers running, for the next one to adopt.
pub struct Executor(Kind);

enum Kind {
    Container(Arc<Containers>),
    Null(mpsc::UnboundedSender<Order>),
}

impl Executor {
    /// Runs tasks in containers. To be called within a tokio runtime.
    pub fn container(
        config: Config,
        images: Images,
        fetch: Arc<dyn Fetch>,
        reports: mpsc::Sender<Told>,
    ) -> io::Result<Self> {
        let containers = Arc::new(Containers::new(config, images, fetch, reports)?);
        adopt::adopt(&containers)?;
        Ok(Self(Kind::Container(containers)))
    }

    /// Pretends to. To be called within a tokio runtime.
    pub fn null(reports: mpsc::Sender<Told>) -> Self {
        // Its length is bounded by the claims of this machine, as the market bounds them.
        let (orders, received) = mpsc::unbounded_channel();
        tokio::spawn(null::run(received, reports));
        Self(Kind::Null(orders))
    }

    /// Gives an order; it is carried out in the background.
    pub fn order(&self, order: Order) {
        match &self.0 {
            Kind::Container(containers) => containers.order(order),
            // It ends with its reports' receiver: then nobody wants to know.
            Kind::Null(orders) => drop(orders.send(order)),
        }
    }

    /// The logs of its tasks; the null executor has none.
    pub fn logs(&self) -> Option<LogStore> {
        match &self.0 {
            Kind::Container(containers) => Some(containers.logs()),
            Kind::Null(_) => None,
        }
    }

    /// The images of this machine; the null executor has none.
    pub fn images(&self) -> Option<&Images> {
        match &self.0 {
            Kind::Container(containers) => Some(&containers.images),
            Kind::Null(_) => None,
        }
    }

    /// Whether no task of this machine lives.
    pub fn is_idle(&self) -> bool {
        match &self.0 {
            Kind::Container(containers) => containers.roll.alive().is_empty(),
            Kind::Null(_) => true,
        }
    }

    /// Sessions with its containers; the null executor has none.
    pub fn sessions(&self) -> Option<Sessions> {
        match &self.0 {
            Kind::Container(containers) => Some(Sessions(containers.clone())),
            Kind::Null(_) => None,
        }
    }

    /// Ends every task, and waits until the last container is gone.
    pub async fn stop_all(&self, grace_ms: u64) {
        if let Kind::Container(containers) = &self.0 {
            containers.stop_all(Instant::now() + Duration::from_millis(grace_ms)).await;
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if let Kind::Container(containers) = &self.0 {
            containers.quit.cancel();
        }
    }
}
