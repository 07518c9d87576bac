//! Streams over connections: libp2p's side of the mesh.
//!
//! The crate `libp2p-stream` (0.5.0-alpha) does nearly this, and the tests use it as the other side.
//! It is not used here because it drops a stream that comes in while another waits to be picked up
//! (of 50 opened at once, up to 10), opens streams on any connection to a peer instead of the newest,
//! keeps something of every connection for ever, and opens all its protocols to everybody.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{InboundUpgrade, ReadyUpgrade, UpgradeInfo};
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{
    CloseConnection, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Stream, StreamProtocol};
use rialto_protocol::ids::PeerId;
use tokio::sync::{mpsc, oneshot};

use super::OpenError;
use super::address::peer_of;
use super::doors::{Door, Doors, Standing, Ticket};

/// Two connections that came up within this time may be both ends' dials of each other: both stay.
/// An older one is stale, for a peer that has a connection makes no second one.
const SIMULTANEOUS: Duration = Duration::from_secs(2);
/// A peer that does not answer the opening of a stream within this time is gone.
const NEGOTIATION_MAX: Duration = Duration::from_secs(5);
/// The most connections of identities that are not members.
const STRANGERS_MAX: usize = 64;

/// A stream that is to be opened.
#[derive(Debug)]
pub(super) struct Order {
    pub door: Door,
    pub reply: oneshot::Sender<Result<Stream, OpenError>>,
}

/// A stream that a peer has opened.
pub(super) struct Arrival {
    pub from: PeerId,
    pub door: Door,
    pub stream: Stream,
    /// `None`: too many are open, and this one is to be refused.
    pub ticket: Option<Ticket>,
}

/// All connections to one peer.
struct Connections {
    peer: PeerId,
    /// The newest last.
    all: Vec<(ConnectionId, Instant)>,
}

/// Opens streams on the newest connection, and lets in those that the doors allow.
pub(super) struct Streams {
    doors: Arc<Doors>,
    arrivals: mpsc::Sender<Arrival>,
    connections: HashMap<libp2p::PeerId, Connections>,
    actions: VecDeque<ToSwarm<Infallible, Order>>,
    waker: Option<Waker>,
}

impl Streams {
    pub(super) fn new(doors: Arc<Doors>, arrivals: mpsc::Sender<Arrival>) -> Self {
        let (connections, actions) = (HashMap::new(), VecDeque::new());
        Self { doors, arrivals, connections, actions, waker: None }
    }

    /// Opens a stream on the newest connection; gives the order back where there is none.
    pub(super) fn open(&mut self, peer: &libp2p::PeerId, order: Order) -> Result<(), Order> {
        let Some((newest, _)) = self.connections.get(peer).and_then(|known| known.all.last()) else {
            return Err(order);
        };
        let handler = NotifyHandler::One(*newest);
        self.act(ToSwarm::NotifyHandler { peer_id: *peer, handler, event: order });
        Ok(())
    }

    fn close(&mut self, peer_id: libp2p::PeerId, id: ConnectionId) {
        self.act(ToSwarm::CloseConnection { peer_id, connection: CloseConnection::One(id) });
    }

