//! `volumes:`, at the top of a file and of a service: named volumes, folders of the machine, memory.

use std::collections::BTreeMap;

use super::container::switch;
use super::keys::{self, Level};
use super::parse::{Reader, join};
use super::quantity::{memory, shown};
use super::secrets::mode;
use super::tree::{Entry, Node, Value};
use crate::model::Container;
use crate::model::container::{OPTIONS_MAX, Tmpfs, path_fault};
use crate::model::volume::{Bind, Named, VolumeMount, name_fault};

/// Reads the volumes at the top of the file: what the file calls them, and what the cluster does.
pub fn top(reader: &mut Reader, node: Node) -> BTreeMap<String, Named> {
    let mut volumes = BTreeMap::new();
    for Entry { key, at, value } in reader.map(node, "volumes").unwrap_or_default() {
        let path = join("volumes", &key);
        let mut level = match value.value {
            Value::Null => BTreeMap::new(),
            _ => match reader.level(value, &path, &keys::VOLUME) {
                Some(level) => level,
                None => continue,
            },
        };
        let named = named(reader, &key, &path, &mut level);
        if let Some(fault) = name_fault(&key) {
            reader.wrong(at, &path, fault);
        } else if let Some(named) = named {
            volumes.insert(key, named);
        }
    }
    volumes
}

/// `external` and `name` of something that the cluster has a name for.
pub fn named(reader: &mut Reader, key: &str, path: &str, level: &mut BTreeMap<&'static str, Entry>) -> Option<Named> {
    // Older files name it there: `external: {name: films}`.
    let (external, inner) = match level.remove("external") {
        Some(Entry { value, .. }) if matches!(value.value, Value::Map(_)) => {
            let mut inner = reader.level(value, &join(path, "external"), &keys::VOLUME_EXTERNAL)?;
            (true, inner.remove("name"))
        }
        Some(entry) => (reader.value(&entry.value, &join(path, "external"), switch)?, None),
        None => (false, None),
    };
    let own = match level.remove("name").or(inner) {
        Some(entry) => {
            let read = |text: &str| name_fault(text).map_or_else(|| Ok(text.to_string()), Err);
            Some(reader.value(&entry.value, &join(path, "name"), read)?)
        }
        None => None,
    };
    Some(match (own, external) {
        (Some(name), external) => Named::Shared { name, external },
        (None, true) => Named::Shared { name: key.to_string(), external },
        (None, false) => Named::Own(key.to_string()),
    })
}

/// Reads the mounts of a service.
pub fn of_service(reader: &mut Reader, node: Node, path: &str, container: &mut Container) {
    let items = reader.items(node, path, OPTIONS_MAX);
    reader.each_once(&items, path);
    for item in items {
        match item.value {
            Value::Map(_) => long(reader, item, path, container),
            _ => {
                let known = reader.volumes.clone();
                if let Some(mount) = reader.value(&item, path, |text| short(text, &known)) {
                    mount.put(container);
                }
            }
        }
    }
}

enum Mount {
    Volume(VolumeMount),
    Bind(Bind),
    Tmpfs(Tmpfs),
}

impl Mount {
    fn put(self, container: &mut Container) {
        match self {
            Mount::Volume(volume) => container.mounts.volumes.push(volume),
            Mount::Bind(bind) => container.mounts.binds.push(bind),
            Mount::Tmpfs(tmpfs) => container.tmpfs.push(tmpfs),
        }
    }
}

fn absolute(text: &str) -> Result<String, String> {
    path_fault(text).map_or_else(|| Ok(text.to_string()), Err)
}

fn host_path(text: &str) -> Result<String, String> {
    if text.starts_with(['.', '~']) {
        let message = format!("'{}' is a path beside this file, and the task may run on any machine", shown(text));
        return Err(format!("{message}: name a volume, or an absolute path that machines have and allow"));
    }
    absolute(text)
}

fn known_volume(name: &str, known: &BTreeMap<String, Named>) -> Result<Named, String> {
    let missing = || format!("'{}' is none of the volumes at the top of the file", shown(name));
    known.get(name).cloned().ok_or_else(missing)
}

