//! What goes wrong.

use rialto_sim::Dice;

/// Something goes wrong for a while.
#[derive(Clone, Debug)]
pub enum Fault {
    /// A machine loses power, and comes back.
    Crash { node: usize, for_ms: u64 },
    /// It runs nothing, and then goes on as if nothing had been.
    Pause { node: usize, for_ms: u64 },
    /// These hear the others no more, and are heard no more.
    Part { side: Vec<bool>, for_ms: u64 },
    /// One way between two is cut.
    OneWay { from: usize, to: usize, for_ms: u64 },
    /// Of all messages, so many in a hundred are lost.
    Lose { percent: u64, for_ms: u64 },
    /// A disk is slow.
    SlowDisk { node: usize, for_ms: u64 },
    /// A machine stands still, and is cut off when it goes on: as one is that was moved, or whose cable went meanwhile.
    Stray { node: usize, for_ms: u64, cut_ms: u64 },
    /// Disks are slow, and then their machines lose power all at once.
    Blackout { side: Vec<bool>, after_ms: u64, for_ms: u64 },
    /// A machine leaves for good.
    Depart { node: usize },
}

/// Of all that may go wrong one thing alone, for bugs that only it brings out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Only {
    Stray,
    Blackout,
}

impl Fault {
    pub fn draw(dice: &mut Dice, nodes: usize, leader: Option<usize>, only: Option<Only>) -> Self {
        // Whoever leads is the most worthwhile victim.
        let any = dice.below(nodes as u64) as usize;
        let node = if dice.chance(0.5) { leader.unwrap_or(any) } else { any };
        let for_ms = dice.between(100, 8_000);
        let lot = match only {
            None => dice.below(100),
            Some(Only::Stray) => 40,
            Some(Only::Blackout) => 45,
        };
        match lot {
            0..20 => Fault::Crash { node, for_ms },
            20..40 => Fault::Pause { node, for_ms },
            40..45 => {
                let node = leader.unwrap_or(node);
                Fault::Stray { node, for_ms: dice.between(800, 2_800), cut_ms: dice.between(1_000, 8_000) }
            }
            45..50 => {
                let side = (0..nodes).map(|at| at == node || dice.chance(0.8)).collect();
                Fault::Blackout { side, after_ms: dice.between(20, 1_000), for_ms: dice.between(100, 3_000) }
            }
            50..75 => {
                let mut side: Vec<bool> = (0..nodes).map(|_| dice.chance(0.4)).collect();
                side[node] = true;
                Fault::Part { side, for_ms }
            }
            75..85 => Fault::OneWay { from: node, to: dice.below(nodes as u64) as usize, for_ms },
            85..92 => Fault::Lose { percent: dice.between(5, 40), for_ms },
            92..98 => Fault::SlowDisk { node, for_ms },
            _ => Fault::Depart { node },
        }
    }
}
