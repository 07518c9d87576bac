//! What is replicated, and how it spreads.

pub mod document;
pub mod readings;
pub mod record;
pub mod replica;

pub use document::{ChangeValue, Document, Edit};
pub use replica::Ledger;
