//! One peer, put together: the data folder, the identity, the store, the brain, and everything that
//! they speak through. [`run`] is the whole life of a peer, from its folder to its goodbye.

mod addresses;
mod belong;
mod containers;
mod doors;
pub mod folder;
mod goodbye;
mod images;
mod join;
mod lease_answers;
mod leases;
mod locks;
mod logs;
mod machinery;
mod metered;
mod network;
mod vault;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rialto_protocol::event::Request;
use rialto_protocol::ids::{ClusterId, PeerId};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Forward, Here};
use crate::config::Config;
use crate::driver::counters::Counters;
use crate::driver::ports::Ports;
use crate::driver::{self, Ended};
use crate::events::EventLog;
use crate::executor::deadlines::Deadlines;
use crate::executor::images::Fetch;
use crate::executor::network::Network;
use crate::handle::Handle;
use crate::identity::{Belonging, Identity, IdentityError};
use crate::invitation::TokenError;
use crate::mesh::{self, Mesh, MeshError, MeshEvent};
use crate::signals::{Signals, Stop};
use crate::store::{Store, StoreError};
use crate::verify::verify;

use belong::{LEDGER_FILE, Standing};
use containers::ContainersForApi;
use doors::{Doors, Inviter, Warnings};
use folder::{Folder, FolderError};
use images::{FetchByMesh, ImagesForApi};
use leases::Desk;
use locks::{Known, Locks};
use logs::LogsForApi;
use machinery::{Lent, Machinery};
use metered::Meters;
use network::{Net, Opener};
use vault::Vault;
use watch::Describe;

/// Why a peer could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("--join: {0}")]
    Token(#[from] TokenError),
    #[error("{0}; another address can be given with --listen")]
    Mesh(#[from] MeshError),
    #[error(
        "data folder {0} holds a ledger and not the cluster that it belongs to (cluster.cbor): restore the file, or move the folder away and join as a new machine"
    )]
    NoBelonging(PathBuf),
    #[error(
        "--join: this peer belongs to cluster {0} already, which has other members or apps: drop --join to go on there, or give the peer another data folder"
    )]
    OtherCluster(ClusterId),
    #[error("the kernel gives no random bytes: {0}")]
    Random(std::io::Error),
    #[error("signals cannot be listened to: {0}")]
    Signals(std::io::Error),
    #[error("{0}")]
    Door(String),
    #[error("this identity must write no more: {0}")]
    Retired(String),
    #[error("the brain has panicked: what it said is above; please report it")]
    Panicked,
}

/// How long open answers may take when the peer goes down.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Runs a peer until it is told to stop or cannot go on.
pub async fn run(config: Config, folder: Folder) -> Result<(), PeerError> {
    let mut signals = Signals::listen().map_err(PeerError::Signals)?;
    let standing = belong::settle(&config, &folder)?;
    let (identity, cluster) = match &standing {
        Standing::Member { identity, belonging } | Standing::Founder { identity, belonging } => {
            (identity.clone(), Some(belonging.cluster))
        }
        Standing::Newcomer { identity, .. } => (identity.clone(), None),
    };
    let mesh = mesh::Config { identity: identity.clone(), listen: config.listen, cluster, data: folder.path().into() };
    let (mesh, heard) = Mesh::start(mesh).await?;
    let (belonging, is_new) = match standing {
        Standing::Member { belonging, .. } => (belonging, false),
        Standing::Founder { belonging, .. } => (belonging, true),
        Standing::Newcomer { invitation, .. } => tokio::select! {
            joined = join::join(&mesh, &invitation, &folder) => (joined?, false),
            _ = signals.next() => {
                mesh.shutdown().await;
                return Ok(());
            }
        },
    };
    let warnings = Warnings::default();
    let doors = Doors::take(&config, &folder, &warnings).await?;
    if is_new {
        // Everything that a start can lack is there: now there is a cluster.
        belonging.save(folder.path())?;
    }
    let peer =
        Peer::start(config, folder, identity, (belonging, is_new), Outside { mesh, heard, doors, warnings }).await?;
    let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Ready]);
    peer.live(signals).await
}

/// The ways out of and into a peer, taken before it lives.
struct Outside {
    mesh: Mesh,
    heard: mpsc::Receiver<MeshEvent>,
    doors: Doors,
    warnings: Warnings,
}

