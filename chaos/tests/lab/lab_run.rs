//! `rialto run`: real containers, their limits, and what becomes of their exit codes.

use crate::three;

#[test]
fn the_exit_code_is_the_tasks() {
    let Some((_turn, lab)) = three() else { return };
    let run = |at: usize, arguments: &[&str]| lab.machine(at).cli(&[&["run"], arguments].concat()).unwrap();
    let output = run(0, &["host", "--", "echo", "what news on the rialto"]);
    assert_eq!((output.code, output.stdout.as_str()), (0, "what news on the rialto\n"), "{output:?}");
    let output = run(1, &["host", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((output.code, output.stdout.as_str()), (7, "out\n"), "{output:?}");
    assert!(output.stderr.contains("err"), "{output:?}");
    let output = run(2, &["host", "--", "no-such-program"]);
    assert_eq!(output.code, 127, "{output:?}");
    let output = run(0, &["host", "--", "/etc/passwd"]);
    assert_eq!(output.code, 126, "{output:?}");
    // The first process of a container cannot kill itself: the kernel protects it from within.
    let output = run(1, &["host", "--", "sh", "-c", "sleep 60 & kill -9 $!; wait $!"]);
    assert_eq!(output.code, 137, "{output:?}");
    let output = run(2, &["no-such-image", "--", "true"]);
    assert_eq!(output.code, 125, "{output:?}");
    assert!(output.stderr.contains("no-such-image"), "{output:?}");
}

#[test]
fn limits_bite_and_nothing_private_is_seen() {
    let Some((_turn, lab)) = three() else { return };
    let run = |arguments: &[&str]| lab.machine(0).cli(&[&["run"], arguments].concat()).unwrap();

    // A pipe that swallows more than its memory, and is killed for it.
    let output = run(&["--memory", "32m", "--name", "glutton", "host", "--", "tail", "/dev/zero"]);
    assert_eq!(output.code, 137, "{output:?}");
    let told = |rows: &[rialto_protocol::api::TaskRow]| rows.iter().any(|row| row.app == "glutton" && row.oom_killed);
    lab.machine(1).ps_until("that memory ran out", crate::PATIENCE, told).unwrap();

    let output = run(&["host", "--", "sh", "-c", "ps ax | wc -l; hostname"]);
    assert_eq!(output.code, 0, "{output:?}");
    let processes: u32 = output.stdout.lines().next().unwrap().trim().parse().unwrap();
    assert!(processes < 8, "a process namespace of its own: {output:?}");

    // The identity key of the peer lies in its data folder on whatever machine this ran.
    let data = lab.machine(0).data().display().to_string();
    let output = run(&["host", "--", "sh", "-c", &format!("ls -A /root /home /var {data} 2>&1")]);
    assert!(!output.stdout.contains("key"), "{output:?}");
    for machine in lab.machines() {
        let data = machine.data().display().to_string();
        let output = run(&["host", "--", "sh", "-c", &format!("find {data} -type f 2>/dev/null | wc -l")]);
        assert_eq!(output.stdout.trim(), "0", "files of a data folder are seen: {output:?}");
    }
}

#[test]
fn an_image_that_one_machine_has_runs_on_another() {
    let Some((_turn, lab)) = three() else { return };
    lab.import_web(0).unwrap();
    // One for each machine: fixed host ports force them apart.
    let port = "{target: 8080, published: 18080, mode: host}";
    let text = format!("services:\n  each:\n    image: web\n    ports: [{port}]\n    deploy:\n      replicas: 3\n");
    let file = crate::app_file(&lab, "apart", &text);
    lab.machine(2).done(&["deploy", "--app", "apart", "-f", &file.to_string_lossy()]).unwrap();
    lab.machine(0).serves("each.apart.rialto.internal", 3, crate::PATIENCE).unwrap();
    for machine in lab.machines() {
        let address = (machine.address(), 18080).into();
        let fetch = || lab.machine(0).fetch(address, "/").map_err(|error| error.to_string());
        let (page, _) = rialto_chaos::netns::until("the machine's own task", crate::PATIENCE, fetch).unwrap();
        assert!(page.starts_with("apart.each."), "{page}");
    }
}
