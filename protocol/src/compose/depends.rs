//! `depends_on`: what has to be true of other services before this one is started.

use std::collections::BTreeMap;

use super::parse::{Reader, join};
use super::tree::{Node, Place, Value};
use super::{keys, support};
use crate::model::app::DependencyFault;
use crate::model::{Condition, Dependencies, ServiceSpec};

/// The most services that one waits for.
const DEPENDENCIES_MAX: usize = 1_000;

/// Reads the short form, a list of names, or the long one. Whoever is waited for though the app need not have it
/// (`required: false`) is named in `optional`.
pub fn read(reader: &mut Reader, node: Node, path: &str) -> Dependencies {
    let place = node.place;
    let mut all = Dependencies::new();
    match node.value {
        Value::List(items) => {
            reader.each_once(&items, path);
            for item in items {
                if let Some(name) = reader.text(&item, path) {
                    reader.awaited.insert(join(path, &name), item.place);
                    all.insert(name, Condition::ServiceStarted);
                }
            }
        }
        _ => {
            for entry in reader.map(node, path).unwrap_or_default() {
                let path = join(path, &entry.key);
                reader.awaited.insert(path.clone(), entry.at);
                let Some(mut level) = reader.level(entry.value, &path, &keys::DEPENDENCY) else { continue };
                let mut condition = Condition::ServiceStarted;
                if !level.contains_key("condition") {
                    reader.wrong(entry.at, &join(&path, "condition"), "what is waited for is missing");
                }
                if let Some(said) = level.remove("condition") {
                    let read = |text: &str| {
                        let known = Condition::ALL.iter().find(|(word, _)| *word == text);
                        let words: Vec<&str> = Condition::ALL.iter().map(|(word, _)| *word).collect();
                        known.map(|(_, condition)| *condition).ok_or_else(|| support::none_of(text, &words))
                    };
                    condition = reader.value(&said.value, &join(&path, "condition"), read).unwrap_or_default();
                }
                let optional = level.remove("required").is_some_and(|said| {
                    reader.value(&said.value, &join(&path, "required"), super::container::switch) == Some(false)
                });
                if optional {
                    reader.optional.insert(entry.key.clone());
                }
                all.insert(entry.key, condition);
            }
        }
    }
    if all.len() > DEPENDENCIES_MAX {
        reader.wrong(place, path, format!("a service waits for at most {DEPENDENCIES_MAX} others"));
    }
    all
}

/// Leaves out what need not be there, and refuses names of no service and circles.
pub fn check(reader: &mut Reader, place: Place, services: &mut BTreeMap<String, ServiceSpec>) {
    let names: Vec<String> = services.keys().cloned().collect();
    let optional = std::mem::take(&mut reader.optional);
    for service in services.values_mut() {
        service.depends_on.retain(|name, _| names.contains(name) || !optional.contains(name));
    }
    let spec = crate::model::AppSpec { services: std::mem::take(services), ..Default::default() };
    let awaited = std::mem::take(&mut reader.awaited);
    if let Some(DependencyFault { service, on, message }) = spec.dependency_fault() {
        let path = format!("services.{service}.depends_on");
        let place = awaited.get(&join(&path, &on)).copied().unwrap_or(place);
        let names: Vec<&str> = names.iter().map(String::as_str).filter(|name| *name != service).collect();
        let near = support::nearest(&on, &names).filter(|near| *near != on);
        reader.wrong_with(place, &path, message, near.map(|near| format!("did you mean '{near}'?")));
    }
    *services = spec.services;
}
