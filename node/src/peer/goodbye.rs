//! Going down in good order.

use std::collections::BTreeSet;
use std::time::Duration;

use rialto_protocol::event::Request;
use rialto_protocol::ids::PeerId;
use rialto_protocol::view::{TaskFilter, View};
use tokio::time::timeout;

use super::folder::Folder;
use crate::driver::clock;
use crate::handle::Handle;

/// How long an announced restart may take.
const BACK_WITHIN_MS: u64 = 60_000;
/// A goodbye that takes longer goes without saying.
const GOODBYE_MAX: Duration = Duration::from_secs(1);
/// After its grace, a task is given so long to be gone.
const KILL_MAX: Duration = Duration::from_secs(5);
/// There while a drain is this program's and not a person's: the next start ends it.
const DRAIN_FILE: &str = "drained-to-stop";

/// Says that this peer will be back soon: nobody replaces its tasks meanwhile.
pub async fn announce_restart(handle: &Handle) {
    let until = clock::now().wall + BACK_WITHIN_MS;
    if timeout(GOODBYE_MAX, handle.request(Request::Restarting { until })).await.is_err() {
        tracing::warn!("the goodbye did not become durable in time");
    }
}

/// Ends all tasks of this machine, each with its grace, and takes no new ones meanwhile. The claims
/// say how they ended before this returns, so that others replace them at once.
pub async fn end_tasks(me: PeerId, folder: &Folder, handle: &Handle) {
    let was_draining = handle.read(move |brain, now| is_draining(brain.view(now), &me)).await.unwrap_or(true);
    if !was_draining && std::fs::write(folder.file(DRAIN_FILE), "").is_ok() {
        let _ = timeout(GOODBYE_MAX, handle.request(Request::Drain { on: true })).await;
    }
    let _ = timeout(GOODBYE_MAX, handle.request(Request::EndTasks)).await;
    let mut patience = KILL_MAX;
    let started = tokio::time::Instant::now();
    let mut changes = handle.changes();
    loop {
        changes.borrow_and_update();
        let Some(live) = handle.read(move |brain, now| live_tasks(brain.view(now), &me)).await else { return };
        if live.is_empty() {
            // Draining already, so this changes nothing: it is answered when all claims are durable.
            let _ = timeout(GOODBYE_MAX, handle.request(Request::Drain { on: true })).await;
            return;
        }
        let longest = live.into_iter().max().unwrap_or_default();
        patience = patience.max(Duration::from_millis(longest) + KILL_MAX);
        match timeout(patience.saturating_sub(started.elapsed()), changes.changed()).await {
            Ok(Ok(())) => (),
            Ok(Err(_)) => return,
            Err(_) => {
                tracing::warn!("some tasks have not ended in time; they are left to their shims");
                return;
            }
        }
    }
}

/// Ends the drain that an earlier [`end_tasks`] began.
pub async fn take_work_again(folder: &Folder, handle: &Handle) {
    let mark = folder.file(DRAIN_FILE);
    if mark.exists() && handle.request(Request::Drain { on: false }).await.is_ok() {
        let _ = std::fs::remove_file(mark);
    }
}

fn is_draining(view: View<'_>, me: &PeerId) -> bool {
    view.machine(&me.hex()).is_some_and(|(_, row)| row.state == "draining")
}

/// Of each claim of this machine whose container may live its service's grace, ms.
fn live_tasks(view: View<'_>, me: &PeerId) -> Vec<u64> {
    let apps: BTreeSet<String> = view.tasks(&TaskFilter::default()).into_iter().map(|row| row.app).collect();
    let mut live = Vec::new();
    for app in apps {
        let spec = view.app(&app).map(|app| app.spec).unwrap_or_default();
        let may_live = ["accepted", "starting", "running", "stopping"];
        for claim in view.claims(&app) {
            if claim.owner == *me && may_live.contains(&claim.row.state.as_str()) {
                let grace_ms = spec.services.get(&claim.row.service).map_or(10_000, |service| service.grace_ms());
                live.push(grace_ms);
            }
        }
    }
    live
}
