//! Standing links over TCP: nothing is lost, but what the air loses comes late: when it is sent again by the
//! clock, or because something after it has arrived. A connection over which nothing is acknowledged for
//! long enough is given up. The limits are those of the real mesh.

use std::collections::{BTreeMap, VecDeque};

use crate::air::Air;

/// The kernel sends again after this, and then after twice as long each time, µs.
const RETRANSMIT_US: u64 = 200_000;
/// The first packet of a connection is sent again after this, and so on, µs.
const RETRANSMIT_SYN_US: u64 = 1_000_000;
/// A connection ends when the oldest packet is unacknowledged for so long, µs (`TCP_USER_TIMEOUT`).
pub const UNACKNOWLEDGED_US: u64 = 5_000_000;
/// A connection that is not ready after so long is given up, µs.
pub const HANDSHAKE_US: u64 = 4_000_000;
/// One-way trips of a handshake after SYN and its answer: the protocols agreed on, and three of noise.
const HANDSHAKE_TRIPS: u32 = 6;
/// The wait before the next dial, µs: doubled each time, and less up to a half by chance.
const BACKOFF_US: (u64, u64) = (100_000, 5_000_000);

/// What becomes of something sent on a connection, were there nothing after it.
#[derive(Clone, Copy)]
pub struct Fate {
    /// How long it takes, µs; `None`: it is not there when the sender gives up.
    pub takes_us: Option<u64>,
    /// Whether the sender's kernel hears in time that it is.
    pub acknowledged: bool,
    /// The very first packet arrives, and its receiver sees what is missing before it.
    pub at_once: bool,
}

/// What becomes of something sent to a machine that has no power.
pub const INTO_THE_VOID: Fate = Fate { takes_us: None, acknowledged: false, at_once: false };

/// One packet on a connection to a machine whose kernel lives.
pub fn fate(air: &mut Air, from: usize, to: usize) -> Fate {
    let (mut at_us, mut wait_us) = (0, RETRANSMIT_US);
    let mut fate = INTO_THE_VOID;
    while at_us < UNACKNOWLEDGED_US {
        if !air.loses(to) {
            if fate.takes_us.is_none() {
                fate.takes_us = Some(at_us + air.delay_us());
                fate.at_once = at_us == 0;
            }
            if !air.loses(from) {
                return Fate { acknowledged: true, ..fate };
            }
        }
        at_us += wait_us;
        wait_us *= 2;
    }
    fate
}

/// How long a handshake takes with a machine whose process answers, µs; `None`: longer than allowed.
pub fn handshake_us(air: &mut Air, from: usize, to: usize) -> Option<u64> {
    let mut took_us = 0;
    // SYN and its answer: if either is lost, the first is sent again.
    let mut wait_us = RETRANSMIT_SYN_US;
    while air.loses(to) || air.loses(from) {
        took_us += wait_us;
        wait_us *= 2;
        if took_us >= HANDSHAKE_US {
            return None;
        }
    }
    took_us += 2 * air.delay_us();
    for trip in 0..HANDSHAKE_TRIPS {
        let (one, other) = if trip % 2 == 0 { (from, to) } else { (to, from) };
        took_us += fate(air, one, other).takes_us?;
    }
    (took_us < HANDSHAKE_US).then_some(took_us)
}

/// How long to wait after so many failures in a row, µs.
pub fn backoff_us(air: &mut Air, failures: u32) -> u64 {
    let longest = (BACKOFF_US.0 << failures.min(16)).min(BACKOFF_US.1);
    longest - air.dice.below(longest / 2)
}

/// The link between two machines, and what is on its way over it.
pub struct Link<M> {
    /// Counts connections: what was scheduled for an earlier one finds another number.
    pub epoch: u32,
    pub up: bool,
    pub dialing: bool,
    pub failures: u32,
    /// Whether the lower and the higher machine's membership holds it for up.
    pub told: [bool; 2],
    sides: [Side<M>; 2],
}

/// What one end sends.
struct Side<M> {
    /// In order, each with its arrival, µs: a stream has no holes.
    flying: VecDeque<(u64, M)>,
    /// When the last was sent that arrived at once, µs: with it, all before it are acknowledged.
    heard_us: u64,
}

impl<M> Default for Link<M> {
    fn default() -> Self {
        let side = || Side { flying: VecDeque::new(), heard_us: 0 };
        Self { epoch: 0, up: false, dialing: false, failures: 0, told: [false; 2], sides: [side(), side()] }
    }
}

