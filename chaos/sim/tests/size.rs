//! Laws of spreading, on peers that start from a ledger that is already there.

use std::sync::Arc;

use rialto_protocol::event::Request;
use rialto_protocol::ids::{ChangeId, PeerId};
use rialto_protocol::ledger::budget::{BURST_BYTES, RATE_BYTES};
use rialto_protocol::ledger::record::{Draft, Frame, Kind, Record, RecordKey, SCHEMA, Signature};
use rialto_protocol::model::AppSpec;
use rialto_protocol::wire::Message;
use rialto_sim::size::crowd::WALL_MS;
use rialto_sim::size::standing::service;
use rialto_sim::size::{Crowd, Standing, Tally};

fn crowd(peers: usize) -> Crowd {
    Crowd::new(1, &Standing::new(1, peers, peers * 5, WALL_MS), |_| {})
}

/// A record of `owner` alone in its frame.
fn frame(owner: PeerId, seq: u64, bytes: usize) -> Arc<Frame> {
    let key = RecordKey { kind: Kind::EVENT, id: format!("{seq}").into() };
    let record = Record { owner, key, seq, stamp: 0, schema: SCHEMA, value: Some(vec![seq as u8; bytes]) };
    let draft = Draft { owner, prev: seq - 1, records: vec![Arc::new(record)] };
    Arc::new(draft.seal(Signature([0; 64])).0)
}

#[test]
fn news_reach_all_at_once_over_what_becomes_nearly_a_tree() {
    let mut crowd = crowd(60);
    crowd.run_for(3_000);
    let all = crowd.links().0;
    for nth in 0..400 {
        let (took, late) = crowd.spread_one(nth % 60, 2_000);
        assert!(late == 0 && took.iter().all(|us| *us < 1_000_000), "record {nth}: {took:?}, {late} never");
        crowd.run_for(20);
    }
    assert!(crowd.eager() < 4.0 && crowd.eager() < all / 2.0, "{} of {all} links bring everything", crowd.eager());
    crowd.tally = Tally::default();
    for nth in 0..40 {
        crowd.spread_one(nth, 2_000);
    }
    let (news, again) = (crowd.tally.news, crowd.tally.duplicates);
    assert!(again < 2 * news, "{again} frames came again, {news} were news");
    assert_eq!(crowd.differing(), 0);
}

/// What every peer sees for itself none of them writes down: a change would be as many records as there are peers, and
/// each of them goes to all.
#[test]
fn a_change_is_no_more_records_where_there_are_more_peers() {
    let records = |peers: usize| {
        let mut crowd = crowd(peers);
        crowd.run_for(3_000);
        let before = crowd.brain(0).held().0;
        let spec = AppSpec { services: [("web".to_string(), service(2))].into(), single_run: false };
        crowd.ask(3, Request::Deploy { change: ChangeId([7; 16]), author: "ops".into(), app: "shop".into(), spec });
        crowd.run_for(5_000);
        crowd.brain(0).held().0 - before
    };
    let (few, many) = (records(10), records(40));
    assert!((3..12).contains(&few) && many < 12, "{few} records among 10 peers, {many} among 40");
}

#[test]
fn a_split_grows_together_to_one_ledger_and_to_the_wanted_tasks() {
    let mut crowd = crowd(20);
    crowd.run_for(3_000);
    assert_eq!(crowd.unsettled(), (0, 0));
    crowd.split(8);
    crowd.run_for(120_000);
    assert!(crowd.differing() > 0 && crowd.unsettled().1 > 0, "both sides went on");
    crowd.heal();
    crowd.run_for(30_000);
    assert_eq!((crowd.differing(), crowd.unsettled()), (0, (0, 0)));
}

#[test]
fn a_mad_owner_is_bounded_by_everybody_and_the_news_of_others_go_on() {
    let mut crowd = crowd(12);
    crowd.run_for(3_000);
    let (mad, size) = (crowd.id(0), 15 << 10);
    let first = crowd.brain(1).complete(&mad) + 1;
    let began = crowd.now_ms();
    for seq in first..first + 4_000 {
        crowd.inject(0, 1, Message::Frame(frame(mad, seq, size)));
        if seq % 200 == 0 {
            crowd.run_for(100);
        }
    }
    // All but the mad one itself, which has stopped.
    let (took, late) = crowd.spread_one(5, 2_000);
    assert!(late == 1 && took.iter().all(|us| *us < 1_000_000), "{took:?}, {late} never");
    let seconds = (crowd.now_ms() - began) / 1000 + 1;
    for peer in 1..12 {
        let taken = (crowd.brain(peer).complete(&mad) + 1 - first) * size as u64;
        assert!(taken > BURST_BYTES / 2, "an honest burst passes: {taken}");
        assert!(taken <= BURST_BYTES + seconds * RATE_BYTES, "m{peer} took {taken} bytes");
    }
    let told = crowd.brain(1).view(crowd.now()).status().warnings;
    assert!(told.iter().any(|warning| warning.starts_with("m0 writes more than its budget")), "{told:?}");
    assert!(crowd.tally.reports["over_budget"] > 1_000);
    assert!(crowd.retired.contains(&0), "who meets its own records that it never wrote stops");
}

#[test]
fn a_peer_from_an_old_snapshot_stops_when_it_meets_what_it_wrote_later() {
    let mut crowd = crowd(6);
    crowd.run_for(3_000);
    let own = crowd.id(2);
    let next = crowd.brain(3).complete(&own) + 1;
    // A later life of m2 wrote this, and only m3 has heard of it so far.
    crowd.inject(4, 3, Message::Frame(frame(own, next, 10)));
    crowd.run_for(5_000);
    assert!(crowd.retired.contains(&2) && crowd.retired.len() == 1);
}
