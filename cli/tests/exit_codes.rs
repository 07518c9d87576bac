//! The program against a peer that says what the test wants: exit codes, and what goes where.

#[path = "../../client/tests/fake/mod.rs"]
mod fake;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use fake::{Answer, Asked, Peer};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

fn rialto(socket: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rialto"));
    command.args(line.split_whitespace());
    command.env_clear().env("RIALTO_SOCKET", socket).stdin(Stdio::null());
    command
}

fn told(peer: &Peer, line: &str) -> (i32, String, String) {
    let Output { status, stdout, stderr } = rialto(&peer.socket, line).output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("the output is text");
    (status.code().expect("it exits"), text(stdout), text(stderr))
}

fn peer(handle: impl Fn(&Asked, Answer) + Send + Sync + 'static) -> (tempfile::TempDir, Peer) {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(folder.path(), handle);
    (folder, peer)
}

fn row(state: &str, more: Value) -> Value {
    let mut row = json!({
        "task": "job.run.1", "app": "job", "service": "run", "slot": "1", "machine": "m2", "state": state,
        "address": "10.0.0.2", "ports": [], "attempt": 1, "started_at": "2026-01-01T00:00:00Z", "exit_code": null,
    });
    if let (Value::Object(row), Value::Object(more)) = (&mut row, more) {
        row.extend(more);
    }
    row
}

fn output(stream: &str, data: &str) -> Value {
    json!({ "output": { "task": "job.run.1", "stream": stream, "at": 7, "data": data } })
}

/// A peer whose runs print something and then come to `end`.
fn running(end: Value) -> (tempfile::TempDir, Peer) {
    peer(move |asked, answer| {
        assert!(asked.is("POST", "/v1/runs"), "{asked:?}");
        let mut lines = answer.lines();
        lines.line(&json!({ "state": row("pending", json!({ "machine": null })) }));
        lines.line(&output("stdout", "b3V0Cg=="));
        lines.line(&output("stderr", "ZXJyCg=="));
        lines.line(&json!({ "state": end }));
        lines.end();
    })
}

#[test]
fn a_run_exits_with_its_tasks_code() {
    for (end, code, said) in [
        (row("exited", json!({ "exit_code": 0 })), 0, "err\n"),
        (row("exited", json!({ "exit_code": 3 })), 3, "err\n"),
        (row("exited", json!({ "exit_code": 139 })), 139, "err\n"),
        (
            row("failed", json!({ "exit_code": 127, "reason": "no such program" })),
            127,
            "err\nrialto: no such program\n",
        ),
        (row("failed", json!({ "reason": "no such image" })), 125, "err\nrialto: no such image\n"),
        (row("running", json!({ "lost": true })), 125, "err\nrialto: m2 was lost, the command may have run\n"),
    ] {
        let (_folder, peer) = running(end);
        assert_eq!(told(&peer, "run host true"), (code, "out\n".into(), said.into()));
    }
}

#[test]
fn a_run_says_what_it_wants() {
    let (_folder, peer) = running(row("exited", json!({ "exit_code": 0 })));
    told(&peer, "run --name job --cpus 0.5 --memory 64m -e A=1 -p 8080:80 --retries 2 web:1 -- serve -x");
    let body = peer.asked()[0].json();
    assert_eq!(body["app"], "job");
    assert_eq!(body["change"].as_str().map(str::len), Some(32));
    let service = &body["spec"]["services"]["run"];
    assert_eq!(service["command"], json!(["serve", "-x"]));
    assert_eq!(service["restart"], "no");
    assert_eq!(service["on_lost"], json!({ "retry": 2 }));
    assert_eq!(service["limits"], json!({ "cpu_millis": 500, "memory_bytes": 64 << 20 }));
    assert_eq!(service["reservations"], service["limits"]);
    assert_eq!(service["ports"][0]["host"], 8080);
}

