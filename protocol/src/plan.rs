//! What a deploy would change, told before it is done: service by service, field by field, and how many tasks restart.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::api::VolumeRow;
use crate::model::{AppSpec, Mode, ServiceSpec, Singleton};

/// The longest value of a field that is told whole, in characters.
const VALUE_CHARS_MAX: usize = 120;

/// What a deploy of an app would change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub app: String,
    /// Whether there is such an app now.
    pub is_new: bool,
    pub services: Vec<ServicePlan>,
    /// What whoever deploys should know of it, one sentence each.
    pub notes: Vec<String>,
}

/// What becomes of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePlan {
    pub service: String,
    pub change: Change,
    pub fields: Vec<FieldChange>,
    /// Tasks that are started beyond those that there are.
    pub starts: u32,
    /// Tasks that are replaced by others of the new revision.
    pub restarts: u32,
    /// Tasks that end, and are not replaced.
    pub stops: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    Created,
    Changed,
    Removed,
    Unchanged,
}

/// One field of a service, as JSON; `None` where it is not set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldChange {
    /// `container.health.retries`, `environment.LEVEL`.
    pub field: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

impl Plan {
    /// Whether a deploy would change nothing.
    pub fn is_empty(&self) -> bool {
        self.services.iter().all(|service| service.change == Change::Unchanged)
    }
}

/// Compares what an app is with what it is to be. What a peer adds when an app is deployed (addresses, digests) is no
/// change, unless names of images are `resolved` anew.
pub fn plan(app: &str, now: Option<&AppSpec>, then: &AppSpec, resolved: bool) -> Plan {
    let nothing = BTreeMap::new();
    let before = now.map_or(&nothing, |spec| &spec.services);
    let names: BTreeSet<&String> = before.keys().chain(then.services.keys()).collect();
    let services = names.into_iter().map(|name| service(name, before.get(name), then.services.get(name), resolved));
    Plan { app: app.into(), is_new: now.is_none(), services: services.collect(), notes: notes(then) }
}

fn service(name: &str, now: Option<&ServiceSpec>, then: Option<&ServiceSpec>, resolved: bool) -> ServicePlan {
    let of = |change, fields, [starts, restarts, stops]: [u32; 3]| ServicePlan {
        service: name.into(),
        change,
        fields,
        starts,
        restarts,
        stops,
    };
    match (now, then) {
        (Some(now), Some(then)) => {
            let then = as_deployed(then, now, resolved);
            let fields = fields(now, &then);
            let starts = then.replicas.saturating_sub(now.replicas);
            let stops = now.replicas.saturating_sub(then.replicas);
            let restarts = if now.revision() == then.revision() { 0 } else { now.replicas.min(then.replicas) };
            let change = if fields.is_empty() { Change::Unchanged } else { Change::Changed };
            of(change, fields, [starts, restarts, stops])
        }
        (Some(now), None) => of(Change::Removed, vec![], [0, 0, now.replicas]),
        (None, Some(then)) => {
            // What is as it would be anyhow is not told.
            let plain = ServiceSpec { replicas: 1, ..ServiceSpec::default() };
            let mut fields = fields(&plain, then);
            fields.iter_mut().for_each(|field| field.before = None);
            of(Change::Created, fields, [then.replicas, 0, 0])
        }
        (None, None) => of(Change::Unchanged, vec![], [0; 3]),
    }
}

/// As the peer would write it down: what it gave the service before stays.
fn as_deployed(then: &ServiceSpec, now: &ServiceSpec, resolved: bool) -> ServiceSpec {
    let mut then = then.clone();
    then.address = now.address;
    then.restarts = now.restarts;
    if then.image == now.image && then.image_digest.is_none() && !resolved {
        then.image_digest.clone_from(&now.image_digest);
    }
    then
}

fn fields(now: &ServiceSpec, then: &ServiceSpec) -> Vec<FieldChange> {
    let flat = |spec: &ServiceSpec| {
        let mut found = BTreeMap::new();
        flatten(&serde_json::to_value(spec).unwrap_or_default(), String::new(), &mut found);
        found
    };
    let (before, after) = (flat(now), flat(then));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    let shown = |value: Option<&Value>| value.map(|value| shortened(value.to_string()));
    changed
        .map(|name| FieldChange { field: name.clone(), before: shown(before.get(name)), after: shown(after.get(name)) })
        .collect()
}

/// Fields by their paths; lists are told whole.
fn flatten(value: &Value, path: String, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(value, path, found);
            }
        }
        Value::Null => {}
        value => drop(found.insert(path, value.clone())),
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Said once, whatever the number of services.
fn notes(spec: &AppSpec) -> Vec<String> {
    let is_alone = |service: &&ServiceSpec| {
        let is_one = service.replicas == 1 && service.mode == Mode::Replicated;
        is_one && !service.is_batch() && service.singleton == Singleton::No
    };
    let alone: Vec<&str> =
        spec.services.iter().filter(|(_, service)| is_alone(service)).map(|(name, _)| name.as_str()).collect();
    let named = match alone[..] {
        [] => return Vec::new(),
        [one] => format!("{one} has one replica: it"),
        [.., last] => {
            format!("{} and {last} have one replica each: such a service", alone[..alone.len() - 1].join(", "))
        }
    };
    vec![format!(
        "{named} may run twice while the network is split; 'x-rialto: {{singleton: strict}}' keeps it from that, and needs \
         the lock group"
    )]
}

