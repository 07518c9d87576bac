//! What running tasks use, as their cgroups count it: v1, hybrid or v2.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rialto_protocol::ids::ClaimId;

use super::cgroup::Hierarchies;
use super::containers::Containers;
use super::folder::Folder;
use super::process::wall_ms;
use super::roll::Phase;

/// What one task uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub claim: ClaimId,
    /// Wall clock, ms.
    pub at: u64,
    /// Since its start, ms.
    pub ran_ms: u64,
    /// Since the start, microseconds.
    pub cpu_us: u64,
    /// Without files that can be dropped.
    pub memory_bytes: u64,
    pub pids: u64,
    /// From and to disks, since the start.
    pub read_bytes: u64,
    pub written_bytes: u64,
    /// Received and sent by its own network; none where it has the machine's.
    pub network: Option<(u64, u64)>,
    pub cpu_limit_millis: Option<u64>,
    pub memory_limit_bytes: Option<u64>,
    pub pids_limit: Option<u64>,
}

/// Reads every running task. It blocks.
pub(super) fn read_all(containers: &Arc<Containers>) -> Vec<Usage> {
    let alive = containers.roll.alive().into_iter();
    let live = alive.filter(|claim| containers.roll.phase(*claim) == Some(Phase::Live));
    live.filter_map(|claim| read(&containers.hierarchies, &containers.folder(claim), claim)).collect()
}

fn read(hierarchies: &Hierarchies, folder: &Folder, claim: ClaimId) -> Option<Usage> {
    let plan = folder.read_plan().ok()?;
    let counts = Counts { hierarchies, cgroup: plan.cgroup.trim_start_matches('/') };
    let life = folder.read_life().ok()?;
    let init = life.init?;
    let (read_bytes, written_bytes) = counts.disk();
    Some(Usage {
        claim,
        at: wall_ms(),
        ran_ms: wall_ms().saturating_sub(life.started_at?),
        cpu_us: counts.cpu_us()?,
        memory_bytes: counts.memory(),
        pids: counts.number("pids", "pids.current").unwrap_or(0),
        read_bytes,
        written_bytes,
        network: network(init.pid),
        cpu_limit_millis: plan.limits.cpu_millis,
        memory_limit_bytes: plan.limits.memory_bytes,
        pids_limit: Some(plan.limits.pids),
    })
}

struct Counts<'a> {
    hierarchies: &'a Hierarchies,
    cgroup: &'a str,
}

impl Counts<'_> {
    fn text(&self, controller: &str, file: &str) -> Option<String> {
        fs::read_to_string(self.hierarchies.of(controller)?.join(self.cgroup).join(file)).ok()
    }

    fn number(&self, controller: &str, file: &str) -> Option<u64> {
        self.text(controller, file)?.trim().parse().ok()
    }

    fn cpu_us(&self) -> Option<u64> {
        if self.hierarchies.is_unified() {
            return named(&self.text("cpu", "cpu.stat")?, "usage_usec");
        }
        self.number("cpuacct", "cpuacct.usage").map(|nanoseconds| nanoseconds / 1000)
    }

    fn memory(&self) -> u64 {
        let (used, statistics, dropped) = match self.hierarchies.is_unified() {
            true => ("memory.current", "memory.stat", "inactive_file"),
            false => ("memory.usage_in_bytes", "memory.stat", "total_inactive_file"),
        };
        let droppable = self.text("memory", statistics).and_then(|text| named(&text, dropped)).unwrap_or(0);
        self.number("memory", used).unwrap_or(0).saturating_sub(droppable)
    }

    fn disk(&self) -> (u64, u64) {
        if self.hierarchies.is_unified() {
            return self.text("io", "io.stat").map_or((0, 0), |text| disk_v2(&text));
        }
        self.text("blkio", "blkio.throttle.io_service_bytes").map_or((0, 0), |text| disk_v1(&text))
    }
}

/// The number after a name in lines of `NAME NUMBER`.
fn named(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|number| number.trim().parse().ok())
}

/// `8:0 rbytes=1 wbytes=2 …`.
fn disk_v2(text: &str) -> (u64, u64) {
    let sum = |key: &str| {
        let words = text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok());
        words.fold(0, u64::saturating_add)
    };
    (sum("rbytes="), sum("wbytes="))
}

/// `8:0 Read 1`, `8:0 Write 2`, …
fn disk_v1(text: &str) -> (u64, u64) {
    let sum = |kind: &str| {
        let lines = text.lines().filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            (words.next() == Some(kind)).then(|| words.next()?.parse::<u64>().ok()).flatten()
        });
        lines.fold(0, u64::saturating_add)
    };
    (sum("Read"), sum("Write"))
}

/// What its network received and sent; none where it is the machine's.
fn network(init: i32) -> Option<(u64, u64)> {
    let own = fs::read_link(format!("/proc/{init}/ns/net")).ok()?;
    if fs::read_link("/proc/self/ns/net").is_ok_and(|machine| machine == own) {
        return None;
    }
    let text = fs::read_to_string(Path::new("/proc").join(init.to_string()).join("net/dev")).ok()?;
    Some(devices(&text))
}

fn devices(text: &str) -> (u64, u64) {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let outer = lines.filter(|(name, _)| name.trim() != "lo");
    outer.fold((0, 0), |(received, sent), (_, counts)| {
        let counts: Vec<u64> = counts.split_ascii_whitespace().filter_map(|count| count.parse().ok()).collect();
        let of = |at: usize| counts.get(at).copied().unwrap_or(0);
        (received + of(0), sent + of(8))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_as_the_kernel_writes_them() {
        assert_eq!(named("usage_usec 17\nuser_usec 3\n", "usage_usec"), Some(17));
        assert_eq!(named("total_inactive_file 5\n", "inactive_file"), None);
        assert_eq!(disk_v2("8:0 rbytes=1 wbytes=2 rios=3\n8:16 rbytes=10 wbytes=20\n"), (11, 22));
        assert_eq!(disk_v1("8:0 Read 4\n8:0 Write 6\n8:0 Sync 9\n8:16 Read 1\nTotal 11\n"), (5, 6));
        let net = "Inter-|   Receive\n face |bytes\n    lo: 9 0 0 0 0 0 0 0 9 0\n  eth0: 100 1 0 0 0 0 0 0 200 2 0\n";
        assert_eq!(devices(net), (100, 200));
    }
}
