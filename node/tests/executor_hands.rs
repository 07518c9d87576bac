//! Hands on running containers: commands and copies in them, their own streams, their health, what
//! they use, and what a service may ask of them. Needs root; says so and passes where it is not.

mod executor_support;

use std::io::{Read, Write};
use std::time::Duration;

use executor_support::session::{Session, command, exec, with, words};
use executor_support::{GRACE_MS, Peer, containers_run, host, script};
use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::ClaimId;
use rialto_protocol::model::container::{DeviceFile, Seccomp, Tmpfs, Ulimit};
use rialto_protocol::model::health::{HealthCheck, HealthTest};
use rialto_protocol::model::{Container, Health, TaskSpec};
use rialto_protocol::session::{Exec, Frame, Open, Size};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_in_the_container_as_the_task_does() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    let mut spec = script("echo $$ > /tmp/own; exec sleep 600");
    spec.environment.insert("COLOUR".into(), "red".into());
    let claim = peer.start(spec);
    peer.running(claim).await;

    let shown = exec(&peer, claim, &["sh", "-c", "echo $COLOUR; echo oops >&2; hostname; cat /tmp/own; exit 3"]).await;
    assert_eq!((shown.code, shown.errors.as_str()), (Some(3), "oops\n"), "{shown:?}");
    assert_eq!(shown.output, "red\nmain-1\n1\n");
    // The same limits and rights as the task's own program.
    let status = "grep -E '^(CapBnd|CapEff|NoNewPrivs|Seccomp):' /proc/$1/status";
    let own = exec(&peer, claim, &["sh", "-c", status, "-", "1"]).await.output;
    let entered = exec(&peer, claim, &["sh", "-c", status, "-", "self"]).await.output;
    assert_eq!(own, entered);
    assert!(own.contains("NoNewPrivs:\t1") && own.contains("Seccomp:\t2"), "{own}");
    let refused = exec(&peer, claim, &["unshare", "--mount", "true"]).await;
    assert_ne!(refused.code, Some(0), "{refused:?}");
    let pids = exec(&peer, claim, &["sh", "-c", "ls /proc | grep -c '^[0-9]*$'"]).await.output;
    assert!(pids.trim().parse::<u32>().unwrap() < 8, "it sees the container's processes alone: {pids}");
    let cgroups = peer.cgroup_file(claim, "pids", "cgroup.procs");
    let mut long = Session::open(&peer, claim, Open::Exec(command(&["sh", "-c", "echo here; sleep 60"]))).await;
    long.until("here").await;
    assert!(std::fs::read_to_string(cgroups).unwrap().lines().count() >= 2, "it counts for the task");
    long.say(&Frame::Signal(15)).await;
    assert_eq!(long.end().await.code, Some(128 + 15));

    for (words, code) in [(&["no-such-program"][..], 127), (&["/etc/passwd"], 126)] {
        let outcome = exec(&peer, claim, words).await;
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert!(outcome.errors.starts_with("rialto: "), "{outcome:?}");
    }
    let other = Exec {
        user: Some("nobody".into()),
        working_dir: Some("/usr".into()),
        environment: vec!["COLOUR=blue".into()],
        input: true,
        ..command(&["sh", "-c", "id -u; pwd; echo $COLOUR; cat"])
    };
    let mut session = Session::open(&peer, claim, Open::Exec(other)).await;
    session.say(&Frame::Input(b"from here\n".to_vec())).await;
    session.say(&Frame::InputEnd).await;
    let outcome = session.end().await;
    assert_eq!((outcome.code, outcome.output.as_str()), (Some(0), "65534\n/usr\nblue\nfrom here\n"), "{outcome:?}");
    let nobody = Exec { user: Some("no-such-user".into()), ..command(&["true"]) };
    let outcome = Session::open(&peer, claim, Open::Exec(nobody)).await.end().await;
    assert!(outcome.failed.is_some_and(|why| why.contains("no-such-user")));

    // Whoever goes takes the command along.
    let mut left = Session::open(&peer, claim, Open::Exec(command(&["sh", "-c", "echo here; exec sleep 4711"]))).await;
    left.until("here").await;
    drop(left);
    let gone = || async { !exec(&peer, claim, &["sh", "-c", "cat /proc/*/cmdline"]).await.output.contains("4711") };
    let waited = timeout(Duration::from_secs(10), async {
        while !gone().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("the command goes with its client");
    peer.stop(claim, 0);
    peer.ended(claim).await;
    assert!(peer.executor().sessions().unwrap().enter(claim).await.is_err());
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_is_one() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    let claim = peer.start(host(&["sleep", "600"]));
    peer.running(claim).await;
    let size = Size { columns: 101, rows: 37 };
    let shell = Exec { terminal: Some(size), input: true, ..command(&["sh"]) };
    let mut session = Session::open(&peer, claim, Open::Exec(shell)).await;
    session.say(&Frame::Input(b"tty; stty size\n".to_vec())).await;
    session.until("37 101").await;
    assert!(session.told.output.contains("/dev/pts/0"), "{:?}", session.told);
    session.say(&Frame::Resize(Size { columns: 50, rows: 20 })).await;
    session.say(&Frame::Input(b"stty size\n".to_vec())).await;
    session.until("20 50").await;
    // The key for an interrupt reaches what runs in the foreground, and not the shell. It is one process: a shell that is
    // about to start another keeps an interrupt to itself.
    session.say(&Frame::Input(b"sh -c 'echo beg''un; read line'\n".to_vec())).await;
    session.until("begun").await;
    session.say(&Frame::Input(vec![3])).await;
    session.until("^C\r\n# ").await;
    session.say(&Frame::Input(b"exit 7\n".to_vec())).await;
    assert_eq!(session.end().await.code, Some(7));
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_copied_both_ways_and_no_link_leads_outside() {
    if !containers_run() {
        return;
    }
    let peer = Peer::new().await;
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "of the machine").unwrap();
    let trap = format!(
        "mkdir -p /srv-/d && cd /tmp && mkdir -p a/b && echo inner > a/b/f && ln -s b/f a/link && chmod 750 a/b/f
         mkdir -p {0} && ln -s {0} /tmp/way && ln -s ../../../../../..{0}/secret /tmp/up && ln -s /proc/1/root /tmp/magic
         echo ready; exec sleep 600",
        outside.path().display()
    );
    let claim = peer.start(script(&trap.replace("/srv-/d", "/tmp/d")));
    peer.line(claim, "ready").await;
    let read = |path: &str| Open::Read { path: path.into() };
    let outcome = Session::open(&peer, claim, read("/tmp/a")).await.end().await;
    assert_eq!((outcome.code, &outcome.failed), (Some(0), &None));
    let mut archive = tar::Archive::new(&outcome.archive[..]);
    let mut names = Vec::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        if name == "a/b/f" {
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), entry.header().mode().unwrap() & 0o7777), ("inner\n", 0o750));
        }
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["a", "a/b", "a/b/f", "a/link"]);
    for (path, why) in [("/no/such", "no such file"), ("relative", "no absolute path"), ("/tmp/way/secret", "no such")]
    {
        let failed = Session::open(&peer, claim, read(path)).await.end().await.failed;
        assert!(failed.as_ref().is_some_and(|failed| failed.contains(why)), "{path}: {failed:?}");
    }
    let magic = Session::open(&peer, claim, read("/tmp/magic/etc/hostname")).await.end().await;
    assert!(magic.failed.is_some(), "{magic:?}");

    let packed = |entries: &[(&str, &str)]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, text) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o640);
            header.set_uid(7);
            header.set_gid(7);
            header.set_mtime(0);
            header.set_size(text.len() as u64);
            // As a hostile archive would name it.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            builder.append(&header, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    };
    let write = async |path: &str, archive: Vec<u8>| {
        let mut session = Session::open(&peer, claim, Open::Write { path: path.into(), kept: false }).await;
        session.say(&Frame::Input(archive)).await;
        session.say(&Frame::InputEnd).await;
        session.end().await
    };
    assert_eq!(write("/tmp", packed(&[("new", "one")])).await.code, Some(0));
    assert_eq!(write("/tmp/other", packed(&[("new", "two")])).await.code, Some(0));
    assert_eq!(write("/tmp/way", packed(&[("stays", "inside")])).await.code, Some(0));
    let shown = exec(&peer, claim, &["sh", "-c", "cat /tmp/new /tmp/other; stat -c %a:%u /tmp/new"]).await.output;
    assert_eq!(shown, "onetwo640:0\n");
    assert!(write("/tmp", packed(&[("../../evil", "x")])).await.failed.is_some());
    // A file of several names stays one, with what else belongs to it, and has its owner where that is asked for.
    let make = "mkdir /tmp/l; cd /tmp/l; echo x > one; ln one two; chown 5:6 one; mkdir sub; ln one sub/three";
    assert_eq!(exec(&peer, claim, &["sh", "-c", make]).await.code, Some(0));
    let linked = Session::open(&peer, claim, read("/tmp/l")).await.end().await.archive;
    for (path, kept, owner) in [("/tmp/plain", false, "0:0"), ("/tmp/kept", true, "5:6")] {
        let mut session = Session::open(&peer, claim, Open::Write { path: path.into(), kept }).await;
        session.say(&Frame::Input(linked.clone())).await;
        session.say(&Frame::InputEnd).await;
        assert_eq!(session.end().await.failed, None);
        let look = format!("cd {path}; stat -c '%h %u:%g' one; [ one -ef two ] && [ one -ef sub/three ] && cat two");
        assert_eq!(exec(&peer, claim, &["sh", "-c", &look]).await.output, format!("3 {owner}\nx\n"), "{path}");
    }
    assert!(write("/no/such/folder", packed(&[("f", "x")])).await.failed.is_some());
    let there: Vec<_> = std::fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(there, ["secret"], "nothing left the container");
    assert_eq!(std::fs::read_to_string(outside.path().join("secret")).unwrap(), "of the machine");
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tasks_own_streams_are_attached_to() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    let reader = with(script("while read line; do echo \"got $line\"; [ \"$line\" = end ] && exit 5; done"), |c| {
        c.stdin_open = true;
    });
    let claim = peer.start(reader);
    peer.running(claim).await;
    let attach = |input| Open::Attach { input, size: None };
    let mut looker = Session::open(&peer, claim, attach(false)).await;
    looker.say(&Frame::Input(b"unheard\n".to_vec())).await;
    let mut speaker = Session::open(&peer, claim, attach(true)).await;
    speaker.say(&Frame::Input(b"hello\n".to_vec())).await;
    speaker.until("got hello").await;
    looker.until("got hello").await;
    drop(speaker);
    let mut speaker = Session::open(&peer, claim, attach(true)).await;
    speaker.say(&Frame::Input(b"end\n".to_vec())).await;
    assert_eq!(speaker.end().await.code, Some(5));
    let looked = looker.end().await;
    assert_eq!((looked.code, looked.output.contains("unheard")), (Some(5), false));
    peer.ended(claim).await;

    let shell = with(host(&["sh"]), |c| (c.stdin_open, c.tty) = (true, true));
    let claim = peer.start(shell);
    peer.running(claim).await;
    let size = Some(Size { columns: 77, rows: 11 });
    let mut terminal = Session::open(&peer, claim, Open::Attach { input: true, size }).await;
    terminal.say(&Frame::Input(b"stty size\n".to_vec())).await;
    terminal.until("11 77").await;
    terminal.say(&Frame::Input(b"exit 9\n".to_vec())).await;
    assert_eq!(terminal.end().await.code, Some(9));
    peer.ended(claim).await;
    peer.close().await;
}

