//! The keeper of one task's lease.

use super::{Answer, Ask, Need, RENEW_MS, RETRY_MS, TTL_SECONDS, Word, lease_of, until};
use crate::ids::ClaimId;
use crate::model::singleton::Guard;

/// A lease with less of its time left than this is renewed before anything is started under it, ms.
const START_MS_MIN: u64 = 5_000;
/// A lease that nobody needs is given up for so long, ms: then it has ended by itself.
const RELEASE_MS: u64 = TTL_SECONDS as u64 * 1000;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Ask the group; an earlier question without an answer is given up.
    Ask(Ask),
    /// The task may run until then, and not longer: by the clock that the keeper is told the time of, ms.
    Until(u64),
    /// Tell whoever runs the task.
    Say(Word),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing is had yet.
    Fresh,
    /// The task runs already: its lease has to be the one that it was started under.
    Adopted,
    /// There is a lease, and no place.
    Leased,
    /// There is a place, and others may be before it.
    Queued,
    Held,
    /// The task is gone: the lease is given up.
    Leaving,
    Over,
}

/// Decides what the group is asked for one task. One question is on its way at a time; each has an answer, or a failure.
#[derive(Debug)]
pub struct Keeper {
    need: Need,
    lease: i64,
    phase: Phase,
    /// What was asked, and when.
    asked: Option<(Ask, u64)>,
    /// Nothing is asked before.
    again_ms: u64,
    renew_ms: u64,
    until_ms: u64,
    token: i64,
    /// Until when the lease is worth giving up.
    leave_ms: u64,
    /// What was said last of the waiting.
    said: Option<String>,
}

impl Keeper {
    pub fn new(claim: &ClaimId, need: Need) -> Self {
        let phase = if need.fence.is_some() { Phase::Adopted } else { Phase::Fresh };
        Self {
            lease: lease_of(claim),
            phase,
            asked: None,
            again_ms: 0,
            renew_ms: 0,
            until_ms: 0,
            token: 0,
            leave_ms: 0,
            said: None,
            need,
        }
    }

    /// Nothing more will come of it.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// When [`Keeper::turn`] is due; `None`: only after an answer.
    pub fn next_deadline(&self) -> Option<u64> {
        let end = (self.phase == Phase::Held).then_some(self.until_ms);
        let next = match (&self.asked, self.phase) {
            (_, Phase::Over) => return None,
            (Some(_), _) => None,
            (None, Phase::Held) => Some(self.again_ms.max(self.renew_ms)),
            (None, _) => Some(self.again_ms),
        };
        end.into_iter().chain(next).min()
    }

    /// Time has passed.
    pub fn turn(&mut self, now_ms: u64) -> Vec<Act> {
        let mut acts = Vec::new();
        self.go_on(now_ms, &mut acts);
        acts
    }

    /// The task is gone, or never started.
    pub fn release(&mut self, now_ms: u64) -> Vec<Act> {
        let mut acts = Vec::new();
        if !matches!(self.phase, Phase::Leaving | Phase::Over) {
            let has_none = self.need.guard == Guard::Once || (self.phase == Phase::Fresh && self.asked.is_none());
            self.phase = if has_none { Phase::Over } else { Phase::Leaving };
            (self.asked, self.again_ms, self.leave_ms) = (None, 0, now_ms + RELEASE_MS);
            self.go_on(now_ms, &mut acts);
        }
        acts
    }

    /// What the group said to the question that is on its way; or why it said nothing.
    pub fn answered(&mut self, now_ms: u64, answer: Result<Answer, String>) -> Vec<Act> {
        let mut acts = Vec::new();
        let Some((ask, sent_ms)) = self.asked.take() else { return acts };
        match answer {
            Ok(answer) => self.take(now_ms, sent_ms, &ask, answer, &mut acts),
            Err(why) => {
                self.again_ms = now_ms + RETRY_MS;
                self.waits(why, &mut acts);
            }
        }
        self.go_on(now_ms, &mut acts);
        acts
    }

