//! What a machine is told to say of itself: labels, GPUs, and things that it counts.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::executor::devices::DeviceClass;
use rialto_protocol::market::constraint::GPU_MODEL;
use rialto_protocol::model::Resources;
use rialto_protocol::model::resources::{CPU_MILLIS, GPU_PREFIX, GPU_SHARE, GPU_WHOLE, GPUS, GPUS_MAX, MEMORY_BYTES};
use serde::de::{Deserialize, Deserializer, Error};

/// The most things that a machine allows one by one: every peer keeps them all.
const ALLOWANCES_MAX: usize = 64;
/// The most labels of a machine: every peer keeps them all.
pub const LABELS_MAX: usize = 64;
/// The longest name of a label or resource, bytes.
const NAME_MAX: usize = 63;
/// The longest value of a label, bytes.
const VALUE_MAX: usize = 255;
/// The most kinds of countable resources of a machine, GPUs aside.
pub const RESOURCES_MAX: usize = 32;
/// The most of one of them.
const COUNT_MAX: u64 = 1_000_000_000;

/// `N[:MODEL]`: so many GPUs, all of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpus {
    pub count: u64,
    pub model: Option<String>,
}

impl FromStr for Gpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (count, model) = match text.split_once(':') {
            Some((count, model)) => (count, Some(model.to_string())),
            None => (text, None),
        };
        let count = count.parse().ok().filter(|count| (0..=GPUS_MAX as u64).contains(count));
        let count =
            count.ok_or_else(|| format!("{text:?} is no number of GPUs: write 4 or 4:MODEL, at most {GPUS_MAX}"))?;
        if let Some(model) = &model {
            check_value(model).map_err(|reason| format!("the model {reason}"))?;
        }
        Ok(Self { count, model })
    }
}

impl<'de> Deserialize<'de> for Gpus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(untagged, expecting = "a number of GPUs, such as 4 or \"4:MODEL\"")]
        enum Written {
            Count(i64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Count(count) => count.to_string(),
            Written::Text(text) => text,
        };
        text.parse().map_err(D::Error::custom)
    }
}

/// Reads `name=count`.
pub fn resource(text: &str) -> Result<(String, u64), String> {
    let (name, count) = text.split_once('=').ok_or_else(|| format!("{text:?} is no resource: write name=count"))?;
    let wrong = || format!("{count:?} is no count: a whole number from 1 to {COUNT_MAX}");
    let count: u64 = count.parse().map_err(|_| wrong())?;
    check_resource(name, count)?;
    Ok((name.into(), count))
}

/// Reads a table of them.
pub fn resources<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, u64)>, D::Error> {
    let read = BTreeMap::<String, u64>::deserialize(deserializer)?;
    read.iter().try_for_each(|(name, count)| check_resource(name, *count)).map_err(D::Error::custom)?;
    Ok(read.into_iter().collect())
}

fn check_resource(name: &str, count: u64) -> Result<(), String> {
    let own = match name {
        CPU_MILLIS | "cpu" | "cpus" => Some("--cpus"),
        MEMORY_BYTES | "memory" => Some("--memory"),
        GPUS | GPU_SHARE | "gpus" => Some("--gpu"),
        _ => None,
    };
    if let Some(flag) = own {
        return Err(format!("{name} has a setting of its own: {flag}"));
    }
    let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    if !(1..=NAME_MAX).contains(&name.len()) || !name.chars().all(sound) {
        return Err(format!(
            "{name:?} can name no resource: lower-case letters, digits, dots, hyphens, at most {NAME_MAX}"
        ));
    }
    if (1..=COUNT_MAX).contains(&count) {
        Ok(())
    } else {
        Err(format!("{name} has {count}: from 1 to {COUNT_MAX} can be had"))
    }
}

/// What is offered, with a machine's devices: of a class as many as it has units, unless a count says otherwise.
pub fn with_devices(mut resources: Resources, classes: &BTreeMap<String, DeviceClass>) -> Result<Resources, String> {
    const UNITS_MAX: usize = 256;
    for (name, class) in classes {
        let files = class.units.iter().flatten().chain(&class.shared);
        if class.units.is_empty() || class.units.len() > UNITS_MAX || class.units.iter().any(Vec::is_empty) {
            return Err(format!("devices.{name}: a class has 1 to {UNITS_MAX} units of at least one device file each"));
        }
        if let Some(file) = files.into_iter().find(|file| !file.starts_with("/dev/") || file.contains("..")) {
            return Err(format!("devices.{name}: {file:?} is no device file below /dev"));
        }
        if name != GPUS {
            check_resource(name, class.units.len() as u64).map_err(|reason| format!("devices.{name}: {reason}"))?;
            if resources.get(name) == 0 {
                resources.set(name.clone(), class.units.len() as u64);
            }
        } else if !resources.has_gpus() {
            (0..class.units.len()).for_each(|number| resources.set(format!("{GPU_PREFIX}{number}"), GPU_WHOLE));
        }
    }
    Ok(resources)
}

