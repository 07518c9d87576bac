//! Between hickory's server and the zone.

use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hickory_proto::op::{Edns, Header, HeaderCounts, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, RecordType};
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::sync::Semaphore;

use super::forward::Forwarder;
use super::packet::UDP_BYTES_MAX;
use super::zone::{self, Answer, Directory, Found, Place, Question, Zone};

/// The most questions that are being answered at once; more are told that the server fails.
const QUESTIONS_MAX: usize = 512;

/// What somebody wants to know.
pub struct Asked {
    /// `None` where it is not exactly one.
    pub question: Option<Question>,
    pub op_code: OpCode,
    pub edns_version: Option<u8>,
    pub from: IpAddr,
}

/// What is said, and whose word it is.
pub struct Said {
    pub answer: Answer,
    /// Where it is the zone's, for which this server answers: with which of several records it begins.
    pub turn: Option<usize>,
}

impl Said {
    fn nothing(code: ResponseCode) -> Self {
        let answer = Answer { code, answers: vec![], authority: vec![], additional: vec![] };
        Self { answer, turn: None }
    }
}

pub struct Handler {
    directory: Arc<dyn Directory>,
    zone: Zone,
    room: Semaphore,
    turn: AtomicUsize,
    /// Asks others for what is not in the zone.
    forwarder: Option<Forwarder>,
}

impl Handler {
    pub fn new(directory: Arc<dyn Directory>, machine: &str, forwarder: Option<Forwarder>) -> Self {
        let room = Semaphore::new(QUESTIONS_MAX);
        Self { directory, zone: Zone::new(machine), room, turn: AtomicUsize::new(0), forwarder }
    }

    /// With which of several records the next answer begins: one after the other, whichever socket gives it.
    pub fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    pub async fn answer(&self, asked: &Asked) -> Said {
        if asked.edns_version.is_some_and(|version| version > 0) {
            return Said::nothing(ResponseCode::BADVERS);
        }
        if asked.op_code != OpCode::Query {
            return Said::nothing(ResponseCode::NotImp);
        }
        let Some(question) = &asked.question else { return Said::nothing(ResponseCode::FormErr) };
        let Ok(_room) = self.room.try_acquire() else { return Said::nothing(ResponseCode::ServFail) };
        let place = match self.zone.place(question) {
            Ok(place) => place,
            Err(code) => return self.of_others(question, asked.from, code).await,
        };
        match self.directory.find(place.clone()).await {
            // Whose address it is, others may know.
            Some(Found::Nothing) if matches!(place, Place::Reverse(_)) => {
                self.of_others(question, asked.from, ResponseCode::Refused).await
            }
            Some(found) => {
                let turn = self.next_turn();
                Said { answer: self.zone.answer(question, &place, found, turn), turn: Some(turn) }
            }
            None => Said::nothing(ResponseCode::ServFail),
        }
    }

    /// What is none of this zone's is passed on for those whom this serves, and otherwise refused.
    async fn of_others(&self, question: &Question, from: IpAddr, code: ResponseCode) -> Said {
        let whole = matches!(question.kind, RecordType::AXFR | RecordType::IXFR);
        match &self.forwarder {
            Some(forwarder) if question.class == DNSClass::IN && !whole && !zone::is_inside(&question.name) => {
                match forwarder.ask(question, from).await {
                    Ok(answer) => Said { answer, turn: None },
                    Err(code) => Said::nothing(code),
                }
            }
            _ => Said::nothing(code),
        }
    }

    /// The head of an answer.
    pub fn metadata(&self, request: &Metadata, said: &Said) -> Metadata {
        let mut metadata = Metadata::response_from_request(request);
        metadata.response_code = said.answer.code;
        metadata.authoritative = said.turn.is_some();
        metadata.recursion_available = self.forwarder.is_some();
        metadata
    }

    async fn respond<R: ResponseHandler>(&self, request: &Request, mut to: R) -> ResponseInfo {
        let question = request.request_info().ok().map(|info| {
            let query = info.query.original();
            Question { name: query.name().clone(), kind: query.query_type(), class: query.query_class() }
        });
        let asked = Asked {
            question,
            op_code: request.metadata.op_code,
            edns_version: request.edns.as_ref().map(Edns::version),
            from: request.src().ip(),
        };
        let said = self.answer(&asked).await;
        let mut metadata = self.metadata(&request.metadata, &said);
        let Answer { code, answers, authority, additional } = said.answer;
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

/// A handler that datagrams and connections share.
pub struct Shared(pub Arc<Handler>);

/// The trait's own method is asynchronous by a macro; this is what the macro makes of it.
impl RequestHandler for Shared {
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
        Box::pin(self.0.respond(request, response))
    }
}
