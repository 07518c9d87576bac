//! How much of one owner's writing a peer takes. Everybody keeps the same account of everybody, so
//! that what a mad owner writes beyond it goes no further than its neighbours, while the news of the
//! others go on.
//!
//! The rate is a bucket of bytes: an honest burst (a peer that claims two thousand tasks in a second
//! writes some six megabytes) passes at once, and what is more has to wait for the bucket to fill
//! again. The size is what an owner's live records take in all.

use std::collections::BTreeMap;

use crate::ids::PeerId;

/// What an owner that was quiet may write at once, bytes.
pub const BURST_BYTES: u64 = 32 << 20;
/// What it may go on writing, bytes a second.
pub const RATE_BYTES: u64 = 1 << 20;
/// What its live records may take in all, bytes.
pub const HELD_BYTES_MAX: u64 = 256 << 20;
/// What a record costs beside its own bytes.
const RECORD_BYTES: u64 = 128;
/// Accounts are looked through when there are more than this.
const ACCOUNTS_MAX: usize = 1_024;

/// What every owner has left.
#[derive(Debug, Default)]
pub struct Budgets {
    accounts: BTreeMap<PeerId, Account>,
}

#[derive(Clone, Copy, Debug)]
struct Account {
    left: u64,
    at_ms: u64,
    /// Messages that were refused since the account was last full.
    refused: u64,
}

impl Account {
    fn now(self, now_ms: u64) -> Account {
        let grown = now_ms.saturating_sub(self.at_ms).saturating_mul(RATE_BYTES) / 1000;
        Account { left: BURST_BYTES.min(self.left + grown), at_ms: now_ms, ..self }
    }

    fn is_full(self) -> bool {
        self.left >= BURST_BYTES
    }
}

impl Budgets {
    /// Takes `bytes` of `records` records off what an owner has left; `false` where that is too much,
    /// and then nothing is taken. `in_all`: what its live records would take with them; 0 where they take no more than before.
    pub fn spend(&mut self, now_ms: u64, owner: &PeerId, bytes: usize, records: usize, in_all: u64) -> bool {
        let cost = bytes as u64 + records as u64 * RECORD_BYTES;
        let account = self.accounts.entry(*owner).or_insert(Account { left: BURST_BYTES, at_ms: now_ms, refused: 0 });
        *account = account.now(now_ms);
        let is_small = in_all <= HELD_BYTES_MAX;
        let granted = cost <= account.left && is_small;
        // Who holds too much has spent what it tried to write: it is seen to be refused, and not asked for more at once.
        if granted || !is_small {
            account.left = account.left.saturating_sub(cost);
        }
        if !granted {
            account.refused += 1;
        }
        if self.accounts.len() > ACCOUNTS_MAX {
            self.accounts.retain(|_, account| !account.now(now_ms).is_full());
        }
        granted
    }

    /// Whether an owner was refused something and has not been quiet since for long enough to write
    /// so much again: nothing is asked for that would be refused.
    pub fn is_spent(&self, now_ms: u64, owner: &PeerId) -> bool {
        let account = self.accounts.get(owner).map(|account| account.now(now_ms));
        account.is_some_and(|account| account.refused > 0 && account.left < BURST_BYTES / 16)
    }

    /// The owners that were refused something lately, and how often.
    pub fn refused(&self, now_ms: u64) -> impl Iterator<Item = (PeerId, u64)> {
        let lately = move |account: &Account| account.refused > 0 && !account.now(now_ms).is_full();
        self.accounts
            .iter()
            .filter(move |(_, account)| lately(account))
            .map(|(owner, account)| (*owner, account.refused))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWNER: PeerId = PeerId([1; 32]);

    proptest! {
        /// Whatever an owner writes and when, no more is taken than the burst and the rate allow.
        #[test]
        fn no_more_is_taken_than_allowed(writes in prop::collection::vec((0u64..2_000, 0usize..4 << 20), 1..200)) {
            let (mut budgets, mut now_ms, mut taken) = (Budgets::default(), 0, 0);
            for (pause, bytes) in writes {
                now_ms += pause;
                if budgets.spend(now_ms, &OWNER, bytes, 1, 0) {
                    taken += bytes as u64;
                }
                prop_assert!(taken <= BURST_BYTES + now_ms * RATE_BYTES / 1000);
            }
        }
    }

    #[test]
    fn an_honest_burst_passes_and_a_flood_does_not() {
        let mut budgets = Budgets::default();
        // Two thousand claims, each accepted, starting, running and ended within a second.
        for write in 0..8_000 {
            assert!(budgets.spend(write / 8, &OWNER, 700, 1, 0));
        }
        let mut refused = 0;
        for write in 0..10_000 {
            refused += u64::from(!budgets.spend(1_000 + write, &OWNER, 16 << 10, 1, 0));
        }
        assert!(refused > 5_000 && budgets.is_spent(11_000, &OWNER));
        assert_eq!(budgets.refused(11_000).collect::<Vec<_>>(), [(OWNER, refused)]);
        assert!(budgets.spend(11_000, &PeerId([2; 32]), 700, 1, 0), "others' news go on");
        assert!(!budgets.is_spent(20_000, &OWNER), "and so does the owner, once it has been quiet");
        assert!(!budgets.spend(100_000, &OWNER, 700, 1, HELD_BYTES_MAX + 1), "but for what it holds in all");
    }
}