fn check(test: HealthTest) -> HealthCheck {
    HealthCheck {
        test: Some(test),
        interval_ms: Some(60),
        timeout_ms: Some(2_000),
        retries: Some(2),
        ..Default::default()
    }
}

async fn health(peer: &mut Peer, claim: ClaimId, wanted: Health) {
    peer.until(claim, |report| matches!(report, TaskReport::Running { health, .. } if *health == wanted)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_is_told_and_outlives_the_daemon() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    let sick = with(host(&["sleep", "600"]), |c| c.health = Some(check(HealthTest::Shell("test -e /tmp/well".into()))));
    let claim = peer.start(sick);
    health(&mut peer, claim, Health::Starting).await;
    health(&mut peer, claim, Health::Unhealthy).await;
    exec(&peer, claim, &["touch", "/tmp/well"]).await;
    health(&mut peer, claim, Health::Healthy).await;
    let found = peer.come_back().await;
    let is_healthy = |report: &TaskReport| matches!(report, TaskReport::Running { health: Health::Healthy, .. });
    assert!(found.iter().any(|(of, report)| *of == claim && is_healthy(report)), "{found:?}");
    exec(&peer, claim, &["rm", "/tmp/well"]).await;
    health(&mut peer, claim, Health::Unhealthy).await;

    // While it starts failures do not count; a check that never ends has failed.
    let slow = HealthCheck {
        start_period_ms: Some(600_000),
        start_interval_ms: Some(50),
        timeout_ms: Some(100),
        ..check(HealthTest::Command(words(&["sh", "-c", "test -e /tmp/well || sleep 100"])))
    };
    let claim = peer.start(with(host(&["sleep", "600"]), |c| c.health = Some(slow)));
    health(&mut peer, claim, Health::Starting).await;
    exec(&peer, claim, &["sleep", "0.5"]).await;
    exec(&peer, claim, &["touch", "/tmp/well"]).await;
    health(&mut peer, claim, Health::Healthy).await;

    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap_or(0);
            let good = request[..count].starts_with(b"GET /good ");
            let _ = write!(stream, "HTTP/1.1 {}\r\n\r\n", if good { "204 x" } else { "500 x" });
        }
    });
    let http = |path: &str| HealthTest::Http { port, path: path.into() };
    let tests = [
        (http("/good"), Health::Healthy),
        (http("/bad"), Health::Unhealthy),
        (HealthTest::Tcp { port }, Health::Healthy),
        (HealthTest::Tcp { port: 1 }, Health::Unhealthy),
    ];
    for (test, wanted) in tests {
        let claim = peer.start(with(host(&["sleep", "600"]), |c| c.health = Some(check(test))));
        health(&mut peer, claim, wanted).await;
    }
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_check_it_starts_until_it_listens() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    let bind = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let ports = [bind(), bind()].map(|listener| listener.local_addr().unwrap().port());
    let listening = |ports: &[u16]| TaskSpec { listens: ports.to_vec(), ..host(&["sleep", "600"]) };
    let never = peer.start(listening(&ports[..1]));
    health(&mut peer, never, Health::Starting).await;
    let soon = peer.start(listening(&ports[1..]));
    health(&mut peer, soon, Health::Starting).await;
    let _held = std::net::TcpListener::bind(("127.0.0.1", ports[1])).unwrap();
    health(&mut peer, soon, Health::None).await;
    // Who says that nothing is to be looked at means this, too.
    let nothing = with(listening(&ports[..1]), |c| c.health = Some(check(HealthTest::Nothing)));
    let unchecked = peer.start(nothing);
    let first = peer.running(unchecked).await;
    assert!(matches!(first, TaskReport::Running { health: Health::None, .. }), "{first:?}");
    // A file may name a port that nobody opens.
    health(&mut peer, never, Health::None).await;
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_service_asks_of_its_containers_holds() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    let shown = async |peer: &mut Peer, text: &str, change: &dyn Fn(&mut Container)| {
        peer.run(with(script(text), |container| change(container))).await
    };
    type Change = Box<dyn Fn(&mut Container)>;
    let cases: Vec<(&str, Change, &str)> = vec![
        ("id -u; id -G", Box::new(|c| (c.user, c.group_add) = (Some("1000:7".into()), words(&["adm"]))), "1000\n7 4\n"),
        ("pwd", Box::new(|c| c.working_dir = Some("/usr/lib".into())), "/usr/lib\n"),
        ("echo $0-$1", Box::new(|c| c.entrypoint = Some(words(&["env", "--"]))), "sh-\n"),
        (
            "touch /x 2>/dev/null || echo no; touch /run/y && echo yes",
            Box::new(|c| {
                c.read_only = true;
                c.tmpfs = vec![Tmpfs { path: "/run".into(), bytes: Some(1 << 20), mode: Some(0o755) }];
            }),
            "no\nyes\n",
        ),
        (
            "df -k --output=size /run | tail -1; stat -c %a /run",
            Box::new(|c| {
                c.tmpfs = vec![Tmpfs { path: "/run".into(), bytes: Some(2 << 20), mode: Some(0o711) }];
            }),
            " 2048\n711\n",
        ),
        ("df -k --output=size /dev/shm | tail -1", Box::new(|c| c.shm_bytes = Some(8 << 20)), " 8192\n"),
        (
            "ulimit -n; ulimit -Hn; ulimit -s",
            Box::new(|c| {
                c.ulimits.insert("nofile".into(), Ulimit { soft: 100, hard: 200 });
                c.ulimits.insert("stack".into(), Ulimit { soft: 1 << 20, hard: 1 << 20 });
            }),
            "100\n200\n1024\n",
        ),
        (
            "cat /proc/sys/kernel/msgmax",
            Box::new(|c| drop(c.sysctls.insert("kernel.msgmax".into(), "4096".into()))),
            "4096\n",
        ),
        ("cat /proc/1/comm; echo $$", Box::new(|_| {}), "sh\n1\n"),
        (
            "[ $$ -ne 1 ] && (sh -c 'sleep 0.1 & :'); sleep 0.3; ps -eo stat | grep -c Z",
            Box::new(|c| c.init = true),
            "0\n",
        ),
        ("grep CapBnd /proc/self/status", Box::new(|c| c.cap_drop = words(&["ALL"])), "CapBnd:\t0000000000000000\n"),
        (
            "grep CapEff /proc/self/status",
            Box::new(|c| {
                (c.cap_drop, c.cap_add) = (words(&["ALL"]), words(&["NET_BIND_SERVICE", "SYS_NICE"]));
            }),
            "CapEff:\t0000000000800400\n",
        ),
        (
            "grep -E '^(NoNewPrivs|Seccomp):' /proc/self/status",
            Box::new(|c| c.gains_privileges = true),
            "NoNewPrivs:\t0\nSeccomp:\t2\n",
        ),
        ("grep Seccomp: /proc/self/status", Box::new(|c| c.seccomp = Seccomp::Unconfined), "Seccomp:\t0\n"),
        ("mkdir /tmp/x && echo made; ls -d /tmp/x", Box::new(|c| c.seccomp = no_mkdir()), ""),
        (
            "stat -c '%t %T' /dev/own; head -c1 /dev/own | wc -c",
            Box::new(|c| {
                c.devices =
                    vec![DeviceFile { host: "/dev/zero".into(), container: "/dev/own".into(), access: "r".into() }];
            }),
            "1 5\n1\n",
        ),
        ("mkdir -p /tmp/m && mount -t tmpfs none /tmp/m 2>/dev/null || echo refused", Box::new(|_| {}), "refused\n"),
        (
            "mkdir -p /tmp/m && mount -t tmpfs none /tmp/m && echo mounted",
            Box::new(|c| c.privileged = true),
            "mounted\n",
        ),
    ];
    for (text, change, wanted) in &cases {
        let (_, written) = shown(&mut peer, text, change.as_ref()).await;
        let plain: Vec<&str> = written.lines().filter(|line| !line.contains("Operation not permitted")).collect();
        let wanted: Vec<&str> = wanted.lines().map(str::trim).collect();
        let plain: Vec<&str> = plain.into_iter().map(str::trim).filter(|line| !line.starts_with("ls:")).collect();
        assert_eq!(plain, wanted, "{text}");
    }
    // What would change the machine's own network is no task's to set, while it has none of its own.
    let claim = peer.start(with(host(&["true"]), |c| drop(c.sysctls.insert("net.core.somaxconn".into(), "1".into()))));
    let report = peer.ended(claim).await;
    assert!(matches!(&report, TaskReport::Failed { reason } if reason.contains("net.core.somaxconn")), "{report:?}");
    peer.close().await;
}

