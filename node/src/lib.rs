//! Runs the protocol on a real machine: the driver and its adapters.

pub mod api;
pub mod config;
pub mod dns;
pub mod driver;
pub mod events;
pub mod executor;
pub mod handle;
pub mod identity;
pub mod invitation;
pub mod machine;
pub mod mesh;
pub mod news;
pub mod peer;
mod sealing;
pub mod signals;
pub mod store;
pub mod verify;
