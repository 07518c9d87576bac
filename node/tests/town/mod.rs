//! A peer's API over a brain of its own, with stores that are made up.
#![allow(dead_code)]

pub mod village;

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::Request as HttpRequest;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rialto_node::api::{
    Blob, Door, Duplex, Events, Figure, Forward, Given, Here, ImageError, Images, Imported, Invitation, Inviter,
    LogStream, Logs, Manifest, Metered, Open, Peers, State, Streamed, Token, Voters, router,
};
use rialto_node::handle::{Ask, Handle};
use rialto_node::news::News;
use rialto_protocol::api::{EventRow, LayerRow};
use rialto_protocol::effect::{Refusal, Reply};
use rialto_protocol::event::{Now, Request};
use rialto_protocol::ids::{ClaimId, ClusterId, InvitationId, PeerId};
use rialto_protocol::{Brain, Config, Restored};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

pub const TOKEN: &str = "open-sesame";
/// The only blob that there is, and the manifest of every image but `nosuch`.
pub const BLOB: &[u8] = b"a blob of an image";

/// A peer's API.
pub struct Town {
    pub router: Router,
    pub closing: CancellationToken,
    asked: Arc<Mutex<Vec<Request>>>,
    chronicle: Arc<Chronicle>,
    /// While it is there a brain is served that nothing happens to.
    _changes: Option<watch::Sender<News>>,
}

impl Town {
    /// `answer` stands in for what the brain would do; what is read, is read from a new brain.
    pub fn new(answer: fn(&Request) -> Result<Reply, Refusal>) -> Self {
        let me = PeerId([1; 32]);
        let (asks, mut to_answer) = mpsc::channel(64);
        let (_changes, changes) = watch::channel(News::default());
        let asked: Arc<Mutex<Vec<Request>>> = Arc::default();
        let kept = asked.clone();
        tokio::spawn(async move {
            let founding = [0; 16];
            let config = Config {
                me,
                cluster: ClusterId::of_founder(&me, &founding),
                founding: Some(founding),
                chain: Vec::new(),
                seed: 1,
                minority_hold_ms: None,
            };
            let now = Now { ms: 1, wall: 1_767_225_600_000 };
            let (brain, _) = Brain::new(config, Restored::default(), now);
            while let Some(ask) = to_answer.recv().await {
                match ask {
                    Ask::Read(look) | Ask::Watch(look) => look(&brain, now),
                    Ask::Request(request, reply) => {
                        let _ = reply.send(answer(&request));
                        kept.lock().unwrap().push(request);
                    }
                }
            }
        });
        let nowhere = Forward::new(Corridor::nowhere());
        Self::of(Handle::new(asks, changes), me, Arc::new(Silence), Arc::new(nowhere), asked, Some(_changes))
    }

    /// The API of a peer of a village.
    pub fn of_peer(peer: &village::Peer) -> Self {
        let (handle, logs) = (peer.handle.clone(), peer.memory.clone());
        let town = Self::of(handle, peer.id, logs, Arc::new(peer.forward()), Arc::default(), None);
        peer.roads.add_router(peer.id, town.router.clone());
        town
    }

    fn of(
        handle: Handle,
        me: PeerId,
        logs: Arc<dyn Logs>,
        peers: Arc<dyn Peers>,
        asked: Arc<Mutex<Vec<Request>>>,
        _changes: Option<watch::Sender<News>>,
    ) -> Self {
        let chronicle = Arc::new(Chronicle::default());
        chronicle.happen("founded");
        chronicle.happen("down");
        let closing = CancellationToken::new();
        let state = State {
            handle,
            me,
            machine: format!("m{}", me.0[0]),
            logs,
            containers: Arc::new(Empty),
            images: Arc::new(Gallery),
            events: chronicle.clone(),
            secrets: Arc::new(NoSecrets),
            inviter: Arc::new(Herald),
            peers,
            here: Here {
                data: "/".into(),
                listen: "127.0.0.1:7400".parse::<SocketAddr>().unwrap(),
                dns_wanted: None,
                dns: None,
            },
            network: None,
            warnings: Arc::new(Mutex::new(vec!["a sentence".into()])),
            refused: Arc::new(Mutex::new([("mesh_unknown".to_string(), 3)].into())),
            metered: Arc::new(Meter),
            locks: None,
            voters: Arc::new(Nobody),
            token: Token::of(TOKEN),
            closing: closing.clone(),
        };
        Self { router: router(state), closing, asked, chronicle, _changes }
    }

