//! Who observes whom: for each member the few others that weigh most for it in rendezvous hashing,
//! first one from each rack, then whoever weighs most.
//!
//! Every member's observers are kept, for a peer must know whom *it* observes. A newcomer is
//! offered to each list in constant time, since the best of a list and one more are the best of
//! all; one that goes costs a new list only to the few that it observed. So a change costs one hash
//! for each member, and never a look at all pairs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ids::rendezvous;

/// The place in a list that nobody has.
const NOBODY: u32 = u32::MAX;
/// The rack of those that name none: each of them stands alone.
const NO_RACK: u32 = 0;

/// The observers of all, by dense index. What copies hold alike they hold once.
#[derive(Clone, Debug)]
pub(super) struct Draw {
    count: usize,
    racks: BTreeMap<String, u32>,
    rows: Arc<Vec<Row>>,
    /// `count` places for each, heaviest first.
    lists: Arc<Vec<u32>>,
    /// Whose presence or rack has changed since the last [`Draw::settle`].
    changed: BTreeSet<u32>,
    scratch: Vec<(u64, u32)>,
}

#[derive(Clone, Debug)]
struct Row {
    ring: u64,
    rack: u32,
    present: bool,
    /// Whether it was present when the lists were last settled.
    drawn: bool,
    /// A newcomer must weigh more than this to matter.
    floor: u64,
    /// Its list lacks members, or has two of one rack: every newcomer may matter.
    open: bool,
}

impl Draw {
    pub fn new(count: usize) -> Self {
        Self {
            count,
            racks: BTreeMap::new(),
            rows: Arc::default(),
            lists: Arc::default(),
            changed: BTreeSet::new(),
            scratch: Vec::new(),
        }
    }

    /// The next dense index, of one that is not present yet.
    pub fn push(&mut self, ring: u64) {
        Arc::make_mut(&mut self.rows).push(Row {
            ring,
            rack: NO_RACK,
            present: false,
            drawn: false,
            floor: 0,
            open: true,
        });
        Arc::make_mut(&mut self.lists).extend(std::iter::repeat_n(NOBODY, self.count));
    }

    pub fn set(&mut self, at: u32, rack: Option<&str>, present: bool) {
        let next = self.racks.len() as u32 + 1;
        let rack = match rack {
            None => NO_RACK,
            Some(name) => match self.racks.get(name) {
                Some(number) => *number,
                None => *self.racks.entry(name.to_owned()).or_insert(next),
            },
        };
        let row = &self.rows[at as usize];
        if row.rack != rack || row.present != present {
            let row = self.row(at);
            (row.rack, row.present) = (rack, present);
            self.changed.insert(at);
        }
    }

    pub fn present(&mut self, at: u32, present: bool) {
        if self.rows[at as usize].present != present {
            self.row(at).present = present;
            self.changed.insert(at);
        }
    }

    /// Draws anew what the changes since the last time touch; whether there were any.
    pub fn settle(&mut self) -> bool {
        let changed = std::mem::take(&mut self.changed);
        if changed.is_empty() {
            return false;
        }
        let came: Vec<u32> = changed.iter().copied().filter(|at| self.rows[*at as usize].present).collect();
        for of in 0..self.rows.len() as u32 {
            if !self.rows[of as usize].present {
                continue;
            }
            let newcomer = !self.rows[of as usize].drawn;
            if newcomer || self.list(of).iter().any(|at| changed.contains(at)) {
                self.rebuild(of);
            } else {
                for at in &came {
                    self.offer(of, *at);
                }
            }
        }
        for at in changed {
            self.row(at).drawn = self.rows[at as usize].present;
        }
        true
    }

    /// The observers of a member, heaviest first.
    pub fn observers(&self, of: u32) -> impl Iterator<Item = u32> {
        self.list(of).iter().copied().filter(|at| *at != NOBODY)
    }

    /// Those that `by` observes.
    pub fn observed_by(&self, by: u32) -> impl Iterator<Item = u32> {
        let observed = move |of: &u32| self.rows[*of as usize].present && self.list(*of).contains(&by);
        (0..self.rows.len() as u32).filter(observed)
    }

    fn row(&mut self, at: u32) -> &mut Row {
        &mut Arc::make_mut(&mut self.rows)[at as usize]
    }

