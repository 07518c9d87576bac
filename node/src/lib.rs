//! Runs the protocol on a real machine: the driver and its adapters.

pub mod api;
pub mod dns;
pub mod executor;
pub mod handle;
pub mod identity;
pub mod invitation;
pub mod mesh;
pub mod verify;
