//! From a tree to an app: the top of the file, and what every level shares.

use std::collections::{BTreeMap, BTreeSet};

use super::quantity::shown;
use super::support::{self, Level};
use super::tree::{self, Entry, Node, Place, Value};
use super::{AppFile, FILE_BYTES_MAX, PROBLEMS_MAX, Problem, REPLICAS_MAX, SERVICES_MAX, service};
use crate::model::app::is_dns_label;
use crate::model::{AppSpec, ServiceSpec};

/// Reads an app file. `file` is what it is called in messages.
///
/// # Errors
///
/// Every mistake that was found, in the order of the file, at most [`PROBLEMS_MAX`].
pub fn parse(text: &str, file: &str) -> Result<AppFile, Vec<Problem>> {
    let mut reader = Reader::new(file);
    let found = reader.app(text);
    reader.problems.sort_by_key(|problem| (problem.line, problem.column));
    match found {
        Some(app) if reader.problems.is_empty() => Ok(app),
        _ => Err(reader.problems),
    }
}

/// Collects what is wrong while the tree is walked.
pub struct Reader<'a> {
    file: &'a str,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub fn new(file: &'a str) -> Self {
        Self { file, problems: Vec::new() }
    }

    /// Takes note of a mistake.
    pub fn wrong(&mut self, at: Place, key: &str, message: impl Into<String>) {
        self.wrong_with(at, key, message, None);
    }

    /// Takes note of a mistake and a way out.
    pub fn wrong_with(&mut self, at: Place, key: &str, message: impl Into<String>, hint: Option<String>) {
        if self.problems.len() < PROBLEMS_MAX {
            let (line, column) = (at.line, at.column);
            let (file, key) = (self.file.to_string(), shown_path(key));
            self.problems.push(Problem { file, line, column, key, message: message.into(), hint });
        }
    }

    fn app(&mut self, text: &str) -> Option<AppFile> {
        let start = Place { line: 1, column: 1 };
        if text.len() > FILE_BYTES_MAX {
            self.wrong(start, "", format!("the file is larger than {} KiB", FILE_BYTES_MAX >> 10));
            return None;
        }
        let root = match tree::read(text) {
            Ok(root) => root,
            Err(broken) => {
                self.wrong(broken.place, "", broken.message);
                return None;
            }
        };
        if matches!(root.value, Value::Null) {
            let hint = "the least is:\n    services:\n      web:\n        image: NAME";
            self.wrong_with(start, "", "the file is empty", Some(hint.into()));
            return None;
        }
        let place = root.place;
        let mut top = self.level(root, "", &support::TOP)?;
        let name = top.remove("name").and_then(|node| self.app_name(&node.value));
        let services = match top.remove("services") {
            Some(node) => self.services(node.value),
            None => {
                self.wrong_with(place, "services", "the file names no services", Some("add a services: key".into()));
                BTreeMap::new()
            }
        };
        Some(AppFile { name, spec: AppSpec { services, single_run: false } })
    }

    fn app_name(&mut self, node: &Node) -> Option<String> {
        let name = self.text(node, "name")?;
        if name == "machine" {
            self.wrong(
                node.place,
                "name",
                "no app can be named machine: NAME.machine.rialto.internal are the machines",
            );
            return None;
        }
        if is_dns_label(&name) {
            return Some(name);
        }
        self.not_a_label(node.place, "name", "an app's name", &name);
        None
    }

    fn services(&mut self, node: Node) -> BTreeMap<String, ServiceSpec> {
        let place = node.place;
        let Some(entries) = self.map(node, "services") else { return BTreeMap::new() };
        if entries.is_empty() || entries.len() > SERVICES_MAX {
            self.wrong(place, "services", format!("an app has 1 to {SERVICES_MAX} services"));
        }
        let mut services: BTreeMap<String, ServiceSpec> = BTreeMap::new();
        for Entry { key: name, at, value } in entries {
            let path = format!("services.{name}");
            if !is_dns_label(&name) {
                self.not_a_label(at, &path, "a service's name", &name);
            }
            if let Some(service) = service::read(self, value, at, &path) {
                services.insert(name, service);
            }
        }
        let tasks: u64 = services.values().map(|service| u64::from(service.replicas)).sum();
        if tasks > u64::from(REPLICAS_MAX) {
            self.wrong(place, "services", format!("{tasks} tasks in all are more than {REPLICAS_MAX}"));
        }
        services
    }

    fn not_a_label(&mut self, at: Place, path: &str, what: &str, name: &str) {
        let message = format!("'{}' cannot be {what}: it is part of DNS names", shown(name));
        let like = label_like(name);
        let hint = match is_dns_label(&like) {
            true => format!("write '{like}'"),
            false => "use 1 to 63 lower-case letters, digits and hyphens, without a hyphen at either end".into(),
        };
        self.wrong_with(at, path, message, Some(hint));
    }

    /// The entries of a level by key; every key that the level does not honour is refused.
    pub fn level(&mut self, node: Node, path: &str, level: &Level) -> Option<BTreeMap<&'static str, Entry>> {
        let mut known = BTreeMap::new();
        for entry in self.map(node, path)? {
            match level.honoured.iter().find(|key| **key == entry.key) {
                Some(key) => {
                    known.insert(*key, entry);
                }
                None => {
                    let (message, hint) = support::refusal(level, &entry.key);
                    self.wrong_with(entry.at, &join(path, &entry.key), message, hint);
                }
            }
        }
        Some(known)
    }

    /// The entries of a mapping; keys are unique.
    pub fn map(&mut self, node: Node, path: &str) -> Option<Vec<Entry>> {
        match node.value {
            Value::Map(entries) => {
                let mut seen = BTreeSet::new();
                for entry in &entries {
                    if !seen.insert(&entry.key) {
                        self.wrong(entry.at, &join(path, &entry.key), "this key is here twice");
                    }
                }
                drop(seen);
                Some(entries)
            }
            other => {
                self.wrong(node.place, path, format!("a mapping is expected here, not {}", other.kind()));
                None
            }
        }
    }

    /// A single value as text, with `$$` read as `$`.
    pub fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        let Value::Scalar(text) = &node.value else {
            self.wrong(node.place, path, format!("a single value is expected here, not {}", node.value.kind()));
            return None;
        };
        if text.contains('\0') {
            self.wrong(node.place, path, "a value cannot hold a NUL character");
            return None;
        }
        let mut read = String::with_capacity(text.len());
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            if c == '$' && rest.next_if_eq(&'$').is_none() {
                let hint = "write $$ for a dollar sign that the task shall see";
                let message = "variables ($NAME, ${NAME}) are not filled in yet";
                self.wrong_with(node.place, path, message, Some(hint.into()));
                return None;
            }
            read.push(c);
        }
        Some(read)
    }

    /// A single value through a reader of its own.
    pub fn value<T>(&mut self, node: &Node, path: &str, read: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text(node, path)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.wrong(node.place, path, message);
                None
            }
        }
    }
}

/// `path.key`.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_string() } else { format!("{path}.{key}") }
}

fn shown_path(path: &str) -> String {
    path.split('.').map(shown).collect::<Vec<_>>().join(".")
}

/// The DNS label that is nearest to a name: lower case, everything else a hyphen. It may be empty.
pub fn label_like(name: &str) -> String {
    let mut label = String::new();
    for c in name.chars().flat_map(char::to_lowercase) {
        match c {
            'a'..='z' | '0'..='9' => label.push(c),
            _ if label.is_empty() || label.ends_with('-') => {}
            _ => label.push('-'),
        }
        if label.len() == 63 {
            break;
        }
    }
    label.truncate(label.trim_end_matches('-').len());
    label
}