#[test]
fn rialtos_own_failures_of_a_run_are_125() {
    let (_folder, refusing) = peer(|_, answer| answer.refuse(422, "unplaceable", "no machine could ever hold it"));
    let (code, out, err) = told(&refusing, "run host true");
    assert_eq!((code, out.as_str()), (125, ""));
    assert_eq!(err, "rialto: no machine could ever hold it\n  hint: do otherwise\n");
    let folder = tempfile::tempdir().unwrap();
    let nobody = rialto(&folder.path().join("nobody"), "run host true").output().unwrap();
    assert_eq!(nobody.status.code(), Some(125));
    assert_eq!(rialto(folder.path(), "run --bogus").output().unwrap().status.code(), Some(125));
}

#[test]
fn a_detached_run_prints_its_tasks_name() {
    let (_folder, peer) = peer(|asked, answer| {
        assert_eq!(asked.path, "/v1/runs");
        answer.json(json!({ "app": "job", "generation": 1, "copies": 3, "changed": true }));
    });
    assert_eq!(told(&peer, "run -d --name job host sleep 9"), (0, "job.run.1\n".into(), String::new()));
}

/// A peer whose run goes on until it is scaled to nothing.
fn stoppable() -> (tempfile::TempDir, Peer) {
    let stopped = std::sync::Arc::new((std::sync::Mutex::new(false), std::sync::Condvar::new()));
    peer(move |asked, answer| {
        let (flag, changed) = &*stopped;
        if asked.is("POST", "/v1/apps/job/scale") {
            assert_eq!(asked.json()["replicas"], 0);
            *flag.lock().unwrap() = true;
            changed.notify_all();
            return answer.json(json!({ "app": "job", "generation": 1, "copies": 1, "changed": true }));
        }
        let mut lines = answer.lines();
        lines.line(&json!({ "state": row("running", json!({})) }));
        lines.line(&output("stdout", "Z28K"));
        drop(changed.wait_while(flag.lock().unwrap(), |stopped| !*stopped).unwrap());
        lines.line(&json!({ "state": row("stopped", json!({ "exit_code": 143 })) }));
        lines.end();
    })
}

#[test]
fn an_interrupt_stops_the_task() {
    for (signal, code) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let (_folder, peer) = stoppable();
        let mut child = rialto(&peer.socket, "run --name job host work").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "go\n");
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert!(peer.asked().iter().any(|asked| asked.is("POST", "/v1/apps/job/scale")));
    }
}

#[test]
fn a_run_stops_when_its_time_is_over() {
    let (_folder, peer) = stoppable();
    let (code, out, err) = told(&peer, "run --name job --timeout 100ms host work");
    assert_eq!((code, out.as_str()), (125, "go\n"));
    assert_eq!(err, "rialto: the time is over: the task was stopped\n");
}

#[test]
fn a_run_stops_when_nobody_reads_it() {
    let (_folder, peer) = peer(|asked, answer| {
        if asked.is("POST", "/v1/apps/job/scale") {
            return answer.json(json!({ "app": "job", "generation": 1, "copies": 1, "changed": true }));
        }
        let mut lines = answer.lines();
        for _ in 0..2000 {
            lines.line(&output("stdout", &"eHh4eHh4".repeat(1000)));
        }
        lines.line(&json!({ "state": row("stopped", json!({})) }));
        lines.end();
    });
    let mut child = rialto(&peer.socket, "run --name job host yes").stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(141));
}

#[test]
fn a_peer_that_goes_away_is_found_again() {
    let (_folder, peer) = peer(|asked, answer| match asked.path.split('?').next() {
        Some("/v1/runs") => {
            let mut lines = answer.lines();
            lines.line(&json!({ "state": row("running", json!({})) }));
            lines.line(&output("stdout", "b25lCg=="));
        }
        Some("/v1/tasks/job.run.1") => answer.json(row("exited", json!({ "exit_code": 4 }))),
        Some("/v1/logs/job.run.1") => {
            let mut lines = answer.lines();
            lines.line(&output("stdout", "b25lCnR3bwo="));
            lines.end();
        }
        _ => answer.refuse(404, "not_found", "?"),
    });
    let (code, out, _) = told(&peer, "run --name job host work");
    assert_eq!((code, out.as_str()), (4, "one\ntwo\n"));
}

