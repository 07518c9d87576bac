//! What breaks, and when: drawn from the seed, or written down in a scenario.
//!
//! Each seed switches some kinds of fault on and others off (swarm testing: Groce et al., 2012), for
//! a world in which everything happens at once never shows what one fault alone does over and over.

use crate::dice::Dice;
use crate::network::Weather;

/// One thing that is done to the world, or demanded of it.
#[derive(Clone, Debug)]
pub enum Step {
    Weather(Weather),
    /// Nothing gets from the first to the second; nor back, unless it is one-way.
    Cut {
        from: Vec<usize>,
        to: Vec<usize>,
        one_way: bool,
    },
    /// The same cut is gone.
    Mend {
        from: Vec<usize>,
        to: Vec<usize>,
        one_way: bool,
    },
    /// Daemons are killed, or machines lose power.
    Crash {
        machines: Vec<usize>,
        power: bool,
    },
    /// A machine loses power and never comes back.
    Die {
        machine: usize,
    },
    /// A daemon says that it will be killed, and back in so long.
    Announce {
        machine: usize,
        back_ms: u64,
    },
    Start {
        machines: Vec<usize>,
    },
    Pause {
        machine: usize,
        ms: u64,
    },
    /// A machine that was not there before joins.
    Join {
        machine: usize,
    },
    /// The network is well again, and nobody is paused.
    Calm,
    /// A survivor is asked for new work, which must run in time.
    Probe {
        within_ms: u64,
    },
    /// All that is wanted must run among those that are up, by then.
    Demand {
        within_ms: u64,
    },
    /// From here on nobody may write a record, until `until_ms`.
    Quiet {
        until_ms: u64,
    },
    /// From here on no container may be started, until `until_ms`.
    Steady {
        until_ms: u64,
    },
    /// So far no single run may have been started twice.
    Once,
}

/// Everything that is going to break in one run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// By time, ms after the founding.
    pub steps: Vec<(u64, Step)>,
    /// Machines that die in it and never come back.
    pub doomed: Vec<usize>,
    /// Machines that join later, beyond those that found the cluster.
    pub late: usize,
    /// How long the faults last, ms after the founding.
    pub faults_ms: u64,
    /// How long people go on asking for things, ms after the founding.
    pub work_ms: u64,
    /// What is added to each machine's wall clock, ms.
    pub clocks_ms: Vec<i64>,
    pub minority_hold_ms: u64,
    /// How often a container cannot be made.
    pub failing: f64,
}

impl Plan {
    /// Nothing breaks.
    pub fn calm(machines: usize, faults_ms: u64, work_ms: u64) -> Self {
        Self {
            steps: Vec::new(),
            doomed: Vec::new(),
            late: 0,
            faults_ms,
            work_ms,
            clocks_ms: vec![0; machines],
            minority_hold_ms: 60_000,
            failing: 0.0,
        }
    }

    /// What the seed draws.
    pub fn draw(seed: u64, machines: usize) -> Self {
        let mut dice = Dice::new(seed, "faults");
        let faults_ms = dice.between(50_000, 100_000);
        let mut plan = Self::calm(machines, faults_ms, faults_ms);
        let kinds = Kinds::draw(&mut dice);
        if kinds.clocks {
            plan.clocks_ms = (0..machines).map(|_| dice.between(0, 7_200_000) as i64 - 3_600_000).collect();
        }
        if kinds.short_hold {
            plan.minority_hold_ms = 20_000;
        }
        if kinds.failing {
            plan.failing = 0.05;
        }
        plan.steps.push((0, Step::Weather(kinds.weather(&mut dice))));
        let pace = dice.between(3_000, 20_000);
        let mut at = dice.between(2_000, 15_000);
        while at < faults_ms {
            plan.draw_one(&kinds, at, machines, &mut dice);
            at += dice.exponential(pace).max(200);
        }
        if kinds.deaths && machines > 1 {
            let most = (machines as u64 * 2 / 5).max(1);
            let count = dice.between(1, most) as usize;
            plan.doomed = dice.sample(machines, count);
            let at = dice.between(5_000, faults_ms);
            let at_once = dice.chance(0.5);
            for doomed in plan.doomed.clone() {
                let at = if at_once { at } else { dice.between(5_000, faults_ms) };
                plan.steps.push((at, Step::Die { machine: doomed }));
            }
        }
        if kinds.late {
            plan.late = dice.between(1, 2) as usize;
            for machine in machines..machines + plan.late {
                plan.steps.push((dice.between(0, faults_ms), Step::Join { machine }));
                plan.clocks_ms.push(dice.between(0, 60_000) as i64);
            }
        }
        if kinds.solitude && machines > 1 {
            plan.leave_few(machines, &mut dice);
        }
        plan.steps.sort_by_key(|(at, _)| *at);
        plan
    }

