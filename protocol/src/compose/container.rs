//! The keys of a service that say how its containers are made.

use std::collections::BTreeMap;

use super::extension::duration;
use super::parse::{Reader, join};
use super::quantity::{memory, shown};
use super::tree::{Entry, Node, Value};
use super::{health, keys, secrets, service, support, volumes};
use crate::model::ServiceSpec;
use crate::model::container::{
    CAPABILITIES, Container, DeviceFile, OPTIONS_MAX, Seccomp, Tmpfs, ULIMITS, Ulimit, path_fault, sysctl_fault,
};

/// Takes what is a container's out of a service.
pub fn read(reader: &mut Reader, level: &mut BTreeMap<&'static str, Entry>, path: &str, service: &mut ServiceSpec) {
    let mut container = Container::default();
    let mut take = |key: &str| level.remove(key).map(|entry| (entry.value, join(path, key)));
    if let Some((node, path)) = take("entrypoint") {
        container.entrypoint = Some(service::command(reader, node, &path));
    }
    if let Some((node, path)) = take("working_dir") {
        container.working_dir = reader.value(&node, &path, absolute);
    }
    if let Some((node, path)) = take("user") {
        let read = |text: &str| match text.is_empty() || text.starts_with(':') {
            true => Err("a user is written as NAME, NUMBER or USER:GROUP".to_string()),
            false => Ok(text.to_string()),
        };
        container.user = reader.value(&node, &path, read);
    }
    if let Some((node, path)) = take("group_add") {
        container.group_add = reader.words(node, &path, OPTIONS_MAX);
    }
    for (key, field) in [
        ("read_only", &mut container.read_only),
        ("init", &mut container.init),
        ("privileged", &mut container.privileged),
        ("tty", &mut container.tty),
        ("stdin_open", &mut container.stdin_open),
    ] {
        if let Some((node, path)) = take(key) {
            *field = reader.value(&node, &path, switch).unwrap_or_default();
        }
    }
    for (key, field) in [("cap_add", &mut container.cap_add), ("cap_drop", &mut container.cap_drop)] {
        if let Some((node, path)) = take(key) {
            let all = reader.items(node, &path, OPTIONS_MAX);
            reader.each_once(&all, &path);
            *field = all.iter().filter_map(|item| reader.value(item, &path, capability)).collect();
        }
    }
    if let Some((node, path)) = take("tmpfs") {
        let all = match node.value {
            Value::Scalar(_) => vec![node],
            _ => reader.items(node, &path, OPTIONS_MAX),
        };
        reader.each_once(&all, &path);
        container.tmpfs = all.iter().filter_map(|item| reader.value(item, &path, tmpfs)).collect();
    }
    if let Some((node, path)) = take("security_opt") {
        security(reader, node, &path, &mut container);
    }
    if let Some((node, path)) = take("ulimits") {
        container.ulimits = ulimits(reader, node, &path);
    }
    if let Some((node, path)) = take("sysctls") {
        container.sysctls = sysctls(reader, node, &path);
    }
    if let Some((node, path)) = take("shm_size") {
        container.shm_bytes = reader.value(&node, &path, memory);
    }
    if let Some((node, path)) = take("devices") {
        let all = reader.items(node, &path, OPTIONS_MAX);
        container.devices = all.into_iter().filter_map(|item| device_file(reader, item, &path)).collect();
    }
    if let Some((node, path)) = take("pre_stop") {
        container.pre_stop = hook(reader, node, &path);
    }
    if let Some((node, path)) = take("volumes") {
        volumes::of_service(reader, node, &path, &mut container);
    }
    for kind in [secrets::Kind::Config, secrets::Kind::Secret] {
        if let Some((node, path)) = take(if kind == secrets::Kind::Config { "configs" } else { "secrets" }) {
            container.mounts.files.extend(secrets::of_service(reader, node, &path, kind));
        }
    }
    if let Some((node, path)) = take("stop_signal") {
        let read = |text: &str| match text.chars().all(|c| c.is_ascii_alphanumeric() || "+-".contains(c)) {
            true if !text.is_empty() => Ok(text.to_string()),
            _ => Err(format!("'{}' is no signal like SIGQUIT or 3", shown(text))),
        };
        container.stop_signal = reader.value(&node, &path, read);
    }
    if let Some((node, path)) = take("healthcheck") {
        container.health = health::read(reader, node, &path);
    }
    if let Some((node, path)) = take("stop_grace_period") {
        service.stop_grace_ms = reader.value(&node, &path, duration);
    }
    if let Some((node, path)) = take("pids_limit") {
        let read = |text: &str| if text == "-1" { Ok(None) } else { service::pids(text).map(Some) };
        match reader.value(&node, &path, read).flatten() {
            Some(count) if [0, count].contains(&service.limits.get(service::PIDS)) => {
                service.limits.set(service::PIDS, count);
            }
            Some(_) => reader.wrong(node.place, &path, "deploy.resources.limits.pids says otherwise"),
            None => {}
        }
    }
    service.container = container;
}

