//! Volumes stay where they are, whatever becomes of their machines; and secrets are read by tasks alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rialto_chaos::netns::{Lab, until};
use rialto_protocol::api::VolumeRow;

use crate::{PATIENCE, app_file, exactly, live, three, turn};

/// Longer than it takes to hold a machine for down and to replace what it ran.
const LONG_ENOUGH: Duration = Duration::from_secs(8);

fn said(lab: &Lab, at: usize, words: &[&str], wanted: &str) {
    until(wanted, PATIENCE, || match lab.machine(at).cli(words) {
        Ok(output) if output.stdout.contains(wanted) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
}

#[test]
fn a_volume_is_waited_for_and_given_up_only_on_demand() {
    let Some((_turn, mut lab)) = three() else { return };
    let text = "services:
  db:
    image: host
    command: [sh, -c, 'echo up >> /srv/data/log; exec sleep 3600']
    volumes: ['data:/srv/data']
  beside:
    image: host
    command: [sleep, '3600']
    volumes: [{type: volume, source: data, target: /srv/data, read_only: true}]
    deploy: {replicas: 2}
volumes: {data: {}}
";
    let file = app_file(&lab, "shop", text);
    lab.machine(1).done(&["deploy", "-f", file.to_str().unwrap(), "--app", "shop"]).unwrap();
    let volumes: Vec<VolumeRow> = lab.machine(2).json(&["volume", "ls"]).unwrap();
    let [volume] = &volumes[..] else { panic!("{volumes:?}") };
    assert_eq!((volume.name.as_str(), volume.state.as_str()), ("shop/data", "here"));
    let rows = lab.machine(0).ps().unwrap();
    assert!(live(&rows, "shop").iter().all(|row| row.machine.as_ref() == Some(&volume.machine)), "{rows:?}");
    let holder = lab.index_of(&volume.machine).unwrap();
    let others: Vec<usize> = (0..3).filter(|at| *at != holder).collect();
    let used = lab.machine(others[0]).cli(&["volume", "rm", "--yes", "shop/data"]).unwrap();
    assert!(used.code == 4 && used.stderr.contains("in use"), "{used:?}");

    // It is read and written from any machine.
    let tar = lab.folder().join("data.tar");
    let tar = tar.to_str().unwrap();
    lab.machine(others[0]).done(&["volume", "backup", "shop/data", tar]).unwrap();
    lab.machine(others[1]).done(&["volume", "restore", "copy", tar, "--machine", &volume.machine]).unwrap();
    let copy: VolumeRow = lab.machine(others[0]).json(&["volume", "inspect", "copy"]).unwrap();
    assert_eq!((copy.files, &copy.machine), (Some(1), &volume.machine), "{copy:?}");
    let path = copy.path.unwrap();
    assert_eq!(fs::read_to_string(Path::new(&path).join("log")).unwrap(), "up\n");
    let held = lab.machine(others[1]).cli(&["volume", "restore", "shop/data", tar]).unwrap();
    assert!(held.code == 4 && held.stderr.contains("in use by shop."), "{held:?}");
    lab.machine(others[1]).done(&["volume", "rm", "--yes", "copy"]).unwrap();
    assert!(!Path::new(&path).exists());

    // A folder that no machine shows is not waited for.
    let text = "services:\n  web:\n    image: host\n    command: [sleep, '60']\n    volumes: ['/srv/in:/in:ro']\n";
    let file = app_file(&lab, "shown", text);
    let refused = lab.machine(0).cli(&["deploy", "-f", file.to_str().unwrap(), "--app", "shown"]).unwrap();
    let says = format!("{} shows no folder", volume.machine);
    assert!(refused.code == 7 && refused.stderr.contains(&says), "{refused:?}");

    // Its machine dies: nothing begins elsewhere with an empty one, and everybody says why.
    lab.die(holder).unwrap();
    let why = format!("volume shop/data is on {}, down for", volume.machine);
    for words in [&["ps"][..], &["status"], &["explain", "shop.db"]] {
        said(&lab, others[0], words, &why);
    }
    std::thread::sleep(LONG_ENOUGH);
    let rows = lab.machine(others[1]).ps().unwrap();
    assert!(live(&rows, "shop").iter().all(|row| row.state == "pending"), "{rows:?}");

    // It comes back, and so do the tasks, where their data is.
    lab.revive(holder).unwrap();
    lab.machine(others[0])
        .ps_until("all three", PATIENCE, |rows| {
            let live = live(rows, "shop");
            live.len() == 3
                && live.iter().all(|row| row.state == "running" && row.machine.as_ref() == Some(&volume.machine))
        })
        .unwrap();
    let log = ["exec", "shop.db.1", "--", "cat", "/srv/data/log"];
    assert_eq!(lab.machine(others[1]).done(&log).unwrap().stdout, "up\nup\n");

    // It dies for good: somebody says so, and they begin anew.
    lab.die(holder).unwrap();
    said(&lab, others[0], &["ps"], &why);
    lab.machine(others[0]).done(&["volume", "release", "--yes", "shop/data"]).unwrap();
    lab.machine(others[1])
        .ps_until("elsewhere", PATIENCE, |rows| {
            let live = live(rows, "shop");
            live.len() == 3
                && live.iter().all(|row| row.state == "running" && row.machine.as_ref() != Some(&volume.machine))
        })
        .unwrap();
    assert_eq!(lab.machine(others[1]).done(&log).unwrap().stdout, "up\n");

    // And when it is back its data is there, and counts no more.
    lab.revive(holder).unwrap();
    said(&lab, holder, &["volume", "ls"], "given up");
    let remove = ["volume", "rm", "--yes", "shop/data", "--machine", &volume.machine];
    // As soon as the others know that it is back.
    until("removed", PATIENCE, || lab.machine(others[0]).done(&remove).map_err(|error| error.to_string())).unwrap();
    lab.machine(others[0]).done(&["rm", "--yes", "--volumes", "shop"]).unwrap();
    let volumes: Vec<VolumeRow> = lab.machine(others[1]).json(&["volume", "ls"]).unwrap();
    assert_eq!(volumes, []);
}

#[test]
fn a_machine_whose_disk_is_full_goes_on_and_its_tasks_are_nobody_there() {
    let Some(_turn) = turn() else { return };
    let mut lab = Lab::new(1).unwrap();
    lab.set_flags(&["--userns-remap", "300000:65536"]);
    // A small disk in memory for all that the peer has; it goes with the machine.
    let data = lab.machine(0).data();
    fs::create_dir_all(&data).unwrap();
    let options = ["-t", "tmpfs", "-o", "mode=700,size=64m", "data"];
    assert!(lab.machine(0).inside("mount").args(options).arg(&data).status().unwrap().success());
    lab.found().unwrap();
    let machine = lab.machine(0);
    let peer = machine.pid();
    let seen = |path: &Path| {
        let root = PathBuf::from(format!("/proc/{}/root", peer.unwrap()));
        root.join(path.strip_prefix("/").unwrap())
    };
    assert!(nix::sys::statvfs::statvfs(&seen(&data)).unwrap().blocks() < 1 << 16, "this is no small disk");
    // Root of a task is nobody, and has what is its network's: a port below 1024, settings of its own.
    let text = "services:
  web:
    image: host
    sysctls: {net.core.somaxconn: 77}
    command: [sh, -c, 'cat /proc/sys/net/core/somaxconn /proc/self/uid_map; busybox httpd -p 80 && echo listens; exec sleep 3600']
";
    let file = app_file(&lab, "shop", text);
    machine.done(&["deploy", "-f", file.to_str().unwrap(), "--app", "shop"]).unwrap();
    for wanted in ["77", "300000", "listens"] {
        said(&lab, 0, &["logs", "shop.web"], wanted);
    }
    let text = "services:
  filler:
    image: host
    restart: 'no'
    command: [sh, -c, 'dd if=/dev/zero of=/srv/full bs=64k; exit 3']
    volumes: ['data:/srv']
volumes: {data: {}}
";
    let file = app_file(&lab, "full", text);
    machine.done(&["deploy", "-f", file.to_str().unwrap(), "--app", "full", "--detach"]).unwrap();
    let is_full = || match nix::sys::statvfs::statvfs(&seen(&data)).unwrap().blocks_available() {
        0 => Ok(()),
        free => Err(format!("{free} blocks are free")),
    };
    until("the disk is full", PATIENCE, is_full).unwrap();

    // It answers, and what runs can be looked at.
    assert_eq!(machine.pid(), peer);
    machine.status().unwrap();
    machine.ps().unwrap();
    let volume: VolumeRow = machine.json(&["volume", "inspect", "full/data"]).unwrap();
    assert!(volume.bytes.is_some_and(|bytes| bytes > 16 << 20), "{volume:?}");
    assert_eq!(machine.done(&["exec", "shop.web.1", "--", "id", "-u"]).unwrap().stdout, "0\n");
    let wanted = lab.folder().join("wanted");
    fs::write(&wanted, "x").unwrap();
    let refused = machine.cli(&["cp", wanted.to_str().unwrap(), "shop.web.1:/tmp/x"]).unwrap();
    assert_eq!(refused.code, 0, "memory is no disk: {refused:?}");

    // And with room everything is told, and new things begin.
    fs::remove_file(seen(Path::new(&volume.path.unwrap())).join("full")).unwrap();
    said(&lab, 0, &["ps", "-a", "full"], "exited (3)");
    let again = machine.done(&["run", "host", "--", "echo", "again"]).unwrap();
    assert_eq!(again.stdout, "again\n");
    assert_eq!(machine.pid(), peer);
    for app in ["full", "shop"] {
        machine.done(&["rm", "--yes", "--volumes", app]).unwrap();
    }
    lab.machine_mut(0).stop(PATIENCE).unwrap();
}

#[test]
fn a_secret_is_in_no_ledger_no_log_and_no_news() {
    const SECRET: &str = "twelve-drowned-doges-3f9a";
    let Some((_turn, lab)) = three() else { return };
    let kept = lab.folder().join("key.txt");
    fs::write(&kept, SECRET).unwrap();
    let text = "services:
  web:
    image: host
    command: [sh, -c, 'wc -c < /run/secrets/key; wc -c < /run/secrets/mail; cat /conf; sleep 3600']
    secrets: [key, {source: mail, mode: 0400, uid: \"33\"}]
    configs: [{source: conf, target: /conf}]
    deploy: {replicas: 3, placement: {max_replicas_per_node: 1}}
secrets: {key: {file: key.txt}, mail: {external: true}}
configs: {conf: {content: hello}}
";
    let mail = lab.folder().join("mail.txt");
    fs::write(&mail, format!("{SECRET}-mail")).unwrap();
    lab.machine(2).done(&["secret", "set", "mail", mail.to_str().unwrap()]).unwrap();
    let file = app_file(&lab, "hush", text);
    lab.machine(1).done(&["deploy", "-f", file.to_str().unwrap(), "--app", "hush"]).unwrap();
    lab.machine(0).ps_until("three", PATIENCE, |rows| exactly(rows, "hush", 3)).unwrap();
    let sum = SECRET.len() + SECRET.len() + "-mail".len();
    for slot in 1..=3 {
        let task = format!("hush.web.{slot}");
        let exec = ["exec", &task, "--", "sh", "-c", "cat /run/secrets/* | wc -c; stat -c '%u %a' /run/secrets/mail"];
        assert_eq!(lab.machine(0).done(&exec).unwrap().stdout, format!("{sum}\n33 400\n"));
    }
    let listed = lab.machine(0).done(&["secret", "ls", "-o", "json"]).unwrap().stdout;
    assert!(listed.contains("hush/key") && listed.contains("hush/web") && !listed.contains(SECRET), "{listed}");
    // What opens a registry is kept the same way; one that nobody reaches is not believed to open.
    let login = |more: &[&str]| {
        let words = [&["login", "registry.invalid:1", "-u", "ada", "--password-stdin"], more].concat();
        let password = fs::File::open(&kept).unwrap();
        lab.machine(0).cli_command(&words).stdin(password).output().unwrap().status.code()
    };
    assert_ne!(login(&[]), Some(0), "nobody listens there");
    assert_eq!(login(&["--unchecked"]), Some(0));
    let own = lab
        .machine(0)
        .cli_command(&["login", "127.0.0.1:1", "-u", "ada", "--password-stdin", "--unchecked"])
        .stdin(fs::File::open(&kept).unwrap())
        .output()
        .unwrap();
    assert_eq!(own.status.code(), Some(4), "that is another registry on each machine");
    let knows = || {
        let listed = lab.machine(2).done(&["login", "--list"]).map_err(|error| error.to_string())?.stdout;
        if listed.contains("registry.invalid:1") { Ok(()) } else { Err(listed) }
    };
    until("the login elsewhere", PATIENCE, knows).unwrap();
    assert!(!lab.machine(0).done(&["secret", "ls"]).unwrap().stdout.contains("registry.invalid"));
    for machine in lab.machines() {
        assert_eq!(holding(&machine.data(), SECRET), Vec::<String>::new());
        assert!(!machine.log().contains(SECRET));
        assert!(!machine.done(&["events", "-o", "json"]).unwrap().stdout.contains(SECRET));
    }
    lab.machine(1).done(&["rm", "--yes", "--volumes", "hush"]).unwrap();
    lab.machine(1).done(&["secret", "rm", "mail"]).unwrap();
    lab.machine(1).done(&["logout", "registry.invalid:1"]).unwrap();
    assert_eq!(lab.machine(1).cli(&["logout", "registry.invalid:1"]).unwrap().code, 3);
    let forgets = || {
        let listed = lab.machine(0).done(&["secret", "ls", "-o", "json"]).map_err(|error| error.to_string())?.stdout;
        if listed.trim() == "[]" { Ok(()) } else { Err(listed) }
    };
    until("the secret gone elsewhere", PATIENCE, forgets).unwrap();
}

/// The files below a folder that hold a text.
fn holding(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            found.extend(holding(&entry.path(), text));
        } else if kind.is_file()
            && fs::read(entry.path()).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
        {
            found.push(entry.path().display().to_string());
        }
    }
    found
}
