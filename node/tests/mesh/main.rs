//! Real meshes in one process, over loopback.

// An event that is not the one waited for is handed back in an `Err`: it is no error.
#![allow(clippy::result_large_err)]

mod api;
mod cut;
mod figures;
mod foreign;
mod hello;
mod links;
mod world;