    fn take(&mut self, now_ms: u64, sent_ms: u64, ask: &Ask, answer: Answer, acts: &mut Vec<Act>) {
        match (ask, answer) {
            (Ask::Revoke { .. }, _) => self.phase = Phase::Over,
            (Ask::Grant { .. } | Ask::Renew { .. }, Answer::Lives) => {
                (self.until_ms, self.renew_ms) = (until(sent_ms), sent_ms + RENEW_MS);
                match self.phase {
                    Phase::Fresh => self.phase = Phase::Leased,
                    Phase::Held => acts.push(Act::Until(self.until_ms)),
                    _ => {}
                }
            }
            // A question before this one was heard, and its answer was not.
            (Ask::Grant { .. }, Answer::Exists) => (self.phase, self.renew_ms) = (Phase::Leased, 0),
            (Ask::Renew { .. } | Ask::Enqueue { .. } | Ask::Await { .. }, Answer::Gone) => match self.phase {
                Phase::Held | Phase::Adopted => self.lose(now_ms, "it ended, or was broken", acts),
                _ => self.phase = Phase::Fresh,
            },
            (Ask::Enqueue { .. }, Answer::Placed { token }) => {
                self.token = token;
                match (self.phase, self.need.fence) {
                    (Phase::Adopted, Some(fence)) if fence == token as u64 => {
                        self.phase = Phase::Held;
                        acts.push(Act::Until(self.until_ms));
                    }
                    (Phase::Adopted, _) => self.lose(now_ms, "it had ended, and others may have had one since", acts),
                    _ => self.phase = Phase::Queued,
                }
            }
            (Ask::Await { .. }, Answer::First) if self.until_ms < now_ms + START_MS_MIN => self.renew_ms = 0,
            (Ask::Await { .. }, Answer::First) => {
                self.phase = Phase::Held;
                acts.push(Act::Until(self.until_ms));
                acts.push(Act::Say(Word::Granted { token: self.token as u64 }));
            }
            (Ask::Await { .. }, Answer::Behind { holder }) => self.waits(format!("it is held by {holder}"), acts),
            (Ask::Claim { .. }, Answer::Mine { token }) => {
                self.phase = Phase::Over;
                acts.push(Act::Say(Word::Granted { token: token as u64 }));
            }
            (Ask::Claim { .. }, Answer::Taken { by }) => {
                self.phase = Phase::Over;
                acts.push(Act::Say(Word::Spent(by)));
            }
            (..) => {
                self.again_ms = now_ms + RETRY_MS;
                self.waits("it answered what was not asked".into(), acts);
            }
        }
    }

    fn go_on(&mut self, now_ms: u64, acts: &mut Vec<Act>) {
        match self.phase {
            Phase::Held if self.until_ms <= now_ms => self.lose(now_ms, "it could not be renewed", acts),
            // It may have ended meanwhile, and its place with it.
            Phase::Leased | Phase::Queued if self.until_ms <= now_ms && self.asked.is_none() => self.renew_ms = 0,
            Phase::Leaving if self.leave_ms <= now_ms => self.phase = Phase::Over,
            _ => {}
        }
        if self.asked.is_some() || now_ms < self.again_ms {
            return;
        }
        let Need { name, holder, .. } = &self.need;
        let (lease, is_due) = (self.lease, self.renew_ms <= now_ms);
        let (name, holder) = (name.clone(), holder.clone());
        let ask = match self.phase {
            Phase::Over => return,
            Phase::Fresh if self.need.guard == Guard::Once => {
                let Need { run, floor, .. } = &self.need;
                Ask::Claim { name, run: run.clone(), floor: floor.clone(), holder }
            }
            Phase::Fresh => Ask::Grant { lease, ttl_seconds: TTL_SECONDS },
            Phase::Leaving => Ask::Revoke { lease },
            Phase::Held if !is_due => return,
            _ if is_due => Ask::Renew { lease },
            Phase::Queued => Ask::Await { name, lease, token: self.token, wait_ms: self.renew_ms - now_ms },
            _ => Ask::Enqueue { name, lease, holder },
        };
        self.asked = Some((ask.clone(), now_ms));
        acts.push(Act::Ask(ask));
    }

    fn lose(&mut self, now_ms: u64, why: &str, acts: &mut Vec<Act>) {
        self.phase = Phase::Over;
        self.asked = None;
        acts.push(Act::Until(now_ms));
        acts.push(Act::Say(Word::Lost(why.into())));
    }

