//! From files to one tree: they are read, filled in, extended, joined, and what is in no active profile is left out.

use std::collections::BTreeSet;

use super::interpolate::{self, Fault, Told};
use super::parse::{Reader, join};
use super::quantity::shown;
use super::surroundings::{Source, Unread};
use super::tree::{self, Entry, Node, Place, Value};
use super::{FILE_BYTES_MAX, dotenv, extends, keys, merge};

/// The most files of one app, with those that are included and extended.
pub const FILES_MAX: usize = 64;
/// How deep files include files.
const DEPTH_MAX: usize = 8;

/// One tree of several files, the later over the earlier. `None` where there is none, which is noted.
pub fn load(reader: &mut Reader, sources: Vec<Source>) -> Option<Node> {
    // Paths are taken from beside the first file, as Compose does.
    let base = sources.first()?.name.clone();
    let files: Vec<(u16, String)> =
        sources.into_iter().map(|source| (reader.add_file(source.name, base.clone()), source.text)).collect();
    let env_files = reader.env_files();
    variables(reader, &base, &env_files);
    let mut root = project(reader, files, 0)?;
    leave_out(reader, &mut root)?;
    merge::settle(&mut root);
    Some(root)
}

/// Files that are one app, or one that is included.
fn project(reader: &mut Reader, files: Vec<(u16, String)>, depth: usize) -> Option<Node> {
    let mut whole: Option<Node> = None;
    for (file, text) in files {
        let mut root = read(reader, &text, file)?;
        let extended = extends::extend(reader, &mut root, file);
        let included = include(reader, &mut root, depth);
        extended?;
        included?;
        whole = Some(match whole {
            Some(base) => merge::merge(base, root, &mut Vec::new()),
            None => root,
        });
    }
    whole
}

/// The tree of one file, with its variables filled in.
pub fn read(reader: &mut Reader, text: &str, file: u16) -> Option<Node> {
    let start = Place { file, line: 1, column: 1 };
    if text.len() > FILE_BYTES_MAX {
        reader.wrong(start, "", format!("the file is larger than {} KiB", FILE_BYTES_MAX >> 10));
        return None;
    }
    let mut root = match tree::read(text, file) {
        Ok(root) => root,
        Err(broken) => {
            reader.wrong(broken.place, "", broken.message);
            return None;
        }
    };
    match &mut root.value {
        Value::Null => {
            let hint = "the least is:\n    services:\n      web:\n        image: NAME";
            reader.wrong_with(start, "", "the file is empty", Some(hint.into()));
            return None;
        }
        Value::Map(entries) => {
            let own = entries.iter_mut().filter(|entry| !entry.key.starts_with("x-"));
            // What could not be filled in would only be called wrong once more.
            if own.map(|entry| fill(reader, &mut entry.value, &entry.key)).filter(|is_filled| !is_filled).count() > 0 {
                return None;
            }
        }
        other => {
            let kind = other.kind();
            reader.wrong(root.place, "", format!("a mapping is expected here, not {kind}"));
            return None;
        }
    }
    each_key_once(reader, &root, "");
    Some(root)
}

/// YAML has a key once; who joins files could not tell which was meant.
fn each_key_once(reader: &mut Reader, node: &Node, path: &str) {
    match &node.value {
        Value::Map(entries) => {
            let mut seen = BTreeSet::new();
            for entry in entries {
                let path = join(path, &entry.key);
                if !seen.insert(&entry.key) {
                    reader.wrong(entry.at, &path, "this key is here twice");
                }
                each_key_once(reader, &entry.value, &path);
            }
        }
        Value::List(items) => items.iter().for_each(|item| each_key_once(reader, item, path)),
        _ => {}
    }
}

