//! How crowded a machine and its surroundings are with tasks of one service: what spreading goes by.

use std::collections::BTreeMap;

use crate::ids::PeerId;
use crate::model::Placement;

/// Counts tasks of a service by the values of the labels that they are spread over, and by machine.
#[derive(Clone, Debug, Default)]
pub struct Crowd {
    spread: Vec<String>,
    /// By the values of the first labels, as many as the key has.
    places: BTreeMap<Vec<String>, u32>,
    machines: BTreeMap<PeerId, u32>,
}

impl Crowd {
    /// Reckons from how many tasks each machine has.
    pub fn of<'a>(
        placement: &Placement,
        has: &BTreeMap<PeerId, u32>,
        labels: impl Fn(&PeerId) -> Option<&'a BTreeMap<String, String>>,
    ) -> Self {
        let mut crowd = Self { spread: placement.spread.clone(), ..Self::default() };
        for (peer, count) in has {
            crowd.machines.insert(*peer, *count);
            if let Some(labels) = labels(peer) {
                crowd.count(labels, *count);
            }
        }
        crowd
    }

    /// One task more on a machine.
    pub fn add(&mut self, peer: &PeerId, labels: &BTreeMap<String, String>) {
        *self.machines.entry(*peer).or_default() += 1;
        self.count(labels, 1);
    }

    /// A machine is less wanted than its tasks say; its surroundings are not.
    pub fn shun(&mut self, peer: &PeerId) {
        *self.machines.entry(*peer).or_default() += 1;
    }

    /// Less is better, and the first number that differs decides: tasks in its place by the first label, by the first two,
    /// …, and on the machine itself.
    pub fn at(&self, peer: &PeerId, labels: &BTreeMap<String, String>) -> Vec<u32> {
        let mut crowd: Vec<u32> =
            self.keys(labels).map(|place| self.places.get(&place).copied().unwrap_or(0)).collect();
        crowd.push(self.machines.get(peer).copied().unwrap_or(0));
        crowd
    }

    fn count(&mut self, labels: &BTreeMap<String, String>, count: u32) {
        for place in self.keys(labels).collect::<Vec<_>>() {
            *self.places.entry(place).or_default() += count;
        }
    }

    /// A machine without a label stands with all others without it.
    fn keys(&self, labels: &BTreeMap<String, String>) -> impl Iterator<Item = Vec<String>> {
        let values: Vec<String> =
            self.spread.iter().map(|label| labels.get(label).cloned().unwrap_or_default()).collect();
        (1..=values.len()).map(move |depth| values[..depth].to_vec())
    }
}
