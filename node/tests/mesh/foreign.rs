//! What is not one of our peers, or not a healthy one: another implementation on the same wire.

use std::time::{Duration, Instant};

use futures::{AsyncReadExt as _, AsyncWriteExt as _, StreamExt};
use libp2p::{Stream, StreamProtocol, SwarmBuilder, identity, noise, tcp, yamux};
use libp2p_stream::{Control, OpenStreamError};
use rialto_node::identity::Identity;
use rialto_node::mesh::MeshEvent;
use rialto_protocol::ids::PeerId;
use rialto_protocol::wire::{self, MESSAGE_BYTES_MAX, Message};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{Node, beat, counted, introduce};

const LINK: StreamProtocol = StreamProtocol::new("/rialto/link/1");
const OLDER: StreamProtocol = StreamProtocol::new("/rialto/link/0");

/// A peer that speaks libp2p but is not ours.
struct Foreign {
    peer: PeerId,
    control: Control,
    to: libp2p::PeerId,
}

impl Foreign {
    /// Connects to a node, which knows it as a member.
    async fn connect(number: u8, to: &Node) -> Foreign {
        let peer = Identity::from_secret([number; 32]).peer();
        to.mesh.set_members(vec![(peer, Vec::new())]);
        let keypair = identity::Keypair::ed25519_from_bytes([number; 32]).unwrap();
        let mut swarm = SwarmBuilder::with_existing_identity(keypair)
            .with_tokio()
            .with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default)
            .unwrap()
            .with_behaviour(|_| libp2p_stream::Behaviour::new())
            .unwrap()
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
            .build();
        let control = swarm.behaviour().new_control();
        let key = identity::ed25519::PublicKey::try_from_bytes(&to.peer().0).unwrap();
        let theirs = identity::PublicKey::from(key).to_peer_id();
        let address = format!("/ip4/127.0.0.1/tcp/{}/p2p/{theirs}", to.address.port());
        swarm.dial(address.parse::<libp2p::Multiaddr>().unwrap()).unwrap();
        while !swarm.is_connected(&theirs) {
            swarm.select_next_some().await;
        }
        tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Foreign { peer, control, to: theirs }
    }

    async fn open(&self, protocol: StreamProtocol) -> Result<Stream, OpenStreamError> {
        self.control.clone().open_stream(self.to, protocol).await
    }

    async fn write(&self, bytes: &[u8]) -> Stream {
        let mut stream = self.open(LINK).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

async fn malformed(node: &mut Node) -> String {
    node.until("a malformed message", |event| match event {
        MeshEvent::Malformed { why, .. } => Ok(why),
        other => Err(other),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_message_closes_its_stream_and_no_other() {
    let mut node = Node::start(1).await;
    let foreign = Foreign::connect(2, &node).await;
    let good = frame(&wire::encode(&beat(1)));
    let mut healthy = foreign.write(&good).await;
    assert_eq!(node.message(foreign.peer).await, beat(1));
    let too_long = u32::try_from(MESSAGE_BYTES_MAX + 1).unwrap().to_be_bytes().to_vec();
    let nameless = frame(&wire::encode(&7u8));
    for (n, bad) in [frame(b"\xff\x00"), frame(b""), too_long, nameless].into_iter().enumerate() {
        let mut stream = foreign.write(&[&good[..], &bad].concat()).await;
        assert_eq!(node.message(foreign.peer).await, beat(1), "what came before it counts");
        let why = malformed(&mut node).await;
        assert!(!why.is_empty());
        assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)), "{why}");
        assert_eq!(node.mesh.counters().malformed, n as u64 + 1);
    }
    // Half a message, and gone: no fault, for connections break.
    drop(foreign.write(&good[..3]).await);
    healthy.write_all(&frame(&wire::encode(&beat(2)))).await.unwrap();
    healthy.flush().await.unwrap();
    assert_eq!(node.message(foreign.peer).await, beat(2));
    assert_eq!(node.mesh.counters().malformed, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_later_version_says_is_passed_over() {
    let mut node = Node::start(1).await;
    let foreign = Foreign::connect(2, &node).await;
    let song: std::collections::BTreeMap<&str, Vec<u64>> = [("sing", vec![1, 2])].into();
    let words = [wire::encode(&beat(1)), wire::encode(&"hush"), wire::encode(&song), wire::encode(&beat(2))];
    let _stream = foreign.write(&words.map(|bytes| frame(&bytes)).concat()).await;
    for n in 1..=2 {
        assert_eq!(node.message(foreign.peer).await, beat(n));
    }
    let counted = node.mesh.counters();
    assert_eq!((counted.unknown, counted.malformed, counted.received), (2, 0, 4));
    assert_eq!(counted.refused().get("mesh_unknown"), Some(&2));
    let (_, came) = node.mesh.traffic();
    let beats = came.iter().find(|flow| flow.kind == "heartbeat").unwrap();
    assert_eq!(beats.messages, 2);
    assert_eq!(beats.bytes as usize, frame(&wire::encode(&beat(1))).len() + frame(&wire::encode(&beat(2))).len());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_peer_is_refused_and_told() {
    let node = Node::start(1).await;
    let foreign = Foreign::connect(2, &node).await;
    let refused = foreign.open(OLDER).await.unwrap_err();
    assert!(matches!(refused, OpenStreamError::UnsupportedProtocol(protocol) if protocol == OLDER));
    // The other way round: we speak to it, and it has only the older version.
    let _older = foreign.control.clone().accept(OLDER).unwrap();
    assert!(node.mesh.send(foreign.peer, beat(1)));
    counted(&node.mesh, "the refusal", |counters| counters.unsupported == 1 && counters.dropped == 1).await;
    let refused = node.mesh.open(foreign.peer, &[]).await.unwrap_err();
    assert!(refused.to_string().contains("another version"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_reads_no_more_loses_its_link() {
    let mut node = Node::start(1).await;
    let foreign = Foreign::connect(2, &node).await;
    let mut accepted = foreign.control.clone().accept(LINK).unwrap();
    node.mesh.set_links(vec![(foreign.peer, Vec::new())]);
    let _ours = foreign.write(&frame(&wire::encode(&beat(1)))).await;
    let (_, _held) = accepted.next().await.unwrap();
    node.link(foreign.peer, true).await;
    let since = Instant::now();
    let large = Message::Pull { after: vec![(node.peer(), 1); 20_000], on: false };
    (0..8).for_each(|_| assert!(node.mesh.send(foreign.peer, large.clone())));
    node.link(foreign.peer, false).await;
    let took = since.elapsed();
    assert!((4..10).contains(&took.as_secs()), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_port_does_no_harm() {
    let mut nodes = vec![Node::start(1).await, Node::start(2).await];
    introduce(&mut nodes).await;
    let mut garbage = blake3::Hasher::new().finalize_xof();
    for n in 0..40 {
        let mut bytes = vec![0; 1 << (n % 14)];
        garbage.fill(&mut bytes);
        if n % 4 == 0 {
            bytes = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
        } else if n % 4 == 1 {
            bytes = [b"\x13/multistream/1.0.0\n\x07/noise\n".to_vec(), bytes].concat();
        }
        let mut socket = TcpStream::connect(nodes[0].address).await.unwrap();
        let _ = socket.write_all(&bytes).await;
        let _ = socket.shutdown().await;
        let _ = socket.read_to_end(&mut Vec::new()).await;
    }
    counted(&nodes[0].mesh, "failed handshakes", |counters| counters.handshakes_failed >= 30).await;
    let (one, two) = (nodes[0].peer(), nodes[1].peer());
    nodes[1].mesh.send(one, beat(5));
    assert_eq!(nodes[0].message(two).await, beat(5));
}
