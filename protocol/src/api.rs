//! The shapes of the HTTP API under `/v1/`: what every peer answers and every client reads.
//! Field names are a contract: other tools depend on them.

mod apps;
mod images;
mod locks;
mod machines;
mod tasks;
mod volumes;

use serde::{Deserialize, Serialize};

pub use apps::*;
pub use images::*;
pub use locks::*;
pub use machines::*;
pub use tasks::*;
pub use volumes::*;

/// Every answer says how fresh it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer<T> {
    /// Wall clock of the answering peer, ms since 1970.
    pub as_of: u64,
    /// Machines that the answering peer holds for alive, itself included.
    pub members_seen: u32,
    #[serde(flatten)]
    pub data: T,
}

/// Every refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub code: ErrorCode,
    pub message: String,
    /// A way out, where one is known.
    #[serde(default)]
    pub hint: Option<String>,
    /// `file:line:column`, a field, or a machine.
    #[serde(default, rename = "where")]
    pub place: Option<String>,
}

/// The kinds of refusal, each with its HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    Invalid,
    Unauthorized,
    Denied,
    NotFound,
    Conflict,
    /// Nothing that is known of could ever hold it.
    Unplaceable,
    TimedOut,
    /// The machine that has it cannot be reached.
    Unreachable,
    Busy,
    NotSupported,
    Internal,
}

impl ErrorCode {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            ErrorCode::Invalid => 400,
            ErrorCode::Unauthorized => 401,
            ErrorCode::Denied => 403,
            ErrorCode::NotFound => 404,
            ErrorCode::Conflict => 409,
            ErrorCode::Unplaceable => 422,
            ErrorCode::Busy => 429,
            ErrorCode::Internal => 500,
            ErrorCode::NotSupported => 501,
            ErrorCode::Unreachable => 502,
            ErrorCode::TimedOut => 504,
        }
    }
}
