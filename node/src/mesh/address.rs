//! The border: our identities and addresses on one side, libp2p's on the other.

use std::net::{IpAddr, SocketAddr};

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, identity};
use rialto_protocol::ids::PeerId;

/// Our name for a peer of libp2p's; `None` unless its key is ed25519.
pub(super) fn peer_of(theirs: &libp2p::PeerId) -> Option<PeerId> {
    // An ed25519 identity is not a hash: it holds the key itself, and the key is our name.
    let key = identity::PublicKey::try_decode_protobuf(theirs.as_ref().digest()).ok()?;
    Some(PeerId(key.try_into_ed25519().ok()?.to_bytes()))
}

/// libp2p's name for one of our peers; `None` where the bytes are no point of the curve.
pub(super) fn libp2p_peer(ours: &PeerId) -> Option<libp2p::PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(&ours.0).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// `/ip4/…/tcp/…` for an address and port.
pub(super) fn multiaddr(address: SocketAddr) -> Multiaddr {
    Multiaddr::from(address.ip()).with(Protocol::Tcp(address.port()))
}

/// The address and port that a multiaddress begins with.
pub(super) fn socket_addr(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn identities_and_addresses_cross_the_border_and_back() {
        let ours = Identity::from_secret([5; 32]).peer();
        assert_eq!(peer_of(&libp2p_peer(&ours).unwrap()), Some(ours));
        let pointless = (0..=255).filter(|n| libp2p_peer(&PeerId([*n; 32])).is_none()).count();
        assert!((50..200).contains(&pointless), "about half of all numbers are no point of the curve: {pointless}");
        for text in ["127.0.0.1:7400", "[fd00::1]:80"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(socket_addr(&multiaddr(address)), Some(address));
        }
        assert_eq!(socket_addr(&"/dns4/example/tcp/1".parse().unwrap()), None);
    }
}
