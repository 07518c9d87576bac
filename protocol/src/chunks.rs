//! A vector that copies share: cut into chunks, and a chunk is copied when it is written to.
//!
//! A peer in a process of its own has no use for that. Where thousands are simulated in one, nearly
//! all of what each believes of the others is the same, and is held once.

use std::ops::{Index, IndexMut};
use std::sync::Arc;

/// The elements of a chunk: what is copied where one of them changes.
const WIDTH: usize = 16;

#[derive(Clone, Debug)]
pub(crate) struct Chunks<T> {
    /// All but the last have [`WIDTH`] elements.
    chunks: Vec<Arc<[T]>>,
    len: usize,
}

impl<T> Default for Chunks<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<T> Chunks<T> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }
}

impl<T: Clone> Chunks<T> {
    pub fn push(&mut self, one: T) {
        match self.chunks.last_mut().filter(|chunk| chunk.len() < WIDTH) {
            Some(last) => *last = last.iter().cloned().chain([one]).collect(),
            None => self.chunks.push(Arc::from([one])),
        }
        self.len += 1;
    }
}

/// What can be found to be held twice.
pub trait Alike: Clone {
    /// It is held once.
    fn is_same(&self, other: &Self) -> bool;
    /// It may be held twice, and says the same.
    fn is_alike(&self, other: &Self) -> bool;
}

impl<T: PartialEq> Alike for Arc<T> {
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other)
    }

    fn is_alike(&self, other: &Self) -> bool {
        Arc::ptr_eq(self, other) || **self == **other
    }
}

impl<T: Alike> Alike for Option<T> {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Some(one), Some(other)) => one.is_same(other),
            _ => self.is_none() && other.is_none(),
        }
    }

    fn is_alike(&self, other: &Self) -> bool {
        match (self, other) {
            (Some(one), Some(other)) => one.is_alike(other),
            _ => self.is_none() && other.is_none(),
        }
    }
}

impl<T: Alike> Chunks<T> {
    /// What is alike in both is held once from now on.
    pub fn share(&mut self, other: &Self) {
        for (mine, theirs) in self.chunks.iter_mut().zip(&other.chunks) {
            if Arc::ptr_eq(mine, theirs) || mine.len() != theirs.len() {
                continue;
            }
            let alike: Vec<bool> = mine.iter().zip(theirs.iter()).map(|(one, other)| one.is_alike(other)).collect();
            if alike.iter().all(|alike| *alike) {
                *mine = theirs.clone();
                continue;
            }
            for at in (0..mine.len()).filter(|at| alike[*at]) {
                if !mine[at].is_same(&theirs[at]) {
                    Arc::make_mut(mine)[at] = theirs[at].clone();
                }
            }
        }
    }
}

impl<T> Chunks<Arc<T>> {
    /// Whether an element is held elsewhere, too, so that it is copied when it is written to.
    pub fn is_shared(&self, at: usize) -> bool {
        let chunk = &self.chunks[at / WIDTH];
        Arc::strong_count(chunk) > 1 || Arc::strong_count(&chunk[at % WIDTH]) > 1
    }
}

impl<T> Index<usize> for Chunks<T> {
    type Output = T;

    fn index(&self, at: usize) -> &T {
        &self.chunks[at / WIDTH][at % WIDTH]
    }
}

impl<T: Clone> IndexMut<usize> for Chunks<T> {
    fn index_mut(&mut self, at: usize) -> &mut T {
        &mut Arc::make_mut(&mut self.chunks[at / WIDTH])[at % WIDTH]
    }
}

impl<T: Clone> FromIterator<T> for Chunks<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let mut all = all.into_iter().peekable();
        let mut new = Self::default();
        while all.peek().is_some() {
            let chunk: Arc<[T]> = all.by_ref().take(WIDTH).collect();
            new.len += chunk.len();
            new.chunks.push(chunk);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_shares_all_but_what_was_written_to() {
        let of = |n: u32| Arc::new(n);
        let mut one: Chunks<Arc<u32>> = (0..40).map(of).collect();
        one.push(of(40));
        let mut other = one.clone();
        (other[20], other[21]) = (of(7), of(21));
        assert_eq!((*one[20], *other[20], one.len()), (20, 7, 41));
        assert!(one.iter().map(|one| **one).eq(0..=40));
        let shared = |a: &Chunks<Arc<u32>>, b: &Chunks<Arc<u32>>| {
            a.chunks.iter().zip(&b.chunks).map(|(a, b)| Arc::ptr_eq(a, b)).collect::<Vec<_>>()
        };
        assert_eq!(shared(&one, &other), [true, false, true]);
        other.share(&one);
        assert_eq!(shared(&one, &other), [true, false, true], "what differs is not taken over");
        assert!(*other[20] == 7 && Arc::ptr_eq(&other[21], &one[21]));
        other[20] = of(20);
        other.share(&one);
        assert_eq!(shared(&one, &other), [true; 3]);
    }
}
