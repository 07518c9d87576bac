//! One row: what is known of one peer, and how it is judged from that alone.

use super::State;
use crate::event::Now;
use crate::ids::PeerId;

/// The most that doubt about one link multiplies patience by, as a power of two.
const DOUBT_MAX: u32 = 3;
/// Doubt about a link is over when heartbeats come over it so long after the last refutation, ms.
const DOUBT_MS: u64 = 60_000;

/// A verdict against the highest life that anybody accused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Accusation {
    pub life: u64,
    /// When it was read here.
    pub seen_ms: u64,
}

/// A restart that the machine announced itself.
#[derive(Clone, Copy, Debug)]
struct Restart {
    until_wall: u64,
    /// The same in monotonic time, and bounded.
    ends_ms: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub id: PeerId,
    pub ring: u64,
    pub life: u64,
    pub draining: bool,
    /// Its machine record was read; before that it is only a name.
    pub known: bool,
    /// `Left` until a machine record was read.
    pub state: State,
    /// When it came to be in this state.
    pub since_ms: u64,
    pub left_ms: Option<u64>,
    pub accused: Option<Accusation>,
    /// The life that this peer's own verdict accuses.
    pub mine: Option<u64>,
    /// The last sign of life, a refutation included.
    pub heard_ms: u64,
    /// When its heartbeat over no link of ours was answered last.
    pub answered_ms: u64,
    restart: Option<Restart>,
    doubt: u32,
    doubted_ms: u64,
}

impl Peer {
    /// A name and no more.
    pub fn unknown(id: PeerId) -> Self {
        Self {
            id,
            ring: id.ring(),
            life: 0,
            draining: false,
            known: false,
            state: State::Left,
            since_ms: 0,
            left_ms: None,
            accused: None,
            mine: None,
            heard_ms: 0,
            answered_ms: 0,
            restart: None,
            doubt: 0,
            doubted_ms: 0,
        }
    }

    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Alive | State::Suspect)
    }

    /// A heartbeat came over the link; whether it ends doubt about that.
    pub fn heard(&mut self, now_ms: u64) -> bool {
        self.heard_ms = now_ms;
        let over = self.doubt > 0 && now_ms >= self.doubted_ms + DOUBT_MS;
        if over {
            self.doubt = 0;
        }
        over
    }

    /// This peer's own verdict was refuted: perhaps only the link between the two is broken.
    pub fn doubted(&mut self, now_ms: u64) {
        self.doubt = DOUBT_MAX.min(self.doubt + 1);
        self.doubted_ms = now_ms;
    }

    /// What doubt multiplies patience by.
    pub fn doubt(&self) -> u64 {
        1 << self.doubt
    }

    /// Whether a higher life now means that the accusation was wrong, and not that the peer was
    /// away and came back.
    pub fn refuted_soon(&self, now_ms: u64, refute_ms: u64) -> bool {
        self.accused.is_some_and(|accused| now_ms < accused.seen_ms + 2 * refute_ms)
    }

    /// Takes note of an announced restart; the same announcement, read again, lasts no longer.
    pub fn announced(&mut self, now: Now, until_wall: Option<u64>, ms_max: u64) {
        let Some(until_wall) = until_wall else {
            if self.restart.take().is_some() {
                // It is back, and has had no time to make itself heard.
                self.heard_ms = now.ms;
            }
            return;
        };
        if self.restart.is_none_or(|restart| restart.until_wall != until_wall) {
            let ends_ms = now.ms + until_wall.saturating_sub(now.wall).min(ms_max);
            self.restart = Some(Restart { until_wall, ends_ms });
        }
    }

    /// Nobody is accused before this.
    pub fn excused_until(&self) -> u64 {
        self.restart.map_or(0, |restart| restart.ends_ms)
    }

    /// The accusation that stands against the present life, if one does.
    pub fn standing(&self) -> Option<Accusation> {
        self.accused.filter(|accused| accused.life >= self.life)
    }

    /// The state that follows from what is known, and when to ask again.
    pub fn judged(&self, now_ms: u64, refute_ms: u64) -> (State, Option<u64>) {
        if self.left_ms.is_some() {
            return (State::Left, None);
        }
        let Some(accused) = self.standing() else { return (State::Alive, None) };
        if self.state == State::Down {
            return (State::Down, None);
        }
        if now_ms < self.excused_until() {
            return (State::Alive, Some(self.excused_until()));
        }
        let down_ms = accused.seen_ms.max(self.excused_until()) + refute_ms;
        if now_ms < down_ms { (State::Suspect, Some(down_ms)) } else { (State::Down, None) }
    }

    /// A peer is never down to itself.
    pub fn judged_self(&self) -> (State, Option<u64>) {
        (if self.left_ms.is_some() { State::Left } else { State::Alive }, None)
    }
}
