//! The brain: one door in, a list of effects out.

use std::sync::Arc;

use crate::effect::Effect;
use crate::event::{Event, Now};
use crate::ids::{ClusterId, PeerId};
use crate::ledger::record::Stored;
use crate::view::View;
use crate::wire::Message;

/// Who a brain is, and the only randomness it will ever have.
#[derive(Clone, Debug)]
pub struct Config {
    pub me: PeerId,
    pub cluster: ClusterId,
    /// Of the founder alone: what makes [`ClusterId::of_founder`] this cluster.
    pub founding: Option<[u8; 16]>,
    /// Of a newcomer: the admissions from the founder's to its own, as `hello` gave them.
    pub chain: Vec<Arc<Stored>>,
    pub seed: u64,
    /// How long a minority holds replacements back, ms; `None`: for ever.
    pub minority_hold_ms: Option<u64>,
}

/// What a store gives back when a peer starts.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    pub records: Vec<Arc<Stored>>,
    /// Owner, complete through, floor.
    pub owners: Vec<(PeerId, u64, u64)>,
    pub local: Vec<(String, Vec<u8>)>,
}

/// One peer's beliefs and decisions.
#[derive(Debug)]
pub struct Brain {}

impl Brain {
    /// A brain with everything its disk remembers, and what it wants done first.
    pub fn new(_config: Config, _restored: Restored, _now: Now) -> (Self, Vec<Effect>) {
        (Self {}, Vec::new())
    }

    /// Takes one event; the effects are to be performed in order.
    pub fn handle(&mut self, _now: Now, _event: Event) -> Vec<Effect> {
        Vec::new()
    }

    /// The monotonic time, ms, at which [`Event::Woke`] is due; `None`: nothing is.
    pub fn next_deadline(&self) -> Option<u64> {
        None
    }

    /// Whether a message holds anything that is not known yet: asked before its signatures are
    /// checked, for that is what costs.
    pub fn is_news(&self, _message: &Message) -> bool {
        true
    }

    /// What this peer believes, for people and for DNS.
    pub fn view(&self, now: Now) -> View<'_> {
        View { brain: self, now }
    }
}
