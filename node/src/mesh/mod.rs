//! The mesh: how peers reach each other. libp2p appears here and nowhere else.
//!
//! A peer listens on one TCP port. Every connection is encrypted and both ends prove their key
//! (noise); over it go streams (yamux), each for one purpose, which its protocol name says with a
//! version:
//!
//! - `/rialto/hello/1` lets a newcomer show its invitation. It is open to everybody; all others are
//!   the members' alone, see [`Mesh::set_members`].
//! - `/rialto/link/1` carries messages, one way. Two peers that keep a *standing link*, see
//!   [`Mesh::set_links`], have one each way and are told when both are up, and when that ends.
//!   Messages to other peers open one when it is needed; it ends when it has been idle for a while.
//! - `/rialto/api/1` is a byte stream for HTTP from peer to peer, see [`Mesh::open`].
//! - `/rialto/locks/1` is one for the lock group, see [`Mesh::open_locks`].
//!
//! Sending is best effort: a message is dropped, and counted, where a queue is full or its receiver
//! cannot be reached. On one standing link messages keep their order. Signatures are not checked
//! here; who sent a message is certain.
//!
//! One task owns libp2p's swarm; each peer that is spoken to has a task that empties its queue
//! ([`outbox`]), and each stream that a peer has opened has one that reads it ([`inbox`]).

mod address;
mod backoff;
mod behaviour;
mod book;
mod context;
mod counters;
mod doors;
mod frames;
mod hello;
mod inbox;
mod outbox;
mod stream;
mod swarm;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use rialto_protocol::ids::{ClusterId, InvitationId, PeerId};
use rialto_protocol::ledger::record::Stored;
use rialto_protocol::wire::Message;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use counters::{Flow, MeshCounters};
pub use frames::Packet;
pub use hello::{HelloAnswer, HelloError};
pub use stream::PeerStream;

use crate::identity::Identity;
use crate::invitation::Invitation;
use context::{Directory, Shared};
use doors::{Door, Doors};
use outbox::Outbox;

/// The most events that wait for the driver; while there are so many nothing more is read.
const EVENTS_MAX: usize = 1024;
/// The most streams that wait to be opened.
const OPENS_MAX: usize = 256;
/// The peer book is written at most so often.
const BOOK_EVERY: Duration = Duration::from_secs(1);
/// When everything ends, what waits is sent for so long.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// What a mesh needs to start.
#[derive(Clone, Debug)]
pub struct Config {
    pub identity: Identity,
    /// Where to listen; port 0 takes any.
    pub listen: SocketAddr,
    /// `None` while this peer is a newcomer: it refuses every hello.
    pub cluster: Option<ClusterId>,
    /// The data folder: the peer book is kept in it.
    pub data: PathBuf,
}

/// Why a mesh could not start.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, #[source] std::io::Error),
    #[error("the transport could not be set up: {0}")]
    Transport(String),
}

/// Why a stream could not be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("the peer cannot be reached: {0}")]
    Unreachable(String),
    #[error("the peer does not take {0}: it speaks another version, or does not know us as a member")]
    Unsupported(&'static str),
    #[error("this peer is going down")]
    Stopped,
}

/// What happens on the mesh.
#[derive(Debug)]
pub enum MeshEvent {
    /// A standing link is up, both ways, or lost. Told in order for each peer.
    Link { peer: PeerId, up: bool },
    /// A member said something.
    Message { from: PeerId, message: Message },
    /// A member said something that does not read; the stream it came on is closed.
    Malformed { from: PeerId, why: String },
    /// A member opened a byte stream.
    ApiStream { from: PeerId, stream: PeerStream },
    /// A member opened a stream of the lock group's.
    LocksStream { from: PeerId, stream: PeerStream },
    /// A newcomer shows an invitation to this cluster. The answer is the chain of admissions to its
    /// own, or the reason why it is refused, for people.
    Hello {
        from: PeerId,
        cluster: ClusterId,
        invitation: InvitationId,
        secret_hash: [u8; 32],
        reply: oneshot::Sender<Result<Vec<Arc<Stored>>, String>>,
    },
}

/// A handle on the running mesh.
#[derive(Clone)]
pub struct Mesh {
    shared: Arc<Shared>,
    /// Tracks the swarm's task, which outlives the others.
    swarm: TaskTracker,
    listening: Arc<Vec<SocketAddr>>,
}

