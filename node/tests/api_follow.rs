//! Runs, logs and waits over real brains: what people follow, here and on other machines.

mod town;

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt;
use rialto_protocol::event::Request;
use rialto_protocol::ids::ChangeId;
use serde_json::{Value, json};
use town::village::{Peer, Roads};
use town::{Lines, Town};

fn change() -> String {
    ChangeId(*uuid::Uuid::now_v7().as_bytes()).hex()
}

fn service(image: &str, command: &[&str], restart: &str, replicas: u32) -> Value {
    json!({"services": {"web": {"image": image, "command": command, "restart": restart, "replicas": replicas}}})
}

fn run_body(name: &str, command: &[&str]) -> String {
    json!({"app": name, "change": change(), "spec": service("host", command, "no", 1)}).to_string()
}

fn text_of(line: &Value) -> Option<String> {
    let data = STANDARD.decode(line["output"]["data"].as_str()?).unwrap();
    Some(format!("{}:{}", line["output"]["stream"].as_str().unwrap(), String::from_utf8(data).unwrap()))
}

async fn rest(mut lines: Lines) -> Vec<Value> {
    let mut all = Vec::new();
    while let Ok(line) = tokio::time::timeout(Duration::from_secs(20), lines.next()).await {
        match line {
            Some(line) => all.push(line),
            None => return all,
        }
    }
    panic!("the stream does not end after {all:#?}");
}

