//! Keeps the kernel as the peer believes that the network is: bridge, tunnel, routes, rules, and published ports.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::PoisonError;

use rialto_protocol::api::LinkRow;
use rialto_protocol::model::{Range, Subnet};
use rialto_protocol::network::{AppNet, MachineNet, Machines};

use super::doors::Doors;
use super::netlink::Route;
use super::path::{Path, mac};
use super::rules::{self, Wanted};
use super::ruleset::Ruleset;
use super::{Ground, Network, bridge_is_filtered, nft};

/// The port of VXLAN (RFC 7348).
pub const VXLAN_PORT: u16 = 4789;
/// The number of the cluster's tunnels.
const VXLAN_NUMBER: u32 = 0x5249;

/// What was made of the kernel so far.
pub struct Keeper {
    network: Network,
    ground: Option<Ground>,
    tunnel: Option<u32>,
    routes: BTreeSet<Route>,
    /// Whether ports were made for a bridge that the rules hold in.
    filtered: bool,
    own: Vec<IpAddr>,
    /// What is in the table; `None`: nobody knows.
    rules: Option<Ruleset>,
    doors: Doors,
    machines: Option<Machines>,
}

impl Keeper {
    pub fn new(network: Network) -> Self {
        Self {
            network,
            ground: None,
            tunnel: None,
            routes: BTreeSet::new(),
            filtered: bridge_is_filtered(),
            own: Vec::new(),
            rules: None,
            doors: Doors::default(),
            machines: None,
        }
    }

    /// Makes everything so. What fails is tried again at the next call.
    pub async fn update(&mut self, machines: &Machines, apps: &BTreeMap<String, AppNet>) -> io::Result<()> {
        let Some((range, subnet)) = machines.own else { return Ok(()) };
        if self.ground.is_none_or(|ground| ground.subnet != subnet) {
            self.stand_on(range, subnet).await?;
        }
        if self.machines.as_ref() != Some(machines) {
            self.reach(range, subnet, &machines.others).await?;
            self.machines = Some(machines.clone());
        }
        let wanted_doors = rules::doors(apps);
        self.doors.open(&wanted_doors).await;
        self.load(range, subnet, &machines.others, apps).await?;
        self.show();
        // Tasks may start from here on. What an earlier life of this peer left was in force until a moment ago.
        self.network.0.ground.send_if_modified(|ready| std::mem::replace(ready, self.ground) != self.ground);
        Ok(())
    }

    /// Looks whether what was made is still there, and may be otherwise now: addresses of the machine, rules that
    /// somebody flushed, ports that have become free.
    pub async fn look_again(&mut self) {
        self.machines = None;
        if self.rules.is_some() && !nft::has_table(&self.network.0.names.table).await {
            tracing::warn!("the rules of the tasks' network are gone; they are loaded again");
            self.rules = None;
        }
        let filtered = bridge_is_filtered();
        if let Some(ground) = self.ground.filter(|_| filtered != self.filtered) {
            match self.network.isolate(ground.bridge, !filtered).await {
                Ok(()) => self.filtered = filtered,
                Err(error) => tracing::warn!(%error, "ports of the tasks' bridge are not as they should be"),
            }
        }
    }

    /// The bridge with the machine's address among its tasks.
    async fn stand_on(&mut self, range: Range, subnet: Subnet) -> io::Result<()> {
        let inner = &self.network.0;
        let names = &inner.names;
        if self.ground.take().is_some() {
            // The subnet has become another machine's; tasks in it are about to end.
            inner.netlink.delete(&names.bridge).await?;
            inner.netlink.delete(&names.tunnel).await?;
            (self.tunnel, self.rules, self.machines) = (None, None, None);
            self.routes = BTreeSet::new();
        }
        let bridge = inner.netlink.bridge(&names.bridge, mac(&inner.settings.me)).await?;
        for (setting, value) in [("ipv4/conf/{}/send_redirects", "0"), ("ipv6/conf/{}/disable_ipv6", "1")] {
            let _ = fs::write(format!("/proc/sys/net/{}", setting.replace("{}", &names.bridge)), value);
        }
        inner.netlink.address(bridge, subnet.gateway(), rialto_protocol::model::network::SUBNET_BITS as u8).await?;
        let (to, prefix) = range.services();
        // Nobody is there: a service's address is another's before a packet goes anywhere. But it takes a way to start.
        inner.netlink.route(Route { to, prefix, via: None, link: Some(bridge), on_link: false }).await?;
        self.network.forward()?;
        self.ground = Some(Ground { subnet, bridge });
        self.rules = None;
        Ok(())
    }

