//! Looking at a cluster from the outside, as its users do: DNS, HTTP, and patience.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rialto_protocol::api::TaskRow;

use super::{LabError, Machine, Result, http, processes, run_within};

/// Between two looks. Short enough for a second's promise, long enough for a busy core.
const LOOK: Duration = Duration::from_millis(50);
/// How long one look may take: less than anybody's patience.
const PROBE: Duration = Duration::from_secs(2);

/// Looks until `look` is satisfied, or `limit` has passed; what it found, and how long that took.
/// `look` says in words what it sees instead.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> std::result::Result<T, String>,
) -> Result<(T, Duration)> {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return Ok((found, began.elapsed())),
            Err(seen) if began.elapsed() >= limit => return Err(LabError::Late { what: what.into(), limit, seen }),
            Err(_) => std::thread::sleep(LOOK),
        }
    }
}

/// A service, as DNS at one machine knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// `NOERROR`, `NXDOMAIN`, `REFUSED`, …
    pub status: String,
    /// Where it answers, sorted.
    pub addresses: Vec<SocketAddr>,
}

impl Machine {
    /// Waits until this peer holds `machines` for alive.
    pub fn sees(&self, machines: u32, limit: Duration) -> Result<Duration> {
        let what = format!("{} seeing {machines} machines alive", self.name());
        let look = || match self.status() {
            Ok(status) if status.machines_alive == machines => Ok(()),
            Ok(status) => Err(format!("{} alive", status.machines_alive)),
            Err(error) => Err(error.to_string()),
        };
        Ok(until(&what, limit, look)?.1)
    }

    /// The tasks that this peer shows, without those on machines that it holds for down: of them it
    /// shows what it heard last.
    pub fn tasks(&self) -> Result<Vec<TaskRow>> {
        let mut rows = self.ps()?;
        let machines = self.machines()?;
        let is_down = |name: &str| machines.iter().any(|machine| machine.name == name && machine.state == "down");
        rows.retain(|row| !row.machine.as_deref().is_some_and(is_down));
        Ok(rows)
    }

    /// Waits until [`Machine::tasks`] satisfy `wanted`; those tasks, and how long that took.
    pub fn ps_until(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&[TaskRow]) -> bool,
    ) -> Result<(Vec<TaskRow>, Duration)> {
        until(&format!("{what}, seen by {}", self.name()), limit, || match self.tasks() {
            Ok(rows) if wanted(&rows) => Ok(rows),
            Ok(rows) => Err(table(&rows)),
            Err(error) => Err(error.to_string()),
        })
    }

    /// Asks this machine's DNS. The status, and the answer section's data, sorted.
    pub fn dig(&self, name: &str, kind: &str, more: &[&str]) -> Result<(String, Vec<String>)> {
        let (ip, port) = self.dns();
        let mut command = self.inside("dig");
        command.args([&format!("@{ip}"), "-p", &port.to_string(), "+time=1", "+tries=1", "+noall", "+comments"]);
        let output = run_within(command.args(["+answer", name, kind]).args(more), PROBE)?;
        let status = output.stdout.split_once("status: ").and_then(|(_, rest)| rest.split(',').next());
        let status = status.unwrap_or("no answer").to_owned();
        let answers = output.stdout.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
        let mut data: Vec<String> =
            answers.map(|line| line.split_whitespace().skip(4).collect::<Vec<_>>().join(" ")).collect();
        data.sort();
        Ok((status, data))
    }

    /// Where the tasks of the service `name` answer, by their SRV records and the addresses of their targets.
    pub fn resolve(&self, name: &str) -> Result<Service> {
        let (status, records) = self.dig(&format!("tasks.{name}"), "SRV", &[])?;
        let mut addresses = Vec::new();
        for record in &records {
            let fields: Vec<&str> = record.split(' ').collect();
            let [_, _, port, target] = fields[..] else { continue };
            let Ok(port) = port.parse() else { continue };
            for address in self.dig(target, "A", &[])?.1 {
                addresses.extend(address.parse().ok().map(|ip: Ipv4Addr| SocketAddr::from((ip, port))));
            }
        }
        addresses.sort();
        Ok(Service { status, addresses })
    }

    /// Runs `work` in this machine's network: sockets that it opens are the machine's.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.entrance().within(work)
    }

    /// The way into this machine's network, for who has it while the machine is dealt with by others.
    pub fn entrance(&self) -> Entrance {
        Entrance { name: self.name().to_owned(), netns: self.netns.clone() }
    }

    /// `GET PATH` from this machine; the body of a 200.
    pub fn fetch(&self, address: SocketAddr, path: &str) -> Result<String> {
        let what = format!("GET http://{address}{path} from {}", self.name());
        let answer = self.within(|| {
            let stream = TcpStream::connect_timeout(&address, PROBE)?;
            stream.set_read_timeout(Some(PROBE))?;
            http::get(stream, &address.to_string(), path)
        })?;
        let answer = answer.map_err(LabError::io(what.clone()))?;
        match answer.status {
            200 => Ok(answer.body),
            status => Err(LabError::Unreadable { what, error: format!("status {status}"), said: answer.body }),
        }
    }
}

/// Tasks in one line each, for messages.
pub(crate) fn table(rows: &[TaskRow]) -> String {
    let line = |row: &TaskRow| {
        let machine = row.machine.as_deref().unwrap_or("-");
        let reason = row.reason.as_deref().unwrap_or("");
        format!("{} {} on {machine} #{} {reason}", row.task, row.state, row.attempt)
    };
    if rows.is_empty() { "no tasks".into() } else { rows.iter().map(line).collect::<Vec<_>>().join("; ") }
}

/// The way into a machine's network.
#[derive(Clone, Debug)]
pub struct Entrance {
    name: String,
    netns: Option<String>,
}

impl Entrance {
    /// Runs `work` in the machine's network: sockets that it opens are the machine's.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let enter = || -> std::io::Result<()> {
            let Some(netns) = &self.netns else { return Ok(()) };
            let file = std::fs::File::open(processes::netns_path(netns))?;
            Ok(nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?)
        };
        // A namespace is entered by a thread, and the caller's has another life to lead.
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| enter().map(|()| work()));
            match inside.join() {
                Ok(done) => done.map_err(LabError::io(format!("entering {}", self.name))),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}