    fn list(&self, of: u32) -> &[u32] {
        &self.lists[of as usize * self.count..][..self.count]
    }

    fn rebuild(&mut self, of: u32) {
        Arc::make_mut(&mut self.lists)[of as usize * self.count..][..self.count].fill(NOBODY);
        let row = self.row(of);
        (row.floor, row.open) = (0, true);
        for at in 0..self.rows.len() as u32 {
            if self.rows[at as usize].present {
                self.offer(of, at);
            }
        }
    }

    /// Takes `at` into the list of `of` where it belongs there.
    fn offer(&mut self, of: u32, at: u32) {
        let subject = &self.rows[of as usize];
        let weigh = |at: u32| rendezvous(subject.ring, self.rows[at as usize].ring);
        let weight = weigh(at);
        if of == at || (weight <= subject.floor && !subject.open) {
            return;
        }
        let mut rest = std::mem::take(&mut self.scratch);
        rest.clear();
        rest.push((weight, at));
        rest.extend(self.observers(of).map(|other| (weigh(other), other)));
        rest.sort_unstable_by(|one, other| other.cmp(one));

        let place = of as usize * self.count;
        let (mut taken, mut open, mut floor) = (0, false, u64::MAX);
        let lists = Arc::make_mut(&mut self.lists);
        for spread in [true, false] {
            rest.retain(|&(weight, at)| {
                let rack = self.rows[at as usize].rack;
                let doubled = rack != NO_RACK
                    && lists[place..place + taken].iter().any(|other| self.rows[*other as usize].rack == rack);
                if taken == self.count || (spread && doubled) {
                    return true;
                }
                lists[place + taken] = at;
                taken += 1;
                open |= doubled;
                floor = floor.min(weight);
                false
            });
        }
        open |= taken < self.count;
        let row = self.row(of);
        (row.floor, row.open) = (floor, open);
        self.scratch = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PeerId;

    /// The definition, without a short cut.
    fn expected(draw: &Draw, of: u32) -> BTreeSet<u32> {
        let mut all: Vec<u32> =
            (0..draw.rows.len() as u32).filter(|at| *at != of && draw.rows[*at as usize].present).collect();
        let rack = |at: u32| draw.rows[at as usize].rack;
        all.sort_by_key(|at| std::cmp::Reverse(rendezvous(draw.rows[of as usize].ring, draw.rows[*at as usize].ring)));
        let mut chosen = Vec::new();
        for spread in [true, false] {
            for at in &all {
                let doubled = rack(*at) != NO_RACK && chosen.iter().any(|other| rack(*other) == rack(*at));
                if chosen.len() < draw.count && !chosen.contains(at) && !(spread && doubled) {
                    chosen.push(*at);
                }
            }
        }
        chosen.into_iter().collect()
    }

    #[test]
    fn changes_one_by_one_give_what_all_at_once_would() {
        for racks in [0u64, 1, 3, 5, 9] {
            let mut draw = Draw::new(5);
            let mut dice = racks;
            let mut throw = |sides: u64| {
                dice = rendezvous(dice, 99);
                dice % sides
            };
            for at in 0..60u8 {
                draw.push(PeerId([at; 32]).ring());
            }
            for step in 0..600 {
                let at = throw(60) as u32;
                let rack = (racks > 0 && throw(4) > 0).then(|| format!("r{}", throw(racks)));
                draw.set(at, rack.as_deref(), throw(3) > 0);
                if step % 3 == 0 {
                    draw.settle();
                    for of in (0..60).filter(|of| draw.rows[*of as usize].present) {
                        assert_eq!(draw.observers(of).collect::<BTreeSet<_>>(), expected(&draw, of), "{racks} racks");
                    }
                }
            }
        }
    }

    #[test]
    fn observers_come_from_different_racks_and_work_is_spread() {
        let mut draw = Draw::new(5);
        for at in 0..100u8 {
            draw.push(PeerId([at; 32]).ring());
            draw.set(u32::from(at), Some(&format!("r{}", at % 10)), true);
        }
        draw.settle();
        for of in 0..100 {
            let racks: BTreeSet<u32> = draw.observers(of).map(|at| draw.rows[at as usize].rack).collect();
            assert_eq!(racks.len(), 5);
            assert!(draw.observed_by(of).count() <= 15, "nobody observes too many");
        }
    }
}
