//! Stewardship: what an app wants against what the ledger says runs. The loop is level-triggered:
//! messages only wake it.

pub mod array;
pub mod cron;
mod gang;
pub mod global;
pub mod graph;
pub mod reconcile;
pub mod rollout;
mod slot;
