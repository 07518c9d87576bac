//! Requests that the brain has not answered yet.

use std::collections::HashMap;

use rialto_protocol::effect::{Refusal, Reply};
use tokio::sync::oneshot;

/// Requests under way; beyond it the next is refused as busy.
const PENDING_MAX: usize = 10_000;

type Answer = oneshot::Sender<Result<Reply, Refusal>>;

#[derive(Default)]
pub struct Pending {
    last: u64,
    answers: HashMap<u64, Answer>,
}

impl Pending {
    /// Numbers a request; `None`: it was refused, and told so.
    pub fn add(&mut self, answer: Answer) -> Option<u64> {
        if self.answers.len() >= PENDING_MAX {
            // Askers that have gone away leave their places.
            self.answers.retain(|_, answer| !answer.is_closed());
        }
        if self.answers.len() >= PENDING_MAX {
            let _ = answer.send(Err(Refusal::Busy));
            return None;
        }
        self.last += 1;
        self.answers.insert(self.last, answer);
        Some(self.last)
    }

    /// Answers a request, if its asker still waits.
    pub fn answer(&mut self, request: u64, reply: Result<Reply, Refusal>) {
        if let Some(answer) = self.answers.remove(&request) {
            let _ = answer.send(reply);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_bound_requests_are_refused_until_somebody_leaves() {
        let mut pending = Pending::default();
        let mut waiting: Vec<_> = (0..PENDING_MAX)
            .map(|_| {
                let (answer, waits) = oneshot::channel();
                pending.add(answer).unwrap();
                waits
            })
            .collect();
        let (answer, mut refused) = oneshot::channel();
        assert_eq!(pending.add(answer), None);
        assert_eq!(refused.try_recv(), Ok(Err(Refusal::Busy)));

        drop(waiting.pop());
        let (answer, mut granted) = oneshot::channel();
        let id = pending.add(answer).unwrap();
        pending.answer(id, Ok(Reply::Done));
        assert_eq!(granted.try_recv(), Ok(Ok(Reply::Done)));
        pending.answer(id, Ok(Reply::Done));
    }
}