    /// When the other faults are over most machines lose power, and those that are left go on.
    fn leave_few(&mut self, machines: usize, dice: &mut Dice) {
        let calm_ms = self.faults_ms;
        let all = (0..machines).collect();
        self.steps.push((calm_ms, Step::Calm));
        self.steps.push((calm_ms, Step::Start { machines: all }));
        let lost_ms = calm_ms + 40_000;
        let mut able: Vec<usize> = dice.sample(machines, machines);
        able.retain(|at| !self.doomed.contains(at));
        let left = dice.between(1, (able.len() as u64 / 2).max(1)) as usize;
        self.steps.push((lost_ms, Step::Crash { machines: able.split_off(left), power: true }));
        self.steps.push((lost_ms + 500, Step::Probe { within_ms: 15_000 }));
        self.faults_ms = lost_ms + 17_000;
    }

    fn draw_one(&mut self, kinds: &Kinds, at: u64, machines: usize, dice: &mut Dice) {
        let mut able: Vec<u32> = Vec::new();
        for (kind, on) in
            [kinds.split, kinds.one_way, kinds.kills, kinds.power, kinds.pauses, kinds.leaves].iter().enumerate()
        {
            if *on {
                able.push(kind as u32);
            }
        }
        let Some(kind) = dice.pick(&able).copied() else { return };
        let machine = dice.below(machines as u64) as usize;
        match kind {
            0 | 1 => {
                let some = dice.between(1, (machines as u64 / 2).max(1)) as usize;
                let mut all = dice.sample(machines, machines);
                let to = all.split_off(some);
                let one_way = kind == 1;
                let until = at + dice.between(1_000, 45_000);
                self.steps.push((at, Step::Cut { from: all.clone(), to: to.clone(), one_way }));
                self.steps.push((until, Step::Mend { from: all, to, one_way }));
            }
            2 | 3 => {
                let count = if dice.chance(0.2) { dice.between(1, machines as u64) as usize } else { 1 };
                let crashed = dice.sample(machines, count);
                self.steps.push((at, Step::Crash { machines: crashed.clone(), power: kind == 3 }));
                let back = at + dice.between(100, 40_000);
                self.steps.push((back, Step::Start { machines: crashed }));
            }
            4 => self.steps.push((at, Step::Pause { machine, ms: dice.between(1_000, 30_000) })),
            _ => self.restart(at, machine, dice.between(500, 10_000)),
        }
    }

    /// A daemon says that it goes, goes, and comes back.
    pub fn restart(&mut self, at: u64, machine: usize, back_ms: u64) {
        self.steps.push((at, Step::Announce { machine, back_ms }));
        self.steps.push((at + 300, Step::Crash { machines: vec![machine], power: false }));
        self.steps.push((at + 300 + back_ms, Step::Start { machines: vec![machine] }));
    }
}

/// The kinds of fault that a seed has switched on.
struct Kinds {
    split: bool,
    one_way: bool,
    kills: bool,
    power: bool,
    pauses: bool,
    leaves: bool,
    deaths: bool,
    late: bool,
    solitude: bool,
    clocks: bool,
    short_hold: bool,
    failing: bool,
    loss: bool,
    duplicate: bool,
    reorder: bool,
    slow: bool,
}

impl Kinds {
    fn draw(dice: &mut Dice) -> Self {
        let mut on = |probability: f64| dice.chance(probability);
        Self {
            split: on(0.4),
            one_way: on(0.3),
            kills: on(0.4),
            power: on(0.4),
            pauses: on(0.3),
            leaves: on(0.3),
            deaths: on(0.3),
            late: on(0.25),
            solitude: on(0.2),
            clocks: on(0.5),
            short_hold: on(0.3),
            failing: on(0.2),
            loss: on(0.4),
            duplicate: on(0.3),
            reorder: on(0.3),
            slow: on(0.4),
        }
    }

    fn weather(&self, dice: &mut Dice) -> Weather {
        let mut weather = Weather::FAIR;
        if self.loss {
            weather.loss = 0.002 + 0.08 * dice.unit() * dice.unit();
        }
        if self.duplicate {
            weather.duplicate = 0.05 * dice.unit();
        }
        if self.reorder {
            weather.reorder = 0.3 * dice.unit();
        }
        if self.slow {
            weather.delay_us = dice.between(100, 20_000);
            weather.jitter_us = dice.between(100, 20_000);
            weather.spike = 0.01 * dice.unit();
            weather.spike_ms = dice.between(50, 3_000);
        }
        weather
    }
}
