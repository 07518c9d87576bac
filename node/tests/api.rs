//! The API as clients meet it: over the socket, over TCP, and from peer to peer.

mod town;

use std::os::unix::fs::PermissionsExt;

use axum::body::Bytes;
use futures::StreamExt;
use http_body_util::BodyExt;
use rialto_node::api::{self, CallError, Forward, Peers, fetch_blob, fetch_manifest};
use rialto_protocol::api::{ErrorBody, ErrorCode};
use rialto_protocol::effect::{Refusal, Reply};
use rialto_protocol::event::Request;
use rialto_protocol::ids::{AppId, PeerId};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use town::{BLOB, Corridor, TOKEN, Town, call, call_with, digest_of};

/// A method, a path and a body; the status, code and place that come of it.
type Wrong = (&'static str, &'static str, String, u16, ErrorCode, Option<&'static str>);

const CHANGE: &str = "00112233445566778899aabbccddeeff";

fn deploy_body() -> Value {
    json!({"change": CHANGE, "spec": {"services": {"web": {"image": "host", "command": ["true"], "replicas": 2}}}})
}

fn changed(request: &Request) -> Result<Reply, Refusal> {
    let app = match request {
        Request::Deploy { app, .. } | Request::Scale { app, .. } | Request::Remove { app, .. } => app,
        _ => return Ok(Reply::Done),
    };
    if app == "nosuch" {
        return Err(Refusal::NotFound(format!("app {app}")));
    }
    let app = AppId { namespace: "default".into(), name: app.clone(), generation: 1 };
    Ok(Reply::Changed { app, copies: 1, changed: true })
}

#[tokio::test]
async fn every_answer_says_how_fresh_it_is() {
    let town = Town::new(changed);
    for path in ["/v1/healthz", "/v1/version", "/v1/machines", "/v1/tasks?all", "/v1/apps", "/v1/images", "/v1/events"]
    {
        let (status, answer) = town.get(path).await;
        assert_eq!(status, 200, "{path}: {answer}");
        assert!(answer["as_of"].is_u64() && answer["members_seen"].is_u64(), "{path}: {answer}");
    }
    let (_, version) = town.get("/v1/version").await;
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    let (_, doctor) = town.get("/v1/doctor").await;
    let names: Vec<&str> =
        doctor["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    for name in ["rights", "cgroups", "disk", "clock", "executor", "peers", "dns", "warning"] {
        assert!(names.contains(&name), "{name} in {names:?}");
    }
}

#[tokio::test]
async fn what_a_peer_counts_is_there_for_prometheus_and_for_nobody_without_a_right() {
    let town = Town::new(changed);
    let answer = town.respond("GET", "/metrics", String::new()).await;
    assert_eq!(answer.status(), 200);
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&text).unwrap();
    for line in [
        "rialto_link_bytes_total{way=\"sent\"} 7.0",
        "rialto_refused_total{kind=\"mesh_unknown\"} 3.0",
        "rialto_ledger_records{} 0.0",
        "# TYPE rialto_links gauge",
        "# EOF",
    ] {
        assert!(text.lines().any(|one| one == line), "{line} in {text}");
    }
    for (door, status) in [(api::Door::Mesh(PeerId([7; 32])), 403), (api::Door::Tcp, 403)] {
        let request = axum::http::Request::builder().uri("/metrics").extension(door).body(axum::body::Body::empty());
        let answer = town.router.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), status, "{door:?}");
    }
}

