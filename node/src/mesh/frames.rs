//! Messages in bytes: each is its length, four bytes with the highest first, and its CBOR.

use bytes::{BufMut, Bytes, BytesMut};
use libp2p::Stream;
use rialto_protocol::wire::{self, MESSAGE_BYTES_MAX, Message};
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};

/// A message, encoded once for however many receivers.
#[derive(Clone, Debug)]
pub struct Packet {
    kind: &'static str,
    bytes: Bytes,
}

/// The length before each message, in bytes.
pub(super) const HEADER_BYTES: usize = 4;

impl Packet {
    /// Encodes a message.
    pub fn of(message: &Message) -> Self {
        Self { kind: message.kind(), bytes: wire::encode(message).into() }
    }

    /// The message's size in bytes, without the length before it.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The kind of the message.
    pub(super) fn kind(&self) -> &'static str {
        self.kind
    }

    /// Puts it where it is sent from.
    pub(super) fn write_to(&self, buffer: &mut BytesMut) {
        buffer.reserve(self.size() + HEADER_BYTES);
        buffer.put_u32(u32::try_from(self.size()).expect("the bound is far below"));
        buffer.put_slice(&self.bytes);
    }

    /// Whether a receiver would take it.
    pub(super) fn fits(&self) -> bool {
        self.size() <= MESSAGE_BYTES_MAX
    }
}

impl From<&Message> for Packet {
    fn from(message: &Message) -> Self {
        Self::of(message)
    }
}

impl From<Message> for Packet {
    fn from(message: Message) -> Self {
        Self::of(&message)
    }
}

/// A stream cut into frames; a longer one than allowed is an error before it is read.
pub(super) fn framed(stream: Stream) -> Framed<Compat<Stream>, LengthDelimitedCodec> {
    let codec = LengthDelimitedCodec::builder().max_frame_length(MESSAGE_BYTES_MAX).new_codec();
    Framed::with_capacity(stream.compat(), codec, 4096)
}
