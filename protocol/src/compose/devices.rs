//! GPUs and other countable resources that a task reserves: `devices` and `generic_resources`.

use super::parse::{Reader, join};
use super::quantity::shown;
use super::tree::Node;
use super::{RESOURCES_MAX, keys};
use crate::model::Resources;
use crate::model::resources::{CPU_MILLIS, GPU_SHARE, GPU_WHOLE, GPUS, GPUS_MAX, MEMORY_BYTES};

/// The most of one countable resource.
const COUNT_MAX: u64 = 1_000_000_000;

/// Reads `devices`: so many whole GPUs, `[{capabilities: [gpu], count: 2}]`.
pub fn devices(reader: &mut Reader, node: Node, path: &str, amounts: &mut Resources) {
    read_devices(reader, node, path, amounts, false);
}

/// Reads `gpus`: the same, where that it is GPUs need not be said.
pub fn gpus_of(reader: &mut Reader, node: Node, path: &str, amounts: &mut Resources) {
    read_devices(reader, node, path, amounts, true);
}

fn read_devices(reader: &mut Reader, node: Node, path: &str, amounts: &mut Resources, is_said: bool) {
    for item in reader.items(node, path, RESOURCES_MAX) {
        let place = item.place;
        let Some(mut level) = reader.level(item, path, &keys::DEVICE) else { continue };
        let is_gpu = match level.remove("capabilities") {
            Some(entry) => {
                // `nvidia` and what a program wants of the card are asked for beside it.
                let words = reader.words(entry.value, &join(path, "capabilities"), RESOURCES_MAX);
                words.iter().any(|word| word == "gpu")
            }
            None => is_said,
        };
        if !is_gpu {
            let hint = "write capabilities: [gpu]; other things are counted by generic_resources";
            reader.wrong_with(place, path, "of devices only GPUs are known", Some(hint.into()));
            continue;
        }
        let Some(count) = level.remove("count") else {
            reader.wrong(place, &join(path, "count"), "a number of GPUs is missing");
            continue;
        };
        if let Some(count) = reader.value(&count.value, &join(path, "count"), gpus) {
            amounts.set(GPUS, amounts.get(GPUS).saturating_add(count));
        }
    }
}

/// Reads `generic_resources`: `[{discrete_resource_spec: {kind: licence, value: 2}}]`. The kinds `gpu` and
/// `gpu_milli` are whole GPUs and thousandths of one.
pub fn generic(reader: &mut Reader, node: Node, path: &str, amounts: &mut Resources) {
    for item in reader.items(node, path, RESOURCES_MAX) {
        let place = item.place;
        let Some(mut level) = reader.level(item, path, &keys::GENERIC) else { continue };
        let Some(entry) = level.remove("discrete_resource_spec") else {
            reader.wrong(place, path, "discrete_resource_spec is missing");
            continue;
        };
        let path = join(path, "discrete_resource_spec");
        let Some(mut level) = reader.level(entry.value, &path, &keys::DISCRETE) else { continue };
        let (Some(kind), Some(value)) = (level.remove("kind"), level.remove("value")) else {
            reader.wrong(place, &path, "a kind and a value are needed");
            continue;
        };
        let Some(name) = reader.value(&kind.value, &join(&path, "kind"), self::kind) else { continue };
        let read = |text: &str| match name.as_str() {
            GPUS => gpus(text),
            GPU_SHARE => number(text, GPU_WHOLE, "thousandths of a GPU"),
            _ => number(text, COUNT_MAX, "things"),
        };
        let Some(value) = reader.value(&value.value, &join(&path, "value"), read) else { continue };
        if amounts.get(&name) > 0 {
            reader.wrong(place, &path, format!("'{}' is asked for twice", shown(&name)));
        }
        amounts.set(name, value);
    }
}

fn gpus(text: &str) -> Result<u64, String> {
    number(text, GPUS_MAX as u64, "GPUs")
}

fn number(text: &str, most: u64, what: &str) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(count) if (1..=most).contains(&count) => Ok(count),
        _ => Err(format!("'{}' is no number of {what} from 1 to {most}", shown(text))),
    }
}

/// A name that no dimension of the machine's own bears.
fn kind(text: &str) -> Result<String, String> {
    let sound = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match text {
        CPU_MILLIS | MEMORY_BYTES | "pids" | "cpus" | "memory" => Err(format!("'{text}' has a key of its own")),
        _ if (1..=63).contains(&text.len()) && text.chars().all(sound) => Ok(text.to_string()),
        _ => Err(format!("'{}' is no kind: letters, digits, dots, hyphens, at most 63", shown(text))),
    }
}
