//! `networks:` and `network_mode:`. The services of an app share one network, `default`, that is the app's alone;
//! what is more are networks of the cluster that services of several apps share by name.

use std::collections::BTreeMap;

use super::parse::{Reader, join};
use super::quantity::shown;
use super::tree::{Entry, Node, Value};
use super::{container, keys};
use crate::model::NetworkMode;
use crate::model::app::is_dns_label;

/// The most networks of an app.
pub const NETWORKS_MAX: usize = 32;
/// The app's own.
const OWN: &str = "default";

/// Reads the networks at the top of the file: what the file calls them, and what the cluster does; the app's own has no
/// name there.
pub fn top(reader: &mut Reader, node: Node) -> BTreeMap<String, Option<String>> {
    let place = node.place;
    let mut networks = BTreeMap::new();
    let Some(entries) = reader.map(node, "networks") else { return networks };
    if entries.len() > NETWORKS_MAX {
        reader.wrong(place, "networks", format!("an app has at most {NETWORKS_MAX} networks"));
        return networks;
    }
    let mut own = Vec::new();
    for Entry { key, at, value } in entries {
        let path = join("networks", &key);
        let mut level = match value.value {
            Value::Null => BTreeMap::new(),
            _ => match reader.level(value, &path, &keys::NETWORK) {
                Some(level) => level,
                None => continue,
            },
        };
        // Older files name it there: `external: {name: town}`.
        let (is_external, inner) = match level.remove("external") {
            Some(Entry { value, .. }) if matches!(value.value, Value::Map(_)) => {
                let inner = reader.level(value, &join(&path, "external"), &keys::EXTERNAL);
                (true, inner.and_then(|mut inner| inner.remove("name")))
            }
            Some(Entry { value, .. }) => {
                (reader.value(&value, &join(&path, "external"), container::switch) == Some(true), None)
            }
            None => (false, None),
        };
        let name = level.remove("name").or(inner);
        let name = name.and_then(|entry| reader.text(&entry.value, &join(&path, "name")));
        if !is_external {
            own.push((at, path));
            networks.insert(key, None);
            continue;
        }
        let name = name.unwrap_or_else(|| key.clone());
        if is_dns_label(&name) {
            networks.insert(key, Some(name));
        } else {
            reader.wrong(at, &path, format!("'{}' cannot be a network's name: it is no DNS label", shown(&name)));
        }
    }
    if own.len() > 1 {
        let (at, path) = own.swap_remove(1);
        reader.warn(at, &path, "the services of an app share one network: several of its own separate nothing");
    }
    networks
}

/// Reads the networks of a service, as a list or a mapping: those that it shares with other apps, by the names that
/// they have in the cluster.
pub fn of_service(reader: &mut Reader, node: Node, path: &str) -> Vec<String> {
    let items: Vec<Node> = match node.value {
        Value::List(items) => items,
        Value::Map(entries) => {
            let mut items = Vec::new();
            for Entry { key, at, value } in entries {
                if !matches!(value.value, Value::Null) {
                    reader.level(value, &join(path, &key), &keys::NETWORK_OF_SERVICE);
                }
                items.push(Node { value: Value::Scalar(key), place: at });
            }
            items
        }
        other => {
            reader.wrong(node.place, path, format!("a list of networks is expected here, not {}", other.kind()));
            Vec::new()
        }
    };
    reader.each_once(&items, path);
    let known = reader.networks.clone();
    let mut networks: Vec<String> = Vec::new();
    for item in items {
        let read = |name: &str| match known.get(name) {
            Some(name) => Ok(name.clone()),
            None if name == OWN => Ok(None),
            None => Err(format!("'{}' is none of the networks at the top of the file", shown(name))),
        };
        if let Some(Some(name)) = reader.value(&item, path, read)
            && !networks.contains(&name)
        {
            networks.push(name);
        }
    }
    networks
}

/// A `network_mode`.
///
/// # Errors
///
/// A sentence that says what is expected.
pub fn mode(text: &str) -> Result<NetworkMode, String> {
    match text {
        "host" => Ok(NetworkMode::Host),
        "bridge" | "default" => Ok(NetworkMode::Task),
        other => Err(format!(
            "'{}' is neither bridge (a network of each task's own, which it has anyway) nor host (the machine's)",
            shown(other)
        )),
    }
}
