//! The store by itself: what each operation does, and that replicas stay the same.

use std::sync::Arc;

use proptest::prelude::*;
use rialto_locks::kv::{
    Answer, By, Compare, Delete, Found, KeyValue, Op, Order, Put, Range, Refusal, Relation, Span, Target, Txn,
    VALUE_BYTES_MAX,
};
use rialto_locks::store::{CHANGES_MAX, EPOCH_STRIDE, HISTORY_BYTES_MAX, KEY_OVERHEAD_BYTES, Store};

fn everything() -> Range {
    Range::of(Span { key: vec![0], end: vec![0] })
}

fn put(key: &str, value: &str) -> Op {
    Op::Put(Put { key: key.into(), value: value.into(), ..Put::default() })
}

fn put_on(key: &str, lease: i64) -> Op {
    Op::Put(Put { key: key.into(), lease, ..Put::default() })
}

fn delete(key: &str) -> Op {
    Op::Delete(Delete { span: Span::one(key), want_previous: true })
}

fn found(store: &Store, range: &Range) -> Found {
    let Answer::Range(found) = store.range(range).unwrap().answer else { panic!("no range") };
    found
}

fn names(store: &Store, range: &Range) -> Vec<String> {
    let name = |key: &Arc<KeyValue>| String::from_utf8(key.key.clone()).unwrap();
    found(store, range).keys.iter().map(name).collect()
}

fn with(ops: &[Op]) -> Store {
    let mut store = Store::default();
    for op in ops {
        store.apply(op).unwrap();
    }
    store
}

#[test]
fn a_key_counts_its_versions_and_begins_anew_when_it_was_deleted() {
    let store = with(&[put("a", "1"), put("b", "1"), put("a", "2"), delete("a"), put("a", "3")]);
    let a = &found(&store, &Range::of(Span::one("a"))).keys[0];
    assert_eq!((a.create_revision, a.mod_revision, a.version), (6, 6, 1));
    assert_eq!(store.revision(), 6);
    // Deleting what is not there is no change.
    let mut store = store;
    assert_eq!(store.apply(&delete("nothing")).unwrap().revision, 6);
}

#[test]
fn the_past_can_be_read_until_it_is_compacted() {
    let mut store = with(&[put("a", "1"), put("b", "1"), put("a", "2"), delete("b")]);
    let all = |store: &Store, revision| {
        let range = Range { revision, ..Range::of(Span { key: vec![0], end: vec![0] }) };
        let found = found(store, &range);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        found.keys.iter().map(|key| format!("{}={}", text(&key.key), text(&key.value))).collect::<Vec<_>>().join(" ")
    };
    for (revision, expected) in [(1, ""), (2, "a=1"), (3, "a=1 b=1"), (4, "a=2 b=1"), (5, "a=2")] {
        assert_eq!(all(&store, revision), expected, "at {revision}");
    }
    store.apply(&Op::Compact { revision: 4 }).unwrap();
    assert_eq!(all(&store, 4), "a=2 b=1");
    let range = |revision| Range { revision, ..Range::of(Span::one("a")) };
    assert_eq!(store.range(&range(3)), Err(Refusal::Compacted));
    assert_eq!(store.range(&range(6)), Err(Refusal::FutureRevision));
    assert_eq!(store.apply(&Op::Compact { revision: 4 }), Err(Refusal::Compacted));
    assert_eq!(store.changes(4, 10), Err(Refusal::Compacted));
    assert_eq!(store.changes(5, 10).unwrap().len(), 1);
}

