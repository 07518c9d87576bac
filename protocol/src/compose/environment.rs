//! `environment:`, as a mapping or as a list of `NAME=VALUE`.

use std::collections::BTreeMap;

use super::parse::{Reader, join};
use super::quantity::shown;
use super::tree::{Node, Place, Value};

/// Reads the variables of a service.
pub fn read(reader: &mut Reader, node: Node, path: &str) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    match node.value {
        Value::Null => {}
        Value::List(items) => {
            for item in &items {
                let Some(text) = reader.text(item, path) else { continue };
                match text.split_once('=') {
                    Some((name, value)) => add(reader, &mut variables, item.place, path, name, value),
                    None => unset(reader, item.place, &join(path, &text), &text),
                }
            }
        }
        _ => {
            for entry in reader.map(node, path).unwrap_or_default() {
                let key = join(path, &entry.key);
                if matches!(entry.value.value, Value::Null) {
                    unset(reader, entry.at, &key, &entry.key);
                } else if let Some(value) = reader.text(&entry.value, &key) {
                    add(reader, &mut variables, entry.at, path, &entry.key, &value);
                }
            }
        }
    }
    variables
}

fn add(reader: &mut Reader, variables: &mut BTreeMap<String, String>, at: Place, path: &str, name: &str, value: &str) {
    if name.is_empty() || name.contains(['=', '\0']) || name.chars().any(char::is_whitespace) {
        reader.wrong(at, path, format!("'{}' cannot be the name of a variable", shown(name)));
    } else if variables.insert(name.to_string(), value.to_string()).is_some() {
        reader.wrong(at, &join(path, name), "this variable is set twice");
    }
}

fn unset(reader: &mut Reader, at: Place, key: &str, name: &str) {
    let hint = format!("write {0}: \"\" or '{0}=' for an empty value", shown(name));
    let message = "a variable without a value would be taken from the shell, which is not done yet";
    reader.wrong_with(at, key, message, Some(hint));
}
