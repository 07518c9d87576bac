//! One HTTP request and its answer: connecting, failing over, reading what comes back.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use rialto_protocol::api::{ErrorBody, ErrorCode};
use serde::de::DeserializeOwned;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::{Endpoint, Error, Lines, Tried};

/// A peer that takes longer to accept a connection counts as unreachable.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// An answer that is not waited for on purpose takes no longer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// The longest answer that is read into memory: a `ps` of a hundred thousand tasks is a third of it.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// The body of a request.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What is asked of a peer. It may be asked several times, of one peer after another.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub method: Method,
    /// With the query.
    pub path: String,
    pub body: Option<Bytes>,
    /// How long the answer may take to begin.
    pub answer_max: Duration,
    /// What the connection is to become.
    pub upgrade: Option<&'static str>,
}

impl Call {
    pub fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), body: None, answer_max: ANSWER_MAX, upgrade: None }
    }

    pub fn with(method: Method, path: impl Into<String>, body: &impl serde::Serialize) -> Self {
        // The shapes of the API have text keys and finite numbers only: they always become JSON.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self { method, path: path.into(), body: Some(body.into()), answer_max: ANSWER_MAX, upgrade: None }
    }

    /// The peer waits this long on purpose before it answers.
    pub fn waiting(mut self, extra: Duration) -> Self {
        self.answer_max = ANSWER_MAX.saturating_add(extra);
        self
    }
}

/// A door to the cluster: one or several peers, asked in turn. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    endpoints: Arc<[Endpoint]>,
    token: Option<Arc<str>>,
}

impl Client {
    /// Peers in the order in which they are to be asked; `token` is shown to those over TCP.
    pub fn new(endpoints: Vec<Endpoint>, token: Option<String>) -> Self {
        Self { endpoints: endpoints.into(), token: token.map(Into::into) }
    }

    /// Asks the first peer that can be reached and reads its whole answer.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        let (peer, response) = self.open(call).await?;
        read(&peer, response).await
    }

    /// Asks the first peer that can be reached for bytes; who answered, and what.
    pub(crate) async fn fetch(&self, call: Call) -> Result<(String, Bytes), Error> {
        let (peer, response) = self.open(call).await?;
        let bytes = collect(&peer, response).await?;
        Ok((peer, bytes))
    }

    /// Asks the first peer that can be reached, and follows what it tells line by line.
    pub(crate) async fn follow<T: DeserializeOwned>(&self, call: Call) -> Result<Lines<T>, Error> {
        let (peer, response) = self.open(call).await?;
        Ok(Lines::new(peer, response.into_body()))
    }

    /// Sends a body that can be read only once, and so to one peer only.
    pub(crate) async fn send<T: DeserializeOwned>(&self, path: &str, body: Body) -> Result<T, Error> {
        let mut tried = Vec::new();
        for endpoint in self.endpoints.iter() {
            let mut connection = match connect(endpoint).await {
                Ok(connection) => connection,
                Err(why) => {
                    tried.push(why);
                    continue;
                }
            };
            let peer = endpoint.to_string();
            let request = self.request(endpoint, &Method::POST, path, body);
            let response = connection.send_request(request?).await.map_err(|error| broke_off(&peer, &error))?;
            let response = refused_or(&peer, response).await?;
            return read(&peer, response).await;
        }
        Err(Error::NoPeer(tried))
    }

    pub(crate) async fn open(&self, call: Call) -> Result<(String, Response<Incoming>), Error> {
        let mut tried = Vec::new();
        let mut failed = None;
        for endpoint in self.endpoints.iter() {
            let mut connection = match connect(endpoint).await {
                Ok(connection) => connection,
                Err(why) => {
                    tried.push(why);
                    continue;
                }
            };
            let peer = endpoint.to_string();
            let body = Full::new(call.body.clone().unwrap_or_default()).map_err(|never| match never {}).boxed_unsync();
            let mut request = self.request(endpoint, &call.method, &call.path, body)?;
            if let Some(protocol) = call.upgrade {
                request.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
                request.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static(protocol));
            }
            match timeout(call.answer_max, connection.send_request(request)).await {
                Ok(Ok(response)) => match refused_or(&peer, response).await {
                    // A peer on its way out, or overrun: another one may do it.
                    Err(error) if error.code() == Some(ErrorCode::Busy) => failed = Some(error),
                    Err(error) => return Err(error),
                    Ok(response) => return Ok((peer, response)),
                },
                Ok(Err(error)) => failed = Some(broke_off(&peer, &error)),
                Err(_) => failed = Some(Error::Silent { peer, seconds: call.answer_max.as_secs() }),
            }
        }
        Err(failed.unwrap_or(Error::NoPeer(tried)))
    }

    fn request(&self, to: &Endpoint, method: &Method, path: &str, body: Body) -> Result<Request<Body>, Error> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, to.authority());
        if let (Endpoint::Tcp { .. }, Some(token)) = (to, &self.token) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {}", token.trim()));
        }
        // Only a token that no header can carry comes out wrong here: paths are made in this crate.
        request.body(body).map_err(|error| Error::Source(format!("the token cannot be sent: {error}")))
    }
}

async fn connect(endpoint: &Endpoint) -> Result<SendRequest<Body>, Tried> {
    let opened = async {
        match endpoint {
            Endpoint::Socket(path) => shake_hands(UnixStream::connect(path).await?).await,
            Endpoint::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                shake_hands(stream).await
            }
        }
    };
    // Boxed once: the two kinds of stream would otherwise both live in every caller's future.
    let opened: Pin<Box<dyn Future<Output = io::Result<_>> + Send>> = Box::pin(opened);
    let result = timeout(CONNECT_MAX, opened).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    result.map_err(|error| Tried {
        endpoint: endpoint.to_string(),
        forbidden: error.kind() == io::ErrorKind::PermissionDenied,
        why: plain(&error),
    })
}

async fn shake_hands<S>(stream: S) -> io::Result<SendRequest<Body>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends with the answer, or when the caller drops it; what goes wrong the caller is told.
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

/// The words of the operating system without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

fn broke_off(peer: &str, error: &hyper::Error) -> Error {
    let source = std::error::Error::source(error);
    // A body that could not be read here is no fault of the peer's.
    if error.is_user() {
        return Error::Source(source.map_or_else(|| error.to_string(), ToString::to_string));
    }
    Error::BrokeOff { peer: peer.to_string(), why: source.map_or_else(|| error.to_string(), ToString::to_string) }
}

async fn refused_or(peer: &str, response: Response<Incoming>) -> Result<Response<Incoming>, Error> {
    let status = response.status();
    if status.is_success() || status == hyper::StatusCode::SWITCHING_PROTOCOLS {
        return Ok(response);
    }
    let bytes = collect(peer, response).await?;
    match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(body) => Err(Error::Refused(body)),
        Err(_) => Err(Error::Unreadable { peer: peer.to_string(), why: format!("HTTP status {status}") }),
    }
}

async fn read<T: DeserializeOwned>(peer: &str, response: Response<Incoming>) -> Result<T, Error> {
    let bytes = collect(peer, response).await?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Unreadable { peer: peer.to_string(), why: error.to_string() })
}

async fn collect(peer: &str, response: Response<Incoming>) -> Result<Bytes, Error> {
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
    match timeout(ANSWER_MAX, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(Error::BrokeOff { peer: peer.to_string(), why: error.to_string() }),
        Err(_) => Err(Error::Silent { peer: peer.to_string(), seconds: ANSWER_MAX.as_secs() }),
    }
}
