//! Why tasks wait, asked of any of three peers with real brains; and the ledger, whole.

mod town;

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use rialto_protocol::event::Request;
use rialto_protocol::ids::ChangeId;
use rialto_protocol::snapshot::Snapshot;
use serde_json::{Value, json};
use town::Town;
use town::village::{Peer, Roads};

fn change() -> String {
    ChangeId(*uuid::Uuid::now_v7().as_bytes()).hex()
}

fn deploy(cpus: u64, replicas: u32) -> String {
    let service = json!({"image": "host", "command": ["wait"], "replicas": replicas,
        "reservations": {"cpu_millis": cpus * 1000}, "constraints": [{"equal": false, "values": ["m3"]}]});
    json!({"change": change(), "spec": {"services": {"web": service}}}).to_string()
}

/// Machines of 4, 2 and 8 cores, in one cluster.
async fn three() -> (Vec<Town>, Vec<Peer>) {
    let roads = Roads::default();
    let first = Peer::found(&roads, 4).await;
    let second = first.join(2, 2).await;
    let third = first.join(3, 8).await;
    let peers = vec![first, second, third];
    (peers.iter().map(Town::of_peer).collect(), peers)
}

async fn explained(town: &Town, name: &str, so: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        let (status, answer) = town.get(&format!("/v1/explain/{name}")).await;
        assert_eq!(status, 200, "{answer}");
        if so(&answer) {
            return answer;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{answer:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn reasons(answer: &Value) -> Vec<(String, String)> {
    let rows = answer["services"][0]["machines"].as_array().unwrap();
    rows.iter().map(|row| (row["text"].as_str().unwrap().into(), row["machines"].to_string())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_peer_tells_what_the_steward_knows() {
    let (towns, peers) = three().await;
    let (status, answer) = towns[0].send("PUT", "/v1/apps/shop", deploy(3, 3)).await;
    assert_eq!(status, 200, "{answer}");
    let mut told = Vec::new();
    for town in &towns {
        // The steward alone has asked machines: its word comes from whichever peer is asked.
        let full = |answer: &Value| {
            let one = &answer["services"][0];
            answer["by_steward"] == true && one["running"] == 1 && one["waiting"] == 2 && reasons(answer).len() == 3
        };
        let answer = explained(town, "shop.web", full).await;
        assert_eq!(answer["told_by"], answer["steward"]);
        assert_eq!(answer["services"][0]["tasks"][0]["why"], "no machine takes it");
        told.push(reasons(&answer));
    }
    let wanted = [
        ("not enough cpu: needs 3 cores, at most 1 core free", r#"["m1"]"#),
        ("too small: needs 3 cores, has at most 2 cores", r#"["m2"]"#),
        ("node.hostname != m3 does not hold", r#"["m3"]"#),
    ];
    for told in told {
        assert_eq!(told, wanted.map(|(text, names)| (text.to_string(), names.to_string())));
    }
    let ready = Request::Drain { on: true };
    peers[0].handle.request(ready).await.unwrap();
    let draining = |answer: &Value| reasons(answer).iter().any(|(text, at)| text == "draining" && at == r#"["m1"]"#);
    explained(&towns[1], "shop.web", draining).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_steward_that_cannot_be_asked_is_named() {
    let (towns, peers) = three().await;
    assert_eq!(towns[0].send("PUT", "/v1/apps/shop", deploy(9, 1)).await.0, 200);
    let steward = explained(&towns[0], "shop", |answer| answer["by_steward"] == true).await["steward"].clone();
    let at = peers.iter().position(|peer| steward == format!("m{}", peer.id.0[0])).unwrap();
    peers[at].roads.lose(&peers[at].id);
    let other = &towns[(at + 1) % 3];
    let (status, answer) = other.get("/v1/explain/shop").await;
    assert_eq!((status, &answer["by_steward"]), (200, &json!(false)), "{answer}");
    let remark = answer["remarks"][0].as_str().unwrap();
    assert!(remark.contains(steward.as_str().unwrap()) && remark.contains("cannot be asked"), "{remark}");
    assert_eq!(answer["services"][0]["machines"][0]["code"], "too-small");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_there_cannot_be_explained() {
    let (towns, _peers) = three().await;
    assert_eq!(towns[0].send("PUT", "/v1/apps/shop", deploy(1, 2)).await.0, 200);
    for (name, place) in [
        ("nosuch", "app"),
        ("shop.nosuch", "service"),
        ("shop.web.3", "task"),
        ("shop.web.0", "task"),
        ("shop.web.x", "task"),
        ("%2e%2e", "app"),
    ] {
        for town in &towns {
            let began = Instant::now();
            loop {
                // The app may still be on its way to this peer.
                let (status, answer) = town.get(&format!("/v1/explain/{name}")).await;
                assert_eq!(status, 404, "{name}: {answer}");
                if answer["where"] == place {
                    break;
                }
                assert!(began.elapsed() < Duration::from_secs(20), "{name}: {answer}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_is_given_whole_to_people_and_not_to_peers() {
    let (towns, peers) = three().await;
    assert_eq!(towns[0].send("PUT", "/v1/apps/shop", deploy(1, 2)).await.0, 200);
    let response = towns[0].respond("GET", "/v1/ledger", String::new()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/cbor");
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let snapshot = Snapshot::from_bytes(&bytes).unwrap();
    assert_eq!((snapshot.peer, snapshot.live.len()), (peers[0].id, 3));
    assert!(snapshot.records.len() >= 7, "admissions, machines and a change: {}", snapshot.records.len());

    use rialto_node::api::Peers;
    let request = axum::http::Request::get("/v1/ledger").body(axum::body::Body::empty()).unwrap();
    let response = peers[1].forward().call(peers[0].id, Vec::new(), request).await.unwrap();
    assert_eq!(response.status(), 403);
}
