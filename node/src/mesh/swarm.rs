//! The task that owns libp2p's swarm: connections come, go and are dialled here.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::core::ConnectedPoint;
use libp2p::core::upgrade::Version;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{ConnectionId, DialError, NetworkBehaviour, SwarmEvent};
use libp2p::{Swarm, SwarmBuilder, Transport, identity, noise, tcp, yamux};
use nix::sys::socket::{setsockopt, sockopt};
use rialto_protocol::ids::PeerId;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::address::{libp2p_peer, multiaddr, peer_of, socket_addr};
use super::behaviour::{Arrival, Order, Streams};
use super::context::{Open, Shared};
use super::doors::{Door, Standing};
use super::stream::PeerStream;
use super::{MeshError, MeshEvent, OpenError, hello, inbox};
use crate::identity::Identity;

/// A connection that is not ready after so long is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(4);
/// What was sent must be acknowledged by the other machine's kernel within this time, ms: so a cut
/// cable is noticed.
const UNACKNOWLEDGED_MS_MAX: u32 = 5_000;
/// A silent connection is probed after so long, and then as often, s.
const PROBE_S: u32 = 5;
/// A connection without a stream ends after this.
const IDLE: Duration = Duration::from_secs(20);
/// An identity that is no member has so long to say hello.
const STRANGER_MAX: Duration = Duration::from_secs(2);
/// One that has said hello has this many times as long to become one.
const GREETING_LOOKS_MAX: u32 = 8;
/// One stranger is named in the log at most so often, and so many are remembered for that.
const NAMED_AGAIN: Duration = Duration::from_secs(600);
const NAMED_MAX: usize = 256;
/// The most connections that are in their handshake, and that one peer has.
const PENDING_MAX: u32 = 256;
const CONNECTIONS_MAX: u32 = 8;
/// The most streams that wait for the dial of one peer.
const WAITING_MAX: usize = 128;
/// All connections have so long to close when everything ends.
const GOODBYE_MAX: Duration = Duration::from_millis(500);

#[derive(NetworkBehaviour)]
struct Behaviour {
    limits: connection_limits::Behaviour,
    streams: Streams,
}

pub(super) struct Task {
    swarm: Swarm<Behaviour>,
    shared: Arc<Shared>,
    opens: mpsc::Receiver<Open>,
    arrivals: mpsc::Receiver<Arrival>,
    /// Streams to be opened when their peer's dial succeeds.
    waiting: HashMap<libp2p::PeerId, Vec<Order>>,
    /// Connections of identities that are no members, the oldest first.
    strangers: VecDeque<Stranger>,
    /// Strangers that were named in the log, and when.
    named: HashMap<PeerId, Instant>,
}

struct Stranger {
    due: Instant,
    /// How often it was looked at.
    looks: u32,
    id: ConnectionId,
    peer: PeerId,
    standing: Arc<Standing>,
    address: String,
}

