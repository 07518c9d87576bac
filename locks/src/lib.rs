//! The lock group: the one place of Rialto where consensus decides.
//!
//! One, three or five peers, its *voters*, keep one small [`Store`] of keys that have revisions and may hang on
//! *leases*, as etcd's clients know it. A lock is a key on its owner's lease, and the queue for it are the keys under
//! one prefix in the order of their creation; an election is the same. What a lock protects can tell a holder of
//! before by the revision at which its key was made: revisions only rise. So the store need know nothing of locks.
//!
//! [`Replica`] is one voter: it takes messages, requests and ticks, and says what to send, what to write and what
//! to answer. Like the brain it is deterministic and knows no clock, disk or socket: the simulator runs this code.
//! Raft itself is a library's, which [`consensus`] alone knows.
//!
//! - Writes go through the log, many to an entry, and are answered when they are applied.
//! - Reads are linearizable: the leader proves to itself that it still leads, then the state that it had is read.
//! - A lease is renewed by a leader that has proved to itself that it leads, and ends by an entry of the log. Each
//!   new leader gives every lease its whole time anew, so that no change of leaders ends one too early.
//! - Without a quorum nothing is granted: what waits is refused after [`replica::ANSWER_MS_MAX`].

mod cbor;
pub mod consensus;
pub mod kv;
mod lessor;
mod pending;
pub mod plant;
pub mod replica;
pub mod store;
pub mod voters;
pub mod wire;

pub use kv::{Answer, Applied, KeyValue, Op, Refusal};
pub use replica::{Config, Input, Output, Replica, Ticket};
pub use store::Store;

/// The number that the group knows a peer by: the first bytes of its identity, which is a public key.
pub fn node_id(identity: &[u8; 32]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&identity[..8]);
    u64::from_be_bytes(first).max(1)
}
