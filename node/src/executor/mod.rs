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
mod cgroup;
mod client;
mod container;
mod containers;
mod control;
mod etc;
mod folder;
mod identity;
pub mod images;
mod log_file;
pub mod logs;
mod null;
mod probe;
mod process;
mod roll;
mod rootfs;
mod seccomp;
mod shim;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::ClaimId;
use rialto_protocol::model::TaskSpec;
use tokio::sync::mpsc;
use tokio::time::Instant;

use containers::Containers;
use images::{Fetch, Images};
use logs::LogStore;
pub use probe::probe;
pub use shim::shim_main;

/// Why a task that was never here has ended.
const NOTHING_HERE: &str = "this machine has no container of it";

/// What an executor of containers must know of its machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data folder; `executor/` in it is ours.
    pub data: PathBuf,
    /// Prefix of all cgroups, no other peer's on this kernel: `rialto/` and 12 digits of the peer's id.
    pub prefix: String,
    /// Never to be seen by tasks, wherever they lie; the data folder always is among them.
    pub hide: Vec<PathBuf>,
    /// The program that is a shim when its first argument is `shim`: `/proc/self/exe`.
    pub shim: PathBuf,
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
