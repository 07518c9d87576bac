//! By which way the tasks of another machine are reached.

use std::net::IpAddr;

use rialto_protocol::ids::PeerId;

use super::netlink::Mac;

/// Whether tunnels are used where the way is short, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlay {
    /// Where the machines share a segment the packets of tasks go there as they are; elsewhere by VXLAN.
    #[default]
    Auto,
    /// By VXLAN to every machine: for networks that carry no addresses but their own.
    Always,
}

/// The way to one machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// It is on the same segment: it is the next hop.
    Direct(IpAddr),
    /// Through a tunnel to this address.
    Tunnel(IpAddr),
}

impl Path {
    /// The way to a machine with these addresses from one with those, each with the length of its prefix. `None`: it
    /// says no address.
    pub fn choose(own: &[(IpAddr, u8)], theirs: &[IpAddr], overlay: Overlay) -> Option<Self> {
        let on_link = |address: &&IpAddr| own.iter().any(|(own, prefix)| shares(*own, *prefix, **address));
        // Tasks have IPv4 addresses, for which the next hop has one, too.
        let near = theirs.iter().find(|address| address.is_ipv4() && on_link(address));
        match near {
            Some(address) if overlay == Overlay::Auto => Some(Path::Direct(*address)),
            Some(address) => Some(Path::Tunnel(*address)),
            None => theirs.first().map(|address| Path::Tunnel(*address)),
        }
    }

    /// The word that people read.
    pub fn word(&self) -> &'static str {
        match self {
            Path::Direct(_) => "direct",
            Path::Tunnel(_) => "vxlan",
        }
    }
}

/// Whether `other` is on the segment of a link with this address.
fn shares(own: IpAddr, prefix: u8, other: IpAddr) -> bool {
    let (own, other, bits) = match (own, other) {
        (IpAddr::V4(own), IpAddr::V4(other)) => (u128::from(own.to_bits()), u128::from(other.to_bits()), 32),
        (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
        _ => return false,
    };
    // A link with one address has no segment.
    let host = bits - u32::from(prefix).min(bits);
    host > 0 && own != other && own.checked_shr(host).unwrap_or(0) == other.checked_shr(host).unwrap_or(0)
}

/// The address of a peer's end of tunnels: both ends know it without having asked.
pub fn mac(peer: &PeerId) -> Mac {
    let hash = blake3::derive_key("rialto tunnel 1", &peer.0);
    // Locally administered, of one interface.
    [0x02, hash[0], hash[1], hash[2], hash[3], hash[4]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn neighbours_are_reached_as_they_are_and_others_by_tunnel() {
        let own = [(ip("127.0.0.1"), 8), (ip("10.0.1.5"), 24), (ip("192.0.2.7"), 32), (ip("fd00::5"), 64)];
        let cases: [(&[&str], Overlay, Option<Path>); 8] = [
            (&["10.0.1.9"], Overlay::Auto, Some(Path::Direct(ip("10.0.1.9")))),
            (&["203.0.113.1", "10.0.1.9"], Overlay::Auto, Some(Path::Direct(ip("10.0.1.9")))),
            (&["10.0.1.9"], Overlay::Always, Some(Path::Tunnel(ip("10.0.1.9")))),
            (&["10.0.2.9"], Overlay::Auto, Some(Path::Tunnel(ip("10.0.2.9")))),
            (&["192.0.2.8"], Overlay::Auto, Some(Path::Tunnel(ip("192.0.2.8")))),
            (&["fd00::9"], Overlay::Auto, Some(Path::Tunnel(ip("fd00::9")))),
            (&["fd00::9", "10.0.1.9"], Overlay::Auto, Some(Path::Direct(ip("10.0.1.9")))),
            (&[], Overlay::Auto, None),
        ];
        for (theirs, overlay, expected) in cases {
            let theirs: Vec<IpAddr> = theirs.iter().map(|text| ip(text)).collect();
            assert_eq!(Path::choose(&own, &theirs, overlay), expected, "{theirs:?} {overlay:?}");
        }
    }

    #[test]
    fn each_peer_has_a_hardware_address_of_its_own() {
        let (one, two) = (mac(&PeerId([1; 32])), mac(&PeerId([2; 32])));
        assert_eq!(one, mac(&PeerId([1; 32])));
        assert_ne!(one, two);
        assert_eq!((one[0] & 1, one[0] & 2), (0, 2), "no group's, and locally administered");
    }
}
