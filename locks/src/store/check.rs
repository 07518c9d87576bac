//! What may be done: everything is checked before anything changes, so that a transaction is done whole or not at all.

use std::collections::BTreeSet;

use super::{KEY_OVERHEAD_BYTES, Store, cost};
use crate::kv::{
    Compare, Delete, KEY_BYTES_MAX, KeyValue, LIVE_BYTES_MAX, Op, Put, Range, Refusal, Relation, Span, TXN_DEPTH_MAX,
    TXN_OPS_MAX, Target, Txn, VALUE_BYTES_MAX,
};

/// What a check has met so far.
#[derive(Default)]
struct Seen<'a> {
    /// Which way each transaction goes, in the order in which they are met.
    branches: Vec<bool>,
    puts: BTreeSet<&'a [u8]>,
    deletes: Vec<&'a Span>,
    growth_bytes: i64,
    ops: usize,
}

impl Store {
    /// Whether an operation on keys can be done; which way its transactions go.
    pub(super) fn check(&self, op: &Op) -> Result<Vec<bool>, Refusal> {
        let mut seen = Seen::default();
        self.check_op(op, &mut seen, 0)?;
        if seen.deletes.iter().any(|span| seen.puts.iter().any(|key| span.contains(key))) {
            return Err(Refusal::DuplicateKey);
        }
        if seen.growth_bytes > 0 && self.live_bytes as i64 + seen.growth_bytes > LIVE_BYTES_MAX as i64 {
            return Err(Refusal::NoSpace);
        }
        Ok(seen.branches)
    }

    fn check_op<'a>(&self, op: &'a Op, seen: &mut Seen<'a>, depth: usize) -> Result<(), Refusal> {
        seen.ops += 1;
        if seen.ops > TXN_OPS_MAX + 1 || depth > TXN_DEPTH_MAX {
            return Err(Refusal::TooManyOps);
        }
        match op {
            Op::Range(range) => self.check_range(range),
            Op::Put(put) => self.check_put(put, seen),
            Op::Delete(Delete { span, .. }) => {
                check_span(span)?;
                seen.deletes.push(span);
                Ok(())
            }
            Op::Txn(txn) => self.check_txn(txn, seen, depth),
            Op::Grant { .. } | Op::Revoke { .. } | Op::Compact { .. } => Err(Refusal::TooManyOps),
        }
    }

    fn check_txn<'a>(&self, txn: &'a Txn, seen: &mut Seen<'a>, depth: usize) -> Result<(), Refusal> {
        if txn.compare.len().max(txn.success.len()).max(txn.failure.len()) > TXN_OPS_MAX {
            return Err(Refusal::TooManyOps);
        }
        for compare in &txn.compare {
            check_span(&compare.span)?;
        }
        let holds = txn.compare.iter().all(|compare| self.holds(compare));
        seen.branches.push(holds);
        for op in if holds { &txn.success } else { &txn.failure } {
            self.check_op(op, seen, depth + 1)?;
        }
        Ok(())
    }

    pub(super) fn check_range(&self, range: &Range) -> Result<(), Refusal> {
        check_span(&range.span)?;
        match range.revision {
            revision if revision > self.revision => Err(Refusal::FutureRevision),
            revision if revision > 0 && revision < self.history.compacted() => Err(Refusal::Compacted),
            _ => Ok(()),
        }
    }

    fn check_put<'a>(&self, put: &'a Put, seen: &mut Seen<'a>) -> Result<(), Refusal> {
        if put.key.is_empty() {
            return Err(Refusal::EmptyKey);
        }
        if put.key.len() > KEY_BYTES_MAX || put.value.len() > VALUE_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        if put.keep_value && !put.value.is_empty() {
            return Err(Refusal::ValueProvided);
        }
        if put.keep_lease && put.lease != 0 {
            return Err(Refusal::LeaseProvided);
        }
        let there = self.keys.get(put.key.as_slice());
        if there.is_none() && (put.keep_value || put.keep_lease) {
            return Err(Refusal::KeyNotFound);
        }
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(Refusal::LeaseNotFound);
        }
        if !seen.puts.insert(&put.key) {
            return Err(Refusal::DuplicateKey);
        }
        let after = match there {
            Some(there) if put.keep_value => cost(there),
            _ => put.key.len() + put.value.len() + KEY_OVERHEAD_BYTES,
        };
        seen.growth_bytes += after as i64 - there.map_or(0, |there| cost(there)) as i64;
        Ok(())
    }

    fn holds(&self, compare: &Compare) -> bool {
        let mut keys = self.within(&compare.span).peekable();
        if keys.peek().is_none() {
            // What is not there has no value that anything could be compared with; all else of it is zero.
            return !matches!(compare.target, Target::Value(_)) && compare_with(&KeyValue::default(), compare);
        }
        keys.all(|key| compare_with(key, compare))
    }
}

fn compare_with(key: &KeyValue, compare: &Compare) -> bool {
    let order = match &compare.target {
        Target::Version(version) => key.version.cmp(version),
        Target::Created(revision) => key.create_revision.cmp(revision),
        Target::Modified(revision) => key.mod_revision.cmp(revision),
        Target::Lease(lease) => key.lease.cmp(lease),
        Target::Value(value) => key.value.cmp(value),
    };
    match compare.relation {
        Relation::Equal => order.is_eq(),
        Relation::NotEqual => order.is_ne(),
        Relation::Greater => order.is_gt(),
        Relation::Less => order.is_lt(),
    }
}

fn check_span(span: &Span) -> Result<(), Refusal> {
    match (span.key.is_empty(), span.key.len().max(span.end.len()) > KEY_BYTES_MAX) {
        (true, _) => Err(Refusal::EmptyKey),
        (_, true) => Err(Refusal::TooLarge),
        _ => Ok(()),
    }
}