#[test]
fn refusals_have_their_codes() {
    for (status, code, exit) in [
        (404, "not_found", 3),
        (400, "invalid", 4),
        (403, "denied", 4),
        (409, "conflict", 4),
        (504, "timed_out", 6),
        (422, "unplaceable", 7),
        (502, "unreachable", 1),
        (500, "internal", 1),
    ] {
        let (_folder, peer) = peer(move |_, answer| answer.refuse(status, code, "no"));
        assert_eq!(told(&peer, "ps").0, exit, "{code}");
    }
    let folder = tempfile::tempdir().unwrap();
    let nobody = rialto(&folder.path().join("nobody"), "status").output().unwrap();
    assert_eq!(nobody.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("no peer is reachable"));
    for line in ["", "bogus", "ps --bogus", "scale shop", "--api m1 ps"] {
        assert_eq!(rialto(folder.path(), line).output().unwrap().status.code(), Some(2), "{line}");
    }
    assert_eq!(rialto(folder.path(), "run --help").output().unwrap().status.code(), Some(0));
}

#[test]
fn lists_are_bare_arrays_for_programs() {
    let (_folder, peer) = peer(|asked, answer| match asked.path.as_str() {
        "/v1/tasks" => answer.json(json!({ "tasks": [row("running", json!({}))], "remarks": ["holding back 4"] })),
        "/v1/tasks?app=shop&service=web&all=true" => answer.json(json!({ "tasks": [] })),
        "/v1/apps/shop" => {
            let services = json!({ "web": { "image": "host" } });
            answer.json(json!({ "app": "shop", "generation": 1, "spec": { "services": services } }));
        }
        "/v1/machines" => answer.json(json!({ "machines": [] })),
        "/v1/images" => answer.json(json!({ "images": [] })),
        _ => answer.refuse(404, "not_found", "?"),
    });
    let (code, out, err) = told(&peer, "ps -o json");
    let rows: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, rows[0]["task"].as_str(), err.as_str()), (0, Some("job.run.1"), "holding back 4\n"));
    for key in ["app", "service", "slot", "machine", "state", "address", "ports", "attempt", "started_at", "exit_code"]
    {
        assert!(rows[0].get(key).is_some(), "{key}");
    }
    assert_eq!(told(&peer, "ps shop.web -a -o json"), (0, "[]\n".into(), "shop has no tasks\n".into()));
    assert_eq!(told(&peer, "ps shop.web -a"), (0, String::new(), "shop has no tasks\n".into()));
    assert_eq!(told(&peer, "machine ls -o json"), (0, "[]\n".into(), String::new()));
    let (code, out, err) = told(&peer, "image ls");
    assert_eq!((code, out.as_str()), (0, ""));
    assert!(err.starts_with("no images yet"));
}

#[test]
fn a_log_that_cannot_be_read_is_no_success() {
    let (_folder, peer) = peer(|asked, answer| {
        if asked.is("GET", "/v1/tasks") {
            return answer.json(json!({ "tasks": [] }));
        }
        let mut lines = answer.lines();
        lines.line(&output("stdout", "b25lCg=="));
        lines.line(&json!({ "failed": { "code": "unreachable", "message": "the log is on m2, which is down" } }));
        lines.end();
    });
    let want = (1, "one\n".to_string(), "rialto: the log is on m2, which is down\n".to_string());
    assert_eq!(told(&peer, "logs shop"), want);
}

