//! Kinds of service on real peers: a change under load, work at given times, work in steps, one on each machine.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rialto_chaos::netns::{example, until};
use rialto_protocol::api::TaskRow;

use crate::{PATIENCE, app_file, cluster_of, exactly, live, three};

/// Four replicas that are changed two at a time, the second two when the first have run for a while. Nobody is sent to one
/// that is about to end, nor to one that does not listen yet.
fn shop(version: u32, command: &str) -> String {
    format!(
        "services:
  web:
    image: web
    ports: ['18000:8080']
    environment: {{VERSION: '{version}'}}
    command: [sh, -c, '{command}']
    deploy:
      replicas: 4
      update_config: {{parallelism: 2, delay: 2s, order: stop-first, monitor: 1s, failure_action: rollback}}
"
    )
}

#[test]
fn a_change_under_load_fails_no_request_and_a_bad_one_is_taken_back() {
    let Some((_turn, lab)) = cluster_of(3, 4) else { return };
    lab.import_web(0).unwrap();
    let deploy = |version: u32, command: &str| {
        let file = app_file(&lab, "shop", &shop(version, command));
        lab.machine(1).cli(&["deploy", "--app", "shop", "-f", &file.to_string_lossy()]).unwrap()
    };
    let late = "sleep 0.3; exec serve";
    assert_eq!(deploy(1, late).code, 0);
    lab.machine(0).ps_until("four", PATIENCE, |rows| exactly(rows, "shop", 4)).unwrap();
    let address = SocketAddr::from((lab.machine(0).address(), 18_000));
    let outside = lab.machine(3);
    until("an answer", PATIENCE, || outside.fetch(address, "/").map_err(|error| error.to_string())).unwrap();
    let (over, asked, failed) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let answer = outside.fetch(address, "/");
                asked.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = answer {
                    eprintln!("after {} answers: {error}", asked.load(Ordering::Relaxed));
                    failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        deploy(2, late);
        let changed = |rows: &[TaskRow]| exactly(rows, "shop", 4) && live(rows, "shop").iter().all(|row| !row.outdated);
        let seen = lab.machine(2).ps_until("the change", Duration::from_secs(90), changed);
        over.store(true, Ordering::Relaxed);
        seen.unwrap();
    });
    let (asked, failed) = (asked.into_inner(), failed.into_inner());
    println!("{asked} requests while four tasks were changed, {failed} failed");
    assert!(asked > 100 && failed == 0, "{failed} of {asked} failed");

    let status = |wanted: &str| {
        let look = || {
            let shown = lab.machine(2).done(&["rollout", "status", "shop"]).map_err(|error| error.to_string())?.stdout;
            if shown.contains(wanted) { Ok(()) } else { Err(shown) }
        };
        until(wanted, Duration::from_secs(60), look).unwrap();
    };
    status("done");
    // It cannot run: what ran before comes back by itself, and the log says why.
    let before = lab.machine(0).ps().unwrap();
    deploy(3, "exit 3");
    status("done (back)");
    let rows = lab.machine(0).ps_until("four again", PATIENCE, |rows| exactly(rows, "shop", 4)).unwrap().0;
    let claims = |rows: &[TaskRow]| live(rows, "shop").iter().filter_map(|row| row.claim.clone()).collect::<Vec<_>>();
    let kept = claims(&rows).iter().filter(|claim| claims(&before).contains(claim)).count();
    assert!(kept >= 2, "two were changed at most: {rows:?}");
    let events = lab.machine(1).done(&["events", "shop"]).unwrap().stdout;
    assert!(events.contains("tasks failed: what ran before comes back"), "{events}");
    let refused = lab.machine(0).cli(&["rollout", "pause", "shop"]).unwrap();
    assert_eq!(refused.code, 4, "{refused:?}");
}

