//! Any verb at any peer; names at every peer.

use std::collections::{BTreeMap, BTreeSet};

use rialto_chaos::netns::{Lab, REPLICAS, WEB};
use rialto_protocol::api::TaskRow;
use serde_json::Value;

use crate::{PATIENCE, app_file, exactly, live, three, three_with_web, turn};

#[test]
fn an_app_is_deployed_scaled_stopped_and_removed_at_any_peer() {
    let Some((_turn, lab)) = three_with_web() else { return };

    // Placed by one peer, seen by all, spread over all.
    for machine in lab.machines() {
        let (rows, _) = machine.ps_until("three replicas", PATIENCE, |rows| exactly(rows, "shop", 3)).unwrap();
        let machines: BTreeSet<_> = live(&rows, "shop").iter().map(|row| row.machine.clone()).collect();
        assert_eq!(machines.len(), 3, "spread over the machines: {rows:?}");
        for row in live(&rows, "shop") {
            assert!((20000..30000).contains(&row.ports[0].host), "{row:?}");
            assert_eq!(row.ports[0].container, 8080);
        }
    }

    // Found by name at each, and answering from each.
    for machine in lab.machines() {
        let pages = machine.serves(WEB, REPLICAS, PATIENCE).unwrap();
        for (address, page) in pages {
            assert!(page.starts_with("shop.web.") && page.ends_with(&address.to_string()), "{page} at {address}");
        }
    }

    // What a task says is read at every peer.
    let said = "listening";
    for machine in lab.machines() {
        let output = machine.done(&["logs", "shop.web"]).unwrap();
        assert!(output.stdout.contains(said), "{} reads {output:?}", machine.name());
    }

    lab.machine(2).done(&["scale", "shop.web=5"]).unwrap();
    lab.machine(0).ps_until("five replicas", PATIENCE, |rows| exactly(rows, "shop", 5)).unwrap();

    // Who did what is known at every peer, and an earlier state comes back.
    let history: serde_json::Value = lab.machine(1).json(&["history", "shop"]).unwrap();
    let revisions = history["revisions"].as_array().unwrap();
    let said: Vec<_> = revisions.iter().map(|row| (row["summary"].as_str(), row["machine"].as_str())).collect();
    let name = |at: usize| Some(lab.machine(at).name());
    assert_eq!(said, [(Some("deploy"), name(1)), (Some("scale web to 5"), name(2))]);
    lab.machine(1).done(&["rollback", "shop", "--to", revisions[0]["revision"].as_str().unwrap()]).unwrap();
    lab.machine(0).ps_until("three again", PATIENCE, |rows| exactly(rows, "shop", 3)).unwrap();
    assert_eq!(lab.machine(0).cli(&["rollback", "shop", "--to", "0000"]).unwrap().code, 3);

    // One task starts anew, asked of any peer; the others go on.
    let claims = |rows: &[TaskRow]| -> BTreeMap<String, Option<String>> {
        live(rows, "shop").iter().map(|row| (row.slot.clone(), row.claim.clone())).collect()
    };
    let before = claims(&lab.machine(1).ps().unwrap());
    for slot in before.keys() {
        lab.machine(1).done(&["restart", &format!("shop.web.{slot}")]).unwrap();
        let (rows, _) = lab.machine(1).ps_until("three", PATIENCE, |rows| exactly(rows, "shop", 3)).unwrap();
        let changed = claims(&rows).iter().filter(|(slot, claim)| before.get(*slot) != Some(*claim)).count();
        assert_eq!(changed, before.keys().position(|of| of == slot).unwrap() + 1, "{before:?} {rows:?}");
    }
    assert_eq!(lab.machine(1).cli(&["restart", "shop.web.99"]).unwrap().code, 3);

    lab.machine(0).done(&["stop", "shop"]).unwrap();
    lab.machine(1).ps_until("none", PATIENCE, |rows| live(rows, "shop").is_empty()).unwrap();
    let (status, records) = lab.machine(2).dig(WEB, "A", &[]).unwrap();
    assert_eq!((status.as_str(), records.len()), ("NOERROR", 0), "a service at 0 is still a name");
    lab.machine(1).done(&["scale", "shop.web=2"]).unwrap();
    lab.machine(2).ps_until("two", PATIENCE, |rows| exactly(rows, "shop", 2)).unwrap();
    lab.machine(1).done(&["rm", "shop"]).unwrap();
    lab.machine(0).ps_until("nothing", PATIENCE, |rows| live(rows, "shop").is_empty()).unwrap();
    let gone = || match lab.machine(0).dig(WEB, "A", &[]) {
        Ok((status, _)) if status == "NXDOMAIN" => Ok(()),
        other => Err(format!("{other:?}")),
    };
    rialto_chaos::netns::until("the name gone", PATIENCE, gone).unwrap();
}

