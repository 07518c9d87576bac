//! By what a task is reached: its address, and ports of its machine.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::Bidder;
use crate::model::{NetworkMode, PortBinding, PortMode, PortSpec, Resources, Subnet};

/// Where host ports are taken from when the app file names none.
pub const PORTS: std::ops::RangeInclusive<u16> = 20_000..=29_999;

/// By what one task is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Doors {
    /// Its own; `None`: it uses its machine's network.
    pub address: Option<Ipv4Addr>,
    pub ports: Vec<PortBinding>,
}

impl Bidder {
    /// An address and host ports for one task; ports are looked for from `start` on, and none is given that `taken`
    /// holds. `None` where too few are free.
    pub fn doors(
        &mut self,
        mode: NetworkMode,
        wanted: &[PortSpec],
        start: u16,
        taken: &mut BTreeSet<u16>,
    ) -> Option<Doors> {
        let address = match (mode, self.subnet) {
            (NetworkMode::Task, Some(subnet)) => Some(self.address_of(subnet)?),
            _ => None,
        };
        let ports = match address {
            Some(_) => {
                let ingress = |port: &PortSpec| port.host.is_some() && port.mode == PortMode::Ingress;
                // A task with an address of its own has all its ports; the machine lends it those that are asked for.
                let own = wanted.iter().filter(|port| port.container > 0);
                let (open, lent): (Vec<&PortSpec>, Vec<&PortSpec>) = own.partition(|port| ingress(port));
                let open = open.into_iter().map(|port| bind(port, port.host.unwrap_or_default(), true));
                let mut ports: Vec<PortBinding> = open.collect();
                ports.extend(self.ports(lent.into_iter(), start, taken)?);
                // In the order of the file: the first is the one that a task is told.
                let place = |bound: &PortBinding| {
                    let is_it = |port: &PortSpec| {
                        (port.container, port.protocol.as_str()) == (bound.container, bound.protocol.as_str())
                    };
                    wanted.iter().position(is_it)
                };
                ports.sort_by_key(place);
                ports
            }
            None if mode == NetworkMode::Task && self.lacks_a_port(wanted, taken) => return None,
            None => self.ports(wanted.iter(), start, taken)?,
        };
        if let Some(address) = address {
            self.last_address = Some(address);
        }
        Some(Doors { address, ports })
    }

    /// How many more tasks can have an address; any number, where they need none.
    pub fn addresses_free(&self) -> u32 {
        self.subnet.map_or(u32::MAX, |_| Subnet::tasks().saturating_sub(self.addresses.len()) as u32)
    }

    /// One that was not used lately, as far as there are such: what still knows the last task by it is not to meet
    /// another.
    fn address_of(&self, subnet: Subnet) -> Option<Ipv4Addr> {
        subnet.tasks_after(self.last_address).find(|address| !self.addresses.contains(address))
    }

    /// Whether a task that has to do with its machine's network would find a port taken that its file publishes.
    fn lacks_a_port(&self, wanted: &[PortSpec], taken: &BTreeSet<u16>) -> bool {
        let everywhere = wanted.iter().filter(|port| port.mode == PortMode::Ingress).filter_map(|port| port.host);
        everywhere.into_iter().any(|host| taken.contains(&host) || self.used.get(&Resources::port(host)) > 0)
    }

    fn ports<'a>(
        &self,
        wanted: impl Iterator<Item = &'a PortSpec> + Clone,
        start: u16,
        taken: &mut BTreeSet<u16>,
    ) -> Option<Vec<PortBinding>> {
        let fixed: BTreeSet<u16> = wanted.clone().filter_map(|port| port.host).collect();
        let mut candidates = PORTS.cycle().skip(usize::from(start) % PORTS.len()).take(PORTS.len());
        let mut bindings = Vec::new();
        for port in wanted {
            let is_free = |number: &u16| {
                let port = Resources::port(*number);
                !taken.contains(number) && self.used.get(&port) + self.reserved.get(&port) == 0
            };
            let host = match port.host {
                Some(host) => host,
                None => candidates.find(|number| !fixed.contains(number) && is_free(number))?,
            };
            taken.insert(host);
            bindings.push(bind(port, host, false));
        }
        Some(bindings)
    }
}

fn bind(port: &PortSpec, host: u16, ingress: bool) -> PortBinding {
    let PortSpec { name, container, protocol, .. } = port.clone();
    PortBinding { name, host, ingress, container, protocol }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Range;

    fn port(container: u16, host: Option<u16>, mode: PortMode) -> PortSpec {
        PortSpec { container, host, mode, protocol: "tcp".into(), name: None }
    }

    #[test]
    fn a_task_has_an_address_and_the_ports_that_it_asks_for() {
        let mut bidder = Bidder { subnet: Some(Range::DEFAULT.subnet(1)), ..Bidder::default() };
        let wanted = [
            port(80, Some(8080), PortMode::Ingress),
            port(81, None, PortMode::Ingress),
            port(82, Some(9000), PortMode::Host),
            port(0, None, PortMode::Ingress),
        ];
        let mut taken = BTreeSet::new();
        let doors = bidder.doors(NetworkMode::Task, &wanted, 7, &mut taken).unwrap();
        let shown: Vec<_> = doors.ports.iter().map(|port| (port.container, port.host, port.ingress)).collect();
        assert_eq!(shown, [(80, 8080, true), (81, 20_007, false), (82, 9000, false)]);
        assert_eq!(taken, BTreeSet::from([9000, 20_007]));
        let next = bidder.doors(NetworkMode::Task, &[], 0, &mut taken).unwrap();
        assert!(doors.address.is_some() && next.address.is_some() && doors.address != next.address);

        let on_host = bidder.doors(NetworkMode::Host, &wanted, 7, &mut BTreeSet::new()).unwrap();
        assert_eq!((on_host.address, on_host.ports.len()), (None, 4));
        bidder.subnet = None;
        let mut taken = BTreeSet::new();
        assert_eq!(bidder.doors(NetworkMode::Task, &wanted, 7, &mut taken).map(|doors| doors.ports.len()), Some(4));
        assert_eq!(bidder.doors(NetworkMode::Task, &wanted, 7, &mut taken), None, "8080 is there once");
        assert_eq!(bidder.doors(NetworkMode::Task, &[], 0, &mut taken), Some(Doors::default()));
    }

    #[test]
    fn addresses_run_out_and_come_back() {
        let subnet = Range::DEFAULT.subnet(1);
        let mut bidder = Bidder { subnet: Some(subnet), ..Bidder::default() };
        bidder.addresses = subnet.tasks_after(None).collect();
        assert_eq!((bidder.addresses_free(), bidder.address_of(subnet)), (0, None));
        let one = bidder.addresses.pop_first();
        assert_eq!((bidder.addresses_free(), bidder.address_of(subnet)), (1, one));
    }
}
