//! Every key of the Compose specification, and what becomes of it: the one table by which files are read and
//! `docs/compose.md` is written.
//!
//! A key is *honoured*; or *warned* about, where leaving it out changes nothing that the app could notice going wrong;
//! or *refused*, where the app would be another one without it.

mod build;
mod deploy;
mod mounts;
mod resources;
mod service;
mod top;

use super::parse::{Reader, join};
use super::support;
use super::tree::{Entry, Node, Value};

pub use deploy::{DEPLOY, PLACEMENT, PREFERENCE, RESTART_POLICY, UPDATE};
pub use mounts::{
    CONFIG, FILE, MOUNT, MOUNT_BIND, MOUNT_TMPFS, MOUNT_VOLUME, SECRET, SECRET_FILE, VOLUME, VOLUME_EXTERNAL,
};
pub use resources::{DEVICE, DISCRETE, GENERIC, LIMITS, RESERVATIONS, RESOURCES};
pub use service::{
    DEPENDENCY, DEVICE_FILE, ENV_FILE, EXTENDS, EXTENSION, HEALTHCHECK, HOOK, NETWORK_OF_SERVICE, PORT, SCHEDULE,
    SERVICE, ULIMIT,
};
pub use top::{EXTERNAL, INCLUDE, NETWORK, TOP};

/// What one mapping of a file can hold.
pub struct Level {
    /// What it is called in messages.
    pub name: &'static str,
    /// Where it stands, `services.NAME.deploy`; empty for the file itself.
    pub path: &'static str,
    pub keys: &'static [Key],
}

/// One key of a level.
pub struct Key {
    pub name: &'static str,
    pub support: Support,
    /// What the specification lets stand here.
    pub shape: Shape,
    /// What it does, or what is done in its place, or what to write instead.
    pub note: &'static str,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    Honoured,
    /// Honoured where it says what is so anyway; any other value is refused.
    Only(&'static [&'static str]),
    Warned,
    Refused,
}

