//! `extends`: a service that begins as another one, of the same file or of one beside it.

use std::collections::BTreeMap;

use super::load::FILES_MAX;
use super::parse::{Reader, join};
use super::quantity::shown;
use super::tree::{Entry, Node, Value};
use super::{keys, load, merge, support};

/// How long a chain of services may be.
const DEPTH_MAX: usize = 16;

/// Extends every service of a file. `None` where one cannot be, which is noted.
pub fn extend(reader: &mut Reader, root: &mut Node, file: u16) -> Option<()> {
    let Value::Map(top) = &root.value else { return Some(()) };
    let Some(services) = top.iter().find(|entry| entry.key == "services") else { return Some(()) };
    let Value::Map(entries) = &services.value.value else { return Some(()) };
    if entries.iter().all(|entry| entry.value.get("extends").is_none()) {
        return Some(());
    }
    let mut files = Files { roots: BTreeMap::from([(file, root.clone())]), by_name: BTreeMap::new() };
    let mut whole = Vec::new();
    for entry in entries {
        let value = files.service(reader, file, entry, &mut Vec::new())?;
        whole.push(Entry { value, ..entry.clone() });
    }
    if let Value::Map(top) = &mut root.value
        && let Some(services) = top.iter_mut().find(|entry| entry.key == "services")
    {
        services.value.value = Value::Map(whole);
    }
    Some(())
}

/// The files that are extended from, each read once.
struct Files {
    roots: BTreeMap<u16, Node>,
    by_name: BTreeMap<String, u16>,
}

impl Files {
    /// The service as it is when everything that it extends is in it. `chain` are those that lead here.
    fn service(
        &mut self,
        reader: &mut Reader,
        file: u16,
        entry: &Entry,
        chain: &mut Vec<(u16, String)>,
    ) -> Option<Node> {
        let mut own = entry.value.clone();
        let Some(extends) = own.take("extends") else { return Some(own) };
        let path = join("services", &join(&entry.key, "extends"));
        let link = (file, entry.key.clone());
        if chain.contains(&link) || chain.len() == DEPTH_MAX {
            let names: Vec<String> = chain.iter().chain([&link]).map(|(_, name)| shown(name)).collect();
            let message = match chain.contains(&link) {
                true => format!("services extend each other in a circle: {}", names.join(" -> ")),
                false => format!("more than {DEPTH_MAX} services extend each other: {}", names.join(" -> ")),
            };
            reader.wrong(extends.at, &path, message);
            return None;
        }
        let (name, other) = meant(reader, &extends, &path)?;
        let from = match other {
            Some(other) => self.open(reader, &extends, &other, &path)?,
            None => file,
        };
        let services = self.roots.get(&from)?.get("services");
        let found = match services.map(|services| &services.value) {
            Some(Value::Map(entries)) => entries.iter().find(|entry| entry.key == name).cloned(),
            _ => None,
        };
        let Some(found) = found else {
            let names: Vec<&str> = match services.map(|services| &services.value) {
                Some(Value::Map(entries)) => entries.iter().map(|entry| entry.key.as_str()).collect(),
                _ => Vec::new(),
            };
            let hint = support::nearest(&name, &names).map(|near| format!("did you mean '{near}'?"));
            reader.wrong_with(extends.at, &path, format!("there is no service {} to extend", shown(&name)), hint);
            return None;
        };
        chain.push(link);
        let base = self.service(reader, from, &found, chain);
        chain.pop();
        let base = base?;
        let weight = base.value.weight();
        if weight > reader.copies {
            reader.wrong(extends.at, &path, "services that are extended say too much in all");
            return None;
        }
        reader.copies -= weight;
        Some(merge::merge(base, own, &mut vec!["services".into(), entry.key.clone()]))
    }

    fn open(&mut self, reader: &mut Reader, extends: &Entry, other: &str, path: &str) -> Option<u16> {
        let source = reader.read_beside(extends.value.place, other, path)?;
        if let Some(known) = self.by_name.get(&source.name) {
            return Some(*known);
        }
        if reader.files() >= FILES_MAX {
            reader.wrong(extends.at, path, format!("an app is made of at most {FILES_MAX} files"));
            return None;
        }
        // Its own paths are taken from beside it.
        let file = reader.add_file(source.name.clone(), source.name.clone());
        let root = load::read(reader, &source.text, file)?;
        self.by_name.insert(source.name, file);
        self.roots.insert(file, root);
        Some(file)
    }
}

/// Which service is meant, and of which file.
fn meant(reader: &mut Reader, extends: &Entry, path: &str) -> Option<(String, Option<String>)> {
    if let Value::Scalar(_) = extends.value.value {
        return Some((reader.text(&extends.value, path)?, None));
    }
    let mut level = reader.level(extends.value.clone(), path, &keys::EXTENDS)?;
    let file = level.remove("file").and_then(|entry| reader.text(&entry.value, &join(path, "file")));
    let Some(service) = level.remove("service") else {
        reader.wrong(extends.at, &join(path, "service"), "the service that is extended is missing");
        return None;
    };
    Some((reader.text(&service.value, &join(path, "service"))?, file))
}
