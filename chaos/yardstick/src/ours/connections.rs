//! What machines say to each other takes the way of the mesh: over standing links, which break, are noticed to have
//! broken, and are dialled again.

use std::collections::BTreeSet;

use super::{Cluster, Event, Happening, Say};
use crate::streams::{HANDSHAKE_US, INTO_THE_VOID, UNACKNOWLEDGED_US, backoff_us, fate, handshake_us, pair};

impl Cluster {
    /// Sends over the link that stands, or over a connection made for it.
    pub(super) fn say(&mut self, from: usize, to: usize, say: Say) {
        self.messages += 1;
        let (name, side) = pair(from, to);
        let now_us = self.queue.now_us();
        let stands = self.links.get(&name).is_some_and(|link| link.up);
        let mut setup_us = 0;
        if !stands {
            // A process that is stopped answers no handshake.
            let answers = !self.nodes[to].dead && !self.nodes[to].paused;
            let Some(us) = answers.then(|| handshake_us(&mut self.air, from, to)).flatten() else { return };
            setup_us = us;
        }
        let fate = if self.nodes[to].dead { INTO_THE_VOID } else { fate(&mut self.air, from, to) };
        if let Some(link) = self.links.get_mut(&name).filter(|_| stands) {
            let epoch = link.epoch;
            if !fate.acknowledged {
                let broken = Happening::Broken { link: name, epoch, side, sent_us: now_us };
                self.queue.schedule(now_us + UNACKNOWLEDGED_US, broken);
            }
            if let Some(at_us) = link.send(&mut self.air, side, now_us, fate, say) {
                self.queue.schedule(at_us, Happening::Look { link: name, epoch, side });
            }
        } else if let Some(us) = fate.takes_us {
            let event = Event::Said { from, say };
            self.queue.schedule(now_us + setup_us + us, Happening::Arrive { machine: to, event });
        }
    }

    /// Takes what has arrived of what one side sent.
    pub(super) fn look(&mut self, name: (usize, usize), epoch: u32, side: usize) {
        let (from, to) = if side == 0 { name } else { (name.1, name.0) };
        let now_us = self.queue.now_us();
        loop {
            let link = self.links.get_mut(&name).filter(|link| link.epoch == epoch && link.up);
            let Some(say) = link.and_then(|link| link.arrived(side, now_us)) else { return };
            self.arrive(to, Event::Said { from, say });
        }
    }

    pub(super) fn want(&mut self, machine: usize, wants: BTreeSet<usize>) {
        let before = std::mem::replace(&mut self.nodes[machine].wants, wants.clone());
        for other in before.symmetric_difference(&wants).copied() {
            let (name, _) = pair(machine, other);
            if self.links.get(&name).is_some_and(|link| link.up) {
                self.tell(name);
            } else if wants.contains(&other) {
                self.queue.schedule(self.queue.now_us() + 1_000, Happening::Dial { link: name });
            }
        }
    }

    /// Both ends hear whether the link stands; one that does not want it holds it for lost.
    pub(super) fn tell(&mut self, name: (usize, usize)) {
        let Some(link) = self.links.get_mut(&name) else { return };
        for (side, machine, with) in [(0, name.0, name.1), (1, name.1, name.0)] {
            let up = link.up && self.nodes[machine].wants.contains(&with);
            if std::mem::replace(&mut link.told[side], up) != up {
                let event = Event::Link { with, up };
                self.queue.schedule(self.queue.now_us(), Happening::Arrive { machine, event });
            }
        }
    }

    pub(super) fn wanted(&self, (one, other): (usize, usize)) -> bool {
        let wants = |by: usize, of: usize| !self.nodes[by].dead && self.nodes[by].wants.contains(&of);
        wants(one, other) || wants(other, one)
    }

    pub(super) fn dial(&mut self, name: (usize, usize)) {
        let wanted = self.wanted(name);
        let link = self.links.entry(name).or_default();
        if link.up || link.dialing || !wanted {
            return;
        }
        link.dialing = true;
        link.epoch += 1;
        let epoch = link.epoch;
        let answers = |at: usize| !self.nodes[at].dead && !self.nodes[at].paused;
        let made = (answers(name.0) && answers(name.1)).then(|| handshake_us(&mut self.air, name.0, name.1)).flatten();
        let at_us = self.queue.now_us() + made.unwrap_or(HANDSHAKE_US);
        self.queue.schedule(at_us, Happening::Dialed { link: name, epoch, made: made.is_some() });
    }

    pub(super) fn dialed(&mut self, name: (usize, usize), epoch: u32, made: bool) {
        let made = made && !self.nodes[name.0].dead && !self.nodes[name.1].dead;
        let Some(link) = self.links.get_mut(&name).filter(|link| link.epoch == epoch) else { return };
        if made {
            link.connect();
            self.tell(name);
            return;
        }
        link.dialing = false;
        link.failures += 1;
        let at_us = self.queue.now_us() + backoff_us(&mut self.air, link.failures - 1);
        self.queue.schedule(at_us, Happening::Dial { link: name });
    }

    pub(super) fn broken(&mut self, name: (usize, usize), epoch: u32, side: usize, sent_us: u64) {
        let Some(link) = self.links.get_mut(&name).filter(|link| link.epoch == epoch && link.up) else { return };
        if link.is_acknowledged(side, sent_us) {
            return;
        }
        link.lose();
        self.given_up += 1;
        self.tell(name);
        let at_us = self.queue.now_us() + backoff_us(&mut self.air, 0);
        self.queue.schedule(at_us, Happening::Dial { link: name });
    }
}
