//! The processes of a machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long killed processes may take to be gone.
const DYING: Duration = Duration::from_secs(10);

/// The file that stands for a network namespace.
pub(crate) fn netns_path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

/// Every process of the machine whose network namespace is `name`: those in it, those with its host name, and all that
/// these have started. Tasks have network namespaces of their own.
pub(crate) fn within(name: &str) -> Vec<i32> {
    Inhabitants::of(name).look()
}

/// Who belongs to a machine, by what can be known as long as one of them lives.
struct Inhabitants {
    network: Option<PathBuf>,
    /// The namespaces of its host name, as far as they were seen.
    hosts: BTreeSet<PathBuf>,
}

impl Inhabitants {
    fn of(name: &str) -> Self {
        use std::os::unix::fs::MetadataExt;
        let network = std::fs::metadata(netns_path(name)).ok();
        Self { network: network.map(|file| format!("net:[{}]", file.ino()).into()), hosts: BTreeSet::new() }
    }

    fn look(&mut self) -> Vec<i32> {
        let link = |pid: i32, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        let all: Vec<(i32, Option<PathBuf>)> = pids().map(|pid| (pid, link(pid, "uts"))).collect();
        let ours = link(std::process::id() as i32, "uts");
        let mut found: BTreeSet<i32> = BTreeSet::new();
        for (pid, host) in &all {
            if self.network.is_some() && link(*pid, "net") == self.network {
                found.insert(*pid);
                self.hosts.extend(host.clone().filter(|host| Some(host) != ours.as_ref()));
            }
        }
        let of_host = |host: &Option<PathBuf>| host.as_ref().is_some_and(|host| self.hosts.contains(host));
        found.extend(all.iter().filter(|(_, host)| of_host(host)).map(|(pid, _)| *pid));
        let parents: Vec<(i32, i32)> = all.iter().filter_map(|(pid, _)| Some((*pid, parent(*pid)?))).collect();
        loop {
            let before = found.len();
            let children = parents.iter().filter(|(_, parent)| found.contains(parent)).map(|(pid, _)| *pid);
            found.extend(children.collect::<Vec<_>>());
            if found.len() == before {
                return found.into_iter().collect();
            }
        }
    }
}

/// The process that started this one, or inherited it.
fn parent(pid: i32) -> Option<i32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// Sends `signal` to every process of a machine.
pub(crate) fn signal_all(name: &str, signal: Signal) {
    for pid in within(name) {
        // One that has just gone needs no signal.
        kill(Pid::from_raw(pid), signal).ok();
    }
}

/// Kills everything in these namespaces until nothing is left, what is forked meanwhile included.
pub(crate) fn kill_all(names: &[String]) {
    let deadline = Instant::now() + DYING;
    let mut inhabitants: Vec<Inhabitants> = names.iter().map(|name| Inhabitants::of(name)).collect();
    loop {
        let alive: Vec<i32> = inhabitants.iter_mut().flat_map(Inhabitants::look).collect();
        if alive.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in alive {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        // The kernel tells of the end of others' children to nobody; this loop is short.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The name of the program that a process runs: of a script, the script's.
pub(crate) fn name(pid: i32) -> Option<String> {
    Some(std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned())
}

/// Bytes of memory that a process has resident.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    memory(pid).map(|(resident, _)| resident)
}

/// Bytes of memory of one process: resident, and its proportional share.
pub(crate) fn memory(pid: u32) -> Option<(u64, u64)> {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = rollup.lines().find(|line| line.starts_with(name))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    };
    Some((field("Rss:")?, field("Pss:")?))
}

/// Processor time that the threads of a process have used. In nanoseconds, as the scheduler counts: the
/// ticks of `stat` are too coarse for a peer at rest.
pub(crate) fn processor_time(pid: u32) -> Option<Duration> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let time = |thread: std::fs::DirEntry| -> Option<u64> {
        let stat = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse().ok()
    };
    Some(Duration::from_nanos(threads.filter_map(time).sum()))
}

fn pids() -> impl Iterator<Item = i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_time() {
        let me = std::process::id();
        let (resident, proportional) = memory(me).unwrap();
        assert!(resident >= proportional && proportional > 0);
        assert!(processor_time(me).unwrap() > Duration::ZERO);
    }
}
