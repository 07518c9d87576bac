//! What is written of the table of keys: `docs/compose.md`, and the JSON schema of `x-rialto`.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::keys::{self, Key, Level, Shape, Support};

const HEAD: &str = "\
# Compose keys

<!-- Made of the table in protocol/src/compose/keys: RIALTO_WRITE=1 cargo test --release --workspace --test compose -->

Every key of the [Compose specification](https://compose-spec.io), and what becomes of it. What is *warned* about is passed
over, and the app is the same without it (`--strict` refuses it, too); what is *refused* would make another app of it. Keys
that nobody knows are refused. Where the specification wants text a number will do: it is taken as it is written. [The app
file](app-file.md) says more of what is honoured; extensions (`x-…`) may stand anywhere.

";

/// `docs/compose.md`.
pub fn markdown() -> String {
    let mut text = String::from(HEAD);
    let mut seen = Vec::new();
    level(&keys::TOP, &mut text, &mut seen);
    text.trim_end().to_string() + "\n"
}

fn level(level: &'static Level, text: &mut String, seen: &mut Vec<&'static str>) {
    if seen.contains(&level.path) {
        return;
    }
    seen.push(level.path);
    let title = if level.path.is_empty() { "The file".to_string() } else { format!("`{}`", level.path) };
    let _ = write!(text, "## {title}\n\n| key | | |\n|---|---|---|\n");
    for key in level.keys {
        let (what, note) = match key.support {
            Support::Honoured => ("honoured", key.note.to_string()),
            Support::Only(values) => {
                let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
                let because = if key.note.is_empty() { String::new() } else { format!("; {}", key.note) };
                ("honoured", format!("{}, and nothing else{because}", values.join(", ")))
            }
            Support::Warned => ("warned", key.note.to_string()),
            Support::Refused => ("refused", key.note.to_string()),
        };
        let _ = writeln!(text, "| `{}` | {what} | {} |", key.name, note.replace('|', "\\|"));
    }
    text.push('\n');
    for key in level.keys.iter().filter(|key| key.support == Support::Honoured && key.name != "build") {
        within(key.shape, text, seen);
    }
}

fn within(shape: Shape, text: &mut String, seen: &mut Vec<&'static str>) {
    match shape {
        Shape::Map(inner) | Shape::Needs(inner, _) => level(inner, text, seen),
        Shape::List(shape) | Shape::Named(shape) | Shape::OrNothing(shape) => within(*shape, text, seen),
        Shape::Either(shapes) => shapes.iter().for_each(|shape| within(*shape, text, seen)),
        _ => {}
    }
}

/// The JSON schema (draft-07) of `x-rialto` of a service: `docs/x-rialto.schema.json`.
pub fn extension_schema() -> Value {
    let mut schema = object(&keys::EXTENSION);
    if let Value::Object(map) = &mut schema {
        map.insert("$schema".into(), json!("https://json-schema.org/draft-07/schema"));
        map.insert("title".into(), json!("x-rialto of a service of an app file"));
    }
    schema
}

fn object(level: &'static Level) -> Value {
    let property = |key: &Key| {
        let mut schema = of(key.shape);
        if let Value::Object(map) = &mut schema
            && !key.note.is_empty()
        {
            map.insert("description".into(), json!(key.note));
        }
        (key.name.to_string(), schema)
    };
    let properties: Map<String, Value> = level.keys.iter().map(property).collect();
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn of(shape: Shape) -> Value {
    let text = || json!({"type": "string"});
    match shape {
        Shape::Any => json!({}),
        Shape::Text => json!({"type": ["string", "number"]}),
        Shape::Switch => json!({"type": ["boolean", "string"], "enum": [true, false, "true", "false"]}),
        Shape::Integer(least, most) => json!({"type": "integer", "minimum": least, "maximum": most}),
        Shape::Duration => json!({"type": "string", "pattern": "^([0-9]+(ms|s|m|h|d))+$"}),
        Shape::OneOf(words) => json!({"type": "string", "enum": words}),
        Shape::Words => json!({"type": "array", "items": text(), "uniqueItems": true}),
        Shape::OneOrMore => json!({"oneOf": [text(), {"type": "array", "items": text(), "uniqueItems": true}]}),
        Shape::Command => json!({"oneOf": [text(), {"type": "array", "items": text()}, {"type": "null"}]}),
        Shape::Dict => json!({"oneOf": [
            {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean", "null"]}},
            {"type": "array", "items": text(), "uniqueItems": true},
        ]}),
        Shape::Map(level) => object(level),
        Shape::Needs(level, keys) => {
            let mut schema = object(level);
            schema["required"] = json!(keys);
            schema
        }
        Shape::List(shape) => json!({"type": "array", "items": of(*shape)}),
        Shape::Named(shape) => json!({"type": "object", "additionalProperties": of(*shape)}),
        Shape::OrNothing(shape) => json!({"oneOf": [of(*shape), {"type": "null"}]}),
        Shape::Either(shapes) => json!({"oneOf": shapes.iter().map(|shape| of(*shape)).collect::<Vec<_>>()}),
    }
}

/// Whether a key of the specification is in the table; `path` leads to it, without the names that files choose.
pub fn knows(path: &[&str]) -> bool {
    let mut here = Shape::Map(&keys::TOP);
    for (at, name) in path.iter().enumerate() {
        let Some(level) = level_of(here) else { return false };
        let Some(key) = level.key(name) else { return false };
        // Nothing under it is looked at.
        if key.support == Support::Refused && at + 1 < path.len() {
            return true;
        }
        here = key.shape;
    }
    true
}

fn level_of(shape: Shape) -> Option<&'static Level> {
    match shape {
        Shape::Map(level) | Shape::Needs(level, _) => Some(level),
        Shape::List(shape) | Shape::Named(shape) | Shape::OrNothing(shape) => level_of(*shape),
        Shape::Either(shapes) => shapes.iter().find_map(|shape| level_of(*shape)),
        _ => None,
    }
}
