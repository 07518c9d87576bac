//! `environment:`, as a mapping or as a list of `NAME=VALUE`, and `env_file:`.

use std::collections::BTreeMap;

use super::container::switch;
use super::parse::{Reader, join};
use super::quantity::shown;
use super::surroundings::Unread;
use super::tree::{Node, Place, Value};
use super::{keys, load};

/// The most files of one service.
const FILES_MAX: usize = 32;

/// Reads the variables of a service. They go over those that are known already.
pub fn read(reader: &mut Reader, node: Node, path: &str, known: &mut BTreeMap<String, String>) {
    let mut own = BTreeMap::new();
    match node.value {
        Value::List(items) => {
            for item in &items {
                let Some(text) = reader.text(item, path) else { continue };
                let (name, value) = match text.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_string())),
                    None => (text.as_str(), None),
                };
                add(reader, &mut own, item.place, path, name, value);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let value = match entry.value.value {
                    Value::Null => None,
                    _ => match reader.text(&entry.value, &join(path, &entry.key)) {
                        Some(value) => Some(value),
                        None => continue,
                    },
                };
                add(reader, &mut own, entry.at, path, &entry.key, value);
            }
        }
        other => {
            reader.wrong(node.place, path, format!("a mapping or a list is expected here, not {}", other.kind()));
        }
    }
    for (name, value) in own {
        match value {
            Some(value) => drop(known.insert(name, value)),
            // As in Compose: what nobody sets is not set.
            None => drop(known.remove(&name)),
        }
    }
}

/// A name without a value takes it from the surroundings.
fn add(
    reader: &mut Reader,
    variables: &mut BTreeMap<String, Option<String>>,
    at: Place,
    path: &str,
    name: &str,
    value: Option<String>,
) {
    if name.is_empty() || name.contains(['=', '\0']) || name.chars().any(char::is_whitespace) {
        reader.wrong(at, path, format!("'{}' cannot be the name of a variable", shown(name)));
        return;
    }
    let value = value.or_else(|| reader.variable(name));
    if value.is_none() {
        let message =
            "the variable has no value here, and none is set in the shell or in .env: the task does not have it";
        reader.warn(at, &join(path, name), message);
    }
    if variables.insert(name.to_string(), value).is_some() {
        reader.wrong(at, &join(path, name), "this variable is set twice");
    }
}

/// Reads `env_file`: the later files go over the earlier.
pub fn files(reader: &mut Reader, node: Node, path: &str) -> BTreeMap<String, String> {
    let items = match node.value {
        Value::Scalar(_) => vec![node],
        _ => reader.items(node, path, FILES_MAX),
    };
    let mut variables = BTreeMap::new();
    for item in items {
        let Some(Named { at, file, required, raw }) = named(reader, item, path) else { continue };
        let source = match reader.surroundings().read(reader.base(at), &file) {
            Ok(source) => source,
            Err(Unread::Missing) if !required => continue,
            Err(unread) => {
                reader.wrong(at, path, format!("{}: {}", shown(&file), load::told(&unread)));
                continue;
            }
        };
        for (name, value) in load::env_file(reader, source, raw).unwrap_or_default() {
            match value.or_else(|| reader.variable(&name)) {
                Some(value) => drop(variables.insert(name, value)),
                None => drop(variables.remove(&name)),
            }
        }
    }
    variables
}

struct Named {
    at: Place,
    file: String,
    required: bool,
    raw: bool,
}

fn named(reader: &mut Reader, item: Node, path: &str) -> Option<Named> {
    let at = item.place;
    if let Value::Scalar(_) = item.value {
        return Some(Named { at, file: reader.text(&item, path)?, required: true, raw: false });
    }
    let mut level = reader.level(item, path, &keys::ENV_FILE)?;
    let mut part = |key: &'static str| level.remove(key).map(|entry| (entry, join(path, key)));
    let Some((entry, inner)) = part("path") else {
        reader.wrong(at, path, "the path is missing");
        return None;
    };
    let file = reader.text(&entry.value, &inner)?;
    let required = match part("required") {
        Some((entry, inner)) => reader.value(&entry.value, &inner, switch)?,
        None => true,
    };
    let format = |text: &str| match text {
        "raw" => Ok(true),
        other => Err(format!("'{}' is no format; raw is", shown(other))),
    };
    let raw = match part("format") {
        Some((entry, inner)) => reader.value(&entry.value, &inner, format)?,
        None => false,
    };
    Some(Named { at: entry.value.place, file, required, raw })
}