/// `true` or `false`.
pub fn switch(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(format!("'{}' is neither true nor false", shown(other))),
    }
}

fn absolute(text: &str) -> Result<String, String> {
    path_fault(text).map_or_else(|| Ok(text.to_string()), Err)
}

/// `NET_RAW`, `CAP_NET_RAW`, in any case; `ALL`.
fn capability(text: &str) -> Result<String, String> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    if name == "ALL" || CAPABILITIES.contains(&name) {
        return Ok(name.to_string());
    }
    let near = support::nearest(&name.to_lowercase(), &CAPABILITIES.map(|one| one))
        .map(|near| format!("; did you mean {near}?"));
    Err(format!("'{}' is no capability{}", shown(text), near.unwrap_or_default()))
}

/// `/run` or `/run:size=64m,mode=755`.
fn tmpfs(text: &str) -> Result<Tmpfs, String> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let mut tmpfs = Tmpfs { path: absolute(path)?, ..Tmpfs::default() };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", size)) => tmpfs.bytes = Some(memory(size)?),
            Some(("mode", mode)) => {
                let read = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777);
                tmpfs.mode = Some(read.ok_or_else(|| format!("'{}' is no mode like 1777", shown(mode)))?);
            }
            // What every one of them is.
            None if ["rw", "nosuid", "nodev", "noexec"].contains(&option) => {}
            _ => return Err(format!("'{}' is no option of tmpfs: size=64m and mode=755 are", shown(option))),
        }
    }
    Ok(tmpfs)
}

fn security(reader: &mut Reader, node: Node, path: &str, container: &mut Container) {
    let items = reader.items(node, path, OPTIONS_MAX);
    reader.each_once(&items, path);
    for item in items {
        let Some(text) = reader.text(&item, path) else { continue };
        let (key, value) = text.split_once(['=', ':']).unwrap_or((&text, ""));
        match (key, value) {
            ("no-new-privileges", "" | "true") => container.gains_privileges = false,
            ("no-new-privileges", "false") => container.gains_privileges = true,
            ("seccomp", "unconfined") => container.seccomp = Seccomp::Unconfined,
            ("seccomp", file) if !file.is_empty() => container.seccomp = Seccomp::File(file.into()),
            ("apparmor" | "label" | "systempaths" | "credentialspec", _) => {
                reader.wrong(item.place, path, format!("{key} is not honoured by Rialto"));
            }
            _ => {
                let hint = "write seccomp=FILE, seccomp=unconfined or no-new-privileges:true";
                let message = format!("'{}' is no security option", shown(&text));
                reader.wrong_with(item.place, path, message, Some(hint.into()));
            }
        }
    }
}

