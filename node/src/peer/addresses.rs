//! Keeps the network of this machine's tasks as the brain believes that it should be.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rialto_protocol::model::network::Subnet;
use rialto_protocol::network::{AppNet, Machines};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::dns::Dns;
use crate::executor::network::{Keeper, Network};
use crate::handle::Handle;
use crate::news::Scope;

/// Between two looks at whether the kernel is still as it was made.
const EVERY: Duration = Duration::from_secs(10);
/// After a failure it is tried again so soon.
const AGAIN: Duration = Duration::from_secs(1);

/// Keeps it until `closing`, and answers its tasks' questions for names.
pub fn keep(network: Network, handle: Handle, closing: CancellationToken, machine: &str) -> JoinHandle<()> {
    tokio::spawn(answer_names(network.clone(), handle.clone(), closing.clone(), machine.to_owned()));
    tokio::spawn(async move {
        closing.run_until_cancelled(follow(network, handle)).await;
    })
}

async fn follow(network: Network, handle: Handle) {
    let mut keeper = Keeper::new(network);
    let mut changes = handle.changes();
    let mut told = changes.borrow_and_update().count();
    let mut scope = Scope::Everything;
    let mut apps: BTreeMap<String, AppNet> = BTreeMap::new();
    let mut machines = Machines::default();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let only = match &scope {
            Scope::Everything => None,
            Scope::Apps(names) => Some(names.clone()),
        };
        let look = move |brain: &rialto_protocol::Brain, now| {
            let view = brain.view(now);
            (only.is_none().then(|| view.network_machines()), view.network_apps(only.as_ref()))
        };
        let Some((seen, looked)) = handle.watch(look).await else { return };
        match &scope {
            Scope::Everything => apps = looked,
            Scope::Apps(names) => {
                apps.retain(|name, _| !names.contains(name));
                apps.extend(looked);
            }
        }
        machines = seen.unwrap_or(machines);
        let failed = keeper.update(&machines, &apps).await;
        if let Err(error) = &failed {
            tracing::warn!(%error, "the network of this machine's tasks is not as it should be");
        }
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            _ = ticks.tick() => keeper.look_again().await,
            () = tokio::time::sleep(AGAIN), if failed.is_err() => {}
        }
        let news = changes.borrow_and_update();
        scope = news.since(told);
        told = news.count();
    }
}

/// Tasks ask at their machine's own address among them, on the port that all programs know.
async fn answer_names(network: Network, handle: Handle, closing: CancellationToken, machine: String) {
    const PORT: u16 = 53;
    let Some(Some(gateway)) = closing.run_until_cancelled(network.gateway()).await else { return };
    let address = SocketAddr::from((gateway, PORT));
    loop {
        match Dns::bind(address).await {
            Ok(dns) => return dns.forwarding(Subnet::of(gateway)).serve(Arc::new(handle), machine, closing).await,
            Err(error) => tracing::warn!(%error, %address, "tasks cannot ask for names; trying again"),
        }
        if closing.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return;
        }
    }
}
