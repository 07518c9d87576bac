use super::*;
use crate::ids::AppId;
use crate::model::{NetworkMode, PortSpec};

const STEWARD: PeerId = PeerId([9; 32]);

fn solicit(auction: u64, count: u32) -> Arc<Solicit> {
    let app = AppId { namespace: "default".into(), name: "shop".into(), generation: 1 };
    let need = Resources::of(500, 100);
    let (service, image) = ("web".into(), "host".into());
    Arc::new(Solicit { auction, app, service, count, need, image, deadline_ms: 150, ..Solicit::default() })
}

fn ask(bidder: &mut Bidder, now_ms: u64, auction: u64, count: u32) -> Answer {
    let images = Images { known: true, present: true, name: "host" };
    let now = Now { ms: now_ms, wall: now_ms };
    bidder.solicited(now, STEWARD, &solicit(auction, count), now_ms + 150, images, BidId([auction as u8; 16]))
}

#[test]
fn it_never_reserves_more_than_it_has() {
    let mut bidder = Bidder { capacity: Resources::of(2000, 1000), ..Default::default() };
    assert!(matches!(ask(&mut bidder, 0, 1, 3), Answer::Bid(Bid { count: 3, .. })));
    assert!(matches!(ask(&mut bidder, 0, 1, 3), Answer::Bid(Bid { count: 3, .. })), "asked again");
    assert!(matches!(ask(&mut bidder, 0, 2, 3), Answer::Bid(Bid { count: 1, .. })));
    assert!(matches!(ask(&mut bidder, 0, 3, 1), Answer::Later), "reserved is not full");
    assert_eq!(bidder.released(&BidId([1; 16])).len(), 1);
    assert!(matches!(ask(&mut bidder, 0, 3, 1), Answer::Bid(Bid { count: 1, .. })));
    bidder.expire(RESERVATION_MS);
    assert!(matches!(ask(&mut bidder, RESERVATION_MS, 4, 9), Answer::Bid(Bid { count: 4, .. })));
}

fn ask_for(bidder: &mut Bidder, auction: u64, count: u32, need: Resources) -> Answer {
    let solicit = Arc::new(Solicit { need, ..Solicit::clone(&solicit(auction, count)) });
    let images = Images { known: true, present: true, name: "host" };
    bidder.solicited(Now::default(), STEWARD, &solicit, 150, images, BidId([auction as u8; 16]))
}

#[test]
fn gpus_are_bound_when_they_are_reserved() {
    let mut bidder = Bidder { capacity: Resources::of(9000, 9000), ..Default::default() };
    (0..2).for_each(|gpu| bidder.capacity.set(format!("gpu_milli:{gpu}"), 1000));
    let mut share = Resources::of(1, 1);
    share.set("gpu_milli", 400);
    assert!(matches!(ask_for(&mut bidder, 1, 9, share.clone()), Answer::Bid(Bid { count: 4, .. })));
    let reservation = bidder.reservation(&BidId([1; 16])).unwrap().clone();
    for copy in 0..4 {
        let need = reservation.need_of(copy);
        assert!(need.has_gpus() && need.get("gpu_milli") == 0);
    }
    let mut whole = Resources::of(1, 1);
    whole.set("gpu", 1);
    assert!(matches!(ask_for(&mut bidder, 2, 1, whole.clone()), Answer::Later), "all are reserved in part");
    bidder.released(&BidId([1; 16]));
    assert!(matches!(ask_for(&mut bidder, 3, 9, whole.clone()), Answer::Bid(Bid { count: 2, .. })));
    whole.set("gpu", 3);
    let Answer::Decline(decline) = ask_for(&mut bidder, 4, 1, whole) else { panic!("three of two") };
    assert_eq!(decline.reason, DeclineReason::TooSmall("gpu".into()));
    let mut numbered = Resources::of(1, 1);
    numbered.set("gpu_milli:0", 10);
    assert!(matches!(ask_for(&mut bidder, 5, 1, numbered), Answer::Decline(_)), "by its number");
}

#[test]
fn a_constraint_that_is_not_met_is_the_reason() {
    let mut bidder = Bidder { capacity: Resources::of(9000, 9000), ..Default::default() };
    let constraints = vec!["node.labels.disk == ssd".parse().unwrap()];
    let solicit = Arc::new(Solicit { constraints, ..Solicit::clone(&solicit(1, 1)) });
    let images = Images { known: true, present: true, name: "host" };
    let ask = |bidder: &mut Bidder| bidder.solicited(Now::default(), STEWARD, &solicit, 150, images, BidId([1; 16]));
    let Answer::Decline(decline) = ask(&mut bidder) else { panic!("it has no such label") };
    assert_eq!(decline.reason.to_string(), "not node.labels.disk == ssd");
    bidder.labels.insert("disk".into(), "ssd".into());
    assert!(matches!(ask(&mut bidder), Answer::Bid(_)));
}

#[test]
fn a_waiting_call_is_declined_at_its_deadline() {
    let mut bidder = Bidder { capacity: Resources::of(500, 1000), ..Default::default() };
    ask(&mut bidder, 0, 1, 1);
    assert!(matches!(ask(&mut bidder, 0, 2, 1), Answer::Later));
    assert_eq!(bidder.deadline(), Some(150));
    assert_eq!(bidder.expire(150).0.len(), 1);
}

#[test]
fn ports_differ_from_each_other_and_from_what_is_taken() {
    let mut bidder = Bidder::default();
    let any = PortSpec { container: 80, host: None, protocol: "tcp".into(), ..PortSpec::default() };
    let fixed = PortSpec { host: Some(20_000), ..any.clone() };
    let taken = &mut BTreeSet::from([20_001]);
    let doors = bidder.doors(NetworkMode::Task, &[any.clone(), fixed, any], 0, taken).unwrap();
    assert_eq!(doors.ports.iter().map(|port| port.host).collect::<Vec<_>>(), [20_002, 20_000, 20_003]);
}