impl Task {
    /// A swarm that listens, and the addresses at which it does.
    pub(super) async fn new(
        shared: Arc<Shared>,
        identity: &Identity,
        listen: SocketAddr,
        opens: mpsc::Receiver<Open>,
    ) -> Result<(Self, Vec<SocketAddr>), MeshError> {
        let failed = |error| MeshError::Listen(listen, error);
        claim(listen).map_err(failed)?;
        let (arrived, arrivals) = mpsc::channel(1024);
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(PENDING_MAX))
            .with_max_established_per_peer(Some(CONNECTIONS_MAX));
        let streams = Streams::new(shared.doors.clone(), arrived);
        let behaviour = Behaviour { limits: connection_limits::Behaviour::new(limits), streams };
        let mut swarm = swarm(identity, behaviour)?;
        swarm.listen_on(multiaddr(listen)).map_err(|error| failed(io::Error::other(error)))?;
        let (waiting, strangers, named) = (HashMap::new(), VecDeque::new(), HashMap::new());
        let mut task = Self { swarm, shared, opens, arrivals, waiting, strangers, named };
        let listening = task.listening(listen).await.map_err(failed)?;
        Ok((task, listening))
    }

    /// Waits until the swarm listens. On `0.0.0.0` it names each interface's address in turn.
    async fn listening(&mut self, listen: SocketAddr) -> io::Result<Vec<SocketAddr>> {
        loop {
            match self.swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { .. } => break,
                SwarmEvent::ListenerClosed { reason: Err(error), .. } | SwarmEvent::ListenerError { error, .. } => {
                    return Err(error);
                }
                other => self.on_swarm(other),
            }
        }
        if !listen.ip().is_unspecified() {
            return Ok(self.swarm.listeners().filter_map(socket_addr).collect());
        }
        let port = self.swarm.listeners().find_map(socket_addr).map_or(listen.port(), |address| address.port());
        let interfaces = nix::ifaddrs::getifaddrs()?;
        let addresses = interfaces.filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::new(v4.ip().into(), port));
            let v6 = address.as_sockaddr_in6().map(|v6| SocketAddr::new(v6.ip().into(), port));
            v4.or(v6).filter(|one| one.is_ipv4() == listen.is_ipv4())
        });
        Ok(addresses.collect())
    }

    pub(super) async fn run(mut self) {
        let halt = self.shared.halt.clone();
        let shared = self.shared.clone();
        loop {
            let due = self.strangers.front().map(|stranger| stranger.due);
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_swarm(event),
                Some(open) = self.opens.recv() => self.open(open),
                Some(arrival) = self.arrivals.recv() => self.arrive(arrival),
                () = shared.expulsion.notified() => self.expel(),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.look_at_stranger(),
                () = halt.cancelled() => break,
            }
        }
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            // An error only says that it has just gone by itself.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let closed = async {
            while self.swarm.connected_peers().next().is_some() {
                self.swarm.select_next_some().await;
            }
        };
        let _ = timeout(GOODBYE_MAX, closed).await;
    }

    fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => self.dial_failed(peer, &error),
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                self.shared.counters.handshakes_failed.add(1);
                if self.shared.log_limits.handshake.allows() {
                    tracing::info!(address = %send_back_addr, %error, "a connection was not one of a peer");
                }
            }
            SwarmEvent::ListenerError { error, .. } => tracing::warn!(%error, "a connection could not be accepted"),
            SwarmEvent::ListenerClosed { reason, .. } => tracing::error!(?reason, "the mesh listens no more"),
            _ => {}
        }
    }

    fn established(&mut self, theirs: libp2p::PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(peer) = peer_of(&theirs) else { return };
        let is_member = self.shared.doors.is_member(&peer);
        match endpoint {
            ConnectedPoint::Dialer { address, .. } if is_member => {
                if let Some(address) = socket_addr(address) {
                    self.shared.book.lock().expect("nobody panics with the lock").confirm(peer, address);
                    self.shared.book_changed.notify_one();
                }
            }
            ConnectedPoint::Listener { send_back_addr, .. } if !is_member => {
                let (due, address) = (Instant::now() + STRANGER_MAX, send_back_addr.to_string());
                let standing = self.shared.doors.standing(&peer);
                self.strangers.push_back(Stranger { due, looks: 0, id, peer, standing, address });
            }
            _ => {}
        }
        for order in self.waiting.remove(&theirs).unwrap_or_default() {
            let _ = self.swarm.behaviour_mut().streams.open(&theirs, order);
        }
        let outboxes = self.shared.outboxes.lock().expect("nobody panics with the lock");
        if let Some(outbox) = outboxes.get(&peer) {
            outbox.stir();
        }
    }

    fn dial_failed(&mut self, theirs: libp2p::PeerId, error: &DialError) {
        if let DialError::WrongPeerId { obtained, address } = error
            && let (Some(peer), Some(at)) = (peer_of(&theirs), socket_addr(address))
        {
            self.shared.book.lock().expect("nobody panics with the lock").refute(&peer, &at);
            self.shared.book_changed.notify_one();
            tracing::debug!(%peer, address = %at, obtained = ?peer_of(obtained), "another peer answers there");
        }
        let reason = reason(error);
        for order in self.waiting.remove(&theirs).unwrap_or_default() {
            let _ = order.reply.send(Err(OpenError::Unreachable(reason.clone())));
        }
    }

    fn open(&mut self, Open { peer, addresses, order }: Open) {
        let Some(theirs) = libp2p_peer(&peer).filter(|_| peer != self.shared.me) else {
            let _ = order.reply.send(Err(OpenError::Unreachable("its identity is not one of a peer".into())));
            return;
        };
        let Err(order) = self.swarm.behaviour_mut().streams.open(&theirs, order) else { return };
        let waiting = self.waiting.entry(theirs).or_default();
        if waiting.len() >= WAITING_MAX {
            let _ = order.reply.send(Err(OpenError::Unreachable("too much waits for it already".into())));
            return;
        }
        waiting.push(order);
        let opts = DialOpts::peer_id(theirs)
            .condition(PeerCondition::DisconnectedAndNotDialing)
            .addresses(addresses.into_iter().map(multiaddr).collect())
            .allocate_new_port()
            .build();
        match self.swarm.dial(opts) {
            // One is under way: it serves this order too.
            Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
            Err(error) => self.dial_failed(theirs, &error),
        }
    }

    fn arrive(&mut self, Arrival { from, door, stream, ticket }: Arrival) {
        let shared = self.shared.clone();
        if ticket.is_none() && door != Door::Hello {
            shared.counters.streams_refused.add(1);
            if shared.log_limits.streams.allows() {
                tracing::warn!(peer = %from, protocol = door.name(), "too many streams are open: one is refused");
            }
            return;
        }
        match (door, ticket) {
            (Door::Hello, ticket) => {
                let introduce = hello::introduce(shared.clone(), from, stream, ticket);
                self.shared.spawn(async move {
                    // None: everything ends, and the newcomer asks again elsewhere.
                    let _: Option<()> = shared.stop.run_until_cancelled(introduce).await;
                });
            }
            (Door::Link, Some(ticket)) => self.shared.spawn(inbox::read(shared, from, stream, ticket)),
            (Door::Api, ticket) => {
                let event = MeshEvent::ApiStream { from, stream: PeerStream::new(stream, ticket) };
                // A stream of its own may wait for the driver; the swarm may not.
                self.shared.spawn(async move { shared.tell(event).await });
            }
            (Door::Locks, ticket) => {
                let event = MeshEvent::LocksStream { from, stream: PeerStream::new(stream, ticket) };
                self.shared.spawn(async move { shared.tell(event).await });
            }
            (Door::Link, None) => {}
        }
    }

    /// Closes the connections of those that are members no more.
    fn expel(&mut self) {
        let expelled = std::mem::take(&mut *self.shared.expelled.lock().expect("nobody panics with the lock"));
        for peer in expelled.iter().filter(|peer| !self.shared.doors.is_member(peer)).filter_map(libp2p_peer) {
            // An error only says that it is not connected.
            let _ = self.swarm.disconnect_peer_id(peer);
        }
    }

    /// An identity that was unknown when it connected has had its time.
    fn look_at_stranger(&mut self) {
        let Some(stranger) = self.strangers.pop_front() else { return };
        let standing = &stranger.standing;
        if standing.is_member() {
            return;
        }
        if standing.has_greeted() && stranger.looks < GREETING_LOOKS_MAX {
            let (due, looks) = (Instant::now() + STRANGER_MAX, stranger.looks + 1);
            self.strangers.push_back(Stranger { due, looks, ..stranger });
            return;
        }
        self.swarm.close_connection(stranger.id);
        if !standing.has_greeted() {
            self.shared.counters.strangers.add(1);
            // A peer that was removed dials for ever: its line comes once in a while.
            let now = Instant::now();
            if self.named.len() >= NAMED_MAX {
                self.named.clear();
            }
            let is_new = self.named.get(&stranger.peer).is_none_or(|named| now - *named > NAMED_AGAIN);
            if is_new && self.shared.log_limits.stranger.allows() {
                self.named.insert(stranger.peer, now);
                let Stranger { peer, address, .. } = &stranger;
                tracing::warn!(%peer, address, "a stranger: it is no member and showed no invitation");
            }
        }
    }
}

