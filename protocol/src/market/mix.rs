//! What a cluster's tasks typically need: the mix against which fragments are weighed.
//!
//! Only what asks for GPUs is counted, for only that can find a GPU stranded. A young cluster knows
//! little of its tasks, so the mix begins with a guess: shares and whole GPUs in the sizes that people
//! choose, each with half of the processors that the cluster has for every GPU. Ten tasks' worth of
//! it; the guess fades as claims are read.

use std::collections::BTreeMap;

use super::score::Ask;
use crate::model::Resources;

/// The most classes that are weighed, the most frequent first.
pub const CLASSES_MAX: usize = 64;
/// The most classes that are counted; what is beyond them is not.
pub const COUNTED_MAX: usize = 1_024;
/// How much one task weighs, beside the weights of [`GUESS`].
const TASK: u64 = 20;
/// Whole GPUs, thousandths of one more, and the weight; [`TASK`] of them are one task.
const GUESS: [(u64, u64, u64); 7] =
    [(0, 250, 30), (0, 500, 30), (0, 750, 20), (1, 0, 80), (2, 0, 20), (4, 0, 10), (8, 0, 10)];

/// How many tasks of each class there are; kept up as claims come and go.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    classes: BTreeMap<Ask, u64>,
    /// Tasks that came or went since the mix was made.
    changes: u64,
    tasks: u64,
}

impl Needs {
    /// Counts `count` tasks of this need, asked or bound.
    pub fn add(&mut self, need: &Resources, count: u64) {
        let ask = Ask::of(need);
        if count == 0 || !ask.wants_gpus() {
            return;
        }
        if self.classes.len() < COUNTED_MAX || self.classes.contains_key(&ask) {
            *self.classes.entry(ask).or_default() += count;
            self.tasks += count;
            self.changes += count;
        }
    }

    /// Counts them no more.
    pub fn sub(&mut self, need: &Resources, count: u64) {
        let ask = Ask::of(need);
        if !ask.wants_gpus() {
            return;
        }
        let Some(held) = self.classes.get_mut(&ask) else { return };
        let gone = count.min(*held);
        *held -= gone;
        if *held == 0 {
            self.classes.remove(&ask);
        }
        self.tasks -= gone;
        self.changes += gone;
    }

    /// Whether a mix that was made before would be another now by more than a few in a hundred.
    pub fn is_other(&self) -> bool {
        self.changes > self.tasks / 32
    }

    /// The mix of a cluster that has so much, and of what it runs.
    pub fn mix(&mut self, cluster: &Cluster) -> Mix {
        self.changes = 0;
        Mix::new(&self.classes, cluster)
    }
}

/// What the machines with GPUs have, in sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    pub gpus: u64,
}

impl Cluster {
    /// Counts one machine, if it has GPUs.
    pub fn add(&mut self, capacity: &Resources) {
        let gpus = capacity.gpus(&Resources::default()).count() as u64;
        if gpus > 0 {
            let ask = Ask::of(capacity);
            self.cpu_millis = self.cpu_millis.saturating_add(ask.cpu_millis);
            self.memory_bytes = self.memory_bytes.saturating_add(ask.memory_bytes);
            self.gpus += gpus;
        }
    }
}

/// Typical needs and their weights.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mix {
    pub(super) classes: Vec<(Ask, u64)>,
    /// The sum of the weights.
    pub(super) weight: u64,
    /// What the cluster has for each GPU.
    pub(super) cpu_millis: u64,
    pub(super) memory_bytes: u64,
}

impl Mix {
    fn new(counted: &BTreeMap<Ask, u64>, cluster: &Cluster) -> Self {
        let (cpu_millis, memory_bytes) =
            (cluster.cpu_millis / cluster.gpus.max(1), cluster.memory_bytes / cluster.gpus.max(1));
        let guess = GUESS.iter().map(|(whole, share, weight)| {
            let cpu = (cpu_millis / 2).saturating_mul(whole * 1000 + share) / 1000;
            (Ask { cpu_millis: cpu, memory_bytes: 0, whole: *whole, share: *share }, *weight)
        });
        let counted = counted.iter().map(|(ask, count)| (ask.clone(), count.saturating_mul(TASK)));
        let mut classes: Vec<(Ask, u64)> = counted.chain(guess).collect();
        classes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        classes.truncate(CLASSES_MAX);
        let weight = classes.iter().map(|(_, weight)| weight).sum();
        Self { classes, weight, cpu_millis, memory_bytes }
    }
}
