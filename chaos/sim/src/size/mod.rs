//! Size: the production brain, a thousand times and more in one process.
//!
//! [`standing`] makes a ledger that is already there, as if the cluster had lived for long: machines,
//! apps and the claims of their tasks. [`crowd`] lets peers that all start from it live on a local
//! network without faults, and [`tally`] counts what they say and what each event costs. There are
//! no disks: what a brain commits is durable after a moment, and nothing is kept of it.

pub mod bytes;
pub mod crowd;
pub mod standing;
pub mod tally;

pub use crowd::Crowd;
pub use standing::Standing;
pub use tally::Tally;
