//! Resources: an open map of named dimensions. What a dimension means is the machine's affair;
//! the market only compares and subtracts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Thousandths of a processor core.
pub const CPU_MILLIS: &str = "cpu_millis";
/// Bytes of memory.
pub const MEMORY_BYTES: &str = "memory_bytes";
/// Every dimension that begins so is one host port: each machine has one of each, unlisted.
pub const PORT_PREFIX: &str = "port:";

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

    /// The first dimension in which `need` exceeds what a machine of this capacity has free when
    /// `used` is taken; `None` where it fits.
    pub fn lacks(&self, used: &Resources, need: &Resources) -> Option<String> {
        need.0.iter().find(|(name, amount)| self.free(used, name) < **amount).map(|(name, _)| name.clone())
    }

    /// How many copies of `need` fit beside `used`, at most `most`.
    pub fn copies(&self, used: &Resources, need: &Resources, most: u32) -> u32 {
        need.0
            .iter()
            .filter(|(_, amount)| **amount > 0)
            .map(|(name, amount)| (self.free(used, name) / amount).min(u64::from(most)) as u32)
            .min()
            .unwrap_or(most)
    }

    /// What is free of one dimension.
    pub fn free(&self, used: &Resources, name: &str) -> u64 {
        let capacity = if name.starts_with(PORT_PREFIX) { 1 } else { self.get(name) };
        capacity.saturating_sub(used.get(name))
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
    fn a_port_is_there_once_on_every_machine() {
        let capacity = Resources::of(2000, 1000);
        let mut need = Resources::of(1, 1);
        need.set(Resources::port(8080), 1);
        assert_eq!(capacity.copies(&Resources::default(), &need, 10), 1);
        assert_eq!(capacity.lacks(&need, &need), Some("port:8080".into()));
    }
}