fn ulimits(reader: &mut Reader, node: Node, path: &str) -> BTreeMap<String, Ulimit> {
    let mut limits = BTreeMap::new();
    for entry in reader.map(node, path).unwrap_or_default() {
        let path = join(path, &entry.key);
        if !ULIMITS.contains(&entry.key.as_str()) {
            reader.wrong(entry.at, &path, format!("no such limit; there are {}", ULIMITS.join(", ")));
            continue;
        }
        let read = |text: &str| match text {
            "-1" | "unlimited" => Ok(u64::MAX),
            number => number.parse().map_err(|_| format!("'{}' is no limit: a number, or -1 for none", shown(number))),
        };
        let place = entry.value.place;
        let limit = match entry.value.value {
            Value::Map(_) => {
                let Some(mut level) = reader.level(entry.value, &path, &keys::ULIMIT) else { continue };
                let mut one = |key: &str| {
                    let entry = level.remove(key)?;
                    reader.value(&entry.value, &join(&path, key), read)
                };
                match (one("soft"), one("hard")) {
                    (Some(soft), Some(hard)) => Some(Ulimit { soft, hard }),
                    _ => {
                        reader.wrong(place, &path, "both soft and hard are needed");
                        None
                    }
                }
            }
            _ => reader.value(&entry.value, &path, read).map(|both| Ulimit { soft: both, hard: both }),
        };
        match limit {
            Some(limit) if limit.soft > limit.hard => {
                reader.wrong(place, &path, "the soft limit is above the hard one")
            }
            Some(limit) => drop(limits.insert(entry.key, limit)),
            None => {}
        }
    }
    limits
}

/// A mapping, or a list of `NAME=VALUE`.
fn sysctls(reader: &mut Reader, node: Node, path: &str) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::new();
    let mut add = |reader: &mut Reader, at, name: &str, value: String| match sysctl_fault(name) {
        Some(message) => reader.wrong(at, path, message),
        None => drop(settings.insert(name.to_string(), value)),
    };
    match node.value {
        Value::Map(_) => {
            for entry in reader.map(node, path).unwrap_or_default() {
                if let Some(value) = reader.text(&entry.value, path) {
                    add(reader, entry.at, &entry.key, value);
                }
            }
        }
        _ => {
            let items = reader.items(node, path, OPTIONS_MAX);
            reader.each_once(&items, path);
            for item in items {
                let Some(text) = reader.text(&item, path) else { continue };
                match text.split_once('=') {
                    Some((name, value)) => add(reader, item.place, name, value.to_string()),
                    None => reader.wrong(item.place, path, "a setting is written as NAME=VALUE"),
                }
            }
        }
    }
    settings
}

/// A device in the short form or the long one.
fn device_file(reader: &mut Reader, node: Node, path: &str) -> Option<DeviceFile> {
    if let Value::Scalar(_) = node.value {
        return reader.value(&node, path, device);
    }
    let place = node.place;
    let mut level = reader.level(node, path, &keys::DEVICE_FILE)?;
    let mut part = |key: &'static str| {
        let entry = level.remove(key)?;
        reader.text(&entry.value, &join(path, key))
    };
    let (source, target, access) = (part("source"), part("target"), part("permissions"));
    let Some(source) = source else {
        reader.wrong(place, path, "the device has no source");
        return None;
    };
    let target = target.unwrap_or_else(|| source.clone());
    let text = format!("{source}:{target}:{}", access.as_deref().unwrap_or("rwm"));
    device(&text).map_err(|message| reader.wrong(place, path, message)).ok()
}

/// Compose's hooks: one, and of that the command.
fn hook(reader: &mut Reader, node: Node, path: &str) -> Option<Vec<String>> {
    let place = node.place;
    let mut hooks = reader.items(node, path, OPTIONS_MAX);
    if hooks.len() > 1 {
        reader.wrong(place, path, "only one hook is run; write what is to be done into one command");
        return None;
    }
    let mut level = reader.level(hooks.pop()?, path, &keys::HOOK)?;
    let Some(command) = level.remove("command") else {
        reader.wrong(place, path, "the hook has no command");
        return None;
    };
    Some(service::command(reader, command.value, &join(path, "command")))
}

/// `/dev/A`, `/dev/A:/dev/B` or `/dev/A:/dev/B:rwm`.
fn device(text: &str) -> Result<DeviceFile, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let wrong = || format!("'{}' is no device: write /dev/A, /dev/A:/dev/B or /dev/A:/dev/B:rw", shown(text));
    let (host, container, access) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, access] if !access.starts_with('/') => (host, host, access),
        [host, container] => (host, container, "rwm"),
        [host, container, access] => (host, container, access),
        _ => return Err(wrong()),
    };
    if !host.starts_with("/dev/") || access.is_empty() || access.contains(|c| !"rwm".contains(c)) {
        return Err(wrong());
    }
    Ok(DeviceFile { host: absolute(host)?, container: absolute(container)?, access: access.into() })
}
