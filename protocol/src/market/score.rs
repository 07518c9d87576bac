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
    pub(super) fn fragments(&self, mix: &Mix) -> u64 {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::market::mix::{Cluster, Needs};

    fn ask(cpu_millis: u64, whole: u64, share: u64) -> Ask {
        Ask { cpu_millis, memory_bytes: 1, whole, share }
    }

    fn need(ask: &Ask) -> Resources {
        let mut need = Resources::of(ask.cpu_millis, ask.memory_bytes);
        [(GPUS, ask.whole), (GPU_SHARE, ask.share)].into_iter().for_each(|(name, amount)| need.set(name, amount));
        need
    }

    /// Of a cluster with 8 cores and 8 bytes for every GPU.
    fn mix(asks: &[(Ask, u64)]) -> Mix {
        let mut needs = Needs::default();
        asks.iter().for_each(|(ask, count)| needs.add(&need(ask), *count));
        needs.mix(&Cluster { cpu_millis: 80_000, memory_bytes: 80, gpus: 10 })
    }

    fn room(cpu_millis: u64, gpus: &[u64]) -> Room {
        Room { cpu_millis, memory_bytes: 1 << 30, gpus: gpus.to_vec() }
    }

    #[test]
    fn a_share_goes_where_it_fits_exactly() {
        let mix = mix(&[(ask(1000, 0, 500), 500), (ask(1000, 1, 0), 500)]);
        let placed = place(&room(64_000, &[1000, 700, 500, 1000]), &ask(1000, 0, 500), &mix).unwrap();
        assert_eq!(placed.gpus, [(2, 500)]);
    }

    #[test]
    fn a_machine_whose_processors_would_run_out_before_its_gpus_is_the_worse_one() {
        let mix = mix(&[(ask(8_000, 1, 0), 1_000)]);
        let greedy = ask(30_000, 1, 0);
        let tight = place(&room(32_000, &[1000; 4]), &greedy, &mix).unwrap();
        let ample = place(&room(64_000, &[1000; 4]), &greedy, &mix).unwrap();
        assert!(ample.cost < tight.cost);
        let none = ask(30_000, 0, 0);
        let cost = |room: Room| place(&room, &none, &mix).map(|placement| placement.cost);
        assert!(cost(room(96_000, &[0, 0])) < cost(room(32_000, &[1000; 4])));
    }

    #[test]
    fn bound_and_asked_needs_are_one_class() {
        let bound = |gpus: &[(&str, u64)]| {
            let mut bound = Resources::of(5, 6);
            gpus.iter().for_each(|(name, taken)| bound.set(*name, *taken));
            Ask::of(&bound)
        };
        assert_eq!(bound(&[("gpu_milli:0", 1000), ("gpu_milli:11", 1000)]), bound(&[(GPUS, 2)]));
        assert_eq!(bound(&[("gpu_milli:3", 250)]), bound(&[(GPU_SHARE, 250)]));
        assert_eq!(bound(&[(GPU_SHARE, 1000)]), bound(&[(GPUS, 1)]));
    }

    fn any_room() -> impl Strategy<Value = Room> {
        let gpus = proptest::collection::vec(prop_oneof![Just(0), Just(1000), 0..=1000u64], 0..9);
        (0..200_000u64, 0..1_000u64, gpus).prop_map(|(cpu_millis, memory_bytes, gpus)| Room {
            cpu_millis,
            memory_bytes,
            gpus,
        })
    }

    fn any_ask() -> impl Strategy<Value = Ask> {
        let gpus = prop_oneof![
            Just((0, 0)),
            (1..9u64).prop_map(|n| (n, 0)),
            (1..1000u64).prop_map(|x| (0, x)),
            Just((1, 300))
        ];
        (0..100_000u64, 0..500u64, gpus).prop_map(|(cpu_millis, memory_bytes, (whole, share))| Ask {
            cpu_millis,
            memory_bytes,
            whole,
            share,
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_placed_is_what_was_asked_and_is_there(
            room in any_room(), ask in any_ask(), typical in proptest::collection::vec((any_ask(), 1..50u64), 0..80),
        ) {
            let mix = mix(&typical);
            let Some(placed) = place(&room, &ask, &mix) else {
                let mut capacity = Resources::of(room.cpu_millis, room.memory_bytes);
                room.gpus.iter().enumerate().for_each(|(n, free)| capacity.set(format!("{GPU_PREFIX}{n}"), *free));
                // Shares beside whole ones are counted apart, so that more may seem to fit.
                prop_assert!((ask.whole > 0 && ask.share > 0) || capacity.lacks(&Resources::default(), &need(&ask)).is_some());
                return Ok(());
            };
            let mut taken: Vec<u64> = placed.gpus.iter().map(|(_, taken)| *taken).collect();
            taken.sort_unstable();
            let mut asked: Vec<u64> = (0..ask.whole).map(|_| GPU_WHOLE).chain(Some(ask.share).filter(|x| *x > 0)).collect();
            asked.sort_unstable();
            prop_assert_eq!(taken, asked);
            let mut left = room.gpus.clone();
            for (gpu, taken) in &placed.gpus {
                prop_assert!(left[*gpu] >= *taken);
                left[*gpu] -= taken;
            }
            prop_assert!(room.cpu_millis >= ask.cpu_millis && room.memory_bytes >= ask.memory_bytes);
        }

        #[test]
        fn no_gpu_of_the_machine_is_a_better_place_for_a_share(room in any_room(), share in 1..1000u64, cpu in 0..9_000u64) {
            let mix = mix(&[(ask(4_000, 0, 300), 7), (ask(8_000, 2, 0), 5)]);
            let ask = Ask { memory_bytes: 0, ..ask(cpu, 0, share) };
            let Some(placed) = place(&room, &ask, &mix) else { return Ok(()) };
            for (gpu, _) in room.gpus.iter().enumerate().filter(|(_, free)| **free >= share) {
                let other = priced(&room, &ask, &mix, room.fragments(&mix), vec![(gpu, share)]);
                prop_assert!(placed.cost <= other.cost);
            }
        }

        #[test]
        fn no_more_is_stranded_than_is_free(room in any_room(), typical in proptest::collection::vec((any_ask(), 1..50u64), 0..80)) {
            let mix = mix(&typical);
            let free: u64 = room.gpus.iter().sum();
            prop_assert!(room.fragments(&mix) <= free * mix.weight);
        }

        #[test]
        fn what_came_and_went_is_as_if_it_had_never_been(typical in proptest::collection::vec((any_ask(), 1..50u64), 0..80)) {
            let mut needs = Needs::default();
            typical.iter().for_each(|(ask, count)| needs.add(&need(ask), *count));
            typical.iter().for_each(|(ask, count)| needs.sub(&need(ask), *count));
            prop_assert_eq!(needs.mix(&Cluster::default()), Needs::default().mix(&Cluster::default()));
        }

        #[test]
        fn numbers_out_of_all_bounds_break_nothing(cpu in any::<u64>(), memory in any::<u64>(), whole in any::<u64>(), share in any::<u64>()) {
            let ask = Ask { cpu_millis: cpu, memory_bytes: memory, whole, share };
            let mut needs = Needs::default();
            needs.add(&need(&ask), 3);
            let mix = needs.mix(&Cluster { cpu_millis: cpu, memory_bytes: memory, gpus: whole % 5 });
            place(&Room { cpu_millis: cpu, memory_bytes: memory, gpus: vec![1000, 400] }, &ask, &mix);
            place(&Room { cpu_millis: u64::MAX, memory_bytes: u64::MAX, gpus: vec![1000, 400] }, &Ask::of(&Resources::of(5, 5)), &mix);
        }
    }
}
