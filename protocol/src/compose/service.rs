//! One service of an app file.

use std::collections::BTreeMap;

use super::parse::{Reader, join};
use super::quantity::{self, shown};
use super::tree::{Entry, Node, Place, Value};
use super::{
    PORTS_MAX, REPLICAS_MAX, container, depends, devices, environment, extension, keys, kinds, networks, placement,
    ports, rollout, support, words,
};
use crate::model::container::OPTIONS_MAX;
use crate::model::resources::{CPU_MILLIS, MEMORY_BYTES};
use crate::model::{NetworkMode, PortSpec, Resources, Restart, ServiceSpec};

/// The name of the limit on processes.
pub const PIDS: &str = "pids";
type ReadAmount = fn(&str) -> Result<u64, String>;

/// Reads a service; `None` where it cannot be read on.
pub fn read(reader: &mut Reader, node: Node, at: Place, path: &str) -> Option<ServiceSpec> {
    let mut service = ServiceSpec { replicas: 1, restart: Restart::Always, ..ServiceSpec::default() };
    let is_image = |entry: &Entry| entry.key != "image" && support::nearest(&entry.key, &["image"]).is_some();
    let misspelt = matches!(&node.value, Value::Map(entries) if entries.iter().any(is_image));
    let mut level = reader.level(node, path, &keys::SERVICE)?;
    let build = level.remove("build");
    match (level.remove("image"), build) {
        (Some(image), build) => {
            service.image = self::image(reader, &image.value, &join(path, "image")).unwrap_or_default();
            if let Some(build) = build {
                let path = join(path, "build");
                check_build(reader, &build, &path);
                reader.warn(build.at, &path, "nothing is built: the image is taken, as it is there");
            }
        }
        (None, Some(build)) => {
            let path = join(path, "build");
            check_build(reader, &build, &path);
            let hint = "build the image elsewhere, bring it by 'rialto image import' or push it to a registry, and name it in image";
            reader.wrong_with(build.at, &path, "Rialto builds no images", Some(hint.into()));
        }
        // The key is there, with a slip of the finger: that is told of.
        (None, None) if misspelt => {}
        (None, None) => {
            let hint = "image: host runs the machine's own programs; 'rialto image import DIR' adds others";
            reader.wrong_with(at, path, "the service names no image", Some(hint.into()));
        }
    }
    // Who is extended, and when it is there, is decided before; what is reachable is everything.
    level.remove("extends");
    if let Some(entry) = level.remove("profiles") {
        reader.words(entry.value, &join(path, "profiles"), OPTIONS_MAX);
    }
    if let Some(entry) = level.remove("expose") {
        let path = join(path, "expose");
        let items = reader.items(entry.value, &path, PORTS_MAX);
        reader.each_once(&items, &path);
        for item in &items {
            reader.value(item, &path, ports::range);
        }
    }
    if let Some(entry) = level.remove("command") {
        service.command = command(reader, entry.value, &join(path, "command"));
    }
    if let Some(entry) = level.remove("env_file") {
        service.environment = environment::files(reader, entry.value, &join(path, "env_file"));
    }
    if let Some(entry) = level.remove("environment") {
        environment::read(reader, entry.value, &join(path, "environment"), &mut service.environment);
    }
    if let Some(entry) = level.remove("depends_on") {
        service.depends_on = depends::read(reader, entry.value, &join(path, "depends_on"));
    }
    let restart_said = level.contains_key("restart");
    if let Some(entry) = level.remove("restart")
        && let Some(restart) = reader.value(&entry.value, &join(path, "restart"), restart)
    {
        service.restart = restart;
        let bound = entry.value.scalar().and_then(|text| text.split_once(':')?.1.parse().ok());
        service.batch.retries = bound.filter(|bound| *bound > 0);
    }
    if let Some(entry) = level.remove("ports") {
        service.ports = ports::read(reader, entry.value, &join(path, "ports"));
    }
    if service.ports.is_empty() {
        service.ports = vec![PortSpec { protocol: "tcp".into(), ..PortSpec::default() }];
    }
    if let Some(entry) = level.remove("network_mode") {
        let mode = reader.value(&entry.value, &join(path, "network_mode"), networks::mode);
        service.network_mode = mode.unwrap_or_default();
    }
    if let Some(entry) = level.remove("networks") {
        let (at, path) = (entry.at, join(path, "networks"));
        service.networks = networks::of_service(reader, entry.value, &path);
        if service.network_mode == NetworkMode::Host && !service.networks.is_empty() {
            reader.wrong(at, &path, "a service on its machines' network is in no other");
        }
    }
    if let Some(entry) = level.remove("deploy")
        && !matches!(entry.value.value, Value::Null)
    {
        deploy(reader, entry.value, &join(path, "deploy"), &mut service, restart_said);
    }
    as_in_deploy(reader, &mut level, path, &mut service);
    container::read(reader, &mut level, path, &mut service);
    if let Some(entry) = level.remove("x-rialto") {
        extension::read(reader, entry.value, &join(path, "x-rialto"), &mut service);
    }
    if let Some((field, message)) = service.placement_fault().or_else(|| service.guard_fault()) {
        reader.wrong(at, &join(path, field), message);
    }
    for ask in service.container.asks() {
        reader.depends(at, path, format!("it runs only on machines that allow {ask}"));
    }
    Some(service)
}

fn check_build(reader: &mut Reader, build: &Entry, path: &str) {
    if let Some(key) = keys::SERVICE.key("build") {
        keys::check(reader, &build.value, path, key.shape);
    }
}