#[test]
fn spans_and_orders() {
    let store = with(&[put("b", "1"), put("a", "3"), put("ab", "2"), put("a", "4")]);
    assert_eq!(names(&store, &Range::of(Span::prefix("a"))), ["a", "ab"]);
    assert_eq!(names(&store, &Range::of(Span { key: "ab".into(), end: vec![0] })), ["ab", "b"]);
    assert_eq!(names(&store, &Range::of(Span { key: "b".into(), end: "a".into() })), [""; 0]);
    let everything = Span { key: vec![0], end: vec![0] };
    let sorted = |of, order| names(&store, &Range { by: of, order, ..Range::of(everything.clone()) });
    assert_eq!(sorted(By::Created, Order::Ascending), ["b", "a", "ab"]);
    assert_eq!(sorted(By::Modified, Order::Descending), ["a", "ab", "b"]);
    assert_eq!(sorted(By::Value, Order::Ascending), ["b", "ab", "a"]);
    let limited = Range { limit: 1, ..Range::of(everything) };
    let found = found(&store, &limited);
    assert_eq!((found.keys.len(), found.count, found.more), (1, 3, true));
    assert_eq!(Span::prefix([0xff, 0xff]).end, [0]);
}

#[test]
fn a_transaction_is_whole_and_has_one_revision() {
    let mut store = with(&[put("a", "1")]);
    let is_new = |key: &str| Compare { span: Span::one(key), relation: Relation::Equal, target: Target::Created(0) };
    let txn = |compare, success, failure| Op::Txn(Txn { compare, success, failure });
    let done = store.apply(&txn(vec![is_new("b")], vec![put("b", "1"), put("c", "1")], vec![])).unwrap();
    assert!(matches!(done.answer, Answer::Txn { succeeded: true, .. }));
    assert_eq!((done.revision, store.revision()), (3, 3));
    let other = store.apply(&txn(vec![is_new("b")], vec![put("b", "2")], vec![Op::Range(Range::of(Span::one("b")))]));
    let Answer::Txn { succeeded: false, answers } = other.unwrap().answer else { panic!("it must fail") };
    assert!(matches!(&answers[0], Answer::Range(found) if found.keys[0].value == b"1"));
    assert_eq!(store.revision(), 3, "reading changes nothing");
    // A transaction within another sees what was done before it, and fails with it.
    let inner = txn(vec![], vec![put("d", "1"), put_on("e", 99)], vec![]);
    assert_eq!(store.apply(&txn(vec![], vec![put("x", "1"), inner], vec![])), Err(Refusal::LeaseNotFound));
    assert_eq!(names(&store, &Range::of(Span { key: vec![0], end: vec![0] })), ["a", "b", "c"]);
    for (ops, why) in [
        (vec![put("x", "1"), put("x", "2")], Refusal::DuplicateKey),
        (vec![put("x", "1"), delete("x")], Refusal::DuplicateKey),
        (vec![put("", "1")], Refusal::EmptyKey),
        (vec![put("x", &"v".repeat(VALUE_BYTES_MAX + 1))], Refusal::TooLarge),
        (vec![put("x", "1"); 200], Refusal::TooManyOps),
        (vec![Op::Put(Put { key: "new".into(), keep_value: true, ..Put::default() })], Refusal::KeyNotFound),
        (vec![Op::Grant { id: 1, ttl_seconds: 1 }], Refusal::TooManyOps),
    ] {
        assert_eq!(store.apply(&txn(vec![], ops, vec![])), Err(why));
    }
}

#[test]
fn a_lease_takes_its_keys_along() {
    let grant = Op::Grant { id: 7, ttl_seconds: 5 };
    let mut store =
        with(&[grant.clone(), put_on("a", 7), put_on("b", 7), put_on("c", 7), put("c", "free"), delete("b")]);
    assert_eq!(store.lease(7).unwrap().keys().collect::<Vec<_>>(), [b"a"]);
    assert_eq!(store.apply(&grant), Err(Refusal::LeaseExists));
    let before = store.revision();
    store.apply(&Op::Revoke { id: 7, expired: true }).unwrap();
    assert_eq!(store.revision(), before + 1);
    assert_eq!(names(&store, &Range::of(Span { key: vec![0], end: vec![0] })), ["c"]);
    assert_eq!(store.apply(&Op::Revoke { id: 7, expired: false }), Err(Refusal::LeaseNotFound));
    assert_eq!(store.apply(&put_on("a", 7)), Err(Refusal::LeaseNotFound));
}

