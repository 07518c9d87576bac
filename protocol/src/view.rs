//! What a peer believes, in the shapes that people, DNS and the API read.

mod apps;
mod endpoints;
mod machines;
mod tasks;

use std::sync::Arc;

use crate::brain::Brain;
use crate::event::Now;
use crate::ids::{AppId, PeerId};
use crate::ledger::Document;
use crate::model::ClaimState;

pub use endpoints::{Endpoint, Endpoints};
use tasks::is_apart;
pub use tasks::{ClaimAt, TaskFilter};

/// A read-only look at a brain at one moment.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(crate) brain: &'a Brain,
    pub(crate) now: Now,
}

impl View<'_> {
    /// Machines held for alive, this one included.
    pub fn members_seen(&self) -> u32 {
        self.brain.members.live_count() as u32
    }

    /// A claim that finishes its slot, though the document does not say so yet.
    pub(crate) fn is_finished(&self, app: &AppId, service: &str, slot: &str, spec: &crate::model::ServiceSpec) -> bool {
        let entries = self.brain.readings.slots(app, service).and_then(|slots| slots.get(slot));
        let revision = spec.revision();
        entries.into_iter().flatten().any(|entry| {
            let claim = &entry.claim;
            let is_meant = claim.revision == revision || is_apart(slot);
            claim.state == ClaimState::Exited && is_meant && spec.finishes(claim.exit_code)
        })
    }

    pub(crate) fn living(&self) -> impl Iterator<Item = (&AppId, &Arc<Document>)> {
        self.brain.documents.iter().filter(|(_, document)| !document.deleted && !document.is_empty())
    }

    /// The name people know a machine by.
    pub fn name_of(&self, peer: &PeerId) -> String {
        self.brain.machine_name(peer)
    }

    /// Whether a peer was a member and is none any more.
    pub fn has_departed(&self, peer: &PeerId) -> bool {
        self.brain.readings.departed.contains_key(peer)
    }

    /// The addresses (`IP:PORT`) of a peer, for the mesh.
    pub fn addresses(&self, peer: &PeerId) -> Vec<String> {
        self.brain.addresses(peer)
    }
}
