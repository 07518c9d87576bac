//! What the two ends of a session with a container say to each other: a person's terminal or
//! archive at one end, a process of the container's machine at the other.
//!
//! Frames follow one another over one connection, made by an HTTP request that asks to upgrade to
//! [`UPGRADE`]; whoever is in between only carries bytes. The first frame is the client's
//! [`Frame::Open`], the last one [`Frame::Ended`] or [`Frame::Failed`]. A frame is: its kind (one
//! byte), the length of what follows (four bytes, little-endian), and that.

use serde::{Deserialize, Serialize};

use crate::api::ErrorCode;

/// The protocol that a request for a session asks to upgrade to.
pub const UPGRADE: &str = "rialto-session";
/// The longest payload of a frame.
pub const FRAME_BYTES_MAX: usize = 64 << 10;
const HEAD: usize = 5;

/// Something that one end says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// What is wanted: the client's first word.
    Open(Open),
    /// Standard input, or an archive.
    Input(Vec<u8>),
    /// There is no more input.
    InputEnd,
    /// The terminal has another size now.
    Resize(Size),
    /// A signal for the process, by its number.
    Signal(u8),
    /// Standard output, or an archive; of a terminal everything.
    Output(Vec<u8>),
    /// Standard error.
    ErrorOutput(Vec<u8>),
    /// The process has ended: its code, 128 + n where signal n ended it. Of a copy 0.
    Ended(i32),
    /// It could not be done.
    Failed(Failed),
}

/// What a session is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Open {
    /// Another process in the container.
    Exec(Exec),
    /// The streams of the container's first process.
    Attach {
        /// Input is for it, too.
        input: bool,
        #[serde(default)]
        size: Option<Size>,
    },
    /// A tar archive of what lies at a path.
    Read { path: String },
    /// Puts the entries of a tar archive into the folder at a path.
    Write {
        path: String,
        /// With the owners and times that the archive says, and not as root's.
        #[serde(default)]
        kept: bool,
    },
}

/// A process to run in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Exec {
    pub command: Vec<String>,
    /// `NAME=VALUE`, beside the container's own.
    pub environment: Vec<String>,
    /// As whom, instead of the container's user.
    pub user: Option<String>,
    /// Where, instead of the container's working folder.
    pub working_dir: Option<String>,
    /// On a terminal of this size.
    pub terminal: Option<Size>,
    /// Whether input will come.
    pub input: bool,
}

/// Of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    pub columns: u16,
    pub rows: u16,
}

/// Why a session came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    pub code: ErrorCode,
    pub message: String,
}

impl Frame {
    /// The frame's bytes. A payload that is too long is cut: whoever makes frames keeps to the bound.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, payload): (u8, Vec<u8>) = match self {
            Frame::Open(open) => (1, json(open)),
            Frame::Input(bytes) => (2, bytes.clone()),
            Frame::InputEnd => (3, Vec::new()),
            Frame::Resize(size) => (4, [size.columns.to_le_bytes(), size.rows.to_le_bytes()].concat()),
            Frame::Signal(number) => (5, vec![*number]),
            Frame::Output(bytes) => (6, bytes.clone()),
            Frame::ErrorOutput(bytes) => (7, bytes.clone()),
            Frame::Ended(code) => (8, code.to_le_bytes().to_vec()),
            Frame::Failed(failed) => (9, json(failed)),
        };
        let payload = &payload[..payload.len().min(FRAME_BYTES_MAX)];
        let mut bytes = Vec::with_capacity(HEAD + payload.len());
        bytes.push(kind);
        bytes.extend((payload.len() as u32).to_le_bytes());
        bytes.extend(payload);
        bytes
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Strings, numbers and lists of them: nothing that JSON could refuse.
    serde_json::to_vec(value).unwrap_or_default()
}

/// What came is no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    #[error("there is no frame of kind {0}")]
    UnknownKind(u8),
    #[error("a frame of kind {0} cannot be read")]
    Unreadable(u8),
}

/// Takes bytes as they come, and gives frames.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    at: usize,
}

impl Decoder {
    /// Takes bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.at);
        self.at = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole frame, if there is one.
    ///
    /// # Errors
    ///
    /// What came is no frame; nothing after it can be read.
    pub fn pull(&mut self) -> Result<Option<Frame>, SessionError> {
        let rest = &self.bytes[self.at..];
        let Some((head, rest)) = rest.split_first_chunk::<HEAD>() else { return Ok(None) };
        let (kind, length) = (head[0], u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize);
        if length > FRAME_BYTES_MAX {
            return Err(SessionError::TooLong(length));
        }
        let Some(payload) = rest.get(..length) else { return Ok(None) };
        let unreadable = SessionError::Unreadable(kind);
        let frame = match (kind, payload) {
            (1, json) => Frame::Open(serde_json::from_slice(json).map_err(|_| unreadable)?),
            (2, bytes) => Frame::Input(bytes.to_vec()),
            (3, _) => Frame::InputEnd,
            (4, &[a, b, c, d]) => {
                Frame::Resize(Size { columns: u16::from_le_bytes([a, b]), rows: u16::from_le_bytes([c, d]) })
            }
            (5, &[number]) => Frame::Signal(number),
            (6, bytes) => Frame::Output(bytes.to_vec()),
            (7, bytes) => Frame::ErrorOutput(bytes.to_vec()),
            (8, &[a, b, c, d]) => Frame::Ended(i32::from_le_bytes([a, b, c, d])),
            (9, json) => Frame::Failed(serde_json::from_slice(json).map_err(|_| unreadable)?),
            (4 | 5 | 8, _) => return Err(unreadable),
            (other, _) => return Err(SessionError::UnknownKind(other)),
        };
        self.at += HEAD + length;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_however_the_bytes_are_cut() {
        let exec =
            Exec { command: vec!["sh".into()], terminal: Some(Size { columns: 80, rows: 24 }), ..Exec::default() };
        let frames = [
            Frame::Open(Open::Exec(exec)),
            Frame::Open(Open::Attach { input: true, size: None }),
            Frame::Input(b"ls\n".to_vec()),
            Frame::InputEnd,
            Frame::Resize(Size { columns: 300, rows: 1 }),
            Frame::Signal(2),
            Frame::Output(vec![0; FRAME_BYTES_MAX]),
            Frame::ErrorOutput(Vec::new()),
            Frame::Failed(Failed { code: ErrorCode::NotFound, message: "é".into() }),
            Frame::Ended(-1),
        ];
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        for step in [1, 7, 4096, bytes.len()] {
            let mut decoder = Decoder::default();
            let mut read = Vec::new();
            for piece in bytes.chunks(step) {
                decoder.push(piece);
                while let Some(frame) = decoder.pull().unwrap() {
                    read.push(frame);
                }
            }
            assert_eq!(read, frames, "{step}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        for bytes in [&[99, 0, 0, 0, 0][..], &[2, 0, 0, 0, 9], &[4, 1, 0, 0, 0, 1], &[1, 1, 0, 0, 0, b'{']] {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert!(decoder.pull().is_err(), "{bytes:?}");
        }
    }
}