#[test]
fn dns_knows_its_own_names_and_refuses_others() {
    let Some((_turn, lab)) = three_with_web() else { return };
    for machine in lab.machines() {
        machine.serves(WEB, REPLICAS, PATIENCE).unwrap();
        let dig = |name: &str, kind: &str, more: &[&str]| machine.dig(name, kind, more).unwrap();
        let (status, addresses) = dig(WEB, "A", &[]);
        assert_eq!((status.as_str(), addresses.len()), ("NOERROR", 1), "one for all: {addresses:?}");
        assert_eq!(dig(WEB, "A", &["+tcp"]).1, addresses);
        assert_eq!(dig(&format!("tasks.{WEB}"), "A", &[]).1.len(), 3);
        assert_eq!(dig(&format!("2.{WEB}"), "A", &[]).1.len(), 1);
        assert_eq!(dig(WEB, "AAAA", &[]), ("NOERROR".into(), Vec::new()), "a name without such records");
        let second = lab.machine(1).address().to_string();
        assert_eq!(dig("m2.machine.rialto.internal", "A", &[]), ("NOERROR".into(), vec![second]));
        assert_eq!(dig("nobody.shop.rialto.internal", "A", &[]).0, "NXDOMAIN");
        assert_eq!(dig("m9.machine.rialto.internal", "A", &[]).0, "NXDOMAIN");
        assert_eq!(dig("example.org", "A", &[]).0, "REFUSED");
    }
}

#[test]
fn every_looking_verb_answers_at_every_peer() {
    let Some((_turn, lab)) = three() else { return };
    for machine in lab.machines() {
        for verb in [&["status"][..], &["machine", "ls"], &["ps"], &["ps", "-a"], &["events"], &["image", "ls"]] {
            machine.done(verb).unwrap();
            machine.json::<Value>(verb).unwrap();
        }
        assert!(machine.done(&["version"]).unwrap().stdout.contains(env!("CARGO_PKG_VERSION")));
        machine.done(&["doctor"]).unwrap();
        let names: Vec<String> = machine.machines().unwrap().into_iter().map(|row| row.name).collect();
        assert_eq!(names, ["m1", "m2", "m3"]);
        assert!(machine.machines().unwrap().iter().all(|row| row.state == "alive" && row.cpu_millis > 0));
    }
}

#[test]
fn a_crowded_machine_is_relieved_when_that_is_asked() {
    let Some(_turn) = turn() else { return };
    let mut lab = Lab::new(3).unwrap();
    lab.set_flags(&["--cpus", "2", "--memory", "2g"]);
    lab.found().unwrap();
    let admin = lab.machine(0);
    for crowdless in ["m2", "m3"] {
        admin.done(&["machine", "drain", crowdless]).unwrap();
    }
    let text = "services: {work: {image: host, command: sleep 600, deploy: {replicas: 4, \
                resources: {reservations: {cpus: '0.4', memory: 16m}}}}}";
    let file = app_file(&lab, "crowd", text);
    admin.done(&["deploy", "--app", "crowd", "-f", &file.to_string_lossy()]).unwrap();
    for crowdless in ["m2", "m3"] {
        admin.done(&["machine", "undrain", crowdless]).unwrap();
    }
    let most = |rows: &[TaskRow]| {
        let mut counts: BTreeMap<Option<String>, usize> = BTreeMap::new();
        live(rows, "crowd").iter().for_each(|row| *counts.entry(row.machine.clone()).or_default() += 1);
        counts.values().copied().max().unwrap_or(0)
    };
    let looked: Value = lab.machine(2).json(&["rebalance", "--dry-run"]).unwrap();
    assert!(!looked["moves"].as_array().unwrap().is_empty(), "{looked}");
    assert_eq!(most(&admin.ps().unwrap()), 4, "nothing has moved");
    lab.machine(1).done(&["rebalance"]).unwrap();
    let evenly = |rows: &[TaskRow]| exactly(rows, "crowd", 4) && most(rows) == 2;
    let (rows, _) = admin.ps_until("two tasks at most on a machine", PATIENCE, evenly).unwrap();
    let ended = rows.iter().filter(|row| row.app == "crowd" && row.state == "superseded").count();
    assert!(ended >= 2, "each went on elsewhere before it ended here: {rows:?}");
}
