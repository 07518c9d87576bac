//! Real meshes in one process, over loopback.

mod api;
mod figures;
mod foreign;
mod hello;
mod links;
mod world;