#[test]
fn a_run_whose_output_cannot_be_read_is_no_success() {
    let unread = json!({ "failed": { "code": "unreachable", "message": "m2 cannot be reached" } });
    let run = |later: Option<Value>| {
        let unread = unread.clone();
        peer(move |asked, answer| {
            let mut lines = answer.lines();
            if asked.is("POST", "/v1/runs") {
                lines.line(&output("stdout", "b3V0Cg=="));
                lines.line(&unread);
                lines.line(&json!({ "state": row("exited", json!({ "exit_code": 0 })) }));
            } else {
                // The whole of it, from its beginning.
                lines.line(&output("stdout", "b3V0CmVuZAo="));
                later.iter().for_each(|line| lines.line(line));
            }
            lines.end();
        })
    };
    let (_folder, healed) = run(None);
    assert_eq!(told(&healed, "run host work"), (0, "out\nend\n".into(), String::new()));
    let (_folder, cut) = run(Some(unread.clone()));
    let (code, out, err) = told(&cut, "run host work");
    assert_eq!((code, out.as_str()), (125, "out\nend\n"));
    assert!(err.contains("ended with code 0, and its output cannot be read: m2 cannot be reached"), "{err}");
}

#[test]
fn a_deploy_waits_and_says_why_it_waits() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shop.yaml");
    std::fs::write(&file, "name: shop\nservices:\n  web:\n    image: host\n    deploy: {replicas: 2}\n").unwrap();
    let deploy_as = |answer_to_wait: (u16, &'static str), phase: &'static str| {
        // A change before this one was stopped: that is no news.
        let deployed = AtomicBool::new(false);
        peer(move |asked, answer| match (asked.method.as_str(), asked.path.split('?').next().unwrap_or_default()) {
            ("PUT", "/v1/apps/shop") => {
                assert_eq!(asked.json()["spec"]["services"]["web"]["replicas"], 2);
                deployed.store(true, Ordering::SeqCst);
                answer.json(json!({ "app": "shop", "generation": 1, "copies": 3, "changed": true }));
            }
            ("GET", "/v1/apps/shop") => {
                answer.json(json!({ "app": "shop", "generation": 1, "spec": { "services": {} } }));
            }
            ("GET", "/v1/apps/shop/rollout") => {
                let (to, phase) = if deployed.load(Ordering::SeqCst) { ("2", phase) } else { ("1", "failed") };
                answer.json(json!({ "rollouts": [{
                    "service": "web", "phase": phase, "updated": 1, "total": 2, "failed": 1, "back": false,
                    "from": "0", "to": to, "reason": "1 of 2 tasks failed",
                }] }));
            }
            (_, "/v1/apps/shop/wait") if answer_to_wait.0 == 200 => answer.json(json!({ "tasks": [] })),
            (_, "/v1/apps/shop/wait") => answer.refuse(answer_to_wait.0, answer_to_wait.1, "no"),
            (_, "/v1/tasks") => {
                let waits = json!({ "task": "shop.web.1", "service": "web", "reason": "no room", "machine": null });
                answer.json(json!({ "tasks": [row("pending", waits)] }));
            }
            _ => answer.refuse(404, "not_found", "?"),
        })
    };
    let deploy = |answer_to_wait: (u16, &'static str)| deploy_as(answer_to_wait, "done");
    let line = format!("deploy --timeout 300ms -f {}", file.display());
    let (_folder, runs) = deploy((200, ""));
    let (code, out, err) = told(&runs, &line);
    assert_eq!((code, out.as_str()), (0, ""));
    assert!(err.starts_with("shop is accepted; 3 peers have it on disk\n") && err.contains("shop runs after"), "{err}");
    let (_folder, late) = deploy((504, "timed_out"));
    let (code, _, err) = told(&late, &line);
    assert_eq!(code, 6);
    assert!(err.contains("shop.web.1 is pending: no room") && err.contains("web 0/2"), "{err}");
    let (_folder, stopped) = deploy_as((200, ""), "failed");
    let (code, _, err) = told(&stopped, &line);
    assert_eq!(code, 1);
    assert!(err.contains("shop.web: stopped with 1 of 2 changed: 1 of 2 tasks failed"), "{err}");
    let (_folder, never) = deploy((422, "unplaceable"));
    assert_eq!(told(&never, &line).0, 7);
    let (_folder, left) = deploy((504, "timed_out"));
    assert_eq!(told(&left, &format!("{line} --detach")).0, 0);
    std::fs::write(&file, "services:\n  web:\n    imgae: host\n").unwrap();
    let (code, _, err) = told(&left, &line);
    assert_eq!(code, 4);
    assert!(err.contains("shop.yaml:3:5: services.web.imgae: unknown key"), "{err}");
    assert_eq!(told(&left, "deploy -f /nowhere.yaml").0, 3);
}

#[test]
fn an_image_is_packed_and_sent() {
    let (folder, peer) = peer(|asked, answer| {
        let path = asked.path.clone();
        let bytes = asked.body.len();
        assert_eq!(path, "/v1/images?fallback=web");
        answer.json(json!({ "name": "web", "digest": "sha256:0123456789abcdef", "bytes": bytes, "machines": ["m1"] }));
    });
    let layout = folder.path().join("Web");
    std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    assert_eq!(told(&peer, &format!("image import {}", layout.display())).0, 4, "no layout yet");
    for (name, text) in [("oci-layout", "{}"), ("index.json", "{}"), ("blobs/sha256/00", "blob")] {
        std::fs::write(layout.join(name), text).unwrap();
    }
    let (code, _, err) = told(&peer, &format!("image import {}", layout.display()));
    assert_eq!(code, 0, "{err}");
    assert!(err.starts_with("web is imported"));
    let asked = peer.asked();
    let mut archive = tar::Archive::new(&asked.last().unwrap().body[..]);
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        names.push((entry.path().unwrap().display().to_string(), text));
    }
    assert!(names.contains(&("blobs/sha256/00".into(), "blob".into())), "{names:?}");
    assert_eq!(told(&peer, "image import /nowhere").0, 3);
}