/// A founder, with room or without, and a second machine with room; who is asked is the founder.
async fn two(founder_cpus: u64) -> (Town, Town, Peer, Peer) {
    let roads = Roads::default();
    let first = Peer::found(&roads, founder_cpus).await;
    let second = first.join(2, 4).await;
    (Town::of_peer(&first), Town::of_peer(&second), first, second)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_tells_everything_in_one_answer() {
    let peer = Peer::found(&Roads::default(), 4).await;
    let town = Town::of_peer(&peer);
    let body = run_body("job", &["out:one", "err:two", "exit:3"]);
    let lines = rest(town.lines_of("POST", "/v1/runs?follow=true", body.clone()).await).await;
    let printed: Vec<String> = lines.iter().filter_map(text_of).collect();
    assert_eq!(printed, ["stdout:one", "stderr:two"]);
    let last = &lines.last().unwrap()["state"];
    assert_eq!((&last["state"], &last["exit_code"]), (&json!("exited"), &json!(3)), "{lines:?}");
    // Sent twice, it is not run twice, and tells the same.
    let again = rest(town.lines_of("POST", "/v1/runs?follow=true", body).await).await;
    assert_eq!(again.iter().filter_map(text_of).collect::<Vec<_>>(), printed);
    assert_eq!(again.last().unwrap()["state"]["attempt"], last["attempt"]);
    // Another run of that name is refused, until the first is removed; then it tells only of itself.
    assert_eq!(town.send("POST", "/v1/runs", run_body("job", &["out:other"])).await.0, 409);
    assert_eq!(town.send("DELETE", &format!("/v1/apps/job?change={}", change()), String::new()).await.0, 200);
    let lines = rest(town.lines_of("POST", "/v1/runs?follow=true", run_body("job", &["out:other"])).await).await;
    assert_eq!(lines.iter().filter_map(text_of).collect::<Vec<_>>(), ["stdout:other"], "{lines:?}");
    assert_eq!(lines.last().unwrap()["state"]["exit_code"], 0, "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_ends_when_it_is_stopped_or_removed() {
    let peer = Peer::found(&Roads::default(), 4).await;
    let town = Town::of_peer(&peer);
    for (name, method, path, body) in [
        ("job", "DELETE", format!("/v1/apps/job?change={}", change()), String::new()),
        ("jog", "POST", "/v1/apps/jog/scale".into(), json!({"change": change(), "replicas": 0}).to_string()),
    ] {
        let mut lines =
            town.lines_of("POST", "/v1/runs?follow=true", run_body(name, &["out:begun", "wait", "out:done"])).await;
        while text_of(&lines.next().await.unwrap()).is_none() {}
        assert_eq!(town.send(method, &path, body).await.0, 200);
        let lines = rest(lines).await;
        let last = &lines.last().unwrap()["state"];
        assert_eq!((&last["state"], &last["exit_code"]), (&json!("stopped"), &json!(143)), "{lines:?}");
        assert_eq!(lines.iter().filter_map(text_of).collect::<Vec<_>>(), ["stdout:done"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_start_or_fit_is_told() {
    let peer = Peer::found(&Roads::default(), 4).await;
    let town = Town::of_peer(&peer);
    let body = json!({"app": "job", "change": change(), "spec": service("broken", &[], "no", 1)});
    let (status, answer) = town.send("POST", "/v1/runs?follow=true", body.to_string()).await;
    assert_eq!((status, &answer["where"]), (422, &json!("spec.services.web.image")), "{answer}");
    let image = Request::Image {
        name: "broken:latest".into(),
        digest: "sha256:00".into(),
        bytes: 1,
        present: true,
        brought: true,
    };
    peer.handle.request(image).await.unwrap();
    let lines = rest(town.lines_of("POST", "/v1/runs?follow=true", body.to_string()).await).await;
    let last = &lines.last().unwrap()["state"];
    assert_eq!((&last["state"], &last["reason"]), (&json!("failed"), &json!("no such image")), "{lines:?}");
    let mut body = json!({"app": "big", "change": change(), "spec": service("host", &[], "no", 1)});
    body["spec"]["services"]["web"]["reservations"] = json!({"cpu_millis": 64_000});
    let (status, answer) = town.send("POST", "/v1/runs?follow=true", body.to_string()).await;
    assert_eq!((status, &answer["code"]), (422, &json!("unplaceable")));
    assert!(answer["message"].as_str().unwrap().contains("64 cores"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_image_is_asked_of_whoever_has_its_name() {
    let peer = Peer::found(&Roads::default(), 4).await;
    let town = Town::of_peer(&peer);
    for digest in ["sha256:01", "sha256:02"] {
        let (name, digest) = ("web:latest".into(), digest.into());
        peer.handle.request(Request::Image { name, digest, bytes: 1, present: true, brought: true }).await.unwrap();
    }
    let mut body: Value = serde_json::from_str(&run_body("job", &["holders"])).unwrap();
    body["spec"]["services"]["web"]["image"] = "web".into();
    body["spec"]["services"]["web"]["image_digest"] = "sha256:01".into();
    let lines = rest(town.lines_of("POST", "/v1/runs?follow=true", body.to_string()).await).await;
    assert_eq!(lines.iter().filter_map(text_of).collect::<Vec<_>>(), ["stdout:1"], "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_on_another_machine_is_followed_all_the_same() {
    let (town, _there, _first, second) = two(0).await;
    let lines =
        rest(town.lines_of("POST", "/v1/runs?follow=true", run_body("job", &["out:far", "exit:7"])).await).await;
    assert_eq!(lines.iter().filter_map(text_of).collect::<Vec<_>>(), ["stdout:far"], "{lines:?}");
    let last = &lines.last().unwrap()["state"];
    assert_eq!((&last["machine"], &last["exit_code"]), (&json!("m2"), &json!(7)), "{lines:?}");
    // By every name it has, followed or not.
    let claim = last["claim"].as_str().unwrap();
    for name in ["job", "job.web", "job.web.1", claim, &claim[..8]] {
        for follow in ["false", "true"] {
            let lines = rest(town.lines(&format!("/v1/logs/{name}?follow={follow}")).await).await;
            assert_eq!(
                lines.iter().filter_map(text_of).collect::<Vec<_>>(),
                ["stdout:far"],
                "{name} {follow} {lines:?}"
            );
        }
    }
    // Its machine dies: that is said, and never an empty success.
    second.roads.lose(&second.id);
    let (status, answer) = town.send("GET", "/v1/logs/job.web.1", String::new()).await;
    assert_eq!((status, &answer["code"], &answer["where"]), (502, &json!("unreachable"), &json!("m2")), "{answer}");
    let lines = rest(town.lines("/v1/logs/job?follow=true").await).await;
    assert_eq!(lines.last().unwrap()["failed"]["code"], "unreachable", "{lines:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_waited_for_and_followed_until_it_is_gone() {
    let (town, _there, _first, _second) = two(4).await;
    let body = json!({"change": change(), "spec": service("host", &["out:here", "wait"], "always", 3)});
    assert_eq!(town.send("PUT", "/v1/apps/shop", body.to_string()).await.0, 200);
    let (status, answer) = town.get("/v1/apps/shop/wait?until=running&timeout_ms=5000").await;
    assert_eq!((status, answer["tasks"].as_array().map(Vec::len)), (200, Some(3)), "{answer}");
    let (status, task) = town.get("/v1/tasks/shop.web.2?wait=running").await;
    assert_eq!((status, &task["state"]), (200, &json!("running")));
    let (status, answer) = town.get("/v1/tasks/shop.web.2?wait=finished&timeout_ms=50").await;
    assert_eq!((status, &answer["code"]), (504, &json!("timed_out")));
    let mut lines = town.lines("/v1/logs/shop?follow=true").await;
    for _ in 0..3 {
        assert_eq!(text_of(&lines.next().await.unwrap()).as_deref(), Some("stdout:here"));
    }
    let scale = json!({"change": change(), "replicas": 0});
    assert_eq!(town.send("POST", "/v1/apps/shop/scale", scale.to_string()).await.0, 200);
    assert_eq!(rest(lines).await, [] as [Value; 0]);
    assert_eq!(town.get("/v1/apps/shop").await.1["spec"]["services"]["web"]["replicas"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_machine_itself_can_say_that_it_drains() {
    let (town, _there, _first, second) = two(4).await;
    let (status, answer) = town.send("POST", "/v1/machines/m2/drain", String::new()).await;
    assert_eq!((status, &answer["machine"], &answer["draining"]), (200, &json!("m2"), &json!(true)), "{answer}");
    assert_eq!(town.send("POST", "/v1/machines/m2/undrain", String::new()).await.0, 200);
    second.roads.lose(&second.id);
    assert_eq!(town.send("POST", "/v1/machines/m2/drain", String::new()).await.0, 502);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_does_not_wait_for_a_dead_machine() {
    let (town, _there, _first, second) = two(0).await;
    let body = json!({"change": change(), "spec": service("host", &["wait"], "always", 1)});
    assert_eq!(town.send("PUT", "/v1/apps/shop", body.to_string()).await.0, 200);
    assert_eq!(town.get("/v1/apps/shop/wait?until=running&timeout_ms=5000").await.0, 200);
    second.roads.lose(&second.id);
    let scale = json!({"change": change(), "replicas": 0});
    assert_eq!(town.send("POST", "/v1/apps/shop/scale", scale.to_string()).await.0, 200);
    let (status, answer) = town.get("/v1/apps/shop/wait?until=finished&timeout_ms=20000").await;
    // Once its machine is given up for dead, the task is not shown as anything any more.
    let lost = answer["tasks"].as_array().unwrap().iter().all(|task| task["lost"] == true);
    assert_eq!((status, lost), (200, true), "{answer}");
}

/// Not a bound that a busy machine could break: what it takes is printed, and that it is no long poll.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_costs_the_api_little_time() {
    let (town, _there, _first, _second) = two(4).await;
    let mut times = Vec::new();
    for n in 0..20 {
        let begun = Instant::now();
        let name = format!("job-{n}");
        rest(town.lines_of("POST", "/v1/runs?follow=true", run_body(&name, &["out:x"])).await).await;
        times.push(begun.elapsed());
    }
    times.sort();
    println!("a run with a null executor: median {:?}, all {:?} to {:?}", times[10], times[0], times[19]);
    assert!(times[10] < Duration::from_secs(1));
}
