//! DNS: services and machines by name, from this peer's own ledger.
//!
//! A peer binds, and then serves until it goes down; a taken port is a warning and no failed start:
//!
//! ```ignore
//! let dns = match Dns::bind(address).await {
//!     Ok(dns) => tokio::spawn(dns.serve(Arc::new(handle.clone()), machine.clone(), closing.clone())),
//!     Err(error) => warnings.lock().unwrap().push(format!("DNS does not answer: {address}: {error}")),
//! };
//! ```
//!
//! Each answer is read from the brain; over UDP, where nearly all questions come, it is given again for a few hundredths
//! of a second, and nothing may be kept for more than a second elsewhere. `hickory` logs two lines a query at level `info`: keep it at `warn`.

mod datagrams;
mod forward;
mod handler;
#[cfg(test)]
mod hostile;
mod limits;
mod packet;
mod remembered;
mod reverse;
mod sockets;
mod zone;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_server::Server;
use rialto_protocol::model::network::Subnet;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use zone::{Directory, Found, Place};

/// A connection over TCP that is silent for so long is closed.
const TCP_IDLE: Duration = Duration::from_secs(5);
/// Answers that wait on one connection over TCP.
const TCP_ANSWERS_MAX: usize = 32;

/// The sockets of a server that does not serve yet.
pub struct Dns {
    udp: Vec<UdpSocket>,
    tcp: TcpListener,
    address: SocketAddr,
    /// Names outside of the zone are asked of the machine's own name servers, for these tasks.
    forwards_for: Option<Subnet>,
}

impl Dns {
    /// Takes the port for UDP, one socket for each core, and for TCP. With port 0 any that is free for both.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let (udp, tcp, address) = sockets::bind(address, cores).await?;
        Ok(Self { udp, tcp, address, forwards_for: None })
    }

    /// The same, for the machine's tasks: names outside of the zone are asked for in their place.
    pub fn forwarding(self, tasks: Subnet) -> Self {
        Self { forwards_for: Some(tasks), ..self }
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `closing`. `machine` is this machine's name: the name server of the zone.
    pub async fn serve(self, directory: Arc<dyn Directory>, machine: String, closing: CancellationToken) {
        let forwarder = self.forwards_for.map(|tasks| forward::Forwarder::new(self.address.ip(), tasks));
        let handler = Arc::new(handler::Handler::new(directory, &machine, forwarder));
        let mut server = Server::new(handler::Shared(handler.clone()));
        server.register_listener(self.tcp, TCP_IDLE, TCP_ANSWERS_MAX);
        // Each socket's questions are answered by a task of its own; all end with this one.
        let mut sockets = JoinSet::new();
        for socket in self.udp {
            sockets.spawn(datagrams::serve(socket, handler.clone(), closing.clone()));
        }
        let ended = tokio::select! {
            ended = server.block_until_done() => ended,
            _ = sockets.join_next() => server.shutdown_gracefully().await,
        };
        if let Err(error) = ended {
            tracing::error!(%error, address = %self.address, "DNS has stopped answering");
        }
    }
}

/// Asks the server at `address` for the zone itself.
pub async fn probe(address: SocketAddr) -> io::Result<()> {
    let (from, to): (IpAddr, IpAddr) = match address.ip() {
        IpAddr::V4(ip) => {
            (Ipv4Addr::UNSPECIFIED.into(), if ip.is_unspecified() { Ipv4Addr::LOCALHOST } else { ip }.into())
        }
        IpAddr::V6(ip) => {
            (Ipv6Addr::UNSPECIFIED.into(), if ip.is_unspecified() { Ipv6Addr::LOCALHOST } else { ip }.into())
        }
    };
    let mut question = Message::query();
    question.add_query(Query::query(zone::apex(), RecordType::SOA));
    let socket = UdpSocket::bind((from, 0)).await?;
    socket.connect((to, address.port())).await?;
    socket.send(&question.to_vec().map_err(io::Error::other)?).await?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer).await?;
    let answer = Message::from_vec(&buffer[..length]).map_err(io::Error::other)?;
    match answer.metadata.response_code {
        ResponseCode::NoError if answer.metadata.id == question.metadata.id && !answer.answers.is_empty() => Ok(()),
        code => Err(io::Error::other(format!("the answer is {code}"))),
    }
}
