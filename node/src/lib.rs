//! Runs the protocol on a real machine: the driver and its adapters.
pub mod executor;
pub mod handle;
