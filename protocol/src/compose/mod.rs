//! App files.
