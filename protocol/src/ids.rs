//! Identities. Each is a newtype, so that none can stand in for another.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

/// A peer's identity: its ed25519 public key, 32 bytes. It is made together with the data
/// folder and lost together with it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PeerId(#[serde(with = "serde_bytes")] pub [u8; 32]);

/// By their bytes. Nearly always the first few tell, and these are compared at once: it is what every map of peers does.
impl Ord for PeerId {
    fn cmp(&self, other: &Self) -> Ordering {
        let first = |id: &Self| id.0.first_chunk().map_or(0, |first| u64::from_be_bytes(*first));
        first(self).cmp(&first(other)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for PeerId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PeerId {
    /// The peer's place on the rendezvous ring.
    pub fn ring(&self) -> u64 {
        ring(&self.0)
    }

    /// All 32 bytes in lower-case hexadecimal.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }

    /// Reads what [`PeerId::hex`] wrote.
    pub fn from_hex(text: &str) -> Option<Self> {
        unhex(text)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..6]))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer:{self}")
    }
}

/// A peer's dense index in one peer's memory; never on a wire or a disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PeerIx(pub u32);

impl PeerIx {
    /// The index as a position in a vector.
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

macro_rules! bytes16 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(#[serde(with = "serde_bytes")] pub [u8; 16]);

        impl $name {
            /// All 16 bytes in lower-case hexadecimal.
            pub fn hex(&self) -> String {
                hex(&self.0)
            }

            /// Reads what `hex` wrote.
            pub fn from_hex(text: &str) -> Option<Self> {
                unhex(text)?.try_into().ok().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", &self.hex()[..8])
            }
        }
    };
}

bytes16! {
    /// A cluster: the hash of its founder's key and a nonce (see [`ClusterId::of_founder`]).
    ClusterId
}
bytes16! {
    /// A change to a document, named by the client that asks for it: asking twice is harmless.
    ChangeId
}
bytes16! {
    /// One claim, and so one container. Never used again.
    ClaimId
}
bytes16! {
    /// One machine's bid in one auction.
    BidId
}
bytes16! {
    /// One volume on one machine. Never used again.
    VolumeId
}
bytes16! {
    /// A key under which secrets are kept.
    KeyId
}
bytes16! {
    /// An invitation to join; its secret is known to the inviter alone.
    InvitationId
}

impl ClusterId {
    /// The cluster that `founder` founds with `nonce`. Anybody can check a founder's claim to be one.
    pub fn of_founder(founder: &PeerId, nonce: &[u8; 16]) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("rialto cluster id 1");
        hash.update(&founder.0);
        hash.update(nonce);
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize().as_bytes()[..16]);
        Self(id)
    }
}

/// An app: one document. Removing an app ends its generation; creating it again starts the next.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AppId {
    /// `default`, until namespaces are the users' to make.
    pub namespace: String,
    /// The app's name, a DNS label.
    pub name: String,
    /// Counts from 1.
    pub generation: u32,
}

impl AppId {
    /// The app's place on the rendezvous ring.
    pub fn ring(&self) -> u64 {
        let mut hash = blake3::Hasher::new();
        hash.update(self.namespace.as_bytes());
        hash.update(b"/");
        hash.update(self.name.as_bytes());
        hash.update(&self.generation.to_le_bytes());
        ring(hash.finalize().as_bytes())
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}#{}", self.namespace, self.name, self.generation)
    }
}

impl fmt::Debug for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A task: one slot of one service of one generation of an app.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    pub app: AppId,
    pub service: String,
    /// `1`, `2`, … for replicas; an index of an array; the instant of a cron run.
    pub slot: String,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.app.name, self.service, self.slot)
    }
}

impl fmt::Debug for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The weight of `node` for `key` in rendezvous (highest-random-weight) hashing: the node with
/// the highest weight has rank 0 (Thaler and Ravishankar, 1998). The mixer is splitmix64's.
pub fn rendezvous(key: u64, node: u64) -> u64 {
    let mut x = key ^ node.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15;
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn ring(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(bytes).as_bytes()[..8]);
    u64::from_le_bytes(first)
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads hexadecimal of either case; `None` where it is anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let value = |digit: u8| (digit as char).to_digit(16).map(|v| v as u8);
    digits.chunks(2).map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_reads_back() {
        let peer = PeerId([0xa7; 32]);
        assert_eq!(PeerId::from_hex(&peer.hex()), Some(peer));
        for bad in ["", "abc", "zz", "é1"] {
            assert_eq!(PeerId::from_hex(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn rendezvous_moves_only_the_keys_of_a_node_that_leaves() {
        let nodes: Vec<u64> = (0..10).map(|n| PeerId([n; 32]).ring()).collect();
        let winner = |key: u64, nodes: &[u64]| *nodes.iter().max_by_key(|n| rendezvous(key, **n)).unwrap();
        let mut moved = 0;
        for key in 0..10_000u64 {
            let key = rendezvous(key, 7);
            let before = winner(key, &nodes);
            let after = winner(key, &nodes[1..]);
            if before == nodes[0] {
                moved += 1;
            } else {
                assert_eq!(before, after);
            }
        }
        assert!((800..1200).contains(&moved), "a tenth of the keys belongs to each: {moved}");
    }
}
