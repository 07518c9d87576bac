//! Devices of this machine that are handed to the tasks that claimed them: a class has units, a unit is one or several
//! device files. GPUs are claimed by their numbers; of anything else that is counted whichever units are free are given.

use std::collections::{BTreeMap, BTreeSet};

use rialto_protocol::model::container::DeviceFile;
use rialto_protocol::model::resources::{GPU_PREFIX, GPUS};
use serde::{Deserialize, Serialize};

/// Device files of one class.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeviceClass {
    /// What each unit has for itself.
    pub units: Vec<Vec<String>>,
    /// What every task gets that has a unit.
    #[serde(default)]
    pub shared: Vec<String>,
}

/// A unit that a task has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unit {
    pub class: String,
    pub number: usize,
}

/// The units for a claim that takes so much of each dimension; `used` are those of others.
///
/// # Errors
///
/// The class of which there are not enough.
pub fn units(
    classes: &BTreeMap<String, DeviceClass>,
    takes: &BTreeMap<String, u64>,
    used: &BTreeSet<Unit>,
) -> Result<Vec<Unit>, String> {
    let mut given = Vec::new();
    for (dimension, amount) in takes {
        if let Some(number) = dimension.strip_prefix(GPU_PREFIX) {
            let number: usize = number.parse().unwrap_or(usize::MAX);
            if classes.get(GPUS).is_some_and(|class| number < class.units.len()) {
                given.push(Unit { class: GPUS.into(), number });
            }
        } else if let Some(class) = classes.get(dimension) {
            let all = (0..class.units.len()).map(|number| Unit { class: dimension.clone(), number });
            let free: Vec<Unit> = all.filter(|unit| !used.contains(unit)).take(*amount as usize).collect();
            if (free.len() as u64) < *amount {
                return Err(format!("{dimension}: {amount} are claimed, and {} are free", free.len()));
            }
            given.extend(free);
        }
    }
    Ok(given)
}

/// The device files of these units, each once, and the variables that tell a task of them: `RIALTO_FPGA=0,3`.
pub fn files(classes: &BTreeMap<String, DeviceClass>, units: &[Unit]) -> (Vec<DeviceFile>, BTreeMap<String, String>) {
    let mut paths = BTreeSet::new();
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    for unit in units {
        let Some(class) = classes.get(&unit.class) else { continue };
        paths.extend(class.units.get(unit.number).into_iter().flatten().chain(&class.shared).cloned());
        if unit.class == GPUS {
            // Its claim has told the task already.
            continue;
        }
        let upper = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        let name = format!("RIALTO_{}", unit.class.chars().map(upper).collect::<String>());
        let numbers = variables.entry(name).or_default();
        if !numbers.is_empty() {
            numbers.push(',');
        }
        *numbers += &unit.number.to_string();
    }
    let file = |path: String| DeviceFile { host: path.clone(), container: path, access: "rw".into() };
    (paths.into_iter().map(file).collect(), variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(units: &[&[&str]], shared: &[&str]) -> DeviceClass {
        let words = |all: &[&str]| all.iter().map(|one| one.to_string()).collect::<Vec<_>>();
        DeviceClass { units: units.iter().map(|unit| words(unit)).collect(), shared: words(shared) }
    }

    #[test]
    fn who_claims_a_unit_gets_one_that_is_free() {
        let classes = BTreeMap::from([
            ("fpga".to_string(), class(&[&["/dev/f0"], &["/dev/f1"], &["/dev/f2"]], &["/dev/fctl"])),
            ("gpu".to_string(), class(&[&["/dev/g0"], &["/dev/g1"]], &["/dev/gctl"])),
        ]);
        let takes = |all: &[(&str, u64)]| all.iter().map(|(name, amount)| (name.to_string(), *amount)).collect();
        let unit = |class: &str, number| Unit { class: class.into(), number };
        let used = BTreeSet::from([unit("fpga", 1)]);
        let given = units(&classes, &takes(&[("fpga", 2), ("gpu_milli:1", 500), ("licence", 3)]), &used).unwrap();
        assert_eq!(given, [unit("fpga", 0), unit("fpga", 2), unit("gpu", 1)]);
        assert!(units(&classes, &takes(&[("fpga", 3)]), &used).is_err());
        let (files, variables) = files(&classes, &given);
        let paths: Vec<&str> = files.iter().map(|file| file.host.as_str()).collect();
        assert_eq!(paths, ["/dev/f0", "/dev/f2", "/dev/fctl", "/dev/g1", "/dev/gctl"]);
        assert_eq!(variables, BTreeMap::from([("RIALTO_FPGA".to_string(), "0,2".to_string())]));
    }
}
