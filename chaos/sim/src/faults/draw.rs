//! What a seed draws: which kinds of fault are on, and when each strikes whom.

use super::kinds::Kinds;
use super::{Plan, Step};
use crate::dice::Dice;
use crate::network::Weather;

/// The clocks that reach a brain run up to one in a hundred too fast or too slow, millionths.
const DRIFT_PPM_MAX: u64 = 10_000;
/// Wall clocks are up to an hour wrong, ms.
const CLOCK_MS_MAX: u64 = 3_600_000;

/// A fault that strikes again and again.
#[derive(Clone, Copy)]
enum Strike {
    Split { one_way: bool, bridged: bool },
    Crash { power: bool },
    Torn,
    Full,
    Pause,
    Restart,
    Jump,
    Hole,
    Gust,
}

impl Plan {
    /// What the seed draws.
    pub fn draw(seed: u64, machines: usize) -> Self {
        let mut dice = Dice::new(seed, "faults");
        let faults_ms = dice.between(50_000, 100_000);
        let mut plan = Self::calm(machines, faults_ms, faults_ms);
        let kinds = Kinds::draw(&mut dice);
        if kinds.clocks {
            plan.clocks_ms = (0..machines).map(|_| either_way(&mut dice, CLOCK_MS_MAX)).collect();
        }
        if kinds.drift {
            plan.drifts_ppm = (0..machines).map(|_| either_way(&mut dice, DRIFT_PPM_MAX)).collect();
        }
        if kinds.short_hold {
            plan.minority_hold_ms = 20_000;
        }
        if kinds.failing {
            plan.failing = 0.05;
        }
        let weather = kinds.weather(&mut dice);
        plan.steps.push((0, Step::Weather(weather)));
        let able = kinds.strikes();
        let pace = dice.between(3_000, 20_000);
        let mut at = dice.between(2_000, 15_000);
        while at < faults_ms {
            if let Some(strike) = dice.pick(&able).copied() {
                plan.strike(strike, at, machines, weather, &kinds, &mut dice);
            }
            at += dice.exponential(pace).max(200);
        }
        plan.ends(&kinds, machines, &mut dice);
        if kinds.late {
            plan.late = dice.between(1, 3) as usize;
            for machine in machines..machines + plan.late {
                plan.steps.push((dice.between(0, faults_ms), Step::Join { machine }));
                plan.clocks_ms.push(dice.between(0, 60_000) as i64);
            }
        }
        if kinds.later {
            let some = dice.between(1, machines as u64) as usize;
            plan.later = dice.sample(machines, some);
        }
        if kinds.solitude && machines > 1 && !kinds.hostile {
            plan.leave_few(machines, &mut dice);
        }
        plan.steps.sort_by_key(|(at, _)| *at);
        plan
    }

    /// Machines that die, are expelled, lose their disks or turn hostile: never more than two in
    /// five, and each of them in one way.
    fn ends(&mut self, kinds: &Kinds, machines: usize, dice: &mut Dice) {
        if machines < 2 {
            return;
        }
        let most = (machines * 2 / 5).max(1);
        let mut able = dice.sample(machines, most);
        let mut some = |on: bool, most: u64, dice: &mut Dice| {
            let count = if on { dice.between(1, most.max(1)) as usize } else { 0 };
            able.split_off(able.len().saturating_sub(count))
        };
        for machine in some(kinds.hostile && machines > 3, 1, dice) {
            self.steps.push((dice.between(1_000, self.faults_ms), Step::Turn { machine }));
            self.spoilt.push(machine);
        }
        for machine in some(kinds.put_back, 2, dice) {
            let copied = dice.between(1_000, self.faults_ms * 2 / 3);
            let back = dice.between(copied, self.faults_ms);
            self.steps.push((copied, Step::Snapshot { machine }));
            self.steps.push((back, Step::PutBack { machine }));
            self.steps.push((back + dice.between(500, 20_000), Step::Start { machines: vec![machine] }));
        }
        for machine in some(kinds.lost_disks, 2, dice) {
            let at = dice.between(5_000, self.faults_ms);
            let step = match dice.below(3) {
                0 => Step::Tear { machine, broken: true },
                how => Step::LoseDisk { machine, power: how == 1 },
            };
            self.steps.push((at, step));
        }
        for machine in some(kinds.departures, 2, dice) {
            self.steps.push((dice.between(5_000, self.faults_ms), Step::Depart { machine }));
            self.spoilt.push(machine);
        }
        if kinds.deaths {
            let at = dice.between(5_000, self.faults_ms);
            let at_once = dice.chance(0.5);
            self.doomed = some(true, most as u64, dice);
            for doomed in self.doomed.clone() {
                let at = if at_once { at } else { dice.between(5_000, self.faults_ms) };
                self.steps.push((at, Step::Die { machine: doomed }));
            }
        }
        self.spoilt.extend(&self.doomed);
    }

