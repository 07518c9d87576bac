//! A rolling update of twenty replicas on five real peers, with wrk asking all the while.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rialto_chaos::netns::until;
use rialto_protocol::api::TaskRow;

use crate::{PATIENCE, app_file, cluster_of, exactly, live};

const REPLICAS: usize = 20;
/// The machine that is none of the cluster's.
const OUTSIDE: usize = 5;
/// wrk gives up by itself, should nobody stop it.
const LIMIT: Duration = Duration::from_secs(120);

/// `examples/web`, five at a time, each new one serving before an old one ends.
fn shop(version: u32) -> String {
    format!(
        "services:
  web:
    image: web
    ports: ['18000:8080']
    environment: {{VERSION: '{version}'}}
    deploy:
      replicas: {REPLICAS}
      update_config: {{parallelism: 5, order: start-first, monitor: 1s}}
"
    )
}

/// What wrk counted.
#[derive(Debug)]
struct Asked {
    requests: u64,
    failed: u64,
    p99: String,
}

fn read(said: &str) -> Asked {
    let number = |word: &str| word.trim_matches(',').parse::<u64>().ok();
    let words = |label: &str| -> Vec<&str> {
        let line = said.lines().find(|line| line.contains(label));
        line.map(|line| line.split_whitespace().collect()).unwrap_or_default()
    };
    let requests = words("requests in").first().and_then(|word| number(word)).unwrap_or_else(|| panic!("{said}"));
    // Neither line is there where none failed.
    let broken: u64 = words("Socket errors:").iter().filter_map(|word| number(word)).sum();
    let refused = words("Non-2xx").last().and_then(|word| number(word)).unwrap_or(0);
    let p99 = words("99%").last().map_or_else(|| panic!("{said}"), |word| (*word).to_owned());
    Asked { requests, failed: broken + refused, p99 }
}

#[test]
fn twenty_replicas_are_changed_under_wrk_and_no_request_fails() {
    let Some((_turn, lab)) = cluster_of(5, 6) else { return };
    lab.import_web(0).unwrap();
    let deploy = |version: u32| {
        let file = app_file(&lab, "shop", &shop(version));
        lab.machine(1).done(&["deploy", "--timeout", "60s", "--app", "shop", "-f", &file.to_string_lossy()]).unwrap()
    };
    deploy(1);
    lab.machine(0).ps_until("twenty", PATIENCE, |rows| exactly(rows, "shop", REPLICAS)).unwrap();
    let address = (lab.machine(0).address(), 18_000).into();
    until("an answer", PATIENCE, || lab.machine(OUTSIDE).fetch(address, "/").map_err(|error| error.to_string()))
        .unwrap();

    // Each request by a connection of its own, so that each is dealt out anew.
    let mut wrk = lab.machine(OUTSIDE).inside("wrk");
    wrk.args(["-t1", "-c8", "--latency", "--timeout", "5s", "-H", "Connection: close"]);
    wrk.arg(format!("-d{}s", LIMIT.as_secs())).arg(format!("http://{address}/"));
    let wrk = wrk.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let change = deploy(2);
    let changed =
        |rows: &[TaskRow]| exactly(rows, "shop", REPLICAS) && live(rows, "shop").iter().all(|row| !row.outdated);
    let seen = lab.machine(2).ps_until("the change", Duration::from_secs(60), changed);
    // It says what it has counted, and ends.
    kill(Pid::from_raw(wrk.id() as i32), Signal::SIGINT).unwrap();
    let said = wrk.wait_with_output().unwrap();
    seen.unwrap();
    let asked = read(&String::from_utf8_lossy(&said.stdout));
    println!("{} replicas changed in {:?}: {asked:?}", REPLICAS, change.took);
    assert!(asked.requests > 1_000 && asked.failed == 0, "{asked:?}");
}

#[test]
fn wrk_is_understood() {
    let said =
        "  Latency Distribution\n     50%    3.10ms\n     99%   17.90ms\n  1234 requests in 10.00s, 1.43MB read\n";
    let asked = read(said);
    assert_eq!((asked.requests, asked.failed, asked.p99.as_str()), (1234, 0, "17.90ms"));
    let failed = format!(
        "{said}  Socket errors: connect 1, read 2, write 0, timeout 4\n  Non-2xx or 3xx responses: 8\nRequests/sec: 9\n"
    );
    assert_eq!(read(&failed).failed, 15);
}
