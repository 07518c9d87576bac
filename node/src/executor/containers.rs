//! The executor of containers: for each task one background job that prepares its image, starts
//! its shim and listens to it until the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::ClaimId;
use rialto_protocol::model::resources::{CPU_MILLIS, MEMORY_BYTES};
use rialto_protocol::model::volume::Content;
use rialto_protocol::model::{Guard, Health, Subnet, TaskSpec};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::adopt::conclude;
use super::cgroup::Hierarchies;
use super::client::Client;
use super::control::{Answer, Ask, State};
use super::folder::{Exit, Folder, Image, Lease as TaskLease, Limits, Plan, VERSION};
use super::health::{self, Check};
use super::images::{Fetch, Images, Lease};
use super::listening;
use super::logs::{LOG_BYTES_MAX, LogStore};
use super::network::namespace::Namespace;
use super::roll::{Phase, Roll, Wish};
use super::volumes::VolumeStore;
use super::{Config, NOTHING_HERE, Order, Told, devices, etc, mounts, names, userns};

/// The name of the image that is the machine itself.
const HOST: &str = "host";
/// Of processes and threads, where a task has no limit of its own.
const PIDS_DEFAULT: u64 = 4096;
/// How long after its grace a task may still be there before its shim is held for stuck.
const PATIENCE: Duration = Duration::from_secs(10);

/// The variable by which tasks find the lock group.
const ETCD: &str = "RIALTO_ETCD";

/// Secrets of a task, by the places of their files.
type Gift = BTreeMap<usize, Vec<u8>>;

/// Shared by all jobs.
pub(super) struct Containers {
    pub config: Config,
    pub images: Images,
    pub volumes: VolumeStore,
    /// Who has which devices: from before a plan says so.
    units: Mutex<BTreeMap<ClaimId, Vec<devices::Unit>>>,
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
        let volumes = VolumeStore::open(&config.data)?;
        if let Some(remap) = config.remap {
            let way_out = "without --userns-remap the users of tasks are those of the machine";
            let said = |error| io::Error::other(format!("--userns-remap: {error} ({way_out})"));
            userns::probe(remap, &config.data).map_err(said)?;
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            config,
            images,
            volumes,
            units: Mutex::default(),
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
            Ok((image, lease, secrets, permit)) => match self.namespace_for(claim, &spec).await {
                Ok(namespace) => {
                    let containers = self.clone();
                    let launch = move || {
                        let launched = containers.launch(claim, &spec, image, &secrets);
                        // From here on the task's plan holds what it is made of.
                        drop(lease);
                        launched
                    };
                    // A shim lives in the network that it is started in, and so does all that it starts.
                    let launched = match namespace {
                        Some(namespace) => namespace.within(launch).await,
                        None => self.runtime.spawn_blocking(launch).await.map_err(io::Error::other).flatten(),
                    };
                    let told = |error| format!("its shim cannot be started: {error}");
                    launched.map(|client| (client, permit)).map_err(told)
                }
                Err(reason) => Err(reason),
            },
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
    async fn prepare(&self, spec: &TaskSpec) -> Result<(Image, Option<Lease>, Gift, SemaphorePermit<'_>), String> {
        let secrets = self.open_secrets(spec).await?;
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
        Ok((image, lease, secrets, permit))
    }

    /// What the sealed files of a task say, by their places.
    async fn open_secrets(&self, spec: &TaskSpec) -> Result<Gift, String> {
        let mut gift = Gift::new();
        for (number, file) in spec.container.mounts.files.iter().enumerate() {
            let Content::Sealed(name) = &file.content else { continue };
            let name = name.of(&spec.task.app.name);
            let none = || format!("secret {name}: this machine keeps none");
            let secrets = self.config.provisions.secrets.as_ref().ok_or_else(none)?;
            gift.insert(number, secrets.unseal(&name).await.map_err(|reason| format!("secret {name}: {reason}"))?);
        }
        Ok(gift)
    }

    /// The devices of a task: units that nobody else has.
    fn units_for(&self, claim: ClaimId, spec: &TaskSpec) -> io::Result<Vec<devices::Unit>> {
        let classes = &self.config.provisions.devices;
        if classes.is_empty() || spec.takes.is_empty() {
            return Ok(Vec::new());
        }
        let mut held = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        let alive: BTreeSet<ClaimId> = self.roll.alive().into_iter().filter(|other| *other != claim).collect();
        held.retain(|other, _| alive.contains(other));
        for other in &alive {
            // Of an earlier life of this process only the plan tells.
            let planned = || self.folder(*other).read_plan().map(|plan| plan.units).unwrap_or_default();
            held.entry(*other).or_insert_with(planned);
        }
        let used = held.values().flatten().cloned().collect();
        let units = devices::units(classes, &spec.takes, &used).map_err(io::Error::other)?;
        held.insert(claim, units.clone());
        Ok(units)
    }

    /// The network of a task that is to have one of its own.
    async fn namespace_for(&self, claim: ClaimId, spec: &TaskSpec) -> Result<Option<Namespace>, String> {
        let Some(address) = spec.address else { return Ok(None) };
        let network = self.config.network.as_ref().ok_or("this machine makes no networks for tasks any more")?;
        network.attach(claim, address).await.map(Some)
    }

    /// Starts the shim. It has its door before it lives, so nobody can ever miss it.
    fn launch(&self, claim: ClaimId, spec: &TaskSpec, image: Image, secrets: &Gift) -> io::Result<Client> {
        let etc = self.config.data.join("executor/etc");
        if let Err(error) = etc::refresh(&etc) {
            warn!(%error, "tasks see an older copy of the machine's /etc");
        }
        let folder = self.folder(claim);
        folder.create()?;
        let remap = self.config.remap;
        if let Some(refusal) = remap.and_then(|_| userns::refusal(&spec.container)) {
            return Err(io::Error::other(refusal));
        }
        let (wanted, app) = (&spec.container.mounts, &spec.task.app.name);
        let (store, allows) = (&self.volumes, &self.config.provisions.allows);
        let mounted =
            mounts::find(wanted, app, &spec.volumes, &image, &folder, store, allows, &self.config.hide, remap)?;
        let units = self.units_for(claim, spec)?;
        let (files, variables) = devices::files(&self.config.provisions.devices, &units);
        let mut plan = Plan { mounts: mounted, units, ..self.plan(claim, spec, image, etc) };
        plan.container.devices.extend(files);
        plan.environment.extend(variables);
        plan.environment.extend(self.etcd_for(spec).map(|etcd| (ETCD.to_string(), etcd.to_string())));
        if let Some(address) = spec.address {
            plan.names = Some(names::write(folder.path(), spec, &plan.hostname, address)?);
        }
        folder.write_plan(&plan)?;
        if plan.leased {
            let none = || io::Error::other("there is no lease for it");
            let until_ms = self.config.deadlines.of(claim).borrow().ok_or_else(none)?;
            folder.write_lease(&TaskLease { until_ms, grace_ms: spec.grace_ms })?;
        }
        let door = folder.listen()?;
        let connection = folder.connect()?;
        let mut shim = tokio::process::Command::new(&self.config.shim)
            .arg("shim")
            .arg(folder.path())
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(door))
            .stdout(if mounts::has_gift(&plan) { Stdio::from(mounts::gift(secrets)?) } else { Stdio::null() })
            .stderr(File::create(folder.complaints())?)
            .spawn()?;
        // Whether it is waited for has nothing to do with this executor's life.
        self.runtime.spawn(async move { shim.wait().await });
        Client::over(connection)
    }

