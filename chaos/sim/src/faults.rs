//! What breaks, and when: drawn from the seed, or written down in a scenario.
//!
//! Each seed switches some kinds of fault on and others off (swarm testing: Groce et al., 2012), for
//! a world in which everything happens at once never shows what one fault alone does over and over.

mod draw;
mod kinds;

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
    /// A wall clock is set: so many ms forward, or back.
    Jump {
        machine: usize,
        ms: i64,
    },
    /// A disk has no room left, and has again.
    Fill {
        machine: usize,
    },
    MakeRoom {
        machine: usize,
    },
    /// Power fails in the middle of a commit; `broken`: and the store does not open again.
    Tear {
        machine: usize,
        broken: bool,
    },
    /// A disk is copied,
    Snapshot {
        machine: usize,
    },
    /// and put back as it was then.
    PutBack {
        machine: usize,
    },
    /// A machine loses its disk; `power`: and its containers with it.
    LoseDisk {
        machine: usize,
        power: bool,
    },
    /// Frames of this owner get nowhere, or do again.
    Hole {
        owner: usize,
        on: bool,
    },
    /// An administrator expels a machine.
    Depart {
        machine: usize,
    },
    /// A machine belongs to somebody who means ill, from now on.
    Turn {
        machine: usize,
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
    /// How much too fast each machine's clocks run, millionths.
    pub drifts_ppm: Vec<i64>,
    /// Machines that run a later version.
    pub later: Vec<usize>,
    /// Machines whose disks or memberships end in it: what only they held may be lost.
    pub spoilt: Vec<usize>,
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
            drifts_ppm: vec![0; machines],
            later: Vec::new(),
            spoilt: Vec::new(),
            minority_hold_ms: 60_000,
            failing: 0.0,
        }
    }

    /// A daemon says that it goes, goes, and comes back.
    pub fn restart(&mut self, at: u64, machine: usize, back_ms: u64) {
        self.steps.push((at, Step::Announce { machine, back_ms }));
        self.steps.push((at + 300, Step::Crash { machines: vec![machine], power: false }));
        self.steps.push((at + 300 + back_ms, Step::Start { machines: vec![machine] }));
    }
}
