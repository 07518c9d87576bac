//! The mesh as the driver's network, and what it hears.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use futures::future::BoxFuture;
use rialto_protocol::Event;
use rialto_protocol::effect::Reply;
use rialto_protocol::event::Request;
use rialto_protocol::ids::PeerId;
use rialto_protocol::ledger::record::Frame;
use rialto_protocol::wire::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::driver::ports::Network;
use crate::handle::Handle;
use crate::mesh::{Mesh, MeshEvent, Packet};
use crate::peer::locks::Locks;

/// Opens streams to other peers' APIs.
pub struct Opener(pub Mesh);

impl api::Open for Opener {
    fn open(&self, peer: PeerId, addresses: Vec<String>) -> BoxFuture<'_, io::Result<Box<dyn api::Duplex>>> {
        Box::pin(async move {
            let stream = self.0.open(peer, &addresses).await.map_err(io::Error::other)?;
            Ok(Box::new(stream) as Box<dyn api::Duplex>)
        })
    }
}

/// The driver's way to other peers.
pub struct Net {
    mesh: Mesh,
    /// The last frame: it goes to several links, one after the other, and is encoded once.
    last: Mutex<Option<(Arc<Frame>, Packet)>>,
}

impl Net {
    pub fn new(mesh: Mesh) -> Self {
        Self { mesh, last: Mutex::default() }
    }

    fn packet(&self, frame: Arc<Frame>) -> Packet {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((known, packet)) if Arc::ptr_eq(known, &frame) => packet.clone(),
            _ => {
                let packet = Packet::of(&Message::Frame(frame.clone()));
                *last = Some((frame, packet.clone()));
                packet
            }
        }
    }
}

impl Network for Net {
    fn send(&self, to: PeerId, message: Message) {
        let packet = match message {
            Message::Frame(frame) => self.packet(frame),
            other => Packet::of(&other),
        };
        // What is dropped is counted by the mesh, and fetched again by anti-entropy.
        self.mesh.send(to, packet);
    }

    fn links(&self, peers: Vec<(PeerId, Vec<String>)>) {
        self.mesh.set_links(peers);
    }

    fn members(&self, peers: Vec<(PeerId, Vec<String>)>) {
        self.mesh.set_members(peers);
    }
}

/// Carries what the mesh hears to where it belongs, until the mesh ends.
pub async fn carry(
    mut heard: mpsc::Receiver<MeshEvent>,
    events: mpsc::Sender<Event>,
    handle: Handle,
    router: Router,
    locks: Option<Locks>,
    closing: CancellationToken,
) {
    while let Some(event) = heard.recv().await {
        let event = match event {
            MeshEvent::Link { peer, up } => Event::Link { peer, up },
            MeshEvent::Message { from, message } => Event::Received { from, message, verified: false },
            // The mesh has counted it and said so.
            MeshEvent::Malformed { .. } => continue,
            MeshEvent::ApiStream { from, stream } => {
                let (handle, router, closing) = (handle.clone(), router.clone(), closing.clone());
                tokio::spawn(async move {
                    // Who was removed may still knock, to hear that it was; nobody talks to it beyond that.
                    let departed = handle.read(move |brain, now| brain.view(now).has_departed(&from)).await;
                    if departed == Some(false) {
                        api::serve_stream(router, stream, from, closing).await;
                    }
                });
                continue;
            }
            MeshEvent::LocksStream { from, stream } => {
                if let Some(locks) = locks.clone() {
                    tokio::spawn(locks.stream(from, stream));
                }
                continue;
            }
            MeshEvent::Hello { from, cluster, invitation, secret_hash, reply } => {
                let request = Request::Admit { key: from, cluster, invitation, secret_hash };
                let handle = handle.clone();
                tokio::spawn(async move {
                    let answer = match handle.request(request).await {
                        Ok(Reply::Admitted { chain }) => Ok(chain),
                        Ok(_) => Err("the peer gave another answer than was asked for".to_owned()),
                        Err(refusal) => Err(refusal.to_string()),
                    };
                    // A newcomer that has gone away asks again.
                    let _ = reply.send(answer);
                });
                continue;
            }
        };
        // It fails only when the brain has ended, and then so does everything.
        if events.send(event).await.is_err() {
            return;
        }
    }
}