#[tokio::test]
async fn wrong_requests_are_refused_with_what_is_wrong() {
    let town = Town::new(changed);
    let with = |change: fn(&mut Value)| {
        let mut body = deploy_body();
        change(&mut body);
        body.to_string()
    };
    let too_large = format!("{{\"change\": \"{}\"}}", "x".repeat(api_body_max()));
    let cases: Vec<Wrong> = vec![
        ("GET", "/", String::new(), 404, ErrorCode::NotFound, Some("path")),
        ("GET", "/v1", String::new(), 404, ErrorCode::NotFound, Some("path")),
        ("GET", "/v2/status", String::new(), 404, ErrorCode::NotFound, Some("path")),
        ("DELETE", "/v1/status", String::new(), 405, ErrorCode::Invalid, Some("method")),
        ("GET", "/v1/runs", String::new(), 405, ErrorCode::Invalid, Some("method")),
        ("GET", "/v1/tasks?al=true", String::new(), 400, ErrorCode::Invalid, Some("query")),
        ("GET", "/v1/tasks?all=maybe", String::new(), 400, ErrorCode::Invalid, Some("query")),
        ("GET", "/v1/tasks?service=web", String::new(), 400, ErrorCode::Invalid, Some("query")),
        ("GET", "/v1/tasks/web", String::new(), 400, ErrorCode::Invalid, Some("task")),
        ("GET", "/v1/tasks/shop.web.1", String::new(), 404, ErrorCode::NotFound, Some("task")),
        ("GET", "/v1/tasks/shop.web.1?wait=never", String::new(), 400, ErrorCode::Invalid, Some("query")),
        ("GET", "/v1/tasks/shop.web.1?wait=running", String::new(), 404, ErrorCode::NotFound, Some("task")),
        ("GET", "/v1/tasks/%ff", String::new(), 400, ErrorCode::Invalid, Some("path")),
        ("GET", "/v1/apps/shop", String::new(), 404, ErrorCode::NotFound, Some("app")),
        ("GET", "/v1/apps/shop/wait?until=running", String::new(), 404, ErrorCode::NotFound, Some("app")),
        ("GET", "/v1/apps/shop/wait", String::new(), 400, ErrorCode::Invalid, Some("query")),
        ("GET", "/v1/logs/shop.web.1", String::new(), 404, ErrorCode::NotFound, None),
        ("GET", "/v1/logs/shop?tail=-1", String::new(), 400, ErrorCode::Invalid, Some("query")),
        ("GET", "/v1/images/nosuch/manifest", String::new(), 404, ErrorCode::NotFound, Some("image")),
        ("GET", "/v1/images/..%2Fetc/manifest", String::new(), 400, ErrorCode::Invalid, Some("image")),
        ("GET", "/v1/blobs/sha256:00", String::new(), 400, ErrorCode::Invalid, Some("digest")),
        ("POST", "/v1/images?name=host", String::new(), 400, ErrorCode::Invalid, Some("name")),
        ("POST", "/v1/images?fallback=host", String::new(), 400, ErrorCode::Invalid, Some("name")),
        ("POST", "/v1/images?nam=x", String::new(), 400, ErrorCode::Invalid, Some("query")),
        ("POST", "/v1/images/host/pull", String::new(), 400, ErrorCode::Invalid, Some("name")),
        ("DELETE", "/v1/images/nosuch", String::new(), 404, ErrorCode::NotFound, Some("image")),
        ("DELETE", "/v1/images/a?heer", String::new(), 400, ErrorCode::Invalid, Some("query")),
        ("POST", "/v1/blobs/gc?unused_ms=x", String::new(), 400, ErrorCode::Invalid, Some("query")),
        ("POST", "/v1/images?name=bad", "bad".into(), 400, ErrorCode::Invalid, Some("image")),
        ("POST", "/v1/machines/m9/drain", String::new(), 404, ErrorCode::NotFound, Some("machine")),
        ("PUT", "/v1/apps/shop", String::new(), 400, ErrorCode::Invalid, Some("body:1:0")),
        ("PUT", "/v1/apps/shop", "{\n \"change\": 1}".into(), 400, ErrorCode::Invalid, Some("body:2:12")),
        ("PUT", "/v1/apps/shop", too_large, 413, ErrorCode::Invalid, Some("body")),
        ("PUT", "/v1/apps/shop", with(|b| b["chnge"] = "1".into()), 400, ErrorCode::Invalid, Some("chnge")),
        (
            "PUT",
            "/v1/apps/shop",
            with(|b| b["spec"]["services"]["web"]["replica"] = 2.into()),
            400,
            ErrorCode::Invalid,
            Some("spec.services.web.replica"),
        ),
        ("PUT", "/v1/apps/Shop", with(|_| {}), 400, ErrorCode::Invalid, Some("app")),
        ("PUT", "/v1/apps/machine", with(|_| {}), 400, ErrorCode::Invalid, Some("app")),
        ("PUT", "/v1/apps/shop", with(|b| b["change"] = "1".into()), 400, ErrorCode::Invalid, Some("change")),
        (
            "PUT",
            "/v1/apps/shop",
            with(|b| b["spec"]["services"]["web"]["replicas"] = 100_001.into()),
            400,
            ErrorCode::Invalid,
            Some("spec.services.web.replicas"),
        ),
        (
            "POST",
            "/v1/runs",
            with(|b| {
                b["app"] = "job".into();
                b["spec"]["services"] = json!({});
            }),
            400,
            ErrorCode::Invalid,
            Some("spec.services"),
        ),
        ("POST", "/v1/runs", with(|_| {}), 400, ErrorCode::Invalid, Some("body:1:122")),
        ("DELETE", "/v1/apps/shop", String::new(), 400, ErrorCode::Invalid, Some("change")),
        ("DELETE", "/v1/apps/shop?change=zz", String::new(), 400, ErrorCode::Invalid, Some("change")),
        (
            "POST",
            "/v1/apps/shop/scale",
            json!({"change": CHANGE, "replicas": 100_001}).to_string(),
            400,
            ErrorCode::Invalid,
            Some("replicas"),
        ),
        (
            "POST",
            "/v1/apps/nosuch/scale",
            json!({"change": CHANGE, "replicas": 1}).to_string(),
            404,
            ErrorCode::NotFound,
            None,
        ),
        (
            "POST",
            "/v1/invitations",
            json!({"ttl_seconds": 0, "uses": 1}).to_string(),
            400,
            ErrorCode::Invalid,
            Some("ttl_seconds"),
        ),
        (
            "POST",
            "/v1/invitations",
            json!({"ttl_seconds": 1, "uses": 0}).to_string(),
            400,
            ErrorCode::Invalid,
            Some("uses"),
        ),
    ];
    for (method, path, body, status, code, place) in cases {
        let (got, answer) = town.send(method, path, body).await;
        let refusal: ErrorBody =
            serde_json::from_value(answer.clone()).unwrap_or_else(|_| panic!("{method} {path}: {answer}"));
        assert_eq!((got, refusal.code, refusal.place.as_deref()), (status, code, place), "{method} {path}: {answer}");
        assert!(!refusal.message.is_empty());
    }
}