    /// When the other faults are over most machines lose power, and those that are left go on.
    fn leave_few(&mut self, machines: usize, dice: &mut Dice) {
        let calm_ms = self.faults_ms;
        let all = (0..machines).collect();
        self.steps.retain(|(at, step)| *at < calm_ms || !matches!(step, Step::Weather(_)));
        self.steps.push((calm_ms, Step::Calm));
        self.steps.push((calm_ms, Step::Start { machines: all }));
        let lost_ms = calm_ms + 40_000;
        let mut able: Vec<usize> = dice.sample(machines, machines);
        able.retain(|at| !self.spoilt.contains(at));
        let left = dice.between(1, (able.len() as u64 / 2).max(1)) as usize;
        self.steps.push((lost_ms, Step::Crash { machines: able.split_off(left), power: true }));
        // Nine of ten are found in three rounds of five seconds, and then a new steward settles for four.
        self.steps.push((lost_ms + 500, Step::Probe { within_ms: 20_000 }));
        self.faults_ms = lost_ms + 22_000;
    }

    fn strike(&mut self, strike: Strike, at: u64, machines: usize, weather: Weather, kinds: &Kinds, dice: &mut Dice) {
        let machine = dice.below(machines as u64) as usize;
        match strike {
            Strike::Split { one_way, bridged } => {
                let some = dice.between(1, (machines as u64 / 2).max(1)) as usize;
                let mut all = dice.sample(machines, machines);
                let to = all.split_off(some);
                if bridged && all.len() > 1 {
                    // One machine hears both sides.
                    all.pop();
                }
                let until = at + dice.between(1_000, 45_000);
                self.steps.push((at, Step::Cut { from: all.clone(), to: to.clone(), one_way }));
                self.steps.push((until, Step::Mend { from: all, to, one_way }));
            }
            Strike::Crash { power } => {
                let count = if dice.chance(0.2) { dice.between(1, machines as u64) as usize } else { 1 };
                let crashed = dice.sample(machines, count);
                self.steps.push((at, Step::Crash { machines: crashed.clone(), power }));
                let back = at + dice.between(100, 40_000);
                self.steps.push((back, Step::Start { machines: crashed }));
            }
            Strike::Torn => {
                self.steps.push((at, Step::Tear { machine, broken: false }));
                self.steps.push((at + dice.between(100, 20_000), Step::Start { machines: vec![machine] }));
            }
            Strike::Full => {
                self.steps.push((at, Step::Fill { machine }));
                self.steps.push((at + dice.between(1_000, 30_000), Step::MakeRoom { machine }));
            }
            Strike::Pause => self.steps.push((at, Step::Pause { machine, ms: dice.between(1_000, 60_000) })),
            Strike::Restart => self.restart(at, machine, dice.between(500, 10_000)),
            Strike::Jump => self.steps.push((at, Step::Jump { machine, ms: either_way(dice, CLOCK_MS_MAX) })),
            Strike::Hole => {
                self.steps.push((at, Step::Hole { owner: machine, on: true }));
                self.steps.push((at + dice.between(5_000, 40_000), Step::Hole { owner: machine, on: false }));
            }
            Strike::Gust => {
                self.steps.push((at, Step::Weather(kinds.gust(dice))));
                self.steps.push((at + dice.between(1_000, 15_000), Step::Weather(weather)));
            }
        }
    }
}

impl Kinds {
    /// What strikes again and again.
    fn strikes(&self) -> Vec<Strike> {
        let split = |one_way, bridged| Strike::Split { one_way, bridged };
        let all = [
            (self.split, split(false, false)),
            (self.one_way, split(true, false)),
            (self.bridged, split(false, true)),
            (self.kills, Strike::Crash { power: false }),
            (self.power, Strike::Crash { power: true }),
            (self.torn, Strike::Torn),
            (self.full, Strike::Full),
            (self.pauses, Strike::Pause),
            (self.leaves, Strike::Restart),
            (self.jumps, Strike::Jump),
            (self.holes, Strike::Hole),
            (self.gusts, Strike::Gust),
        ];
        all.into_iter().filter(|(on, _)| *on).map(|(_, strike)| strike).collect()
    }
}

fn either_way(dice: &mut Dice, most: u64) -> i64 {
    dice.between(0, 2 * most) as i64 - most as i64
}