#[test]
fn a_schedule_runs_and_a_run_can_be_asked_for() {
    let Some((_turn, lab)) = three() else { return };
    lab.machine(1).done(&["deploy", "-f", &example("nightly/compose.yaml").to_string_lossy()]).unwrap();
    let ended = |rows: &[TaskRow]| -> Vec<String> {
        let of = rows.iter().filter(|row| row.app == "nightly" && row.state == "exited" && row.exit_code == Some(0));
        of.map(|row| row.slot.clone()).collect()
    };
    lab.machine(0).ps_until("three runs", PATIENCE, |rows| ended(rows).len() >= 3).unwrap();
    lab.machine(2).done(&["job", "dispatch", "nightly.report"]).unwrap();
    let asked_for = |rows: &[TaskRow]| ended(rows).iter().any(|slot| slot.starts_with('r'));
    let (rows, _) = lab.machine(0).ps_until("the run that was asked for", PATIENCE, asked_for).unwrap();
    let mut slots = ended(&rows);
    let count = slots.len();
    slots.sort();
    slots.dedup();
    assert_eq!(slots.len(), count, "each once: {rows:?}");
    let seconds: Vec<&str> = slots.iter().filter_map(|slot| slot.strip_suffix('z')?.get(13..)).collect();
    assert!(seconds.iter().all(|text| text.parse::<u32>().is_ok_and(|second| second % 5 == 0)), "{slots:?}");
    let said = lab.machine(2).done(&["logs", "nightly"]).unwrap().stdout;
    assert!(said.contains("the report of 20"), "{said}");
    // Suspended, it runs no more.
    lab.machine(0).done(&["stop", "nightly"]).unwrap();
    let count = ended(&lab.machine(0).ps().unwrap()).len();
    std::thread::sleep(Duration::from_secs(11));
    assert!(ended(&lab.machine(0).ps().unwrap()).len() <= count + 1);
}

#[test]
fn a_pipeline_runs_its_steps_in_order_and_its_log_is_everywhere() {
    let Some((_turn, lab)) = three() else { return };
    lab.machine(0).done(&["deploy", "-f", &example("pipeline/compose.yaml").to_string_lossy()]).unwrap();
    let done =
        |rows: &[TaskRow]| rows.iter().filter(|row| row.app == "pipeline" && row.exit_code == Some(0)).count() == 10;
    let (rows, _) = lab.machine(2).ps_until("ten tasks", PATIENCE, done).unwrap();
    let times = |service: &str| -> (String, String) {
        let of: Vec<&TaskRow> = rows.iter().filter(|row| row.service == service).collect();
        let first = of.iter().filter_map(|row| row.accepted_at.clone()).min().unwrap();
        (first, of.iter().filter_map(|row| row.ended_at.clone()).max().unwrap())
    };
    let (extract, transform, load) = (times("extract"), times("transform"), times("load"));
    assert!(extract.1 <= transform.0 && transform.1 <= load.0, "{extract:?} {transform:?} {load:?}");
    let said = lab.machine(1).done(&["logs", "pipeline.transform"]).unwrap().stdout;
    assert_eq!((1..=8).filter(|n| said.contains(&format!("piece {n} "))).count(), 8, "{said}");
    for machine in lab.machines() {
        let look = || {
            let said = machine.done(&["events", "pipeline"]).map_err(|error| error.to_string())?.stdout;
            if said.contains("deployed") && said.contains("pipeline.load.1") { Ok(()) } else { Err(said) }
        };
        until("the log", PATIENCE, look).unwrap();
    }

    // One on each machine.
    let agent = "services:\n  agent:\n    image: host\n    command: [sleep, '1000']\n    deploy: {mode: global}\n";
    let file = app_file(&lab, "agents", agent);
    lab.machine(1).done(&["deploy", "--app", "agents", "-f", &file.to_string_lossy()]).unwrap();
    let each = |rows: &[TaskRow]| {
        let mut on: Vec<_> = live(rows, "agents").iter().map(|row| (row.machine.clone(), row.state.clone())).collect();
        on.sort();
        on.dedup();
        on.len() == 3 && on.iter().all(|(_, state)| state == "running")
    };
    lab.machine(0).ps_until("one on each", PATIENCE, each).unwrap();
}
