//! Between hickory's server and the zone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::sync::Semaphore;

use super::zone::{Answer, Directory, Question, Zone};

/// The most questions that are being answered at once; more are told that the server fails.
const QUESTIONS_MAX: usize = 512;
/// What passes every network in one piece (DNS flag day 2020).
const UDP_BYTES_MAX: u16 = 1232;

pub struct Handler {
    directory: Arc<dyn Directory>,
    zone: Zone,
    room: Semaphore,
    turn: AtomicUsize,
}

impl Handler {
    pub fn new(directory: Arc<dyn Directory>, machine: &str) -> Self {
        let room = Semaphore::new(QUESTIONS_MAX);
        Self { directory, zone: Zone::new(machine), room, turn: AtomicUsize::new(0) }
    }

    async fn answer(&self, request: &Request) -> Answer {
        let nothing = |code| Answer { code, answers: vec![], authority: vec![], additional: vec![] };
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return nothing(ResponseCode::BADVERS);
        }
        if request.metadata.op_code != OpCode::Query {
            return nothing(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else { return nothing(ResponseCode::FormErr) };
        let query = info.query.original();
        let question = Question { name: query.name().clone(), kind: query.query_type(), class: query.query_class() };
        let place = match self.zone.place(&question) {
            Ok(place) => place,
            Err(code) => return nothing(code),
        };
        let Ok(_room) = self.room.try_acquire() else { return nothing(ResponseCode::ServFail) };
        match self.directory.find(place.clone()).await {
            Some(found) => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                self.zone.answer(&question, &place, found, turn)
            }
            None => nothing(ResponseCode::ServFail),
        }
    }

    async fn respond<R: ResponseHandler>(&self, request: &Request, mut to: R) -> ResponseInfo {
        let Answer { code, answers, authority, additional } = self.answer(request).await;
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.response_code = code;
        metadata.authoritative = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        metadata.recursion_available = false;
        let edns = request.edns.as_ref().map(|theirs| {
            let mut ours = Edns::new();
            ours.set_version(0).set_max_payload(theirs.max_payload().clamp(512, UDP_BYTES_MAX));
            ours.set_rcode_high(code.high());
            ours
        });
        let response = MessageResponseBuilder::new(&request.queries, edns.as_ref());
        let response = response.build(metadata, &answers, &authority, [], &additional);
        to.send_response(response).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "an answer of DNS could not be sent");
            metadata.response_code = ResponseCode::ServFail;
            Header { metadata, counts: HeaderCounts::default() }.into()
        })
    }
}

/// The trait's own method is asynchronous by a macro; this is what the macro makes of it.
impl RequestHandler for Handler {
    fn handle_request<'handler, 'request, 'answer, R, T>(
        &'handler self,
        request: &'request Request,
        response: R,
    ) -> Pin<Box<dyn Future<Output = ResponseInfo> + Send + 'answer>>
    where
        R: ResponseHandler + 'answer,
        T: Time + 'answer,
        'handler: 'answer,
        'request: 'answer,
        Self: 'answer,
    {
        Box::pin(self.respond(request, response))
    }
}
