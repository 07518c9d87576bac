//! What people and programs come in by: the API's sockets and DNS.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use rialto_protocol::api::EventRow;
use rialto_protocol::ids::{ClusterId, InvitationId, PeerId};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::folder::Folder;
use super::{PeerError, watch::Describe};
use crate::api::{self, Token};
use crate::config::Config;
use crate::dns::Dns;
use crate::events::{EVENTS_MAX, EventLog};
use crate::handle::Handle;
use crate::identity::random;
use crate::invitation::{Invitation, Secret};

/// What does not work, for `rialto status`: sentence by sentence.
pub type Warnings = Arc<Mutex<Vec<String>>>;

/// Says what does not work, now and to whoever asks later.
pub fn warn(warnings: &Warnings, sentence: String) {
    tracing::warn!("{sentence}");
    warnings.lock().unwrap_or_else(PoisonError::into_inner).push(sentence);
}

/// Doors that are taken and not open yet.
pub struct Doors {
    socket: UnixListener,
    tcp: Option<(TcpListener, Token)>,
    dns: Option<Dns>,
    etcd: Option<TcpListener>,
}

impl Doors {
    /// Takes the sockets. A port for DNS or etcd's clients that cannot be had is a warning, any other a failed start.
    pub async fn take(config: &Config, folder: &Folder, warnings: &Warnings) -> Result<Self, PeerError> {
        let path = &config.socket;
        let taken = |what: String, flag: &str, error: std::io::Error| {
            PeerError::Door(format!("the API cannot be served at {what}: {error}; give another place with {flag}"))
        };
        let socket = api::bind_socket(path).map_err(|e| taken(path.display().to_string(), "--socket", e))?;
        let tcp = match config.api {
            None => None,
            Some(address) => {
                let given = std::env::var("RIALTO_API_TOKEN").ok();
                let token = Token::load(folder.path(), given.as_deref())
                    .map_err(|error| PeerError::Door(format!("the API's token: {error}")))?;
                let listener = TcpListener::bind(address).await.map_err(|e| taken(address.to_string(), "--api", e))?;
                Some((listener, token))
            }
        };
        let dns = match config.dns {
            None => None,
            Some(address) => match Dns::bind(address).await {
                Ok(dns) => Some(dns),
                Err(error) => {
                    warn(warnings, format!("DNS does not answer here: {address}: {error}; choose another with --dns"));
                    None
                }
            },
        };
        let etcd = match config.etcd {
            None => None,
            Some(address) => match TcpListener::bind(address).await {
                Ok(listener) => Some(listener),
                Err(error) => {
                    warn(warnings, format!("etcd's API is not served: {address}: {error}; choose another with --etcd"));
                    None
                }
            },
        };
        Ok(Self { socket, tcp, dns, etcd })
    }

    /// Where etcd's clients come in.
    pub fn take_etcd(&mut self) -> Option<TcpListener> {
        self.etcd.take()
    }

    /// Where that is.
    pub fn etcd(&self) -> Option<SocketAddr> {
        self.etcd.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// What opens the TCP door.
    pub fn token(&self) -> Option<Token> {
        self.tcp.as_ref().map(|(_, token)| token.clone())
    }

    /// Where DNS answers.
    pub fn dns(&self) -> Option<SocketAddr> {
        self.dns.as_ref().map(Dns::address)
    }

    /// Serves at all doors until `closing`. What is waited for at the end is in the tracker.
    pub fn open(self, router: &Router, handle: &Handle, machine: &str, closing: &CancellationToken) -> TaskTracker {
        let serving = TaskTracker::new();
        serving.spawn(api::serve_socket(router.clone(), self.socket, closing.clone()));
        if let Some((listener, _)) = self.tcp {
            serving.spawn(api::serve_tcp(router.clone(), listener, closing.clone()));
        }
        if let Some(dns) = self.dns {
            serving.spawn(dns.serve(Arc::new(handle.clone()), machine.to_owned(), closing.clone()));
        }
        serving.close();
        serving
    }
}

/// Makes invitations in the name of this peer.
pub struct Inviter {
    pub cluster: ClusterId,
    pub me: PeerId,
    pub describe: Arc<Describe>,
}

impl api::Inviter for Inviter {
    fn draw(&self) -> api::Invitation {
        let random_bytes = "the kernel gave random bytes when the identity was made";
        let id = InvitationId(random().expect(random_bytes));
        let secret = Secret(random().expect(random_bytes));
        let secret_hash = secret.hash();
        let addresses = self.describe.now().addresses;
        let invitation = Invitation { cluster: self.cluster, inviter: self.me, invitation: id, secret, addresses };
        api::Invitation { id, secret_hash, token: invitation.encode() }
    }
}

impl api::Events for EventLog {
    fn after(&self, id: u64) -> Vec<EventRow> {
        let row = |event: Arc<crate::events::LoggedEvent>| EventRow {
            id: event.id,
            at: rialto_protocol::rfc3339::rfc3339(event.at),
            what: event.what.clone(),
            subject: event.subject.clone(),
            text: event.text.clone(),
        };
        self.after(id, EVENTS_MAX).into_iter().map(row).collect()
    }

    fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.changes()
    }
}