    fn act(&mut self, action: ToSwarm<Infallible, Order>) {
        self.actions.push_back(action);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn handler(&self, peer: &libp2p::PeerId) -> Result<Handler, ConnectionDenied> {
        let peer = peer_of(peer).ok_or_else(|| ConnectionDenied::new("an identity that is not an ed25519 key"))?;
        let standing = self.doors.standing(&peer);
        let (orders, stalled) = (VecDeque::new(), false);
        Ok(Handler { peer, standing, arrivals: self.arrivals.clone(), orders, stalled })
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: libp2p::PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let is_stranger = |peer: &PeerId| !self.doors.is_member(peer);
        let strangers = || self.connections.values().filter(|known| is_stranger(&known.peer)).count();
        if peer_of(&peer).is_none_or(|peer| is_stranger(&peer)) && strangers() >= STRANGERS_MAX {
            return Err(ConnectionDenied::new("too many strangers are connected"));
        }
        self.handler(&peer)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: libp2p::PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.handler(&peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, .. }) => {
                let Some(peer) = peer_of(&peer_id) else { return };
                self.doors.connected(&peer);
                let fresh = || Connections { peer, all: Vec::new() };
                let known = self.connections.entry(peer_id).or_insert_with(fresh);
                let stale = known.all.iter().filter(|(_, since)| since.elapsed() > SIMULTANEOUS);
                let stale: Vec<_> = stale.map(|(id, _)| *id).collect();
                known.all.push((connection_id, Instant::now()));
                stale.into_iter().for_each(|id| self.close(peer_id, id));
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                let Some(known) = self.connections.get_mut(&peer_id) else { return };
                known.all.retain(|(id, _)| *id != connection_id);
                self.doors.disconnected(&known.peer);
                if known.all.is_empty() {
                    self.connections.remove(&peer_id);
                }
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(&mut self, peer: libp2p::PeerId, id: ConnectionId, _: THandlerOutEvent<Self>) {
        self.close(peer, id);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        if let Some(action) = self.actions.pop_front() {
            return Poll::Ready(action);
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// One connection's side of [`Streams`].
pub(super) struct Handler {
    peer: PeerId,
    standing: Arc<Standing>,
    arrivals: mpsc::Sender<Arrival>,
    orders: VecDeque<Order>,
    stalled: bool,
}

/// The peer at the other end of a connection does not answer.
#[derive(Debug)]
pub(super) struct Stalled;

impl ConnectionHandler for Handler {
    type FromBehaviour = Order;
    type ToBehaviour = Stalled;
    type InboundProtocol = Offer;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Order;

    fn listen_protocol(&self) -> SubstreamProtocol<Offer> {
        SubstreamProtocol::new(Offer(self.standing.offers()), ())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Order, Stalled>> {
        if std::mem::take(&mut self.stalled) {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Stalled));
        }
        // The connection polls again after each order and each event: no waker is needed.
        let Some(order) = self.orders.pop_front() else { return Poll::Pending };
        let upgrade = ReadyUpgrade::new(order.door.protocol());
        let protocol = SubstreamProtocol::new(upgrade, order).with_timeout(NEGOTIATION_MAX);
        Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
    }

    fn on_behaviour_event(&mut self, order: Order) {
        self.orders.push_back(order);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<Self::InboundProtocol, Self::OutboundProtocol, (), Self::OutboundOpenInfo>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: (stream, door), .. }) => {
                let ticket = self.standing.enter(door);
                // Where even the queue of arrivals is full the stream is dropped, which resets it.
                let _ = self.arrivals.try_send(Arrival { from: self.peer, door, stream, ticket });
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, info: order }) => {
                let _ = order.reply.send(Ok(stream));
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: order, error }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => OpenError::Unsupported(order.door.name()),
                    StreamUpgradeError::Timeout => {
                        self.stalled = true;
                        OpenError::Unreachable("it does not answer".into())
                    }
                    StreamUpgradeError::Io(error) => OpenError::Unreachable(error.to_string()),
                    StreamUpgradeError::Apply(never) => match never {},
                };
                let _ = order.reply.send(Err(error));
            }
            _ => {}
        }
    }
}

/// The protocols that a peer may choose from when it opens a stream.
pub(super) struct Offer([Option<StreamProtocol>; 4]);

impl UpgradeInfo for Offer {
    type Info = StreamProtocol;
    type InfoIter = std::iter::Flatten<std::array::IntoIter<Option<StreamProtocol>, 4>>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter().flatten()
    }
}

impl InboundUpgrade<Stream> for Offer {
    type Output = (Stream, Door);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, chosen: StreamProtocol) -> Self::Future {
        ready(Ok((stream, Door::of(&chosen).expect("one of those that were offered"))))
    }
}
