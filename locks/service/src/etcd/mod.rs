//! The third API of etcd, by gRPC over cleartext HTTP/2, and in JSON at the same port ([`gateway`]). Which method does what
//! is said in [`route`]; messages are in [`messages`].

mod elect;
mod gateway;
mod json;
mod kv;
mod lease;
pub mod messages;
mod status;
mod watch;

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hyper::body::Incoming;
use hyper::{Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use prost::Message;
use rialto_locks::Refusal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;
use tonic::server::{Grpc, ServerStreamingService, StreamingService, UnaryService};
use tonic::{Code, Status, Streaming};
use tonic_prost::ProstCodec;

use crate::Group;
use messages::ResponseHeader;

/// The most bytes of one request.
const REQUEST_BYTES_MAX: usize = 3 << 20;
/// The most streams of one connection: each watcher of a client may have one.
const STREAMS_MAX: u32 = 1024;
/// The head of a request in JSON must be complete within this; an idle connection is closed after it.
const HEAD_WITHIN: Duration = Duration::from_secs(60);
/// Open answers may take so long when everything ends.
const FAREWELL: Duration = Duration::from_secs(1);

type Body = tonic::body::Body;

/// Serves one client, until it goes or `closing`.
pub async fn serve<S>(group: Group, stream: S, closing: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let group = group.clone();
        let answered: BoxFuture<'static, Result<Response<Body>, Infallible>> = Box::pin(async move {
            let is_grpc = request.headers().get(header::CONTENT_TYPE);
            let is_grpc = is_grpc.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
            Ok(if is_grpc { route(group, request).await } else { gateway::route(group, request).await })
        });
        answered
    });
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    http.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
    http.http2().keep_alive_interval(Some(Duration::from_secs(20)));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a client of the lock group broke off");
    }
}

async fn route(group: Group, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/etcdserverpb.KV/Range" => unary(request, |range| kv::range(group, range)).await,
        "/etcdserverpb.KV/Put" => unary(request, |put| kv::put(group, put)).await,
        "/etcdserverpb.KV/DeleteRange" => unary(request, |delete| kv::delete(group, delete)).await,
        "/etcdserverpb.KV/Txn" => unary(request, |txn| kv::txn(group, txn)).await,
        "/etcdserverpb.KV/Compact" => unary(request, |compaction| kv::compact(group, compaction)).await,
        "/etcdserverpb.Watch/Watch" => streaming(request, move |asked| watch::watch(group.clone(), asked)).await,
        "/etcdserverpb.Lease/LeaseGrant" => unary(request, |grant| lease::grant(group, grant)).await,
        "/etcdserverpb.Lease/LeaseRevoke" | "/etcdserverpb.KV/LeaseRevoke" => {
            unary(request, |lease| lease::revoke(group, lease)).await
        }
        "/etcdserverpb.Lease/LeaseKeepAlive" => {
            streaming(request, move |asked| lease::keep_alive(group.clone(), asked)).await
        }
        "/etcdserverpb.Lease/LeaseTimeToLive" => unary(request, |lease| lease::time_to_live(group, lease)).await,
        "/etcdserverpb.Lease/LeaseLeases" => unary(request, |_: messages::Empty| lease::leases(group)).await,
        "/etcdserverpb.Cluster/MemberList" => {
            let door = door_of(&request);
            unary(request, |_: messages::Empty| status::members(group, door)).await
        }
        "/etcdserverpb.Maintenance/Status" => unary(request, |_: messages::Empty| status::status(group)).await,
        "/v3lockpb.Lock/Lock" => unary(request, |lock| elect::lock(group, lock)).await,
        "/v3lockpb.Lock/Unlock" => unary(request, |unlock| elect::unlock(group, unlock)).await,
        "/v3electionpb.Election/Campaign" => unary(request, |campaign| elect::campaign(group, campaign)).await,
        "/v3electionpb.Election/Proclaim" => unary(request, |proclaim| elect::proclaim(group, proclaim)).await,
        "/v3electionpb.Election/Leader" => unary(request, |asked| elect::leader(group, asked)).await,
        "/v3electionpb.Election/Resign" => unary(request, |resign| elect::resign(group, resign)).await,
        "/v3electionpb.Election/Observe" => observing(request, move |asked| elect::observe(group.clone(), asked)).await,
        other => unsupported(other).into_http(),
    }
}

/// Where the client found this, as a URL.
fn door_of<B>(request: &Request<B>) -> Option<String> {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let authority = request.uri().authority().cloned().or_else(|| host?.parse().ok())?;
    authority.port().is_some().then(|| format!("http://{authority}"))
}

