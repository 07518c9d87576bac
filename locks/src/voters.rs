//! Who is to vote: the first three that stay, then five, on distinct racks, the oldest first.
//!
//! Votes are given by the leader, through the log, and so only where there is a quorum. A voter is never taken out
//! because news call it down: only when another takes its place, or when people have removed its machine.

use std::collections::{BTreeMap, BTreeSet};

/// A peer must have been alive so long to become one of the first three voters, ms.
pub const ALIVE_MS_MIN: u64 = 2_000;
/// And so long to become one of five, or to take the place of another.
pub const SETTLED_MS_MIN: u64 = 30_000;
/// A voter must have been down so long before another takes its place.
pub const GRACE_MS: u64 = 60_000;
/// The most voters.
pub const VOTERS_MAX: usize = 5;

/// What news say of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub node: u64,
    pub standing: Standing,
    /// When its present life began, by its own clock, ms since 1970: the lower, the older.
    pub since_ms: u64,
    /// The value of its label `rack`.
    pub rack: Option<String>,
}

/// How a peer is, and for how long it has been so as far as the leader saw it, ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Alive(u64),
    Down(u64),
    /// Its machine was removed from the cluster, or goes.
    Departed,
}

impl Candidate {
    fn is_alive_for(&self, ms: u64) -> bool {
        matches!(self.standing, Standing::Alive(for_ms) if for_ms >= ms)
    }
}

/// Who should vote, given who does: the same set where nothing is to change.
pub fn wanted(voters: &BTreeSet<u64>, candidates: &[Candidate]) -> BTreeSet<u64> {
    let known: BTreeMap<u64, &Candidate> = candidates.iter().map(|candidate| (candidate.node, candidate)).collect();
    let is_lost = |node: &u64| match known.get(node).map(|candidate| candidate.standing) {
        Some(Standing::Down(for_ms)) => for_ms >= GRACE_MS,
        Some(Standing::Departed) => true,
        // News may come late; only what was said counts.
        Some(Standing::Alive(_)) | None => false,
    };
    let has_departed = |node: &u64| known.get(node).is_some_and(|one| one.standing == Standing::Departed);
    let mut kept: BTreeSet<u64> = voters.iter().copied().filter(|node| !is_lost(node)).collect();
    let lost: Vec<u64> = voters.iter().copied().filter(is_lost).collect();

    let settled = candidates.iter().filter(|one| one.is_alive_for(SETTLED_MS_MIN)).count();
    let size = if voters.len() > 3 || settled >= VOTERS_MAX { VOTERS_MAX } else { 3 };
    // The first three are taken as they come; later ones have to have settled.
    let alive_ms = if voters.len() < 3 { ALIVE_MS_MIN } else { SETTLED_MS_MIN };
    while kept.len() < size {
        let Some(next) = next(&kept, candidates, alive_ms) else { break };
        kept.insert(next);
    }
    // The lost stay where nobody takes their place, as long as their machines belong to the cluster.
    let places = size.saturating_sub(kept.len());
    kept.extend(lost.into_iter().filter(|node| !has_departed(node)).take(places));
    // An even number of voters bears no more losses than the odd one below it: the one too many waits, and learns.
    if kept.len().is_multiple_of(2) {
        let newest =
            kept.iter().copied().filter(|node| !voters.contains(node)).max_by_key(|node| rank(known.get(node)));
        if let Some(newest) = newest {
            kept.remove(&newest);
        }
    }
    if kept.is_empty() { voters.clone() } else { kept }
}

/// Who should learn what voters know, to take a place among them at once: one peer, while there are but one or two.
pub fn learner(wanted: &BTreeSet<u64>, candidates: &[Candidate]) -> Option<u64> {
    if wanted.len() < 3 { next(wanted, candidates, ALIVE_MS_MIN) } else { None }
}

