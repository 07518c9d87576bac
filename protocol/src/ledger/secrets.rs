//! What was read of secrets: the one that counts of each name, the key that counts, and who has to seal what for whom.
//!
//! All who may read secrets hold one key. It is sealed to each of them; somebody new gets it from one who has it, and
//! when somebody departs there is a new one, under which everything is sealed anew.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{KeyId, PeerId};
use crate::model::secret::{Duty, Seal, Sealed, Secret};

/// How long it is said that a secret was removed, ms: thirty days,
const REMOVED_MS: u64 = 30 * 86_400_000;
/// and of how many by one peer.
const REMOVED_MAX: usize = 1_024;

/// Every secret and every key that some record tells of.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    secrets: BTreeMap<String, BTreeMap<PeerId, Secret>>,
    keys: BTreeMap<KeyId, BTreeMap<PeerId, Seal>>,
}

impl Secrets {
    /// Reads a secret; none: its owner says nothing of it any more.
    pub fn take(&mut self, owner: PeerId, name: &str, secret: Option<Secret>) {
        put(&mut self.secrets, owner, name.to_string(), secret);
    }

    /// Reads to whom a key is sealed.
    pub fn seal(&mut self, owner: PeerId, key: KeyId, seal: Option<Seal>) {
        put(&mut self.keys, owner, key, seal);
    }

    /// The one that counts of a name, and who wrote it; removed ones, too.
    fn last(&self, name: &str) -> Option<(PeerId, &Secret)> {
        let all = self.secrets.get(name)?.iter();
        let rank = |key: &KeyId| (self.made_at(key), *key);
        let last = all.max_by_key(|(owner, one)| (one.at, one.sealed.is_none(), rank(&one.key), **owner));
        last.map(|(owner, secret)| (*owner, secret))
    }

    /// A secret that is set.
    pub fn get(&self, name: &str) -> Option<&Secret> {
        self.last(name).map(|(_, secret)| secret).filter(|secret| secret.sealed.is_some())
    }

    /// All that are set, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Secret> {
        self.secrets.keys().filter_map(|name| self.get(name))
    }

    /// The stamp of a later one than all that were ever set under this name.
    pub fn after(&self, name: &str) -> u64 {
        self.last(name).map_or(0, |(_, last)| last.at.saturating_add(1))
    }

    /// To whom a peer has sealed a key.
    pub fn own_seal(&self, owner: &PeerId, key: &KeyId) -> Option<&Seal> {
        self.keys.get(key)?.get(owner)
    }

    /// When a key was made, wall clock of whoever made it, ms; 0: nobody knows it.
    pub fn made_at(&self, key: &KeyId) -> u64 {
        self.keys.get(key).into_iter().flat_map(BTreeMap::values).map(|seal| seal.at).max().unwrap_or(0)
    }

    /// The key to seal under: the latest that a member can open.
    pub fn current(&self, members: &BTreeSet<PeerId>) -> Option<KeyId> {
        let opens = |seal: &Seal| seal.sealed.keys().any(|peer| members.contains(peer));
        let held = self.keys.iter().filter(|(_, seals)| seals.values().any(opens));
        held.map(|(key, _)| *key).max_by_key(|key| (self.made_at(key), *key))
    }

    /// The stamp of a later key than all there are.
    pub fn after_keys(&self) -> u64 {
        self.keys.keys().map(|key| self.made_at(key).saturating_add(1)).max().unwrap_or(0)
    }

    /// A key as one peer can open it.
    pub fn sealed_to(&self, key: &KeyId, peer: &PeerId) -> Option<&Sealed> {
        self.keys.get(key)?.values().find_map(|seal| seal.sealed.get(peer))
    }

    fn readers(&self, key: &KeyId) -> BTreeSet<PeerId> {
        let seals = self.keys.get(key).into_iter().flat_map(BTreeMap::values);
        seals.flat_map(|seal| seal.sealed.keys().copied()).collect()
    }

    /// What `me` has to do for the others. Of the live ones who can open the key that counts the lowest seals it to
    /// newcomers, and makes a new one when one who can has departed. A secret under an older key is sealed anew by the
    /// lowest who can open both: of the newcomers nobody can.
    pub fn duty(&self, me: &PeerId, members: &BTreeSet<PeerId>, is_live: impl Fn(&PeerId) -> bool) -> Duty {
        let Some(current) = self.current(members) else { return Duty::default() };
        let readers = self.readers(&current);
        let is_first = |mut readers: std::collections::btree_set::Iter<'_, PeerId>| {
            readers.find(|peer| members.contains(peer) && is_live(peer)) == Some(me)
        };
        let mut duty = Duty::default();
        if !readers.is_subset(members) {
            duty.new_key = is_first(readers.iter()).then(|| members.iter().copied().collect());
            return duty;
        }
        if is_first(readers.iter()) {
            duty.newcomers = members.difference(&readers).copied().collect();
        }
        let mut mine: BTreeMap<KeyId, bool> = BTreeMap::new();
        for secret in self.iter().filter(|secret| secret.key != current) {
            let both = || self.readers(&secret.key).intersection(&readers).copied().collect::<BTreeSet<PeerId>>();
            if *mine.entry(secret.key).or_insert_with(|| is_first(both().iter())) {
                duty.stale.push(secret.clone());
            }
        }
        duty
    }

    /// What `me` has written that is of no use any more: names of secrets, and keys. That one was removed is said for as
    /// long as somebody who was away may still come with it.
    pub fn spent(&self, me: &PeerId, members: &BTreeSet<PeerId>, wall: u64) -> (Vec<String>, Vec<KeyId>) {
        let own = self.secrets.iter().filter(|(_, all)| all.contains_key(me));
        let (mut names, mut removed) = (Vec::new(), Vec::new());
        for (name, all) in own {
            match self.last(name) {
                Some((owner, last)) if owner == *me && last.sealed.is_some() => {}
                Some((owner, last)) if owner == *me => {
                    if all.len() == 1 {
                        removed.push((last.at, name));
                    }
                }
                _ => names.push(name.clone()),
            }
        }
        removed.sort();
        let over = removed.len().saturating_sub(REMOVED_MAX);
        let is_old = |at: u64| at.saturating_add(REMOVED_MS) < wall;
        let spent = removed.iter().enumerate().filter(|(place, (at, _))| *place < over || is_old(*at));
        names.extend(spent.map(|(_, (_, name))| (*name).clone()));
        let current = self.current(members);
        // Who has not sealed anew yet still has to open what lies under an older one.
        let used: BTreeSet<KeyId> = self.secrets.values().flat_map(BTreeMap::values).map(|secret| secret.key).collect();
        let keys = self.keys.iter().filter(|(key, all)| {
            all.contains_key(me) && current != Some(**key) && !used.contains(key) && self.is_older(key, current)
        });
        (names, keys.map(|(key, _)| *key).collect())
    }

    fn is_older(&self, key: &KeyId, current: Option<KeyId>) -> bool {
        current.is_some_and(|current| self.made_at(key) < self.made_at(&current))
    }
}

