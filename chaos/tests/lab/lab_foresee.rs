//! What is foreseen on real peers comes true on them; and every peer explains what waits.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{PATIENCE, app_file, exactly, live, three, three_with_web};

#[test]
fn what_is_foreseen_of_a_death_comes_true() {
    let Some((_turn, mut lab)) = three_with_web() else { return };
    lab.machine(0).done(&["scale", "shop.web=6"]).unwrap();
    let (rows, _) = lab.machine(1).ps_until("six replicas", PATIENCE, |rows| exactly(rows, "shop", 6)).unwrap();
    let on = |machine: &str| -> BTreeSet<String> {
        live(&rows, "shop")
            .iter()
            .filter(|row| row.machine.as_deref() == Some(machine))
            .map(|row| row.task.clone())
            .collect()
    };
    let victim = lab.machine(2).name().to_owned();
    let outlook: Value = lab.machine(0).json(&["foresee", "--lose", &victim]).unwrap();
    let moves = outlook["moves"].as_array().unwrap();
    let foreseen: BTreeSet<String> = moves.iter().map(|one| one["task"].as_str().unwrap().to_owned()).collect();
    assert_eq!(foreseen, on(&victim), "{outlook:#}");
    assert!(
        !foreseen.is_empty() && moves.iter().all(|one| one["from"] == victim && one["to"].is_string()),
        "{moves:?}"
    );
    assert_eq!(outlook["waiting"], serde_json::json!([]));
    let again: Value = lab.machine(0).json(&["foresee", "--lose", &victim]).unwrap();
    assert_eq!(again["moves"].as_array().map(Vec::len), Some(moves.len()), "a look changes nothing");

    lab.die(2).unwrap();
    let has_moved = |rows: &[rialto_protocol::api::TaskRow]| {
        exactly(rows, "shop", 6) && live(rows, "shop").iter().all(|row| row.machine.as_deref() != Some(&victim))
    };
    let (after, took) = lab.machine(0).ps_until("the replacements", PATIENCE, has_moved).unwrap();
    let claims: BTreeSet<_> = live(&rows, "shop").iter().map(|row| (row.task.clone(), row.claim.clone())).collect();
    let live_after = live(&after, "shop");
    let replaced = live_after.iter().filter(|row| !claims.contains(&(row.task.clone(), row.claim.clone())));
    let replaced: BTreeSet<String> = replaced.map(|row| row.task.clone()).collect();
    assert_eq!(replaced, foreseen);
    let settled = outlook["settled_ms"].as_u64().unwrap();
    println!("foreseen {settled} ms, seen {} ms", took.as_millis());
    assert!((2_000..15_000).contains(&settled), "{settled} ms");

    let down = lab.machine(0).cli(&["foresee", "--lose", &victim]).unwrap();
    assert_eq!(down.code, 4, "{down:?}");
    assert!(down.stderr.contains("is down already"), "{down:?}");
}

#[test]
fn every_peer_explains_what_waits_and_what_would_help() {
    let Some((_turn, lab)) = three() else { return };
    let services = "services:\n  big:\n    image: host\n    command: sleep 1000\n    deploy:\n      replicas: 1\n";
    let file = app_file(
        &lab,
        "job",
        &format!("name: job\n{services}      placement:\n        constraints: [node.labels.zone == moon]\n"),
    );
    lab.machine(0).done(&["deploy", "--detach", "-f", file.to_str().unwrap()]).unwrap();
    for machine in lab.machines() {
        let told = || match machine.json::<Value>(&["explain", "job.big"]) {
            Ok(told) if told["by_steward"] == true && told["services"][0]["machines"][0]["count"] == 3 => Ok(told),
            other => Err(format!("{other:?}")),
        };
        let (told, _) = rialto_chaos::netns::until("the steward's reasons", PATIENCE, told).unwrap();
        assert_eq!(told["services"][0]["machines"][0]["text"], "node.labels.zone == moon does not hold");
        // In a cluster as young as this one another peer may become the steward, and listen first.
        let text = || match machine.done(&["explain", "job"]) {
            Ok(output) if output.stdout.contains("no machine takes it") => Ok(output.stdout),
            other => Err(format!("{other:?}")),
        };
        let (text, _) = rialto_chaos::netns::until("the steward's words", PATIENCE, text).unwrap();
        assert!(text.contains("m1, m2, m3"), "{text}");
    }
    for (name, code) in [("nosuch", 3), ("job.web", 3), ("job.big.2", 3)] {
        assert_eq!(lab.machine(1).cli(&["explain", name]).unwrap().code, code, "{name}");
    }
    // What would come of a file that was never deployed.
    let fits = app_file(&lab, "fits", &format!("name: fits\n{services}"));
    let outlook: Value = lab.machine(2).json(&["foresee", "--deploy", fits.to_str().unwrap()]).unwrap();
    assert_eq!(outlook["moves"].as_array().map(Vec::len), Some(1), "{outlook:#}");
    assert_eq!(outlook["waited_before"], serde_json::json!(["job.big.1"]));
    assert_eq!(lab.machine(2).cli(&["explain", "fits"]).unwrap().code, 3, "it was not deployed");
}
