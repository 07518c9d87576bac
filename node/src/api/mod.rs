//! The HTTP API under `/v1/`, and `/metrics`: what every peer serves to people and, over the mesh, to other peers.
//!
//! A peer builds one [`State`], makes the router of it, and serves that at its doors:
//!
//! ```ignore
//! let token = Token::load(&data, std::env::var("RIALTO_API_TOKEN").ok().as_deref())?;   // only with --api
//! let peers = Arc::new(api::Forward::new(opener));                // opener: impl api::Open, over the mesh
//! let router = api::router(State { handle, me, machine, logs, containers, images, events, inviter, peers, here, warnings,
//!                                  refused, metered, token: Some(token), closing: closing.clone() });
//! tokio::spawn(api::serve_socket(router.clone(), api::bind_socket(&path)?, closing.clone()));
//! tokio::spawn(api::serve_tcp(router.clone(), TcpListener::bind(address).await?, closing.clone()));
//! // and for each stream that a peer opens with the API's protocol:
//! tokio::spawn(api::serve_stream(router.clone(), stream, peer, closing.clone()));
//! ```
//!
//! Every door names who asks ([`Identity`]), every handler asks [`authorize`], every answer is an
//! [`rialto_protocol::api::Answer`], and every refusal an [`rialto_protocol::api::ErrorBody`]. What only another
//! machine can do or read is asked of it by the same request over the mesh ([`Peers`]).
//!
//! When `closing` is cancelled, doors close, followers are told so, and open answers get five seconds.

mod apps;
mod check;
mod doctor;
mod events;
mod explain;
mod extract;
mod follow;
mod forward;
mod guard;
mod happenings;
mod identity;
mod images;
mod lock_queues;
mod lock_sessions;
mod locks;
mod logins;
mod logs;
mod machines;
mod metrics;
mod problem;
mod progress;
mod pulls;
mod rebalance;
mod restarts;
mod rollouts;
mod runs;
mod secrets;
mod serve;
mod sessions;
mod stamp;
mod stats;
mod tasks;
mod token;
mod upload;
mod volumes;
mod voters;
mod watch;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::extract::{FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use rialto_protocol::api::{Answer, ErrorCode};
use rialto_protocol::ids::PeerId;
use rialto_protocol::view::View;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::executor::network::Network;
use crate::handle::Handle;

pub use apps::is_same_image;
pub use check::check_spec;
pub use doctor::Here;
pub use events::Events;
pub use forward::{Blob, CallError, Duplex, Forward, Open, Peers, Streamed, fetch_blob, fetch_blob_of, fetch_manifest};
pub use guard::Door;
pub use identity::{Identity, NAMESPACE, Verb, authorize};
pub use images::{Given, ImageError, Images, Imported, Manifest};
pub use logs::{Chunk, LogStream, Logs};
pub use machines::{Invitation, Inviter};
pub use metrics::{Figure, Metered, Shape};
pub use problem::Problem;
pub use rialto_protocol::rfc3339::rfc3339;
pub use secrets::SecretKeeper;
pub use serve::{bind_socket, serve_socket, serve_stream, serve_tcp};
pub use sessions::Containers;
pub use token::{TOKEN_FILE, Token};
pub use voters::Voters;

use guard::Guard;
use watch::Watches;

/// The most answers that stay open to follow something, at one peer.
const FOLLOWERS_MAX: usize = 256;

/// Everything that the API needs of its peer.
pub struct State {
    pub handle: Handle,
    pub me: PeerId,
    /// The machine's name.
    pub machine: String,
    pub logs: Arc<dyn Logs>,
    pub containers: Arc<dyn Containers>,
    pub images: Arc<dyn Images>,
    pub events: Arc<dyn Events>,
    pub secrets: Arc<dyn SecretKeeper>,
    pub inviter: Arc<dyn Inviter>,
    pub peers: Arc<dyn Peers>,
    /// Where this peer keeps and serves things: what `doctor` looks at.
    pub here: Here,
    /// What does not work, sentence by sentence.
    pub warnings: Arc<Mutex<Vec<String>>>,
    /// Of tasks with addresses of their own: what does not work of it, and the ways to other machines.
    pub network: Option<Network>,
    /// Bad input by kind, counted.
    pub refused: Arc<Mutex<BTreeMap<String, u64>>>,
    /// What the mesh and the process count.
    pub metered: Arc<dyn Metered>,
    /// This peer's part in the lock group, unless it has failed.
    pub locks: Option<rialto_locks_service::Group>,
    /// Who keeps the locks that this peer is asked for.
    pub voters: Arc<dyn Voters>,
    /// What opens the TCP door; without one it stays shut.
    pub token: Option<Token>,
    /// Cancelled when the peer goes down.
    pub closing: CancellationToken,
}

/// The state with what the API itself keeps.
struct Api {
    state: State,
    watches: Watches,
    followers: Arc<Semaphore>,
}

impl std::ops::Deref for Api {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl Api {
    /// An answer from the brain as it stands.
    async fn answer<T: Send + 'static>(
        &self,
        look: impl FnOnce(View<'_>) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Json<Answer<T>>, Problem> {
        let answer = self.handle.read(move |brain, now| {
            let view = brain.view(now);
            look(view).map(|data| Answer { as_of: now.wall, members_seen: view.members_seen(), data })
        });
        answer.await.unwrap_or_else(|| Err(Problem::going_down())).map(Json)
    }

    /// A place among those who follow.
    fn follower(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let full = |_| Problem::new(ErrorCode::Busy, format!("{FOLLOWERS_MAX} requests wait or follow here already"));
        self.followers.clone().try_acquire_owned().map_err(full)
    }