fn put<K: Ord, V>(map: &mut BTreeMap<K, BTreeMap<PeerId, V>>, owner: PeerId, key: K, value: Option<V>) {
    match value {
        Some(value) => drop(map.entry(key).or_default().insert(owner, value)),
        None => {
            if let Some(all) = map.get_mut(&key) {
                all.remove(&owner);
                if all.is_empty() {
                    map.remove(&key);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> PeerId {
        PeerId([number; 32])
    }

    fn key(number: u8, at: u64, readers: &[u8]) -> Seal {
        let sealed = readers.iter().map(|reader| (peer(*reader), Sealed(vec![*reader])));
        Seal { key: KeyId([number; 16]), at, sealed: sealed.collect() }
    }

    fn secret(name: &str, at: u64, key: u8, sealed: Option<u8>) -> Secret {
        Secret { name: name.into(), at, key: KeyId([key; 16]), sealed: sealed.map(|byte| vec![byte]) }
    }

    #[test]
    fn the_last_word_on_a_name_counts() {
        let mut secrets = Secrets::default();
        secrets.seal(peer(1), KeyId([1; 16]), Some(key(1, 10, &[1, 2])));
        secrets.take(peer(1), "a", Some(secret("a", 10, 1, Some(1))));
        secrets.take(peer(2), "a", Some(secret("a", 20, 1, Some(2))));
        assert_eq!(secrets.get("a").unwrap().sealed, Some(vec![2]));
        assert_eq!(secrets.after("a"), 21);
        let members: BTreeSet<PeerId> = [1, 2].map(peer).into();
        assert_eq!(secrets.spent(&peer(1), &members, 30), (vec!["a".into()], vec![]));
        secrets.take(peer(1), "a", None);
        secrets.take(peer(2), "a", Some(secret("a", 30, 1, None)));
        assert!(secrets.get("a").is_none() && secrets.iter().next().is_none());
        assert_eq!(secrets.spent(&peer(2), &members, 30), (vec![], vec![]));
        // Somebody who was away has set it before it was removed: it stays so.
        secrets.take(peer(3), "a", Some(secret("a", 25, 1, Some(3))));
        assert!(secrets.get("a").is_none());
        assert_eq!(secrets.spent(&peer(3), &members, 30), (vec!["a".into()], vec![]));
        secrets.take(peer(3), "a", Some(secret("a", 30, 1, Some(3))));
        assert!(secrets.get("a").is_none(), "at the same time: it is removed");
        secrets.take(peer(3), "a", None);
        // In the end nobody can have been away for so long.
        assert_eq!(secrets.spent(&peer(2), &members, 31 + REMOVED_MS).0, ["a".to_string()]);
        for number in 0..REMOVED_MAX as u64 {
            let name = format!("b{number:04}");
            secrets.take(peer(2), &name, Some(secret(&name, 40 + number, 1, None)));
        }
        assert_eq!(secrets.spent(&peer(2), &members, 40).0, ["a".to_string()], "the oldest of too many");
    }

    #[test]
    fn stamps_of_the_end_of_time_stop_nobody() {
        let mut secrets = Secrets::default();
        secrets.seal(peer(9), KeyId([9; 16]), Some(key(9, u64::MAX, &[9])));
        secrets.take(peer(9), "a", Some(secret("a", u64::MAX, 9, Some(9))));
        assert_eq!((secrets.after("a"), secrets.after_keys()), (u64::MAX, u64::MAX));
        // A key that no member can open is none to seal under.
        let members: BTreeSet<PeerId> = [1, 2].map(peer).into();
        assert_eq!(secrets.current(&members), None);
        secrets.seal(peer(1), KeyId([1; 16]), Some(key(1, 10, &[1, 2])));
        assert_eq!(secrets.current(&members), Some(KeyId([1; 16])));
        let duty = secrets.duty(&peer(1), &members, |_| true);
        assert!(duty.is_none(), "what nobody can open nobody seals anew: {duty:?}");
    }

    #[test]
    fn a_newcomer_seals_nothing_anew_that_it_cannot_open() {
        let mut secrets = Secrets::default();
        // While 4 departed 1 came, and is the lowest of those who can open the new key.
        let members: BTreeSet<PeerId> = [1, 2, 3].map(peer).into();
        secrets.seal(peer(2), KeyId([1; 16]), Some(key(1, 10, &[2, 3, 4])));
        secrets.take(peer(4), "a", Some(secret("a", 10, 1, Some(1))));
        secrets.take(peer(4), "b", Some(secret("b", 10, 7, Some(1))));
        secrets.seal(peer(2), KeyId([2; 16]), Some(key(2, 20, &[1, 2, 3])));
        assert!(secrets.duty(&peer(1), &members, |_| true).is_none());
        let stale: Vec<Secret> = secrets.duty(&peer(2), &members, |_| true).stale;
        assert_eq!(stale.iter().map(|secret| secret.name.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(secrets.duty(&peer(3), &members, |one| *one != peer(2)).stale.len(), 1);
        assert!(secrets.duty(&peer(3), &members, |_| true).is_none());
    }

    #[test]
    fn the_first_of_the_readers_seals_for_the_others() {
        let mut secrets = Secrets::default();
        let members: BTreeSet<PeerId> = [1, 2, 3].map(peer).into();
        let all_live = |_: &PeerId| true;
        assert!(secrets.duty(&peer(1), &members, all_live).is_none());
        secrets.seal(peer(2), KeyId([1; 16]), Some(key(1, 10, &[2, 3])));
        assert!(secrets.duty(&peer(1), &members, all_live).is_none(), "it cannot open the key");
        assert_eq!(secrets.duty(&peer(2), &members, all_live).newcomers, [peer(1)]);
        assert_eq!(secrets.duty(&peer(3), &members, |one| *one != peer(2)).newcomers, [peer(1)]);
        secrets.seal(peer(3), KeyId([1; 16]), Some(key(1, 10, &[1])));
        assert!(members.iter().all(|one| secrets.duty(one, &members, all_live).is_none()));
        assert_eq!(secrets.sealed_to(&KeyId([1; 16]), &peer(1)), Some(&Sealed(vec![1])));
    }

    #[test]
    fn who_departs_reads_nothing_that_comes_after() {
        let mut secrets = Secrets::default();
        let left: BTreeSet<PeerId> = [1, 2].map(peer).into();
        secrets.seal(peer(1), KeyId([1; 16]), Some(key(1, 10, &[1, 2, 3])));
        secrets.take(peer(3), "a", Some(secret("a", 10, 1, Some(1))));
        let duty = secrets.duty(&peer(1), &left, |_| true);
        assert_eq!(duty.new_key, Some(vec![peer(1), peer(2)]));
        secrets.seal(peer(1), KeyId([2; 16]), Some(key(2, 20, &[1, 2])));
        let duty = secrets.duty(&peer(1), &left, |_| true);
        assert_eq!((duty.new_key, duty.stale.len()), (None, 1));
        assert_eq!(secrets.spent(&peer(1), &left, 20).1, [], "it still opens what is not sealed anew");
        secrets.take(peer(1), "a", Some(secret("a", 10, 2, Some(9))));
        assert_eq!(secrets.get("a").unwrap().key, KeyId([2; 16]), "under the later key");
        assert!(secrets.duty(&peer(1), &left, |_| true).is_none());
    }
}
