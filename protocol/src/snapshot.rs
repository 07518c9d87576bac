//! What a peer holds, whole: enough to start the brains of its cluster in another world.
//!
//! It is what an administrator takes from a live peer for `rialto foresee`. There are no keys in it and no
//! tokens; but documents are, with whatever people wrote into the environment of their services.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, PeerId};
use crate::ledger::record::Stored;
use crate::view::View;
use crate::wire::DecodeError;

/// The most bytes of a snapshot that are read.
pub const SNAPSHOT_BYTES_MAX: usize = 128 << 20;
/// The present shape.
pub const FORMAT: u32 = 1;

/// One peer's ledger, and what it believes of the others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub format: u32,
    pub cluster: ClusterId,
    /// The peer at which it was taken.
    pub peer: PeerId,
    /// Its wall clock then, ms since 1970.
    pub as_of: u64,
    /// How long it holds replacements back when it sees a minority, ms; `None`: for ever.
    pub minority_hold_ms: Option<u64>,
    /// The peers that it held for alive, itself included.
    pub live: Vec<PeerId>,
    /// Owner, complete through, floor.
    pub owners: Vec<(PeerId, u64, u64)>,
    pub records: Vec<Arc<Stored>>,
    /// What membership keeps over a restart.
    #[serde(with = "serde_bytes")]
    pub membership: Vec<u8>,
}

/// Why bytes are no snapshot that can be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("no snapshot of a ledger: {0}")]
    Unreadable(String),
    #[error("a snapshot of format {0}, and this program reads {FORMAT}: use a `rialto` of the peer's version")]
    Format(u32),
    #[error(transparent)]
    TooLong(#[from] DecodeError),
}

impl Snapshot {
    /// As it is sent and kept: CBOR.
    pub fn to_bytes(&self) -> Vec<u8> {
        crate::wire::encode(self)
    }

    /// Reads what [`Snapshot::to_bytes`] wrote.
    ///
    /// # Errors
    ///
    /// The bytes are something else, of another format, or more than [`SNAPSHOT_BYTES_MAX`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, SnapshotError> {
        if bytes.len() > SNAPSHOT_BYTES_MAX {
            return Err(DecodeError::TooLong(bytes.len(), SNAPSHOT_BYTES_MAX).into());
        }
        let read: Self =
            cbor4ii::serde::from_slice(bytes).map_err(|error| SnapshotError::Unreadable(error.to_string()))?;
        if read.format == FORMAT { Ok(read) } else { Err(SnapshotError::Format(read.format)) }
    }
}

impl View<'_> {
    /// Everything that this peer holds; records are shared, not copied.
    pub fn snapshot(&self) -> Snapshot {
        let brain = self.brain;
        let owners = || brain.ledger.owners();
        Snapshot {
            format: FORMAT,
            cluster: brain.config.cluster,
            peer: brain.me,
            as_of: self.now.wall,
            minority_hold_ms: brain.config.minority_hold_ms,
            live: brain.members.live().collect(),
            owners: owners().map(|owner| (owner.id, owner.complete, owner.floor)).collect(),
            records: owners().flat_map(|owner| owner.records()).cloned().collect(),
            membership: brain.members.remembered(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_snapshot_is_refused() {
        let snapshot = Snapshot {
            format: FORMAT,
            cluster: ClusterId([1; 16]),
            peer: PeerId([1; 32]),
            as_of: 1,
            minority_hold_ms: None,
            live: vec![PeerId([1; 32])],
            owners: vec![(PeerId([1; 32]), 3, 0)],
            records: Vec::new(),
            membership: vec![1, 2],
        };
        let bytes = snapshot.to_bytes();
        assert_eq!(Snapshot::from_bytes(&bytes).unwrap(), snapshot);
        let later = Snapshot { format: FORMAT + 1, ..snapshot }.to_bytes();
        assert!(matches!(Snapshot::from_bytes(&later), Err(SnapshotError::Format(2))));
        for bad in [&b""[..], b"{}", b"\xff\xff", &bytes[..bytes.len() / 2], &[0; 64]] {
            assert!(matches!(Snapshot::from_bytes(bad), Err(SnapshotError::Unreadable(_))), "{bad:?}");
        }
    }
}
