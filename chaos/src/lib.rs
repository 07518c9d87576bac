//! Breaks Rialto on purpose, in two ways.
//!
//! The simulator feeds the production brain of every peer from a virtual network in virtual time:
//! a seed decides what people ask for, what breaks and when, and what the promises of the design
//! say about it is checked as it goes. What fails, fails again under the same seed.
//!
//! The lab ([`netns`]) starts the real programs, each on a machine of its own in network namespaces,
//! with real containers, and cuts their wires.

pub mod faults;
pub mod invariants;
pub mod netns;
pub mod oracle;
pub mod sim;
pub mod workload;
