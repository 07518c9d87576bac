//! App files from outside: what Compose's own specification and other people's files say of the reader.

// Tests read files; the core does not.
#![allow(clippy::disallowed_methods)]
#![recursion_limit = "512"]

mod corpus;
mod docs;
mod mutations;
mod schema;
mod together;

use std::path::{Path, PathBuf};

/// The folder of other people's files: `RIALTO_COMPOSE_CORPUS`, or `shared/compose-corpus` beside the repository.
fn corpus() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("RIALTO_COMPOSE_CORPUS") {
        return Some(named.into());
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().map(|folder| folder.join("shared/compose-corpus")).find(|folder| folder.is_dir())
}

/// Says that a test has nothing to look at.
fn skipped() {
    eprintln!("skipped: there is no folder of Compose files (RIALTO_COMPOSE_CORPUS)");
}
