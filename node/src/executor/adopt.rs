//! What earlier lives of this peer left: shims that live are listened to again; of tasks whose
//! shims are gone it is found out how they ended.

use std::fs;
use std::io;
use std::sync::Arc;

use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::ClaimId;
use rialto_protocol::model::Health;
use tokio::sync::watch;
use tracing::{info, warn};

use super::Told;
use super::cgroup::Hierarchies;
use super::client::Client;
use super::containers::Containers;
use super::folder::{Exit, Folder, VERSION};
use super::health::Check;
use super::listening;
use super::process::{Pidfd, boot_id, wall_ms};
use super::roll::{Phase, Wish};

/// Ended by SIGKILL, as everything is that dies with its shim.
const KILLED: i32 = 128 + 9;
const WAIT_MS: u16 = 10_000;

struct Left {
    claim: ClaimId,
    wished: watch::Receiver<Wish>,
    report: TaskReport,
    /// A connection to its shim, where one lives.
    shim: Option<std::os::unix::net::UnixStream>,
    ended: bool,
}

/// Puts everything on the roll before it returns; tells of it in the background.
pub(super) fn adopt(containers: &Arc<Containers>) -> io::Result<()> {
    let mut found = Vec::new();
    for entry in fs::read_dir(containers.tasks())?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        match ClaimId::from_hex(&name) {
            Some(claim) => found.extend(look(containers, claim)),
            // What was being removed when the last life ended.
            None => drop(fs::remove_dir_all(entry.path())),
        }
    }
    let background = containers.clone();
    containers.job(async move {
        if let Some(network) = &background.config.network {
            let live = found.iter().filter(|left| left.shim.is_some()).map(|left| left.claim).collect();
            if let Err(error) = network.sweep(&live).await {
                warn!(%error, "links of tasks that are gone cannot be removed");
            }
        }
        let (alive, count) = (found.iter().filter(|left| left.shim.is_some()).count(), found.len());
        for left in found {
            take_over(&background, left).await;
        }
        if count > 0 {
            info!(alive, ended = count - alive, "found tasks of an earlier life");
        }
        background.say(Told::Found).await;
    });
    Ok(())
}

fn look(containers: &Arc<Containers>, claim: ClaimId) -> Option<Left> {
    let folder = containers.folder(claim);
    let exit = folder.read_exit().ok();
    let life = folder.read_life().ok();
    // Whether anybody holds the door of the control socket tells, without waiting for an answer.
    let shim = folder.connect().ok();
    let (phase, report) = match (&exit, &shim, &life) {
        // Even if its shim is still clearing up: that is done for it.
        (Some(exit), ..) => (Phase::Ended, exit.report()),
        (_, Some(_), Some(life)) if life.started_at.is_some() => {
            let plan = folder.read_plan().ok();
            let started_at = life.started_at.unwrap_or_default();
            let health = match plan.as_ref().map(|plan| (plan, Check::of(plan))) {
                Some((_, Some(_))) => folder.read_health().unwrap_or(Health::Starting),
                Some((plan, None)) => listening::first(plan, started_at),
                None => Health::None,
            };
            let image_digest = plan.and_then(|plan| plan.digest());
            (Phase::Live, TaskReport::Running { image_digest, started_at, health })
        }
        (_, Some(_), _) => (Phase::Starting, TaskReport::Starting),
        (None, None, Some(_)) => (Phase::Live, TaskReport::Starting),
        // Its shim never came to life: it can be started as if it had never been tried.
        (None, None, None) => {
            let _ = folder.remove();
            return None;
        }
    };
    let ended = phase == Phase::Ended;
    let shim = shim.filter(|_| !ended);
    let wished = containers.roll.enter(claim, phase, report.clone()).ok()?;
    Some(Left { claim, wished, report, shim, ended })
}

async fn take_over(containers: &Arc<Containers>, left: Left) {
    let Left { claim, wished, report, shim, ended } = left;
    match shim.map(Client::over) {
        Some(Ok(shim)) => {
            containers.say(Told::Task { claim, report }).await;
            let containers_ = containers.clone();
            containers.job(async move { containers_.see_through(claim, shim, wished, None).await });
        }
        Some(Err(error)) => warn!(%claim, %error, "a shim cannot be listened to"),
        None if ended => {
            // Its shim may have died between writing the end down and cleaning up.
            let exit = containers.conclude(claim).await;
            containers.say(Told::Task { claim, report: exit.report() }).await;
        }
        None => {
            let exit = containers.conclude(claim).await;
            containers.roll.note(claim, Phase::Ended, &exit.report());
            containers.say(Told::Task { claim, report: exit.report() }).await;
        }
    }
}

/// Sees to it that nothing of a task runs any more, and says how it ended. Its shim is gone, or
/// shall be.
pub(super) fn conclude(folder: &Folder, hierarchies: &Hierarchies) -> Exit {
    let written = folder.read_exit().ok();
    let life = folder.read_life().ok();
    let same_boot = life.as_ref().is_some_and(|life| boot_id().is_ok_and(|boot| boot == life.boot_id));
    if !same_boot && (life.is_some() || written.is_some()) {
        folder.clear();
        return written.unwrap_or_else(|| {
            let exit = Exit::failed("the machine was restarted while it ran");
            write_down(folder, &exit);
            exit
        });
    }
    if let Some(life) = &life {
        // The container's first process follows its shim, and all others follow that one.
        let processes = [Some(life.shim), life.init];
        for pidfd in processes.into_iter().flatten().filter_map(|process| process.open()) {
            kill(&pidfd);
        }
    }
    let oom_killed = match folder.read_plan() {
        Ok(plan) => {
            let oom_killed = hierarchies.oom_kills(&plan.cgroup) > 0;
            for pid in hierarchies.processes(&plan.cgroup) {
                Pidfd::of(pid).iter().for_each(kill);
            }
            if hierarchies.remove(&plan.cgroup) {
                hierarchies.remove_parents(&plan.cgroup);
            } else {
                warn!(cgroup = plan.cgroup, "a cgroup cannot be removed");
            }
            oom_killed
        }
        Err(_) => false,
    };
    // The shim may have written it in its last moment.
    if let Some(exit) = folder.read_exit().ok().or(written) {
        folder.clear();
        return exit;
    }
    let exit = match life.and_then(|life| life.started_at) {
        Some(_) => Exit {
            version: VERSION,
            exit_code: Some(KILLED),
            oom_killed,
            expired: false,
            ended_at: wall_ms(),
            reason: Some("its shim was killed".into()),
        },
        None => Exit::failed(complaint(folder)),
    };
    write_down(folder, &exit);
    folder.clear();
    exit
}

fn kill(pidfd: &Pidfd) {
    if pidfd.signal(nix::libc::SIGKILL).is_ok() {
        pidfd.wait(WAIT_MS);
    }
}

fn write_down(folder: &Folder, exit: &Exit) {
    if let Err(error) = folder.write_exit(exit) {
        warn!(%error, "the end of a task cannot be written down");
    }
}

/// What the shim had to say before it gave up.
fn complaint(folder: &Folder) -> String {
    const CHARS_MAX: usize = 500;
    let said = fs::read(folder.complaints()).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    match said.trim() {
        "" => "its shim ended before the container was made".into(),
        text => format!("its shim gave up: {}", text.chars().take(CHARS_MAX).collect::<String>()),
    }
}
