//! What a person would look at first when something does not work.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Json;
use rialto_protocol::api::{Answer, Check, Doctor};

use super::identity::{Identity, Verb};
use super::problem::Problem;
use super::{Api, Shared};
use crate::dns;

/// Where this peer keeps and serves things.
#[derive(Clone, Debug)]
pub struct Here {
    /// The data folder.
    pub data: PathBuf,
    /// Where other peers reach this one.
    pub listen: SocketAddr,
    /// Where DNS is to answer; none where it is switched off.
    pub dns_wanted: Option<SocketAddr>,
    /// Where it does; none where it is switched off, or could not have its port.
    pub dns: Option<SocketAddr>,
}

/// Our own DNS server answers within this.
const DNS_WITHIN: Duration = Duration::from_millis(500);
/// Less than this free in the data folder is worth a word.
const DISK_BYTES_LOW: u64 = 1 << 30;
/// Before this, ms since 1970, no clock is right: the start of 2025.
const CLOCK_EARLIEST: u64 = 1_735_689_600_000;

pub async fn examine(api: Shared, identity: Identity) -> Result<Json<Answer<Doctor>>, Problem> {
    identity.may(Verb::Look)?;
    let data = api.here.data.clone();
    let local = tokio::task::spawn_blocking(move || vec![rights(), cgroups(), disk(&data)]);
    let mut checks = local.await.unwrap_or_default();
    let (me, listen) = (api.me.hex(), api.here.listen);
    let seen = api.handle.read(move |brain, now| {
        let machines = brain.view(now).machines();
        let row = machines.iter().find(|row| row.id == me).cloned();
        let away: Vec<String> = machines.into_iter().filter(|row| row.state == "down").map(|row| row.name).collect();
        (now.wall, row, away)
    });
    let (wall, row, away) = seen.await.ok_or_else(Problem::going_down)?;
    checks.push(clock(wall));
    checks.push(match row {
        Some(row) if row.state == "no-executor" => {
            check("executor", Finding::Failed, row.reason.unwrap_or_else(|| "this machine runs nothing".into()))
        }
        Some(row) => check("executor", Finding::Ok, format!("this machine is {} and takes work", row.state)),
        None => check("executor", Finding::Warning, "this machine is not in the ledger yet"),
    });
    checks.push(match &away[..] {
        [] => check("peers", Finding::Ok, format!("listening on {listen}; nobody is missing")),
        names => check("peers", Finding::Warning, format!("listening on {listen}; down: {}", names.join(", "))),
    });
    checks.push(dns_answers(&api).await);
    for warning in api.warnings.lock().expect("no holder panics").iter() {
        checks.push(check("warning", Finding::Warning, warning));
    }
    api.answer_with(Doctor { checks }).await
}

#[derive(Clone, Copy)]
enum Finding {
    Ok,
    Warning,
    Failed,
}

fn check(name: &str, finding: Finding, text: impl Into<String>) -> Check {
    let result = match finding {
        Finding::Ok => "ok",
        Finding::Warning => "warning",
        Finding::Failed => "failed",
    };
    Check { name: name.into(), result: result.into(), text: text.into() }
}

fn rights() -> Check {
    if !nix::unistd::geteuid().is_root() {
        return check("rights", Finding::Failed, "not root: this peer joins and serves, and runs no containers");
    }
    // The bounding capability is the 21st; without it nothing can be mounted or unshared.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = line.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or_default();
    let missing: Vec<&str> = [("CAP_SYS_ADMIN", 21), ("CAP_NET_ADMIN", 12), ("CAP_SYS_RESOURCE", 24)]
        .into_iter()
        .filter(|(_, bit)| effective >> bit & 1 == 0)
        .map(|(name, _)| name)
        .collect();
    match &missing[..] {
        [] => check("rights", Finding::Ok, "root, with all capabilities that are needed"),
        missing if missing.contains(&"CAP_SYS_ADMIN") => {
            check("rights", Finding::Failed, format!("root without {}", missing.join(", ")))
        }
        missing => check("rights", Finding::Warning, format!("root without {}", missing.join(", "))),
    }
}

/// Looks for the three controllers that limit tasks, on version 2 or version 1.
fn cgroups() -> Check {
    let v2 = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let v1 = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let on_v2 = |name: &str| v2.split_whitespace().any(|controller| controller == name);
    let on_v1 = |name: &str| {
        v1.lines().filter_map(|line| line.split(':').nth(1)).any(|list| list.split(',').any(|one| one == name))
    };
    let missing: Vec<&str> =
        ["cpu", "memory", "pids"].into_iter().filter(|name| !on_v2(name) && !on_v1(name)).collect();
    let version = if v2.trim().is_empty() { "version 1" } else { "version 2" };
    if missing.is_empty() {
        check("cgroups", Finding::Ok, format!("cpu, memory and pids on {version}"))
    } else {
        check("cgroups", Finding::Failed, format!("no controller for {}", missing.join(", ")))
    }
}

fn disk(data: &Path) -> Check {
    match nix::sys::statvfs::statvfs(data) {
        Ok(stat) => {
            let free = stat.blocks_available() * stat.fragment_size();
            let finding = if free < DISK_BYTES_LOW { Finding::Warning } else { Finding::Ok };
            check("disk", finding, format!("{} MiB are free in {}", free >> 20, data.display()))
        }
        Err(error) => check("disk", Finding::Failed, format!("{} cannot be read: {error}", data.display())),
    }
}

/// Whether the kernel thinks that something keeps its clock right.
fn clock(wall: u64) -> Check {
    if wall < CLOCK_EARLIEST {
        return check("clock", Finding::Failed, "the clock is years behind");
    }
    // SAFETY: an all-zero `timex` asks for nothing to be changed, and the kernel fills it in.
    let state = unsafe {
        let mut timex: nix::libc::timex = std::mem::zeroed();
        nix::libc::adjtimex(&mut timex)
    };
    match state {
        nix::libc::TIME_ERROR => check("clock", Finding::Warning, "nothing on this machine keeps the clock right"),
        state if state < 0 => check("clock", Finding::Warning, "the kernel does not tell whether the clock is kept"),
        _ => check("clock", Finding::Ok, "the clock is kept right"),
    }
}

async fn dns_answers(api: &Api) -> Check {
    let address = match (api.here.dns, api.here.dns_wanted) {
        (Some(address), _) => address,
        (None, None) => return check("dns", Finding::Ok, "switched off by --dns none"),
        (None, Some(wanted)) => {
            let text = format!(
                "names are not answered: {wanted} could not be had; free it and start the peer again, or choose another by --dns"
            );
            return check("dns", Finding::Failed, text);
        }
    };
    match tokio::time::timeout(DNS_WITHIN, dns::probe(address)).await {
        Ok(Ok(())) => check("dns", Finding::Ok, format!("answers on {address}")),
        Ok(Err(error)) => check("dns", Finding::Failed, format!("does not answer on {address}: {error}")),
        Err(_) => check("dns", Finding::Failed, format!("does not answer on {address} in time")),
    }
}
