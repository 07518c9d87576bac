//! App files: what people write, in Compose format, read into an [`AppSpec`].
//!
//! A file is read in two steps. The tree step turns YAML into nodes that know their line and
//! column; the parse step walks that tree, takes what it knows and refuses everything else by name
//! and place. A file with several mistakes is told of all of them at once, up to a bound.
//!
//! Between the two what belongs together becomes one tree: variables are filled in, services extended, files joined.
//! What a file refers to is read by whoever calls, through [`Surroundings`].
//!
//! The format is the Compose specification's (<https://compose-spec.io>). What becomes of each of its keys is said in one
//! table, `keys`, of which `docs/compose.md` is made.

mod container;
mod depends;
pub mod describe;
mod devices;
mod dotenv;
mod environment;
mod extends;
mod extension;
mod health;
mod interpolate;
mod keys;
mod kinds;
mod load;
mod merge;
mod networks;
mod parse;
mod placement;
mod ports;
mod quantity;
mod rollout;
mod schedule;
mod secrets;
mod service;
mod support;
mod surroundings;
mod tree;
mod volumes;
mod words;

use std::fmt;

use crate::model::AppSpec;

pub use networks::mode as network_mode;
pub use parse::{label_like, load_files, parse};
pub use ports::port;
pub use quantity::{cpus, cpus_limit, memory, memory_limit};
pub use secrets::ToSet;
pub use service::is_image_name;
pub use surroundings::{Nothing, Options, Source, Surroundings, Unread};

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
    /// Secrets that are to be set before it is deployed, and where each is read: by the client, beside the file.
    pub secrets: ToSet,
    /// What is passed over.
    pub warnings: Vec<Problem>,
    /// What a machine has to allow before it runs there.
    pub conditions: Vec<Problem>,
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
