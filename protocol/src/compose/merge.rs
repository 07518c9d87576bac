//! Putting two files together, as Compose does: what is single is replaced, mappings are joined key by key, lists one behind
//! the other, with an entry that means the same thing only once; and a few keys have rules of their own.

use std::collections::BTreeSet;

use super::tree::{Entry, Node, Value};

/// How what stands at a path is joined.
enum Rule {
    Usual,
    Replace,
    /// `NAME=VALUE` in a list or a mapping: by name.
    Dict,
    /// Names in a list, or a mapping from them: by name, and what a name alone means.
    Names(fn(&Node) -> Value),
    /// A list in which an entry of the same identity gives way.
    Unique(fn(&Node) -> Option<String>),
    /// A single value is a list of one.
    Sequence,
    /// Another `driver` starts anew.
    ByDriver,
}

/// `over` goes over `base`. `path` leads from the top of the file.
pub fn merge(base: Node, over: Node, path: &mut Vec<String>) -> Node {
    let place = over.place;
    let keys: Vec<&str> = path.iter().map(String::as_str).collect();
    match (base.value, over.value, rule(&keys)) {
        (_, Value::Override(value), _) => Node { place, value: *value },
        (base_value, Value::Null, _) => Node { place: base.place, value: base_value },
        (Value::Null, value, _) | (_, value, Rule::Replace) => Node { place, value },
        (one, other, Rule::Dict) => join_maps(base.place, place, dict(one), dict(other), path),
        (one, other, Rule::Names(alone)) => join_maps(base.place, place, names(one, alone), names(other, alone), path),
        (Value::List(one), Value::List(other), Rule::Unique(identity)) => {
            let gone: BTreeSet<String> = other.iter().filter_map(identity).collect();
            let kept = one.into_iter().filter(|item| identity(item).is_none_or(|id| !gone.contains(&id)));
            Node { place, value: Value::List(kept.chain(other).collect()) }
        }
        (one, other, Rule::Sequence) => {
            let (one, other) = (sequence(base.place, one), sequence(place, other));
            joined_lists(place, one, other)
        }
        (Value::Map(one), Value::Map(other), Rule::ByDriver) => {
            let driver = |entries: &[Entry]| {
                entries
                    .iter()
                    .find(|entry| entry.key == "driver")
                    .and_then(|entry| entry.value.scalar().map(str::to_string))
            };
            match (driver(&one), driver(&other)) {
                (Some(a), Some(b)) if a != b => Node { place, value: Value::Map(other) },
                _ => join_maps(base.place, place, Value::Map(one), Value::Map(other), path),
            }
        }
        (Value::List(one), Value::List(other), _) => joined_lists(place, one, other),
        (Value::Map(one), Value::Map(other), _) => {
            join_maps(base.place, place, Value::Map(one), Value::Map(other), path)
        }
        (_, value, _) => Node { place, value },
    }
}

/// Removes what is left of `!reset` and `!override` when there is nothing more to join.
pub fn settle(node: &mut Node) {
    match &mut node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::Reset => node.value = Value::Null,
        Value::Override(value) => {
            node.value = std::mem::replace(value, Value::Null);
            settle(node);
        }
        Value::List(items) => items.iter_mut().for_each(settle),
        Value::Map(entries) => {
            entries.retain(|entry| !matches!(entry.value.value, Value::Reset));
            entries.iter_mut().for_each(|entry| settle(&mut entry.value));
        }
    }
}

fn rule(path: &[&str]) -> Rule {
    match path {
        ["services", _, rest @ ..] => match rest {
            ["command" | "entrypoint" | "extends" | "provider"] | ["healthcheck", "test"] => Rule::Replace,
            ["environment" | "labels" | "annotations" | "sysctls" | "storage_opt"] => Rule::Dict,
            ["deploy", "labels"] | ["build", "args" | "labels" | "additional_contexts"] => Rule::Dict,
            ["depends_on"] => Rule::Names(started),
            ["networks" | "models"] => Rule::Names(|_| Value::Null),
            ["ports"] => Rule::Unique(port),
            ["volumes"] => Rule::Unique(target),
            ["devices"] => Rule::Unique(target),
            ["secrets" | "configs"] => Rule::Unique(source),
            ["env_file" | "label_file" | "dns" | "dns_opt" | "dns_search" | "tmpfs"] => Rule::Sequence,
            ["logging"] => Rule::ByDriver,
            [
                "expose"
                | "cap_add"
                | "cap_drop"
                | "group_add"
                | "security_opt"
                | "links"
                | "external_links"
                | "volumes_from"
                | "profiles"
                | "device_cgroup_rules",
            ] => Rule::Unique(|node| node.scalar().map(str::to_string)),
            _ => Rule::Usual,
        },
        [_, _, "labels"] => Rule::Dict,
        _ => Rule::Usual,
    }
}

