//! App files: what people write, in Compose format, read into an [`AppSpec`].
//!
//! A file is read in two steps. The tree step turns YAML into nodes that know their line and
//! column; the parse step walks that tree, takes what it knows and refuses everything else by name
//! and place. A file with several mistakes is told of all of them at once, up to a bound.
//!
//! The format is the Compose specification's (<https://compose-spec.io>); `docs/app-file.md` lists
//! the keys that are honoured.

mod devices;
mod environment;
mod extension;
mod parse;
mod placement;
mod ports;
mod quantity;
mod service;
mod support;
mod tree;
mod words;

use std::fmt;

use crate::model::AppSpec;

pub use parse::{label_like, parse};
pub use ports::port;
pub use quantity::{cpus, cpus_limit, memory, memory_limit};
pub use service::is_image_name;

/// The longest file that is read, in bytes.
pub const FILE_BYTES_MAX: usize = 256 << 10;
/// The most replicas that one service, and tasks that one app, can ask for.
pub const REPLICAS_MAX: u32 = 100_000;
/// The most services of one app.
pub const SERVICES_MAX: usize = 1_000;
/// The most ports of one service.
pub const PORTS_MAX: usize = 100;
/// The most constraints of one service.
pub const CONSTRAINTS_MAX: usize = 32;
/// The most entries of `devices` and of `generic_resources`.
pub const RESOURCES_MAX: usize = 32;
/// The most mistakes that are told of at once.
pub const PROBLEMS_MAX: usize = 20;

/// An app file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppFile {
    /// The file's own `name:`, a DNS label.
    pub name: Option<String>,
    pub spec: AppSpec,
}

/// One mistake in an app file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the caller named it.
    pub file: String,
    /// Counts from 1.
    pub line: u32,
    /// Counts characters, from 1.
    pub column: u32,
    /// The path of the key, `services.web.ports`; empty for the file as a whole.
    pub key: String,
    pub message: String,
    /// A way out, where one is known.
    pub hint: Option<String>,
}

impl Problem {
    /// `file:line:column`.
    pub fn place(&self) -> String {
        format!("{}:{}:{}", self.file, self.line, self.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place())?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