fn api_body_max() -> usize {
    1 << 20
}

#[tokio::test]
async fn changes_reach_the_brain_as_they_were_asked() {
    let town = Town::new(changed);
    let (status, answer) = town.send("PUT", "/v1/apps/shop", deploy_body().to_string()).await;
    assert_eq!((status, &answer["app"], &answer["copies"]), (200, &json!("shop"), &json!(1)), "{answer}");
    let scale = json!({"change": CHANGE, "service": "web", "replicas": 5});
    assert_eq!(town.send("POST", "/v1/apps/shop/scale", scale.to_string()).await.0, 200);
    assert_eq!(town.send("DELETE", &format!("/v1/apps/shop?change={CHANGE}"), String::new()).await.0, 200);
    let invite = json!({"ttl_seconds": 60, "uses": 3});
    let (status, answer) = town.send("POST", "/v1/invitations", invite.to_string()).await;
    assert_eq!((status, &answer["token"], &answer["uses"]), (200, &json!("rialto1.test"), &json!(3)));
    let asked = town.asked();
    assert!(
        matches!(&asked[..], [
            Request::Deploy { app, spec, author, .. },
            Request::Scale { service: Some(service), replicas: 5, .. },
            Request::Remove { .. },
            Request::Invite { uses: 3, ttl_ms: 60_000, .. },
        ] if app == "shop" && service == "web" && author == "administrator" && spec.services["web"].replicas == 2),
        "{asked:?}"
    );
}

#[tokio::test]
async fn an_image_goes_in_as_a_stream_and_out_by_its_digest() {
    let town = Town::new(changed);
    let (status, answer) = town.send("POST", "/v1/images?name=web:1", "x".repeat(3 << 20)).await;
    assert_eq!((status, &answer["bytes"], &answer["machines"]), (200, &json!(3 << 20), &json!(["m1"])), "{answer}");
    assert!(matches!(&town.asked()[..], [Request::Image { name, present: true, .. }] if name == "web:1"));
}

#[tokio::test]
async fn an_image_is_pulled_before_ones_eyes_and_goes_again() {
    let town = Town::new(changed);
    let mut lines = town.lines_of("POST", "/v1/images/r.example%2Fweb/pull", String::new()).await;
    let mut told = Vec::new();
    while let Some(line) = lines.next().await {
        told.push(line);
    }
    assert_eq!(told[0]["layer"]["state"], "ready");
    assert_eq!((told.len(), &told[1]["pulled"]["name"]), (2, &json!("r.example/web")), "{told:?}");
    let mut lines = town.lines_of("POST", "/v1/images/nosuch/pull", String::new()).await;
    let last = loop {
        let line = lines.next().await.expect("it says how it ended");
        if line.get("layer").is_none() {
            break line;
        }
    };
    assert_eq!(last["failed"]["code"], "not_found");
    let (status, answer) = town.send("DELETE", "/v1/images/web?here=true", String::new()).await;
    assert_eq!((status, &answer["machines"][0]["images"][0]), (200, &json!("web")), "{answer}");
    let (status, answer) = town.send("POST", "/v1/blobs/gc?here=true&unused_ms=5", String::new()).await;
    assert_eq!((status, &answer["machines"][0]["bytes"]), (200, &json!(7)), "{answer}");
    let told: Vec<_> = town.asked().into_iter().map(|request| format!("{request:?}")).collect();
    assert!(told[0].contains("present: true") && told[1].contains("present: false"), "{told:?}");
}

