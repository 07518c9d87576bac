//! What this machine is and has, as its kernel tells.

use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use rialto_protocol::model::Resources;

use crate::config::Config;

/// The most that is kept for the machine itself, bytes: a tenth of its memory, up to this.
const RESERVE_BYTES_MAX: u64 = 1 << 30;
/// Bridges that container engines make: the same address on every machine, reached by none. And this program's own.
const PRIVATE_BRIDGES: [&str; 6] = ["docker", "br-", "virbr", "cni", "podman", "rialto"];
/// Addresses that a machine tells of itself.
const ADDRESSES_MAX: usize = 8;

/// The room that this machine offers: what was configured, else what it has.
pub fn capacity(config: &Config) -> Resources {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let memory = || {
        let total = memory_bytes();
        total - (total / 10).min(RESERVE_BYTES_MAX)
    };
    let mut capacity = config.resources.clone();
    capacity
        .add(&Resources::of(config.cpu_millis.unwrap_or(cores * 1_000), config.memory_bytes.unwrap_or_else(memory)));
    capacity
}

/// All memory of the machine, bytes.
fn memory_bytes() -> u64 {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// The machine's name in its kernel.
pub fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// Where other peers reach this one: what was configured, else the address that it listens at, else
/// every address of the machine, the likeliest first. `listen` has the port that was bound.
pub fn addresses(config: &Config, listen: SocketAddr) -> Vec<String> {
    let with_port = |ip: IpAddr| SocketAddr::new(ip, listen.port()).to_string();
    if !config.advertise.is_empty() {
        let whole = |a: &crate::config::Advertise| SocketAddr::new(a.ip, a.port.unwrap_or(listen.port())).to_string();
        return config.advertise.iter().map(whole).collect();
    }
    if !listen.ip().is_unspecified() {
        return vec![with_port(listen.ip())];
    }
    let mut own = interface_addresses(listen.is_ipv6());
    if let Some(first) = outgoing_address() {
        // Sorting is stable: the address of the default route comes first, the others stay.
        own.sort_by_key(|ip| *ip != first);
    }
    if own.is_empty() {
        own.push(Ipv4Addr::LOCALHOST.into());
    }
    own.into_iter().take(ADDRESSES_MAX).map(with_port).collect()
}

/// Addresses of interfaces that are up, without loopback, link-local ones and private bridges.
fn interface_addresses(with_v6: bool) -> Vec<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let mut seen = HashSet::new();
    interfaces
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter(|interface| !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK))
        .filter(|interface| !PRIVATE_BRIDGES.iter().any(|name| interface.interface_name.starts_with(name)))
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::from(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::from(a.ip())))
        })
        .filter(|ip| match ip {
            IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_loopback(),
            IpAddr::V6(ip) => with_v6 && !ip.is_unicast_link_local() && !ip.is_loopback(),
        })
        .filter(|ip| seen.insert(*ip))
        .collect()
}

/// The address from which this machine would speak to the world; nothing is sent to find out.
fn outgoing_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(("192.0.2.1", 9)).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

/// How busy the machine's processors are, from one look to the next.
#[derive(Debug, Default)]
pub struct Load {
    last: Option<(u64, u64)>,
}

impl Load {
    /// Thousandths of a core in use since the last look; 0 at the first.
    pub fn look(&mut self) -> u64 {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let cores = stat.lines().filter(|line| line.starts_with("cpu")).count().saturating_sub(1) as u64;
        let seen = ticks(&stat);
        let before = std::mem::replace(&mut self.last, seen);
        let (Some((busy, all)), Some((busy_before, all_before))) = (seen, before) else { return 0 };
        match all.saturating_sub(all_before) {
            0 => 0,
            passed => busy.saturating_sub(busy_before) * cores * 1_000 / passed,
        }
    }
}

/// Busy ticks and all ticks of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|tick| tick.parse().ok()).collect();
    let all = ticks.iter().sum();
    let idle: u64 = ticks.get(3..5)?.iter().sum();
    Some((all - idle, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_busy_or_idle() {
        assert_eq!(ticks("cpu  10 1 5 100 7 2 3 4 9 9\ncpu0 1"), Some((25, 132)));
        for bad in ["", "cpu", "cpu  1 2", "intr 5"] {
            assert_eq!(ticks(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn this_machine_has_memory_and_an_address() {
        assert!(memory_bytes() > 16 << 20);
        assert!(interface_addresses(true).iter().all(|ip| !ip.is_loopback()));
        let mut load = Load::default();
        assert_eq!(load.look(), 0);
    }
}
