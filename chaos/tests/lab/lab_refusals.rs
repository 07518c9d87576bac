//! Bad input is refused with a clear error and the right code; nothing panics, nothing is lost.

use crate::{PATIENCE, app_file, exactly, three_with_web};

#[test]
fn wrong_inputs_are_refused_by_name_and_change_nothing() {
    let Some((_turn, lab)) = three_with_web() else { return };
    let deploy = |text: &str| {
        let file = app_file(&lab, "wrong", text);
        lab.machine(1).cli(&["deploy", "--app", "wrong", "-f", &file.to_string_lossy()]).unwrap()
    };

    // A key that is not honoured: named, with its line.
    let output = deploy("services:\n  web:\n    image: host\n    cgroup_parent: x\n");
    assert_eq!(output.code, 4, "{output:?}");
    assert!(output.stderr.contains("cgroup_parent") && output.stderr.contains('4'), "{output:?}");

    // Not YAML, and a value of the wrong kind.
    assert_eq!(deploy("services: [unclosed\n").code, 4);
    let output = deploy("services:\n  web:\n    image: host\n    deploy:\n      replicas: many\n");
    assert_eq!(output.code, 4, "{output:?}");
    assert!(output.stderr.contains("replicas"), "{output:?}");

    // More than any machine has.
    let output = deploy(
        "services:\n  web:\n    image: host\n    deploy:\n      resources:\n        reservations:\n          cpus: \"4000\"\n",
    );
    assert_eq!(output.code, 7, "{output:?}");

    let code = |arguments: &[&str]| lab.machine(2).cli(arguments).unwrap().code;
    assert_eq!(code(&["rm", "nobody"]), 3);
    assert_eq!(code(&["logs", "nobody.web"]), 3);
    assert_eq!(code(&["scale", "shop.nobody=2"]), 3);
    assert_eq!(code(&["deploy", "--no-such-flag"]), 2);
    assert_eq!(code(&["frobnicate"]), 2);
    assert_eq!(code(&["deploy", "-f", "/no/such/file.yaml"]), 3);

    // No peer there.
    let mut nobody = lab.machine(0).cli_command(&["ps"]);
    let nobody = nobody.env("RIALTO_SOCKET", "/nonexistent").arg("--socket").arg("/nonexistent").output().unwrap();
    assert!(matches!(nobody.status.code(), Some(2 | 5)), "{nobody:?}");

    // A body that is no body: refused as data, with a code and a message.
    let socket = lab.machine(0).socket();
    let mut curl = std::process::Command::new("curl");
    curl.args(["-s", "-X", "PUT", "-H", "content-type: application/json", "-d", "{\"change\": 7", "--unix-socket"]);
    let answer = curl.arg(&socket).arg("http://rialto/v1/apps/shop").output().unwrap();
    let error: rialto_protocol::api::ErrorBody = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!(error.code, rialto_protocol::api::ErrorCode::Invalid);

    for machine in lab.machines() {
        machine.ps_until("the app as it was", PATIENCE, |rows| exactly(rows, "shop", 3)).unwrap();
        assert!(!machine.log().contains("panicked"), "{}", machine.last_words(20));
    }
}
