//! The storm gate: whether what is down is to be replaced.
//!
//! A loss begins when a member goes down. The members that were not down then are its *reference*,
//! which outlives a restart. A peer that sees less than half of
//! the reference, or exactly half but not the lowest identity, may well be the one that is cut off:
//! it holds back until half are back, for a time, or until a person decides. A loss is over when no
//! more go down for a while; what goes down later is measured against those that are left.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Held, Loss, Tuning};
use crate::ids::PeerId;

/// A great loss is one of over a fifth of at least this many.
const GREAT_FROM: u32 = 10;

/// What survives a restart.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Remembered {
    /// The reference of a loss that was not over.
    #[serde(default)]
    pub reference: Option<BTreeSet<PeerId>>,
    /// Those that were down, and the life they were accused in.
    #[serde(default)]
    pub down: Vec<(PeerId, u64)>,
}

/// What a peer sees of the reference.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sight {
    pub sees: u32,
    pub of: u32,
    /// Whether the lowest identity is among those seen.
    pub lowest: bool,
    /// How many went down within the last minute.
    pub lost_lately: u32,
}

impl Sight {
    fn is_minority(&self) -> bool {
        2 * self.sees < self.of || (2 * self.sees == self.of && !self.lowest)
    }

    fn is_great_loss(&self) -> bool {
        self.of >= GREAT_FROM && 5 * self.lost_lately > self.of
    }
}

#[derive(Debug)]
struct Storm {
    reference: BTreeSet<PeerId>,
    last_loss_ms: u64,
    sight: Sight,
    /// Shut, and until when: `Some(None)` is for ever.
    shut: Option<Option<u64>>,
}

#[derive(Debug)]
pub(super) struct Gate {
    hold_ms: Option<u64>,
    loss_ms: u64,
    quiet_ms: u64,
    spread_ms: u64,
    storm: Option<Storm>,
    /// After a great loss replacing begins at this time, and not for all at once.
    paced_from: Option<u64>,
}

impl Gate {
    /// With the reference of a loss that was not over when this peer went: a starting peer, which
    /// sees nobody yet, holds back for the whole time again.
    pub fn new(tuning: &Tuning, reference: Option<BTreeSet<PeerId>>, now_ms: u64) -> Self {
        Self {
            hold_ms: tuning.minority_hold_ms,
            loss_ms: tuning.loss_ms,
            quiet_ms: tuning.quiet_ms,
            spread_ms: tuning.spread_ms.max(1),
            storm: reference.map(|reference| Storm::new(reference, now_ms)),
            paced_from: None,
        }
    }

    pub fn reference(&self) -> Option<&BTreeSet<PeerId>> {
        self.storm.as_ref().map(|storm| &storm.reference)
    }

    /// Members went down; `before` are those that were not down until now.
    pub fn lose(&mut self, now_ms: u64, before: impl FnOnce() -> BTreeSet<PeerId>) {
        let storm = self.storm.get_or_insert_with(|| Storm::new(before(), now_ms));
        storm.last_loss_ms = now_ms;
    }

    /// Those that left, or drained before they went, are no loss.
    pub fn plan(&mut self, planned: impl Fn(&PeerId) -> bool) {
        if let Some(storm) = &mut self.storm {
            storm.reference.retain(|id| !planned(id));
        }
    }

    /// Shuts or opens according to what is seen of the reference.
    pub fn review(&mut self, now_ms: u64, sight: Sight) {
        if let Some(storm) = &mut self.storm {
            storm.sight = sight;
            if sight.is_great_loss() {
                self.paced_from = Some(storm.last_loss_ms + self.quiet_ms);
            }
            if sight.is_minority() {
                let until = storm.shut.get_or_insert(self.hold_ms.map(|ms| now_ms + ms));
                if until.is_some_and(|until| until <= now_ms) {
                    self.storm = None;
                    self.paced_from = self.paced_from.map(|from| from.max(now_ms));
                }
            } else {
                storm.shut = None;
                if now_ms >= storm.last_loss_ms + self.loss_ms {
                    self.storm = None;
                }
            }
        }
        if self.storm.is_none() {
            self.paced_from = self.paced_from.filter(|from| now_ms <= from + self.spread_ms);
        }
    }

    /// This peer was paused: time in which it could not have heard of anybody does not count.
    pub fn slept(&mut self, gap_ms: u64) {
        if let Some(storm) = &mut self.storm {
            storm.last_loss_ms += gap_ms;
            storm.shut = storm.shut.map(|until| until.map(|ms| ms + gap_ms));
        }
        self.paced_from = self.paced_from.map(|from| from + gap_ms);
    }

    /// A person has decided.
    pub fn open(&mut self, now_ms: u64) {
        self.storm = None;
        self.paced_from = self.paced_from.map(|from| from.min(now_ms));
    }

    /// What becomes of the tasks of a member that is down for long enough; `ring` is its place, and
    /// decides on its turn.
    pub fn loss(&self, now_ms: u64, ring: u64) -> Loss {
        if let Some(held) = self.held(now_ms) {
            return Loss::Held { until_ms: held.until_ms };
        }
        match self.paced_from.map(|from| from + ring % self.spread_ms) {
            Some(until_ms) if now_ms < until_ms => Loss::Waits { until_ms },
            _ => Loss::Lost,
        }
    }

    pub fn held(&self, now_ms: u64) -> Option<Held> {
        let storm = self.storm.as_ref()?;
        let until_ms = storm.shut?;
        let Sight { sees, of, .. } = storm.sight;
        until_ms.is_none_or(|until| now_ms < until).then_some(Held { sees, of, until_ms })
    }

    /// When to review although nothing has changed.
    pub fn deadline(&self) -> Option<u64> {
        let paced = self.paced_from.map(|from| from + self.spread_ms + 1);
        match &self.storm {
            Some(Storm { shut: Some(until), .. }) => *until,
            Some(storm) => Some(storm.last_loss_ms + self.loss_ms),
            None => paced,
        }
    }
}

impl Storm {
    fn new(reference: BTreeSet<PeerId>, now_ms: u64) -> Self {
        Self { reference, last_loss_ms: now_ms, sight: Sight::default(), shut: None }
    }
}