    pub fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    pub fn happen(&self, what: &str) {
        self.chronicle.happen(what);
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.send("GET", path, String::new()).await
    }

    /// Asks as the administrator.
    pub async fn send(&self, method: &str, path: &str, body: String) -> (u16, Value) {
        let response = self.respond(method, path, body).await;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    pub async fn respond(&self, method: &str, path: &str, body: String) -> axum::response::Response {
        let request = HttpRequest::builder().method(method).uri(path).extension(Door::Socket).body(Body::from(body));
        self.router.clone().oneshot(request.unwrap()).await.unwrap()
    }

    /// An answer of lines, each read as JSON; every line must come whole in one piece.
    pub async fn lines(&self, path: &str) -> Lines {
        self.lines_of("GET", path, String::new()).await
    }

    pub async fn lines_of(&self, method: &str, path: &str, body: String) -> Lines {
        let response = self.respond(method, path, body).await;
        assert_eq!(response.status(), 200, "{path}");
        let read = |chunk: Result<Bytes, axum::Error>| serde_json::from_slice(&chunk.unwrap()).unwrap();
        Box::pin(response.into_body().into_data_stream().map(read))
    }
}

/// An answer line by line.
pub type Lines = Pin<Box<dyn Stream<Item = Value> + Send>>;

pub fn digest_of(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// One request over a connection of its own.
pub async fn call<S>(stream: S, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, Bytes)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    call_with(stream, method, path, headers, Bytes::new()).await
}

/// The same with a body.
pub async fn call_with<S>(stream: S, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> (u16, Bytes)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = HttpRequest::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = sender.send_request(request.body(Full::new(body)).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    (status, response.into_body().collect().await.unwrap().to_bytes())
}

/// No task ever printed anything.
struct Silence;

impl Logs for Silence {
    fn read(&self, _: ClaimId, _: Option<usize>) -> LogStream {
        futures::stream::iter([Err(io::ErrorKind::NotFound.into())]).boxed()
    }

    fn follow(&self, claim: ClaimId, tail: Option<usize>) -> LogStream {
        self.read(claim, tail)
    }
}

struct Gallery;

impl Images for Gallery {
    fn enter(&self, _: String, login: rialto_protocol::api::LoginBody) -> BoxFuture<'_, Result<(), ImageError>> {
        let opens = login.password == "open sesame";
        Box::pin(async move { opens.then_some(()).ok_or_else(|| ImageError::Invalid("it denies it".into())) })
    }

    fn import(
        &self,
        name: Option<String>,
        fallback: Option<String>,
        mut archive: Streamed,
    ) -> BoxFuture<'_, Result<Imported, ImageError>> {
        Box::pin(async move {
            let mut bytes = 0;
            while let Some(chunk) = archive.next().await {
                bytes += chunk?.len() as u64;
            }
            if bytes < 1000 {
                return Err(ImageError::Invalid("the archive is no OCI image layout".into()));
            }
            Ok(Imported { name: name.or(fallback).unwrap_or_else(|| "own".into()), digest: digest_of(BLOB), bytes })
        })
    }

    fn pull(
        &self,
        name: String,
        _: Vec<PeerId>,
        told: watch::Sender<Vec<LayerRow>>,
    ) -> BoxFuture<'_, Result<Imported, ImageError>> {
        Box::pin(async move {
            let layer = LayerRow { digest: digest_of(BLOB), bytes: 5, bytes_total: 5, state: "ready".into() };
            told.send_replace(vec![layer]);
            match name.as_str() {
                "nosuch" => Err(ImageError::Unavailable("nobody has it".into())),
                _ => Ok(Imported { name, digest: digest_of(BLOB), bytes: 5 }),
            }
        })
    }

    fn remove(&self, name: String) -> BoxFuture<'_, Result<Given, ImageError>> {
        Box::pin(async move { Ok(Given { images: vec![(name, digest_of(BLOB))], bytes: 5 }) })
    }

    fn collect(&self, _: Option<Duration>) -> BoxFuture<'_, Result<Given, ImageError>> {
        Box::pin(async { Ok(Given { images: Vec::new(), bytes: 7 }) })
    }

    fn blob_of(&self, _: String, digest: String, _: u64) -> BoxFuture<'_, Result<Blob, ImageError>> {
        self.blob(digest)
    }

    fn manifest(&self, name: String) -> BoxFuture<'_, Result<Manifest, ImageError>> {
        Box::pin(async move {
            if name == "nosuch" {
                return Err(ImageError::NotFound(format!("image {name}")));
            }
            let media_type = "application/vnd.oci.image.manifest.v1+json".to_string();
            Ok(Manifest { digest: digest_of(BLOB), media_type, bytes: Bytes::from_static(BLOB) })
        })
    }

    fn blob(&self, digest: String) -> BoxFuture<'_, Result<Blob, ImageError>> {
        Box::pin(async move {
            if digest != digest_of(BLOB) {
                return Err(ImageError::NotFound(digest));
            }
            let data = futures::stream::iter(BLOB.chunks(5).map(|chunk| Ok(Bytes::copy_from_slice(chunk))));
            Ok(Blob { bytes: BLOB.len() as u64, data: data.boxed() })
        })
    }
}

