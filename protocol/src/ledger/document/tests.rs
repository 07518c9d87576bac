use automerge::transaction::Transactable;

use super::*;
use crate::model::{Asked, PortSpec, ServiceSpec};

fn app() -> AppId {
    AppId { namespace: "default".into(), name: "shop".into(), generation: 1 }
}

fn spec(replicas: u32) -> AppSpec {
    let port = PortSpec { container: 80, host: Some(8080), protocol: "tcp".into(), ..PortSpec::default() };
    let web = ServiceSpec {
        image: "web".into(),
        command: vec!["serve".into(), "-p".into()],
        replicas,
        ports: vec![port],
        environment: BTreeMap::from([("A".into(), "1".into())]),
        ..Default::default()
    };
    AppSpec { services: BTreeMap::from([("web".into(), web)]), single_run: false }
}

/// Everything in every ledger builds on it: another first change would leave all of them waiting for the one they know.
#[test]
fn the_first_change_is_what_edits_would_have_made() {
    let mut edited = Automerge::new().with_actor(genesis(&app()).get_actor().clone());
    let mut transaction = edited.transaction();
    for map in ["services"].iter().chain(&NOTES) {
        transaction.put_object(ROOT, *map, ObjType::Map).unwrap();
    }
    transaction.commit_with(CommitOptions::default().with_time(0));
    assert_eq!(genesis(&app()).get_heads(), edited.get_heads());
    assert_eq!(genesis(&app()).get_heads().len(), 1);
}

#[test]
fn a_spec_reads_back_and_the_same_again_is_no_change() {
    let mut document = Document::new(app());
    assert!(document.edit(&PeerId([1; 32]), &Edit::Spec(spec(3))).is_some());
    assert_eq!(*document.spec, spec(3));
    assert!(document.edit(&PeerId([1; 32]), &Edit::Spec(spec(3))).is_none());
}

#[test]
fn concurrent_edits_of_different_fields_both_hold() {
    let mut one = Document::new(app());
    let first = one.edit(&PeerId([1; 32]), &Edit::Spec(spec(3))).unwrap();
    let mut two = Document::new(app());
    two.apply(&first).unwrap();
    let scaled = one.edit(&PeerId([1; 32]), &Edit::Replicas { service: None, replicas: 5, at: 0 }).unwrap();
    let mut other = spec(3);
    other.services.get_mut("web").unwrap().image = "web:2".into();
    let imaged = two.edit(&PeerId([2; 32]), &Edit::Spec(other)).unwrap();
    one.apply(&imaged).unwrap();
    two.apply(&scaled).unwrap();
    assert_eq!(one.spec, two.spec);
    assert_eq!((one.spec.services["web"].replicas, one.spec.services["web"].image.as_str()), (5, "web:2"));
}

#[test]
fn a_field_that_two_set_at_once_is_a_conflict_until_somebody_sets_it_again() {
    let mut one = Document::new(app());
    let first = one.edit(&PeerId([1; 32]), &Edit::Spec(spec(3))).unwrap();
    let mut two = Document::new(app());
    two.apply(&first).unwrap();
    let scale = |replicas| Edit::Replicas { service: None, replicas, at: 0 };
    let five = one.edit(&PeerId([1; 32]), &scale(5)).unwrap();
    let seven = two.edit(&PeerId([2; 32]), &scale(7)).unwrap();
    one.apply(&seven).unwrap();
    two.apply(&five).unwrap();
    assert_eq!((&one.spec, &one.conflicts), (&two.spec, &two.conflicts));
    assert_eq!(one.conflicts, ["services.web.replicas is 7, and somebody else set 5"]);
    // The older states are still known, each as its author saw it.
    let replicas = |document: &mut Document, change: &[u8]| document.spec_at(change).unwrap().services["web"].replicas;
    assert_eq!([&first, &five, &seven].map(|change| replicas(&mut one, change)), [3, 5, 7]);
    assert_eq!(one.spec_at(b"another's"), None);
    let seven = one.spec.services["web"].replicas;
    assert!(one.edit(&PeerId([1; 32]), &scale(seven)).is_some());
    assert_eq!(one.conflicts, [""; 0]);
    assert!(one.edit(&PeerId([1; 32]), &scale(seven)).is_none());
    assert!(Document::place(&first) < Document::place(&five));
}

#[test]
fn conflicts_are_the_same_in_whatever_order_changes_come() {
    let mut first = Document::new(app());
    let begun = first.edit(&PeerId([9; 32]), &Edit::Spec(spec(3))).unwrap();
    let changes: Vec<Vec<u8>> = [1, 2, 3]
        .into_iter()
        .map(|author| {
            let mut document = Document::new(app());
            document.apply(&begun).unwrap();
            let scale = Edit::Replicas { service: None, replicas: 4 + u32::from(author), at: 0 };
            document.edit(&PeerId([author; 32]), &scale).unwrap()
        })
        .collect();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut document = Document::new(app());
        document.apply(&begun).unwrap();
        assert!(order.into_iter().all(|at| document.apply(&changes[at]).is_ok()));
        assert_eq!(document.conflicts, ["services.web.replicas is 7, and somebody else set 5, 6"], "{order:?}");
    }
}

