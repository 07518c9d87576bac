//! What runs tasks on this machine, or why nothing does.

use std::sync::Arc;

use rialto_protocol::Event;
use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::{ClaimId, PeerId};
use rialto_protocol::model::{Executor as Described, TaskSpec};
use tokio::sync::mpsc;

use super::folder::Folder;
use crate::config::{Config, ExecutorKind};
use crate::driver::ports::Tasks;
use crate::executor::images::{Fetch, Images, Settings};
use crate::executor::logs::LogStore;
use crate::executor::{self, Executor, Order, Told};

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
    /// Nothing comes of it where nothing runs.
    pub reports: mpsc::Receiver<Told>,
}

/// Starts the executor that is configured, if this process may run it. What it finds and tells
/// waits in `reports`.
pub fn start(config: &Config, folder: &Folder, me: PeerId, fetch: &Arc<dyn Fetch>) -> Machinery {
    let (tell, reports) = mpsc::channel(REPORTS_QUEUED_MAX);
    let (executor, described) = match config.executor {
        ExecutorKind::Null => (Executor::null(tell), Described::Null),
        ExecutorKind::Container => match containers(config, folder, me, fetch.clone(), tell.clone()) {
            Ok(executor) => (executor, Described::Container),
            Err(reason) => {
                tracing::warn!("this machine offers no room: {reason}");
                let tasks = Arc::new(NoTasks { reason: reason.clone(), tell: tell.clone() });
                let _ = tell.try_send(Told::Found);
                return Machinery { tasks, described: Described::None(reason), images: None, logs: None, reports };
            }
        },
    };
    let (images, logs) = (executor.images().cloned(), executor.logs());
    Machinery { tasks: Arc::new(executor), described, images, logs, reports }
}

fn containers(
    config: &Config,
    folder: &Folder,
    me: PeerId,
    fetch: Arc<dyn Fetch>,
    tell: mpsc::Sender<Told>,
) -> Result<Executor, String> {
    executor::probe()?;
    let settings = Settings { registries: config.registries.clone(), ..Default::default() };
    let images =
        Images::with(folder.path(), settings).map_err(|error| format!("the images cannot be opened: {error}"))?;
    let config = executor::Config {
        data: folder.path().into(),
        prefix: format!("rialto/{}", &me.hex()[..12]),
        hide: Vec::new(),
        shim: "/proc/self/exe".into(),
    };
    Executor::container(config, images, fetch, tell).map_err(|error| format!("the executor cannot start: {error}"))
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
