//! What the mesh and the process count, for `/metrics`.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

use crate::api::{Figure, Metered};
use crate::mesh::{Flow, Mesh};

/// What does not live in the brain.
pub struct Meters(pub Mesh);

impl Metered for Meters {
    fn figures(&self) -> Vec<Figure> {
        let (sent, received) = self.0.traffic();
        let (connections, peers) = self.0.connections();
        let counted = self.0.counters();
        let both = || [("sent", &sent), ("received", &received)];
        let flows = |name, help, number: fn(&Flow) -> u64| {
            both().into_iter().flat_map(move |(way, flows)| {
                let used = flows.iter().filter(|flow| flow.messages > 0);
                used.map(move |flow| Figure::counter(name, help, number(flow)).of("way", way).of("kind", flow.kind))
            })
        };
        let messages = flows("rialto_link_messages", "Messages on links, by kind", |flow| flow.messages);
        let bytes = flows("rialto_link_bytes", "Their bytes, before encryption", |flow| flow.bytes);
        let dropped = "Messages that were not sent: a queue was full, or nobody was there";
        let mut figures: Vec<Figure> = messages.collect();
        figures.extend(bytes);
        figures.push(Figure::counter("rialto_link_dropped", dropped, counted.dropped));
        figures.push(Figure::gauge("rialto_mesh_connections", "Open connections to other peers", connections as u64));
        figures.push(Figure::gauge("rialto_mesh_peers", "Peers that are connected", peers as u64));
        figures.extend(of_process());
        figures
    }
}

/// What Prometheus wants to know of every process.
fn of_process() -> Vec<Figure> {
    let mut figures = Vec::new();
    if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
        let time = [usage.user_time(), usage.system_time()];
        let time = time.map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000).as_secs_f64());
        let counter = Figure::counter("process_cpu_seconds", "Processor time, of users and system", 0);
        figures.push(Figure { value: time.iter().sum(), ..counter });
    }
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    if let Some(pages) = pages.and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok()) {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten().unwrap_or(4096);
        figures.push(Figure::gauge("process_resident_memory_bytes", "Resident memory", pages * page as u64));
    }
    figures
}