/// Where the named volumes of an app's services hold their tasks. `volumes`: those of the cluster; `None`: not known.
pub fn volume_notes(app: &str, spec: &AppSpec, volumes: Option<&[VolumeRow]>) -> Vec<String> {
    let of = |(service, spec): (&String, &ServiceSpec)| {
        let names = spec.container.mounts.volumes.iter().filter_map(|volume| Some(volume.name.as_ref()?.of(app)));
        let said = names.map(|name| {
            let counts = |row: &&VolumeRow| row.name == name && matches!(row.state.as_str(), "here" | "down");
            match volumes.map(|rows| rows.iter().find(counts)) {
                None => format!("{service} runs on one machine, where volume {name} is"),
                Some(None) => {
                    format!("{service} stays on the machine where it starts first: volume {name} is made there")
                }
                Some(Some(row)) if row.state == "down" => {
                    format!("{service} waits for {}, which is down: volume {name} is there", row.machine)
                }
                Some(Some(row)) => {
                    format!("{service} runs on {} and nowhere else: volume {name} is there", row.machine)
                }
            }
        });
        said.collect::<Vec<_>>()
    };
    spec.services.iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::volume::{Named, VolumeMount};
    use std::net::Ipv4Addr;

    fn spec(services: &[(&str, ServiceSpec)]) -> AppSpec {
        let services = services.iter().map(|(name, service)| (name.to_string(), service.clone())).collect();
        AppSpec { services, ..AppSpec::default() }
    }

    fn web(replicas: u32) -> ServiceSpec {
        ServiceSpec { image: "web:1".into(), replicas, ..ServiceSpec::default() }
    }

    fn counts(plan: &ServicePlan) -> (Change, u32, u32, u32) {
        (plan.change, plan.starts, plan.restarts, plan.stops)
    }

    #[test]
    fn services_are_created_changed_removed_or_left() {
        let now = spec(&[("a", web(2)), ("b", web(3)), ("c", web(2)), ("d", web(1))]);
        let b = ServiceSpec { environment: [("X".to_string(), "1".to_string())].into(), ..web(2) };
        let then = spec(&[("a", web(2)), ("b", b), ("c", web(4)), ("e", web(1))]);
        let plan = plan("shop", Some(&now), &then, false);
        let found: Vec<_> = plan.services.iter().map(counts).collect();
        let wanted = [
            (Change::Unchanged, 0, 0, 0),
            (Change::Changed, 0, 2, 1),
            (Change::Changed, 2, 0, 0),
            (Change::Removed, 0, 0, 1),
            (Change::Created, 1, 0, 0),
        ];
        assert_eq!(found, wanted);
        let fields: Vec<_> = plan.services[1].fields.iter().map(|field| field.field.as_str()).collect();
        assert_eq!(fields, ["environment.X", "replicas"]);
        assert_eq!(plan.services[1].fields[1].after.as_deref(), Some("2"));
        let of_new: Vec<_> =
            plan.services[4].fields.iter().map(|field| (field.field.as_str(), &field.before)).collect();
        assert_eq!(of_new, [("image", &None)], "what is as it would be anyhow is not told");
        assert!(!plan.is_new && !plan.is_empty());
    }

    #[test]
    fn what_a_peer_adds_is_no_change() {
        let deployed = ServiceSpec {
            address: Some(Ipv4Addr::new(10, 216, 0, 9)),
            image_digest: Some("sha256:00".into()),
            restarts: 3,
            ..web(1)
        };
        let now = spec(&[("a", deployed)]);
        assert!(plan("shop", Some(&now), &spec(&[("a", web(1))]), false).is_empty());
        assert!(!plan("shop", Some(&now), &spec(&[("a", web(1))]), true).is_empty(), "the name may mean another image");
        let other = ServiceSpec { image: "web:2".into(), ..web(1) };
        assert_eq!(plan("shop", Some(&now), &spec(&[("a", other)]), false).services[0].restarts, 1);
    }

    #[test]
    fn where_volumes_are_is_said() {
        let mut db = web(1);
        let name = Some(Named::Own("data".into()));
        db.container.mounts.volumes =
            vec![VolumeMount { path: "/data".into(), name, read_only: false, no_copy: false }];
        let then = spec(&[("db", db), ("web", web(1))]);
        let row = |state: &str| VolumeRow {
            name: "shop/data".into(),
            id: String::new(),
            machine: "m3".into(),
            state: state.into(),
            made_at: String::new(),
            services: vec![],
            bytes: None,
            files: None,
            path: None,
        };
        for (volumes, expected) in [
            (None, "db runs on one machine, where volume shop/data is"),
            (Some(vec![]), "db stays on the machine where it starts first: volume shop/data is made there"),
            (Some(vec![row("given up"), row("here")]), "db runs on m3 and nowhere else: volume shop/data is there"),
            (Some(vec![row("down")]), "db waits for m3, which is down: volume shop/data is there"),
        ] {
            assert_eq!(volume_notes("shop", &then, volumes.as_deref()), [expected]);
        }
    }

    #[test]
    fn a_single_replica_is_warned_of_once() {
        let notes = |services: &[(&str, ServiceSpec)]| plan("shop", None, &spec(services), false).notes;
        assert_eq!(notes(&[("a", web(2))]), Vec::<String>::new());
        let one = notes(&[("a", web(1)), ("b", web(1)), ("c", web(1))]);
        assert!(
            one.len() == 1
                && one[0].starts_with("a, b and c have one replica each")
                && one[0].contains("singleton: strict")
        );
    }
}