#[tokio::test]
async fn events_are_followed_as_they_happen() {
    let town = Town::new(changed);
    let (_, answer) = town.get("/v1/events?after=1").await;
    assert_eq!(answer["events"].as_array().unwrap().len(), 1);
    let mut lines = town.lines("/v1/events?follow=true").await;
    assert_eq!(lines.next().await.unwrap()["id"], 1);
    assert_eq!(lines.next().await.unwrap()["id"], 2);
    town.happen("placed");
    assert_eq!(lines.next().await.unwrap()["what"], "placed");
    town.closing.cancel();
    assert!(lines.next().await.is_none());
}

#[tokio::test]
async fn the_socket_needs_no_token_and_tcp_does() {
    let town = Town::new(changed);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rialto.sock");
    let listener = api::bind_socket(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let closing = CancellationToken::new();
    let socket = tokio::spawn(api::serve_socket(town.router.clone(), listener, closing.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tcp = tokio::spawn(api::serve_tcp(town.router.clone(), listener, closing.clone()));

    let (status, _) = call(UnixStream::connect(&path).await.unwrap(), "GET", "/v1/machines", &[]).await;
    assert_eq!(status, 200);
    let host = address.to_string();
    let bearer = format!("Bearer {TOKEN}");
    type Headers<'a> = Vec<(&'a str, &'a str)>;
    let cases: [(&str, Headers, u16); 6] = [
        ("/v1/healthz", vec![("host", &host)], 200),
        ("/v1/machines", vec![("host", &host)], 401),
        ("/v1/nosuch", vec![("host", &host)], 401),
        ("/v1/machines", vec![("host", &host), ("authorization", &bearer)], 200),
        ("/v1/machines", vec![("host", "evil.example"), ("authorization", &bearer)], 403),
        ("/v1/machines", vec![("host", &host), ("authorization", &bearer), ("origin", "http://evil.example")], 403),
    ];
    for (path, headers, expected) in cases {
        let (status, body) = call(TcpStream::connect(address).await.unwrap(), "GET", path, &headers).await;
        assert_eq!(status, expected, "{path} {headers:?}");
        assert!(serde_json::from_slice::<Value>(&body).is_ok(), "{path} {headers:?}");
    }
    closing.cancel();
    socket.await.unwrap();
    tcp.await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn peers_fetch_images_and_may_not_change_apps() {
    let town = Town::new(changed);
    let peers = Forward::new(Corridor::to(&town));
    let there = PeerId([2; 32]);
    let digest = digest_of(BLOB);
    let mut blob = fetch_blob(&peers, there, vec![], &digest).await.unwrap();
    assert_eq!(blob.bytes, BLOB.len() as u64);
    let mut bytes = Vec::new();
    while let Some(chunk) = blob.data.next().await {
        bytes.extend_from_slice(&chunk.unwrap());
    }
    assert_eq!(bytes, BLOB);
    let manifest = fetch_manifest(&peers, there, vec![], "web:1").await.unwrap();
    assert_eq!((manifest.digest, manifest.bytes), (digest, Bytes::from_static(BLOB)));
    let missing = fetch_blob(&peers, there, vec![], &digest_of(b"other")).await.err();
    assert!(matches!(missing, Some(CallError::Refused(problem)) if problem.status() == 404));

    let denied =
        [("GET", "/v1/tasks"), ("POST", "/v1/images?name=a"), ("DELETE", "/v1/apps/shop"), ("GET", "/v1/status")];
    for (method, path) in denied {
        let request = axum::http::Request::builder().method(method).uri(path).body(axum::body::Body::empty()).unwrap();
        assert_eq!(peers.call(there, vec![], request).await.unwrap().status(), 403, "{method} {path}");
    }
}

#[tokio::test]
async fn a_peer_that_is_not_there_is_an_error() {
    let peers = Forward::new(Corridor::nowhere());
    let failed = fetch_blob(&peers, PeerId([2; 32]), vec![], &digest_of(BLOB)).await.err();
    assert!(matches!(failed, Some(CallError::Open(_))));
}

#[tokio::test]
async fn nonsense_over_a_connection_ends_it_and_nothing_else() {
    let town = Town::new(changed);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(api::serve_tcp(town.router.clone(), listener, town.closing.clone()));
    let nonsense: [&[u8]; 5] = [
        b"\0\0\0\0\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/healthz HTTP/9.9\r\n\r\n",
        b"POST /v1/runs HTTP/1.1\r\nhost: localhost\r\ncontent-length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    ];
    for bytes in nonsense {
        let mut stream = TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, bytes).await.unwrap();
    }
    let stream = TcpStream::connect(address).await.unwrap();
    let host = address.to_string();
    assert_eq!(call_with(stream, "GET", "/v1/healthz", &[("host", &host)], Bytes::new()).await.0, 200);
}
