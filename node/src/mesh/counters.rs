//! What the mesh counts, and how it keeps a noisy neighbour from filling the log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rialto_protocol::wire::Message;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What the mesh has counted since it started.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct MeshCounters { $($(#[$doc])* pub $name: u64,)* }

        #[derive(Default)]
        pub(super) struct Counters { $(pub(super) $name: Counter,)* }

        impl Counters {
            pub(super) fn read(&self) -> MeshCounters {
                MeshCounters { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Identities that connected, are no members, and did not show an invitation.
    strangers,
    /// Invitations that were shown and refused.
    hello_refused,
    /// Newcomers that were admitted.
    hello_admitted,
    /// Messages that did not decode or were too long.
    malformed,
    /// Messages that only a later version knows; they were passed over.
    unknown,
    /// Messages that were not sent: a queue was full, or their receiver could not be reached.
    dropped,
    /// Connections whose handshake failed: garbage, other protocols, port scans.
    handshakes_failed,
    /// Streams that were refused because too many were open.
    streams_refused,
    /// Peers that did not take our version of a protocol.
    unsupported,
    /// Messages written to a stream.
    sent,
    /// Messages read from a stream.
    received,
}

impl MeshCounters {
    /// The counters of bad input, by name, for a status page.
    pub fn refused(&self) -> BTreeMap<String, u64> {
        let named = [
            ("mesh_strangers", self.strangers),
            ("mesh_hello_refused", self.hello_refused),
            ("mesh_malformed", self.malformed),
            ("mesh_unknown", self.unknown),
            ("mesh_dropped", self.dropped),
            ("mesh_handshakes_failed", self.handshakes_failed),
            ("mesh_streams_refused", self.streams_refused),
            ("mesh_unsupported", self.unsupported),
        ];
        named.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name.to_string(), count)).collect()
    }
}

/// What went over links one way, by the kind of message: how many, and how many bytes they and their lengths take,
/// before encryption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    pub kind: &'static str,
    pub messages: u64,
    pub bytes: u64,
}

/// Counts what goes one way.
#[derive(Default)]
pub(super) struct Traffic([(Counter, Counter); Message::KINDS.len()]);

impl Traffic {
    pub(super) fn add(&self, kind: &'static str, bytes: usize) {
        if let Some((messages, all)) = Message::KINDS.iter().position(|one| *one == kind).map(|at| &self.0[at]) {
            messages.add(1);
            all.add(bytes as u64);
        }
    }

    pub(super) fn read(&self) -> Vec<Flow> {
        let each = Message::KINDS.iter().zip(&self.0);
        let flow = |(kind, (messages, bytes)): (&&'static str, &(Counter, Counter))| Flow {
            kind,
            messages: messages.0.load(Ordering::Relaxed),
            bytes: bytes.0.load(Ordering::Relaxed),
        };
        each.map(flow).collect()
    }
}

#[derive(Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

/// Lets one line a second through to the log: what strangers cause must not fill a disk.
#[derive(Default)]
pub(super) struct LogLimit {
    /// Wall clock, s, of the last line.
    last: AtomicU64,
}

impl LogLimit {
    pub(super) fn allows(&self) -> bool {
        let second = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.last.swap(second, Ordering::Relaxed) != second
    }
}

/// One limit for each kind of line, so that none hides another.
#[derive(Default)]
pub(super) struct LogLimits {
    pub(super) stranger: LogLimit,
    pub(super) hello: LogLimit,
    pub(super) malformed: LogLimit,
    pub(super) unknown: LogLimit,
    pub(super) handshake: LogLimit,
    pub(super) streams: LogLimit,
}
