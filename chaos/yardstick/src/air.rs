//! What lies between the machines, for both: how long a packet takes, and how often it is lost.

use rialto_sim::Dice;

/// A packet takes at least this, µs, and on top of it as much again on average.
const DELAY_US: u64 = 100;

/// Loss is drawn for each packet by itself.
pub struct Air {
    /// The share of all packets that is lost.
    pub loss: f64,
    /// Machines that lose this share of what they receive.
    deaf: Vec<f64>,
    pub dice: Dice,
}

impl Air {
    pub fn new(machines: usize, seed: u64, purpose: &str) -> Self {
        Self { loss: 0.0, deaf: vec![0.0; machines], dice: Dice::new(seed, purpose) }
    }

    /// From now on this machine loses this share of what it receives; what it sends gets through.
    pub fn deafen(&mut self, machine: usize, share: f64) {
        self.deaf[machine] = share;
    }

    /// Whether a packet to this machine is lost.
    pub fn loses(&mut self, to: usize) -> bool {
        let arrives = (1.0 - self.loss) * (1.0 - self.deaf[to]);
        arrives < 1.0 && !self.dice.chance(arrives)
    }

    /// How long one packet takes that is not lost, µs.
    pub fn delay_us(&mut self) -> u64 {
        DELAY_US + self.dice.exponential(DELAY_US)
    }
}
