//! What a peer believes, decides and says.
pub mod api;
pub mod brain;
pub mod compose;
pub mod effect;
pub mod event;
pub mod explain;
pub mod history;
pub mod ids;
pub mod ledger;
pub mod market;
pub mod membership;
pub mod model;
pub mod plant;
mod rebalancing;
pub mod rfc3339;
pub mod snapshot;
pub mod steward;
pub mod view;
pub mod wire;

pub use brain::{Brain, Config, Restored};
pub use effect::Effect;
pub use event::{Event, Now};
