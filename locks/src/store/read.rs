//! Reading, now and in the past.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::Store;
use crate::kv::{Answer, Applied, By, Found, KeyValue, Order, Range, Refusal, Span};

impl Store {
    /// Reads keys.
    pub fn range(&self, range: &Range) -> Result<Applied, Refusal> {
        self.check_range(range)?;
        Ok(Applied { revision: self.revision, answer: Answer::Range(self.find(range, self.revision)) })
    }

    /// The keys of a span, in order.
    pub(super) fn within<'a>(&'a self, span: &'a Span) -> impl Iterator<Item = &'a Arc<KeyValue>> {
        let key = span.key.as_slice();
        let end = match span.end.as_slice() {
            [] => Bound::Included(key),
            [0] => Bound::Unbounded,
            // An end before its beginning holds nothing.
            end => Bound::Excluded(end.max(key)),
        };
        self.keys.range::<[u8], _>((Bound::Included(key), end)).map(|(_, key)| key)
    }

    /// What a range that was checked finds; `now`: the revision that a transaction works at, whose changes it sees.
    pub(super) fn find(&self, range: &Range, now: i64) -> Found {
        let all: Vec<Arc<KeyValue>> = if range.revision > 0 && range.revision < now {
            self.within_at(&range.span, range.revision)
        } else {
            self.within(&range.span).cloned().collect()
        };
        let bounds = |of: i64, min: i64, max: i64| (min == 0 || of >= min) && (max == 0 || of <= max);
        let count = all.len() as i64;
        if range.count_only {
            return Found { keys: Vec::new(), count, more: false };
        }
        let mut keys: Vec<Arc<KeyValue>> = all;
        keys.retain(|key| {
            bounds(key.mod_revision, range.modified_min, range.modified_max)
                && bounds(key.create_revision, range.created_min, range.created_max)
        });
        sort(&mut keys, range.by, range.order);
        let more = range.limit > 0 && keys.len() as i64 > range.limit;
        if more {
            keys.truncate(range.limit as usize);
        }
        if range.keys_only {
            let bare = |key: &Arc<KeyValue>| Arc::new(KeyValue { value: Vec::new(), ..key.as_ref().clone() });
            keys = keys.iter().map(bare).collect();
        }
        Found { keys, count, more }
    }

    /// The keys of a span as they were: what has changed since is undone, the newest first.
    fn within_at(&self, span: &Span, revision: i64) -> Vec<Arc<KeyValue>> {
        let mut keys: BTreeMap<Cow<'_, [u8]>, Arc<KeyValue>> =
            self.within(span).map(|key| (Cow::Borrowed(key.key.as_slice()), key.clone())).collect();
        for change in self.history.back_to(revision).filter(|change| span.contains(change.name())) {
            match &change.previous {
                Some(previous) => drop(keys.insert(Cow::Borrowed(change.name()), previous.clone())),
                None => drop(keys.remove(change.name())),
            }
        }
        keys.into_values().collect()
    }
}

fn sort(keys: &mut [Arc<KeyValue>], by: By, order: Order) {
    if order == Order::None && by == By::Key {
        return;
    }
    match by {
        By::Key => {}
        By::Version => keys.sort_by_key(|key| key.version),
        By::Created => keys.sort_by_key(|key| key.create_revision),
        By::Modified => keys.sort_by_key(|key| key.mod_revision),
        By::Value => keys.sort_by(|one, two| one.value.cmp(&two.value)),
    }
    if order == Order::Descending {
        keys.reverse();
    }
}