#[test]
fn a_change_waits_for_what_it_depends_on() {
    let mut one = Document::new(app());
    let first = one.edit(&PeerId([1; 32]), &Edit::Spec(spec(3))).unwrap();
    let second = one.edit(&PeerId([1; 32]), &Edit::Delete).unwrap();
    let mut two = Document::new(app());
    assert!(!two.apply(&second).unwrap());
    assert!(two.has_waiting() && !two.deleted);
    assert!(two.apply(&first).unwrap());
    assert!(two.deleted && !two.has_waiting());
    two.close();
    assert!(!two.apply(&first).unwrap(), "again is harmless");
}

#[test]
fn bytes_that_are_no_change_are_refused() {
    let mut document = Document::new(app());
    for bad in [&b""[..], b"\x85\x6f\x4a\x83", &[0xff; 400]] {
        assert!(document.apply(bad).is_err());
    }
}

#[test]
fn outcomes_of_several_stewards_are_united() {
    let outcome = |slot: &str, attempt| Outcome {
        slot: slot.into(),
        revision: 7,
        attempt,
        exit_code: Some(0),
        lost: false,
        reason: None,
        ended_at: None,
        machine: None,
    };
    let mut one = Document::new(app());
    let mut two = Document::new(app());
    let edit = |batch: &str, outcomes| Edit::Outcomes {
        batch: batch.into(),
        by: batch.into(),
        outcomes: BTreeMap::from([("web".to_string(), outcomes)]),
        cursors: BTreeMap::from([("nightly".to_string(), if batch == "a" { 9 } else { 5 })]),
    };
    let lost = |slot| Outcome { exit_code: None, lost: true, ..outcome(slot, 1) };
    let a = one.edit(&PeerId([1; 32]), &edit("a", vec![outcome("1", 1), outcome("2", 1), lost("3")])).unwrap();
    let b = two.edit(&PeerId([2; 32]), &edit("b", vec![outcome("2", 2), outcome("3", 1)])).unwrap();
    // A member gone mad takes another's name for a batch of its own.
    let c = two.edit(&PeerId([2; 32]), &edit("a", vec![outcome("1", 9)])).unwrap();
    for change in [&b, &c] {
        one.apply(change).unwrap();
    }
    two.apply(&a).unwrap();
    assert_eq!(one.outcomes, two.outcomes);
    assert_eq!((one.outcomes["web"]["2"].attempt, one.outcomes["web"]["3"].exit_code), (2, Some(0)));
    assert_eq!((one.cursors["nightly"], two.cursors["nightly"]), (9, 9));
}

#[test]
fn what_is_noted_leaves_the_services_alone_and_an_earlier_revision_is_found() {
    use crate::model::OrderWord;
    let me = PeerId([1; 32]);
    let mut one = Document::new(app());
    one.edit(&me, &Edit::Spec(spec(3)));
    let old = one.revisions["web"];
    let mut other = spec(3);
    other.services.get_mut("web").unwrap().image = "web:2".into();
    one.edit(&me, &Edit::Spec(other));
    let spec = one.spec.clone();
    let asked = Asked { at: 7, size: 2 };
    one.edit(&me, &Edit::Run { service: "web".into(), id: "ab".into(), asked });
    let order = RolloutOrder { revision: one.revisions["web"], word: OrderWord::Pause };
    one.edit(&me, &Edit::Order { service: "web".into(), order: order.clone() });
    assert!(Arc::ptr_eq(&spec, &one.spec), "nothing was read anew");
    assert_eq!((one.runs["web"]["ab"], &one.orders["web"]), (asked, &order));
    for batch in 0..EARLIER_MAX {
        let outcomes = Default::default();
        let cursors = [("web".to_string(), batch as u64)].into();
        one.edit(&me, &Edit::Outcomes { batch: batch.to_string(), by: "me".into(), outcomes, cursors });
    }
    one.close();
    let before = one.service_at("web", old).unwrap();
    assert_eq!((before.image.as_str(), one.service_at("web", 1)), ("web", None));
    let order = RolloutOrder { revision: old, word: OrderWord::Back };
    one.edit(&me, &Edit::Back { service: "web".into(), spec: Box::new(before), order });
    assert_eq!((one.revisions["web"], one.orders["web"].word), (old, OrderWord::Back));
}

#[test]
fn runs_that_were_asked_for_long_ago_are_forgotten() {
    let mut one = Document::new(app());
    for at in 0..RUNS_MAX as u64 + 3 {
        let asked = Asked { at, size: 1 };
        one.edit(&PeerId([1; 32]), &Edit::Run { service: "load".into(), id: format!("{at:08x}"), asked });
    }
    assert_eq!((one.runs["load"].len(), one.runs["load"].values().map(|asked| asked.at).min()), (RUNS_MAX, Some(3)));
}