impl<M> Link<M> {
    /// A new connection stands.
    pub fn connect(&mut self) {
        self.up = true;
        self.dialing = false;
        self.failures = 0;
    }

    /// The connection is lost, and all that was on its way.
    pub fn lose(&mut self) {
        self.up = false;
        for side in &mut self.sides {
            side.flying.clear();
            side.heard_us = 0;
        }
    }

    /// This side sends something; when to look what has arrived, µs.
    pub fn send(&mut self, air: &mut Air, side: usize, now_us: u64, fate: Fate, message: M) -> Option<u64> {
        let side = &mut self.sides[side];
        let arrival_us = fate.takes_us.map(|us| now_us + us);
        let mut look_us = arrival_us;
        if let Some(at_us) = arrival_us.filter(|_| fate.at_once) {
            side.heard_us = now_us;
            // By this the other end sees what it lacks, and says so: that is sent again at once.
            let again_us = at_us + air.delay_us() + air.delay_us();
            for late in side.flying.iter_mut().filter(|late| late.0 > again_us) {
                late.0 = again_us;
                look_us = Some(again_us);
            }
        }
        side.flying.push_back((arrival_us.unwrap_or(u64::MAX), message));
        look_us
    }

    /// The next of this side's that has arrived.
    pub fn arrived(&mut self, side: usize, now_us: u64) -> Option<M> {
        let flying = &mut self.sides[side].flying;
        flying.front().filter(|first| first.0 <= now_us)?;
        flying.pop_front().map(|(_, message)| message)
    }

    /// Whether what this side sent then is acknowledged with something later.
    pub fn is_acknowledged(&self, side: usize, sent_us: u64) -> bool {
        self.sides[side].heard_us > sent_us
    }
}

/// All links, by the lower and the higher machine.
pub type Links<M> = BTreeMap<(usize, usize), Link<M>>;

/// The name of a link, and the side of it that `one` is.
pub fn pair(one: usize, other: usize) -> ((usize, usize), usize) {
    if one < other { ((one, other), 0) } else { ((other, one), 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_an_order_and_what_comes_after_shows_what_is_missing() {
        let (mut air, mut link) = (Air::new(2, 1, "test"), Link::default());
        let late = Fate { takes_us: Some(3_000_000), acknowledged: true, at_once: false };
        let soon = Fate { takes_us: Some(200), acknowledged: true, at_once: true };
        assert_eq!(link.send(&mut air, 0, 0, late, 'a'), Some(3_000_000));
        assert_eq!(link.send(&mut air, 0, 10, late, 'b'), Some(3_000_010));
        assert_eq!((link.arrived(0, 500_000), link.is_acknowledged(0, 0)), (None, false));
        let look_us = link.send(&mut air, 0, 1_000_000, soon, 'c').unwrap();
        assert!(look_us > 1_000_200 && look_us < 1_010_000, "{look_us}");
        assert_eq!(link.arrived(0, 1_000_200), None, "there is a hole before it");
        let mut all = std::iter::from_fn(|| link.arrived(0, look_us));
        assert_eq!((all.next(), all.next(), all.next(), all.next()), (Some('a'), Some('b'), Some('c'), None));
        assert!(link.is_acknowledged(0, 10) && !link.is_acknowledged(1, 10));
        link.send(&mut air, 0, 2_000_000, INTO_THE_VOID, 'd');
        link.lose();
        assert_eq!(link.arrived(0, u64::MAX), None);
    }

    #[test]
    fn loss_is_lateness_until_nothing_is_acknowledged_for_long() {
        let mut air = Air::new(2, 1, "test");
        let whole = fate(&mut air, 0, 1);
        assert!(whole.acknowledged && whole.takes_us.is_some_and(|us| us < 10_000));
        air.loss = 0.2;
        let (mut late, mut lost) = (0, 0);
        for _ in 0..100_000 {
            let one = fate(&mut air, 0, 1);
            late += u32::from(one.takes_us.is_some_and(|us| us >= RETRANSMIT_US));
            lost += u32::from(one.takes_us.is_none());
        }
        assert!((19_000..21_000).contains(&late), "{late} of 100,000 are sent again");
        assert!(lost < 70, "{lost} of 100,000 are lost five times in a row");
        air.deafen(1, 1.0);
        let deaf = fate(&mut air, 0, 1);
        assert!(deaf.takes_us.is_none() && !deaf.acknowledged);
        let unheard = fate(&mut air, 1, 0);
        assert!(unheard.takes_us.is_some() && !unheard.acknowledged, "it arrives, and the answer does not");
        assert_eq!(handshake_us(&mut air, 0, 1), None);
    }
}
