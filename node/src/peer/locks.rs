//! The lock group's way to other peers, and its clients' way to it.
//!
//! Replicas speak over streams of the mesh that are open as long as they are used, one each way; so do the clients of a
//! peer that does not vote: their connections are carried to one that does, byte by byte.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use rialto_locks::node_id;
use rialto_locks::voters::{Candidate, Standing};
use rialto_locks_service::{Carry, Group, LogError, Settings, etcd, start};
use rialto_protocol::ids::{ClusterId, PeerId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::api::Voters;
use crate::handle::Handle;
use crate::identity::random;
use crate::mesh::{Mesh, PeerStream};

/// Messages that wait for one peer; more are dropped, and sent again.
const QUEUE_MAX: usize = 512;
/// The most bytes of one message: a snapshot of a full store.
const MESSAGE_BYTES_MAX: usize = rialto_locks::wire::PARCEL_BYTES_MAX;
/// News of who lives are looked at so often.
const NEWS_EVERY: Duration = Duration::from_millis(500);
/// A peer that could not be reached is left alone for so long.
const BACKOFF: Duration = Duration::from_millis(250);
/// A stream must be open, and a question answered, within this.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// A port that is taken is tried again after this.
const BIND_AGAIN: Duration = Duration::from_secs(10);
/// The most clients at once.
const CLIENTS_MAX: usize = 1024;
/// So many peers are asked who votes, the oldest first.
const ASKED_MAX: usize = 8;

/// What a stream is for: its first byte.
const REPLICA: u8 = b'r';
const CLIENT: u8 = b'c';
const WHO_VOTES: u8 = b'w';
pub(super) const KEEPER: u8 = b'k';

/// The lock group of this peer, and everything around it.
#[derive(Clone)]
pub struct Locks {
    pub group: Group,
    mesh: Mesh,
    handle: Handle,
    directory: Arc<Directory>,
    closing: CancellationToken,
}

/// Who is who.
#[derive(Default)]
struct Directory {
    peers: Mutex<HashMap<u64, (PeerId, String)>>,
    links: Mutex<HashMap<u64, mpsc::Sender<Vec<u8>>>>,
    /// Voters that a peer named that was asked.
    heard: Mutex<Vec<u64>>,
}

impl Directory {
    fn peer(&self, node: u64) -> Option<PeerId> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).get(&node).map(|(peer, _)| *peer)
    }

    fn learn(&self, peer: PeerId, name: Option<&str>) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = peers.entry(node_id(&peer.0)).or_insert_with(|| (peer, String::new()));
        if let Some(name) = name {
            entry.1 = name.to_owned();
        }
    }
}

/// Carries messages over the mesh.
struct Wire {
    mesh: Mesh,
    directory: Arc<Directory>,
    /// Set when the group has started.
    group: OnceLock<Group>,
}

/// A hold on it, for the group.
struct Carrier(Arc<Wire>);

impl Carry for Carrier {
    fn carry(&self, to: u64, bytes: Vec<u8>) -> bool {
        let wire = &self.0;
        let Some(peer) = wire.directory.peer(to) else { return false };
        let mut links = wire.directory.links.lock().unwrap_or_else(PoisonError::into_inner);
        let link = links.entry(to).or_insert_with(|| {
            let (link, queue) = mpsc::channel(QUEUE_MAX);
            tokio::spawn(wire.clone().empty(to, peer, queue));
            link
        });
        link.try_send(bytes).is_ok()
    }

    fn directory(&self, node: u64) -> (String, Vec<String>) {
        let peers = self.0.directory.peers.lock().unwrap_or_else(PoisonError::into_inner);
        (peers.get(&node).map(|(_, name)| name.clone()).unwrap_or_default(), Vec::new())
    }
}

impl Wire {
    /// Sends what waits for a peer, until that fails.
    async fn empty(self: Arc<Self>, to: u64, peer: PeerId, mut queue: mpsc::Receiver<Vec<u8>>) {
        if let Err(error) = self.send(peer, &mut queue).await {
            tracing::debug!(%peer, %error, "the lock group does not reach a peer");
        }
        // Until it is tried again everything to it counts as lost.
        sleep(BACKOFF).await;
        self.directory.links.lock().unwrap_or_else(PoisonError::into_inner).remove(&to);
        if let Some(group) = self.group.get() {
            group.unreachable(to).await;
        }
    }

    async fn send(&self, peer: PeerId, queue: &mut mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no stream in time");
        let stream = timeout(ANSWER_WITHIN, self.mesh.open_locks(peer)).await.map_err(late)?;
        let mut stream = stream.map_err(io::Error::other)?;
        stream.write_all(&[REPLICA]).await?;
        while let Some(bytes) = queue.recv().await {
            let mut frame = Vec::with_capacity(bytes.len() + 4);
            frame.extend((bytes.len() as u32).to_be_bytes());
            frame.extend(bytes);
            while let Ok(more) = queue.try_recv() {
                frame.extend((more.len() as u32).to_be_bytes());
                frame.extend(more);
            }
            stream.write_all(&frame).await?;
            stream.flush().await?;
        }
        Ok(())
    }
}

