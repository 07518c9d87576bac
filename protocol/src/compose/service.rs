//! One service of an app file.

use super::parse::{Reader, join};
use super::quantity::{self, shown};
use super::tree::{Node, Place, Value};
use super::{REPLICAS_MAX, devices, environment, extension, placement, ports, support, words};
use crate::model::resources::{CPU_MILLIS, MEMORY_BYTES};
use crate::model::{PortSpec, Resources, Restart, ServiceSpec};

/// The name of the limit on processes.
const PIDS: &str = "pids";
type ReadAmount = fn(&str) -> Result<u64, String>;

/// Reads a service; `None` where it cannot be read on.
pub fn read(reader: &mut Reader, node: Node, at: Place, path: &str) -> Option<ServiceSpec> {
    let mut service = ServiceSpec { replicas: 1, restart: Restart::Always, ..ServiceSpec::default() };
    let mut level = reader.level(node, path, &support::SERVICE)?;
    match level.remove("image") {
        Some(image) => service.image = self::image(reader, &image.value, &join(path, "image")).unwrap_or_default(),
        None => {
            let hint = "image: host runs the machine's own programs; 'rialto image import DIR' adds others";
            reader.wrong_with(at, path, "the service names no image", Some(hint.into()));
        }
    }
    if let Some(entry) = level.remove("command") {
        service.command = command(reader, entry.value, &join(path, "command"));
    }
    if let Some(entry) = level.remove("environment") {
        service.environment = environment::read(reader, entry.value, &join(path, "environment"));
    }
    if let Some(entry) = level.remove("restart")
        && let Some(restart) = reader.value(&entry.value, &join(path, "restart"), restart)
    {
        service.restart = restart;
    }
    if let Some(entry) = level.remove("ports") {
        service.ports = ports::read(reader, entry.value, &join(path, "ports"));
    }
    if service.ports.is_empty() {
        service.ports = vec![PortSpec { container: 0, host: None, protocol: "tcp".into(), name: None }];
    }
    if let Some(entry) = level.remove("deploy") {
        deploy(reader, entry.value, &join(path, "deploy"), &mut service);
    }
    if let Some(entry) = level.remove("x-rialto") {
        extension::read(reader, entry.value, &join(path, "x-rialto"), &mut service);
    }
    if let Some((field, message)) = service.placement_fault() {
        reader.wrong(at, &join(path, field), message);
    }
    Some(service)
}

fn image(reader: &mut Reader, node: &Node, path: &str) -> Option<String> {
    reader.value(node, path, |name| match is_image_name(name) {
        true => Ok(name.to_string()),
        false => Err(format!("'{}' cannot be the name of an image", shown(name))),
    })
}

/// Whether `name` can name an image: nothing in it means anything to a path or a shell.
pub fn is_image_name(name: &str) -> bool {
    let sound = |c: char| c.is_ascii_alphanumeric() || "._-/:@+".contains(c);
    let parts_sound = name.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
    name.len() <= 255 && name.chars().all(sound) && parts_sound && !name.starts_with('-')
}

fn command(reader: &mut Reader, node: Node, path: &str) -> Vec<String> {
    let place = node.place;
    let words = match node.value {
        Value::List(items) => items.iter().filter_map(|item| reader.text(item, path)).collect(),
        Value::Null => Vec::new(),
        _ => reader
            .value(&node, path, |line| {
                words::split(line).map_err(|unclosed| match unclosed.0 {
                    '\\' => "the command ends with a lone backslash".to_string(),
                    quote => format!("the command opens a {quote} that it does not close"),
                })
            })
            .unwrap_or_default(),
    };
    if words.first().is_some_and(String::is_empty) {
        reader.wrong(place, path, "the first word of a command is a program, and cannot be empty");
    }
    words
}

fn restart(text: &str) -> Result<Restart, String> {
    match text {
        // `no` is a word here, but a boolean to older YAML and to many a formatter.
        "no" | "false" => Ok(Restart::No),
        "always" => Ok(Restart::Always),
        "on-failure" => Ok(Restart::OnFailure),
        "unless-stopped" => Ok(Restart::UnlessStopped),
        other if other.starts_with("on-failure:") => {
            Err("a bound on the number of restarts is not honoured yet; write on-failure".into())
        }
        other => {
            let known = ["no", "always", "on-failure", "unless-stopped"];
            let near = support::nearest(other, &known).map(|near| format!("; did you mean {near}?"));
            Err(format!(
                "'{}' is none of no, always, on-failure, unless-stopped{}",
                shown(other),
                near.unwrap_or_default()
            ))
        }
    }
}

fn deploy(reader: &mut Reader, node: Node, path: &str, service: &mut ServiceSpec) {
    let Some(mut level) = reader.level(node, path, &support::DEPLOY) else { return };
    if let Some(entry) = level.remove("replicas") {
        let read = |text: &str| match text.parse::<u32>() {
            Ok(count) if count <= REPLICAS_MAX => Ok(count),
            _ => Err(format!("'{}' is no number of replicas from 0 to {REPLICAS_MAX}", shown(text))),
        };
        service.replicas = reader.value(&entry.value, &join(path, "replicas"), read).unwrap_or(1);
    }
    if let Some(entry) = level.remove("placement") {
        placement::read(reader, entry.value, &join(path, "placement"), service);
    }
    let Some(entry) = level.remove("resources") else { return };
    let path = join(path, "resources");
    let Some(mut level) = reader.level(entry.value, &path, &support::RESOURCES) else { return };
    if let Some(entry) = level.remove("limits") {
        service.limits = amounts(reader, entry.value, &join(&path, "limits"), true);
    }
    let Some(entry) = level.remove("reservations") else { return };
    let path = join(&path, "reservations");
    let place = entry.value.place;
    service.reservations = amounts(reader, entry.value, &path, false);
    for (name, word) in [(CPU_MILLIS, "cpus"), (MEMORY_BYTES, "memory")] {
        let limit = service.limits.get(name);
        if limit > 0 && service.reservations.get(name) > limit {
            reader.wrong(place, &join(&path, word), "more is reserved than the limit allows to use");
        }
    }
}

fn amounts(reader: &mut Reader, node: Node, path: &str, limits: bool) -> Resources {
    let mut amounts = Resources::default();
    let level = if limits { &support::LIMITS } else { &support::RESERVATIONS };
    let Some(level) = reader.level(node, path, level) else { return amounts };
    for (key, entry) in level {
        match key {
            "devices" => {
                devices::devices(reader, entry.value, &join(path, key), &mut amounts);
                continue;
            }
            "generic_resources" => {
                devices::generic(reader, entry.value, &join(path, key), &mut amounts);
                continue;
            }
            _ => {}
        }
        let (dimension, read): (_, ReadAmount) = match (key, limits) {
            ("cpus", true) => (CPU_MILLIS, quantity::cpus_limit),
            ("cpus", false) => (CPU_MILLIS, quantity::cpus),
            ("memory", true) => (MEMORY_BYTES, quantity::memory_limit),
            ("memory", false) => (MEMORY_BYTES, quantity::memory),
            _ => (PIDS, pids),
        };
        let amount = reader.value(&entry.value, &join(path, key), read);
        if let Some(amount) = amount {
            amounts.set(dimension, amount);
        }
    }
    amounts
}

fn pids(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        // The kernel's own bound on the number of processes.
        Ok(count @ 1..=4_194_304) => Ok(count),
        _ => Err(format!("'{}' is no number of processes from 1 to 4194304", shown(text))),
    }
}
