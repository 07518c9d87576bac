//! Questions over UDP: nearly all of them. What was answered a moment ago is answered again at once, from its bytes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, Metadata, OpCode, ResponseCode};
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::handler::{Asked, Handler};
use super::packet::{PLAIN_BYTES_MAX, Packet, Turns, UDP_BYTES_MAX};
use super::zone::{Answer, Question};

/// So long an answer of the zone is given again: what has changed is told within this time.
const FRESH: Duration = Duration::from_millis(50);
/// The most answers that are kept.
const ANSWERS_MAX: usize = 4_096;
/// Questions that are being answered at once, of those that were not answered a moment ago.
const WAITING_MAX: usize = 512;
/// Datagrams that are taken one after the other before anything else has its turn.
const AT_ONCE: usize = 64;
/// The longest question that makes sense.
const QUESTION_BYTES_MAX: usize = 4_096;

/// An answer that may be given again.
struct Kept {
    bytes: Vec<u8>,
    turns: Turns,
    until: Instant,
}

/// What a task that takes care has come to.
struct Done {
    /// What it may be given again for, and at which turn it was.
    again: Option<(Vec<u8>, usize)>,
    end: usize,
    bytes: Vec<u8>,
    to: SocketAddr,
}

/// Answers until `closing`.
pub async fn serve(socket: UdpSocket, handler: Arc<Handler>, closing: CancellationToken) {
    let (send, mut done) = mpsc::channel::<Done>(WAITING_MAX);
    let mut kept: HashMap<Vec<u8>, Kept> = HashMap::new();
    let (mut buffer, mut answer, mut key) = (vec![0; QUESTION_BYTES_MAX], Vec::new(), Vec::new());
    loop {
        tokio::select! {
            () = closing.cancelled() => return,
            Some(Done { again, end, mut bytes, to }) = done.recv() => {
                let _ = socket.try_send_to(&bytes, to);
                if let Some((key, turn)) = again {
                    if kept.len() >= ANSWERS_MAX {
                        kept.clear();
                    }
                    let turns = Turns::of(&bytes, end);
                    turns.undo(&mut bytes, turn);
                    kept.insert(key, Kept { bytes, turns, until: Instant::now() + FRESH });
                }
            }
            ready = socket.readable() => {
                if ready.is_err() {
                    continue;
                }
                let now = Instant::now();
                for _ in 0..AT_ONCE {
                    let Ok((length, from)) = socket.try_recv_from(&mut buffer) else { break };
                    let question = &buffer[..length];
                    let packet = Packet::read(question);
                    if let Some(packet) = &packet {
                        packet.key(&mut key);
                        if let Some(kept) = kept.get(&key).filter(|kept| kept.until > now) {
                            answer.clear();
                            answer.extend_from_slice(&kept.bytes);
                            packet.address(&mut answer);
                            kept.turns.turn(&mut answer, handler.next_turn());
                            // A full queue of the kernel loses it, as any network may.
                            let _ = socket.try_send_to(&answer, from);
                            continue;
                        }
                    }
                    // Without room the asker asks again.
                    let Ok(room) = send.clone().try_reserve_owned() else { continue };
                    let end = packet.as_ref().map_or(0, Packet::end);
                    let key = packet.is_some().then(|| key.clone());
                    let (question, handler) = (question.to_vec(), handler.clone());
                    tokio::spawn(async move {
                        let Some((bytes, turn)) = careful(&question, &handler, from).await else { return };
                        room.send(Done { again: key.zip(turn), end, bytes, to: from });
                    });
                }
            }
        }
    }
}

/// The answer to any datagram, and, where it may be given again, at which turn it is; `None` where there is nothing to say.
pub(super) async fn careful(bytes: &[u8], handler: &Handler, from: SocketAddr) -> Option<(Vec<u8>, Option<usize>)> {
    let Ok(request) = Message::from_vec(bytes) else { return Some((malformed(bytes)?, None)) };
    if request.metadata.message_type == hickory_proto::op::MessageType::Response {
        return None;
    }
    let asked = Asked {
        question: match &request.queries[..] {
            [query] => {
                Some(Question { name: query.name().clone(), kind: query.query_type(), class: query.query_class() })
            }
            _ => None,
        },
        op_code: request.metadata.op_code,
        edns_version: request.edns.as_ref().map(Edns::version),
        from: from.ip(),
    };
    let said = handler.answer(&asked).await;
    let turn = said.turn;
    let room =
        request.edns.as_ref().map_or(PLAIN_BYTES_MAX, |edns| edns.max_payload().clamp(PLAIN_BYTES_MAX, UDP_BYTES_MAX));
    let mut response = Message::response(request.metadata.id, request.metadata.op_code);
    response.metadata = handler.metadata(&request.metadata, &said);
    // Several at once are not repeated: the answer to what nobody asks in earnest is short.
    if let [query] = &request.queries[..] {
        response.add_query(query.clone());
    }
    let Answer { code, answers, authority, additional } = said.answer;
    response.metadata.response_code = code;
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_version(0).set_max_payload(UDP_BYTES_MAX).set_rcode_high(code.high());
        response.set_edns(edns);
    }
    response.answers = answers;
    response.authorities = authority;
    response.additionals = additional;
    encoded(&mut response, usize::from(room)).map(|bytes| (bytes, turn))
}

/// What does not fit is left out whole, and the asker told to come over TCP.
fn encoded(response: &mut Message, room: usize) -> Option<Vec<u8>> {
    let write = |message: &Message| {
        let mut bytes = Vec::with_capacity(512);
        let mut encoder = BinEncoder::new(&mut bytes);
        message.emit(&mut encoder).ok().map(|()| bytes)
    };
    let bytes = write(response)?;
    if bytes.len() <= room {
        return Some(bytes);
    }
    response.additionals.clear();
    let bytes = write(response)?;
    if bytes.len() <= room {
        return Some(bytes);
    }
    response.answers.clear();
    response.authorities.clear();
    response.metadata.truncation = true;
    write(response)
}

/// The head of a datagram that cannot be read says whom to tell.
fn malformed(bytes: &[u8]) -> Option<Vec<u8>> {
    let head = bytes.get(..12).filter(|head| head[2] & 0x80 == 0)?;
    let mut metadata =
        Metadata::new(u16::from_be_bytes([head[0], head[1]]), hickory_proto::op::MessageType::Response, OpCode::Query);
    metadata.response_code = ResponseCode::FormErr;
    let mut response = Message::response(metadata.id, OpCode::Query);
    response.metadata = metadata;
    response.to_vec().ok()
}
