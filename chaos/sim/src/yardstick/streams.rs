//! Standing links over TCP: nothing is lost, but what the air loses comes late, and a connection over
//! which nothing is acknowledged for long enough is given up. The limits are those of the real mesh.

use std::collections::BTreeMap;

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

/// What becomes of something sent on a connection.
pub struct Fate {
    /// How long it takes, µs; `None`: it never arrives.
    pub takes_us: Option<u64>,
    /// Whether the sender's kernel hears in time that it did.
    pub acknowledged: bool,
}

/// One packet on a connection to a machine whose kernel lives.
pub fn fate(air: &mut Air, from: usize, to: usize) -> Fate {
    let (mut at_us, mut wait_us) = (0, RETRANSMIT_US);
    let mut takes_us = None;
    while at_us < UNACKNOWLEDGED_US {
        if !air.loses(to) {
            if takes_us.is_none() {
                takes_us = Some(at_us + air.delay_us());
            }
            if !air.loses(from) {
                return Fate { takes_us, acknowledged: true };
            }
        }
        at_us += wait_us;
        wait_us *= 2;
    }
    Fate { takes_us, acknowledged: false }
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

/// The link between two machines.
#[derive(Default)]
pub struct Link {
    /// Counts connections: what was scheduled for an earlier one finds another number.
    pub epoch: u32,
    pub up: bool,
    pub dialing: bool,
    pub failures: u32,
    /// Whether the lower and the higher machine's membership holds it for up.
    pub told: [bool; 2],
    /// When the last message each of them sent arrives: a stream has an order.
    last_us: [u64; 2],
    /// A message of this side's never arrives, and so none after it does: a stream has no holes.
    stuck: [bool; 2],
    /// Its end is scheduled.
    pub doomed: bool,
}

impl Link {
    /// A new connection stands.
    pub fn connect(&mut self) {
        self.up = true;
        self.dialing = false;
        self.failures = 0;
        self.doomed = false;
        self.stuck = [false; 2];
        self.last_us = [0; 2];
    }

    /// The arrival of a message of this side's, which would arrive at `at_us` were it alone.
    pub fn in_order(&mut self, side: usize, at_us: Option<u64>) -> Option<u64> {
        self.stuck[side] |= at_us.is_none();
        let at_us = at_us.filter(|_| !self.stuck[side])?.max(self.last_us[side] + 1);
        self.last_us[side] = at_us;
        Some(at_us)
    }
}

/// All links, by the lower and the higher machine.
pub type Links = BTreeMap<(usize, usize), Link>;

/// The name of a link, and the side of it that `one` is.
pub fn pair(one: usize, other: usize) -> ((usize, usize), usize) {
    if one < other { ((one, other), 0) } else { ((other, one), 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_has_an_order_and_no_holes() {
        let mut link = Link::default();
        link.connect();
        assert_eq!(link.in_order(0, Some(500)), Some(500));
        assert_eq!(link.in_order(0, Some(300)), Some(501));
        assert_eq!(link.in_order(1, Some(300)), Some(300), "the other way has its own");
        assert_eq!(link.in_order(0, None), None);
        assert_eq!(link.in_order(0, Some(900)), None);
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
