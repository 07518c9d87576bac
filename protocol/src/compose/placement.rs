//! Where tasks may run: `deploy.placement`.

use super::parse::{Reader, join};
use super::tree::{Node, Value};
use super::{CONSTRAINTS_MAX, support};
use crate::market::constraint::Constraint;

/// Reads `constraints`.
pub fn constraints(reader: &mut Reader, node: Node, path: &str) -> Vec<Constraint> {
    let Some(mut level) = reader.level(node, path, &support::PLACEMENT) else { return Vec::new() };
    let Some(entry) = level.remove("constraints") else { return Vec::new() };
    let path = join(path, "constraints");
    let place = entry.value.place;
    let items = match entry.value.value {
        Value::List(items) => items,
        Value::Null => Vec::new(),
        other => {
            reader.wrong(place, &path, format!("a list is expected here, not {}", other.kind()));
            return Vec::new();
        }
    };
    if items.len() > CONSTRAINTS_MAX {
        reader.wrong(place, &path, format!("a service has at most {CONSTRAINTS_MAX} constraints"));
        return Vec::new();
    }
    let read = |text: &str| text.parse::<Constraint>().map_err(|error| error.to_string());
    items.iter().filter_map(|item| reader.value(item, &path, read)).collect()
}
