//! What is replicated, and how it spreads.

pub mod budget;
pub mod document;
mod memo;
pub mod owner;
pub mod readings;
pub mod record;
pub mod replica;
pub mod secrets;
mod sums;
pub mod volumes;

pub use budget::Budgets;
pub use document::{ChangeValue, Document, Edit};
pub use owner::{Owner, Teller};
pub use replica::Ledger;
