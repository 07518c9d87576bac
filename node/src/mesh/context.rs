//! What all tasks of the mesh share.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, RwLock};

use libp2p::Stream;
use rialto_protocol::ids::{ClusterId, PeerId};
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::behaviour::Order;
use super::book::Book;
use super::counters::{Counters, LogLimits, Traffic};
use super::doors::{Door, Doors};
use super::outbox::Outbox;
use super::{MeshEvent, OpenError};

/// The most addresses that are tried for one peer.
const ADDRESSES_MAX: usize = 16;

/// "Open a stream to this peer, and dial it first if need be."
pub(super) struct Open {
    pub peer: PeerId,
    pub addresses: Vec<SocketAddr>,
    pub order: Order,
}

pub(super) struct Shared {
    pub me: PeerId,
    pub cluster: RwLock<Option<ClusterId>>,
    pub doors: Arc<Doors>,
    pub directory: Mutex<Directory>,
    pub book: Mutex<Book>,
    /// The book has something to write.
    pub book_changed: Notify,
    /// Members that are none any more: their connections are to be closed.
    pub expelled: Mutex<Vec<PeerId>>,
    pub expulsion: Notify,
    pub outboxes: Mutex<HashMap<PeerId, Arc<Outbox>>>,
    pub counters: Counters,
    /// What was given to streams, and what was read from them.
    pub outgoing: Traffic,
    pub incoming: Traffic,
    pub log_limits: LogLimits,
    pub events: mpsc::Sender<MeshEvent>,
    pub opens: mpsc::Sender<Open>,
    pub runtime: Handle,
    /// Every task but the swarm's.
    pub tasks: TaskTracker,
    /// Those tasks are to send what they have, and end.
    pub stop: CancellationToken,
    /// The swarm's task is to close all connections, and end.
    pub halt: CancellationToken,
}

/// Where peers are said to listen.
#[derive(Default)]
pub(super) struct Directory {
    pub members: HashMap<PeerId, Vec<String>>,
    pub links: HashMap<PeerId, Vec<String>>,
}

impl Shared {
    /// Where a peer may be: what was said of it, then what worked before.
    pub(super) fn addresses(&self, peer: &PeerId, given: &[String]) -> Vec<SocketAddr> {
        let directory = self.directory.lock().expect("nobody panics with the lock");
        let told = [&directory.links, &directory.members].into_iter().filter_map(|all| all.get(peer)).flatten();
        let mut addresses: Vec<SocketAddr> = Vec::new();
        let mut add = |address: SocketAddr| {
            let is_real = !address.ip().is_unspecified() && address.port() != 0;
            if is_real && addresses.len() < ADDRESSES_MAX && !addresses.contains(&address) {
                addresses.push(address);
            }
        };
        given.iter().chain(told).filter_map(|text| text.parse().ok()).for_each(&mut add);
        let book = self.book.lock().expect("nobody panics with the lock");
        book.addresses(peer).iter().copied().for_each(&mut add);
        addresses
    }

    /// Opens a stream, over a connection made for it if there is none.
    pub(super) async fn open(&self, peer: PeerId, door: Door, given: &[String]) -> Result<Stream, OpenError> {
        let (reply, answer) = oneshot::channel();
        let addresses = self.addresses(&peer, given);
        let open = Open { peer, addresses, order: Order { door, reply } };
        self.opens.send(open).await.map_err(|_| OpenError::Stopped)?;
        // Dialling and negotiating each have their own time limit. The reply is lost where the
        // connection ended meanwhile.
        answer.await.unwrap_or_else(|_| Err(OpenError::Unreachable("the connection was lost".into())))
    }

    /// Says something to the driver; waits while it is busy.
    pub(super) async fn tell(&self, event: MeshEvent) {
        // The driver is gone only when everything ends.
        let _ = self.events.send(event).await;
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn_on(task, &self.runtime);
    }
}