struct Herald;

impl Inviter for Herald {
    fn draw(&self) -> Invitation {
        Invitation { id: InvitationId([3; 16]), secret_hash: [4; 32], token: "rialto1.test".into() }
    }
}

struct Meter;

impl Metered for Meter {
    fn figures(&self) -> Vec<Figure> {
        vec![Figure::counter("rialto_link_bytes", "Bytes", 7).of("way", "sent")]
    }
}

#[derive(Default)]
struct Chronicle {
    events: Mutex<Vec<EventRow>>,
    last: watch::Sender<u64>,
}

impl Chronicle {
    fn happen(&self, what: &str) {
        let mut events = self.events.lock().unwrap();
        let id = events.len() as u64 + 1;
        let at = "2026-01-01T00:00:00.000Z".to_string();
        events.push(EventRow { id, at, what: what.into(), subject: "m2".into(), text: String::new() });
        self.last.send_replace(id);
    }
}

impl Events for Chronicle {
    fn after(&self, id: u64) -> Vec<EventRow> {
        self.events.lock().unwrap().iter().filter(|event| event.id > id).cloned().collect()
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}

/// A mesh of one corridor, to one peer or to none.
pub struct Corridor(Option<Router>);

impl Corridor {
    pub fn to(town: &Town) -> Self {
        Self(Some(town.router.clone()))
    }

    pub fn nowhere() -> Self {
        Self(None)
    }
}

impl Open for Corridor {
    fn open(&self, _: PeerId, _: Vec<String>) -> BoxFuture<'_, io::Result<Box<dyn rialto_node::api::Duplex>>> {
        Box::pin(async move {
            let router = self.0.clone().ok_or(io::ErrorKind::HostUnreachable)?;
            let (here, there) = tokio::io::duplex(1 << 16);
            let from = PeerId([1; 32]);
            tokio::spawn(rialto_node::api::serve_stream(router, there, from, CancellationToken::new()));
            Ok(Box::new(here) as Box<dyn rialto_node::api::Duplex>)
        })
    }
}

/// A machine on which nothing can be entered.
struct Empty;

struct NoSecrets;

impl rialto_node::api::SecretKeeper for NoSecrets {
    fn put(&self, name: String, _: Option<Vec<u8>>) -> BoxFuture<'_, Result<bool, rialto_protocol::effect::Refusal>> {
        Box::pin(async { Err(rialto_protocol::effect::Refusal::NotFound(name)) })
    }
}

impl rialto_node::api::Containers for Empty {
    fn copy_volume(
        &self,
        _: &rialto_protocol::model::Volume,
        _: Option<String>,
    ) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn mark_volume(&self, _: rialto_protocol::ids::VolumeId, _: bool) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn remove_volume(&self, _: rialto_protocol::ids::VolumeId) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn measure_volume(
        &self,
        _: rialto_protocol::ids::VolumeId,
    ) -> BoxFuture<'_, io::Result<(u64, u64, std::path::PathBuf)>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn enter(&self, _: ClaimId) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn attach(&self, _: ClaimId) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn usage(&self) -> BoxFuture<'_, Vec<rialto_node::executor::Usage>> {
        Box::pin(async { Vec::new() })
    }
}

/// Nobody votes on locks.
pub struct Nobody;

impl Voters for Nobody {
    fn find(&self) -> BoxFuture<'_, Vec<PeerId>> {
        Box::pin(async { Vec::new() })
    }
}