/// The best peer that has no vote: on the rack with the fewest voters, then the oldest.
fn next(voters: &BTreeSet<u64>, candidates: &[Candidate], alive_ms: u64) -> Option<u64> {
    let on_rack = |rack: &Option<String>| {
        let voting = candidates.iter().filter(|one| voters.contains(&one.node));
        // Where no rack is told every machine is its own.
        rack.as_ref().map_or(0, |rack| voting.filter(|one| one.rack.as_ref() == Some(rack)).count())
    };
    let free = candidates.iter().filter(|one| !voters.contains(&one.node) && one.is_alive_for(alive_ms));
    free.min_by_key(|one| (on_rack(&one.rack), one.since_ms, one.node)).map(|one| one.node)
}

fn rank(candidate: Option<&&Candidate>) -> (u64, u64) {
    candidate.map_or((u64::MAX, 0), |one| (one.since_ms, one.node))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(node: u64, standing: Standing, rack: &str) -> Candidate {
        let rack = (!rack.is_empty()).then(|| rack.to_string());
        Candidate { node, standing, since_ms: node, rack }
    }

    fn alive(nodes: std::ops::RangeInclusive<u64>, ms: u64) -> Vec<Candidate> {
        nodes.map(|node| peer(node, Standing::Alive(ms), "")).collect()
    }

    fn set(nodes: &[u64]) -> BTreeSet<u64> {
        nodes.iter().copied().collect()
    }

    #[test]
    fn one_then_three_then_five() {
        assert_eq!(wanted(&set(&[1]), &alive(1..=1, 99_000)), set(&[1]));
        assert_eq!(wanted(&set(&[1]), &alive(1..=2, 99_000)), set(&[1]), "two bear no more than one");
        assert_eq!(learner(&set(&[1]), &alive(1..=2, 2_000)), Some(2));
        assert_eq!(wanted(&set(&[1]), &alive(1..=3, 2_000)), set(&[1, 2, 3]));
        assert_eq!(wanted(&set(&[1]), &alive(1..=3, 1_999)), set(&[1]));
        assert_eq!(wanted(&set(&[1, 2, 3]), &alive(1..=5, 29_999)), set(&[1, 2, 3]));
        assert_eq!(wanted(&set(&[1, 2, 3]), &alive(1..=4, 30_000)), set(&[1, 2, 3]));
        assert_eq!(wanted(&set(&[1, 2, 3]), &alive(1..=9, 30_000)), set(&[1, 2, 3, 4, 5]));
        assert_eq!(learner(&set(&[1, 2, 3]), &alive(1..=9, 30_000)), None);
    }

    #[test]
    fn news_of_a_death_take_nobody_out_before_another_takes_the_place() {
        let mut peers = alive(1..=4, 40_000);
        peers[1].standing = Standing::Down(59_999);
        assert_eq!(wanted(&set(&[1, 2, 3]), &peers), set(&[1, 2, 3]));
        peers[1].standing = Standing::Down(60_000);
        assert_eq!(wanted(&set(&[1, 2, 3]), &peers), set(&[1, 3, 4]));
        peers[3].standing = Standing::Alive(1_000);
        assert_eq!(wanted(&set(&[1, 2, 3]), &peers), set(&[1, 2, 3]), "nobody has settled who could");
        peers[2].standing = Standing::Down(600_000);
        assert_eq!(wanted(&set(&[1, 2, 3]), &peers[..3]), set(&[1, 2, 3]), "never shrunk by news");
    }

    #[test]
    fn a_machine_that_was_removed_votes_no_more() {
        let mut peers = alive(1..=3, 40_000);
        peers[2].standing = Standing::Departed;
        assert_eq!(wanted(&set(&[1, 2, 3]), &peers), set(&[1, 2]));
        peers[0].standing = Standing::Departed;
        assert_eq!(wanted(&set(&[1, 2, 3]), &peers), set(&[2]));
    }

    #[test]
    fn racks_come_before_age() {
        let at = |node, rack| peer(node, Standing::Alive(40_000), rack);
        let peers = [at(1, "a"), at(2, "a"), at(3, "b"), at(4, "b"), at(5, "c")];
        assert_eq!(wanted(&set(&[1]), &peers[..4]), set(&[1, 2, 3]));
        let peers = [at(1, "a"), at(2, "a"), at(3, "b"), at(4, "c")];
        assert_eq!(wanted(&set(&[1]), &peers), set(&[1, 3, 4]));
    }
}
