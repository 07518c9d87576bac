//! The peer book: where members were last reached, kept on disk for the day on which everybody else
//! is gone and the ledger's addresses are old.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rialto_protocol::ids::PeerId;

use crate::identity::write_durably;

/// The file's name in the data folder.
const FILE: &str = "peers.json";
/// The most addresses of one peer.
const ADDRESSES_MAX: usize = 8;
/// The most peers.
const PEERS_MAX: usize = 16_384;
/// The most bytes that are read.
const BYTES_MAX: u64 = 16 << 20;

/// Confirmed addresses by peer, the last one that worked first.
pub(super) struct Book {
    path: PathBuf,
    peers: BTreeMap<PeerId, Vec<SocketAddr>>,
    changed: bool,
}

impl Book {
    /// Reads the book. One that does not read is begun anew: it is a convenience, not a truth.
    pub(super) fn open(data: &Path) -> Self {
        let path = data.join(FILE);
        let peers = match read(&path) {
            Ok(peers) => peers,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the peer book does not read and is begun anew");
                BTreeMap::new()
            }
        };
        Self { path, peers, changed: false }
    }

    pub(super) fn addresses(&self, peer: &PeerId) -> &[SocketAddr] {
        self.peers.get(peer).map_or(&[], Vec::as_slice)
    }

    /// The peer was reached at an address, by its key.
    pub(super) fn confirm(&mut self, peer: PeerId, address: SocketAddr) {
        if self.peers.len() >= PEERS_MAX && !self.peers.contains_key(&peer) {
            return;
        }
        let known = self.peers.entry(peer).or_default();
        if known.first() == Some(&address) {
            return;
        }
        known.retain(|one| *one != address);
        known.insert(0, address);
        known.truncate(ADDRESSES_MAX);
        self.changed = true;
    }

    /// Somebody else answers there.
    pub(super) fn refute(&mut self, peer: &PeerId, address: &SocketAddr) {
        if let Some(known) = self.peers.get_mut(peer) {
            let before = known.len();
            known.retain(|one| one != address);
            self.changed |= known.len() != before;
        }
    }

    /// Forgets everybody who is no member.
    pub(super) fn keep_only(&mut self, is_member: impl Fn(&PeerId) -> bool) {
        let before = self.peers.len();
        self.peers.retain(|peer, _| is_member(peer));
        self.changed |= self.peers.len() != before;
    }

    /// What is to be written, once after each change: a path and bytes for [`write_durably`].
    pub(super) fn page(&mut self) -> Option<Page> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let by_name: BTreeMap<String, &Vec<SocketAddr>> =
            self.peers.iter().map(|(peer, addresses)| (peer.hex(), addresses)).collect();
        let bytes = serde_json::to_vec_pretty(&by_name).expect("text and addresses are JSON");
        Some(Page { path: self.path.clone(), bytes })
    }
}

/// The book as it is to stand on disk.
pub(super) struct Page {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Page {
    /// Blocks until it is on disk.
    pub(super) fn write(self) {
        if let Err(error) = write_durably(&self.path, &self.bytes, 0o600) {
            tracing::warn!(path = %self.path.display(), %error, "the peer book could not be written");
        }
    }
}

fn read(path: &Path) -> io::Result<BTreeMap<PeerId, Vec<SocketAddr>>> {
    if std::fs::metadata(path)?.len() > BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "larger than any peer book"));
    }
    let by_name: BTreeMap<String, Vec<SocketAddr>> = serde_json::from_slice(&std::fs::read(path)?)?;
    let peers = by_name.into_iter().filter_map(|(name, mut addresses)| {
        addresses.truncate(ADDRESSES_MAX);
        Some((PeerId::from_hex(&name)?, addresses))
    });
    Ok(peers.take(PEERS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_that_worked_comes_first_and_is_remembered() {
        let data = tempfile::tempdir().unwrap();
        let peer = PeerId([7; 32]);
        let at = |port: u16| SocketAddr::from(([10, 0, 0, 1], port));
        let mut book = Book::open(data.path());
        (1..=20).for_each(|port| book.confirm(peer, at(port)));
        book.confirm(peer, at(15));
        book.page().unwrap().write();
        assert!(book.page().is_none(), "nothing has changed since");
        let mut book = Book::open(data.path());
        assert_eq!(book.addresses(&peer)[..3], [at(15), at(20), at(19)]);
        assert_eq!(book.addresses(&peer).len(), ADDRESSES_MAX);
        book.refute(&peer, &at(15));
        assert_eq!(book.addresses(&peer)[0], at(20));
        book.keep_only(|_| false);
        assert!(book.addresses(&peer).is_empty());
        std::fs::write(data.path().join(FILE), b"{").unwrap();
        assert!(Book::open(data.path()).addresses(&peer).is_empty(), "a torn book is no reason to stop");
    }
}
