//! What people want: an app and its services.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::placement::{GANG_MAX, OnHeal, PRIORITY_MAX, Placement, TIME_MS_MAX};
use super::resources::{CPU_MILLIS, MEMORY_BYTES, Resources};
use crate::market::constraint::Constraint;

/// How long after a machine was seen down a service's tasks are replaced, ms.
pub const SERVICE_LOST_AFTER_MS: u64 = 2_000;
/// The same for batches, whose tasks are dearer to repeat.
pub const BATCH_LOST_AFTER_MS: u64 = 30_000;
/// What a service needs when its file says nothing: counted against the machine, not limited.
pub const DEFAULT_CPU_MILLIS: u64 = 100;
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
    /// Milliseconds between SIGTERM and SIGKILL; 10 s where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_grace_ms: Option<u64>,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortSpec {
    /// The number in the file; 0 for the port that a service without `ports` gets.
    pub container: u16,
    /// The fixed host port; `None`: one from 20000–29999 is chosen by the machine.
    #[serde(default)]
    pub host: Option<u16>,
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
        for host in self.ports.iter().filter_map(|port| port.host) {
            need.set(Resources::port(host), 1);
        }
        need
    }

    /// The revision of what runs: two specs that differ only in the number of replicas, the
    /// policies for ends, losses and places share it, and a change of those restarts nothing.
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
            ..self.clone()
        };
        let mut first = [0; 8];
        first.copy_from_slice(&blake3::hash(&crate::wire::encode(&running)).as_bytes()[..8]);
        u64::from_le_bytes(first)
    }

    /// Whether an ended task of this service is finished work.
    pub fn finishes(&self, exit_code: Option<i32>) -> bool {
        match self.restart {
            Restart::No => true,
            Restart::OnFailure => exit_code == Some(0),
            Restart::Always | Restart::UnlessStopped => false,
        }
    }

    /// A batch runs to completion; its lost tasks are repeated later than a service's.
    pub fn is_batch(&self) -> bool {
        matches!(self.restart, Restart::No | Restart::OnFailure)
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
        for (field, ms) in
            [("lost_after_ms", self.lost_after_ms), ("stop_when_isolated_ms", self.stop_when_isolated_ms)]
        {
            if ms.is_some_and(|ms| ms > TIME_MS_MAX) {
                return Some((field, "more than thirty days".into()));
            }
        }
        self.placement.fault()
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
