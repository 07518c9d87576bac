//! One port, and several sockets that take its datagrams: the kernel deals them out by who asks (SO_REUSEPORT, socket(7)).

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
use tokio::net::{TcpListener, UdpSocket};

/// More would only wait for each other.
const SOCKETS_MAX: usize = 16;
/// Attempts to find a port that is free for UDP and for TCP, where any will do.
const TRIES: usize = 16;

/// `count` sockets for datagrams and one for connections, all at one address. With port 0 at any that is free for both.
///
/// # Errors
///
/// Another program has the port, or the address is none of this machine's.
pub async fn bind(address: SocketAddr, count: usize) -> io::Result<(Vec<UdpSocket>, TcpListener, SocketAddr)> {
    let mut tries = if address.port() == 0 { TRIES } else { 1 };
    loop {
        tries -= 1;
        // Alone first: beside another server that shares its port, this one would take half of its questions.
        let (alone, at) = {
            let socket = std::net::UdpSocket::bind(address)?;
            let at = socket.local_addr()?;
            (socket, at)
        };
        let tcp = match TcpListener::bind(at).await {
            Ok(tcp) => tcp,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries > 0 => continue,
            Err(error) => return Err(error),
        };
        drop(alone);
        let sockets = (0..count.clamp(1, SOCKETS_MAX)).map(|_| shared(at)).collect::<io::Result<Vec<_>>>()?;
        return Ok((sockets, tcp, at));
    }
}

/// A socket that lets others of this user share its address.
fn shared(address: SocketAddr) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(family, SockType::Datagram, flags, None)?;
    socket::setsockopt(&socket, sockopt::ReusePort, &true)?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    UdpSocket::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_is_shared_with_oneself_and_with_nobody_else() {
        let (sockets, tcp, address) = bind("127.0.0.1:0".parse().unwrap(), 3).await.unwrap();
        assert_eq!(tcp.local_addr().unwrap(), address);
        assert!(sockets.len() == 3 && sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        let taken = bind(address, 3).await.unwrap_err();
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        // Whoever asks is heard at one of them.
        let asker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        asker.send_to(b"?", address).await.unwrap();
        let mut heard = tokio::task::JoinSet::new();
        for socket in sockets {
            heard.spawn(async move { socket.recv_from(&mut [0; 8]).await.unwrap().1 });
        }
        assert_eq!(heard.join_next().await.unwrap().unwrap(), asker.local_addr().unwrap());
    }
}
