//! Standing links and messages.

use std::time::{Duration, Instant};

use rialto_node::identity::Identity;
use rialto_node::mesh::{Config, Mesh, MeshError, Packet};
use rialto_protocol::wire::Message;

use crate::world::{CLUSTER, Node, admit, all_linked, beat, counted, introduce};

async fn everybody_hears_everybody_in_order(count: u8) {
    const EACH: u64 = 300;
    let mut nodes = Vec::new();
    for number in 1..=count {
        nodes.push(Node::start(number).await);
    }
    introduce(&mut nodes).await;
    for node in &nodes {
        for number in 0..EACH {
            let packet = Packet::of(&beat(number));
            for other in nodes.iter().filter(|other| other.peer() != node.peer()) {
                assert!(node.mesh.send(other.peer(), packet.clone()));
            }
        }
        assert!(!node.mesh.send(node.peer(), beat(0)), "nobody writes to itself");
    }
    let peers: Vec<_> = nodes.iter().map(Node::peer).collect();
    for node in &mut nodes {
        let me = node.peer();
        for peer in peers.iter().filter(|peer| **peer != me) {
            for number in 0..EACH {
                assert_eq!(node.message(*peer).await, beat(number));
            }
        }
    }
    for node in &nodes {
        node.mesh.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_peer_is_at_peace() {
    everybody_hears_everybody_in_order(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_hear_each_other() {
    everybody_hears_everybody_in_order(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_peers_hear_each_other() {
    everybody_hears_everybody_in_order(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_peers_hear_each_other() {
    everybody_hears_everybody_in_order(5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_restarts_is_linked_again_at_once() {
    let mut nodes = vec![Node::start(1).await, Node::start(2).await, Node::start(3).await];
    introduce(&mut nodes).await;
    for _ in 0..3 {
        let restarting = nodes.remove(0);
        let gone = restarting.peer();
        let again = restarting.restart().await;
        for node in &mut nodes {
            node.link(gone, false).await;
        }
        let since = Instant::now();
        nodes.push(again);
        admit(&nodes);
        nodes[2].mesh.set_links(nodes.iter().map(Node::entry).collect());
        let others = [nodes[0].peer(), nodes[1].peer()];
        for node in &mut nodes[..2] {
            node.link(gone, true).await;
        }
        for other in others {
            nodes[2].link(other, true).await;
        }
        let took = since.elapsed();
        println!("linked again after {took:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
        nodes[0].mesh.send(gone, beat(7));
        let from = nodes[0].peer();
        assert_eq!(nodes[2].message(from).await, beat(7));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_moved_finds_the_others_by_its_book() {
    let mut nodes = vec![Node::start(1).await, Node::start(2).await];
    introduce(&mut nodes).await;
    // The one with the lower key dialled, and knows the other's address for certain. It forgets
    // everything but its book.
    let moved = nodes.remove(if nodes[0].peer() < nodes[1].peer() { 0 } else { 1 });
    let dialled = nodes[0].entry();
    let moved = moved.restart_at(([127, 0, 0, 1], 0).into()).await;
    nodes[0].link(moved.peer(), false).await;
    let nameless = vec![(dialled.0, Vec::new())];
    moved.mesh.set_members(nameless.clone());
    moved.mesh.set_links(nameless);
    nodes.push(moved);
    all_linked(&mut nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_comes_up_late_is_dialled_until_it_is_there() {
    let mut early = Node::start(1).await;
    let late = Node::start(2).await;
    let entries = vec![early.entry(), late.entry()];
    late.mesh.shutdown().await;
    early.mesh.set_members(entries.clone());
    early.mesh.set_links(entries.clone());
    counted(&early.mesh, "nothing yet", |counters| counters.sent == 0).await;
    let mut late = late.restart().await;
    late.mesh.set_members(entries.clone());
    // Only one end wants the link: the other makes it whole all the same.
    early.link(late.peer(), true).await;
    early.mesh.send(late.peer(), beat(1));
    assert_eq!(late.message(early.peer()).await, beat(1));
    early.mesh.set_links(Vec::new());
    early.link(late.peer(), false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_without_a_link_too_and_large_ones() {
    let mut nodes = vec![Node::start(1).await, Node::start(2).await];
    admit(&nodes);
    let (one, two) = (nodes[0].peer(), nodes[1].peer());
    let large = Message::Pull { after: vec![(one, 1); 20_000], on: false };
    assert!(nodes[0].mesh.send(two, large.clone()));
    assert!(nodes[0].mesh.send(two, beat(2)));
    assert!(nodes[1].mesh.send(one, beat(3)));
    assert_eq!(nodes[1].message(one).await, large);
    assert_eq!(nodes[1].message(one).await, beat(2));
    assert_eq!(nodes[0].message(two).await, beat(3));
    let huge = Message::Pull { after: vec![(one, u64::MAX); 40_000], on: false };
    assert!(!nodes[0].mesh.send(two, huge), "nobody would take it");
    assert_eq!(nodes[0].mesh.counters().dropped, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_sent_is_dropped_and_counted() {
    let one = Node::start(1).await;
    let gone = Node::start(2).await;
    one.mesh.set_members(vec![gone.entry()]);
    gone.mesh.shutdown().await;
    assert!(!one.mesh.send(Identity::from_secret([7; 32]).peer(), beat(1)), "no member");
    assert!(one.mesh.send(gone.peer(), beat(2)));
    counted(&one.mesh, "two dropped messages", |counters| counters.dropped == 2).await;
    // Something that takes connections and says nothing: messages wait for the handshake's end.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    one.mesh.set_members(vec![(gone.peer(), vec![silent.local_addr().unwrap().to_string()])]);
    let sent = (0..5_000).filter(|number| one.mesh.send(gone.peer(), beat(*number))).count();
    assert!((1_000..1_100).contains(&sent), "the queue has an end: {sent}");
    counted(&one.mesh, "all of them dropped", |counters| counters.dropped == 5_002).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_is_none_any_more_is_cut_off() {
    let mut nodes = vec![Node::start(1).await, Node::start(2).await];
    introduce(&mut nodes).await;
    let (one, two) = (nodes[0].peer(), nodes[1].peer());
    nodes[0].mesh.set_members(vec![nodes[0].entry()]);
    nodes[0].mesh.set_links(Vec::new());
    nodes[0].link(two, false).await;
    nodes[1].link(one, false).await;
    assert!(!nodes[0].mesh.send(two, beat(1)));
    // The connection of before may just be closing.
    let refused = async {
        loop {
            let refused = nodes[1].mesh.open(one, &[]).await.unwrap_err().to_string();
            if !refused.contains("the connection was lost") {
                break refused;
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(20), refused).await.expect("a lasting refusal");
    assert!(refused.contains("/rialto/api/1"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_sent_before_a_peer_goes_down() {
    let mut nodes = vec![Node::start(1).await, Node::start(2).await];
    introduce(&mut nodes).await;
    let (one, two) = (nodes[0].peer(), nodes[1].peer());
    let goodbye = Message::Pull { after: vec![(one, 1); 5_000], on: false };
    (0..20).for_each(|_| assert!(nodes[0].mesh.send(two, goodbye.clone())));
    nodes[0].mesh.shutdown().await;
    for _ in 0..20 {
        assert_eq!(nodes[1].message(one).await, goodbye);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_told() {
    let first = Node::start(1).await;
    let data = tempfile::tempdir().unwrap();
    let config = Config {
        identity: Identity::from_secret([2; 32]),
        listen: first.address,
        cluster: Some(CLUSTER),
        data: data.path().into(),
    };
    assert!(matches!(Mesh::start(config).await, Err(MeshError::Listen(at, _)) if at == first.address));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_listens_on_all_addresses() {
    let all = Node::start_listening(1, ([0, 0, 0, 0], 0).into()).await;
    let other = Node::start(2).await;
    let port = all.address.port();
    assert!(port != 0 && all.mesh.listening().contains(&([127, 0, 0, 1], port).into()), "{:?}", all.mesh.listening());
    let mut nodes = vec![all, other];
    introduce(&mut nodes).await;
}
