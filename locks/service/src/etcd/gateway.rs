//! The same in JSON, by HTTP/1.1 at the same port, for clients that speak no gRPC: `POST /v3/kv/range` and its like. What
//! is streamed comes a line each. Names, encodings and refusals are those of etcd's gateway.

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::json::Json;
use super::messages::*;
use super::{Answers, Body, REQUEST_BYTES_MAX, door_of, elect, kv, lease, status, unsupported, watch};
use crate::Group;

/// How older and newer clients begin their paths.
const PREFIXES: [&str; 3] = ["/v3/", "/v3beta/", "/v3alpha/"];
/// The most requests of one stream, all of which come before the first answer.
const REQUESTS_MAX: usize = 1024;

pub async fn route(group: Group, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/version" => {
            return said(StatusCode::OK, &json!({"etcdserver": status::VERSION, "etcdcluster": status::VERSION}));
        }
        "/health" => return health(group).await,
        _ => {}
    }
    let Some(method) = PREFIXES.iter().find_map(|prefix| path.strip_prefix(prefix)) else {
        return refused(&Status::not_found("Not Found"));
    };
    if request.method() != Method::POST {
        let words =
            json!({"error": "Method Not Allowed", "message": "Method Not Allowed", "code": Code::Unimplemented as i32});
        return said(StatusCode::METHOD_NOT_ALLOWED, &words);
    }
    let door = door_of(&request);
    let asked = match body_of(request.into_body()).await {
        Ok(asked) => asked,
        Err(status) => return refused(&status),
    };
    // `kv/lease/…` is what these were called first.
    match method.strip_prefix("kv/").filter(|rest| rest.starts_with("lease/")).unwrap_or(method) {
        "kv/range" => once(&asked, |range| kv::range(group, range)).await,
        "kv/put" => once(&asked, |put| kv::put(group, put)).await,
        "kv/deleterange" => once(&asked, |delete| kv::delete(group, delete)).await,
        "kv/txn" => once(&asked, |txn| kv::txn(group, txn)).await,
        "kv/compaction" => once(&asked, |compaction| kv::compact(group, compaction)).await,
        "watch" => streamed(&asked, |asked| watch::watch(group, asked.chain(stream::pending()))),
        "lease/grant" => once(&asked, |grant| lease::grant(group, grant)).await,
        "lease/revoke" => once(&asked, |lease| lease::revoke(group, lease)).await,
        "lease/keepalive" => streamed(&asked, |asked| lease::keep_alive(group, asked)),
        "lease/timetolive" => once(&asked, |lease| lease::time_to_live(group, lease)).await,
        "lease/leases" => once(&asked, |_: Empty| lease::leases(group)).await,
        "cluster/member/list" => once(&asked, |_: Empty| status::members(group, door)).await,
        "maintenance/status" => once(&asked, |_: Empty| status::status(group)).await,
        "lock/lock" => once(&asked, |lock| elect::lock(group, lock)).await,
        "lock/unlock" => once(&asked, |unlock| elect::unlock(group, unlock)).await,
        "election/campaign" => once(&asked, |campaign| elect::campaign(group, campaign)).await,
        "election/proclaim" => once(&asked, |proclaim| elect::proclaim(group, proclaim)).await,
        "election/leader" => once(&asked, |leader| elect::leader(group, leader)).await,
        "election/resign" => once(&asked, |resign| elect::resign(group, resign)).await,
        "election/observe" => match read::<LeaderRequest>(&asked) {
            Ok(leader) => lines(elect::observe(group, leader)),
            Err(status) => refused(&status),
        },
        other => match other.split('/').next() {
            Some("auth") => refused(&unsupported("/etcdserverpb.Auth/")),
            Some("cluster") => refused(&unsupported("/etcdserverpb.Cluster/")),
            Some("maintenance") => refused(&unsupported("/etcdserverpb.Maintenance/")),
            _ => refused(&Status::not_found("Not Found")),
        },
    }
}