/// Reads one thing that tasks may have beyond the usual.
pub fn allowance(text: &str) -> Result<String, String> {
    let known = ["cap=", "device=", "bind=/", "seccomp=unconfined"].iter().any(|beginning| text.starts_with(beginning));
    if (known || text == "privileged") && text.len() <= VALUE_MAX && !text.contains(char::is_control) {
        return Ok(text.into());
    }
    let known = "privileged, cap=NAME, cap=*, seccomp=unconfined, device=/dev/NAME or bind=/PATH";
    Err(format!("{:?} can be allowed to nobody: write {known}", short(text)))
}

/// Reads a list of them.
pub fn allowances<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let read = Vec::<String>::deserialize(deserializer)?;
    if read.len() > ALLOWANCES_MAX {
        return Err(D::Error::custom(format!("at most {ALLOWANCES_MAX} things can be allowed one by one")));
    }
    read.iter().map(|text| allowance(text)).collect::<Result<_, _>>().map_err(D::Error::custom)
}

/// Reads `key=value`.
pub fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) => check_label(key, value).map(|()| (key.into(), value.into())),
        None => Err(format!("{:?} is no label: write key=value", short(text))),
    }
}

/// Reads a table of them.
pub fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, String)>, D::Error> {
    let read = BTreeMap::<String, String>::deserialize(deserializer)?;
    read.iter().try_for_each(|(key, value)| check_label(key, value)).map_err(D::Error::custom)?;
    Ok(read.into_iter().collect())
}

fn check_label(key: &str, value: &str) -> Result<(), String> {
    let sound = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    if !(1..=NAME_MAX).contains(&key.len()) || !key.chars().all(sound) {
        let key = short(key);
        return Err(format!("{key:?} can name no label (key=value): letters, digits, and ._-/, at most {NAME_MAX}"));
    }
    check_value(value).map_err(|reason| format!("the label {key} {reason}"))
}

fn check_value(value: &str) -> Result<(), String> {
    if value.len() > VALUE_MAX {
        return Err(format!("has {} bytes, and at most {VALUE_MAX} are kept", value.len()));
    }
    // A constraint could never name what has one of these.
    match value.chars().find(|c| c.is_control() || *c == '|') {
        Some(c) => Err(format!("holds {c:?}, which no constraint can be compared with")),
        None => Ok(()),
    }
}

/// All labels by key; each may be there once.
pub fn all_labels(given: Vec<(String, String)>, gpus: Option<&Gpus>) -> Result<BTreeMap<String, String>, String> {
    let model = gpus.and_then(|gpus| gpus.model.clone()).map(|model| (GPU_MODEL.to_string(), model));
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in given.into_iter().chain(model) {
        match labels.get(&key) {
            Some(other) if *other != value => {
                return Err(format!("label: {key} is given twice, as {other:?} and as {value:?}"));
            }
            _ => drop(labels.insert(key, value)),
        }
    }
    match labels.len() {
        0..=LABELS_MAX => Ok(labels),
        count => Err(format!("label: {count} labels are more than {LABELS_MAX}")),
    }
}

/// What is offered beside cores and memory.
pub fn all_resources(given: Vec<(String, u64)>, gpus: Option<&Gpus>) -> Result<Resources, String> {
    let mut resources = Resources::default();
    for (name, count) in given {
        if resources.get(&name) > 0 {
            return Err(format!("resource: {name} is given twice"));
        }
        resources.set(name, count);
    }
    if resources.0.len() > RESOURCES_MAX {
        return Err(format!("resource: {} resources are more than {RESOURCES_MAX}", resources.0.len()));
    }
    (0..gpus.map_or(0, |gpus| gpus.count)).for_each(|gpu| resources.set(format!("{GPU_PREFIX}{gpu}"), GPU_WHOLE));
    Ok(resources)
}

fn short(text: &str) -> String {
    text.chars().take(64).collect()
}
