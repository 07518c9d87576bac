//! The market: a steward asks, machines reserve and bid, the steward awards, the winner claims.
//! Gossip decides whom to ask; live bids decide who gets it.

pub mod auction;
pub mod bidder;
pub mod constraint;
pub mod crowd;
pub mod mix;
pub mod rank;
pub mod reasons;
pub mod rebalance;
pub mod score;
pub mod victims;
pub mod wire;
