//! The executor of containers: for each task one background job that prepares its image, starts
//! its shim and listens to it until the end.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::ClaimId;
use rialto_protocol::model::TaskSpec;
use rialto_protocol::model::resources::{CPU_MILLIS, MEMORY_BYTES};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::adopt::conclude;
use super::cgroup::Hierarchies;
use super::client::Client;
use super::control::{Answer, Ask, State};
use super::folder::{Exit, Folder, Image, Limits, Plan, VERSION};
use super::images::{Fetch, Images, Lease};
use super::logs::{LOG_BYTES_MAX, LogStore};
use super::roll::{Phase, Roll, Wish};
use super::{Config, NOTHING_HERE, Order, Told, etc};

/// The name of the image that is the machine itself.
const HOST: &str = "host";
/// Of processes and threads, where a task has no limit of its own.
const PIDS_DEFAULT: u64 = 4096;
/// How long after its grace a task may still be there before its shim is held for stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// Shared by all jobs.
pub(super) struct Containers {
    pub config: Config,
    pub images: Images,
    fetch: Arc<dyn Fetch>,
    reports: mpsc::Sender<Told>,
    pub roll: Arc<Roll>,
    pub hierarchies: Arc<Hierarchies>,
    /// Starts that may be under way at once: more would only share the same processors.
    starts: Semaphore,
    /// The executor was dropped: jobs end, containers do not.
    pub quit: CancellationToken,
    pub runtime: Handle,
}

