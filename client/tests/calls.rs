//! Calls against a peer that behaves, and against some that do not.

mod fake;

use std::path::Path;
use std::time::Duration;

use fake::Peer;
use rialto_client::{Client, Endpoint, Error, Naming, RunBody, Wait, new_change};
use rialto_protocol::api::{ErrorCode, LogLine};
use rialto_protocol::model::AppSpec;
use serde_json::json;

fn client(sockets: &[&Path]) -> Client {
    Client::new(sockets.iter().map(|path| Endpoint::Socket(path.to_path_buf())).collect(), None)
}

fn body() -> RunBody {
    RunBody { change: new_change().hex(), app: "run-1".into(), spec: AppSpec::default() }
}

#[tokio::test]
async fn answers_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path(), |asked, answer| match asked.path.as_str() {
        "/v1/apps/shop/wait?until=running&timeout_ms=1500" => answer.json(json!({ "tasks": [] })),
        "/v1/apps/a%2Fb" => answer.refuse(404, "not_found", "app a/b not found"),
        _ => answer.refuse(400, "invalid", "what?"),
    });
    let client = client(&[&peer.socket]);
    let answer = client.wait("shop", Wait::Running, Duration::from_millis(1500)).await.unwrap();
    assert_eq!((answer.members_seen, answer.data.tasks.len()), (3, 0));
    let Err(Error::Refused(refusal)) = client.app("a/b").await else { panic!() };
    assert_eq!((refusal.code, refusal.hint.as_deref()), (ErrorCode::NotFound, Some("do otherwise")));
}

#[tokio::test]
async fn the_next_peer_is_asked_where_one_cannot_answer() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let nobody = one.path().join("nobody.sock");
    let breaks = Peer::start(one.path(), |_, answer| drop(answer));
    let works = Peer::start(two.path(), |_, answer| answer.json(json!({ "apps": [] })));
    let answer = client(&[&nobody, &breaks.socket, &works.socket]).apps().await;
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(breaks.asked().len(), 1);
    let busy_folder = tempfile::tempdir().unwrap();
    let busy = Peer::start(busy_folder.path(), |_, answer| answer.refuse(429, "busy", "this peer is going down"));
    assert!(client(&[&busy.socket, &works.socket]).apps().await.is_ok());
    assert_eq!(client(&[&busy.socket]).apps().await.unwrap_err().code(), Some(ErrorCode::Busy));
}

#[tokio::test]
async fn that_no_peer_is_there_is_an_error_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let nobody = folder.path().join("nobody.sock");
    let Err(Error::NoPeer(tried)) = client(&[&nobody, &nobody]).status().await else { panic!() };
    assert_eq!(tried.len(), 2);
    assert_eq!(tried[0].why, "no such file or directory");
    let refused = Client::new(vec!["http://127.0.0.1:1".parse().unwrap()], Some("secret".into()));
    assert!(matches!(refused.status().await, Err(Error::NoPeer(_))));
}

#[tokio::test]
async fn lines_are_followed_to_their_end() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path(), |_, answer| {
        let mut lines = answer.lines();
        lines.line(&json!({ "output": { "task": "a.b.1", "stream": "stdout", "at": 7, "data": "aGk=" } }));
        lines.line(&json!({ "failed": { "code": "unreachable", "message": "m2 is down" } }));
        lines.end();
    });
    let mut lines = client(&[&peer.socket]).run(&body()).await.unwrap();
    assert!(matches!(lines.next().await, Ok(Some(LogLine::Output { .. }))));
    assert!(matches!(lines.next().await, Ok(Some(LogLine::Failed(_)))));
    assert_eq!(lines.next().await, Ok(None));
    assert_eq!(peer.asked()[0].path, "/v1/runs?follow=true");
}

#[tokio::test]
async fn lines_that_break_off_are_no_end() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path(), |_, answer| {
        let mut lines = answer.lines();
        lines.line(&json!({ "output": { "task": "a.b.1", "stream": "stdout", "at": 7, "data": "" } }));
    });
    let mut lines = client(&[&peer.socket]).run(&body()).await.unwrap();
    assert!(lines.next().await.is_ok());
    assert!(matches!(lines.next().await, Err(Error::BrokeOff { .. })));
}

#[tokio::test]
async fn nonsense_is_refused() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{",
        "HTTP/1.1 500 X\r\ncontent-length: 4\r\n\r\noops",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let folder = tempfile::tempdir().unwrap();
        let peer = Peer::start(folder.path(), move |_, mut out| out.raw(answer));
        let error = client(&[&peer.socket]).apps().await.unwrap_err();
        assert!(matches!(error, Error::Unreadable { .. } | Error::BrokeOff { .. }), "{answer}: {error:?}");
    }
}

#[tokio::test]
async fn an_archive_is_sent_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path(), |asked, answer| {
        let bytes = asked.body.len();
        answer.json(json!({ "name": "web:1", "digest": "sha256:00", "bytes": bytes, "machines": ["m1"] }));
    });
    let pieces = futures::stream::iter((0..100).map(|_| Ok(bytes::Bytes::from(vec![7; 1000]))));
    let image = client(&[&peer.socket]).import(Naming::As("web:1"), pieces).await.unwrap().data;
    assert_eq!(image.bytes, 100_000);
    assert_eq!(peer.asked()[0].path, "/v1/images?name=web%3A1");
    let broken = futures::stream::iter([Err(std::io::Error::other("the disk is gone"))]);
    let error = client(&[&peer.socket]).import(Naming::As("web"), broken).await.unwrap_err();
    assert_eq!(error, Error::Source("the disk is gone".into()));
}
