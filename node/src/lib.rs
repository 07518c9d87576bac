//! Runs the protocol on a real machine: the driver and its adapters.
pub mod api;
pub mod dns;
pub mod handle;