#[test]
fn a_pull_tells_how_far_it_is() {
    let row = json!({ "name": "r.example/web", "digest": "sha256:0123456789abcdef", "bytes": 5, "machines": ["m1"] });
    let layer = |state: &str| json!({"layer": {"digest": "sha256:aa", "bytes": 5, "bytes_total": 5, "state": state}});
    let lines = [layer("fetching"), layer("fetching"), layer("ready"), json!({"pulled": row})];
    let tell = |answer: Answer, lines: &[Value]| {
        let mut told = answer.lines();
        lines.iter().for_each(|line| told.line(line));
        told.end();
    };
    let (_folder, peer) = peer(move |asked, answer| match (asked.method.as_str(), asked.path.as_str()) {
        ("POST", "/v1/images/r.example%2Fweb/pull") => tell(answer, &lines),
        ("POST", "/v1/images/none/pull") => {
            tell(answer, &[json!({"failed": {"code": "not_found", "message": "nobody has it"}})]);
        }
        ("DELETE", "/v1/images/web?force=true") => {
            answer.json(json!({"machines": [{"machine": "m1", "images": ["web"], "bytes": 1 << 20}]}));
        }
        ("POST", "/v1/blobs/gc?unused_ms=604800000") => {
            answer.json(json!({"machines": [{"machine": "m1", "images": [], "bytes": 0},
                {"machine": "m2", "images": [], "bytes": 0, "error": "no connection"}]}));
        }
        other => panic!("{other:?}"),
    });
    let (code, out, err) = told(&peer, "image pull r.example/web");
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert_eq!(err, "aa: fetching (5 B)\naa: ready (5 B)\nr.example/web is here: 5 B, 0123456789ab\n");
    let (code, out, _) = told(&peer, "-o json image pull r.example/web");
    assert!(code == 0 && out.contains("sha256:0123456789abcdef"), "{out}");
    let (code, _, err) = told(&peer, "image pull none");
    assert!(code == 3 && err.contains("nobody has it"), "{err}");
    let (code, _, err) = told(&peer, "image rm --force web");
    assert!(code == 0 && err.contains("m1: web and 1 MiB given back"), "{err}");
    let (code, _, err) = told(&peer, "image gc --unused 7d");
    assert!(code == 1 && err.contains("m2: no connection"), "{err}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (_folder, peer) = peer(|_, answer| {
        let rows: Vec<Value> = (0..5000).map(|_| row("running", json!({}))).collect();
        answer.json(json!({ "tasks": rows }));
    });
    for line in ["ps", "ps -o json"] {
        let mut child = rialto(&peer.socket, line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let ended = child.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), ended.stderr.len()), (Some(0), 0), "{line}");
    }
}