    /// The ways to the tasks of other machines.
    async fn reach(&mut self, range: Range, subnet: Subnet, others: &[MachineNet]) -> io::Result<()> {
        let inner = self.network.0.clone();
        let addresses = inner.netlink.addresses().await?;
        let ours = |ip: &IpAddr| matches!(ip, IpAddr::V4(ip) if range.contains(*ip));
        let addresses: Vec<(IpAddr, u8)> =
            addresses.into_iter().filter(|(ip, ..)| !ours(ip)).map(|(ip, prefix, _)| (ip, prefix)).collect();
        self.own = addresses.iter().map(|(ip, _)| *ip).collect();
        let mut routes = BTreeSet::new();
        let mut rows = Vec::new();
        for machine in others {
            let theirs: Vec<IpAddr> = machine.addresses.iter().filter_map(|address| rules::ip_of(address)).collect();
            let Some(path) = Path::choose(&addresses, &theirs, inner.settings.overlay) else { continue };
            rows.push(LinkRow {
                machine: machine.name.clone(),
                subnet: machine.subnet.to_string(),
                path: path.word().into(),
                via: match path {
                    Path::Direct(ip) | Path::Tunnel(ip) => ip.to_string(),
                },
                encrypted: false,
            });
            let to = machine.subnet.base();
            let prefix = rialto_protocol::model::network::SUBNET_BITS as u8;
            match path {
                Path::Direct(IpAddr::V4(via)) => {
                    routes.insert(Route { to, prefix, via: Some(via), link: None, on_link: false });
                }
                Path::Direct(IpAddr::V6(_)) => {}
                Path::Tunnel(at) => {
                    let tunnel = self.tunnel(subnet, at, &addresses).await?;
                    // Also where the way was the same: the kernel's own table may have been flushed.
                    inner.netlink.neighbour(tunnel, to, mac(&machine.peer), at).await?;
                    routes.insert(Route { to, prefix, via: Some(to), link: Some(tunnel), on_link: true });
                }
            }
        }
        for gone in self.routes.difference(&routes).filter(|gone| !routes.iter().any(|route| route.to == gone.to)) {
            inner.netlink.no_route(*gone).await?;
        }
        for route in &routes {
            inner.netlink.route(*route).await?;
        }
        self.routes = routes;
        inner.seen.lock().unwrap_or_else(PoisonError::into_inner).links = rows;
        Ok(())
    }

    /// This machine's end of all tunnels, made when the first is needed.
    async fn tunnel(&mut self, subnet: Subnet, at: IpAddr, own: &[(IpAddr, u8)]) -> io::Result<u32> {
        if let Some(tunnel) = self.tunnel {
            return Ok(tunnel);
        }
        let inner = &self.network.0;
        let local = local_for(at, own)?;
        // One that an earlier life left may have had another address.
        inner.netlink.delete(&inner.names.tunnel).await?;
        let mac = mac(&inner.settings.me);
        let tunnel = inner.netlink.tunnel(&inner.names.tunnel, VXLAN_NUMBER, VXLAN_PORT, local, mac).await?;
        inner.netlink.address(tunnel, subnet.base(), 32).await?;
        self.tunnel = Some(tunnel);
        Ok(tunnel)
    }

    /// The rules: what differs, or everything where nobody knows what is there.
    async fn load(
        &mut self,
        range: Range,
        subnet: Subnet,
        machines: &[MachineNet],
        apps: &BTreeMap<String, AppNet>,
    ) -> io::Result<()> {
        let held = self.doors.held();
        let wanted = rules::rules(&Wanted { range, subnet, machines, apps, held: &held, own: &self.own });
        let names = &self.network.0.names;
        let table = format!("ip {}", names.table);
        if let Some(before) = &self.rules {
            let script = wanted.script(&table, before);
            if script.is_empty() {
                return Ok(());
            }
            match nft::run(&script).await {
                Ok(()) => {
                    self.rules = Some(wanted);
                    return Ok(());
                }
                Err(error) => tracing::warn!(%error, "rules did not load; all of them are loaded anew"),
            }
        }
        self.rules = None;
        let whole = rules::table(&names.table, &names.bridge, range, subnet) + &wanted.script(&table, &bare());
        nft::run(&whole).await?;
        self.rules = Some(wanted);
        Ok(())
    }

    fn show(&self) {
        self.network.0.seen.lock().unwrap_or_else(PoisonError::into_inner).troubles = self.doors.troubles();
    }
}

/// What a new table has in it already.
fn bare() -> Ruleset {
    let mut bare = Ruleset::default();
    bare.sets.insert("machines".into(), ("ipv4_addr", BTreeSet::new()));
    bare.sets.insert("itself".into(), ("ipv4_addr . ipv4_addr", BTreeSet::new()));
    bare
}

/// The address of this machine from which another is reached: one of the same segment, else what the kernel would take.
fn local_for(at: IpAddr, own: &[(IpAddr, u8)]) -> io::Result<IpAddr> {
    let near = own.iter().find(|one| Path::choose(&[**one], &[at], super::Overlay::Auto) == Some(Path::Direct(at)));
    if let Some((ip, _)) = near {
        return Ok(*ip);
    }
    let any: IpAddr = if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect((at, VXLAN_PORT))?;
    Ok(socket.local_addr()?.ip())
}
