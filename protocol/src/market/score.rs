//! Where a task does the least harm: the expected fragmentation that it leaves behind.
//!
//! A free thousandth of a GPU is a *fragment* to a task that could not use it: because the GPU has
//! less left than the task needs, or because the machine lacks other GPUs, processors or memory for
//! it. Weighed over the mix of typical tasks this tells how much of what is free is likely stranded;
//! the best place for a task is where that grows least (fragmentation gradient descent: Weng et al.,
//! "Beware of Fragmentation", USENIX ATC '23). Where the gradient tells places hardly apart, the one
//! with less left over is taken, as best fit would.

use super::mix::Mix;
use crate::model::Resources;
use crate::model::resources::{CPU_MILLIS, GPU_PREFIX, GPU_SHARE, GPU_WHOLE, GPUS, MEMORY_BYTES};

/// What a GPU's worth of leftovers costs, beside a gradient in millionths of a GPU.
const LEFT_OVER: u64 = 3_750;

/// What a task asks of a machine, as far as fragments go.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    /// GPUs that it has to itself.
    pub whole: u64,
    /// Thousandths of one more.
    pub share: u64,
}

impl Ask {
    /// Reads a need, whether it asks for GPUs or is bound to some.
    pub fn of(need: &Resources) -> Self {
        let (mut whole, mut share) = (need.get(GPUS), need.get(GPU_SHARE));
        for (name, taken) in &need.0 {
            match name.starts_with(GPU_PREFIX) {
                true if *taken >= GPU_WHOLE => whole = whole.saturating_add(1),
                true => share = share.max(*taken),
                false => {}
            }
        }
        if share == GPU_WHOLE {
            (whole, share) = (whole.saturating_add(1), 0);
        }
        Self { cpu_millis: need.get(CPU_MILLIS), memory_bytes: need.get(MEMORY_BYTES), whole, share }
    }

    pub fn wants_gpus(&self) -> bool {
        self.whole > 0 || self.share > 0
    }

    /// The least that a GPU must have free to be of any use to it.
    fn least(&self) -> u64 {
        if self.share > 0 { self.share } else { GPU_WHOLE }
    }
}

/// What is free of a machine with GPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    pub cpu_millis: u64,
    pub memory_bytes: u64,
    /// Thousandths of each GPU.
    pub gpus: Vec<u64>,
}

/// Where a task would go, and what that costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// By the machine's GPUs, in order: thousandths that the task takes.
    pub gpus: Vec<(usize, u64)>,
    /// Millionths of a GPU, less is better: what is stranded, and a little for what is left over.
    pub cost: i64,
}

impl Room {
    /// What a machine of this capacity has free beside `used`.
    pub fn of(capacity: &Resources, used: &Resources) -> Self {
        Self {
            cpu_millis: capacity.free(used, CPU_MILLIS),
            memory_bytes: capacity.free(used, MEMORY_BYTES),
            gpus: capacity.gpus(used).map(|(_, free)| free).collect(),
        }
    }

    /// Takes what a placement takes.
    pub fn take(&mut self, ask: &Ask, placement: &Placement) {
        self.cpu_millis = self.cpu_millis.saturating_sub(ask.cpu_millis);
        self.memory_bytes = self.memory_bytes.saturating_sub(ask.memory_bytes);
        for (gpu, taken) in &placement.gpus {
            if let Some(free) = self.gpus.get_mut(*gpu) {
                *free = free.saturating_sub(*taken);
            }
        }
    }

    fn holds(&self, ask: &Ask) -> bool {
        let whole = self.gpus.iter().filter(|free| **free >= GPU_WHOLE).count() as u64;
        let enough = self.gpus.iter().filter(|free| **free >= ask.share).count() as u64;
        let gpus = whole >= ask.whole && (ask.share == 0 || enough > ask.whole);
        gpus && self.cpu_millis >= ask.cpu_millis && self.memory_bytes >= ask.memory_bytes
    }

    /// Thousandths of GPUs that are fragments to this task.
    fn stranded(&self, ask: &Ask) -> u64 {
        let least = if self.holds(ask) { ask.least() } else { u64::MAX };
        self.gpus.iter().filter(|free| **free < least).sum()
    }

    /// What of the free GPUs is stranded, in thousandths, times the weight of the mix.
    fn fragments(&self, mix: &Mix) -> u64 {
        mix.classes.iter().map(|(ask, weight)| self.stranded(ask).saturating_mul(*weight)).sum()
    }

    /// All that is left, in thousandths of a GPU and of what the cluster has beside each.
    fn left_over(&self, mix: &Mix) -> u64 {
        let share = |free: u64, each: u64| free.saturating_mul(1000) / each.max(1);
        let gpus: u64 = self.gpus.iter().sum();
        gpus.saturating_add(share(self.cpu_millis, mix.cpu_millis))
            .saturating_add(share(self.memory_bytes, mix.memory_bytes))
    }
}

/// The best place for a task on one machine; `None` where it does not fit.
pub fn place(room: &Room, ask: &Ask, mix: &Mix) -> Option<Placement> {
    if !room.holds(ask) {
        return None;
    }
    let before = room.fragments(mix);
    let mut whole: Vec<(usize, u64)> = Vec::new();
    let free = room.gpus.iter().enumerate().filter(|(_, free)| **free >= GPU_WHOLE);
    whole.extend(free.map(|(gpu, _)| (gpu, GPU_WHOLE)).take(usize::try_from(ask.whole).unwrap_or(usize::MAX)));
    if ask.share == 0 {
        return Some(priced(room, ask, mix, before, whole));
    }
    // Two GPUs with as much left are one place.
    let mut seen: Vec<u64> = Vec::new();
    let mut best: Option<Placement> = None;
    for (gpu, free) in room.gpus.iter().enumerate() {
        if *free < ask.share || seen.contains(free) || whole.iter().any(|(taken, _)| *taken == gpu) {
            continue;
        }
        seen.push(*free);
        let mut gpus = whole.clone();
        gpus.push((gpu, ask.share));
        let placement = priced(room, ask, mix, before, gpus);
        if best.as_ref().is_none_or(|best| placement.cost < best.cost) {
            best = Some(placement);
        }
    }
    best
}

fn priced(room: &Room, ask: &Ask, mix: &Mix, before: u64, gpus: Vec<(usize, u64)>) -> Placement {
    let mut placement = Placement { gpus, cost: 0 };
    let mut after = room.clone();
    after.take(ask, &placement);
    let gradient = i128::from(after.fragments(mix)) - i128::from(before);
    let stranded = gradient * 1000 / i128::from(mix.weight.max(1));
    let left_over = i128::from(after.left_over(mix)) * i128::from(LEFT_OVER) / 1000;
    placement.cost = (stranded + left_over).clamp(i128::from(i64::MIN / 4), i128::from(i64::MAX / 4)) as i64;
    placement
}