#[test]
fn what_is_kept_is_bounded() {
    let mut store = Store::default();
    let value = "v".repeat(VALUE_BYTES_MAX);
    let full = (0..100).find_map(|n| store.apply(&put(&format!("k{n}"), &value)).err().map(|why| (n, why)));
    assert_eq!(full, Some((63, Refusal::NoSpace)));
    // What is there can still be written over, and deleted.
    store.apply(&put("k0", &value)).unwrap();
    store.apply(&delete("k0")).unwrap();
    store.apply(&put("k99", "small")).unwrap();
    assert!(store.history_bytes() <= HISTORY_BYTES_MAX);
    let mut store = Store::default();
    for n in 0..CHANGES_MAX + 50 {
        store.apply(&put("k", &n.to_string())).unwrap();
    }
    assert_eq!(store.compacted(), 51);
    assert_eq!(store.changes(52, usize::MAX).unwrap().len(), CHANGES_MAX);
}

#[test]
fn a_store_that_is_made_anew_goes_on_far_above() {
    let store = with(&[put("a", "1")]).reborn();
    assert!(store.revision() >= EPOCH_STRIDE);
    let again = store.clone().reborn();
    assert!(again.revision() > store.revision());
    assert_eq!(names(&again, &Range::of(Span::one("a"))), ["a"]);
    assert_eq!(again.changes(2, 10), Err(Refusal::Compacted));
}

fn any_op() -> impl Strategy<Value = Op> {
    let key = prop::sample::select(vec!["a", "ab", "b", "c"]);
    let simple = prop_oneof![
        (key.clone(), "[a-c]{0,3}").prop_map(|(key, value)| put(key, &value)),
        (key.clone(), 0..4i64).prop_map(|(key, lease)| put_on(key, lease)),
        key.clone().prop_map(delete),
        key.clone().prop_map(|key| Op::Delete(Delete { span: Span::prefix(key), want_previous: false })),
        (key, 0..20i64).prop_map(|(key, revision)| Op::Range(Range { revision, ..Range::of(Span::prefix(key)) })),
        (1..4i64).prop_map(|id| Op::Grant { id, ttl_seconds: 3 }),
        (1..4i64).prop_map(|id| Op::Revoke { id, expired: false }),
        (0..30i64).prop_map(|revision| Op::Compact { revision }),
    ];
    simple.prop_recursive(2, 8, 3, |inner| {
        let compare = (prop::sample::select(vec!["a", "b"]), 0..5i64).prop_map(|(key, version)| Compare {
            span: Span::one(key),
            relation: Relation::Less,
            target: Target::Version(version),
        });
        let ops = || prop::collection::vec(inner.clone(), 0..3);
        (prop::collection::vec(compare, 0..2), ops(), ops())
            .prop_map(|(compare, success, failure)| Op::Txn(Txn { compare, success, failure }))
    })
}

proptest! {
    /// A refused operation leaves no trace; what is counted is what is there; a snapshot is the same store.
    #[test]
    fn whole_or_not_at_all(ops in prop::collection::vec(any_op(), 0..40)) {
        let mut store = Store::default();
        let mut past = vec![];
        for op in &ops {
            let before = store.clone();
            match store.apply(op) {
                Err(_) => prop_assert_eq!(&store, &before),
                Ok(applied) => prop_assert_eq!(applied.revision, store.revision()),
            }
            prop_assert!(store.revision() <= before.revision() + 1);
            let keys = found(&store, &everything()).keys;
            let bytes: usize = keys.iter().map(|key| key.key.len() + key.value.len() + KEY_OVERHEAD_BYTES).sum();
            prop_assert_eq!((keys.len(), bytes), store.size());
            for (id, lease) in store.leases() {
                for key in lease.keys() {
                    prop_assert_eq!(found(&store, &Range::of(Span::one(key))).keys[0].lease, id);
                }
            }
            past.retain(|(revision, _)| *revision != store.revision());
            past.push((store.revision(), keys));
        }
        for (revision, keys) in past.into_iter().filter(|(revision, _)| *revision >= store.compacted()) {
            let range = Range { revision, ..everything() };
            prop_assert_eq!(found(&store, &range).keys, keys, "at {}", revision);
        }
        prop_assert_eq!(Store::decode(&store.encode()).unwrap(), store);
    }
}
