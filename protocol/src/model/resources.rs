//! Resources: an open map of named dimensions. What a dimension means is the machine's affair;
//! the market only compares and subtracts. Any other name than those below is a countable resource
//! of a machine's own (`licence: 2`).
//!
//! GPUs alone are asked for in one way and taken in another. A machine lists each of its own as a
//! dimension, `gpu_milli:0: 1000`, in thousandths. A need asks for whole ones (`gpu: 2`, on one
//! machine) or for a share of any single one (`gpu_milli: 250`). The machine *binds* what is asked to
//! GPUs of its own when it reserves; reservations, claims and accounts carry the bound dimensions alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Thousandths of a processor core.
pub const CPU_MILLIS: &str = "cpu_millis";
/// Bytes of memory.
pub const MEMORY_BYTES: &str = "memory_bytes";
/// Every dimension that begins so is one host port: each machine has one of each, unlisted.
pub const PORT_PREFIX: &str = "port:";
/// Of a need: so many whole GPUs.
pub const GPUS: &str = "gpu";
/// Of a need: thousandths of one GPU, whichever it is.
pub const GPU_SHARE: &str = "gpu_milli";
/// Every dimension that begins so is one GPU of a machine, in thousandths.
pub const GPU_PREFIX: &str = "gpu_milli:";
/// A whole GPU, in thousandths.
pub const GPU_WHOLE: u64 = 1000;
/// The most GPUs of one machine that are looked at.
pub const GPUS_MAX: usize = 64;

/// Amounts by dimension. A dimension that is not listed is zero, except a port, of which every
/// machine has one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Resources(pub BTreeMap<String, u64>);

impl Resources {
    /// The two dimensions that every task needs.
    pub fn of(cpu_millis: u64, memory_bytes: u64) -> Self {
        Self(BTreeMap::from([(CPU_MILLIS.into(), cpu_millis), (MEMORY_BYTES.into(), memory_bytes)]))
    }

    /// The name of a port's dimension.
    pub fn port(number: u16) -> String {
        format!("{PORT_PREFIX}{number}")
    }

    /// The amount of one dimension.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Sets one dimension.
    pub fn set(&mut self, name: impl Into<String>, amount: u64) {
        self.0.insert(name.into(), amount);
    }

