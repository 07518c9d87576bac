//! What people want: an app and its services.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::container::Container;
use super::kind::{Batch, Dependencies, Mode, cycle};
use super::network::{NetworkMode, PortMode};
use super::placement::{GANG_MAX, OnHeal, PRIORITY_MAX, Placement, TIME_MS_MAX};
use super::resources::{CPU_MILLIS, MEMORY_BYTES, Resources};
use super::rollout::RolloutPolicy;
use super::schedule::Schedule;
use super::singleton::Singleton;
use crate::market::constraint::Constraint;

/// How long after a machine was seen down a service's tasks are replaced, ms.
pub const SERVICE_LOST_AFTER_MS: u64 = 2_000;
/// The same for batches, whose tasks are dearer to repeat.
pub const BATCH_LOST_AFTER_MS: u64 = 30_000;
/// What a service needs when its file says nothing: counted against the machine, not limited.
pub const DEFAULT_CPU_MILLIS: u64 = 100;
/// So long before a service's task is stopped nobody new is sent to it, ms: twice what the word takes to reach all.
pub const DRAIN_MS: u64 = 1_000;
/// The memory side of [`DEFAULT_CPU_MILLIS`]: 64 MiB.
pub const DEFAULT_MEMORY_BYTES: u64 = 64 << 20;

/// An app as its document reads now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppSpec {
    #[serde(default)]
    pub services: BTreeMap<String, ServiceSpec>,
    /// A single run (`rialto run`): forgotten an hour after it has finished.
    #[serde(default)]
    pub single_run: bool,
}

/// One service of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// `host`, the name of an imported image, `web` or `web:1`, or an image of a registry,
    /// `HOST[:PORT]/NAME[:TAG][@DIGEST]`.
    pub image: String,
    /// The manifest that the name meant when the app was deployed; `None` where no machine had it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// Replaces the image's own command where it is not empty.
    #[serde(default)]
    pub command: Vec<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    #[serde(default)]
    pub replicas: u32,
    #[serde(default)]
    pub restart: Restart,
    #[serde(default)]
    pub ports: Vec<PortSpec>,
    /// `deploy.resources.reservations`: what a machine sets aside.
    #[serde(default)]
    pub reservations: Resources,
    /// `deploy.resources.limits`: what the kernel enforces; `cpu_millis`, `memory_bytes`, `pids`.
    #[serde(default)]
    pub limits: Resources,
    /// `deploy.placement.constraints`: which machines will do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Constraint>,
    /// Beside whom its tasks may be, and over what they are spread.
    #[serde(default, skip_serializing_if = "Placement::is_any")]
    pub placement: Placement,
    /// What becomes of a task whose machine was lost.
    #[serde(default)]
    pub on_lost: OnLost,
    /// How long after its machine was seen down a task is replaced, ms; 2 s, of a batch 30 s, where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_after_ms: Option<u64>,
    /// Which copy of a task stays when a partition heals.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_heal: OnHeal,
    /// Its tasks end on a machine that has heard no other for so long, ms; `None`: they go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_when_isolated_ms: Option<u64>,
    /// Higher goes first; ten more may take the room of what runs.
    #[serde(default)]
    pub priority: i32,
    /// All tasks start together, or none does.
    #[serde(default, skip_serializing_if = "is_default")]
    pub gang: bool,
    /// How its containers are made, where they are not as every other.
    #[serde(default, skip_serializing_if = "Container::is_usual")]
    pub container: Container,
    /// Milliseconds between SIGTERM and SIGKILL; 10 s where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_grace_ms: Option<u64>,
    /// A network of each task's own, or the machine's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub network_mode: NetworkMode,
    /// Networks that it shares with services of other apps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<String>,
    /// Its virtual address: given when it is deployed, and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Before a task is stopped nobody new is sent to it for so long, ms; 1 s where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_ms: Option<u64>,
    /// How often its tasks were asked to start anew (`rialto restart`): a number that only grows.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restarts: u32,
    /// So many tasks, or one on each machine.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: Mode,
    /// Of work that runs to its end: how.
    #[serde(default, skip_serializing_if = "Batch::is_usual")]
    pub batch: Batch,
    /// It runs at these times, and `replicas` is the number of tasks of each run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// What has to be true of other services before its tasks are started.
    #[serde(default, skip_serializing_if = "Dependencies::is_empty")]
    pub depends_on: Dependencies,
    /// How it is changed while it runs.
    #[serde(default, skip_serializing_if = "RolloutPolicy::is_usual")]
    pub rollout: RolloutPolicy,
    /// Whether two of its tasks may ever run at once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub singleton: Singleton,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// When a task that has ended is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Never: the service is a batch, and an ended task is finished work.
    No,
    /// After every end. A service of a cluster is kept up unless its file says otherwise.
    #[default]
    Always,
    /// After an end with a code other than 0.
    OnFailure,
    /// As `always`: stopping a service scales it to 0.
    UnlessStopped,
}