/// The network of this machine's tasks, and who keeps it.
struct Ground {
    network: Network,
    /// Ends with `closing`.
    kept: JoinHandle<()>,
    /// Whether no task needs it any more.
    is_idle: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Ground {
    /// Leaves the network to the tasks that go on, or takes it away where none does.
    async fn leave(self) {
        let _ = self.kept.await;
        if (self.is_idle)() {
            self.network.remove().await;
        }
    }
}

/// A running peer.
struct Peer {
    /// Where tasks have addresses of their own.
    ground: Option<Ground>,
    me: PeerId,
    config: Config,
    folder: Folder,
    handle: Handle,
    mesh: Mesh,
    leases: Desk,
    /// Ends the doors.
    closing: CancellationToken,
    /// Open doors.
    serving: TaskTracker,
    /// Ends the brain.
    stop: CancellationToken,
    ended: oneshot::Receiver<Ended>,
}

impl Peer {
    async fn start(
        config: Config,
        folder: Folder,
        identity: Identity,
        (belonging, is_new): (Belonging, bool),
        Outside { mesh, heard, mut doors, warnings }: Outside,
    ) -> Result<Self, PeerError> {
        let me = identity.peer();
        let (store, restored) = Store::open(&folder.file(LEDGER_FILE))?;
        let brain = belong::brain_config(&config, &identity, &belonging)?;
        let (driver, closing, stop) = (driver::Doors::new(), CancellationToken::new(), CancellationToken::new());
        let (handle, happenings) = (driver.handle.clone(), driver.events.clone());
        let (events, counters) = (EventLog::default(), Counters::default());
        let fetch: Arc<dyn Fetch> = Arc::new(FetchByMesh::new(me, Opener(mesh.clone()), handle.clone()));
        let vault = Arc::new(Vault::new(identity.clone(), handle.clone()));
        let (deadlines, etcd) = (Deadlines::default(), doors.etcd());
        let lent = Lent { deadlines: deadlines.clone(), etcd };
        let machinery = machinery::start(&config, &folder, me, &fetch, vault.clone(), &warnings, lent);
        let (leases, leases_wanted) = Desk::new();
        let Machinery { tasks, described, images, logs, network, sessions, is_idle, reports } = machinery;
        let ports = Ports {
            me,
            sign: Arc::new(move |bytes| identity.sign(bytes)),
            verify: Box::new(verify),
            network: Box::new(Net::new(mesh.clone())),
            tasks,
            leases: Arc::new(leases.clone()),
            events: events.clone(),
            counters: counters.clone(),
        };
        let ended = driver.start(brain, restored, store, ports, stop.clone());

        // The brain knows what it runs on before it hears anything else.
        let listen = mesh.listening().first().copied().unwrap_or(config.listen);
        let describe =
            Arc::new(Describe::new(&config, listen.port(), described.clone(), network.as_ref().map(Network::range)));
        let _ = handle.request(Request::Describe(describe.now())).await;
        goodbye::take_work_again(&folder, &handle).await;
        let kept =
            network.clone().map(|network| addresses::keep(network, handle.clone(), closing.clone(), &config.name));
        tokio::spawn(machinery::carry(reports, happenings.clone()));

        let locks =
            Locks::start((me, belonging.cluster), folder.path(), is_new, mesh.clone(), handle.clone(), closing.clone());
        // Nothing else depends on the lock group: a peer without its part in it is a peer.
        let locks = locks.map_err(|error| doors::warn(&warnings, format!("no part in the lock group: {error}"))).ok();
        let keeping = leases.clone().run(leases_wanted, locks.clone(), deadlines, happenings.clone(), closing.clone());
        tokio::spawn(keeping);
        if let Some(sessions) = &sessions {
            containers::sweep_volumes(sessions, handle.clone());
        }
        let logs = LogsForApi { store: logs, described, handle: handle.clone() };
        let router = api::router(api::State {
            handle: handle.clone(),
            me,
            machine: config.name.clone(),
            logs: Arc::new(logs),
            containers: Arc::new(ContainersForApi(sessions)),
            images: Arc::new(ImagesForApi { store: images.clone(), fetch }),
            events: Arc::new(events),
            secrets: vault.clone(),
            inviter: Arc::new(Inviter { cluster: belonging.cluster, me, describe: describe.clone() }),
            peers: Arc::new(Forward::new(Opener(mesh.clone()))),
            here: Here { data: folder.path().into(), listen, dns_wanted: config.dns, dns: doors.dns() },
            warnings,
            network: network.clone(),
            refused: counters.shared(),
            metered: Arc::new(Meters(mesh.clone())),
            locks: locks.as_ref().map(|locks| locks.group.clone()),
            voters: Arc::new(Known(locks.clone())),
            token: doors.token(),
            closing: closing.clone(),
        });
        tokio::spawn(network::carry(
            heard,
            happenings.clone(),
            handle.clone(),
            router.clone(),
            locks.clone(),
            closing.clone(),
        ));
        if let Some((locks, listener)) = locks.zip(doors.take_etcd()) {
            // Tasks cannot come by an address that is this machine's alone.
            if let Some((network, etcd)) = network.as_ref().zip(etcd).filter(|(_, etcd)| !etcd.ip().is_unspecified()) {
                tokio::spawn(locks.clone().serve_tasks(network.gateway(), etcd.port()));
            }
            tokio::spawn(locks.serve(listener));
        }
        let serving = doors.open(&router, &handle, &config.name, &closing);
        let counted = mesh.clone();
        let count = move || counters.set(counted.counters().refused());
        if let Some(images) = &images {
            tokio::spawn(images::announce(images.clone(), config.name.clone(), handle.clone()));
            tokio::spawn(images::relieve(images.clone(), closing.clone()));
        }
        tokio::spawn(vault.keep(closing.clone()));
        let present = move || images.as_ref().map(names).unwrap_or_default();
        tokio::spawn(watch::measure(describe, present, count, handle.clone(), happenings));

        let ground = network.zip(kept).map(|(network, kept)| Ground { network, kept, is_idle });
        let peer = Self { ground, me, config, folder, handle, mesh, leases, closing, serving, stop, ended };
        peer.greet(&belonging).await;
        Ok(peer)
    }