impl Locks {
    /// Starts this peer's replica. `founds`: the cluster is founded now, and the group with it.
    pub fn start(
        (me, cluster): (PeerId, ClusterId),
        folder: &Path,
        founds: bool,
        mesh: Mesh,
        handle: Handle,
        closing: CancellationToken,
    ) -> Result<Self, LogError> {
        let directory = Arc::new(Directory::default());
        directory.learn(me, None);
        let wire = Arc::new(Wire { mesh: mesh.clone(), directory: directory.clone(), group: OnceLock::new() });
        let seed = random().map(u64::from_be_bytes).map_err(|error| LogError::Damaged(error.to_string()))?;
        let mut first = [0; 8];
        first.copy_from_slice(&cluster.0[..8]);
        let settings = Settings {
            node: node_id(&me.0),
            cluster: u64::from_be_bytes(first),
            folder: folder.to_owned(),
            founds,
            seed,
        };
        let group = start(settings, Arc::new(Carrier(wire.clone())), closing.clone())?;
        // It is set once, here.
        let _ = wire.group.set(group.clone());
        let locks = Self { group, mesh, handle, directory, closing };
        tokio::spawn(locks.clone().bring_news());
        Ok(locks)
    }

    /// Serves etcd's clients.
    pub async fn serve(self, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(CLIENTS_MAX));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.closing.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else {
                // No more files can be open, or the client went at once.
                sleep(BACKOFF).await;
                continue;
            };
            let Ok(place) = room.clone().try_acquire_owned() else { continue };
            let _ = stream.set_nodelay(true);
            let locks = self.clone();
            tokio::spawn(async move {
                locks.client(stream).await;
                drop(place);
            });
        }
    }

    /// Serves the tasks of this machine at their machine's address among them, as soon as there is one.
    pub async fn serve_tasks(self, gateway: impl Future<Output = Option<Ipv4Addr>>, port: u16) {
        let Some(Some(gateway)) = self.closing.run_until_cancelled(gateway).await else { return };
        loop {
            match TcpListener::bind((gateway, port)).await {
                Ok(listener) => return self.serve(listener).await,
                Err(error) => tracing::warn!(%error, %gateway, port, "tasks cannot reach etcd's API; trying again"),
            }
            if self.closing.run_until_cancelled(sleep(BIND_AGAIN)).await.is_none() {
                return;
            }
        }
    }

    /// One client: served here, or carried to whoever votes.
    async fn client(&self, mut stream: tokio::net::TcpStream) {
        if self.group.told().votes() {
            return etcd::serve(self.group.clone(), stream, self.closing.clone()).await;
        }
        for voter in self.voters().await {
            let Some(peer) = self.directory.peer(voter) else { continue };
            let Ok(Ok(mut there)) = timeout(ANSWER_WITHIN, self.mesh.open_locks(peer)).await else { continue };
            if there.write_all(&[CLIENT]).await.is_err() {
                continue;
            }
            tokio::select! {
                carried = copy_bidirectional(&mut stream, &mut there) => drop(carried),
                () = self.closing.cancelled() => {}
            }
            return;
        }
        // The connection ends without a word: clients take that for a server that is away, and try again.
        tracing::debug!("no voter of the lock group can be reached for a client");
    }

    /// A stream that a peer has opened.
    pub async fn stream(self, from: PeerId, mut stream: PeerStream) {
        self.directory.learn(from, None);
        let ended = match stream.read_u8().await {
            Ok(REPLICA) => self.hear(node_id(&from.0), stream).await,
            Ok(CLIENT) => {
                etcd::serve(self.group.clone(), stream, self.closing.clone()).await;
                Ok(())
            }
            Ok(KEEPER) => self.hear_keeper(stream).await,
            Ok(WHO_VOTES) => self.tell_voters(stream).await,
            Ok(_) => Err(io::Error::other("a stream for what nobody here knows")),
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %from, %error, "a stream of the lock group ended");
        }
    }

    async fn hear(&self, from: u64, stream: PeerStream) -> io::Result<()> {
        let mut stream = tokio::io::BufReader::new(stream);
        loop {
            let bytes = stream.read_u32().await? as usize;
            if bytes > MESSAGE_BYTES_MAX {
                return Err(io::Error::other(format!("a message of {bytes} bytes")));
            }
            // Room is taken as it fills: a length alone costs nothing.
            let mut message = Vec::new();
            (&mut stream).take(bytes as u64).read_to_end(&mut message).await?;
            if message.len() < bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.group.deliver(from, message).await;
        }
    }

    async fn tell_voters(&self, mut stream: PeerStream) -> io::Result<()> {
        let told = self.group.told().voters;
        let voters = if told.is_empty() { self.heard() } else { told };
        let bytes: Vec<u8> = voters.iter().take(16).flat_map(|node| node.to_be_bytes()).collect();
        stream.write_all(&bytes).await?;
        stream.shutdown().await
    }

    fn heard(&self) -> Vec<u64> {
        self.directory.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who votes, as far as this peer can find out; the oldest peers are the likeliest to know.
    pub async fn voters(&self) -> Vec<u64> {
        let told = self.group.told().voters;
        if !told.is_empty() {
            return told;
        }
        let Some(mut rows) = self.handle.read(|brain, now| brain.view(now).machines()).await else { return Vec::new() };
        rows.retain(|row| !row.this && row.state != "left" && row.state != "down");
        rows.sort_by_key(|row| std::cmp::Reverse(row.age_seconds));
        for peer in rows.iter().take(ASKED_MAX).filter_map(|row| PeerId::from_hex(&row.id)) {
            self.directory.learn(peer, None);
            if let Ok(Ok(voters)) = timeout(ANSWER_WITHIN, self.ask_voters(peer)).await
                && !voters.is_empty()
            {
                for row in &rows {
                    if let Some(peer) = PeerId::from_hex(&row.id) {
                        self.directory.learn(peer, Some(&row.name));
                    }
                }
                *self.directory.heard.lock().unwrap_or_else(PoisonError::into_inner) = voters.clone();
                return voters;
            }
        }
        Vec::new()
    }

    async fn ask_voters(&self, peer: PeerId) -> io::Result<Vec<u64>> {
        let mut stream = self.mesh.open_locks(peer).await.map_err(io::Error::other)?;
        stream.write_all(&[WHO_VOTES]).await?;
        stream.flush().await?;
        let mut bytes = Vec::new();
        stream.take(16 * 8).read_to_end(&mut bytes).await?;
        let node = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).ok();
        Ok(bytes.chunks_exact(8).filter_map(node).collect())
    }

    /// The voters that a peer named that was asked last; perhaps they are no more.
    pub(super) fn heard_of(&self) -> Vec<PeerId> {
        self.heard().into_iter().filter_map(|node| self.directory.peer(node)).collect()
    }

    pub(super) async fn open(&self, peer: PeerId) -> io::Result<PeerStream> {
        self.mesh.open_locks(peer).await.map_err(io::Error::other)
    }

    /// The peers that vote, as far as this peer can find out.
    pub(super) async fn voting(&self) -> Vec<PeerId> {
        self.voters().await.into_iter().filter_map(|node| self.directory.peer(node)).collect()
    }

    /// Tells the replica who lives, while it has a part in the group.
    async fn bring_news(self) {
        let mut since: HashMap<u64, (bool, Instant)> = HashMap::new();
        let mut changes = self.group.changes();
        loop {
            let takes_part = !changes.borrow_and_update().voters.is_empty();
            tokio::select! {
                () = sleep(NEWS_EVERY), if takes_part => {}
                changed = changes.changed(), if !takes_part => if changed.is_err() { return },
                () = self.closing.cancelled() => return,
            }
            let read = self.handle.watch(|brain, now| (brain.view(now).machines(), now.wall));
            let Some((rows, wall)) = read.await else { return };
            let now = Instant::now();
            let mut candidates = Vec::with_capacity(rows.len());
            for row in rows {
                let Some(peer) = PeerId::from_hex(&row.id) else { continue };
                self.directory.learn(peer, Some(&row.name));
                let node = node_id(&peer.0);
                let is_up = !matches!(row.state.as_str(), "down" | "left" | "suspect");
                let seen = since.entry(node).or_insert((is_up, now));
                if seen.0 != is_up {
                    *seen = (is_up, now);
                }
                let for_ms = (now - seen.1).as_millis() as u64;
                let standing = match row.state.as_str() {
                    "left" => Standing::Departed,
                    _ if is_up => Standing::Alive(for_ms),
                    _ => Standing::Down(for_ms),
                };
                let since_ms = wall.saturating_sub(row.age_seconds * 1000);
                candidates.push(Candidate { node, standing, since_ms, rack: row.labels.get("rack").cloned() });
            }
            since.retain(|node, _| candidates.iter().any(|candidate| candidate.node == *node));
            self.group.candidates(candidates).await;
        }
    }
}

/// Who votes, for the API; nobody where this peer's part in the group has failed.
pub struct Known(pub Option<Locks>);

impl Voters for Known {
    fn find(&self) -> BoxFuture<'_, Vec<PeerId>> {
        Box::pin(async move {
            match &self.0 {
                Some(locks) => locks.voting().await,
                None => Vec::new(),
            }
        })
    }
}