/// The kinds of YAML that a key takes.
#[derive(Clone, Copy)]
pub enum Shape {
    Any,
    /// A single value.
    Text,
    Switch,
    Integer(i64, i64),
    /// `1h30m`.
    Duration,
    OneOf(&'static [&'static str]),
    /// A list of single values, each once.
    Words,
    /// A single value or a list of them.
    OneOrMore,
    /// A command: words in order, or a line.
    Command,
    /// A mapping to single values, or a list of `NAME=VALUE`.
    Dict,
    Map(&'static Level),
    /// A mapping that has to have these keys.
    Needs(&'static Level, &'static [&'static str]),
    List(&'static Shape),
    /// A mapping from names that the file chooses.
    Named(&'static Shape),
    /// Either of them, or nothing.
    OrNothing(&'static Shape),
    Either(&'static [Shape]),
}

const fn key(name: &'static str, support: Support, shape: Shape, note: &'static str) -> Key {
    Key { name, support, shape, note }
}

const fn honoured(name: &'static str, shape: Shape, note: &'static str) -> Key {
    key(name, Support::Honoured, shape, note)
}

const fn warned(name: &'static str, shape: Shape, note: &'static str) -> Key {
    key(name, Support::Warned, shape, note)
}

const fn refused(name: &'static str, note: &'static str) -> Key {
    key(name, Support::Refused, Shape::Any, note)
}

const fn only(name: &'static str, values: &'static [&'static str], note: &'static str) -> Key {
    key(name, Support::Only(values), Shape::Text, note)
}

impl Level {
    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    /// Names of keys that do something.
    pub fn honoured(&self) -> Vec<&'static str> {
        let honoured = |key: &&Key| matches!(key.support, Support::Honoured | Support::Only(_));
        self.keys.iter().filter(honoured).map(|key| key.name).collect()
    }
}

/// Judges one entry of a level; `true` where it is honoured, and for whoever reads the level to take.
pub fn admit(reader: &mut Reader, level: &Level, entry: &Entry, path: &str) -> bool {
    let path = join(path, &entry.key);
    let Some(key) = level.key(&entry.key) else {
        // Anybody's extensions may be anywhere; a slip in the name of ours may not.
        let near = support::nearest(&entry.key, &["x-rialto"]).is_some();
        if !entry.key.starts_with("x-") || near {
            let (message, hint) = support::unknown(level, &entry.key);
            reader.wrong_with(entry.at, &path, message, hint);
        }
        return false;
    };
    let hint = (!key.note.is_empty()).then(|| key.note.to_string());
    match key.support {
        Support::Honoured => return true,
        Support::Only(values) => {
            if let Some(text) = reader.text(&entry.value, &path)
                && !values.contains(&text.as_str())
            {
                let message = format!("of this key only {} is done by Rialto", values.join(", "));
                reader.wrong_with(entry.at, &path, message, hint);
            }
        }
        Support::Warned => {
            check(reader, &entry.value, &path, key.shape);
            reader.warn(entry.at, &path, format!("this is passed over: {}", key.note));
        }
        Support::Refused => reader.wrong_with(entry.at, &path, "Compose knows this key, Rialto does not do it", hint),
    }
    false
}

/// Refuses what the specification does, of what nobody reads. Deeper than the tree's own depth nothing is.
pub fn check(reader: &mut Reader, node: &Node, path: &str, shape: Shape) {
    let kind = node.value.kind();
    let mut expected = |what: &str| {
        reader.wrong(node.place, path, format!("{what} is expected here, not {kind}"));
    };
    match (shape, &node.value) {
        (Shape::Any, _) | (Shape::OrNothing(_), Value::Null) => {}
        (Shape::OrNothing(shape), _) => check(reader, node, path, *shape),
        (Shape::Either(shapes), value) => match shapes.iter().find(|shape| shape.takes(value)) {
            Some(shape) => check(reader, node, path, *shape),
            None => expected("another kind of value"),
        },
        (Shape::Text | Shape::OneOrMore | Shape::Command, Value::Scalar(_)) | (Shape::Command, Value::Null) => {}
        (Shape::Switch, Value::Scalar(_)) => drop(reader.value(node, path, super::container::switch)),
        (Shape::Integer(least, most), Value::Scalar(text)) => {
            if !text.parse::<i64>().is_ok_and(|number| (least..=most).contains(&number)) {
                expected(&format!("a number from {least} to {most}"));
            }
        }
        (Shape::Duration, Value::Scalar(_)) => drop(reader.value(node, path, super::extension::duration)),
        (Shape::OneOf(words), Value::Scalar(text)) => {
            if !words.contains(&text.as_str()) {
                expected(&format!("one of {}", words.join(", ")));
            }
        }
        (Shape::Words | Shape::OneOrMore | Shape::Dict, Value::List(items)) => {
            reader.each_once(items, path);
            items.iter().for_each(|item| drop(reader.text(item, path)));
        }
        (Shape::Command, Value::List(items)) => items.iter().for_each(|item| drop(reader.text(item, path))),
        (Shape::List(shape), Value::List(items)) => items.iter().for_each(|item| check(reader, item, path, *shape)),
        (Shape::Dict, Value::Map(entries)) => {
            for entry in entries.iter().filter(|entry| !matches!(entry.value.value, Value::Null)) {
                reader.text(&entry.value, &join(path, &entry.key));
            }
        }
        (Shape::Named(shape), Value::Map(entries)) => {
            entries.iter().for_each(|entry| check(reader, &entry.value, &join(path, &entry.key), *shape));
        }
        (Shape::Needs(level, keys), Value::Map(_)) => {
            for key in keys.iter().filter(|key| node.get(key).is_none()) {
                reader.wrong(node.place, &join(path, key), "this key is missing");
            }
            check(reader, node, path, Shape::Map(level));
        }
        (Shape::Map(level), Value::Map(entries)) => {
            for entry in entries {
                let path = join(path, &entry.key);
                match level.key(&entry.key) {
                    Some(key) => check(reader, &entry.value, &path, key.shape),
                    None if entry.key.starts_with("x-") => {}
                    None => {
                        let (message, hint) = support::unknown(level, &entry.key);
                        reader.wrong_with(entry.at, &path, message, hint);
                    }
                }
            }
        }
        (Shape::Text | Shape::Switch | Shape::Integer(..) | Shape::Duration | Shape::OneOf(_), _) => {
            expected("a single value");
        }
        (Shape::Words | Shape::List(_), _) => expected("a list"),
        (Shape::OneOrMore | Shape::Command, _) => expected("a single value or a list"),
        (Shape::Dict, _) => expected("a mapping or a list"),
        (Shape::Map(_) | Shape::Needs(..) | Shape::Named(_), _) => expected("a mapping"),
    }
}

impl Shape {
    /// Whether a value is of the kind, whatever is in it.
    fn takes(&self, value: &Value) -> bool {
        match self {
            Shape::Any => true,
            Shape::OrNothing(shape) => matches!(value, Value::Null) || shape.takes(value),
            Shape::Either(shapes) => shapes.iter().any(|shape| shape.takes(value)),
            Shape::Text | Shape::Switch | Shape::Integer(..) | Shape::Duration | Shape::OneOf(_) => {
                matches!(value, Value::Scalar(_))
            }
            Shape::Words | Shape::List(_) => matches!(value, Value::List(_)),
            Shape::OneOrMore => matches!(value, Value::Scalar(_) | Value::List(_)),
            Shape::Command => matches!(value, Value::Scalar(_) | Value::List(_) | Value::Null),
            Shape::Dict => matches!(value, Value::Map(_) | Value::List(_)),
            Shape::Map(_) | Shape::Needs(..) | Shape::Named(_) => matches!(value, Value::Map(_)),
        }
    }
}