    /// Says where it lives, and whoever founded a cluster how it grows.
    async fn greet(&self, belonging: &Belonging) {
        let (cluster, name) = (belonging.cluster, &self.config.name);
        tracing::info!(%cluster, peer = %self.me, name, listening = ?self.mesh.listening(), "ready");
        let alone = self.handle.read(|brain, now| brain.view(now).machines().len() <= 1).await;
        if belonging.founding.is_some() && alone == Some(true) {
            println!("{}", join::greeting(&self.config, cluster));
        }
    }

    /// Lives until a signal, or until the brain ends of itself.
    async fn live(mut self, mut signals: Signals) -> Result<(), PeerError> {
        let stop = tokio::select! {
            stop = signals.next() => stop,
            ended = &mut self.ended => return self.died(ended.ok()).await,
        };
        let _ = sd_notify::notify(false, &[sd_notify::NotifyState::Stopping]);
        if self.config.stop_tasks || stop == Stop::WithTasks {
            tracing::info!("going down, and ending the tasks of this machine");
            let ended = async {
                goodbye::end_tasks(self.me, &self.folder, &self.handle).await;
                self.leases.farewell().await;
            };
            tokio::select! {
                () = ended => {}
                _ = signals.next() => tracing::warn!("a second signal: tasks that have not ended are left to their shims"),
            }
        } else {
            tracing::info!("going down; tasks are left running");
            goodbye::announce_restart(&self.handle).await;
        }
        self.closing.cancel();
        let _ = tokio::time::timeout(FAREWELL_MAX, self.serving.wait()).await;
        if let Some(ground) = self.ground {
            ground.leave().await;
        }
        self.stop.cancel();
        let _ = (&mut self.ended).await;
        self.mesh.shutdown().await;
        let _ = std::fs::remove_file(&self.config.socket);
        Ok(())
    }

    /// The brain has ended without being asked to.
    async fn died(self, ended: Option<Ended>) -> Result<(), PeerError> {
        self.closing.cancel();
        self.mesh.shutdown().await;
        match ended {
            Some(Ended::Stopped) => Ok(()),
            Some(Ended::Retired(reason)) => {
                self.folder.retire(&reason);
                Err(PeerError::Retired(reason))
            }
            Some(Ended::StoreFailed(error)) => Err(error.into()),
            None => Err(PeerError::Panicked),
        }
    }
}

fn names(images: &crate::executor::images::Images) -> Vec<String> {
    images.list().into_iter().map(|image| image.name).collect()
}
