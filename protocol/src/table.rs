//! A map in the order of its keys whose copies share what is equal (see [`crate::chunks`]): the keys
//! as a whole, the values by a few neighbours.

use std::collections::BTreeMap;
use std::ops::RangeBounds;
use std::sync::{Arc, OnceLock, Weak};

use crate::chunks::{Alike, Chunks};

#[derive(Clone, Debug)]
pub struct Table<K, V> {
    /// The row of each key. A row may be empty although its key stands here (see [`Table::like`]).
    index: Arc<Index<K>>,
    rows: Chunks<Option<V>>,
    /// Rows that no key has.
    free: Vec<u32>,
    /// Rows that are not empty.
    len: usize,
}

/// Where keys stand. Copies that come to have the same new key share what becomes of the index by it.
#[derive(Debug)]
struct Index<K> {
    rows: BTreeMap<K, u32>,
    next: OnceLock<(K, u32, Weak<Self>)>,
}

impl<K: Ord + Clone> Index<K> {
    /// A key has this row from now on.
    fn add(this: &mut Arc<Self>, key: &K, at: u32) {
        if let Some(alone) = Arc::get_mut(this) {
            alone.next.take();
            alone.rows.insert(key.clone(), at);
            return;
        }
        let known = this.next.get().filter(|(next, row, _)| next == key && *row == at);
        if let Some(next) = known.and_then(|(.., next)| next.upgrade()) {
            *this = next;
            return;
        }
        let mut rows = this.rows.clone();
        rows.insert(key.clone(), at);
        let next = Arc::new(Self { rows, next: OnceLock::new() });
        // The first says what is next; whoever has another key then goes its own way.
        this.next.get_or_init(|| (key.clone(), at, Arc::downgrade(&next)));
        *this = next;
    }
}

impl<K: Clone> Clone for Index<K> {
    fn clone(&self) -> Self {
        Self { rows: self.rows.clone(), next: OnceLock::new() }
    }
}

impl<K> Default for Index<K> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), next: OnceLock::new() }
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { index: Arc::default(), rows: Chunks::default(), free: Vec::new(), len: 0 }
    }
}

impl<K: Ord, V> Table<K, V> {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        self.rows[*self.index.rows.get(key)? as usize].as_ref()
    }

    pub fn get_key_value(&self, key: &K) -> Option<(&K, &V)> {
        let (key, at) = self.index.rows.get_key_value(key)?;
        Some((key, self.rows[*at as usize].as_ref()?))
    }

    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    /// In the order of the keys.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + Clone {
        self.range(..)
    }

    pub fn range(&self, keys: impl RangeBounds<K>) -> impl DoubleEndedIterator<Item = (&K, &V)> + Clone {
        self.index.rows.range(keys).filter_map(|(key, at)| Some((key, self.rows[*at as usize].as_ref()?)))
    }

    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + Clone {
        self.iter().map(|(_, value)| value)
    }
}

impl<K: Ord + Clone, V: Clone> Table<K, V> {
    /// An empty table that is about to have the keys of another.
    pub fn like<W>(other: &Table<K, W>) -> Self {
        let rows = (0..other.rows.len()).map(|_| None).collect();
        Self { index: other.index.clone(), rows, free: other.free.clone(), len: 0 }
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = *self.index.rows.get(key)? as usize;
        // Nothing is copied in vain.
        self.rows[at].as_ref()?;
        self.rows[at].as_mut()
    }

    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let at = self.row(&key);
        let before = self.rows[at].replace(value);
        self.len += usize::from(before.is_none());
        before
    }

    /// What stands under a key, or what is made for it now.
    pub fn entry(&mut self, key: &K, new: impl FnOnce() -> V) -> &mut V {
        let at = self.row(key);
        let row = &mut self.rows[at];
        self.len += usize::from(row.is_none());
        row.get_or_insert_with(new)
    }

    pub fn remove(&mut self, key: &K) -> Option<V> {
        let at = *self.index.rows.get(key)?;
        let index = Arc::make_mut(&mut self.index);
        index.next.take();
        index.rows.remove(key);
        self.free.push(at);
        let removed = self.rows[at as usize].take();
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// The row of a key, which is given one where it has none.
    fn row(&mut self, key: &K) -> usize {
        if let Some(at) = self.index.rows.get(key) {
            return *at as usize;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.rows.push(None);
            self.rows.len() as u32 - 1
        });
        Index::add(&mut self.index, key, at);
        at as usize
    }
}

impl<K: Ord + Clone, V: Alike> Table<K, V> {
    /// What is alike in both tables is held once from now on: the keys as a whole, and where those are, the values.
    pub fn share(&mut self, other: &Self) {
        if !Arc::ptr_eq(&self.index, &other.index) {
            if !self.index.rows.keys().eq(other.index.rows.keys()) {
                return;
            }
            let mut rows: Vec<Option<V>> = vec![None; other.rows.len()];
            for (key, at) in other.index.rows.iter() {
                rows[*at as usize] = self.get(key).cloned();
            }
            self.rows = rows.into_iter().collect();
            (self.index, self.free) = (other.index.clone(), other.free.clone());
        }
        self.rows.share(&other.rows);
    }
}

impl<K: Ord, V> std::ops::Index<&K> for Table<K, V> {
    type Output = V;

    fn index(&self, key: &K) -> &V {
        self.get(key).expect("the key is there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever is done to it, a table holds what a map would, in the same order; and sharing changes nothing.
        #[test]
        fn a_table_is_a_map(steps in prop::collection::vec((0u8..4, 0u8..40, any::<u16>().prop_map(Arc::new)), 0..200)) {
            let mut tables = [Table::default(), Table::default()];
            let mut maps = [BTreeMap::new(), BTreeMap::new()];
            for (what, key, value) in steps {
                let at = usize::from(*value % 2);
                let (table, map) = (&mut tables[at], &mut maps[at]);
                match what {
                    0 => prop_assert_eq!(table.insert(key, value.clone()), map.insert(key, value)),
                    1 => prop_assert_eq!(table.remove(&key), map.remove(&key)),
                    2 => prop_assert_eq!(table.entry(&key, || value.clone()), map.entry(key).or_insert(value)),
                    _ => {
                        let (one, two) = tables.split_at_mut(1);
                        one[0].share(&two[0]);
                    }
                }
                for (table, map) in tables.iter().zip(&maps) {
                    prop_assert!(table.iter().eq(map.iter()) && table.len() == map.len());
                    prop_assert_eq!(table.get(&key), map.get(&key));
                    prop_assert!(table.range(10..20).rev().eq(map.range(10..20).rev()));
                }
            }
        }
    }

    #[test]
    fn a_table_like_another_is_empty_and_shares_its_keys() {
        let mut one = Table::default();
        one.insert("a", 1);
        one.insert("b", 2);
        let mut other: Table<&str, i32> = Table::like(&one);
        assert_eq!((other.len(), other.get(&"a"), other.keys().count()), (0, None, 0));
        other.insert("a", 1);
        assert!(Arc::ptr_eq(&one.index, &other.index) && other.iter().eq([(&"a", &1)]));
    }
}
