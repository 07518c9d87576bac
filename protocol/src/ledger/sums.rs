//! Hashes over ranges of the ring: two ledgers find out where they differ with a few hundred bytes.
//!
//! Each owner stands in the range of its place on the ring, and a range's hash is the sum modulo two
//! of its owners' numbers, mixed. Any power of two of ranges can be had of the finest.

use std::ops::RangeInclusive;

use crate::ids::rendezvous;

/// The finest ranges.
const RANGES: usize = 256;
/// As many owners as there should be in a range.
const OWNERS: usize = 16;

#[derive(Clone, Debug)]
pub(super) struct Sums([u64; RANGES]);

impl Default for Sums {
    fn default() -> Self {
        Self([0; RANGES])
    }
}

impl Sums {
    /// An owner's number is another now; 0 is none.
    pub fn moved(&mut self, ring: u64, before: u64, after: u64) {
        let mixed = |number: u64| if number == 0 { 0 } else { rendezvous(ring, number) };
        self.0[(ring >> (64 - RANGES.ilog2())) as usize] ^= mixed(before) ^ mixed(after);
    }

    /// The sums of as many ranges as so many owners want.
    pub fn of(&self, owners: usize) -> Vec<u64> {
        self.coarse((owners / OWNERS).next_power_of_two().min(RANGES))
    }

    fn coarse(&self, count: usize) -> Vec<u64> {
        self.0.chunks(RANGES / count).map(|some| some.iter().fold(0, |sum, one| sum ^ one)).collect()
    }

    /// The ranges in which others' sums differ. Nothing differs from what is no power of two.
    pub fn differing(&self, theirs: &[u64]) -> Vec<u16> {
        if !theirs.len().is_power_of_two() || theirs.len() > RANGES {
            return Vec::new();
        }
        let pairs = self.coarse(theirs.len()).into_iter().zip(theirs);
        pairs.enumerate().filter(|(_, (mine, theirs))| mine != *theirs).map(|(at, _)| at as u16).collect()
    }

    /// The places on the ring that a range of so many takes.
    pub fn range(range: u16, of: u16) -> Option<RangeInclusive<u64>> {
        if !of.is_power_of_two() || usize::from(of) > RANGES || range >= of {
            return None;
        }
        let width = u64::MAX / u64::from(of);
        let bits = of.ilog2();
        let from = if bits == 0 { 0 } else { u64::from(range) << (64 - bits) };
        Some(from..=from + width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_the_ring_without_a_gap() {
        for of in [1, 2, 64, 256] {
            let mut next = 0u64;
            for range in 0..of {
                let places = Sums::range(range, of).unwrap();
                assert_eq!(*places.start(), next);
                next = places.end().wrapping_add(1);
            }
            assert_eq!(next, 0, "the last ends where the ring does");
        }
        assert!(Sums::range(2, 2).is_none() && Sums::range(0, 3).is_none() && Sums::range(0, 0).is_none());
    }
}
