//! Debian's etcdctl, and curl, against three replicas on loopback: whatever they say of etcd must hold of this.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rialto_locks::voters::{Candidate, Standing};
use rialto_locks_service::{Carry, Group, Settings, etcd, start};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

type Wires = Arc<Mutex<HashMap<u64, Group>>>;

struct Wire {
    from: u64,
    wires: Wires,
}

impl Carry for Wire {
    fn carry(&self, to: u64, bytes: Vec<u8>) -> bool {
        let Some(group) = self.wires.lock().unwrap().get(&to).cloned() else { return false };
        let from = self.from;
        tokio::spawn(async move { group.deliver(from, bytes).await });
        true
    }

    fn directory(&self, node: u64) -> (String, Vec<String>) {
        (format!("m{node}"), Vec::new())
    }
}

/// Three voters, each with a door for clients.
struct Town {
    wires: Wires,
    doors: Vec<SocketAddr>,
    stops: Vec<CancellationToken>,
    _folders: Vec<tempfile::TempDir>,
}

impl Town {
    async fn new() -> Self {
        let wires = Wires::default();
        let (mut doors, mut stops, mut folders) = (vec![], vec![], vec![]);
        for node in 1..=3u64 {
            let folder = tempfile::tempdir().unwrap();
            let stop = CancellationToken::new();
            let settings =
                Settings { node, cluster: 7, folder: folder.path().into(), founds: node == 1, seed: 100 + node };
            let wire = Wire { from: node, wires: wires.clone() };
            let group = start(settings, Arc::new(wire), stop.clone()).unwrap();
            wires.lock().unwrap().insert(node, group.clone());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            doors.push(listener.local_addr().unwrap());
            let closing = stop.clone();
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap();
                    tokio::spawn(etcd::serve(group.clone(), stream, closing.clone()));
                }
            });
            stops.push(stop);
            folders.push(folder);
        }
        let town = Self { wires, doors, stops, _folders: folders };
        let peers =
            (1..=3).map(|node| Candidate { node, standing: Standing::Alive(5_000), since_ms: node, rack: None });
        let peers: Vec<Candidate> = peers.collect();
        let groups: Vec<Group> = town.wires.lock().unwrap().values().cloned().collect();
        for group in &groups {
            group.candidates(peers.clone()).await;
        }
        for group in &groups {
            let mut told = group.changes();
            let voted = told.wait_for(|told| told.voters.len() == 3 && told.leader != 0);
            tokio::time::timeout(Duration::from_secs(10), voted).await.expect("three voters in time").unwrap();
        }
        town
    }

    fn ctl(&self, at: usize, arguments: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(self.doors[at].to_string()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn run(&self, at: usize, arguments: &[&str]) -> Output {
        let mut command = self.ctl(at, arguments);
        tokio::task::spawn_blocking(move || command.output().expect("etcdctl")).await.unwrap()
    }

    async fn says(&self, at: usize, arguments: &[&str]) -> String {
        let output = self.run(at, arguments).await;
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a path answers to some JSON: the status, and the values of the body.
    async fn posts(&self, at: usize, path: &str, json: &str) -> (u16, Vec<Value>) {
        let mut command = Command::new("curl");
        let url = format!("http://{}{path}", self.doors[at]);
        command.args(["-s", "-m", "2", "-w", "\n%{http_code}", "-d", json, &url]);
        let output = tokio::task::spawn_blocking(move || command.output().expect("curl")).await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        let values = serde_json::Deserializer::from_str(body).into_iter().collect::<Result<_, _>>();
        (status.parse().unwrap(), values.unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
    }

    /// The node that leads.
    fn leader(&self) -> usize {
        let leaders: Vec<u64> = self.wires.lock().unwrap().values().map(|group| group.told().leader).collect();
        *leaders.iter().max().unwrap() as usize - 1
    }

    fn kill(&self, at: usize) {
        self.wires.lock().unwrap().remove(&(at as u64 + 1));
        self.stops[at].cancel();
    }
}

fn has_etcdctl() -> bool {
    let there = Command::new("etcdctl").arg("version").env("ETCDCTL_API", "3").output().is_ok();
    if !there {
        eprintln!("skipped: etcdctl is not installed (scripts/setup)");
    }
    there
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_leases_transactions_and_watches() {
    if !has_etcdctl() {
        return;
    }
    let town = Town::new().await;
    assert_eq!(town.says(0, &["put", "a", "1"]).await, "OK\n");
    assert_eq!(town.says(1, &["get", "a"]).await, "a\n1\n");
    assert_eq!(town.says(2, &["put", "a", "2", "--prev-kv"]).await, "OK\na\n1\n");
    assert_eq!(town.says(0, &["put", "ab", "3"]).await, "OK\n");
    assert_eq!(town.says(1, &["get", "a", "--prefix", "--print-value-only"]).await, "2\n3\n");
    assert_eq!(town.says(1, &["get", "a", "--rev", "2"]).await, "a\n1\n");
    assert_eq!(town.says(1, &["get", "", "--prefix", "--keys-only", "--order", "DESCEND"]).await, "ab\n\na\n\n");
    assert_eq!(town.says(2, &["del", "ab"]).await, "1\n");
    assert!(town.says(2, &["watch", "a", "--rev", "2", "--prefix", "-h"]).await.contains("watch"));

    let granted = town.says(0, &["lease", "grant", "60"]).await;
    let lease = granted.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(town.says(1, &["put", "leased", "x", "--lease", &lease]).await, "OK\n");
    assert!(town.says(2, &["lease", "timetolive", &lease, "--keys"]).await.contains("leased"));
    assert!(town.says(2, &["lease", "keep-alive", "--once", &lease]).await.contains("TTL(60)"));
    assert!(town.says(2, &["lease", "list"]).await.contains(&lease));
    assert!(town.says(0, &["lease", "revoke", &lease]).await.contains("revoked"));
    assert_eq!(town.says(0, &["get", "leased"]).await, "");

    let mut watching = town.ctl(1, &["watch", "w", "--rev", "1", "--prev-kv"]).spawn().unwrap();
    town.says(0, &["put", "w", "1"]).await;
    town.says(0, &["del", "w"]).await;
    let mut out = watching.stdout.take().unwrap();
    let read = tokio::task::spawn_blocking(move || {
        use std::io::Read;
        let mut seen = String::new();
        let mut byte = [0];
        while seen != "PUT\nw\n1\nDELETE\nw\n1\nw\n\n" && out.read(&mut byte).unwrap() == 1 {
            seen.push(byte[0] as char);
        }
        seen
    });
    let seen = tokio::time::timeout(Duration::from_secs(10), read).await.expect("what was watched").unwrap();
    assert_eq!(seen, "PUT\nw\n1\nDELETE\nw\n1\nw\n\n");
    watching.kill().unwrap();
    watching.wait().unwrap();

    let refused = town.run(0, &["get", "a", "--rev", "99999"]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("future revision"), "{refused:?}");
    let refused = town.run(0, &["member", "remove", "1"]).await;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("chosen by the group itself"), "{refused:?}");
    assert_eq!(town.says(0, &["member", "list"]).await.lines().count(), 3);
    assert!(town.says(0, &["endpoint", "status"]).await.contains("3.4.0"));
    assert!(town.run(0, &["endpoint", "health"]).await.status.success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_goes_round_and_outlives_its_leader() {
    if !has_etcdctl() {
        return;
    }
    let town = Town::new().await;
    let began = Instant::now();
    for _ in 0..10 {
        town.says(0, &["lock", "l", "true"]).await;
    }
    println!("etcdctl lock + unlock: {:.1} ms each", began.elapsed().as_secs_f64() * 100.0);
    // One holds; another waits until it goes.
    let mut holder = town.ctl(1, &["lock", "l", "sleep", "1"]).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let asked = Instant::now();
    town.says(2, &["lock", "l", "true"]).await;
    assert!(asked.elapsed() > Duration::from_millis(400), "it waited for its turn: {:?}", asked.elapsed());
    holder.wait().unwrap();

    let leader = town.leader();
    town.kill(leader);
    let killed = Instant::now();
    let other = (leader + 1) % 3;
    loop {
        let output = town.run(other, &["--command-timeout=300ms", "put", "after", "1"]).await;
        if output.status.success() {
            break;
        }
        assert!(killed.elapsed() < Duration::from_secs(5), "nobody took over: {output:?}");
    }
    println!("leader killed -> next write: {:?}", killed.elapsed());
    town.says(other, &["lock", "l", "true"]).await;
    // Without a quorum nothing is granted, and whoever asks is told in time.
    town.kill(other);
    let last = 3 - leader - other;
    let asked = Instant::now();
    let output = town.run(last, &["--command-timeout=9s", "put", "never", "1"]).await;
    assert!(!output.status.success() && asked.elapsed() < Duration::from_secs(6), "{:?} {output:?}", asked.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_is_spoken_at_the_same_port() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: curl is not installed (scripts/setup)");
        return;
    }
    let town = Town::new().await;
    // foo = bar, by three prefixes; bytes are base64, numbers text, zeros left out.
    for (at, prefix) in ["/v3", "/v3beta", "/v3alpha"].into_iter().enumerate() {
        let (status, put) = town.posts(at, &format!("{prefix}/kv/put"), r#"{"key":"Zm9v","value":"YmFy"}"#).await;
        assert!(status == 200 && put[0]["header"]["revision"].is_string(), "{put:?}");
        let (status, got) = town.posts(at, &format!("{prefix}/kv/range"), r#"{"key":"Zm9v"}"#).await;
        assert_eq!((status, &got[0]["count"], &got[0]["kvs"][0]["value"]), (200, &json!("1"), &json!("YmFy")));
        assert_eq!(got[0]["kvs"][0]["version"], json!((at + 1).to_string()));
        assert!(got[0]["kvs"][0].get("lease").is_none() && got[0].get("more").is_none(), "{got:?}");
    }
    let txn = r#"{"compare":[{"target":"VERSION","key":"Zm9v","version":"3"}],
                  "success":[{"requestDeleteRange":{"key":"Zm9v"}}],"failure":[{"requestRange":{"key":"Zm9v"}}]}"#;
    let (_, done) = town.posts(1, "/v3/kv/txn", txn).await;
    assert_eq!(done[0]["succeeded"], json!(true));
    assert_eq!(done[0]["responses"][0]["response_delete_range"]["deleted"], json!("1"));

    assert_eq!(town.posts(0, "/v3/lease/grant", r#"{"TTL":60,"ID":"77"}"#).await.0, 200);
    let (_, lease) = town.posts(1, "/v3/kv/lease/timetolive", r#"{"ID":77}"#).await;
    assert_eq!((&lease[0]["ID"], &lease[0]["grantedTTL"]), (&json!("77"), &json!("60")));
    let (_, kept) = town.posts(2, "/v3/lease/keepalive", r#"{"ID":"77"}"#).await;
    assert_eq!(kept[0]["result"]["TTL"], json!("60"));
    let (status, lock) = town.posts(2, "/v3/lock/lock", r#"{"name":"bA==","lease":77}"#).await;
    assert_eq!((status, &lock[0]["key"]), (200, &json!("bC80ZA==")), "l/4d");

    // A watch goes on as long as it is read: curl ends it.
    let watch = r#"{"create_request":{"key":"Zm9v","start_revision":"1"}}"#;
    let (_, watched) = town.posts(0, "/v3/watch", watch).await;
    assert_eq!(watched[0]["result"]["created"], json!(true));
    let events: Vec<&Value> =
        watched[1..].iter().flat_map(|line| line["result"]["events"].as_array().unwrap()).collect();
    assert_eq!((events.len(), &events[3]["type"]), (4, &json!("DELETE")));

    let words = "etcdserver: key is not provided";
    let refused = town.posts(0, "/v3/kv/range", "{}").await;
    assert_eq!(refused, (400, vec![json!({"error": words, "message": words, "code": 3})]));
    for (path, asked, status) in [
        ("/v3/kv/range", r#"{"quay":"Zm9v"}"#, 400),
        ("/v3/kv/range", "nonsense", 400),
        ("/v3/watch", "", 400),
        ("/v3/lease/revoke", r#"{"ID":"1234"}"#, 404),
        ("/v3/election/leader", r#"{"name":"bm9ib2R5"}"#, 404),
        ("/v3/auth/authenticate", r#"{"name":"a","password":"b"}"#, 501),
        ("/v3/nothing", "{}", 404),
        ("/nothing", "{}", 404),
    ] {
        let got = town.posts(0, path, asked).await;
        assert!(got.0 == status && got.1[0]["error"].is_string(), "{path}: {got:?}");
    }
    let version = json!({"etcdserver": "3.4.0", "etcdcluster": "3.4.0"});
    assert_eq!(town.posts(0, "/version", "").await, (200, vec![version]));
    let (_, members) = town.posts(0, "/v3/cluster/member/list", "{}").await;
    let urls: Vec<&Value> =
        members[0]["members"].as_array().unwrap().iter().flat_map(|one| one.get("clientURLs")).collect();
    assert_eq!(urls, [&json!([format!("http://{}", town.doors[0])])]);
    let (_, status) = town.posts(0, "/v3/maintenance/status", "{}").await;
    assert!(status[0]["version"] == "3.4.0" && status[0]["raftTerm"].is_string(), "{status:?}");
}