fn joined_lists(place: super::tree::Place, one: Vec<Node>, other: Vec<Node>) -> Node {
    Node { place, value: Value::List(one.into_iter().chain(other).collect()) }
}

/// Keys keep the order in which they were seen first.
fn join_maps(
    base: super::tree::Place,
    place: super::tree::Place,
    one: Value,
    other: Value,
    path: &mut Vec<String>,
) -> Node {
    let (mut entries, other) = match (one, other) {
        (Value::Map(one), Value::Map(other)) => (one, other),
        // One of them could not be read as a mapping: whoever reads what is left says so.
        (_, other) => return Node { place, value: other },
    };
    for entry in other {
        let at = entries.iter().position(|known| known.key == entry.key);
        match (at, &entry.value.value) {
            (Some(at), Value::Reset) => drop(entries.remove(at)),
            (Some(at), _) => {
                let known = entries.remove(at);
                path.push(entry.key.clone());
                let value = merge(known.value, entry.value, path);
                path.pop();
                entries.insert(at, Entry { value, ..entry });
            }
            (None, _) => entries.push(entry),
        }
    }
    // Where both are at fault, the first file is looked at first.
    Node { place: base.min(place), value: Value::Map(entries) }
}

/// A list of `NAME=VALUE` as a mapping; anything else as it is.
fn dict(value: Value) -> Value {
    let Value::List(items) = value else { return value };
    if items.iter().any(|item| item.scalar().is_none()) {
        return Value::List(items);
    }
    let entries = items.into_iter().map(|item| {
        let text = item.scalar().unwrap_or_default();
        let (key, value) = match text.split_once('=') {
            Some((key, value)) => (key.to_string(), Value::Scalar(value.to_string())),
            None => (text.to_string(), Value::Null),
        };
        Entry { key, at: item.place, value: Node { place: item.place, value } }
    });
    Value::Map(entries.collect())
}

/// A list of names as a mapping from them; anything else as it is.
fn names(value: Value, alone: fn(&Node) -> Value) -> Value {
    let Value::List(items) = value else { return value };
    if items.iter().any(|item| item.scalar().is_none()) {
        return Value::List(items);
    }
    let entries = items.into_iter().map(|item| {
        let key = item.scalar().unwrap_or_default().to_string();
        Entry { key, at: item.place, value: Node { place: item.place, value: alone(&item) } }
    });
    Value::Map(entries.collect())
}

/// What a name alone means in `depends_on`.
fn started(name: &Node) -> Value {
    let condition = Node { place: name.place, value: Value::Scalar("service_started".into()) };
    Value::Map(vec![Entry { key: "condition".into(), at: name.place, value: condition }])
}

fn sequence(place: super::tree::Place, value: Value) -> Vec<Node> {
    match value {
        Value::List(items) => items,
        Value::Null => Vec::new(),
        value => vec![Node { place, value }],
    }
}

/// What makes two ports the same: everything but their names and modes.
fn port(node: &Node) -> Option<String> {
    match &node.value {
        Value::Scalar(text) => {
            let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
            Some(format!("{numbers}/{protocol}"))
        }
        Value::Map(_) => {
            let text = |key: &str| node.get(key).and_then(Node::scalar);
            let published = text("published").map(|port| format!("{port}:")).unwrap_or_default();
            Some(format!("{published}{}/{}", text("target")?, text("protocol").unwrap_or("tcp")))
        }
        _ => None,
    }
}

/// Where in the container it is: `source:target`, `target` or `target:` in the long form.
fn target(node: &Node) -> Option<String> {
    match &node.value {
        Value::Scalar(text) => {
            let mut parts = text.split(':');
            let first = parts.next()?;
            Some(parts.next().filter(|second| second.starts_with('/')).unwrap_or(first).to_string())
        }
        _ => node.get("target").and_then(Node::scalar).map(str::to_string),
    }
}

