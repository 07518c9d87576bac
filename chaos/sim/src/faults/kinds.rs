//! The kinds of fault that a seed has switched on (swarm testing: Groce et al., 2012): a world in
//! which everything happens at once never shows what one fault alone does over and over.

use crate::dice::Dice;
use crate::network::Weather;

pub(super) struct Kinds {
    pub split: bool,
    pub one_way: bool,
    pub bridged: bool,
    pub kills: bool,
    pub power: bool,
    pub torn: bool,
    pub full: bool,
    pub pauses: bool,
    pub leaves: bool,
    pub jumps: bool,
    pub holes: bool,
    pub gusts: bool,
    pub deaths: bool,
    pub late: bool,
    pub departures: bool,
    pub put_back: bool,
    pub lost_disks: bool,
    pub hostile: bool,
    pub later: bool,
    pub solitude: bool,
    pub clocks: bool,
    pub drift: bool,
    pub short_hold: bool,
    pub failing: bool,
    pub loss: bool,
    pub duplicate: bool,
    pub reorder: bool,
    pub slow: bool,
}

impl Kinds {
    pub fn draw(dice: &mut Dice) -> Self {
        let mut on = |probability: f64| dice.chance(probability);
        Self {
            split: on(0.4),
            one_way: on(0.25),
            bridged: on(0.25),
            kills: on(0.35),
            power: on(0.35),
            torn: on(0.2),
            full: on(0.2),
            pauses: on(0.3),
            leaves: on(0.3),
            jumps: on(0.2),
            holes: on(0.2),
            gusts: on(0.25),
            deaths: on(0.3),
            late: on(0.3),
            departures: on(0.2),
            put_back: on(0.2),
            lost_disks: on(0.2),
            hostile: on(0.15),
            later: on(0.25),
            solitude: on(0.15),
            clocks: on(0.4),
            drift: on(0.3),
            short_hold: on(0.3),
            failing: on(0.2),
            loss: on(0.4),
            duplicate: on(0.3),
            reorder: on(0.3),
            slow: on(0.4),
        }
    }

    /// The weather of the whole run: loss of up to a fifth, most often less.
    pub fn weather(&self, dice: &mut Dice) -> Weather {
        let mut weather = Weather::FAIR;
        if self.loss {
            let unit = dice.unit();
            weather.loss = 0.002 + 0.198 * unit * unit * unit;
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

    /// The weather of a gust: for seconds everything is late, lost, doubled or out of order.
    pub fn gust(&self, dice: &mut Dice) -> Weather {
        Weather {
            delay_us: dice.between(100, 50_000),
            jitter_us: dice.between(100, 50_000),
            spike: 0.1 * dice.unit(),
            spike_ms: dice.between(100, 5_000),
            loss: 0.2 * dice.unit(),
            duplicate: 0.2 * dice.unit(),
            reorder: 0.5 * dice.unit(),
        }
    }
}
