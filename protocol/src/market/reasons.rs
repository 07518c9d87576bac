//! Why a machine does not take a task: because the steward's filter passed it over, or by its own
//! word. What decides says so in these words, and `rialto explain` repeats them.

use std::collections::{BTreeMap, BTreeSet};

use super::auction::Auction;
use super::wire::DeclineReason;
use crate::ids::PeerId;

/// Why a steward does not ask a machine for a bid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PassedOver {
    /// It is down, or a member no more.
    Down,
    /// It is accused, and may still refute.
    Suspect,
    /// It has said that it will be back.
    Restarting,
    /// What its own record says is reason enough; it would decline with these words.
    Unfit(DeclineReason),
}

/// What those machines said that were asked in an auction which left tasks without a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    pub declines: BTreeMap<PeerId, DeclineReason>,
    /// Those that bid; what they offered has been given to other tasks of the service.
    pub bids: BTreeSet<PeerId>,
    /// Those that said nothing in time.
    pub silent: BTreeSet<PeerId>,
}

impl Answers {
    /// The answers of an auction at its end. An auction bounds how many it asks, and with it these.
    pub fn of(auction: &Auction) -> Self {
        let has_answered = |peer: &&PeerId| auction.bids.contains_key(peer) || auction.declines.contains_key(peer);
        Self {
            declines: auction.declines.clone(),
            bids: auction.bids.keys().copied().collect(),
            silent: auction.asked.iter().filter(|peer| !has_answered(peer)).copied().collect(),
        }
    }
}