fn swarm(identity: &Identity, behaviour: Behaviour) -> Result<Swarm<Behaviour>, MeshError> {
    let keypair = identity::Keypair::ed25519_from_bytes(identity.secret()).expect("32 bytes are a secret key");
    let noise = noise::Config::new(&keypair).map_err(|error| MeshError::Transport(error.to_string()))?;
    let transport = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true))
        .map(|stream, _| {
            watch(&stream.0);
            stream
        })
        .upgrade(Version::V1Lazy)
        .authenticate(noise)
        .multiplex(yamux::Config::default())
        .timeout(HANDSHAKE_MAX);
    let builder = SwarmBuilder::with_existing_identity(keypair).with_tokio();
    let builder = builder.with_other_transport(|_| transport).expect("a transport that is made already");
    let builder = builder.with_behaviour(|_| behaviour).expect("a behaviour that is made already");
    Ok(builder.with_swarm_config(|config| config.with_idle_connection_timeout(IDLE)).build())
}

/// Has the kernel notice a connection whose other end is gone. Heartbeats alone would fill the
/// socket's buffer for hours before a write would wait.
fn watch(stream: &tokio::net::TcpStream) {
    let socket = stream.as_fd();
    let set = || {
        setsockopt(&socket, sockopt::TcpUserTimeout, &UNACKNOWLEDGED_MS_MAX)?;
        setsockopt(&socket, sockopt::KeepAlive, &true)?;
        setsockopt(&socket, sockopt::TcpKeepIdle, &PROBE_S)?;
        setsockopt(&socket, sockopt::TcpKeepInterval, &PROBE_S)?;
        setsockopt(&socket, sockopt::TcpKeepCount, &2)
    };
    if let Err(error) = set() {
        tracing::debug!(%error, "a socket keeps the kernel's time limits");
    }
}

/// Makes sure that the address is nobody else's. libp2p shares ports (`SO_REUSEPORT`), so a second
/// peer on the same one would take away every other connection without a word.
fn claim(listen: SocketAddr) -> io::Result<()> {
    std::net::TcpListener::bind(listen).map(drop)
}

/// A failed dial in one line.
fn reason(error: &DialError) -> String {
    match error {
        DialError::NoAddresses => "no address of it is known".into(),
        DialError::WrongPeerId { address, .. } => {
            format!("another peer answers at {}", socket_addr(address).map_or(address.to_string(), |a| a.to_string()))
        }
        DialError::Transport(attempts) => {
            let told = attempts.iter().map(|(address, error)| {
                let address = socket_addr(address).map_or_else(|| address.to_string(), |a| a.to_string());
                let mut cause: &dyn std::error::Error = error;
                while let Some(deeper) = cause.source() {
                    cause = deeper;
                }
                format!("{address}: {cause}")
            });
            told.collect::<Vec<_>>().join("; ")
        }
        other => other.to_string(),
    }
}