    /// Says why it waits, where that is news.
    fn waits(&mut self, why: String, acts: &mut Vec<Act>) {
        let is_waiting = matches!(self.phase, Phase::Fresh | Phase::Leased | Phase::Queued);
        if is_waiting && self.said.as_ref() != Some(&why) {
            self.said = Some(why.clone());
            acts.push(Act::Say(Word::Waits(why)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AppId, TaskId};

    fn need(guard: Guard, fence: Option<u64>) -> Need {
        let app = AppId { namespace: "default".into(), name: "shop".into(), generation: 1 };
        let task = TaskId { app, service: "db".into(), slot: "1".into() };
        Need::of(guard, &task, &ClaimId([1; 16]), "m1", fence)
    }

    fn keeper(fence: Option<u64>) -> Keeper {
        Keeper::new(&ClaimId([1; 16]), need(Guard::Lease, fence))
    }

    fn asks(acts: &[Act]) -> Option<&Ask> {
        acts.iter().find_map(|act| if let Act::Ask(ask) = act { Some(ask) } else { None })
    }

    /// A keeper that holds its lease since 0, with token 7.
    fn held() -> Keeper {
        let mut keeper = keeper(None);
        assert!(matches!(asks(&keeper.turn(0)), Some(Ask::Grant { .. })));
        assert!(matches!(asks(&keeper.answered(10, Ok(Answer::Lives))), Some(Ask::Enqueue { .. })));
        let acts = keeper.answered(20, Ok(Answer::Placed { token: 7 }));
        assert!(matches!(asks(&acts), Some(Ask::Await { token: 7, wait_ms: 2_480, .. })));
        let acts = keeper.answered(30, Ok(Answer::First));
        assert_eq!(acts, [Act::Until(9_700), Act::Say(Word::Granted { token: 7 })]);
        keeper
    }

    #[test]
    fn the_end_is_reckoned_from_when_the_renewal_was_sent() {
        let mut keeper = held();
        assert_eq!(keeper.next_deadline(), Some(2_500));
        assert!(matches!(asks(&keeper.turn(2_600)), Some(Ask::Renew { .. })));
        assert_eq!(keeper.answered(5_000, Ok(Answer::Lives)), [Act::Until(until(2_600))]);
        assert_eq!(keeper.next_deadline(), Some(5_100));
        // Its group is away, and it tries until its time is over.
        keeper.turn(5_100);
        let mut now = 5_200;
        while now < until(2_600) {
            keeper.answered(now, Err("too few voters".into()));
            now += RETRY_MS;
            keeper.turn(now);
        }
        assert!(keeper.is_over() && keeper.next_deadline().is_none());
    }

    #[test]
    fn what_has_ended_is_lost_at_once_and_is_not_made_anew() {
        let mut keeper = held();
        keeper.turn(2_500);
        let acts = keeper.answered(2_510, Ok(Answer::Gone));
        assert!(matches!(&acts[..], [Act::Until(2_510), Act::Say(Word::Lost(_))]), "{acts:?}");
        assert!(keeper.is_over());
    }

    #[test]
    fn a_task_that_runs_goes_on_under_its_own_lease_alone() {
        for (token, goes_on) in [(7, true), (8, false)] {
            let mut keeper = keeper(Some(7));
            assert!(matches!(asks(&keeper.turn(100)), Some(Ask::Renew { .. })), "it grants none");
            assert!(matches!(asks(&keeper.answered(110, Ok(Answer::Lives))), Some(Ask::Enqueue { .. })));
            let acts = keeper.answered(120, Ok(Answer::Placed { token }));
            assert_eq!(acts[0], Act::Until(if goes_on { until(100) } else { 120 }));
            assert_eq!(keeper.is_over(), !goes_on);
        }
        let mut keeper = keeper(Some(7));
        keeper.turn(0);
        keeper.answered(5_000, Err("too few voters".into()));
        keeper.turn(6_000);
        assert!(matches!(keeper.answered(6_001, Ok(Answer::Gone))[..], [Act::Until(6_001), Act::Say(Word::Lost(_))]));
    }

    #[test]
    fn whoever_waits_keeps_its_lease_and_says_for_whom() {
        let mut keeper = keeper(None);
        keeper.turn(0);
        keeper.answered(1, Ok(Answer::Lives));
        keeper.answered(2, Ok(Answer::Placed { token: 9 }));
        let behind = || Ok(Answer::Behind { holder: "m2".into() });
        let acts = keeper.answered(2_500, behind());
        assert_eq!(acts[0], Act::Say(Word::Waits("it is held by m2".into())));
        assert!(matches!(asks(&acts), Some(Ask::Renew { .. })));
        assert!(matches!(asks(&keeper.answered(2_501, Ok(Answer::Lives))), Some(Ask::Await { .. })));
        assert!(asks(&keeper.answered(5_000, behind())).is_some_and(|ask| matches!(ask, Ask::Renew { .. })));
        // Its turn came while too little of the lease was left: it is renewed first.
        keeper.answered(6_000, Ok(Answer::Lives));
        let acts = keeper.answered(10_000, Ok(Answer::First));
        assert!(matches!(asks(&acts), Some(Ask::Renew { .. })) && acts.len() == 1, "{acts:?}");
        // Nobody needs it any more.
        assert!(matches!(asks(&keeper.release(10_100)), Some(Ask::Revoke { .. })));
        keeper.answered(10_200, Err("lost".into()));
        assert!(matches!(asks(&keeper.turn(10_500)), Some(Ask::Revoke { .. })));
        keeper.answered(10_600, Ok(Answer::Gone));
        assert!(keeper.is_over());
    }

    #[test]
    fn a_run_is_had_once() {
        for (answer, word) in [
            (Answer::Mine { token: 3 }, Word::Granted { token: 3 }),
            (Answer::Taken { by: "m2".into() }, Word::Spent("m2".into())),
        ] {
            let mut keeper = Keeper::new(&ClaimId([1; 16]), need(Guard::Once, None));
            assert!(matches!(asks(&keeper.turn(0)), Some(Ask::Claim { .. })));
            assert_eq!(keeper.answered(1, Err("none".into())), [Act::Say(Word::Waits("none".into()))]);
            assert!(matches!(asks(&keeper.turn(251)), Some(Ask::Claim { .. })));
            assert_eq!(keeper.answered(300, Ok(answer)), [Act::Say(word)]);
            assert!(keeper.is_over());
        }
    }

    #[test]
    fn the_stop_comes_in_time() {
        assert_eq!((term_at(10_000, 10_000), kill_at(10_000), term_at(10_000, 0)), (7_700, 9_700, 9_700));
        assert_eq!(lease_of(&ClaimId([1; 16])), lease_of(&ClaimId([1; 16])));
    }

    use super::super::{kill_at, term_at};
}
