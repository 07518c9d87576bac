//! Breaks Rialto on purpose.

pub mod netns;
