//! Where tasks may run: `deploy.placement`.

use super::parse::{Reader, join};
use super::quantity::shown;
use super::tree::Node;
use super::{CONSTRAINTS_MAX, REPLICAS_MAX, keys};
use crate::market::constraint::Constraint;
use crate::model::ServiceSpec;
use crate::model::placement::ENTRIES_MAX;

const LABELS: &str = "node.labels.";

/// Reads `constraints`, `preferences` and `max_replicas_per_node`.
pub fn read(reader: &mut Reader, node: Node, path: &str, service: &mut ServiceSpec) {
    let Some(mut level) = reader.level(node, path, &keys::PLACEMENT) else { return };
    if let Some(entry) = level.remove("constraints") {
        let path = join(path, "constraints");
        let read = |text: &str| text.parse::<Constraint>().map_err(|error| error.to_string());
        let items = reader.items(entry.value, &path, CONSTRAINTS_MAX);
        service.constraints = items.iter().filter_map(|item| reader.value(item, &path, read)).collect();
    }
    if let Some(entry) = level.remove("preferences") {
        let path = join(path, "preferences");
        for item in reader.items(entry.value, &path, ENTRIES_MAX) {
            let place = item.place;
            let Some(mut level) = reader.level(item, &path, &keys::PREFERENCE) else { continue };
            let Some(spread) = level.remove("spread") else {
                reader.wrong(place, &path, "a preference says what to spread over: spread: node.labels.NAME");
                continue;
            };
            let label = reader.value(&spread.value, &join(&path, "spread"), label);
            service.placement.spread.extend(label);
        }
    }
    if let Some(entry) = level.remove("max_replicas_per_node") {
        let read = |text: &str| match text.parse::<u32>() {
            Ok(most) if most <= REPLICAS_MAX => Ok(most),
            _ => Err(format!("'{}' is no number of replicas from 0 (any) to {REPLICAS_MAX}", shown(text))),
        };
        let most = reader.value(&entry.value, &join(path, "max_replicas_per_node"), read);
        service.placement.max_per_machine = most.unwrap_or(0);
    }
}

fn label(text: &str) -> Result<String, String> {
    match text.strip_prefix(LABELS) {
        Some(label) if !label.is_empty() => Ok(label.to_string()),
        _ => Err(format!("'{}' cannot be spread over: write node.labels.NAME", shown(text))),
    }
}
