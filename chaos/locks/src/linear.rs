//! Whether a history is linearizable: the search of Wing and Gong, with Lowe's memory of what was tried.
//!
//! An act may be taken as done at any moment between its beginning and its end. The search takes next any act that
//! began before all that are left have ended, and goes back where that leads nowhere. It never looks twice at the same
//! set of acts done with the same value.

use std::collections::HashSet;

use crate::history::Op;

/// So many states are tried; beyond, nothing is known.
const STATES_MAX: usize = 3_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    Violated,
    /// The search was too long.
    Undecided,
}

/// Checks the history of one key, which begins as 0.
pub fn check(ops: &[Op]) -> Verdict {
    // An act without an answer, of which nobody has seen anything, was perhaps never done: without such acts the search
    // is short. Where it finds no order they may be needed.
    let is_seen = |value: u64| ops.iter().any(|op| op.act.sees() == Some(value));
    let likely = ops.iter().filter(|op| op.ended.is_some() || op.act.leaves().is_some_and(is_seen));
    match search(&likely.copied().collect::<Vec<_>>()) {
        Verdict::Linearizable => Verdict::Linearizable,
        _ => search(ops),
    }
}

fn search(ops: &[Op]) -> Verdict {
    let mut ops: Vec<Op> = ops.to_vec();
    ops.sort_by_key(|op| op.begun);
    let certain = ops.iter().filter(|op| op.ended.is_some()).count();
    let mut tried: HashSet<(Vec<u64>, u64)> = HashSet::new();
    let mut done = Done { bits: vec![0; ops.len().div_ceil(64)], certain: 0 };
    // The acts taken so far, the value before each, and those that could be taken instead.
    let mut path: Vec<(usize, u64)> = Vec::new();
    let mut value = 0;
    let mut choices = vec![candidates(&ops, &done)];
    while done.certain < certain {
        let Some(rest) = choices.last_mut() else { return Verdict::Violated };
        let Some(next) = rest.pop() else {
            choices.pop();
            if let Some((taken, before)) = path.pop() {
                done.clear(&ops, taken);
                value = before;
            }
            continue;
        };
        let Some(after) = ops[next].act.on(value, ops[next].ended.is_some()) else { continue };
        done.set(&ops, next);
        if tried.insert((done.bits.clone(), after)) {
            path.push((next, value));
            value = after;
            choices.push(candidates(&ops, &done));
        } else {
            done.clear(&ops, next);
        }
        if tried.len() > STATES_MAX {
            return Verdict::Undecided;
        }
    }
    Verdict::Linearizable
}

/// Acts that are done.
struct Done {
    bits: Vec<u64>,
    /// How many of them have an end.
    certain: usize,
}

impl Done {
    fn has(&self, at: usize) -> bool {
        self.bits[at / 64] >> (at % 64) & 1 == 1
    }

    fn set(&mut self, ops: &[Op], at: usize) {
        self.bits[at / 64] |= 1 << (at % 64);
        self.certain += usize::from(ops[at].ended.is_some());
    }

    fn clear(&mut self, ops: &[Op], at: usize) {
        self.bits[at / 64] &= !(1 << (at % 64));
        self.certain -= usize::from(ops[at].ended.is_some());
    }
}

/// What may be done next; the best guess last: what ended first, and what has no end only if all else fails.
fn candidates(ops: &[Op], done: &Done) -> Vec<usize> {
    let left = || (0..ops.len()).filter(|at| !done.has(*at));
    let first_end = left().filter_map(|at| ops[at].ended).min().unwrap_or(u64::MAX);
    let mut able: Vec<usize> = left().take_while(|at| ops[*at].begun <= first_end).collect();
    able.sort_by_key(|at| std::cmp::Reverse(ops[*at].ended.unwrap_or(u64::MAX)));
    able
}