/// What etcd has and this has not, with the reason.
fn unsupported(path: &str) -> Status {
    let why = match path.split('/').nth(1).unwrap_or_default() {
        "etcdserverpb.Auth" => "who may do what is decided by Rialto, not by users of etcd",
        "etcdserverpb.Cluster" => "voters are chosen by the group itself: see 'rialto locks voters'",
        "etcdserverpb.Maintenance" => "the group looks after its disks itself: see 'rialto locks status'",
        _ => "no such method",
    };
    Status::unimplemented(format!("{path}: {why}"))
}

async fn unary<Q, A, F, T>(request: Request<Incoming>, answer: F) -> Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: FnOnce(Q) -> T + Send,
    T: Future<Output = Result<A, Status>> + Send + 'static,
{
    struct Once<F>(Option<F>);
    impl<Q, A, F, T> UnaryService<Q> for Once<F>
    where
        F: FnOnce(Q) -> T,
        T: Future<Output = Result<A, Status>> + Send + 'static,
    {
        type Response = A;
        type Future = BoxFuture<'static, Result<tonic::Response<A>, Status>>;

        fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
            match self.0.take() {
                Some(answer) => {
                    let answered = answer(request.into_inner());
                    Box::pin(async move { answered.await.map(tonic::Response::new) })
                }
                None => Box::pin(async { Err(Status::internal("asked twice")) }),
            }
        }
    }
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::default()).max_decoding_message_size(REQUEST_BYTES_MAX);
    grpc.unary(Once(Some(answer)), request).await
}

/// A stream of answers.
pub(crate) struct Answers<A>(BoxStream<'static, Result<A, Status>>);

impl<A> Answers<A> {
    fn of(answers: impl Stream<Item = Result<A, Status>> + Send + 'static) -> Self {
        Self(Box::pin(answers))
    }
}

impl<A> Stream for Answers<A> {
    type Item = Result<A, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

async fn streaming<Q, A, F>(request: Request<Incoming>, answer: F) -> Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: Fn(Streaming<Q>) -> Answers<A> + Send,
{
    struct Both<F>(F);
    impl<Q, A, F> StreamingService<Q> for Both<F>
    where
        F: Fn(Streaming<Q>) -> Answers<A>,
        A: Send + 'static,
    {
        type Response = A;
        type ResponseStream = Answers<A>;
        type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Answers<A>>, Status>> + Send>>;

        fn call(&mut self, request: tonic::Request<Streaming<Q>>) -> Self::Future {
            let answers = (self.0)(request.into_inner());
            Box::pin(async move { Ok(tonic::Response::new(answers)) })
        }
    }
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::default()).max_decoding_message_size(REQUEST_BYTES_MAX);
    grpc.streaming(Both(answer), request).await
}

async fn observing<Q, A, F>(request: Request<Incoming>, answer: F) -> Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: Fn(Q) -> Answers<A> + Send,
{
    struct Out<F>(F);
    impl<Q, A, F> ServerStreamingService<Q> for Out<F>
    where
        F: Fn(Q) -> Answers<A>,
        A: Send + 'static,
    {
        type Response = A;
        type ResponseStream = Answers<A>;
        type Future = Pin<Box<dyn Future<Output = Result<tonic::Response<Answers<A>>, Status>> + Send>>;

        fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
            let answers = (self.0)(request.into_inner());
            Box::pin(async move { Ok(tonic::Response::new(answers)) })
        }
    }
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::default()).max_decoding_message_size(REQUEST_BYTES_MAX);
    grpc.server_streaming(Out(answer), request).await
}

/// etcd's code for a refusal.
fn refused(refusal: Refusal) -> Status {
    let code = match refusal {
        Refusal::EmptyKey | Refusal::KeyNotFound | Refusal::ValueProvided | Refusal::LeaseProvided => {
            Code::InvalidArgument
        }
        Refusal::TooManyOps | Refusal::DuplicateKey | Refusal::TooLarge => Code::InvalidArgument,
        Refusal::Compacted | Refusal::FutureRevision | Refusal::TtlTooLarge => Code::OutOfRange,
        Refusal::NoSpace | Refusal::Busy => Code::ResourceExhausted,
        Refusal::LeaseNotFound => Code::NotFound,
        Refusal::LeaseExists => Code::FailedPrecondition,
        Refusal::NoLeader | Refusal::Unknown | Refusal::NotLeader => Code::Unavailable,
    };
    Status::new(code, refusal.to_string())
}

fn header(group: &Group, revision: i64) -> Option<ResponseHeader> {
    let told = group.told();
    Some(ResponseHeader { cluster_id: told.cluster, member_id: told.node, revision, raft_term: told.term })
}
