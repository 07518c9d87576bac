//! What a link costs. Run with `--ignored --nocapture`.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use rialto_node::mesh::{MeshEvent, Packet};
use rialto_protocol::wire::Message;

use crate::world::{Node, beat, introduce};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "prints figures"]
async fn round_trip_and_throughput_of_a_link() {
    let mut nodes = vec![Node::start(1).await, Node::start(2).await];
    introduce(&mut nodes).await;
    let mut two = nodes.pop().unwrap();
    let mut one = nodes.pop().unwrap();
    let (first, second) = (one.peer(), two.peer());
    let answering = tokio::spawn(async move {
        loop {
            match two.event().await {
                MeshEvent::Message { message: Message::Heartbeat { life, .. }, .. } if life < 1_000_000 => {
                    two.mesh.send(first, beat(life));
                }
                MeshEvent::Message { message: Message::Heartbeat { life: 2_000_000, .. }, .. } => return two,
                _ => {}
            }
        }
    });
    let mut times = Vec::new();
    for number in 0..5_000 {
        let since = Instant::now();
        one.mesh.send(second, beat(number));
        one.message(second).await;
        times.push(since.elapsed());
    }
    times.sort();
    println!("round trip: median {:?}, p99 {:?}, max {:?}", times[2_500], times[4_950], times[4_999]);

    for (name, message, count) in [
        ("20 B", beat(1_000_001), 300_000u64),
        ("1 KB", Message::Pull { after: vec![(first, 1); 25], on: false }, 100_000),
        ("16 KB", Message::Pull { after: vec![(first, 1); 420], on: false }, 10_000),
    ] {
        let packet = Packet::of(&message);
        let before = one.mesh.counters();
        let since = Instant::now();
        let mut number = 0;
        while number < count {
            match one.mesh.send(second, packet.clone()) {
                true => number += 1,
                false => tokio::task::yield_now().await,
            }
        }
        while one.mesh.counters().sent - before.sent < count {
            tokio::task::yield_now().await;
        }
        let seconds = since.elapsed().as_secs_f64();
        let (rate, bytes) = (count as f64 / seconds, count as f64 * packet.size() as f64 / seconds / 1e6);
        println!("{name}: {rate:.0} messages/s, {bytes:.0} MB/s");
    }
    while !one.mesh.send(second, beat(2_000_000)) {
        tokio::task::yield_now().await;
    }
    let two = answering.await.unwrap();
    println!("received {}", two.mesh.counters().received);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    println!("both in one process: {}", status.lines().find(|line| line.starts_with("VmRSS")).unwrap());
}

#[tokio::test]
#[ignore = "prints figures"]
async fn three_idle_peers() {
    const SECONDS: u64 = 20;
    let mut nodes = vec![Node::start(1).await, Node::start(2).await, Node::start(3).await];
    introduce(&mut nodes).await;
    let used = || {
        let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
        (usage.user_time() + usage.system_time()).num_microseconds()
    };
    let before = used();
    for second in 0..SECONDS {
        for node in &nodes {
            for other in nodes.iter().filter(|other| other.peer() != node.peer()) {
                assert!(node.mesh.send(other.peer(), beat(second)));
            }
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let share = (used() - before) as f64 / 1e6 / SECONDS as f64 / 3.0 * 100.0;
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    println!("three peers in one process: {memory}; each with two heartbeats a second: {share:.2} % of a core");
}
