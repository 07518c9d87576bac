//! Breaks Rialto on purpose, with the real programs.
//!
//! The lab ([`netns`]) starts them, each on a machine of its own in network namespaces, with real
//! containers, and cuts their wires. The virtual world is a crate of its own, `rialto-sim`: it needs
//! the protocol alone, and `rialto foresee` runs it too.

pub mod netns;
