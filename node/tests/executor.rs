//! Tasks in real containers. Skipped, with the reason, where containers cannot run.

mod executor_support;

use std::time::{Duration, Instant};

use executor_support::*;
use rialto_node::executor::logs::Stream;
use rialto_node::executor::{Order, Told};
use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::ClaimId;

macro_rules! on_containers {
    ($(#[$doc:meta])* async fn $name:ident($peer:ident) $body:block) => {
        $(#[$doc])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            if !containers_run() {
                return;
            }
            #[allow(unused_mut)]
            let mut $peer = Peer::new().await;
            $body
            $peer.close().await;
        }
    };
}

on_containers! {
    async fn exit_codes_are_those_of_a_shell(peer) {
        assert_eq!(peer.run(host(&["true"])).await.0, 0);
        assert_eq!(peer.run(script("exit 7")).await.0, 7);
        assert_eq!(peer.run(script("kill -9 $$; sleep 5")).await.0 , 0 , "the first process is safe from itself");
    }
}
