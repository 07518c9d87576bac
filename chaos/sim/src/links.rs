//! The virtual mesh: standing links that come and go.
//!
//! A link stands where either end wants it, both daemons run, hold each other for members and can
//! reach each other both ways. A killed daemon's links end at once, for its kernel says so; a
//! machine without power and a cut say nothing, and are noticed after seconds.

use rialto_protocol::Event;
use rialto_protocol::ids::PeerId;

use crate::network::{Link, Network};
use crate::world::{Happening, World};

/// A connection over a cut is given up after this long, µs.
const GIVE_UP_US: (u64, u64) = (5_000_000, 10_000_000);

impl World {
    pub(super) fn wants(&mut self, machine: usize, peers: impl Iterator<Item = PeerId>) {
        let wanted = peers.filter_map(|peer| self.current(&peer)).filter(|at| *at != machine).collect();
        let before = std::mem::replace(&mut self.machines[machine].wants, wanted);
        for other in 0..self.machines.len() {
            let wants = self.machines[machine].wants.contains(&other);
            if wants && !before.contains(&other) {
                self.consider(Network::pair(machine, other));
            } else if !wants && before.contains(&other) {
                self.maybe_unwanted(machine, other);
            }
        }
    }

    pub(super) fn members(&mut self, machine: usize, peers: impl Iterator<Item = PeerId>) {
        let members = peers.filter_map(|peer| self.current(&peer)).collect();
        let before = std::mem::replace(&mut self.machines[machine].members, members);
        for other in 0..self.machines.len() {
            if self.machines[machine].members.contains(&other) && !before.contains(&other) {
                self.consider(Network::pair(machine, other));
            }
        }
    }

    pub(super) fn consider_soon(&mut self, a: usize, b: usize) {
        if a != b {
            let at_us = self.now_us + self.dice.between(1_000, 50_000);
            self.schedule(at_us, Happening::Dial { pair: Network::pair(a, b) });
        }
    }

    /// Dials where a link is wanted and there is none.
    pub(super) fn consider(&mut self, pair: (usize, usize)) {
        if pair.0 == pair.1 || !self.is_wanted(pair) {
            return;
        }
        let link = self.network.links.entry(pair).or_default();
        if link.standing || link.dialing {
            return;
        }
        link.dialing = true;
        link.epoch += 1;
        let epoch = link.epoch;
        let at_us = self.now_us + 4 * self.network.delay() + 1_000;
        self.schedule(at_us, Happening::Dialed { pair, epoch });
    }

    pub(super) fn dialed(&mut self, pair: (usize, usize), epoch: u64) {
        let connects = self.is_wanted(pair) && self.could_link(pair);
        let link = self.network.links.entry(pair).or_default();
        if !link.dialing || link.epoch != epoch {
            return;
        }
        link.dialing = false;
        if !connects {
            let failures = link.failures;
            link.failures = (failures + 1).min(5);
            let wait_us = (200_000u64 << failures).min(5_000_000);
            let at_us = self.now_us + wait_us / 2 + self.dice.below(wait_us);
            if self.is_wanted(pair) {
                self.schedule(at_us, Happening::Dial { pair });
            }
            return;
        }
        link.failures = 0;
        link.standing = true;
        for side in 0..2 {
            // An end that has not noticed the loss of the last connection does so now.
            self.tell_link(pair, side, false);
            self.tell_link(pair, side, true);
        }
    }

    /// A connection over a cut is given up, unless it was mended in time.
    pub(super) fn broken(&mut self, pair: (usize, usize), epoch: u64) {
        let mended = self.network.open_both(pair.0, pair.1);
        let Some(link) = self.network.links.get_mut(&pair) else { return };
        if link.epoch != epoch || !link.standing || mended {
            return;
        }
        self.end_link(pair);
        self.consider_soon(pair.0, pair.1);
    }

    pub(super) fn noticed(&mut self, pair: (usize, usize), side: usize) {
        if self.network.links.get(&pair).is_some_and(|link| !link.standing) {
            self.tell_link(pair, side, false);
            self.consider(pair);
        }
    }

    pub(super) fn unwanted(&mut self, pair: (usize, usize), epoch: u64) {
        let wanted = self.is_wanted(pair);
        let Some(link) = self.network.links.get(&pair) else { return };
        if link.epoch == epoch && link.standing && !wanted {
            self.end_link(pair);
        }
    }

    /// Makes every standing link across the cuts end in a while.
    pub fn notice_cuts(&mut self) {
        let cut = |network: &Network, (pair, link): (&(usize, usize), &Link)| {
            (link.standing && !network.open_both(pair.0, pair.1)).then_some((*pair, link.epoch))
        };
        let doomed: Vec<_> = self.network.links.iter().filter_map(|link| cut(&self.network, link)).collect();
        for (pair, epoch) in doomed {
            let at_us = self.now_us + self.dice.between(GIVE_UP_US.0, GIVE_UP_US.1);
            self.schedule(at_us, Happening::Broken { pair, epoch });
        }
    }

    /// A daemon is gone, and its links with it.
    pub(super) fn hang_up(&mut self, machine: usize, silently: bool) {
        for other in 0..self.machines.len() {
            let pair = Network::pair(machine, other);
            let Some(link) = self.network.links.get_mut(&pair) else { continue };
            let side = usize::from(other == pair.1);
            link.told[1 - side] = false;
            link.dialing = false;
            if !link.standing {
                continue;
            }
            link.standing = false;
            let (low, high) = if silently { GIVE_UP_US } else { (1_000, 50_000) };
            let at_us = self.now_us + self.dice.between(low, high);
            self.schedule(at_us, Happening::Noticed { pair, side });
        }
    }

    fn maybe_unwanted(&mut self, a: usize, b: usize) {
        let pair = Network::pair(a, b);
        if let Some(link) = self.network.links.get(&pair)
            && link.standing
        {
            let epoch = link.epoch;
            self.schedule(self.now_us + 500_000, Happening::Unwanted { pair, epoch });
        }
    }

    fn end_link(&mut self, pair: (usize, usize)) {
        if let Some(link) = self.network.links.get_mut(&pair) {
            link.standing = false;
        }
        self.tell_link(pair, 0, false);
        self.tell_link(pair, 1, false);
    }

    /// Tells one end, where that is news to it.
    fn tell_link(&mut self, pair: (usize, usize), side: usize, up: bool) {
        let Some(link) = self.network.links.get_mut(&pair) else { return };
        if std::mem::replace(&mut link.told[side], up) == up {
            return;
        }
        let (machine, other) = if side == 0 { pair } else { (pair.1, pair.0) };
        let peer = self.machines[other].id;
        self.feed(machine, Event::Link { peer, up });
    }

    fn is_wanted(&self, (a, b): (usize, usize)) -> bool {
        let wants = |one: usize, other: usize| self.machines[one].wants.contains(&other);
        wants(a, b) || wants(b, a)
    }

    fn could_link(&self, (a, b): (usize, usize)) -> bool {
        let admits =
            |one: usize, other: usize| self.machines[one].answers() && self.machines[one].members.contains(&other);
        admits(a, b) && admits(b, a) && self.network.open_both(a, b)
    }
}
