//! Why a call did not succeed.

use std::fmt;

use rialto_protocol::api::{ErrorBody, ErrorCode};

/// A peer that was tried, and why in vain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    pub endpoint: String,
    pub why: String,
    /// Something listens there, but not to us.
    pub forbidden: bool,
}

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.endpoint, self.why)
    }
}

/// Why a call did not succeed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// Nothing was changed: no peer could be asked.
    #[error("no peer is reachable{}", told(.0))]
    NoPeer(Vec<Tried>),
    /// A peer answered, and refused.
    #[error("{}", .0.message)]
    Refused(ErrorBody),
    /// The connection ended before the answer did. The change may have been made.
    #[error("the answer of {peer} broke off: {why}")]
    BrokeOff { peer: String, why: String },
    /// The change may have been made.
    #[error("{peer} did not answer within {seconds} s")]
    Silent { peer: String, seconds: u64 },
    /// What answered is no peer, or one of another age.
    #[error("{peer} answered with something that is not understood: {why}")]
    Unreadable { peer: String, why: String },
    /// What should have been sent could not be read here.
    #[error("what was being sent could not be read: {0}")]
    Source(String),
}

impl Error {
    /// The code of a refusal.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Error::Refused(body) => Some(body.code),
            _ => None,
        }
    }
}

fn told(tried: &[Tried]) -> String {
    match tried {
        [] => String::new(),
        [one] => format!(": {one}"),
        many => many.iter().map(|tried| format!("\n  {tried}")).collect(),
    }
}
