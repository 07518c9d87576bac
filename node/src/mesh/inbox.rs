//! What comes from one peer, stream by stream.

use std::sync::Arc;

use futures::StreamExt;
use libp2p::Stream;
use rialto_protocol::ids::PeerId;
use rialto_protocol::wire::{self, Came};
use tokio_util::codec::LengthDelimitedCodecError;

use super::MeshEvent;
use super::context::Shared;
use super::doors::Ticket;
use super::frames::{HEADER_BYTES, framed};
use super::outbox::Outbox;

/// Reads messages from a stream until it ends. What only a later version knows is counted and passed over; the first
/// message that makes no sense ends the stream: after that nothing on it can be trusted to be what it seems.
pub(super) async fn read(shared: Arc<Shared>, from: PeerId, stream: Stream, ticket: Ticket) {
    let outbox = Outbox::of(&shared, from);
    outbox.inbound_came();
    let reading = messages(&shared, from, stream, &outbox);
    let ended = shared.stop.clone().run_until_cancelled_owned(reading).await;
    outbox.inbound_went();
    drop(ticket);
    if let Some(Err(why)) = ended {
        shared.counters.malformed.add(1);
        if shared.log_limits.malformed.allows() {
            tracing::warn!(peer = %from, why, "a malformed message: its stream is closed");
        }
        shared.tell(MeshEvent::Malformed { from, why }).await;
    }
}

async fn messages(shared: &Shared, from: PeerId, stream: Stream, outbox: &Outbox) -> Result<(), String> {
    let mut frames = framed(stream);
    while let Some(frame) = frames.next().await {
        let bytes = match frame {
            Ok(bytes) => bytes,
            Err(error) if error.get_ref().is_some_and(|inner| inner.is::<LengthDelimitedCodecError>()) => {
                return Err(error.to_string());
            }
            // The connection was lost: no fault of the peer's.
            Err(_) => return Ok(()),
        };
        let came = wire::receive(&bytes).map_err(|error| error.to_string())?;
        outbox.touch();
        shared.counters.received.add(1);
        match came {
            Came::Message(message) => {
                shared.incoming.add(message.kind(), bytes.len() + HEADER_BYTES);
                shared.tell(MeshEvent::Message { from, message }).await;
            }
            Came::Unknown(name) => {
                shared.counters.unknown.add(1);
                if shared.log_limits.unknown.allows() {
                    tracing::info!(peer = %from, name, "a message that only a later version knows is passed over");
                }
            }
        }
    }
    Ok(())
}
