//! Breaks Rialto on purpose.
//!
//! The simulator feeds the production brain of every peer from a virtual network in virtual time:
//! a seed decides what people ask for, what breaks and when, and what the promises of the design
//! say about it is checked as it goes. What fails, fails again under the same seed.

pub mod faults;
pub mod invariants;
pub mod oracle;
pub mod sim;
pub mod workload;
