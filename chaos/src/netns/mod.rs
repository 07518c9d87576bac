//! The lab: real peers on real containers, each on a machine of its own, in one kernel.
//!
//! A *machine* is a network namespace with one interface on a bridge, a mount namespace with a
//! boot id of its own, and a host name. The bridge lives in a namespace of its own too: nothing of
//! this touches the host's network, and several labs run side by side. Every process of a machine
//! (the peer, its shims, its tasks) is known by its network namespace, so that a machine can die
//! as machines do: at once, whole, and without a goodbye on the wire.
//!
//! Faults are rules on the bridge, written anew as one nftables transaction whenever they change:
//! full and one-way cuts, and loss. This kernel cannot delay packets; delay is the simulator's.
//!
//! ```no_run
//! # fn main() -> Result<(), rialto_chaos::netns::LabError> {
//! let mut lab = rialto_chaos::netns::Lab::new(3)?;
//! lab.found()?; // machine 0 founds a cluster, the others join by its invitation
//! lab.machine(1).done(&["deploy", "-f", "compose.yaml"])?;
//! lab.die(2)?;
//! # Ok(()) }
//! ```
//!
//! Where namespaces are not allowed (no root), [`Lab::on_loopback`] gives each peer an address of
//! its own in 127.0.0.0/8 and the null executor: no faults on the wire, no containers.

mod binaries;
mod clock;
mod command;
mod example;
mod faults;
mod http;
mod interrupt;
mod lab;
mod machine;
mod probe;
mod processes;
mod remains;
mod site;

use std::time::Duration;

pub use binaries::Binaries;
pub use command::{Output, run, run_within};
pub use example::{Death, REPLICAS, WEB, example};
pub use faults::Faults;
pub use interrupt::clear_on_interrupt;
pub use lab::{Lab, can_build};
pub use machine::Machine;
pub use probe::{Entrance, Service, until};
pub use processes::resident_bytes;
pub use site::sweep;

/// What can go wrong in a lab. None of these is a verdict on the peers: a test decides that.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A program that the lab needs could not be run, or ended badly.
    #[error("`{command}` {outcome}: {said}")]
    Command { command: String, outcome: String, said: String },
    #[error("{what}: {error}")]
    Io {
        what: String,
        #[source]
        error: std::io::Error,
    },
    /// What was waited for did not come in time.
    #[error("{what}: not within {limit:?}; last seen: {seen}")]
    Late { what: String, limit: Duration, seen: String },
    /// A program answered what the contract does not allow.
    #[error("{what} answered what cannot be read: {error}: {said}")]
    Unreadable { what: String, error: String, said: String },
    /// This machine cannot have a lab.
    #[error("no lab here: {0}")]
    Impossible(String),
}

impl LabError {
    /// For `map_err`: an I/O error and what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |error| LabError::Io { what, error }
    }
}

/// What everything here returns.
pub type Result<T> = std::result::Result<T, LabError>;