/// A profile in Docker's form that allows everything but to make folders.
fn no_mkdir() -> Seccomp {
    let json = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}"#;
    Seccomp::profile(json.into()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_asked_to_end_as_its_service_says() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    let polite = "trap 'echo told; exit 4' USR1; echo up; while :; do sleep 0.05; done";
    let claim = peer.start(with(script(polite), |c| {
        c.stop_signal = Some("SIGUSR1".into());
        c.pre_stop = Some(words(&["sh", "-c", "echo before > /proc/1/fd/1"]));
    }));
    peer.line(claim, "up").await;
    peer.stop(claim, GRACE_MS);
    assert!(executor_support::exited(4)(&peer.ended(claim).await));
    assert_eq!(peer.output(claim).await, "up\nbefore\ntold\n");

    // Through the small init too; and one that ignores everything is killed when the grace is over.
    let claim =
        peer.start(with(script("trap 'exit 6' TERM; echo up; while :; do sleep 0.05; done"), |c| c.init = true));
    peer.line(claim, "up").await;
    peer.stop(claim, GRACE_MS);
    assert!(executor_support::exited(6)(&peer.ended(claim).await));
    let claim = peer.start(script("trap '' TERM; echo up; while :; do sleep 0.05; done"));
    peer.line(claim, "up").await;
    let began = std::time::Instant::now();
    peer.stop(claim, 300);
    assert!(executor_support::exited(128 + 9)(&peer.ended(claim).await));
    assert!((300..3_000).contains(&(began.elapsed().as_millis() as u64)));
    // The daemon dies while a task is being stopped: the end comes all the same.
    let claim = peer.start(script("trap '' TERM; echo up; while :; do sleep 0.05; done"));
    peer.line(claim, "up").await;
    peer.stop(claim, 600);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let found = peer.come_back().await;
    if !found.iter().any(|(of, report)| *of == claim && executor_support::has_ended(report)) {
        assert!(executor_support::exited(128 + 9)(&peer.ended(claim).await));
    }
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_task_uses_is_counted_and_bounded() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    let mut busy = script("head -c 20000000 /dev/zero | tail -c 20000000 > /tmp/x; echo up; while :; do :; done");
    busy.limits.set("memory_bytes", 256 << 20);
    let claim = peer.start(busy);
    peer.line(claim, "up").await;
    let sessions = peer.executor().sessions().unwrap();
    let first = sessions.usage().await.pop().unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let second = sessions.usage().await.pop().unwrap();
    assert_eq!((second.claim, second.memory_limit_bytes), (claim, Some(256 << 20)));
    assert!(second.memory_bytes > 19_000_000, "{second:?}");
    assert!(second.cpu_us > first.cpu_us + 50_000, "{first:?} {second:?}");
    assert!(second.pids >= 1 && second.at > first.at);
    peer.stop(claim, 0);
    peer.ended(claim).await;

    // A fork bomb stays within its bound, and so does a task that writes without pause.
    let mut bomb = script("echo up; b() { b | b & }; b; while :; do sleep 1; done");
    bomb.limits.set("pids", 40);
    let claim = peer.start(bomb);
    peer.line(claim, "up").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let pids = sessions.usage().await.pop().unwrap().pids;
    assert!(pids <= 40, "{pids}");
    peer.stop(claim, 100);
    peer.ended(claim).await;
    let claim = peer.start(host(&["timeout", "2", "yes", "a line of some length that is written again and again"]));
    peer.ended(claim).await;
    let kept: u64 =
        ["log", "log.1"].iter().map(|name| std::fs::metadata(peer.folder(claim).join(name)).unwrap().len()).sum();
    assert!(kept <= rialto_node::executor::logs::LOG_BYTES_MAX + 1024, "{kept}");
    peer.close().await;
}

