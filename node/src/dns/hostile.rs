//! Datagrams as nobody who means well would send them: each gets a short answer that can be read, or none.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use futures::future::BoxFuture;
use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use rialto_protocol::model::PortBinding;
use rialto_protocol::view::{Endpoint, Endpoints};

use super::datagrams::careful;
use super::handler::Handler;
use super::packet::{PLAIN_BYTES_MAX, UDP_BYTES_MAX};
use super::zone::{Directory, Found, Place};

const ASKER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 4711);

/// Knows one crowded service, whatever it is asked for.
struct Crowded;

impl Directory for Crowded {
    fn find(&self, _: Place) -> BoxFuture<'_, Option<Found>> {
        let task = |number: u8| Endpoint {
            task: format!("shop.web.{number}"),
            slot: number.to_string(),
            machine: "m1".into(),
            address: format!("10.0.0.{number}"),
            own: false,
            ports: vec![PortBinding { host: 80, container: 80, protocol: "tcp".into(), ..Default::default() }],
        };
        let tasks = (1..=200).map(task).collect();
        Box::pin(async { Some(Found::Endpoints(Endpoints { tasks, ..Endpoints::default() })) })
    }
}

fn handler() -> Arc<Handler> {
    Arc::new(Handler::new(Arc::new(Crowded), "m1", None))
}

fn question(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut query = Message::query();
    query.add_query(Query::query(Name::from_str(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        query.set_edns(edns);
    }
    query.to_vec().unwrap()
}

/// A head that promises so many questions, and what follows it.
fn promising(questions: u16, rest: &[u8]) -> Vec<u8> {
    let [high, low] = questions.to_be_bytes();
    [&[7, 7, 1, 0, high, low, 0, 0, 0, 0, 0, 0], rest].concat()
}

#[tokio::test]
async fn what_nobody_sends_in_earnest_is_told_so() {
    let handler = handler();
    let long = [&[63][..], &[b'a'; 63]].concat().repeat(5);
    let one = [&[1, b'a', 0][..], &[0, 1, 0, 1]].concat();
    for (bytes, what) in [
        (promising(1, &[0xc0, 12, 0, 1, 0, 1]), "a name that leads to itself"),
        (promising(1, &[1, b'a', 0xc0, 12, 0, 1, 0, 1]), "a name that goes round"),
        (promising(1, &[0xc0, 0xff, 0, 1, 0, 1]), "a name that is nowhere"),
        (promising(1, &[&long[..], &[0, 0, 1, 0, 1]].concat()), "a name that is too long"),
        (promising(u16::MAX, &one), "questions that are not there"),
        (promising(500, &one.repeat(500)), "many questions"),
        (promising(0, &[]), "no question"),
    ] {
        let (answer, again) = careful(&bytes, &handler, ASKER).await.unwrap_or_else(|| panic!("{what}: no answer"));
        let read = Message::from_vec(&answer).unwrap();
        assert_eq!(read.metadata.response_code, ResponseCode::FormErr, "{what}");
        assert!(answer.len() <= usize::from(PLAIN_BYTES_MAX) && again.is_none(), "{what}: {} bytes", answer.len());
    }
    // Two servers that answer each other would never end.
    let mut response = question("web.shop.rialto.internal.", RecordType::A, None);
    response[2] |= 0x80;
    for bytes in [&response[..], &response[..14], &[], &[0; 11]] {
        assert!(careful(bytes, &handler, ASKER).await.is_none(), "{bytes:?}");
    }
}

#[tokio::test]
async fn what_is_too_long_is_left_out_whole() {
    let handler = handler();
    let name = "tasks.web.shop.rialto.internal.";
    for payload in [None, Some(0), Some(600), Some(1232), Some(u16::MAX)] {
        let asked = question(name, RecordType::A, payload);
        let (answer, _) = careful(&asked, &handler, ASKER).await.unwrap();
        let room = payload.unwrap_or(0).clamp(PLAIN_BYTES_MAX, UDP_BYTES_MAX);
        assert!(answer.len() <= usize::from(room), "{payload:?}: {} bytes", answer.len());
        let read = Message::from_vec(&answer).unwrap();
        assert!(read.metadata.truncation && read.answers.is_empty(), "{payload:?}");
        assert_eq!(read.queries[0].name().to_string(), name);
    }
}

#[tokio::test]
async fn mutilated_questions_have_short_answers_or_none() {
    let handler = handler();
    let sound = [
        question("web.shop.rialto.internal.", RecordType::A, None),
        question("_http._tcp.web.shop.rialto.internal.", RecordType::SRV, Some(4096)),
        question("9.0.0.10.in-addr.arpa.", RecordType::PTR, Some(512)),
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let mut bytes = sound[random(sound.len())].clone();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            match random(5) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes[at] ^= 1 << random(8),
                2 => bytes[at] = 0xc0,
                3 => bytes.truncate(at.max(1)),
                _ => bytes.extend_from_within(at..),
            }
        }
        let Some((answer, _)) = careful(&bytes, &handler, ASKER).await else { continue };
        let read = Message::from_vec(&answer).unwrap_or_else(|error| panic!("{error}: {bytes:?}"));
        assert_eq!((read.metadata.message_type, &answer[..2]), (MessageType::Response, &bytes[..2]), "{bytes:?}");
        assert!(answer.len() <= usize::from(UDP_BYTES_MAX), "{} bytes: {bytes:?}", answer.len());
        if read.metadata.response_code == ResponseCode::NoError { answered += 1 } else { refused += 1 }
    }
    assert!(answered > 1_000 && refused > 1_000, "{answered} were answered, {refused} were not");
}
