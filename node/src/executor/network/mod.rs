//! Networks of tasks. Each task has a network namespace of its own with one link, whose other end is a port of the
//! machine's bridge; everything a task says goes through its machine, to its neighbour there as to the world outside.
//!
//! ```text
//! Network::open(settings) -> io::Result<Network>          whether this process may; makes nothing yet
//!     .attach(claim, address).await -> Namespace           for a task that is about to start
//!     .detach(claim).await                                 its link, when it has ended
//!     .remove().await                                      everything, when nothing runs here any more
//! Keeper::new(network).update(machines, apps).await        makes the kernel as the peer believes that things are
//! ```
//!
//! In the kernel everything bears the peer's name: the bridge `rialto-XXXXXXXX`, the tunnel `rialtox-XXXXXXX`, the
//! table `rialto_XXXXXXXX` of nftables, and links `rt…` of tasks, which are the bridge's ports.

mod doors;
mod keeper;
pub mod namespace;
mod netlink;
mod nft;
pub mod path;
mod rules;
mod ruleset;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rialto_protocol::api::LinkRow;
use rialto_protocol::ids::{ClaimId, PeerId};
use rialto_protocol::model::{Range, Subnet};
use tokio::sync::watch;
use tokio::time::timeout;

pub use keeper::Keeper;
use namespace::Namespace;
use netlink::Netlink;
pub use path::Overlay;

/// A start waits so long for the machine's subnet and bridge.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// Whether packets are forwarded is the whole machine's affair: as it was before is put back at the end.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// What a network must know of its peer.
#[derive(Clone, Debug)]
pub struct Settings {
    pub me: PeerId,
    pub range: Range,
    pub overlay: Overlay,
    /// Where it is remembered what the machine was like before.
    pub folder: PathBuf,
}

/// The network of this machine's tasks.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

struct Inner {
    settings: Settings,
    names: Names,
    /// The namespace of the machine itself.
    machine: Namespace,
    netlink: Netlink,
    ground: watch::Sender<Option<Ground>>,
    /// For people: the ways to other machines, and what does not work.
    seen: Mutex<Seen>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    links: Vec<LinkRow>,
    troubles: Vec<String>,
}

/// What everything is called in the kernel.
#[derive(Clone, Debug)]
struct Names {
    bridge: String,
    tunnel: String,
    table: String,
}

/// What tasks stand on: there once the machine has its subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ground {
    subnet: Subnet,
    bridge: u32,
}

impl Network {
    /// Finds out whether this process may make networks. To be called within a tokio runtime.
    pub fn open(settings: Settings) -> io::Result<Self> {
        nft::probe()?;
        let id = settings.me.hex();
        let names = Names {
            bridge: format!("rialto-{}", &id[..8]),
            tunnel: format!("rialtox-{}", &id[..7]),
            table: format!("rialto_{}", &id[..8]),
        };
        let (machine, netlink) = (Namespace::own()?, Netlink::open()?);
        Ok(Self(Arc::new(Inner {
            settings,
            names,
            machine,
            netlink,
            ground: watch::Sender::new(None),
            seen: Mutex::default(),
        })))
    }

    /// The addresses that it is about.
    pub fn range(&self) -> Range {
        self.0.settings.range
    }

