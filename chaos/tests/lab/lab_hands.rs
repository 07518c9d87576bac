//! Hands on tasks from any machine, wherever they run; and what is refused where it is not allowed.

use rialto_chaos::netns::until;

use crate::{PATIENCE, app_file, exactly, live, three};

#[test]
fn tasks_are_entered_and_looked_at_from_every_machine() {
    let Some((_turn, lab)) = three() else { return };
    let file = app_file(
        &lab,
        "hands",
        "services:
  web:
    image: host
    command: [sh, -c, 'echo up; exec sleep 3600']
    healthcheck: {test: test -e /tmp/well, interval: 100ms, timeout: 2s, retries: 2}
    user: \"65534\"
    ports: ['18099:80']
    deploy: {replicas: 1}
",
    );
    let file = file.to_str().unwrap();
    lab.machine(0).done(&["deploy", "-f", file, "--app", "hands", "--detach"]).unwrap();
    let health = |at: usize| {
        let (rows, _) = lab.machine(at).ps().map(|rows| (rows, ())).unwrap();
        live(&rows, "hands").first().and_then(|row| row.health.clone())
    };
    let wait_for = |at: usize, wanted: &str| {
        until(wanted, PATIENCE, || match health(at) {
            Some(health) if health == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .unwrap();
    };
    wait_for(1, "unhealthy");
    // What is not healthy is not up.
    let late = lab.machine(0).cli(&["deploy", "-f", file, "--app", "hands", "--timeout", "1s"]).unwrap();
    assert_eq!(late.code, 6, "{late:?}");
    for machine in lab.machines() {
        let done = machine.cli(&["exec", "hands.web.1", "--", "sh", "-c", "id -u; exit 9"]).unwrap();
        assert_eq!((done.code, done.stdout.as_str()), (9, "65534\n"), "{done:?}");
    }
    let copy = lab.folder().join("copied");
    let (copy, well) = (copy.to_str().unwrap(), lab.folder().join("well"));
    std::fs::write(&well, "yes").unwrap();
    for machine in lab.machines() {
        machine.done(&["cp", well.to_str().unwrap(), "hands.web.1:/tmp/well"]).unwrap();
        machine.done(&["cp", "hands.web.1:/tmp/well", copy]).unwrap();
        assert_eq!(std::fs::read_to_string(copy).unwrap(), "yes");
        let stats: serde_json::Value = machine.json(&["stats", "--no-stream", "hands"]).unwrap();
        assert_eq!(stats[0]["task"], "hands.web.1");
        assert!(stats[0]["memory_bytes"].as_u64().unwrap() > 0);
        let port = machine.done(&["port", "hands.web.1"]).unwrap();
        assert_eq!(port.stdout, "80/tcp -> *:18099\n", "every machine has it");
    }
    wait_for(2, "healthy");
    lab.machine(1).done(&["deploy", "-f", file, "--app", "hands", "--timeout", "20s"]).unwrap();
    let gone = lab.machine(1).cli(&["exec", "hands.web.2", "--", "true"]).unwrap();
    assert_eq!(gone.code, 125, "{gone:?}");

    // Nothing says that any of the machines allows it.
    let file = app_file(
        &lab,
        "mighty",
        "services:\n  root:\n    image: host\n    command: [sleep, '60']\n    privileged: true\n",
    );
    lab.machine(2).done(&["deploy", "-f", file.to_str().unwrap(), "--app", "mighty", "--detach"]).unwrap();
    let said = || match lab.machine(0).done(&["explain", "mighty"]) {
        Ok(output) if output.stdout.contains("does not allow privileged") => Ok(()),
        other => Err(format!("{other:?}")),
    };
    until("the reason", PATIENCE, said).unwrap();

    // What ends at once is not called running.
    let file =
        app_file(&lab, "crash", "services:\n  web:\n    image: host\n    command: [sh, -c, 'echo broken; exit 3']\n");
    let failed =
        lab.machine(0).cli(&["deploy", "-f", file.to_str().unwrap(), "--app", "crash", "--timeout", "60s"]).unwrap();
    assert_eq!(failed.code, 1, "{failed:?}");
    assert!(failed.stderr.contains("does not stay up") && failed.stderr.contains("(3)"), "{failed:?}");
    lab.machine(1).ps_until("one task", PATIENCE, |rows| exactly(rows, "hands", 1)).unwrap();
}
