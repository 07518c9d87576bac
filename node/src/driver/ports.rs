//! What a driver acts through, besides the store: each port is one adapter's door.

use std::sync::Arc;

use rialto_protocol::ids::{ClaimId, PeerId};
use rialto_protocol::lease::Need;
use rialto_protocol::model::TaskSpec;
use rialto_protocol::wire::Message;

use super::counters::Counters;
use crate::events::EventLog;
use crate::store::Sign;

/// The way to other peers. No call waits: what cannot be sent soon is dropped there, and counted.
pub trait Network: Send {
    fn send(&self, to: PeerId, message: Message);
    fn links(&self, peers: Vec<(PeerId, Vec<String>)>);
    fn members(&self, peers: Vec<(PeerId, Vec<String>)>);
}

/// What runs tasks. No call waits; what becomes of them is told by events.
pub trait Tasks: Send + Sync {
    fn start(&self, claim: ClaimId, spec: Arc<TaskSpec>);
    fn stop(&self, claim: ClaimId, grace_ms: u64);
    fn forget(&self, claim: ClaimId);
}

/// What tasks need of the lock group. No call waits; what comes of it is told by events.
pub trait Leases: Send + Sync {
    fn acquire(&self, claim: ClaimId, need: Need);
    fn release(&self, claim: ClaimId);
}

/// All ports of one peer.
pub struct Ports {
    pub me: PeerId,
    /// This peer's signature over 32 bytes.
    pub sign: Sign,
    /// Whether every signature in a message is right.
    pub verify: Box<dyn Fn(&Message) -> bool + Send>,
    pub network: Box<dyn Network>,
    pub tasks: Arc<dyn Tasks>,
    pub leases: Arc<dyn Leases>,
    pub events: EventLog,
    pub counters: Counters,
}