/// Whether every variable could be filled in.
fn fill(reader: &mut Reader, node: &mut Node, key: &str) -> bool {
    let mut told: Vec<(Place, String, Option<&'static str>, bool)> = Vec::new();
    let mut room = reader.room;
    let look = |name: &str| reader.variable(name);
    interpolate::tree(node, &look, &mut room, &mut |node, what| {
        told.push(match what {
            Told::Unset(name) => {
                (node.place, format!("the variable {} is not set, and taken for empty", shown(name)), None, false)
            }
            Told::Fault(Fault::Malformed) => {
                let hint = "write $NAME, ${NAME} or ${NAME:-default}; $$ is a dollar sign that the task shall see";
                (node.place, "a $ begins no variable".into(), Some(hint), true)
            }
            Told::Fault(Fault::TooDeep) => (node.place, "defaults are nested too deeply".into(), None, true),
            Told::Fault(Fault::Required { name, message }) => {
                let because = if message.is_empty() { "it is not set" } else { message.as_str() };
                let hint = "set it in the shell, or in a file .env beside this one";
                (node.place, format!("the variable {} is needed: {}", shown(name), shown(because)), Some(hint), true)
            }
            Told::TooMuch => (node.place, "the values of the file are too long in all".into(), None, true),
        });
    });
    reader.room = room;
    let is_filled = told.iter().all(|(.., is_wrong)| !is_wrong);
    for (place, message, hint, is_wrong) in told {
        let path = path_to(node, place, key).unwrap_or_else(|| key.into());
        match is_wrong {
            true => reader.wrong_with(place, &path, message, hint.map(Into::into)),
            false => reader.warn(place, &path, message),
        }
    }
    is_filled
}

/// The path of the value that stands at a place.
fn path_to(node: &Node, place: Place, path: &str) -> Option<String> {
    match &node.value {
        Value::Map(entries) => entries.iter().find_map(|entry| path_to(&entry.value, place, &join(path, &entry.key))),
        Value::List(items) => items.iter().find_map(|item| path_to(item, place, path)),
        _ => (node.place == place).then(|| path.into()),
    }
}

/// Reads what `.env`, or the files named in its place, set.
fn variables(reader: &mut Reader, base: &str, files: &[String]) {
    let named: Vec<(&str, bool)> = match files {
        [] => vec![(".env", false)],
        files => files.iter().map(|file| (file.as_str(), true)).collect(),
    };
    for (path, is_named) in named {
        let from = if is_named { "" } else { base };
        let file = match reader.surroundings().read(from, path) {
            Ok(source) => source,
            Err(Unread::Missing) if !is_named => continue,
            Err(unread) => {
                let file = reader.add_file(path.into(), base.into());
                reader.wrong(Place { file, line: 1, column: 1 }, "", told(&unread));
                continue;
            }
        };
        let Some(read) = env_file(reader, file, false) else { continue };
        let set = read.into_iter().filter_map(|(name, value)| Some((name, value?)));
        reader.set(set.collect());
    }
}

/// The variables of a file; `None` where it says nothing, which is noted.
pub fn env_file(reader: &mut Reader, source: Source, raw: bool) -> Option<Vec<dotenv::Variable>> {
    let read = match source.text.len() > FILE_BYTES_MAX {
        true => {
            Err(dotenv::Broken { line: 1, message: format!("the file is larger than {} KiB", FILE_BYTES_MAX >> 10) })
        }
        false => dotenv::parse(&source.text, raw, &|name| reader.variable(name)),
    };
    match read {
        Ok(read) => Some(read),
        Err(broken) => {
            let file = reader.add_file(source.name.clone(), source.name);
            reader.wrong(Place { file, line: broken.line, column: 1 }, "", broken.message);
            None
        }
    }
}

pub fn told(unread: &Unread) -> String {
    match unread {
        Unread::Missing => "there is no such file".into(),
        Unread::Failed(why) => why.clone(),
    }
}

/// Adds the parts of the files that a file includes. What it names itself goes before nothing: both is refused.
fn include(reader: &mut Reader, root: &mut Node, depth: usize) -> Option<()> {
    let Some(Entry { at, value, .. }) = root.take("include") else { return Some(()) };
    if depth == DEPTH_MAX {
        reader.wrong(at, "include", "files include each other too deeply");
        return None;
    }
    let items = reader.items(value, "include", FILES_MAX);
    for item in items {
        let place = item.place;
        let (paths, env_files) = match item.value {
            Value::Scalar(_) => (vec![reader.text(&item, "include")?], Vec::new()),
            _ => {
                let mut level = reader.level(item, "include", &keys::INCLUDE)?;
                let mut texts = |reader: &mut Reader, key: &'static str| match level.remove(key) {
                    Some(entry) => reader.one_or_more(entry.value, &join("include", key)),
                    None => Vec::new(),
                };
                (texts(reader, "path"), texts(reader, "env_file"))
            }
        };
        if paths.is_empty() {
            reader.wrong(place, "include", "the path is missing");
            continue;
        }
        let mut files = Vec::new();
        let mut base = None;
        for path in paths {
            let Some(source) = reader.read_beside(place, &path, "include") else { continue };
            let base = base.get_or_insert_with(|| source.name.clone()).clone();
            if reader.files() >= FILES_MAX {
                reader.wrong(place, "include", format!("an app is made of at most {FILES_MAX} files"));
                return None;
            }
            files.push((reader.add_file(source.name, base), source.text));
        }
        let Some(base) = base else { continue };
        // What the including file knows goes over what stands beside the included one.
        let outer = reader.variables();
        if env_files.is_empty() {
            variables(reader, &base, &[]);
        }
        for path in env_files {
            if let Some(source) = reader.read_beside(place, &path, "include")
                && let Some(read) = env_file(reader, source, false)
            {
                reader.set(read.into_iter().filter_map(|(name, value)| Some((name, value?))).collect());
            }
        }
        reader.set(outer.clone());
        let included = project(reader, files, depth + 1);
        reader.replace_variables(outer);
        add(reader, root, included?, place);
    }
    Some(())
}

