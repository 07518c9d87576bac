//! The lock group's world holds its promises, sees each planted bug, and repeats itself; its judge of histories agrees
//! with trying everything.

use rialto_locks::plant::Plant;
use rialto_locks_sim::history::{Act, Op};
use rialto_locks_sim::linear::{Verdict, check};
use rialto_locks_sim::{Only, Settings, run};
use rialto_sim::Dice;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

fn settings(seed: u64) -> Settings {
    Settings { seed, nodes: 6, clients: 8, seconds: 30, plant: None, only: None }
}

#[test]
fn sixty_seeds_break_nothing() {
    for seed in 1..=60 {
        let outcome = run(settings(seed));
        assert!(outcome.broken.is_empty(), "SEED={seed}: {:?}", outcome.broken);
        assert!(outcome.grants > 0 && outcome.acts > 100 && outcome.undecided == 0, "SEED={seed}: {outcome:?}");
        assert!(outcome.voters >= 3 && outcome.terms > 1, "SEED={seed}: {outcome:?}");
    }
}

#[test]
fn a_stale_read_and_a_double_grant_are_seen() {
    for (plant, word) in [(Plant::StaleRead, "not linearizable"), (Plant::DoubleGrant, "the lock was granted")] {
        let seen = (1..=20).flat_map(|seed| run(Settings { plant: Some(plant), ..settings(seed) }).broken);
        assert!(seen.into_iter().any(|broken| broken.contains(word)), "{plant:?} was not seen");
    }
}

/// A leader that was away and does not know that there is another; machines that lose what they had promised.
#[test]
fn what_few_faults_bring_out_is_seen() {
    for (plant, only) in [(Plant::BlindRenewal, Only::Stray), (Plant::HastyPromise, Only::Blackout)] {
        let only = Some(only);
        let broken =
            |plant, most| (1..=most).any(|seed| !run(Settings { plant, only, ..settings(seed) }).broken.is_empty());
        assert!(!broken(None, 30), "{only:?} alone breaks something");
        // A renewal that nobody else knows of does harm in one seed of sixty.
        let panics = std::panic::catch_unwind(|| broken(Some(plant), 300));
        assert!(panics.unwrap_or(true), "{plant:?} was not seen");
    }
}

#[test]
fn a_seed_repeats_itself() {
    let told = |seed| format!("{:?}", run(settings(seed)));
    assert_eq!(told(7), told(7));
    assert_ne!(told(7), told(8));
}

/// Tries every order, of every choice of those acts that may never have been done.
fn every_order(ops: &[Op], done: u32, value: u64) -> bool {
    let left = |at: &usize| done & 1 << at == 0;
    let all: Vec<usize> = (0..ops.len()).filter(left).collect();
    if all.iter().all(|at| ops[*at].ended.is_none()) {
        return true;
    }
    all.iter().any(|at| {
        let may_be_next = all.iter().all(|other| ops[*other].ended.is_none_or(|ended| ended >= ops[*at].begun));
        let after = ops[*at].act.on(value, ops[*at].ended.is_some());
        may_be_next && after.is_some_and(|after| every_order(ops, done | 1 << at, after))
    })
}

/// What clients may have been told by one that serves a number, and by one that does not.
fn history(dice: &mut Dice, most: u64) -> Vec<Op> {
    (0..dice.between(2, most))
        .map(|_| {
            let begun = dice.below(12);
            let ended = (!dice.chance(0.15)).then(|| begun + 1 + dice.below(6));
            let act = match dice.below(3) {
                0 => Act::Write(dice.between(1, 3)),
                1 => Act::Read(dice.below(4)),
                _ => Act::Swap(dice.below(3), dice.between(1, 3), dice.chance(0.5)),
            };
            Op { begun, ended, act }
        })
        .filter(|op| op.ended.is_some() || !matches!(op.act, Act::Read(_)))
        .collect()
}

#[test]
fn the_judge_agrees_with_trying_everything() {
    let mut dice = Dice::new(1, "histories");
    let mut verdicts = [0; 2];
    for _ in 0..20_000 {
        let ops = history(&mut dice, 6);
        let holds = every_order(&ops, 0, 0);
        assert_eq!(check(&ops) == Verdict::Linearizable, holds, "{ops:?}");
        verdicts[usize::from(holds)] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 1_000), "both verdicts are met often: {verdicts:?}");
}

/// The number, for stateright: what was wanted of it, and what was told.
#[derive(Clone, Default)]
struct Number(u64);

#[derive(Clone, Debug, PartialEq)]
enum Wanted {
    Write(u64),
    Read,
    Swap(u64, u64),
}

#[derive(Clone, Debug, PartialEq)]
enum Told {
    Written,
    Value(u64),
    Swapped(bool),
}

impl SequentialSpec for Number {
    type Op = Wanted;
    type Ret = Told;

    fn invoke(&mut self, wanted: &Wanted) -> Told {
        match *wanted {
            Wanted::Write(new) => {
                self.0 = new;
                Told::Written
            }
            Wanted::Read => Told::Value(self.0),
            Wanted::Swap(old, new) => {
                let does = self.0 == old;
                self.0 = if does { new } else { self.0 };
                Told::Swapped(does)
            }
        }
    }
}

/// The verdict of stateright's tester. Each act is a thread's of its own; of what happens at the same time, what begins
/// comes first.
fn stateright_says(ops: &[Op]) -> bool {
    let told = |act: Act| match act {
        Act::Write(new) => (Wanted::Write(new), Told::Written),
        Act::Read(seen) => (Wanted::Read, Told::Value(seen)),
        Act::Swap(old, new, done) => (Wanted::Swap(old, new), Told::Swapped(done)),
    };
    let begins = ops.iter().enumerate().map(|(at, op)| (op.begun, 0, at));
    let ends = ops.iter().enumerate().filter_map(|(at, op)| Some((op.ended?, 1, at)));
    let mut happened: Vec<(u64, u8, usize)> = begins.chain(ends).collect();
    happened.sort_unstable();
    let mut tester = LinearizabilityTester::new(Number::default());
    for (_, kind, at) in happened {
        let (wanted, answer) = told(ops[at].act);
        let taken = if kind == 0 { tester.on_invoke(at, wanted) } else { tester.on_return(at, answer) };
        taken.expect("a thread does one thing after the other");
    }
    tester.is_consistent()
}

#[test]
fn the_judge_agrees_with_staterights() {
    let mut dice = Dice::new(2, "histories");
    let mut verdicts = [0; 2];
    for _ in 0..4_000 {
        let ops = history(&mut dice, 7);
        let holds = stateright_says(&ops);
        assert_eq!(check(&ops) == Verdict::Linearizable, holds, "{ops:?}");
        verdicts[usize::from(holds)] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 200), "both verdicts are met often: {verdicts:?}");
}