fn source(node: &Node) -> Option<String> {
    match &node.value {
        Value::Scalar(text) => Some(text.clone()),
        _ => node.get("target").or_else(|| node.get("source")).and_then(Node::scalar).map(str::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::tree;

    fn shown(node: &Node) -> String {
        match &node.value {
            Value::Null => "~".into(),
            Value::Scalar(text) => text.clone(),
            Value::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
            Value::Map(entries) => {
                let of = |entry: &Entry| format!("{}: {}", entry.key, shown(&entry.value));
                format!("{{{}}}", entries.iter().map(of).collect::<Vec<_>>().join(", "))
            }
            Value::Reset | Value::Override(_) => "tag".into(),
        }
    }

    fn service(base: &str, over: &str) -> String {
        let read = |body: &str| tree::read(&format!("services: {{web: {body}}}"), 0).unwrap();
        let mut merged = merge(read(base), read(over), &mut Vec::new());
        settle(&mut merged);
        shown(merged.get("services").unwrap().get("web").unwrap())
    }

    #[test]
    fn files_are_joined_by_composes_rules() {
        for (base, over, want) in [
            ("{image: a, user: x}", "{image: b}", "{image: b, user: x}"),
            ("{command: [a, b]}", "{command: [c]}", "{command: [c]}"),
            (
                "{healthcheck: {test: [CMD, a], retries: 1}}",
                "{healthcheck: {test: [CMD, b]}}",
                "{healthcheck: {test: [CMD, b], retries: 1}}",
            ),
            ("{environment: [A=1, B=2]}", "{environment: {B: 3, C: }}", "{environment: {A: 1, B: 3, C: ~}}"),
            (
                "{ports: ['80:80', '81:81/tcp']}",
                "{ports: ['81:81', {target: 80, published: 80, name: x}]}",
                "{ports: [81:81, {target: 80, published: 80, name: x}]}",
            ),
            ("{volumes: ['a:/x', 'b:/y']}", "{volumes: ['c:/x:ro']}", "{volumes: [b:/y, c:/x:ro]}"),
            ("{cap_add: [A, B]}", "{cap_add: [B, C]}", "{cap_add: [A, B, C]}"),
            ("{dns: a}", "{dns: [b]}", "{dns: [a, b]}"),
            ("{env_file: a}", "{env_file: b}", "{env_file: [a, b]}"),
            (
                "{depends_on: [a]}",
                "{depends_on: {b: {condition: service_healthy}}}",
                "{depends_on: {a: {condition: service_started}, b: {condition: service_healthy}}}",
            ),
            ("{networks: [a]}", "{networks: [b]}", "{networks: {a: ~, b: ~}}"),
            ("{logging: {driver: a, options: {x: 1}}}", "{logging: {driver: b}}", "{logging: {driver: b}}"),
            (
                "{logging: {driver: a, options: {x: 1}}}",
                "{logging: {options: {y: 2}}}",
                "{logging: {driver: a, options: {x: 1, y: 2}}}",
            ),
            (
                "{deploy: {replicas: 1, resources: {limits: {cpus: 1}}}}",
                "{deploy: {replicas: 2}}",
                "{deploy: {replicas: 2, resources: {limits: {cpus: 1}}}}",
            ),
            ("{user: a}", "{user: }", "{user: a}"),
            ("{ports: ['80:80'], user: a}", "{ports: !reset null, user: !reset x}", "{}"),
            ("{ports: ['80:80']}", "{ports: !reset []}", "{}"),
            (
                "{ports: ['80:80'], environment: {A: 1}}",
                "{ports: !override ['81:81'], environment: !override {B: 2}}",
                "{ports: [81:81], environment: {B: 2}}",
            ),
            ("{ulimits: {nofile: {soft: 1, hard: 2}}}", "{ulimits: {nofile: 5}}", "{ulimits: {nofile: 5}}"),
        ] {
            assert_eq!(service(base, over), want, "{base} + {over}");
        }
    }

    #[test]
    fn one_file_alone_may_say_it_too() {
        let mut node = tree::read("a: !reset 1\nb: !override [x]\nc: {d: !reset {e: 1}}\n", 0).unwrap();
        settle(&mut node);
        assert_eq!(shown(&node), "{b: [x], c: {}}");
    }
}
