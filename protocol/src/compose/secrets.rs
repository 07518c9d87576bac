//! `configs:` and `secrets:`, at the top of a file and of a service: files that come with the app. What a config says
//! is part of the app; what a secret says never is.

use std::collections::BTreeMap;

use super::parse::{Reader, join};
use super::quantity::shown;
use super::tree::{Entry, Node, Place, Value};
use super::{keys, volumes};
use crate::model::container::{OPTIONS_MAX, path_fault};
use crate::model::volume::{CONFIG_BYTES_MAX, Content, FileMount, Named, name_fault};

/// Where secrets lie unless a service says otherwise, as in Compose.
const SECRETS: &str = "/run/secrets/";
/// Permissions where nothing is said.
const MODE: u32 = 0o444;

/// Which of the two is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Config,
    Secret,
}

impl Kind {
    fn key(self) -> &'static str {
        match self {
            Kind::Config => "configs",
            Kind::Secret => "secrets",
        }
    }
}

/// Permissions, in octal digits.
pub fn mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| format!("'{}' is no mode like 0440", shown(text)))
}

/// Reads the definitions at the top of the file. Where a secret has to be read from is kept aside: the client sets it.
pub fn top(reader: &mut Reader, node: Node, kind: Kind) -> BTreeMap<String, Content> {
    let mut known = BTreeMap::new();
    let at_top = kind.key();
    for Entry { key, at, value } in reader.map(node, at_top).unwrap_or_default() {
        let path = join(at_top, &key);
        if let Some(fault) = name_fault(&key) {
            reader.wrong(at, &path, fault);
            continue;
        }
        let level = if kind == Kind::Config { &keys::CONFIG } else { &keys::SECRET };
        let Some(mut level) = reader.level(value, &path, level) else { continue };
        let Some(named) = volumes::named(reader, &key, &path, &mut level) else { continue };
        let mut sources = Vec::new();
        for (word, make) in [
            ("file", Content::File as fn(String) -> Content),
            ("environment", Content::Variable),
            ("content", Content::Text),
        ] {
            if let Some(entry) = level.remove(word) {
                let path = join(&path, word);
                let text = reader.text(&entry.value, &path);
                sources.extend(text.map(|text| (make(text), entry.value.place, path)));
            }
        }
        match (kind, sources.pop(), sources.is_empty()) {
            (_, _, false) => reader.wrong(at, &path, "it comes from one place: file, environment or content"),
            (_, Some(_), _) if named.is_external() => {
                reader.wrong(at, &path, "it is external: what it says is set elsewhere");
            }
            (_, None, _) if !named.is_external() => {
                reader.wrong(at, &path, "it has to come from somewhere: file, environment, or external: true");
            }
            (Kind::Config, Some((content, place, path)), _) => {
                if let Some(text) = read(reader, content, place, &path) {
                    known.insert(key, Content::Text(text));
                }
            }
            (_, source, _) => {
                if let Some((content, place, _)) = source {
                    let content = from_here(reader, content, place);
                    reader.to_set.insert(named.clone(), content);
                }
                known.insert(key, Content::Sealed(named));
            }
        }
    }
    known
}

/// What a config says. That it cannot be told is noted.
fn read(reader: &mut Reader, content: Content, place: Place, path: &str) -> Option<String> {
    let text = match content {
        Content::File(file) => reader.read_beside(place, &file, path)?.text,
        Content::Variable(name) => match reader.variable(&name) {
            Some(value) => value,
            None => {
                reader.wrong(place, path, format!("the variable {} is not set", shown(&name)));
                return None;
            }
        },
        Content::Text(text) => text,
        Content::Sealed(_) => return None,
    };
    if text.len() > CONFIG_BYTES_MAX {
        reader.wrong(place, path, format!("a config has at most {} KiB", CONFIG_BYTES_MAX >> 10));
        return None;
    }
    Some(text)
}

/// Where the client finds a secret: files by paths that do not depend on the file that names them, and what `.env` sets.
fn from_here(reader: &Reader, content: Content, place: Place) -> Content {
    match content {
        Content::File(file) => match reader.base(place).rsplit_once('/') {
            Some((folder, _)) if !file.starts_with('/') => Content::File(format!("{folder}/{file}")),
            _ => Content::File(file),
        },
        Content::Variable(name) => reader.variable(&name).map_or(Content::Variable(name), Content::Text),
        content => content,
    }
}

/// Reads what a service gets, by names or with places.
pub fn of_service(reader: &mut Reader, node: Node, path: &str, kind: Kind) -> Vec<FileMount> {
    let known = if kind == Kind::Config { reader.configs.clone() } else { reader.secrets.clone() };
    let mut files = Vec::new();
    let items = reader.items(node, path, OPTIONS_MAX);
    reader.each_once(&items, path);
    for item in items {
        let place = item.place;
        let find = |name: &str| {
            let missing = || format!("'{}' is none of the {} at the top of the file", shown(name), kind.key());
            known.get(name).cloned().map(|content| (name.to_string(), content)).ok_or_else(missing)
        };
        if !matches!(item.value, Value::Map(_)) {
            if let Some((name, content)) = reader.value(&item, path, find) {
                files.push(FileMount { path: target(kind, &name, None), content, uid: 0, gid: 0, mode: MODE });
            }
            continue;
        }
        let Some(mut level) =
            reader.level(item, path, if kind == Kind::Config { &keys::FILE } else { &keys::SECRET_FILE })
        else {
            continue;
        };
        let Some(source) = level.remove("source") else {
            reader.wrong(place, path, "a source is needed: a name from the top of the file");
            continue;
        };
        let found = reader.value(&source.value, &join(path, "source"), find);
        let wanted = level.remove("target").and_then(|entry| reader.text(&entry.value, &join(path, "target")));
        let mut number = |reader: &mut Reader, key: &str| {
            let read = |text: &str| text.parse().map_err(|_| format!("'{}' is no number of a user", shown(text)));
            level.remove(key).and_then(|entry| reader.value(&entry.value, &join(path, key), read)).unwrap_or(0)
        };
        let (uid, gid) = (number(reader, "uid"), number(reader, "gid"));
        let permissions = level.remove("mode");
        let mode = permissions.and_then(|entry| reader.value(&entry.value, &join(path, "mode"), mode));
        let Some((name, content)) = found else { continue };
        let path_inside = target(kind, &name, wanted.as_deref());
        match path_fault(&path_inside) {
            Some(fault) => reader.wrong(place, &join(path, "target"), fault),
            None => files.push(FileMount { path: path_inside, content, uid, gid, mode: mode.unwrap_or(MODE) }),
        }
    }
    files
}

fn target(kind: Kind, name: &str, wanted: Option<&str>) -> String {
    match (kind, wanted.unwrap_or(name)) {
        (_, path) if path.starts_with('/') => path.into(),
        (Kind::Secret, path) => format!("{SECRETS}{path}"),
        (Kind::Config, path) => format!("/{path}"),
    }
}

/// What the client is to set before the app is deployed, and where it reads that.
pub type ToSet = BTreeMap<Named, Content>;
