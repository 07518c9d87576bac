//! Tasks under leases, in real containers: their shims end them in time, whether there is a daemon or not.

mod executor_support;

use std::time::{Duration, Instant};

use executor_support::*;
use rialto_node::driver::clock;
use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::ClaimId;
use rialto_protocol::lease::KILL_MS;
use rialto_protocol::model::{Guard, TaskSpec};

/// One that does not end when it is asked to.
fn leased(grace_ms: u64) -> TaskSpec {
    let spec = script("trap 'echo asked' TERM; echo ready; while :; do sleep 0.01; done");
    TaskSpec { guard: Some(Guard::Lease), grace_ms, ..spec }
}

fn expired(code: i32) -> impl Fn(&TaskReport) -> bool {
    move |report| matches!(report, TaskReport::Expired { exit_code, .. } if *exit_code == code)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_ends_with_its_lease_and_goes_on_with_each_renewal() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    let claim = ClaimId([7; 16]);
    peer.deadlines.set(claim, clock::now().ms + 3_000);
    peer.start_as(claim, leased(500));
    peer.line(claim, "ready").await;
    let renewed = Instant::now();
    let until = clock::now().ms + 4_000;
    peer.deadlines.set(claim, until);
    peer.until(claim, expired(137)).await;
    assert!(clock::now().ms < until, "it ended {} ms too late", clock::now().ms - until);
    assert!(renewed.elapsed() > Duration::from_millis(3_900 - KILL_MS), "after {:?}", renewed.elapsed());
    assert_eq!(peer.output(claim).await, "ready\nasked\n");

    // A lease that is lost ends it at once.
    let claim = ClaimId([8; 16]);
    peer.deadlines.set(claim, clock::now().ms + 60_000);
    peer.start_as(claim, leased(10_000));
    peer.line(claim, "ready").await;
    let lost = Instant::now();
    peer.deadlines.set(claim, clock::now().ms);
    peer.until(claim, expired(137)).await;
    assert!(lost.elapsed() < Duration::from_secs(1), "{:?}", lost.elapsed());

    // Without one nothing starts, nor with one that is about to end.
    for (claim, left_ms) in [(ClaimId([9; 16]), None), (ClaimId([10; 16]), Some(200))] {
        left_ms.inspect(|left| peer.deadlines.set(claim, clock::now().ms + left));
        peer.start_as(claim, leased(500));
        let report = peer.ended(claim).await;
        assert!(matches!(&report, TaskReport::Failed { reason } if reason.contains("lease")), "{report:?}");
    }
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_daemon_the_shim_keeps_to_the_lease() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    let claim = ClaimId([7; 16]);
    let until = clock::now().ms + 2_500;
    peer.deadlines.set(claim, until);
    peer.start_as(claim, leased(100));
    peer.line(claim, "ready").await;
    peer.die();
    peer.shim_gone(claim).await;
    assert!(clock::now().ms < until + 200, "{} ms late", clock::now().ms - until);
    let found = peer.come_back().await;
    assert!(matches!(&found[..], [(of, report)] if *of == claim && expired(137)(report)), "{found:?}");

    // One that comes back in time goes on with it.
    let claim = ClaimId([8; 16]);
    peer.deadlines.set(claim, clock::now().ms + 4_000);
    peer.start_as(claim, leased(100));
    peer.line(claim, "ready").await;
    peer.die();
    peer.come_back().await;
    let until = clock::now().ms + 6_000;
    peer.deadlines.set(claim, until);
    peer.until(claim, expired(137)).await;
    assert!(
        (until - 600..until).contains(&clock::now().ms),
        "{} ms before its end",
        until as i64 - clock::now().ms as i64
    );
    peer.close().await;
}
