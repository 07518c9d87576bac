//! Stewardship: what an app wants against what the ledger says runs. The loop is level-triggered:
//! messages only wake it.

mod gang;
pub mod reconcile;
