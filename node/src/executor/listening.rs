//! A service without a health check is sent to when it listens, and not as soon as its program runs: in between a
//! connection would be refused. Nothing is said to the program for that: the kernel lists who listens.

use std::sync::Arc;
use std::time::Duration;

use rialto_protocol::ids::ClaimId;
use rialto_protocol::model::Health;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::containers::Containers;
use super::folder::{Image, Plan};
use super::process::{Process, wall_ms};

/// Whoever does not listen by then is sent to like any other: the app file may name a port that nobody opens.
const LISTENS_BY: Duration = Duration::from_secs(10);
/// Between two looks, at first and at most.
const LOOKS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(200)];
/// `LISTEN`, as the kernel writes the states of sockets.
const LISTEN: &str = "0A";

/// The ports that are waited for; none where the service or its image has said how it is looked after, if only that
/// it is not.
pub fn ports(plan: &Plan) -> &[u16] {
    let image = match &plan.image {
        Image::Host => None,
        Image::Layers(layers) => layers.health.as_ref(),
    };
    let mut said = plan.container.health.iter().chain(image).filter_map(|health| health.test.as_ref());
    if said.next().is_some() { &[] } else { &plan.listens }
}

/// What is said of a task's health before anybody has looked.
pub fn first(plan: &Plan, started_at: u64) -> Health {
    match ports(plan) {
        [] => Health::None,
        _ if left(started_at).is_zero() => Health::None,
        _ => Health::Starting,
    }
}

/// Looks until the task listens, or could have; for as long as somebody wants to know.
pub fn watch(
    containers: &Arc<Containers>,
    claim: ClaimId,
    plan: &Plan,
    started_at: u64,
) -> Option<watch::Receiver<Health>> {
    let ports = ports(plan).to_vec();
    if first(plan, started_at) == Health::None {
        return None;
    }
    let folder = containers.folder(claim);
    let (tell, told) = watch::channel(Health::Starting);
    containers.job(async move {
        let end = Instant::now() + left(started_at);
        let mut wait = LOOKS[0];
        while Instant::now() < end && !tell.is_closed() {
            let init = folder.read_life().ok().and_then(|life| life.init);
            if init.is_some_and(|init| listens(init, &ports)) {
                break;
            }
            sleep(wait).await;
            wait = (wait * 2).min(LOOKS[1]);
        }
        let _ = tell.send(Health::None);
    });
    Some(told)
}

fn left(started_at: u64) -> Duration {
    LISTENS_BY.saturating_sub(Duration::from_millis(wall_ms().saturating_sub(started_at)))
}

/// Whether each of `ports` is listened at in the network of a process.
fn listens(init: Process, ports: &[u16]) -> bool {
    let table = |name: &str| std::fs::read_to_string(format!("/proc/{}/net/{name}", init.pid)).unwrap_or_default();
    let open: Vec<u16> = ["tcp", "tcp6"].iter().flat_map(|name| listening(&table(name))).collect();
    // Only now: the process may have ended, and another have its number, while the tables were read.
    ports.iter().all(|port| open.contains(port)) && Process::of(init.pid) == Some(init)
}

/// The ports of a table of sockets that are listened at (proc_net_tcp.rst of the kernel's documentation).
fn listening(table: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
        (state == LISTEN).then(|| u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok())?
    };
    table.lines().filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_listens_is_read_from_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n   \
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n   \
            1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0\n   \
            2: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0\n   \
            3: nonsense\n";
        assert_eq!(listening(table), [8080, 80]);
    }

    #[test]
    fn a_port_counts_from_the_moment_it_is_listened_at() {
        let me = Process::of(std::process::id() as i32).unwrap();
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        assert!(listens(me, &[port]));
        assert!(!listens(Process { start_time: me.start_time + 1, ..me }, &[port]), "another that has its number");
        drop(held);
        assert!(!listens(me, &[port]));
    }
}
