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
//! Each answer is read from the brain at the moment of the question: nothing is cached here, and nothing may be
//! cached for more than a second elsewhere. `hickory` logs two lines a query at level `info`: keep it at `warn`.

mod handler;
mod zone;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::RecordType;
use hickory_server::Server;
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

pub use zone::{Directory, Found, Place};

/// A connection over TCP that is silent for so long is closed.
const TCP_IDLE: Duration = Duration::from_secs(5);
/// Answers that wait on one connection over TCP.
const TCP_ANSWERS_MAX: usize = 32;
/// Attempts to find a port that is free for UDP and for TCP, where any will do.
const BIND_TRIES: usize = 16;

/// Both sockets of a server that does not serve yet.
pub struct Dns {
    udp: UdpSocket,
    tcp: TcpListener,
    address: SocketAddr,
}

impl Dns {
    /// Takes the port for UDP and for TCP. With port 0 any that is free for both.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut tries = if address.port() == 0 { BIND_TRIES } else { 1 };
        loop {
            tries -= 1;
            let udp = UdpSocket::bind(address).await?;
            let address = udp.local_addr()?;
            match TcpListener::bind(address).await {
                Ok(tcp) => return Ok(Self { udp, tcp, address }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `closing`. `machine` is this machine's name: the name server of the zone.
    pub async fn serve(self, directory: Arc<dyn Directory>, machine: String, closing: CancellationToken) {
        let mut server = Server::new(handler::Handler::new(directory, &machine));
        server.register_socket(self.udp);
        server.register_listener(self.tcp, TCP_IDLE, TCP_ANSWERS_MAX);
        let ended = tokio::select! {
            ended = server.block_until_done() => ended,
            () = closing.cancelled() => server.shutdown_gracefully().await,
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