/// `TARGET`, `SOURCE:TARGET` or `SOURCE:TARGET:MODE`.
fn short(text: &str, known: &BTreeMap<String, Named>) -> Result<Mount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(format!("'{}' is no volume: write NAME:/PATH, NAME:/PATH:ro or /PATH", shown(text))),
    };
    let path = absolute(target)?;
    let (mut read_only, mut no_copy) = (false, false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "nocopy" => no_copy = true,
            // What is so anyway, and what only SELinux knows.
            "rw" | "z" | "Z" => {}
            other => return Err(format!("'{}' is no option of a volume: ro, rw and nocopy are", shown(other))),
        }
    }
    Ok(match source {
        None => Mount::Volume(VolumeMount { path, name: None, read_only, no_copy }),
        Some(host) if host.starts_with(['/', '.', '~']) => {
            Mount::Bind(Bind { host: host_path(host)?, path, read_only, create: true })
        }
        Some(name) => Mount::Volume(VolumeMount { path, name: Some(known_volume(name, known)?), read_only, no_copy }),
    })
}

fn long(reader: &mut Reader, node: Node, path: &str, container: &mut Container) {
    let place = node.place;
    let Some(mut level) = reader.level(node, path, &keys::MOUNT) else { return };
    let mut one = |reader: &mut Reader, key: &str| {
        let entry = level.remove(key)?;
        reader.text(&entry.value, &join(path, key)).map(|text| (text, entry.value.place))
    };
    let (kind, source, target) = (one(reader, "type"), one(reader, "source"), one(reader, "target"));
    let read_only =
        level.remove("read_only").and_then(|entry| reader.value(&entry.value, &join(path, "read_only"), switch));
    let read_only = read_only.unwrap_or_default();
    let mut part = |reader: &mut Reader, key: &'static str, of: &Level| {
        let entry = level.remove(key)?;
        reader.level(entry.value, &join(path, key), of)
    };
    let mut of_volume = part(reader, "volume", &keys::MOUNT_VOLUME).unwrap_or_default();
    let mut of_bind = part(reader, "bind", &keys::MOUNT_BIND).unwrap_or_default();
    let mut of_tmpfs = part(reader, "tmpfs", &keys::MOUNT_TMPFS).unwrap_or_default();
    let Some((target, at)) = target else { return reader.wrong(place, path, "a mount needs a target") };
    let target = match absolute(&target) {
        Ok(target) => target,
        Err(message) => return reader.wrong(at, &join(path, "target"), message),
    };
    let Some((kind, _)) = kind else {
        return reader.wrong(place, path, "a mount needs a type: volume, bind or tmpfs");
    };
    let flag = |reader: &mut Reader, level: &mut BTreeMap<&'static str, Entry>, key: &str| {
        let entry = level.remove(key)?;
        reader.value(&entry.value, &join(path, key), switch)
    };
    let mount = match (kind.as_str(), source) {
        ("volume", source) => {
            let name = match source {
                None => None,
                Some((name, at)) => match known_volume(&name, &reader.volumes) {
                    Ok(named) => Some(named),
                    Err(message) => return reader.wrong(at, &join(path, "source"), message),
                },
            };
            let no_copy = flag(reader, &mut of_volume, "nocopy").unwrap_or_default();
            Mount::Volume(VolumeMount { path: target, name, read_only, no_copy })
        }
        ("bind", Some((host, at))) => match host_path(&host) {
            Ok(host) => {
                let create = flag(reader, &mut of_bind, "create_host_path").unwrap_or(true);
                Mount::Bind(Bind { host, path: target, read_only, create })
            }
            Err(message) => return reader.wrong(at, &join(path, "source"), message),
        },
        ("bind", None) => return reader.wrong(place, path, "a bind needs a source: a folder of the machine"),
        ("tmpfs", None) => {
            let size = of_tmpfs.remove("size");
            let bytes = size.and_then(|entry| reader.value(&entry.value, &join(path, "tmpfs.size"), memory));
            let permissions = of_tmpfs.remove("mode");
            let mode = permissions.and_then(|entry| reader.value(&entry.value, &join(path, "tmpfs.mode"), mode));
            Mount::Tmpfs(Tmpfs { path: target, bytes, mode })
        }
        ("tmpfs", Some((_, at))) => return reader.wrong(at, &join(path, "source"), "a tmpfs comes from nowhere"),
        (other, _) => {
            let message = format!("'{}' is no kind of mount: volume, bind and tmpfs are", shown(other));
            return reader.wrong(place, &join(path, "type"), message);
        }
    };
    mount.put(container);
}