/// Whether it would be served.
async fn health(group: Group) -> Response<Body> {
    match group.fresh().await {
        Ok(()) => said(StatusCode::OK, &json!({"health": "true"})),
        Err(_) => said(StatusCode::SERVICE_UNAVAILABLE, &json!({"health": "false"})),
    }
}

async fn body_of(body: Incoming) -> Result<Bytes, Status> {
    // What is read into memory is bounded by what is said of it, and by what comes.
    let too_long = || Status::resource_exhausted("etcdserver: request is too large");
    if body.size_hint().lower() > REQUEST_BYTES_MAX as u64 {
        return Err(too_long());
    }
    match Limited::new(body, REQUEST_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_long()),
        Err(error) => Err(Status::invalid_argument(format!("the body broke off: {error}"))),
    }
}

/// A request; an empty body is one that says nothing.
fn read<Q: Json>(asked: &[u8]) -> Result<Q, Status> {
    let invalid = |why: String| Status::invalid_argument(why);
    if asked.trim_ascii().is_empty() {
        return Q::of("the request", json!({})).map_err(invalid);
    }
    let value: Value = serde_json::from_slice(asked).map_err(|error| invalid(error.to_string()))?;
    Q::of("the request", value).map_err(invalid)
}

async fn once<Q, A, F, T>(asked: &[u8], answer: F) -> Response<Body>
where
    Q: Json,
    A: Json,
    F: FnOnce(Q) -> T,
    T: Future<Output = Result<A, Status>>,
{
    let answered = match read(asked) {
        Ok(question) => answer(question).await,
        Err(status) => Err(status),
    };
    match answered {
        Ok(answer) => said(StatusCode::OK, &answer.json("")),
        Err(status) => refused(&status),
    }
}

/// What asks again and again may do so once, or with several objects one behind the other.
fn streamed<Q, A, F>(asked: &[u8], answer: F) -> Response<Body>
where
    Q: Json + Send + 'static,
    A: Json + Send + 'static,
    F: FnOnce(stream::Iter<std::vec::IntoIter<Result<Q, Status>>>) -> Answers<A>,
{
    let values = serde_json::Deserializer::from_slice(asked).into_iter::<Value>().take(REQUESTS_MAX);
    let questions = values.map(|value| {
        let value = value.map_err(|error| Status::invalid_argument(error.to_string()))?;
        Q::of("the request", value).map_err(Status::invalid_argument)
    });
    match questions.collect::<Result<Vec<Q>, Status>>() {
        Ok(questions) if questions.is_empty() => refused(&Status::invalid_argument("EOF")),
        Ok(questions) => lines(answer(stream::iter(questions.into_iter().map(Ok).collect::<Vec<_>>()))),
        Err(status) => refused(&status),
    }
}

/// Answers, a line each.
fn lines<A: Json + Send + 'static>(answers: Answers<A>) -> Response<Body> {
    let mut response = Response::new(Body::new(StreamBody::new(frames(answers))));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn frames<A: Json + Send + 'static>(answers: Answers<A>) -> impl Stream<Item = Result<Frame<Bytes>, Status>> {
    answers.map(|answer| {
        let line = match answer {
            Ok(answer) => json!({"result": answer.json("")}),
            Err(status) => {
                let http = http_of(status.code());
                let reason = http.canonical_reason().unwrap_or_default();
                json!({"error": {"grpc_code": status.code() as i32, "http_code": http.as_u16(),
                                 "message": status.message(), "http_status": reason}})
            }
        };
        Ok(Frame::data(Bytes::from(line.to_string() + "\n")))
    })
}

fn refused(status: &Status) -> Response<Body> {
    let words = status.message();
    said(http_of(status.code()), &json!({"error": words, "message": words, "code": status.code() as i32}))
}

fn said(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::new(Full::new(Bytes::from(value.to_string()))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// The status that etcd's gateway has for a code.
fn http_of(code: Code) -> StatusCode {
    match code {
        Code::Ok => StatusCode::OK,
        Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Unknown | Code::Internal | Code::DataLoss => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
