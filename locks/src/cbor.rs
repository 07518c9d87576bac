//! How things are written down.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it cannot be read: {0}")]
pub struct Unreadable(pub String);

pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    cbor4ii::serde::to_vec(Vec::new(), value).expect("writing to memory fails only on types that are not ours")
}

pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Unreadable> {
    cbor4ii::serde::from_slice(bytes).map_err(|error| Unreadable(error.to_string()))
}