#[test]
fn stopping_and_removing_ask_nothing_of_a_script() {
    let (_folder, peer) = peer(|asked, answer| match (asked.method.as_str(), asked.path.split('?').next().unwrap()) {
        ("POST", "/v1/apps/shop/scale") | ("DELETE", "/v1/apps/shop") => {
            answer.json(json!({ "app": "shop", "generation": 1, "copies": 3, "changed": true }));
        }
        (_, "/v1/apps/shop/wait") => answer.json(json!({ "tasks": [] })),
        (_, "/v1/apps/shop") => {
            let services = json!({ "web": { "image": "host", "replicas": 3 } });
            answer.json(json!({ "app": "shop", "generation": 1, "spec": { "services": services } }));
        }
        _ => answer.refuse(404, "not_found", "?"),
    });
    assert_eq!(told(&peer, "stop shop"), (0, String::new(), "shop has stopped\n".into()));
    assert_eq!(told(&peer, "rm shop"), (0, String::new(), "shop is removed\n".into()));
    assert_eq!(told(&peer, "scale shop.web=3 shop=1").2, "shop.web: 3 replicas\nshop: 1 replica\n");
    let (code, _, err) = told(&peer, "stop shop.web.2");
    assert_eq!(code, 4);
    assert!(err.contains("rialto scale shop.web=2"), "{err}");
}

#[test]
fn the_own_version_is_told_without_a_peer() {
    let folder = tempfile::tempdir().unwrap();
    let output = rialto(&folder.path().join("nobody"), "version").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(env!("CARGO_PKG_VERSION")) && text.contains("no peer is reachable"), "{text}");
}

#[test]
fn what_cannot_be_explained_or_foreseen_has_its_code() {
    let (_folder, peer) = peer(|asked, answer| match asked.path.as_str() {
        "/v1/explain/shop.web" => answer.json(json!({
            "app": "shop", "generation": 1, "steward": "m2", "told_by": "m1", "by_steward": false, "services": [],
            "remarks": ["m2, which looks after shop, cannot be asked"],
        })),
        "/v1/ledger" => answer.json(json!({})),
        "/v1/rebalance" if asked.method == "GET" => {
            let even = json!({ "fullest_permille": 10, "emptiest_permille": 10, "stranded_gpu_milli": 0 });
            answer.json(json!({ "before": even, "after": even, "moves": [], "begun": false }));
        }
        _ => answer.refuse(404, "not_found", "?"),
    });
    let (code, out, err) = told(&peer, "explain shop.web");
    assert_eq!((code, err.as_str()), (0, "m2, which looks after shop, cannot be asked\n"));
    assert_eq!(out, "shop: m2 looks after it; this is what m1 knows\n");
    assert_eq!(told(&peer, "explain nosuch").0, 3);
    let (code, out, err) = told(&peer, "foresee --lose m1");
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("no snapshot of a ledger"), "{err}");
    assert_eq!(told(&peer, "foresee --deploy /no/such/file").0, 3);
    assert_eq!(told(&peer, "foresee --add 1 --add 2 --like m1").0, 2);
    let (code, out, err) = told(&peer, "rebalance --dry-run");
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", "no move pays more than it costs\n"));
    assert_eq!(told(&peer, "rebalance").0, 3, "it is a POST");
}
