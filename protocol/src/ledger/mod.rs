//! What is replicated, and how it spreads.

pub mod budget;
pub mod document;
mod memo;
pub mod owner;
pub mod readings;
pub mod record;
pub mod replica;
mod sums;

pub use budget::Budgets;
pub use document::{ChangeValue, Document, Edit};
pub use owner::Owner;
pub use replica::Ledger;
