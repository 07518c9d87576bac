//! What the kernel is told about links, addresses and routes, by netlink. The library is known here alone.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use futures::TryStreamExt;
use nix::libc;
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute};
use rtnetlink::packet_route::neighbour::{NeighbourFlags, NeighbourState};
use rtnetlink::{
    Error, Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth, LinkVxlan,
    RouteMessageBuilder, new_connection,
};
use tokio::task::JoinHandle;

/// The number of a task's own link in its namespace: asked for, so that nobody has to look it up.
const TASK_LINK: u32 = 100;
/// The loopback link's, in every namespace.
const LOOPBACK: u32 = 1;

/// A hardware address.
pub type Mac = [u8; 6];

/// A link of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// The bridge that it is a port of.
    pub bridge: Option<u32>,
}

/// A way to other addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    pub to: Ipv4Addr,
    pub prefix: u8,
    pub via: Option<Ipv4Addr>,
    /// Of the link; the kernel finds it where it is `None`.
    pub link: Option<u32>,
    /// The next hop is at the link, whatever its address is.
    pub on_link: bool,
}

/// A connection to the kernel, for the network namespace in which it was opened.
pub struct Netlink {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Netlink {
    /// Opens one, in the namespace of this thread. To be called within a tokio runtime.
    pub fn open() -> io::Result<Self> {
        let (connection, handle, _) = new_connection()?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// All links.
    pub async fn links(&self) -> io::Result<Vec<Link>> {
        let mut found = Vec::new();
        let mut links = self.handle.link().get().execute();
        while let Some(message) = links.try_next().await.map_err(told)? {
            let (mut name, mut bridge) = (None, None);
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(text) => name = Some(text),
                    LinkAttribute::Controller(index) => bridge = Some(index).filter(|index| *index > 0),
                    _ => {}
                }
            }
            found.extend(name.map(|name| Link { index: message.header.index, name, bridge }));
        }
        Ok(found)
    }