    /// Where a task finds the lock group, if this peer serves it.
    fn etcd_for(&self, spec: &TaskSpec) -> Option<SocketAddr> {
        let mut etcd = self.config.etcd.filter(|_| !spec.environment.contains_key(ETCD))?;
        match spec.address {
            Some(address) => etcd.set_ip(Subnet::of(address).gateway().into()),
            None if etcd.ip().is_unspecified() => etcd.set_ip(Ipv4Addr::LOCALHOST.into()),
            None => {}
        }
        Some(etcd)
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
            container: spec.container.clone(),
            mounts: Vec::new(),
            units: Vec::new(),
            etc,
            names: None,
            bench: self.bench(),
            remap: self.config.remap,
            hide: self.config.hide.clone(),
            log_bytes_max: LOG_BYTES_MAX,
            listens: spec.listens.clone(),
            leased: spec.guard == Some(Guard::Lease),
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
        let plan = self.folder(claim).read_plan().ok();
        let check = plan.as_ref().and_then(Check::of);
        let mut deadline = plan.as_ref().filter(|plan| plan.leased).map(|_| self.config.deadlines.of(claim));
        // What was told before the shim could hear.
        deadline.iter_mut().for_each(watch::Receiver::mark_changed);
        let mut health: Option<watch::Receiver<Health>> = None;
        let mut runs: Option<TaskReport> = None;
        let mut preparing: Option<oneshot::Receiver<()>> = None;
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
                    Ok(Some(Answer::State { state: State::Running { started_at, digest } })) => {
                        permit = None;
                        health = match (health, &plan, &check) {
                            (None, Some(plan), Some(check)) => {
                                Some(health::watch(self, claim, plan.clone(), check.clone(), started_at))
                            }
                            (None, Some(plan), None) => listening::watch(self, claim, plan, started_at),
                            (known, ..) => known,
                        };
                        let now = health.as_ref().map_or(Health::None, |health| *health.borrow());
                        let report = TaskReport::Running { image_digest: digest, started_at, health: now };
                        runs = Some(report.clone());
                        self.tell(claim, Phase::Live, report).await;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break self.conclude(claim).await,
                },
                Some(now) = next_health(&mut health) => {
                    if let Some(TaskReport::Running { health, .. }) = &mut runs {
                        *health = now;
                    }
                    if let Some(report) = runs.clone() {
                        self.tell(claim, Phase::Live, report).await;
                    }
                }
                Ok(()) = wished.changed() => {
                    let gone_by = wished.borrow_and_update().gone_by;
                    if let Some(gone_by) = gone_by {
                        let first = plan.as_ref().and_then(|plan| plan.container.pre_stop.clone());
                        // Only before the first stop, and of a task that runs; who is in a hurry asks twice.
                        match first.filter(|_| stuck_at.is_none() && runs.is_some()) {
                            Some(command) => preparing = Some(self.prepare_stop(claim, command, gone_by)),
                            None => stop(&mut shim, gone_by).await,
                        }
                        stuck_at = Some(gone_by + PATIENCE);
                    }
                }
                until_ms = next_deadline(&mut deadline) => {
                    let folder = self.folder(claim);
                    let lease = folder.read_lease().map(|lease| TaskLease { until_ms, ..lease });
                    if let Err(error) = lease.and_then(|lease| folder.write_lease(&lease)) {
                        warn!(%claim, %error, "a task's lease cannot be written down");
                    }
                    // A shim that cannot hear is found to be gone.
                    let _ = shim.say(&Ask::Renew { until_ms }).await;
                }
                () = prepared(&mut preparing) => {
                    preparing = None;
                    let gone_by = wished.borrow().gone_by;
                    if let Some(gone_by) = gone_by {
                        stop(&mut shim, gone_by).await;
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

    /// Runs what is to be run before the stop signal; the end of it is the end of the channel.
    fn prepare_stop(self: &Arc<Self>, claim: ClaimId, command: Vec<String>, gone_by: Instant) -> oneshot::Receiver<()> {
        let (done, prepared) = oneshot::channel();
        let containers = self.clone();
        self.job(async move {
            let grace = gone_by.saturating_duration_since(Instant::now());
            health::pre_stop(&containers, claim, command, grace).await;
            drop(done);
        });
        prepared
    }

    /// Finds out how a task ended whose shim cannot say so.
    pub async fn conclude(&self, claim: ClaimId) -> Exit {
        let (folder, hierarchies) = (self.folder(claim), self.hierarchies.clone());
        let concluded = self.runtime.spawn_blocking(move || conclude(&folder, &hierarchies)).await;
        concluded.unwrap_or_else(|error| Exit::failed(error.to_string()))
    }

    async fn end(self: &Arc<Self>, claim: ClaimId, exit: &Exit, wished: &watch::Receiver<Wish>) {
        self.tell(claim, Phase::Ended, exit.report()).await;
        self.config.deadlines.forget(&claim);
        if let Some(network) = &self.config.network {
            network.detach(claim).await;
        }
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

async fn stop(shim: &mut Client, gone_by: Instant) {
    let grace = gone_by.saturating_duration_since(Instant::now());
    // A shim that cannot hear is found to be gone.
    let _ = shim.say(&Ask::Stop { grace_ms: grace.as_millis() as u64 }).await;
}

/// The health when it has changed; never comes where nothing is checked.
async fn next_health(health: &mut Option<watch::Receiver<Health>>) -> Option<Health> {
    let receiver = match health {
        Some(receiver) => receiver,
        None => std::future::pending().await,
    };
    match receiver.changed().await {
        Ok(()) => Some(*receiver.borrow_and_update()),
        Err(_) => std::future::pending().await,
    }
}

/// Until when a task may run, when that has changed; never comes where it has no lease.
async fn next_deadline(deadline: &mut Option<watch::Receiver<Option<u64>>>) -> u64 {
    if let Some(receiver) = deadline {
        while receiver.changed().await.is_ok() {
            if let Some(until_ms) = *receiver.borrow_and_update() {
                return until_ms;
            }
        }
    }
    std::future::pending().await
}

/// Comes when what goes before the stop has ended.
async fn prepared(preparing: &mut Option<oneshot::Receiver<()>>) {
    match preparing {
        Some(preparing) => drop(preparing.await),
        None => std::future::pending().await,
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
