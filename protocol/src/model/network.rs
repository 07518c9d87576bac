//! Addresses of tasks and of services: IPv4, from one range of the cluster.
//!
//! The lower half of the range is cut into subnets, one for each machine, of which its tasks have their addresses.
//! The upper half are the virtual addresses of services.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The length of a machine's subnet: 1,022 addresses, the machine's own included.
pub const SUBNET_BITS: u32 = 22;
const SUBNET_SIZE: u32 = 1 << (32 - SUBNET_BITS);
/// A range has room for two machines at least.
const PREFIX_MAX: u8 = 20;
const PREFIX_MIN: u8 = 6;

/// The addresses of a cluster's tasks and services: `10.208.0.0/12`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    base: u32,
    prefix: u8,
}

/// One machine's part of the range, by its first address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subnet(u32);

/// What a machine says of the network of its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskNetwork {
    /// As it is configured there.
    pub range: Range,
    /// Its own part; none while it has found none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<Subnet>,
}

/// How the tasks of a service reach others: `network_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkMode {
    /// Each in a network of its own, with an address of its own.
    #[default]
    Task,
    /// By their machine's network, on ports of the machine.
    Host,
}

/// Where a published port listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortMode {
    /// On every machine, and reaches a task anywhere.
    #[default]
    Ingress,
    /// Only where a task runs.
    Host,
}

impl Range {
    /// What a cluster uses unless it is told otherwise: 512 machines, and half a million services.
    pub const DEFAULT: Range = Range { base: u32::from_be_bytes([10, 208, 0, 0]), prefix: 12 };

    /// How many machines have room.
    pub fn subnets(&self) -> u32 {
        1 << (SUBNET_BITS - u32::from(self.prefix) - 1)
    }

    /// The subnet of this number, counted from 0 and around.
    pub fn subnet(&self, number: u64) -> Subnet {
        let number = (number % u64::from(self.subnets())) as u32;
        Subnet(self.base + number * SUBNET_SIZE)
    }

    /// Whether this is one of its subnets.
    pub fn has(&self, subnet: Subnet) -> bool {
        subnet.0.is_multiple_of(SUBNET_SIZE) && (self.base..self.services_base()).contains(&subnet.0)
    }

    /// Whether an address is a task's, a service's or a machine's own in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.base
    }

    /// The addresses of tasks: an address and the length of its prefix.
    pub fn tasks(&self) -> (Ipv4Addr, u8) {
        (Ipv4Addr::from_bits(self.base), self.prefix + 1)
    }

    /// The virtual addresses of services, in the same form.
    pub fn services(&self) -> (Ipv4Addr, u8) {
        (Ipv4Addr::from_bits(self.services_base()), self.prefix + 1)
    }

    /// The virtual address of this number, counted from 0 and around; never the first or the last of the half.
    pub fn service(&self, number: u64) -> Ipv4Addr {
        let count = (1u64 << (32 - u32::from(self.prefix) - 1)) - 2;
        Ipv4Addr::from_bits(self.services_base() + 1 + (number % count) as u32)
    }

    /// Whether an address is a virtual one.
    pub fn is_service(&self, address: Ipv4Addr) -> bool {
        self.contains(address) && address.to_bits() >= self.services_base()
    }

    fn mask(&self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix))
    }

    fn services_base(&self) -> u32 {
        self.base + (1 << (31 - u32::from(self.prefix)))
    }
}

impl Default for Range {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.base), self.prefix)
    }
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no range of IPv4 addresses, such as {}", Range::DEFAULT);
        let (base, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let base: Ipv4Addr = base.parse().map_err(|_| wrong())?;
        let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
        if !(PREFIX_MIN..=PREFIX_MAX).contains(&prefix) {
            return Err(format!("{text:?}: the prefix of a range is from {PREFIX_MIN} to {PREFIX_MAX}"));
        }
        let range = Self { base: base.to_bits(), prefix };
        if range.base & range.mask() != range.base {
            return Err(format!("{text:?} does not begin at {}", Ipv4Addr::from_bits(range.base & range.mask())));
        }
        Ok(range)
    }
}