    /// The ways to the tasks of other machines.
    pub fn links(&self) -> Vec<LinkRow> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).links.clone()
    }

    /// What does not work, sentence by sentence.
    pub fn troubles(&self) -> Vec<String> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner).troubles.clone()
    }

    /// Where tasks ask for names, as soon as that is known; `None` in it until then.
    pub fn gateway(&self) -> impl Future<Output = Option<Ipv4Addr>> + Send + use<> {
        let mut ground = self.0.ground.subscribe();
        async move {
            let ground = ground.wait_for(Option::is_some).await.ok()?;
            ground.map(|ground| ground.subnet.gateway())
        }
    }

    /// A namespace for a task, with a link at the bridge.
    pub async fn attach(&self, claim: ClaimId, address: Ipv4Addr) -> Result<Namespace, String> {
        let mut ground = self.0.ground.subscribe();
        let ready = timeout(READY_WITHIN, ground.wait_for(Option::is_some)).await;
        let ground = ready.ok().and_then(Result::ok).and_then(|ground| *ground);
        let ground = ground.ok_or("the network of this machine's tasks is not there yet")?;
        if !ground.subnet.contains(address) {
            return Err(format!("its address {address} is none of this machine's, {}", ground.subnet));
        }
        let link = link_of(claim);
        let made = async {
            self.0.netlink.delete(&link).await?;
            let made = Namespace::with_link(&self.0.machine, &link, address, ground.subnet.gateway()).await?;
            self.0.netlink.port(&link, ground.bridge, !bridge_is_filtered()).await?;
            Ok(made)
        };
        made.await.map_err(|error: io::Error| format!("its network cannot be made: {error}"))
    }

    /// Takes a task's link away. The kernel does so too when the namespace ends, but not at once.
    pub async fn detach(&self, claim: ClaimId) {
        if let Err(error) = self.0.netlink.delete(&link_of(claim)).await {
            tracing::debug!(%claim, %error, "the link of a task cannot be removed");
        }
    }

    /// Takes away the links of all tasks but these.
    pub async fn sweep(&self, live: &BTreeSet<ClaimId>) -> io::Result<()> {
        let Some(bridge) = self.0.netlink.index(&self.0.names.bridge).await? else { return Ok(()) };
        let live: BTreeSet<String> = live.iter().map(|claim| link_of(*claim)).collect();
        let links = self.0.netlink.links().await?;
        for link in links.iter().filter(|link| link.bridge == Some(bridge) && !live.contains(&link.name)) {
            self.0.netlink.delete(&link.name).await?;
        }
        Ok(())
    }

    /// Has all ports of the bridge isolated, or none.
    async fn isolate(&self, bridge: u32, isolated: bool) -> io::Result<()> {
        let links = self.0.netlink.links().await?;
        for link in links.iter().filter(|link| link.bridge == Some(bridge)) {
            self.0.netlink.port(&link.name, bridge, isolated).await?;
        }
        Ok(())
    }

    /// Takes everything away.
    pub async fn remove(&self) {
        let names = &self.0.names;
        let mut failed = Vec::new();
        for link in [&names.bridge, &names.tunnel] {
            failed.extend(self.0.netlink.delete(link).await.err());
        }
        let table = &names.table;
        failed.extend(nft::run(&format!("table ip {table}\ndelete table ip {table}\n")).await.err());
        let before = self.0.settings.folder.join("forwarding");
        if fs::read_to_string(&before).is_ok_and(|was| was.trim() == "0") {
            failed.extend(fs::write(FORWARDING, "0").err());
        }
        let _ = fs::remove_file(before);
        for error in failed {
            tracing::warn!(%error, "something of the tasks' network cannot be removed");
        }
    }

    /// From now on this machine forwards packets.
    fn forward(&self) -> io::Result<()> {
        let was = fs::read_to_string(FORWARDING)?;
        if was.trim() == "0" {
            fs::create_dir_all(&self.0.settings.folder)?;
            fs::write(self.0.settings.folder.join("forwarding"), was)?;
            fs::write(FORWARDING, "1")?;
        }
        Ok(())
    }
}

/// Whether the rules hold within bridges, too (`br_netfilter`, which Docker and Kubernetes load). Then the bridge itself
/// carries what a rule has sent from one of its ports to another, and may not be kept from it; where it is so, no
/// frame passes it that the rules have not let through. Elsewhere frames between ports pass no rule, and none may.
fn bridge_is_filtered() -> bool {
    fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables").is_ok_and(|on| on.trim() == "1")
}

/// The outer end of a task's link.
fn link_of(claim: ClaimId) -> String {
    format!("rt{}", &claim.hex()[..12])
}