/// Starts and stops in a row, some killed, some entered; what is left fails the test.
async fn round(count: usize) {
    let mut peer = Peer::new().await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut after_first = 0;
    for at in 0..count {
        let claim = peer.start(with(host(&["sleep", "600"]), |c| c.init = at % 3 == 0));
        peer.running(claim).await;
        if at % 5 == 0 {
            assert_eq!(exec(&peer, claim, &["true"]).await.code, Some(0));
        }
        match at % 7 {
            0 => peer.kill_shim(claim),
            _ => peer.stop(claim, 0),
        }
        peer.ended(claim).await;
        peer.shim_gone(claim).await;
        peer.executor().order(rialto_node::executor::Order::Forget { claim });
        if at == 10.min(count - 1) {
            after_first = descriptors();
        }
    }
    // Other tests have descriptors in this process, too, for a while.
    let few = async {
        while descriptors() > after_first + 8 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let left = timeout(Duration::from_secs(20), few).await;
    assert!(left.is_ok(), "{after_first} descriptors became {}", descriptors());
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_starts_and_stops_leave_nothing() {
    if containers_run() {
        round(50).await;
    }
}

/// For `make soak`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute"]
async fn five_hundred_starts_and_stops_leave_nothing() {
    if containers_run() {
        round(500).await;
    }
}
