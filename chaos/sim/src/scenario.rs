//! Stories written down by hand: what breaks when, in TOML under `scenarios/`.

use serde::Deserialize;

use crate::dice::Dice;
use crate::faults::{Plan, Step};
use crate::network::Weather;

/// A story.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows, for people.
    pub about: String,
    /// How many machines it needs; otherwise as many as the command line says.
    pub peers: Option<usize>,
    /// How long people go on asking for things, seconds after the founding.
    pub work_s: u64,
    /// How long it lasts, seconds after the founding.
    pub faults_s: u64,
    #[serde(default)]
    pub step: Vec<Line>,
}

/// One step of a story.
#[derive(Clone, Debug, Deserialize)]
pub struct Line {
    /// Seconds after the founding.
    pub at_s: f64,
    #[serde(flatten)]
    pub what: What,
}

/// What a step does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// So many machines lose power at once, the seed says which; or those of one rack.
    Kill {
        count: Option<usize>,
        rack: Option<usize>,
    },
    /// So many machines lose power at once and never come back.
    Die {
        count: usize,
    },
    /// Everything that is off is switched on.
    StartAll {},
    /// One after the other says that it goes, goes, and is back after `back_s`.
    Roll {
        gap_s: f64,
        back_s: f64,
    },
    /// Two parts of the cluster do not hear each other, for so long.
    Split {
        first: usize,
        for_s: f64,
        #[serde(default)]
        one_way: bool,
    },
    Weather {
        loss: f64,
        delay_ms: f64,
    },
    Probe {
        within_s: f64,
    },
    Demand {
        within_s: f64,
    },
    Steady {
        for_s: f64,
    },
    Quiet {
        for_s: f64,
    },
    Once {},
}

/// Why there is no such story.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    #[error("no scenario is called {0}; there are {names}", names = names().join(", "))]
    Unknown(String),
    #[error("scenario {0}: {1}")]
    Unreadable(String, toml::de::Error),
}

const SCENARIOS: [(&str, &str); 8] = [
    ("calm", include_str!("../scenarios/calm.toml")),
    ("goodbye", include_str!("../scenarios/goodbye.toml")),
    ("last-words", include_str!("../scenarios/last-words.toml")),
    ("rack", include_str!("../scenarios/rack.toml")),
    ("rolling-restart", include_str!("../scenarios/rolling-restart.toml")),
    ("six-of-ten", include_str!("../scenarios/six-of-ten.toml")),
    ("split", include_str!("../scenarios/split.toml")),
    ("two-of-three", include_str!("../scenarios/two-of-three.toml")),
];

/// The names of all stories.
pub fn names() -> Vec<&'static str> {
    SCENARIOS.iter().map(|(name, _)| *name).collect()
}

impl Scenario {
    /// The story of this name.
    pub fn named(name: &str) -> Result<Self, ScenarioError> {
        let (_, text) = SCENARIOS
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| ScenarioError::Unknown(name.to_string()))?;
        toml::from_str(text).map_err(|error| ScenarioError::Unreadable(name.to_string(), error))
    }

    /// What it comes to for this seed and so many machines.
    pub fn plan(&self, seed: u64, machines: usize) -> Plan {
        let mut dice = Dice::new(seed, "scenario");
        let mut plan = Plan::calm(machines, self.faults_s * 1000, self.work_s * 1000);
        for line in &self.step {
            line.what.add(ms(line.at_s), machines, &mut dice, &mut plan);
        }
        plan.steps.sort_by_key(|(at, _)| *at);
        plan
    }
}

impl What {
    fn add(&self, at: u64, machines: usize, dice: &mut Dice, plan: &mut Plan) {
        let mut step = |at: u64, step: Step| plan.steps.push((at, step));
        match self {
            What::Kill { count, rack } => {
                let killed = match rack {
                    Some(rack) => (0..machines).filter(|at| at % 3 == *rack).collect(),
                    None => dice.sample(machines, count.unwrap_or(1)),
                };
                step(at, Step::Crash { machines: killed, power: true });
            }
            What::Die { count } => {
                for machine in dice.sample(machines, *count) {
                    step(at, Step::Die { machine });
                    plan.doomed.push(machine);
                }
            }
            What::StartAll {} => step(at, Step::Start { machines: (0..machines).collect() }),
            What::Roll { gap_s, back_s } => {
                for machine in 0..machines {
                    plan.restart(at + machine as u64 * ms(*gap_s), machine, ms(*back_s));
                }
            }
            What::Split { first, for_s, one_way } => {
                let mut from = dice.sample(machines, machines);
                let to = from.split_off((*first).min(machines));
                let one_way = *one_way;
                step(at, Step::Cut { from: from.clone(), to: to.clone(), one_way });
                step(at + ms(*for_s), Step::Mend { from, to, one_way });
            }
            What::Weather { loss, delay_ms } => {
                let delay_us = (delay_ms * 1000.0) as u64;
                step(at, Step::Weather(Weather { delay_us, jitter_us: delay_us, loss: *loss, ..Weather::FAIR }));
            }
            What::Probe { within_s } => step(at, Step::Probe { within_ms: ms(*within_s) }),
            What::Demand { within_s } => step(at, Step::Demand { within_ms: ms(*within_s) }),
            What::Quiet { for_s } => step(at, Step::Quiet { until_ms: at + ms(*for_s) }),
            What::Once {} => step(at, Step::Once),
            What::Steady { for_s } => step(at, Step::Steady { until_ms: at + ms(*for_s) }),
        }
    }
}

fn ms(seconds: f64) -> u64 {
    (seconds * 1000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_story_can_be_read() {
        for name in names() {
            let scenario = Scenario::named(name).unwrap();
            let plan = scenario.plan(1, scenario.peers.unwrap_or(10));
            assert!(plan.steps.iter().all(|(at, _)| *at <= plan.faults_ms), "{name} ends before its last step");
        }
        assert!(Scenario::named("nothing").is_err());
    }
}
