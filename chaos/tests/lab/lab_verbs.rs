//! Any verb at any peer; names at every peer.

use std::collections::BTreeSet;

use rialto_chaos::netns::{REPLICAS, WEB};
use serde_json::Value;

use crate::{PATIENCE, exactly, live, three, three_with_web};

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
        assert_eq!((status.as_str(), addresses.len()), ("NOERROR", 3), "{addresses:?}");
        assert_eq!(dig(WEB, "A", &["+tcp"]).1, addresses);
        assert_eq!(dig(&format!("tasks.{WEB}"), "A", &[]).1, addresses);
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
