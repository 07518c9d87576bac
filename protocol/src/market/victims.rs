//! What a machine would end to make room for work of a higher priority.

use super::wire::Cost;
use crate::ids::ClaimId;
use crate::model::{Claim, Resources};

/// Work may take the room of what is lower by at least this much: smaller differences only order the queue.
pub const PREEMPTS_BY: i32 = 10;

/// Whether work of this priority may end the claim.
pub fn is_prey(claim: &Claim, priority: i32) -> bool {
    i64::from(claim.priority) + i64::from(PREEMPTS_BY) <= i64::from(priority)
}

/// The claims that would have to end so that one copy of a need fits beside what is taken, and no more than have
/// to: those of the lowest priority first, and of these the youngest, for least is lost with them.
/// `None`: it fits not even then.
pub fn victims<'a>(
    capacity: &Resources,
    taken: &Resources,
    need: &Resources,
    prey: impl Iterator<Item = &'a Claim>,
) -> Option<Vec<&'a Claim>> {
    let mut prey: Vec<&Claim> = prey.collect();
    prey.sort_by_key(|claim| (claim.priority, std::cmp::Reverse(claim.accepted_at), claim.id));
    let mut left = taken.clone();
    let mut chosen = Vec::new();
    let fits = |left: &Resources| capacity.copies(left, need, 1) > 0;
    for claim in prey {
        if fits(&left) {
            break;
        }
        left.sub(&claim.need);
        chosen.push(claim);
    }
    if !fits(&left) {
        return None;
    }
    // The dearest first: is it needed at all?
    for at in (0..chosen.len()).rev() {
        let mut without = left.clone();
        without.add(&chosen[at].need);
        if fits(&without) {
            left = without;
            chosen.remove(at);
        }
    }
    Some(chosen)
}

/// What ending these claims costs.
pub fn cost<'a>(victims: impl Iterator<Item = &'a Claim>, now_wall: u64) -> Option<Cost> {
    let mut cost: Option<Cost> = None;
    for claim in victims {
        let sum = cost.get_or_insert(Cost { priority: i32::MIN, ..Cost::default() });
        sum.priority = sum.priority.max(claim.priority);
        sum.tasks += 1;
        let ran_ms = claim.started_at.map_or(0, |at| now_wall.saturating_sub(at));
        sum.ran_ms = sum.ran_ms.saturating_add(ran_ms);
    }
    cost
}

/// The identities of claims.
pub fn names(claims: &[&Claim]) -> Vec<ClaimId> {
    claims.iter().map(|claim| claim.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(n: u8, priority: i32, cpu: u64) -> Claim {
        let need = Resources::of(cpu, 1);
        Claim {
            id: ClaimId([n; 16]),
            priority,
            need,
            accepted_at: u64::from(n),
            started_at: Some(10),
            ..Claim::default()
        }
    }

    fn chosen(claims: &[Claim], need: u64) -> Option<Vec<u8>> {
        let mut taken = Resources::default();
        claims.iter().for_each(|claim| taken.add(&claim.need));
        let capacity = Resources::of(1000, 1000);
        let chosen = victims(&capacity, &taken, &Resources::of(need, 1), claims.iter());
        chosen.map(|all| all.iter().map(|claim| claim.id.0[0]).collect())
    }

    #[test]
    fn the_lowest_and_youngest_go_and_no_more_than_have_to() {
        let all = [claim(1, 0, 300), claim(2, 0, 300), claim(3, -5, 100), claim(4, 3, 300)];
        assert_eq!(chosen(&all, 100), Some(vec![3]));
        assert_eq!(chosen(&all, 300), Some(vec![2]), "the small one alone is not enough, and then not needed");
        assert_eq!(chosen(&all, 700), Some(vec![3, 2, 1]));
        assert_eq!(chosen(&all, 1001), None);
        assert_eq!(chosen(&[], 10), Some(vec![]));
    }

    #[test]
    fn ten_more_may_preempt_and_nine_may_not() {
        assert!(is_prey(&claim(1, 0, 1), 10) && !is_prey(&claim(1, 0, 1), 9));
        assert!(!is_prey(&claim(1, i32::MAX, 1), i32::MAX));
    }

    #[test]
    fn the_dearest_victim_decides_before_their_number() {
        let cost = |claims: &[Claim]| cost(claims.iter(), 110).unwrap();
        assert!(cost(&[claim(1, 0, 1), claim(2, 0, 1)]) < cost(&[claim(3, 1, 1)]));
        assert_eq!(cost(&[claim(1, 0, 1), claim(2, -3, 1)]), Cost { priority: 0, tasks: 2, ran_ms: 200 });
    }
}