    /// Adds `other` to this, never past the largest number.
    pub fn add(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*amount);
        }
    }

    /// Takes `other` away; a dimension that reaches nothing disappears.
    pub fn sub(&mut self, other: &Resources) {
        for (name, amount) in &other.0 {
            if let Some(left) = self.0.get_mut(name) {
                *left = left.saturating_sub(*amount);
                if *left == 0 {
                    self.0.remove(name);
                }
            }
        }
    }

    /// Of each dimension the lesser amount.
    pub fn least(&self, other: &Resources) -> Resources {
        let both = self.0.iter().filter_map(|(name, amount)| Some((name.clone(), *amount.min(other.0.get(name)?))));
        Self(both.filter(|(_, amount)| *amount > 0).collect())
    }

    /// Of each dimension the greater amount.
    pub fn most(&self, other: &Resources) -> Resources {
        let mut most = self.clone();
        for (name, amount) in &other.0 {
            let held = most.0.entry(name.clone()).or_default();
            *held = (*held).max(*amount);
        }
        most
    }

    /// The first dimension in which `need` exceeds what a machine of this capacity has free when
    /// `used` is taken; `None` where it fits.
    pub fn lacks(&self, used: &Resources, need: &Resources) -> Option<String> {
        need.0.iter().find(|(name, amount)| self.free(used, name) < **amount).map(|(name, _)| name.clone())
    }

    /// How many copies of `need` fit beside `used`, at most `most`. Where a need asks for whole GPUs and
    /// for a share, it is at least as many as can be bound.
    pub fn copies(&self, used: &Resources, need: &Resources, most: u32) -> u32 {
        let mut copies = most;
        for (name, amount) in need.0.iter().filter(|(_, amount)| **amount > 0) {
            let of_this = match name.as_str() {
                GPU_SHARE => self.gpus(used).map(|(_, free)| free / amount).sum(),
                _ => self.free(used, name) / amount,
            };
            copies = copies.min(of_this.min(u64::from(most)) as u32);
            if copies == 0 {
                break;
            }
        }
        copies
    }

    /// What is free of one dimension; of `gpu` the GPUs that are wholly free, of `gpu_milli` the largest
    /// share of one.
    pub fn free(&self, used: &Resources, name: &str) -> u64 {
        let capacity = match name {
            GPUS => return self.gpus(used).filter(|(_, free)| *free >= GPU_WHOLE).count() as u64,
            GPU_SHARE => return self.gpus(used).map(|(_, free)| free).max().unwrap_or(0),
            port if port.starts_with(PORT_PREFIX) => 1,
            other => self.get(other),
        };
        capacity.saturating_sub(used.get(name))
    }

    /// The GPUs of a machine of this capacity by name, with the thousandths that are free beside `used`.
    pub fn gpus<'a>(&'a self, used: &'a Resources) -> impl Iterator<Item = (&'a str, u64)> {
        let listed = self.0.range::<str, _>((std::ops::Bound::Included(GPU_PREFIX), std::ops::Bound::Unbounded));
        let own = listed.take_while(|(name, _)| name.starts_with(GPU_PREFIX)).take(GPUS_MAX);
        own.map(|(name, all)| (name.as_str(), (*all).min(GPU_WHOLE).saturating_sub(used.get(name))))
    }

    /// Whether a machine of this capacity has GPUs, or a bound need takes of one.
    pub fn has_gpus(&self) -> bool {
        self.gpus(&Resources::default()).next().is_some()
    }

    /// This need without what it asks of GPUs.
    pub fn without_gpus(&self) -> Resources {
        let mut plain = self.clone();
        plain.0.retain(|name, _| name != GPUS && name != GPU_SHARE);
        plain
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_decided_by_the_scarcest_dimension() {
        let capacity = Resources::of(2000, 1000);
        let need = Resources::of(100, 300);
        assert_eq!(capacity.copies(&Resources::default(), &need, 10), 3);
        assert_eq!(capacity.lacks(&Resources::of(1950, 0), &need), Some(CPU_MILLIS.into()));
        assert_eq!(capacity.lacks(&Resources::of(0, 0), &need), None);
    }

    #[test]
    fn gpus_are_whole_or_shares_of_a_single_one() {
        let mut capacity = Resources::of(9000, 9000);
        (0..3).for_each(|n| capacity.set(format!("{GPU_PREFIX}{n}"), GPU_WHOLE));
        let used = Resources(BTreeMap::from([(format!("{GPU_PREFIX}1"), 400), (format!("{GPU_PREFIX}2"), 700)]));
        let ask = |name: &str, amount| Resources(BTreeMap::from([(name.to_string(), amount)]));
        let copies = |name, amount| capacity.copies(&used, &ask(name, amount), 99);
        assert_eq!(copies(GPUS, 1), 1);
        assert_eq!(copies(GPUS, 2), 0);
        assert_eq!(copies(GPU_SHARE, 300), 3 + 2 + 1);
        assert_eq!(copies(GPU_SHARE, 1100), 0);
        assert_eq!(capacity.lacks(&used, &ask(GPUS, 2)), Some(GPUS.into()));
        assert_eq!(capacity.lacks(&used, &ask(GPU_SHARE, 1000)), None);
        assert_eq!(Resources::of(1, 1).lacks(&used, &ask(GPU_SHARE, 1)), Some(GPU_SHARE.into()));
        assert!(capacity.has_gpus() && used.has_gpus() && !ask(GPUS, 1).has_gpus());
    }

    #[test]
    fn a_port_is_there_once_on_every_machine() {
        let capacity = Resources::of(2000, 1000);
        let mut need = Resources::of(1, 1);
        need.set(Resources::port(8080), 1);
        assert_eq!(capacity.copies(&Resources::default(), &need, 10), 1);
        assert_eq!(capacity.lacks(&need, &need), Some("port:8080".into()));
    }
}