    /// The number of the link of this name.
    pub async fn index(&self, name: &str) -> io::Result<Option<u32>> {
        let mut links = self.handle.link().get().match_name(name.into()).execute();
        match links.try_next().await.map_err(told) {
            Ok(link) => Ok(link.map(|link| link.header.index)),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A bridge of this name, which is up; its number. It has a hardware address of its own, or else the lowest of its
    /// ports', another whenever a task comes or goes.
    pub async fn bridge(&self, name: &str, mac: Mac) -> io::Result<u32> {
        let bridge = LinkBridge::new(name).address(mac.to_vec()).up().build();
        self.made(name, self.handle.link().add(bridge).execute().await).await
    }

    /// One end of tunnels over UDP, with `mac`; its number. Nothing is learned or flooded: who is where is told by
    /// [`Netlink::neighbour`].
    pub async fn tunnel(&self, name: &str, number: u32, port: u16, local: IpAddr, mac: Mac) -> io::Result<u32> {
        let link = LinkVxlan::new(name, number).port(port).learning(false).address(mac.to_vec());
        let link = match local {
            IpAddr::V4(ip) => link.local(ip),
            IpAddr::V6(ip) => link.local6(ip),
        };
        self.made(name, self.handle.link().add(link.up().build()).execute().await).await
    }

    async fn made(&self, name: &str, made: Result<(), Error>) -> io::Result<u32> {
        allowed(made, libc::EEXIST)?;
        self.index(name).await?.ok_or_else(|| io::Error::other(format!("link {name} is not there")))
    }

    /// Gives a link an address.
    pub async fn address(&self, link: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        allowed(self.handle.address().add(link, address.into(), prefix).execute().await, libc::EEXIST)
    }

    /// The IPv4 and IPv6 addresses of this machine, each with the length of its prefix and its link.
    pub async fn addresses(&self) -> io::Result<Vec<(IpAddr, u8, u32)>> {
        use rtnetlink::packet_route::address::AddressAttribute;
        let mut found = Vec::new();
        let mut addresses = self.handle.address().get().execute();
        while let Some(message) = addresses.try_next().await.map_err(told)? {
            let (length, link) = (message.header.prefix_len, message.header.index);
            let mut own = None;
            for attribute in message.attributes {
                match attribute {
                    // Of a link with two ends the local one is this machine's.
                    AddressAttribute::Local(address) => own = Some(address),
                    AddressAttribute::Address(address) => own = own.or(Some(address)),
                    _ => {}
                }
            }
            found.extend(own.map(|address| (address, length, link)));
        }
        Ok(found)
    }

    /// Ends a link; one that is not there is as good as ended.
    pub async fn delete(&self, name: &str) -> io::Result<()> {
        match self.index(name).await? {
            Some(index) => allowed(self.handle.link().del(index).execute().await, libc::ENODEV),
            None => Ok(()),
        }
    }

    /// Goes this way from now on.
    pub async fn route(&self, route: Route) -> io::Result<()> {
        self.handle.route().add(message(route)).replace().execute().await.map_err(told)
    }

    /// Goes this way no more.
    pub async fn no_route(&self, route: Route) -> io::Result<()> {
        allowed(self.handle.route().del(message(route)).execute().await, libc::ESRCH)
    }

    /// Behind a tunnel: `address` has `mac`, and `mac` is at the machine `at`.
    pub async fn neighbour(&self, link: u32, address: Ipv4Addr, mac: Mac, at: IpAddr) -> io::Result<()> {
        let neighbours = self.handle.neighbours();
        let known = neighbours.add(link, address.into()).link_local_address(&mac).state(NeighbourState::Permanent);
        known.replace().execute().await.map_err(told)?;
        let known = neighbours.add_bridge(link, &mac).destination(at).state(NeighbourState::Permanent);
        known.flags(NeighbourFlags::Own).replace().execute().await.map_err(told)
    }

    /// Makes a task's link, from within its namespace: one end, `eth0`, is here and the other, `outer`, in the
    /// namespace `machine`.
    pub async fn task_link(
        &self,
        outer: &str,
        machine: BorrowedFd<'_>,
        address: Ipv4Addr,
        gateway: Ipv4Addr,
    ) -> io::Result<()> {
        let fd: RawFd = machine.as_raw_fd();
        // Not up yet: of a pair the kernel makes the far end first, and an end without the other cannot be.
        let peer = LinkMessageBuilder::<LinkUnspec>::new().name(outer.into()).setns_by_fd(fd).build();
        let pair = LinkMessageBuilder::<LinkVeth>::new("eth0", outer)
            .index(TASK_LINK)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .up();
        self.handle.link().add(pair.build()).execute().await.map_err(told)?;
        self.handle.link().set(LinkUnspec::new_with_index(LOOPBACK).up().build()).execute().await.map_err(told)?;
        self.address(TASK_LINK, address, 32).await?;
        // All that it says goes through the machine, to its neighbours too: there it is judged who may speak to whom.
        let out =
            Route { to: Ipv4Addr::UNSPECIFIED, prefix: 0, via: Some(gateway), link: Some(TASK_LINK), on_link: true };
        self.route(out).await
    }

    /// Makes a link a port of a bridge. `isolated`: nothing goes straight to other ports; else all of it may, and back by
    /// the port that it came by.
    pub async fn port(&self, link: &str, bridge: u32, isolated: bool) -> io::Result<()> {
        let index = self.index(link).await?.ok_or_else(|| io::Error::other(format!("link {link} is not there")))?;
        let port = LinkUnspec::new_with_index(index).controller(bridge).up().build();
        self.handle.link().set(port).execute().await.map_err(told)?;
        let way = LinkBridgePort::new(index).isolated(isolated).hairpin(!isolated).build();
        self.handle.link().set_port(way).execute().await.map_err(told)
    }
}

fn message(route: Route) -> rtnetlink::packet_route::route::RouteMessage {
    let mut built = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(route.to, route.prefix);
    if let Some(via) = route.via {
        built = built.gateway(via);
    }
    if let Some(link) = route.link {
        built = built.output_interface(link);
    }
    if route.on_link {
        built = built.onlink();
    }
    built.build()
}

/// An error of the kernel's that says that all is well already.
fn allowed(result: Result<(), Error>, code: i32) -> io::Result<()> {
    match result.map_err(told) {
        Err(error) if error.raw_os_error() == Some(code) => Ok(()),
        result => result,
    }
}

fn told(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
