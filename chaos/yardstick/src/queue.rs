//! Virtual time: what is going to happen, in the order in which it will.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Happenings by time, and by when they were scheduled where times are equal.
pub struct Queue<E> {
    now_us: u64,
    tie: u64,
    heap: BinaryHeap<Scheduled<E>>,
}

struct Scheduled<E> {
    at_us: u64,
    tie: u64,
    what: E,
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.tie) == (other.at_us, other.tie)
    }
}
impl<E> Eq for Scheduled<E> {}
impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Scheduled<E> {
    /// The heap gives its greatest: the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_us, other.tie).cmp(&(self.at_us, self.tie))
    }
}

impl<E> Queue<E> {
    /// Time begins a second after zero, so that "a second ago" is always a time.
    pub fn new() -> Self {
        Self { now_us: 1_000_000, tie: 0, heap: BinaryHeap::new() }
    }

    /// The virtual time, µs.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// `what` is to happen at `at_us`, and not before now.
    pub fn schedule(&mut self, at_us: u64, what: E) {
        self.tie += 1;
        self.heap.push(Scheduled { at_us: at_us.max(self.now_us), tie: self.tie, what });
    }

    /// The next happening through `until_us`, whose time it becomes; `None`: it is `until_us` now.
    pub fn next(&mut self, until_us: u64) -> Option<E> {
        if self.heap.peek().is_some_and(|next| next.at_us <= until_us) {
            let next = self.heap.pop()?;
            self.now_us = next.at_us;
            return Some(next.what);
        }
        self.now_us = self.now_us.max(until_us);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_equals_in_their_order() {
        let mut queue = Queue::new();
        for (at_us, what) in [(3_000_000, 'c'), (2_000_000, 'a'), (2_000_000, 'b'), (0, 'n')] {
            queue.schedule(at_us, what);
        }
        let mut seen = String::new();
        while let Some(what) = queue.next(2_500_000) {
            seen.push(what);
        }
        assert_eq!((seen.as_str(), queue.now_us()), ("nab", 2_500_000));
        assert_eq!(queue.next(9_000_000), Some('c'));
        assert_eq!(queue.now_us(), 3_000_000);
    }
}