/// What becomes of a task whose machine was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnLost {
    /// It is started again elsewhere, however often.
    #[default]
    Replace,
    /// At most this often; then the task is finished as lost (`rialto run --retries N`).
    Retry(u32),
}

/// One entry of `ports:`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// The number in the file; 0 for the port that a service without `ports` gets.
    pub container: u16,
    /// The fixed host port; `None`: one from 20000–29999 is chosen by the machine, and is that machine's alone.
    #[serde(default)]
    pub host: Option<u16>,
    /// Where a fixed one listens.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: PortMode,
    /// `tcp` or `udp`.
    pub protocol: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ServiceSpec {
    /// What a machine sets aside for one task: reservations, else limits, else the default; and
    /// the fixed host ports.
    pub fn need(&self) -> Resources {
        let amount = |name: &str, default: u64| {
            [&self.reservations, &self.limits].into_iter().map(|r| r.get(name)).find(|a| *a > 0).unwrap_or(default)
        };
        let mut need = self.reservations.clone();
        need.set(CPU_MILLIS, amount(CPU_MILLIS, DEFAULT_CPU_MILLIS));
        need.set(MEMORY_BYTES, amount(MEMORY_BYTES, DEFAULT_MEMORY_BYTES));
        for host in self.ports.iter().filter(|port| self.takes(port)).filter_map(|port| port.host) {
            need.set(Resources::port(host), 1);
        }
        need
    }

    /// Whether a port is its machine's alone: no two tasks there can have it.
    pub fn takes(&self, port: &PortSpec) -> bool {
        self.network_mode == NetworkMode::Host || port.mode == PortMode::Host
    }

    /// The ports of its own that are published on every machine: number, protocol, and the task's own.
    pub fn ingress(&self) -> impl Iterator<Item = (u16, &str, u16)> {
        let open = self.ports.iter().filter(|port| !self.takes(port));
        open.filter_map(|port| Some((port.host?, port.protocol.as_str(), port.container)))
    }

    /// Milliseconds in which nobody new is sent to a task that is about to be stopped.
    pub fn drain_ms(&self) -> u64 {
        match self.network_mode {
            NetworkMode::Task if !self.is_batch() => self.drain_ms.unwrap_or(DRAIN_MS),
            _ => self.drain_ms.unwrap_or(0),
        }
    }

    /// The revision of what runs: two specs that differ only in the number of replicas, the times, the order, and the
    /// policies for ends, losses, places and changes share it, and a change of those restarts nothing.
    pub fn revision(&self) -> u64 {
        let running = ServiceSpec {
            replicas: 0,
            restart: Restart::default(),
            on_lost: OnLost::default(),
            lost_after_ms: None,
            on_heal: OnHeal::default(),
            stop_when_isolated_ms: None,
            placement: Placement::default(),
            priority: 0,
            gang: false,
            address: None,
            drain_ms: None,
            mode: Mode::default(),
            batch: Batch { deadline_ms: self.batch.deadline_ms, ..Batch::default() },
            schedule: None,
            depends_on: Dependencies::new(),
            rollout: RolloutPolicy::default(),
            ..self.clone()
        };
        let mut first = [0; 8];
        first.copy_from_slice(&blake3::hash(&crate::wire::encode(&running)).as_bytes()[..8]);
        u64::from_le_bytes(first)
    }

    /// Whether an ended task of this service is finished work.
    pub fn finishes(&self, exit_code: Option<i32>) -> bool {
        match self.restart {
            Restart::No => self.batch.retries.is_none() || exit_code == Some(0),
            Restart::OnFailure => exit_code == Some(0),
            Restart::Always | Restart::UnlessStopped => false,
        }
    }

    /// A batch runs to completion; its lost tasks are repeated later than a service's.
    pub fn is_batch(&self) -> bool {
        matches!(self.restart, Restart::No | Restart::OnFailure)
    }

    /// How many tasks one run of it has.
    pub fn run_size(&self) -> u32 {
        self.replicas.max(1)
    }

    /// Milliseconds between SIGTERM and SIGKILL.
    pub fn grace_ms(&self) -> u64 {
        self.stop_grace_ms.unwrap_or(10_000)
    }

    /// How long after its machine was seen down a task is replaced, ms.
    pub fn lost_after_ms(&self) -> u64 {
        let usual = if self.is_batch() { BATCH_LOST_AFTER_MS } else { SERVICE_LOST_AFTER_MS };
        self.lost_after_ms.unwrap_or(usual)
    }

    /// What is wrong with how it wants to be placed: the field, and what to say.
    pub fn placement_fault(&self) -> Option<(&'static str, String)> {
        if self.priority.unsigned_abs() > PRIORITY_MAX.unsigned_abs() {
            return Some((
                "priority",
                format!("{} is no priority from -{PRIORITY_MAX} to {PRIORITY_MAX}", self.priority),
            ));
        }
        if self.gang && self.replicas > GANG_MAX {
            return Some(("gang", format!("a gang has at most {GANG_MAX} tasks")));
        }
        if self.gang && self.container.mounts.has_named() {
            return Some(("gang", "tasks with a named volume cannot be a gang: the first makes the volume".into()));
        }
        for (field, ms) in [
            ("lost_after_ms", self.lost_after_ms),
            ("stop_when_isolated_ms", self.stop_when_isolated_ms),
            ("drain_ms", self.drain_ms),
        ] {
            if ms.is_some_and(|ms| ms > TIME_MS_MAX) {
                return Some((field, "more than thirty days".into()));
            }
        }
        self.kind_fault().or_else(|| self.placement.fault())
    }

    /// What is wrong with when and how often it runs, and how it is changed: the field, and what to say.
    fn kind_fault(&self) -> Option<(&'static str, String)> {
        let kept_up = !matches!(self.restart, Restart::No | Restart::OnFailure);
        let faults = [
            ("batch", self.batch.fault()),
            ("schedule", self.schedule.as_ref().and_then(Schedule::fault)),
            ("rollout", self.rollout.fault()),
        ];
        if let Some((field, Some(message))) = faults.into_iter().find(|(_, fault)| fault.is_some()) {
            return Some((field, message));
        }
        let wrong = |field, message: &str| Some((field, message.to_string()));
        match &self.schedule {
            Some(_) if kept_up => {
                return wrong("schedule", "what runs at given times runs to its end: write restart: no or on-failure");
            }
            Some(_) if self.gang => return wrong("gang", "the tasks of a schedule do not start together"),
            Some(_) if self.mode == Mode::Global => {
                return wrong("schedule", "what runs at given times does not run on each machine");
            }
            _ => {}
        }
        if self.mode == Mode::Global && self.gang {
            return wrong("gang", "a service on each machine is no gang");
        }
        if kept_up && !self.batch.is_usual() {
            return wrong(
                "batch",
                "parallelism, retries and deadline are for work that ends: restart: no or on-failure",
            );
        }
        None
    }
}