impl Mesh {
    /// Listens and serves until [`Mesh::shutdown`]. The events must be taken from their receiver:
    /// while too many wait nothing more is read from the peers.
    pub async fn start(config: Config) -> Result<(Mesh, mpsc::Receiver<MeshEvent>), MeshError> {
        let (events, heard) = mpsc::channel(EVENTS_MAX);
        let (opens, to_open) = mpsc::channel(OPENS_MAX);
        let shared = Arc::new(Shared {
            me: config.identity.peer(),
            cluster: RwLock::new(config.cluster),
            doors: Arc::new(Doors::default()),
            directory: Mutex::new(Directory::default()),
            book: Mutex::new(book::Book::open(&config.data)),
            book_changed: Notify::new(),
            expelled: Mutex::default(),
            expulsion: Notify::new(),
            outboxes: Mutex::default(),
            counters: counters::Counters::default(),
            outgoing: counters::Traffic::default(),
            incoming: counters::Traffic::default(),
            log_limits: counters::LogLimits::default(),
            events,
            opens,
            runtime: tokio::runtime::Handle::current(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            halt: CancellationToken::new(),
        });
        let (task, listening) = swarm::Task::new(shared.clone(), &config.identity, config.listen, to_open).await?;
        shared.spawn(keep_book(shared.clone()));
        let swarm = TaskTracker::new();
        swarm.spawn(task.run());
        swarm.close();
        Ok((Mesh { shared, swarm, listening: Arc::new(listening) }, heard))
    }

    /// Who this peer is.
    pub fn peer(&self) -> PeerId {
        self.shared.me
    }

    /// Where the mesh listens; for `0.0.0.0` or `[::]`, the addresses of all interfaces then.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// This peer belongs to a cluster from now on, and may introduce others.
    pub fn set_cluster(&self, cluster: ClusterId) {
        *self.shared.cluster.write().expect("nobody panics with the lock") = Some(cluster);
    }

    /// The allow list, whole, with the addresses (`IP:PORT`) that each is said to have. It counts at
    /// once, also on connections that are open; connections to those taken from it are closed.
    pub fn set_members(&self, members: Vec<(PeerId, Vec<String>)>) {
        let names: HashSet<PeerId> = members.iter().map(|(peer, _)| *peer).collect();
        let expelled = self.shared.doors.admit_only(names);
        self.shared.directory.lock().expect("nobody panics with the lock").members = members.into_iter().collect();
        if expelled.is_empty() {
            return;
        }
        self.shared
            .book
            .lock()
            .expect("nobody panics with the lock")
            .keep_only(|peer| self.shared.doors.is_member(peer));
        self.shared.book_changed.notify_one();
        for outbox in expelled.iter().filter_map(|peer| self.outbox(peer)) {
            outbox.want(false);
        }
        self.shared.expelled.lock().expect("nobody panics with the lock").extend(expelled);
        self.shared.expulsion.notify_one();
    }

    /// The peers to keep standing links with, whole, with addresses: they are dialled for ever. A
    /// link that is taken away ends when it is idle, and is told as lost at once.
    pub fn set_links(&self, links: Vec<(PeerId, Vec<String>)>) {
        let links: HashMap<PeerId, Vec<String>> =
            links.into_iter().filter(|(peer, _)| *peer != self.shared.me).collect();
        let gone: Vec<PeerId> = {
            let mut directory = self.shared.directory.lock().expect("nobody panics with the lock");
            let before = std::mem::replace(&mut directory.links, links.clone());
            before.into_keys().filter(|peer| !links.contains_key(peer)).collect()
        };
        for outbox in gone.iter().filter_map(|peer| self.outbox(peer)) {
            outbox.want(false);
        }
        for peer in links.into_keys() {
            Outbox::of(&self.shared, peer).want(true);
        }
    }

    /// Queues a message to a member; false where it was dropped instead. Never waits.
    pub fn send(&self, to: PeerId, packet: impl Into<Packet>) -> bool {
        let packet = packet.into();
        let may = packet.fits() && to != self.shared.me && self.shared.doors.is_member(&to);
        let sent = may && !self.shared.stop.is_cancelled() && Outbox::send(&self.shared, to, packet);
        if !sent {
            self.shared.counters.dropped.add(1);
        }
        sent
    }

    /// Opens a byte stream to a member; `addresses` come before those that are known anyway.
    pub async fn open(&self, peer: PeerId, addresses: &[String]) -> Result<PeerStream, OpenError> {
        let stream = self.shared.open(peer, Door::Api, addresses).await?;
        Ok(PeerStream::new(stream, None))
    }

    /// Opens a stream of the lock group's to a member.
    pub async fn open_locks(&self, peer: PeerId) -> Result<PeerStream, OpenError> {
        let stream = self.shared.open(peer, Door::Locks, &[]).await?;
        Ok(PeerStream::new(stream, None))
    }

    /// Shows an invitation to its inviter.
    pub async fn hello(&self, invitation: &Invitation) -> Result<HelloAnswer, HelloError> {
        hello::greet(&self.shared, invitation).await
    }

    /// What was counted since the start.
    pub fn counters(&self) -> MeshCounters {
        self.shared.counters.read()
    }

    /// What was sent and what was received over links, by kinds of messages.
    pub fn traffic(&self) -> (Vec<Flow>, Vec<Flow>) {
        (self.shared.outgoing.read(), self.shared.incoming.read())
    }

    /// How many connections are open, and with how many peers.
    pub fn connections(&self) -> (usize, usize) {
        self.shared.doors.connections()
    }

    /// Sends what waits, closes all connections, and ends; within two seconds.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        let _ = timeout(GOODBYE_MAX, self.shared.tasks.wait()).await;
        self.shared.halt.cancel();
        let _ = timeout(GOODBYE_MAX, self.swarm.wait()).await;
    }

    fn outbox(&self, peer: &PeerId) -> Option<Arc<Outbox>> {
        self.shared.outboxes.lock().expect("nobody panics with the lock").get(peer).cloned()
    }
}

/// Writes the peer book when it has changed, and once more at the end.
async fn keep_book(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = shared.book_changed.notified() => {}
            () = shared.stop.cancelled() => {}
        }
        let page = shared.book.lock().expect("nobody panics with the lock").page();
        if let Some(page) = page {
            // It syncs a file: not on a thread that carries messages.
            let _ = tokio::task::spawn_blocking(move || page.write()).await;
        }
        if shared.stop.is_cancelled() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(BOOK_EVERY) => {}
            () = shared.stop.cancelled() => {}
        }
    }
}