impl Containers {
    pub fn new(
        mut config: Config,
        images: Images,
        fetch: Arc<dyn Fetch>,
        reports: mpsc::Sender<Told>,
    ) -> io::Result<Self> {
        config.data = std::path::absolute(&config.data)?;
        config.hide.push(config.data.clone());
        for name in ["tasks", "bench"] {
            Folder::at(config.data.join("executor").join(name)).create()?;
        }
        etc::refresh(&config.data.join("executor/etc"))?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            config,
            images,
            fetch,
            reports,
            roll: Arc::default(),
            hierarchies: Arc::new(Hierarchies::find()?),
            starts: Semaphore::new((2 * cores).max(4)),
            quit: CancellationToken::new(),
            runtime: Handle::current(),
        })
    }

    pub fn folder(&self, claim: ClaimId) -> Folder {
        Folder::at(self.tasks().join(claim.hex()))
    }

    pub fn tasks(&self) -> PathBuf {
        self.config.data.join("executor/tasks")
    }

    fn bench(&self) -> PathBuf {
        self.config.data.join("executor/bench")
    }

    pub fn logs(&self) -> LogStore {
        LogStore { tasks: self.tasks(), roll: self.roll.clone() }
    }

    pub fn order(self: &Arc<Self>, order: Order) {
        match order {
            Order::Start { claim, spec } => match self.roll.enter(claim, Phase::Starting, TaskReport::Starting) {
                Ok(wished) => self.job(self.clone().begin(claim, spec, wished)),
                Err(last) => self.repeat(claim, last),
            },
            Order::Stop { claim, grace_ms } => {
                if let Err(last) = self.roll.wish(claim, after(grace_ms), false) {
                    self.repeat(claim, last.unwrap_or_else(|| TaskReport::Failed { reason: NOTHING_HERE.into() }));
                }
            }
            Order::Forget { claim } => {
                if self.roll.wish(claim, Instant::now(), true).is_err() {
                    let containers = self.clone();
                    self.runtime.spawn_blocking(move || containers.forget(claim));
                }
            }
        }
    }

    pub async fn stop_all(&self, gone_by: Instant) {
        for claim in self.roll.alive() {
            let phase = self.roll.watch(claim);
            // One that ends in between is as good as stopped.
            let _ = self.roll.wish(claim, gone_by, false);
            if let Some(mut phase) = phase {
                let _ = phase.wait_for(|phase| *phase == Phase::Ended).await;
            }
        }
    }

    /// Runs a job until it is done or the executor is dropped.
    pub fn job(&self, job: impl Future<Output = ()> + Send + 'static) {
        let quit = self.quit.clone();
        self.runtime.spawn(async move { quit.run_until_cancelled(job).await });
    }

    fn repeat(self: &Arc<Self>, claim: ClaimId, report: TaskReport) {
        let containers = self.clone();
        self.job(async move { containers.say(Told::Task { claim, report }).await });
    }

    pub async fn say(&self, told: Told) {
        // Without a receiver the peer is going down.
        let _ = self.reports.send(told).await;
    }

    async fn tell(&self, claim: ClaimId, phase: Phase, report: TaskReport) {
        if self.roll.note(claim, phase, &report) {
            self.say(Told::Task { claim, report }).await;
        }
    }

    /// A new task, from its image to its end.
    async fn begin(self: Arc<Self>, claim: ClaimId, spec: Arc<TaskSpec>, mut wished: watch::Receiver<Wish>) {
        self.say(Told::Task { claim, report: TaskReport::Starting }).await;
        let ready = tokio::select! {
            ready = self.prepare(&spec) => ready,
            _ = wished.wait_for(|wish| wish.gone_by.is_some()) => Err("it was stopped before it started".into()),
        };
        let launched = match ready {
            Ok((image, lease, permit)) => {
                let containers = self.clone();
                let launch = self.runtime.spawn_blocking(move || {
                    let launched = containers.launch(claim, &spec, image);
                    // From here on the task's plan holds what it is made of.
                    drop(lease);
                    launched
                });
                let launched = launch.await.map_err(io::Error::other).flatten();
                launched.map(|client| (client, permit)).map_err(|error| format!("its shim cannot be started: {error}"))
            }
            Err(reason) => Err(reason),
        };
        match launched {
            Ok((client, permit)) => self.see_through(claim, client, wished, Some(permit)).await,
            Err(reason) => {
                let (folder, exit) = (self.folder(claim), Exit::failed(reason));
                folder.clear();
                if let Err(error) = folder.create().and_then(|()| folder.write_exit(&exit)) {
                    warn!(%claim, %error, "the end of a task cannot be written down");
                }
                self.end(claim, &exit, &wished).await;
            }
        }
    }

    /// Everything that a container is made of, and leave to make it.
    async fn prepare(&self, spec: &TaskSpec) -> Result<(Image, Option<Lease>, SemaphorePermit<'_>), String> {
        let (image, lease) = match spec.image.as_str() {
            HOST => (Image::Host, None),
            name => {
                let digest = spec.image_digest.as_deref();
                let ready = self.images.ensure(name, digest, &spec.image_at, self.fetch.as_ref()).await;
                let (image, lease) = ready.map_err(|error| format!("image {name}: {error}"))?;
                (image, Some(lease))
            }
        };
        let permit = self.starts.acquire().await.map_err(|error| error.to_string())?;
        Ok((image, lease, permit))
    }

    /// Starts the shim. It has its door before it lives, so nobody can ever miss it.
    fn launch(&self, claim: ClaimId, spec: &TaskSpec, image: Image) -> io::Result<Client> {
        let etc = self.config.data.join("executor/etc");
        if let Err(error) = etc::refresh(&etc) {
            warn!(%error, "tasks see an older copy of the machine's /etc");
        }
        let folder = self.folder(claim);
        folder.create()?;
        folder.write_plan(&self.plan(claim, spec, image, etc))?;
        let door = folder.listen()?;
        let connection = folder.connect()?;
        let mut shim = tokio::process::Command::new(&self.config.shim)
            .arg("shim")
            .arg(folder.path())
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(door))
            .stdout(Stdio::null())
            .stderr(File::create(folder.complaints())?)
            .spawn()?;
        // Whether it is waited for has nothing to do with this executor's life.
        self.runtime.spawn(async move { shim.wait().await });
        Client::over(connection)
    }

    fn plan(&self, claim: ClaimId, spec: &TaskSpec, image: Image, etc: PathBuf) -> Plan {
        let limit = |name: &str| Some(spec.limits.get(name)).filter(|amount| *amount > 0);
        Plan {
            version: VERSION,
            claim: claim.hex(),
            cgroup: format!("/{}/{}", self.config.prefix.trim_matches('/'), claim.hex()),
            hostname: hostname(spec),
            image,
            command: spec.command.clone(),
            environment: spec.environment.clone(),
            limits: Limits {
                cpu_millis: limit(CPU_MILLIS),
                memory_bytes: limit(MEMORY_BYTES),
                pids: limit("pids").unwrap_or(PIDS_DEFAULT),
            },
            etc,
            bench: self.bench(),
            hide: self.config.hide.clone(),
            log_bytes_max: LOG_BYTES_MAX,
        }
    }

    /// Listens to a shim until its task has ended.
    pub async fn see_through(
        self: &Arc<Self>,
        claim: ClaimId,
        mut shim: Client,
        mut wished: watch::Receiver<Wish>,
        mut permit: Option<SemaphorePermit<'_>>,
    ) {
        let mut stuck_at: Option<Instant> = None;
        for ask in [Ask::Hello { version: VERSION }, Ask::Watch] {
            // A shim that cannot hear is found to be gone below.
            let _ = shim.say(&ask).await;
        }
        // A wish that came before the shim did.
        wished.mark_changed();
        let exit = loop {
            tokio::select! {
                heard = shim.hear() => match heard {
                    Ok(Some(Answer::State { state: State::Ended { exit } })) => break exit,
                    Ok(Some(Answer::State { state: State::Starting })) => {}
                    Ok(Some(Answer::State { state })) => {
                        permit = None;
                        self.tell(claim, Phase::Live, state.report()).await;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break self.conclude(claim).await,
                },
                Ok(()) = wished.changed() => {
                    let gone_by = wished.borrow_and_update().gone_by;
                    if let Some(gone_by) = gone_by {
                        let grace = gone_by.saturating_duration_since(Instant::now());
                        let _ = shim.say(&Ask::Stop { grace_ms: grace.as_millis() as u64 }).await;
                        stuck_at = Some(gone_by + PATIENCE);
                    }
                }
                () = sleep_until(stuck_at.unwrap_or_else(Instant::now)), if stuck_at.is_some() => {
                    warn!(%claim, "a shim did not end its task in time and is killed");
                    break self.conclude(claim).await;
                }
            }
        };
        drop(permit);
        self.end(claim, &exit, &wished).await;
    }

    /// Finds out how a task ended whose shim cannot say so.
    pub async fn conclude(&self, claim: ClaimId) -> Exit {
        let (folder, hierarchies) = (self.folder(claim), self.hierarchies.clone());
        let concluded = self.runtime.spawn_blocking(move || conclude(&folder, &hierarchies)).await;
        concluded.unwrap_or_else(|error| Exit::failed(error.to_string()))
    }

    async fn end(self: &Arc<Self>, claim: ClaimId, exit: &Exit, wished: &watch::Receiver<Wish>) {
        self.tell(claim, Phase::Ended, exit.report()).await;
        if wished.borrow().forget {
            let containers = self.clone();
            self.runtime.spawn_blocking(move || containers.forget(claim));
        }
    }

    fn forget(&self, claim: ClaimId) {
        if let Err(error) = self.folder(claim).remove() {
            warn!(%claim, %error, "the folder of a task cannot be removed");
        }
        self.roll.strike(claim);
    }
}

fn after(grace_ms: u64) -> Instant {
    // A grace of more than a year is as good as none that ends.
    const YEAR_MS: u64 = 365 * 86_400_000;
    Instant::now() + Duration::from_millis(grace_ms.min(YEAR_MS))
}

/// `SERVICE-SLOT`, as far as a host name may be long.
fn hostname(spec: &TaskSpec) -> String {
    const BYTES_MAX: usize = 63;
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    format!("{}-{}", spec.task.service, spec.task.slot).chars().map(allowed).take(BYTES_MAX).collect()
}
