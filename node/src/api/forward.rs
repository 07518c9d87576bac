//! Asking another peer by the same API: HTTP/1.1 over a stream of the mesh.

use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, Response, Uri, header};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rialto_protocol::api::ErrorBody;
use rialto_protocol::ids::PeerId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::images::Manifest;
use super::problem::Problem;

/// A stream must be open, and an answer begun, within this.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The most bytes of another peer's refusal, or of a manifest.
const SMALL_BYTES_MAX: usize = 4 << 20;

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Opens a stream to a peer's API: the mesh does.
pub trait Open: Send + Sync + 'static {
    fn open(&self, peer: PeerId, addresses: Vec<String>) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>>;
}

/// Asks other peers.
pub trait Peers: Send + Sync + 'static {
    /// The answer's head comes in time or not at all; its body may go on for ever.
    fn call(
        &self,
        peer: PeerId,
        addresses: Vec<String>,
        request: Request<Body>,
    ) -> BoxFuture<'_, Result<Response<Body>, CallError>>;
}

/// Why a peer did not answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("no connection: {0}")]
    Open(#[from] io::Error),
    #[error("it broke off: {0}")]
    Http(#[from] hyper::Error),
    #[error("it did not answer in time")]
    TimedOut,
    /// It answered, and refused.
    #[error("it refused: {}", .0.body().message)]
    Refused(Problem),
}

/// [`Peers`] over anything that opens streams.
pub struct Forward<O>(O);

impl<O: Open> Forward<O> {
    pub fn new(open: O) -> Self {
        Self(open)
    }

    async fn send(
        &self,
        peer: PeerId,
        addresses: Vec<String>,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, CallError> {
        let stream = self.0.open(peer, addresses).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // The connection lives as long as the answer's body is read.
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%peer, %error, "a forwarded request broke off");
            }
        });
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_string();
        *request.uri_mut() = path.parse::<Uri>().unwrap_or_else(|_| Uri::from_static("/"));
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("peer"));
        Ok(sender.send_request(request).await?.map(Body::new))
    }
}

impl<O: Open> Peers for Forward<O> {
    fn call(
        &self,
        peer: PeerId,
        addresses: Vec<String>,
        request: Request<Body>,
    ) -> BoxFuture<'_, Result<Response<Body>, CallError>> {
        Box::pin(async move {
            let sent = timeout(ANSWER_WITHIN, self.send(peer, addresses, request));
            sent.await.unwrap_or(Err(CallError::TimedOut))
        })
    }
}

/// Bytes as they come.
pub type Streamed = BoxStream<'static, io::Result<Bytes>>;

/// One blob of an image.
pub struct Blob {
    pub bytes: u64,
    pub data: Streamed,
}

/// A blob, `sha256:…`, from a peer that has it. The caller checks the digest.
pub async fn fetch_blob(
    peers: &dyn Peers,
    peer: PeerId,
    addresses: Vec<String>,
    digest: &str,
) -> Result<Blob, CallError> {
    blob_at(peers, peer, addresses, format!("/v1/blobs/{}", encode(digest))).await
}

/// A blob of so many bytes of an image, from a peer that may first have to fetch it from the image's registry.
pub async fn fetch_blob_of(
    peers: &dyn Peers,
    peer: PeerId,
    image: &str,
    digest: &str,
    bytes: u64,
) -> Result<Blob, CallError> {
    let path = format!("/v1/blobs/{}?image={}&bytes={bytes}", encode(digest), encode(image));
    blob_at(peers, peer, Vec::new(), path).await
}

async fn blob_at(peers: &dyn Peers, peer: PeerId, addresses: Vec<String>, path: String) -> Result<Blob, CallError> {
    let response = get(peers, peer, addresses, path).await?;
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "a blob without its length");
    let bytes = length.ok_or_else(missing)?;
    let data = response.into_body().into_data_stream().map(|chunk| chunk.map_err(io::Error::other));
    Ok(Blob { bytes, data: data.boxed() })
}

/// The manifest of an image, from a peer that has it. The caller checks the digest.
pub async fn fetch_manifest(
    peers: &dyn Peers,
    peer: PeerId,
    addresses: Vec<String>,
    name: &str,
) -> Result<Manifest, CallError> {
    let response = get(peers, peer, addresses, format!("/v1/images/{}/manifest", encode(name))).await?;
    let (head, body) = response.into_parts();
    let text = |name: &str| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_string).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no {name}")))
    };
    let (digest, media_type) = (text("digest")?, text("content-type")?);
    let bytes = axum::body::to_bytes(body, SMALL_BYTES_MAX).await.map_err(io::Error::other)?;
    Ok(Manifest { digest, media_type, bytes })
}

async fn get(
    peers: &dyn Peers,
    peer: PeerId,
    addresses: Vec<String>,
    path: String,
) -> Result<Response<Body>, CallError> {
    let request = Request::get(path).body(Body::empty()).map_err(io::Error::other)?;
    let response = peers.call(peer, addresses, request).await?;
    if response.status().is_success() { Ok(response) } else { Err(CallError::Refused(refusal(response).await)) }
}

/// Reads another peer's refusal.
pub async fn refusal(response: Response<Body>) -> Problem {
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), SMALL_BYTES_MAX).await.unwrap_or_default();
    match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(body) => Problem::from(body).with_status(status),
        Err(_) => Problem::new(rialto_protocol::api::ErrorCode::Internal, format!("it answered {status}")),
    }
}

/// One segment of a path: everything but letters, digits and `-._~` by its number (RFC 3986).
pub fn encode(segment: &str) -> String {
    use std::fmt::Write;
    segment.bytes().fold(String::with_capacity(segment.len()), |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(byte as char),
            _ => drop(write!(text, "%{byte:02X}")),
        }
        text
    })
}