    /// An answer whose content is known already.
    async fn answer_with<T: Send + Serialize + 'static>(&self, data: T) -> Result<Json<Answer<T>>, Problem> {
        self.answer(move |_| Ok(data)).await
    }
}

/// The handlers' state.
#[derive(Clone)]
struct Shared(Arc<Api>);

impl std::ops::Deref for Shared {
    type Target = Arc<Api>;

    fn deref(&self) -> &Arc<Api> {
        &self.0
    }
}

impl FromRequestParts<Shared> for Shared {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, shared: &Shared) -> Result<Self, Infallible> {
        Ok(shared.clone())
    }
}

/// The API of one peer. To be called within a tokio runtime.
pub fn router(state: State) -> Router {
    let guard = Arc::new(Guard { machine: state.machine.clone(), token: state.token.clone() });
    let watches = Watches::new(state.handle.clone());
    let api = Shared(Arc::new(Api { state, watches, followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)) }));
    let locks = Router::new()
        .route("/v1/locks/sessions", post(lock_sessions::grant))
        .route("/v1/locks/sessions/{session}", delete(lock_sessions::end))
        .route("/v1/locks/sessions/{session}/renew", post(lock_sessions::renew))
        .route("/v1/locks/queues", get(lock_queues::list))
        .route("/v1/locks/queues/{name}", get(lock_queues::one).post(lock_queues::wait).delete(lock_queues::end))
        .layer(axum::middleware::from_fn_with_state(api.clone(), voters::carry));
    Router::new()
        .merge(locks)
        .route("/metrics", get(metrics::metrics))
        .route("/v1/healthz", get(machines::healthz))
        .route("/v1/version", get(machines::version))
        .route("/v1/status", get(machines::status))
        .route("/v1/machines", get(machines::list))
        .route("/v1/machines/unfreeze", post(machines::unfreeze))
        .route("/v1/machines/{machine}", delete(machines::remove))
        .route("/v1/machines/{machine}/drain", post(machines::drain))
        .route("/v1/machines/{machine}/undrain", post(machines::undrain))
        .route("/v1/invitations", post(machines::invite))
        .route("/v1/tasks", get(tasks::list))
        .route("/v1/tasks/{task}", get(tasks::one))
        .route("/v1/apps", get(apps::list))
        .route("/v1/apps/{app}", get(apps::one).put(apps::deploy).delete(apps::remove))
        .route("/v1/apps/{app}/scale", post(apps::scale))
        .route("/v1/apps/{app}/wait", get(apps::wait))
        .route("/v1/apps/{app}/history", get(apps::history))
        .route("/v1/apps/{app}/rollback", post(apps::rollback))
        .route("/v1/apps/{app}/rollout", get(rollouts::list).post(rollouts::order))
        .route("/v1/apps/{app}/events", get(happenings::list))
        .route("/v1/apps/{app}/run", post(rollouts::run))
        .route("/v1/runs", post(runs::run))
        .route("/v1/logs/{name}", get(logs::read))
        .route("/v1/tasks/{task}/restart", post(restarts::restart))
        .route("/v1/tasks/{task}/exec", get(sessions::exec))
        .route("/v1/tasks/{task}/copy", get(sessions::copy))
        .route("/v1/tasks/{task}/attach", get(sessions::attach))
        .route("/v1/stats", get(stats::read))
        .route("/v1/images", get(images::list).post(images::import))
        .route("/v1/images/{name}", delete(pulls::remove))
        .route("/v1/images/{name}/pull", post(pulls::pull))
        .route("/v1/images/{name}/manifest", get(images::manifest))
        .route("/v1/blobs/gc", post(pulls::collect))
        .route("/v1/blobs/{digest}", get(images::blob))
        .route("/v1/volumes", get(volumes::list).post(volumes::make))
        .route("/v1/volumes/{name}", get(volumes::one).delete(volumes::remove))
        .route("/v1/volumes/{name}/release", post(volumes::release))
        .route("/v1/volumes/{name}/copy", get(volumes::copy))
        .route("/v1/logins", get(logins::list))
        .route("/v1/logins/{registry}", put(logins::set).delete(logins::remove))
        .route("/v1/secrets", get(secrets::list))
        .route("/v1/secrets/{name}", put(secrets::set).delete(secrets::remove))
        .route("/v1/events", get(events::list))
        .route("/v1/explain/{name}", get(explain::explain))
        .route("/v1/rebalance", get(rebalance::plan).post(rebalance::begin))
        .route("/v1/locks", get(locks::status))
        .route("/v1/locks/force-new-group", post(locks::force))
        .route("/v1/ledger", get(explain::ledger))
        .route("/v1/doctor", get(doctor::examine))
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown_path)
        .layer(axum::middleware::from_fn_with_state(api.clone(), stamp::stamp))
        .with_state(api)
        .layer(axum::middleware::from_fn_with_state(guard, guard::pass))
}

async fn unknown_path(request: Request) -> Problem {
    Problem::not_found(request.uri().path()).at("path")
}

async fn wrong_method(request: Request) -> Problem {
    let message = format!("{} takes no {}", request.uri().path(), request.method());
    Problem::invalid(message).at("method").with_status(StatusCode::METHOD_NOT_ALLOWED)
}

/// A stream of one JSON value a line.
fn ndjson(body: axum::body::Body) -> Response {
    let mut response = Response::new(body);
    let kind = axum::http::HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(axum::http::header::CONTENT_TYPE, kind);
    response
}