/// A service that waits for what never comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DependencyFault {
    pub service: String,
    /// What it waits for.
    pub on: String,
    /// What to say of it.
    pub message: String,
}

impl AppSpec {
    /// What is wrong with what its services wait for.
    pub fn dependency_fault(&self) -> Option<DependencyFault> {
        for (name, service) in &self.services {
            for other in service.depends_on.keys() {
                let said = match self.services.get(other) {
                    None => format!("{name} depends on {other}, and there is no such service"),
                    Some(other_spec) if other_spec.schedule.is_some() => {
                        format!("{name} depends on {other}, which runs at given times and is never done")
                    }
                    Some(_) => continue,
                };
                return Some(DependencyFault { service: name.clone(), on: other.clone(), message: said });
            }
        }
        let names: Vec<&str> = self.services.keys().map(String::as_str).collect();
        let circle = cycle(|name| self.services.get(name).map(|service| &service.depends_on), &names)?;
        let message = format!("services wait for each other in a circle: {}", circle.join(" → "));
        // A circle ends where it began.
        Some(DependencyFault { service: circle[0].clone(), on: circle[1].clone(), message })
    }
}

/// Whether `name` can be an app's, a service's or a machine's name: a DNS label (RFC 1123).
pub fn is_dns_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len()) && name.chars().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

/// The registry that an image's name begins with, `HOST[:PORT]`: its first word where that has a dot or a port or is
/// `localhost`, and more words follow. Docker's rule, without its default.
pub fn registry_of(image: &str) -> Option<&str> {
    let (first, _) = image.split_once('/')?;
    (first == "localhost" || first.contains(['.', ':'])).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_has_a_dot_or_a_port() {
        for (image, registry) in [
            ("web", None),
            ("web:1", None),
            ("shop/web:1.2", None),
            ("localhost/web", Some("localhost")),
            ("r.example/web", Some("r.example")),
            ("r:5000/a/b@sha256:00", Some("r:5000")),
        ] {
            assert_eq!(registry_of(image), registry, "{image}");
        }
    }

    #[test]
    fn need_is_reservations_else_limits_else_the_default() {
        let mut service = ServiceSpec::default();
        assert_eq!(service.need(), Resources::of(100, 64 << 20));
        service.limits = Resources::of(500, 0);
        assert_eq!(service.need().get(CPU_MILLIS), 500);
        service.reservations = Resources::of(250, 0);
        assert_eq!(service.need(), Resources::of(250, 64 << 20));
    }

    #[test]
    fn scaling_is_no_new_revision() {
        let one = ServiceSpec { image: "host".into(), replicas: 1, ..Default::default() };
        let two = ServiceSpec { replicas: 2, ..one.clone() };
        let other = ServiceSpec { image: "web".into(), ..one.clone() };
        assert_eq!(one.revision(), two.revision());
        assert_ne!(one.revision(), other.revision());
    }
}