impl Subnet {
    /// The subnet that an address lies in.
    pub fn of(address: Ipv4Addr) -> Self {
        Self(address.to_bits() & !(SUBNET_SIZE - 1))
    }

    /// Its first address: the machine's own end of tunnels.
    pub fn base(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0)
    }

    /// The machine's own address towards its tasks.
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0 + 1)
    }

    /// Whether an address lies in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        Self::of(address) == *self
    }

    /// The addresses that tasks can have, those after `last` first.
    pub fn tasks_after(&self, last: Option<Ipv4Addr>) -> impl Iterator<Item = Ipv4Addr> + use<> {
        let count = Self::tasks() as u32;
        let base = self.0;
        let begin = last.filter(|last| self.contains(*last)).map_or(0, |last| last.to_bits() - base - 1);
        (0..count).map(move |n| Ipv4Addr::from_bits(base + 2 + (begin + n) % count))
    }

    /// How many tasks have room.
    pub fn tasks() -> usize {
        SUBNET_SIZE as usize - 3
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{SUBNET_BITS}", self.base())
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let base = text.strip_suffix(&format!("/{SUBNET_BITS}")).and_then(|base| base.parse().ok());
        let subnet = base.map(Subnet::of).filter(|subnet| Some(subnet.base()) == base);
        subnet.ok_or_else(|| format!("{text:?} is no subnet"))
    }
}

macro_rules! written_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
written_as_text!(Range, Subnet);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{decode, encode};

    #[test]
    fn a_range_is_machines_below_and_services_above() {
        let range = Range::DEFAULT;
        assert_eq!((range.to_string().as_str(), range.subnets()), ("10.208.0.0/12", 512));
        let (first, last) = (range.subnet(0), range.subnet(511));
        assert_eq!(first.to_string(), "10.208.0.0/22");
        assert_eq!(last.gateway(), Ipv4Addr::new(10, 215, 252, 1));
        assert_eq!(range.subnet(512), first);
        assert!(range.has(last) && !range.has(Subnet::of(Ipv4Addr::new(10, 216, 0, 0))));
        assert_eq!(range.service(0), Ipv4Addr::new(10, 216, 0, 1));
        assert_eq!(range.service((1 << 19) - 3), Ipv4Addr::new(10, 223, 255, 254));
        assert!(range.is_service(range.service(77)) && !range.is_service(last.gateway()));
        assert!(range.contains(last.gateway()) && !range.contains(Ipv4Addr::new(10, 224, 0, 0)));
    }

    #[test]
    fn addresses_of_tasks_go_around() {
        let subnet = Range::DEFAULT.subnet(3);
        let all: Vec<Ipv4Addr> = subnet.tasks_after(None).collect();
        assert_eq!(all.len(), Subnet::tasks());
        assert_eq!(all[0], Ipv4Addr::from_bits(subnet.base().to_bits() + 2));
        assert!(all.iter().all(|address| subnet.contains(*address)));
        assert_eq!(subnet.tasks_after(Some(all[0])).next(), Some(all[1]));
        assert_eq!(subnet.tasks_after(all.last().copied()).next(), Some(all[0]));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in ["", "10.0.0.0", "10.0.0.0/24", "10.0.0.0/3", "10.1.0.0/12", "x/12", "10.0.0.0/x"] {
            assert!(bad.parse::<Range>().is_err(), "{bad}");
        }
        assert!("10.0.0.0/8".parse::<Range>().is_ok());
    }

    #[test]
    fn a_record_reads_back() {
        let network = TaskNetwork { range: Range::DEFAULT, subnet: Some(Range::DEFAULT.subnet(9)) };
        assert_eq!(decode::<TaskNetwork>(&encode(&network)).unwrap(), network);
        let address = Some(Ipv4Addr::new(10, 208, 0, 2));
        assert_eq!(decode::<Option<Ipv4Addr>>(&encode(&address)).unwrap(), address);
    }
}
