//! The virtual network: who can reach whom, and how long it takes.

use std::collections::{BTreeMap, BTreeSet};

use rialto_protocol::ids::PeerId;

use crate::dice::Dice;

/// How the network behaves apart from cuts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weather {
    /// Every message takes at least this, µs.
    pub delay_us: u64,
    /// The mean of what comes on top, µs.
    pub jitter_us: u64,
    /// How often a message is held up for [`Weather::spike_ms`].
    pub spike: f64,
    /// The longest hold-up, ms.
    pub spike_ms: u64,
    /// How often a message is lost.
    pub loss: f64,
    /// How often a message comes twice.
    pub duplicate: f64,
    /// How often a message may be overtaken by later ones.
    pub reorder: f64,
}

impl Weather {
    /// A quiet local network.
    pub const FAIR: Weather =
        Weather { delay_us: 100, jitter_us: 100, spike: 0.0, spike_ms: 0, loss: 0.0, duplicate: 0.0, reorder: 0.0 };
}

/// The state of the standing link between two machines.
#[derive(Clone, Debug, Default)]
pub struct Link {
    /// Counts connections: what was scheduled for an earlier one finds another number.
    pub epoch: u64,
    pub standing: bool,
    pub dialing: bool,
    /// Failures in a row: they slow the next dial down.
    pub failures: u32,
    /// What the lower and the higher machine's brain were last told.
    pub told: [bool; 2],
}

/// Everything between the machines.
#[derive(Debug)]
pub struct Network {
    pub weather: Weather,
    /// How many cuts stand between `from` and `to`.
    cuts: BTreeMap<(usize, usize), u32>,
    /// When the last message of an ordered stream arrives, µs.
    last: BTreeMap<(usize, usize), u64>,
    pub links: BTreeMap<(usize, usize), Link>,
    /// Owners whose frames get nowhere.
    pub holes: BTreeSet<PeerId>,
    pub dice: Dice,
}

impl Network {
    pub fn new(seed: u64) -> Self {
        Self {
            weather: Weather::FAIR,
            cuts: BTreeMap::new(),
            last: BTreeMap::new(),
            links: BTreeMap::new(),
            holes: BTreeSet::new(),
            dice: Dice::new(seed, "network"),
        }
    }

    /// Nothing gets from `from` to `to` any more.
    pub fn cut(&mut self, from: usize, to: usize) {
        *self.cuts.entry((from, to)).or_default() += 1;
    }

    /// One of the cuts between `from` and `to` is gone.
    pub fn mend(&mut self, from: usize, to: usize) {
        if let Some(count) = self.cuts.get_mut(&(from, to)) {
            *count -= 1;
            if *count == 0 {
                self.cuts.remove(&(from, to));
            }
        }
    }

    /// All cuts and holes are gone.
    pub fn mend_all(&mut self) {
        self.cuts.clear();
        self.holes.clear();
    }

    /// Whether anything gets from `from` to `to`.
    pub fn open(&self, from: usize, to: usize) -> bool {
        !self.cuts.contains_key(&(from, to))
    }

    /// Whether a connection can be made: a handshake needs both ways.
    pub fn open_both(&self, a: usize, b: usize) -> bool {
        self.open(a, b) && self.open(b, a)
    }

    /// How long one way takes now, µs.
    pub fn delay(&mut self) -> u64 {
        let Weather { delay_us, jitter_us, spike, spike_ms, .. } = self.weather;
        let mut delay = delay_us + self.dice.exponential(jitter_us);
        if spike > 0.0 && self.dice.chance(spike) {
            delay += self.dice.below(spike_ms * 1000 + 1);
        }
        delay
    }

    /// When a message that leaves at `now` (µs) arrives: never, once or twice. `setup`: round trips
    /// that come first because a connection must be made for it.
    pub fn fate(&mut self, now: u64, from: usize, to: usize, setup: bool) -> [Option<u64>; 2] {
        let Weather { loss, duplicate, reorder, .. } = self.weather;
        if loss > 0.0 && self.dice.chance(loss) {
            return [None, None];
        }
        let mut delay = self.delay();
        if setup {
            delay += 6 * self.delay();
        }
        let mut arrival = now + delay;
        let overtaken = setup || reorder > 0.0 && self.dice.chance(reorder);
        if overtaken {
            arrival += self.dice.below(20_000);
        } else {
            let last = self.last.entry((from, to)).or_default();
            arrival = arrival.max(*last + 1);
            *last = arrival;
        }
        let again = duplicate > 0.0 && self.dice.chance(duplicate);
        [Some(arrival), again.then(|| arrival + 1 + self.dice.below(500_000))]
    }

    /// The name of the pair that two machines are.
    pub fn pair(a: usize, b: usize) -> (usize, usize) {
        (a.min(b), a.max(b))
    }
}
