//! What is done once: a key is made by whoever comes first, and never again.
//!
//! Keys of runs that have an order are forgotten when much later ones are claimed; a mark says up to where, and what lies
//! at or below it counts as taken.

use rialto_locks::kv::{Answer, Compare, Delete, Op, Put, Range, Refusal, Relation, Span, Target, Txn};

use crate::Group;

/// What came of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// It is the asker's, now or since it asked before: the revision at which it was made.
    Mine(i64),
    /// By whom, as far as that is known.
    Taken(String),
}

impl Group {
    /// Claims a run. `floor`: runs up to this one, by their names, need not be remembered any more.
    pub async fn claim_once(
        &self,
        name: &str,
        run: &str,
        floor: Option<&str>,
        holder: &str,
    ) -> Result<Claimed, Refusal> {
        let applied = self.write(Op::Txn(claiming(name, run, floor, holder))).await?;
        claimed(applied.answer, holder)
    }
}

fn claiming(name: &str, run: &str, floor: Option<&str>, holder: &str) -> Txn {
    let key = format!("{name}/run/{run}").into_bytes();
    let mark = format!("{name}/floor").into_bytes();
    let put = |key: &[u8], value: &str| {
        Op::Put(Put { key: key.to_vec(), value: value.as_bytes().to_vec(), ..Put::default() })
    };
    let is_new = |key: &[u8]| Compare { span: Span::one(key), relation: Relation::Equal, target: Target::Created(0) };
    let below = |value: &str| Compare {
        span: Span::one(mark.clone()),
        relation: Relation::Less,
        target: Target::Value(value.as_bytes().to_vec()),
    };
    let make = put(&key, holder);
    let make = match floor {
        None => make,
        Some(floor) => {
            let old =
                Span { key: format!("{name}/run/").into_bytes(), end: format!("{name}/run/{floor}").into_bytes() };
            let forget = Op::Delete(Delete { span: old, want_previous: false });
            let raise =
                Txn { compare: vec![below(floor)], success: vec![put(&mark, floor), forget], failure: Vec::new() };
            let after =
                Txn { compare: vec![below(run)], success: vec![make.clone(), Op::Txn(raise)], failure: Vec::new() };
            Op::Txn(Txn {
                compare: vec![is_new(&mark)],
                success: vec![make, put(&mark, floor)],
                failure: vec![Op::Txn(after)],
            })
        }
    };
    let get = Op::Range(Range::of(Span::one(key.clone())));
    Txn { compare: vec![is_new(&key)], success: vec![make, get.clone()], failure: vec![get] }
}

fn claimed(answer: Answer, holder: &str) -> Result<Claimed, Refusal> {
    let Answer::Txn { answers, .. } = answer else { return Err(Refusal::Unknown) };
    let Some(Answer::Range(found)) = answers.last() else { return Err(Refusal::Unknown) };
    Ok(match found.keys.first() {
        Some(key) if key.value == holder.as_bytes() => Claimed::Mine(key.create_revision),
        Some(key) => Claimed::Taken(String::from_utf8_lossy(&key.value).into_owned()),
        None => Claimed::Taken("nobody knows any more: it is long ago".into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_locks::Store;

    fn claim(store: &mut Store, run: &str, floor: Option<&str>, holder: &str) -> Claimed {
        let answer = store.apply(&Op::Txn(claiming("shop", run, floor, holder))).unwrap().answer;
        claimed(answer, holder).unwrap()
    }

    #[test]
    fn whoever_comes_first_has_it_and_what_is_long_ago_nobody() {
        let mut store = Store::default();
        let Claimed::Mine(first) = claim(&mut store, "0500", Some("0400"), "a") else { panic!("it was free") };
        assert_eq!(claim(&mut store, "0500", Some("0400"), "a"), Claimed::Mine(first), "asked again");
        assert_eq!(claim(&mut store, "0500", Some("0400"), "b"), Claimed::Taken("a".into()));
        // An earlier one that is not too long ago, and one without an order.
        assert!(matches!(claim(&mut store, "0450", Some("0350"), "b"), Claimed::Mine(_)));
        assert!(matches!(claim(&mut store, "r1234567", None, "b"), Claimed::Mine(_)));
        assert!(matches!(claim(&mut store, "0300", Some("0200"), "b"), Claimed::Taken(_)));
        // A much later one, and what was is forgotten and still taken.
        let Claimed::Mine(later) = claim(&mut store, "0900", Some("0800"), "b") else { panic!("it was free") };
        assert!(later > first);
        assert_eq!(store.size().0, 3, "the mark, the run and the one without an order");
        assert!(matches!(claim(&mut store, "0500", Some("0400"), "c"), Claimed::Taken(_)));
        assert!(matches!(claim(&mut store, "0450", Some("0350"), "b"), Claimed::Taken(_)));
        assert_eq!(claim(&mut store, "r1234567", None, "c"), Claimed::Taken("b".into()));
    }
}
