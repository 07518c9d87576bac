//! What runs tasks on this machine, or why nothing does.

use std::net::SocketAddr;
use std::sync::Arc;

use rialto_protocol::Event;
use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::{ClaimId, PeerId};
use rialto_protocol::model::{Executor as Described, TaskSpec};
use tokio::sync::mpsc;

use super::doors::{Warnings, warn};
use super::folder::Folder;
use super::vault::Vault;
use crate::config::{Config, ExecutorKind};
use crate::driver::ports::Tasks;
use crate::executor::deadlines::Deadlines;
use crate::executor::images::{Fetch, Images, Logins, Settings};
use crate::executor::logs::LogStore;
use crate::executor::network::{self, Network};
use crate::executor::{self, Executor, Order, Provisions, Sessions, Told};

/// Reports of the executor that wait to be carried to the brain.
const REPORTS_QUEUED_MAX: usize = 1_024;

/// The executor, and what it is called.
pub struct Machinery {
    pub tasks: Arc<dyn Tasks>,
    pub described: Described,
    /// Of a machine that runs containers.
    pub images: Option<Images>,
    /// Of a machine that runs containers.
    pub logs: Option<LogStore>,
    /// Of a machine whose tasks have addresses of their own.
    pub network: Option<Network>,
    /// Whether no task lives here.
    pub is_idle: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Of a machine that runs containers.
    pub sessions: Option<Sessions>,
    /// Nothing comes of it where nothing runs.
    pub reports: mpsc::Receiver<Told>,
}

/// What the rest of the peer has for tasks.
pub struct Lent {
    /// Until when they may run.
    pub deadlines: Deadlines,
    /// Where the lock group is served.
    pub etcd: Option<SocketAddr>,
}

/// Starts the executor that is configured, if this process may run it. What it finds and tells
/// waits in `reports`.
pub fn start(
    config: &Config,
    folder: &Folder,
    me: PeerId,
    fetch: &Arc<dyn Fetch>,
    secrets: Arc<Vault>,
    warnings: &Warnings,
    lent: Lent,
) -> Machinery {
    let (tell, reports) = mpsc::channel(REPORTS_QUEUED_MAX);
    let (executor, described, network) = match config.executor {
        ExecutorKind::Null => (Executor::null(tell), Described::Null, None),
        ExecutorKind::Container => {
            match containers(config, folder, me, fetch.clone(), secrets, tell.clone(), warnings, lent) {
                Ok((executor, network)) => (executor, Described::Container, network),
                Err(reason) => {
                    tracing::warn!("this machine offers no room: {reason}");
                    let tasks = Arc::new(NoTasks { reason: reason.clone(), tell: tell.clone() });
                    let _ = tell.try_send(Told::Found);
                    return Machinery {
                        tasks,
                        described: Described::None(reason),
                        images: None,
                        logs: None,
                        network: None,
                        sessions: None,
                        is_idle: Arc::new(|| true),
                        reports,
                    };
                }
            }
        }
    };
    let (images, logs, sessions) = (executor.images().cloned(), executor.logs(), executor.sessions());
    let executor = Arc::new(executor);
    let looked_at = Arc::downgrade(&executor);
    let is_idle = Arc::new(move || looked_at.upgrade().is_none_or(|executor| executor.is_idle()));
    Machinery { tasks: executor, described, images, logs, network, sessions, is_idle, reports }
}

#[allow(clippy::too_many_arguments)]
fn containers(
    config: &Config,
    folder: &Folder,
    me: PeerId,
    fetch: Arc<dyn Fetch>,
    secrets: Arc<Vault>,
    tell: mpsc::Sender<Told>,
    warnings: &Warnings,
    lent: Lent,
) -> Result<(Executor, Option<Network>), String> {
    executor::probe()?;
    let logins: Arc<dyn Logins> = secrets.clone();
    let settings = Settings { registries: config.registries.clone(), logins: Some(logins), ..Default::default() };
    let images =
        Images::with(folder.path(), settings).map_err(|error| format!("the images cannot be opened: {error}"))?;
    let network = network(config, folder, me, warnings);
    let (allows, devices) = (config.allow.clone(), config.devices.clone());
    let provisions = Provisions { allows, devices, secrets: Some(secrets) };
    let config = executor::Config {
        data: folder.path().into(),
        prefix: format!("rialto/{}", &me.hex()[..12]),
        hide: Vec::new(),
        network: network.clone(),
        provisions,
        remap: config.userns_remap,
        deadlines: lent.deadlines,
        etcd: lent.etcd,
        shim: "/proc/self/exe".into(),
    };
    let executor = Executor::container(config, images, fetch, tell);
    Ok((executor.map_err(|error| format!("the executor cannot start: {error}"))?, network))
}

/// The network of this machine's tasks, where one is wanted and can be.
fn network(config: &Config, folder: &Folder, me: PeerId, warnings: &Warnings) -> Option<Network> {
    let settings = network::Settings {
        me,
        range: config.task_range?,
        overlay: config.overlay,
        folder: folder.file("executor").join("network"),
    };
    match Network::open(settings) {
        Ok(network) => Some(network),
        Err(error) => {
            let way_out = "--task-range none says that this is as it should be";
            warn(warnings, format!("tasks here have no networks of their own, but the machine's: {error}; {way_out}"));
            None
        }
    }
}

/// Carries what the executor tells to the brain.
pub async fn carry(mut reports: mpsc::Receiver<Told>, events: mpsc::Sender<Event>) {
    while let Some(told) = reports.recv().await {
        let event = match told {
            Told::Task { claim, report } => Event::Task { claim, report },
            Told::Found => Event::TasksFound,
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

impl Tasks for Executor {
    fn start(&self, claim: ClaimId, spec: Arc<TaskSpec>) {
        self.order(Order::Start { claim, spec });
    }

    fn stop(&self, claim: ClaimId, grace_ms: u64) {
        self.order(Order::Stop { claim, grace_ms });
    }

    fn forget(&self, claim: ClaimId) {
        self.order(Order::Forget { claim });
    }
}

/// Runs nothing, and says so. Without room on offer there are no new claims; those of an earlier
/// life, when something ran here, end this way.
struct NoTasks {
    reason: String,
    tell: mpsc::Sender<Told>,
}

impl NoTasks {
    fn fail(&self, claim: ClaimId) {
        let report = TaskReport::Failed { reason: format!("this machine runs nothing: {}", self.reason) };
        let _ = self.tell.try_send(Told::Task { claim, report });
    }
}

impl Tasks for NoTasks {
    fn start(&self, claim: ClaimId, _: Arc<TaskSpec>) {
        self.fail(claim);
    }

    fn stop(&self, claim: ClaimId, _: u64) {
        self.fail(claim);
    }

    fn forget(&self, _: ClaimId) {}
}
