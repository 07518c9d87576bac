//! A few peers, and ways to wait for what they hear.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use rialto_node::identity::Identity;
use rialto_node::mesh::{Config, Mesh, MeshEvent};
use rialto_protocol::ids::{ClusterId, PeerId};
use rialto_protocol::wire::Message;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

pub const CLUSTER: ClusterId = ClusterId([9; 16]);
/// Longer than anything takes, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct Node {
    pub identity: Identity,
    pub data: TempDir,
    pub address: SocketAddr,
    pub mesh: Mesh,
    events: mpsc::Receiver<MeshEvent>,
    /// Heard while something else was waited for.
    heard: VecDeque<MeshEvent>,
}

impl Node {
    pub async fn start(number: u8) -> Node {
        Self::start_listening(number, ([127, 0, 0, 1], 0).into()).await
    }

    pub async fn start_listening(number: u8, listen: SocketAddr) -> Node {
        let data = tempfile::tempdir().unwrap();
        Self::start_at(Identity::from_secret([number; 32]), data, listen).await
    }

    async fn start_at(identity: Identity, data: TempDir, listen: SocketAddr) -> Node {
        let config =
            Config { identity: identity.clone(), listen, cluster: Some(CLUSTER), data: data.path().to_path_buf() };
        let (mesh, events) = Mesh::start(config).await.unwrap();
        let address = mesh.listening()[0];
        Node { identity, data, address, mesh, events, heard: VecDeque::new() }
    }

    /// The same peer again, with the same folder, at the same address.
    pub async fn restart(self) -> Node {
        let address = self.address;
        self.restart_at(address).await
    }

    pub async fn restart_at(self, listen: SocketAddr) -> Node {
        self.mesh.shutdown().await;
        Self::start_at(self.identity, self.data, listen).await
    }

    pub fn peer(&self) -> PeerId {
        self.identity.peer()
    }

    pub fn entry(&self) -> (PeerId, Vec<String>) {
        (self.peer(), vec![self.address.to_string()])
    }

    /// Waits for an event that `wanted` takes; the others stay for later, in order.
    pub async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(MeshEvent) -> Result<T, MeshEvent>) -> T {
        let mut others = VecDeque::new();
        while let Some(event) = self.heard.pop_front() {
            match wanted(event) {
                Ok(found) => {
                    others.extend(self.heard.drain(..));
                    self.heard = others;
                    return found;
                }
                Err(event) => others.push_back(event),
            }
        }
        self.heard = others;
        let end = Instant::now() + PATIENCE;
        loop {
            let event = match timeout_at(end, self.events.recv()).await {
                Ok(event) => event.expect("the mesh runs"),
                Err(_) => panic!("waited in vain for {what}; heard {:?}; {:?}", self.heard, self.mesh.counters()),
            };
            match wanted(event) {
                Ok(found) => return found,
                Err(event) => self.heard.push_back(event),
            }
        }
    }

    pub async fn link(&mut self, with: PeerId, wanted: bool) {
        self.until(&format!("the link with {with} to be {wanted}"), |event| match event {
            MeshEvent::Link { peer, up } if peer == with && up == wanted => Ok(()),
            other => Err(other),
        })
        .await;
    }

    /// The next message of a peer.
    pub async fn message(&mut self, of: PeerId) -> Message {
        self.until(&format!("a message of {of}"), |event| match event {
            MeshEvent::Message { from, message } if from == of => Ok(message),
            other => Err(other),
        })
        .await
    }

    /// The next event, whatever it is.
    pub async fn event(&mut self) -> MeshEvent {
        self.until("any event", Ok).await
    }
}

/// Everybody is a member to everybody, and linked.
pub async fn introduce(nodes: &mut [Node]) {
    admit(nodes);
    for node in nodes.iter() {
        node.mesh.set_links(nodes.iter().map(Node::entry).collect());
    }
    all_linked(nodes).await;
}

pub fn admit(nodes: &[Node]) {
    for node in nodes {
        node.mesh.set_members(nodes.iter().map(Node::entry).collect());
    }
}

pub async fn all_linked(nodes: &mut [Node]) {
    let peers: Vec<PeerId> = nodes.iter().map(Node::peer).collect();
    for node in nodes {
        for peer in &peers {
            if *peer != node.peer() {
                node.link(*peer, true).await;
            }
        }
    }
}

/// Counters make no events: they are looked at until they say so.
pub async fn counted(mesh: &Mesh, what: &str, is_so: impl Fn(&rialto_node::mesh::MeshCounters) -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so(&mesh.counters()) {
        assert!(Instant::now() < end, "waited in vain for {what}: {:?}", mesh.counters());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The smallest message, with a number.
pub fn beat(life: u64) -> Message {
    Message::Heartbeat { life, clock: Default::default() }
}
