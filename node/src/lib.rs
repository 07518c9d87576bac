//! Runs the protocol on a real machine: the driver and its adapters.

pub mod config;
pub mod driver;
pub mod events;
pub mod handle;
pub mod machine;
pub mod peer;
pub mod signals;
pub mod store;