/// Adds what an included file holds, part by part.
fn add(reader: &mut Reader, root: &mut Node, included: Node, place: Place) {
    let (Value::Map(entries), Value::Map(theirs)) = (&mut root.value, included.value) else { return };
    for Entry { key, at, value } in theirs {
        let Value::Map(parts) = value.value else {
            // An included file's name is its own.
            continue;
        };
        let slot = match entries.iter().position(|entry| entry.key == key) {
            Some(slot) => slot,
            None => {
                entries.push(Entry { key, at, value: Node { place, value: Value::Map(Vec::new()) } });
                entries.len() - 1
            }
        };
        let key = entries[slot].key.clone();
        let Value::Map(ours) = &mut entries[slot].value.value else { continue };
        for part in parts {
            // The app's own network is declared by everybody.
            if ours.iter().any(|known| known.key == part.key) && key != "networks" {
                let message = "an included file has it already";
                let hint = "name this one otherwise, or change the other by a second -f";
                reader.wrong_with(place, &join(&key, &part.key), message, Some(hint.into()));
            } else {
                ours.push(part);
            }
        }
    }
}

/// Leaves out the services that are in no active profile; `None` where nothing is left.
fn leave_out(reader: &mut Reader, root: &mut Node) -> Option<()> {
    let active = reader.profiles();
    let place = root.place;
    let Value::Map(top) = &mut root.value else { return Some(()) };
    let services = top.iter_mut().find(|entry| entry.key == "services").map(|entry| &mut entry.value.value);
    let Some(Value::Map(services)) = services else { return Some(()) };
    let count = services.len();
    let mut named: Vec<String> = Vec::new();
    services.retain(|entry| {
        let Some(Value::List(items)) = entry.value.get("profiles").map(|node| &node.value) else { return true };
        let names: Vec<&str> = items.iter().filter_map(Node::scalar).collect();
        named.extend(names.iter().map(|name| shown(name)));
        names.is_empty() || active.iter().any(|active| active == "*" || names.contains(&active.as_str()))
    });
    if count > 0 && services.is_empty() {
        named.sort();
        named.dedup();
        named.truncate(10);
        let hint = format!("name one by --profile: {}", named.join(", "));
        reader.wrong_with(place, "services", "every service is in a profile, and none of these is active", Some(hint));
        return None;
    }
    Some(())
}