/// Keys that say beside `image` what `deploy` has words for, too. Both may say it, if they say the same.
fn as_in_deploy(reader: &mut Reader, level: &mut BTreeMap<&'static str, Entry>, path: &str, service: &mut ServiceSpec) {
    if let Some(entry) = level.remove("scale")
        && let Some(count) = reader.value(&entry.value, &join(path, "scale"), replicas)
    {
        service.replicas = count;
    }
    for (key, dimension, read, is_limit) in [
        ("cpus", CPU_MILLIS, quantity::cpus_limit as ReadAmount, true),
        ("mem_limit", MEMORY_BYTES, quantity::memory_limit, true),
        ("mem_reservation", MEMORY_BYTES, quantity::memory, false),
    ] {
        let Some(entry) = level.remove(key) else { continue };
        // In these places 0 is no limit.
        if entry.value.scalar() == Some("0") {
            continue;
        }
        let path = join(path, key);
        let Some(amount) = reader.value(&entry.value, &path, read) else { continue };
        let amounts = if is_limit { &mut service.limits } else { &mut service.reservations };
        match amounts.get(dimension) {
            0 => amounts.set(dimension, amount),
            same if same == amount => {}
            _ => reader.wrong(entry.at, &path, "deploy.resources says otherwise"),
        }
    }
    if let Some(entry) = level.remove("gpus") {
        let path = join(path, "gpus");
        match entry.value.value {
            Value::List(_) => devices::gpus_of(reader, entry.value, &path, &mut service.reservations),
            _ => {
                let hint = "write gpus: [{count: 2}]";
                reader.wrong_with(entry.at, &path, "how many GPUs a task needs has to be said", Some(hint.into()));
            }
        }
    }
}

fn replicas(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(count) if count <= REPLICAS_MAX => Ok(count),
        _ => Err(format!("'{}' is no number of replicas from 0 to {REPLICAS_MAX}", shown(text))),
    }
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

/// A command: words, or a line that is split as a shell would.
pub fn command(reader: &mut Reader, node: Node, path: &str) -> Vec<String> {
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
        bound if bound.strip_prefix("on-failure:").is_some_and(|n| n.parse::<u32>().is_ok()) => Ok(Restart::OnFailure),
        other => Err(support::none_of(other, &["no", "always", "on-failure", "unless-stopped"])),
    }
}

fn deploy(reader: &mut Reader, node: Node, path: &str, service: &mut ServiceSpec, restart_said: bool) {
    let Some(mut level) = reader.level(node, path, &keys::DEPLOY) else { return };
    let restart_said = restart_said || level.contains_key("restart_policy");
    if let Some(entry) = level.remove("restart_policy") {
        let path = join(path, "restart_policy");
        if let Some(mut level) = reader.level(entry.value, &path, &keys::RESTART_POLICY) {
            let read = |text: &str| match text {
                "none" => Ok(Restart::No),
                "on-failure" => Ok(Restart::OnFailure),
                "any" => Ok(Restart::Always),
                other => Err(support::none_of(other, &["none", "on-failure", "any"])),
            };
            let condition = level.remove("condition");
            let read = condition.and_then(|entry| reader.value(&entry.value, &join(&path, "condition"), read));
            service.restart = read.unwrap_or(Restart::Always);
            service.batch.retries = None;
            if let Some(entry) = level.remove("max_attempts") {
                max_attempts(reader, &entry, &join(&path, "max_attempts"), service);
            }
        }
    }
    if let Some(entry) = level.remove("mode") {
        kinds::mode(reader, entry, &join(path, "mode"), service, restart_said);
    }
    if let Some(entry) = level.remove("update_config") {
        service.rollout.update = rollout::pace(reader, entry.value, &join(path, "update_config"), false);
    }
    if let Some(entry) = level.remove("rollback_config") {
        service.rollout.rollback = rollout::pace(reader, entry.value, &join(path, "rollback_config"), true);
    }
    if let Some(entry) = level.remove("replicas") {
        service.replicas = reader.value(&entry.value, &join(path, "replicas"), replicas).unwrap_or(1);
    }
    if let Some(entry) = level.remove("placement") {
        placement::read(reader, entry.value, &join(path, "placement"), service);
    }
    let Some(entry) = level.remove("resources") else { return };
    let path = join(path, "resources");
    let Some(mut level) = reader.level(entry.value, &path, &keys::RESOURCES) else { return };
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

/// How often what fails is started again: 0 is no bound, as Swarm has it.
fn max_attempts(reader: &mut Reader, entry: &Entry, path: &str, service: &mut ServiceSpec) {
    let read = |text: &str| text.parse::<u32>().map_err(|_| format!("'{}' is no number of attempts", shown(text)));
    let Some(bound) = reader.value(&entry.value, path, read) else { return };
    match service.restart {
        Restart::OnFailure => service.batch.retries = Some(bound).filter(|bound| *bound > 0),
        _ if bound == 0 => {}
        _ => reader.warn(entry.at, path, "it is kept up for as long as the app is deployed: a bound is for on-failure"),
    }
}

fn amounts(reader: &mut Reader, node: Node, path: &str, limits: bool) -> Resources {
    let mut amounts = Resources::default();
    let level = if limits { &keys::LIMITS } else { &keys::RESERVATIONS };
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

/// A limit on processes.
pub fn pids(text: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        // The kernel's own bound on the number of processes.
        Ok(count @ 1..=4_194_304) => Ok(count),
        _ => Err(format!("'{}' is no number of processes from 1 to 4194304", shown(text))),
    }
}
