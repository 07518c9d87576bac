//! Tasks in real containers. Skipped, with the reason, where containers cannot run.

mod executor_support;

use std::time::{Duration, Instant};

use executor_support::*;
use rialto_node::executor::logs::Stream;
use rialto_node::executor::{Order, Told};
use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::ClaimId;

macro_rules! on_containers {
    ($(#[$doc:meta])* async fn $name:ident($peer:ident) $body:block) => {
        $(#[$doc])*
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            if !containers_run() {
                return;
            }
            #[allow(unused_mut)]
            let mut $peer = Peer::new().await;
            $body
            $peer.close().await;
        }
    };
}

on_containers! {
    async fn exit_codes_are_those_of_a_shell(peer) {
        assert_eq!(peer.run(host(&["true"])).await.0, 0);
        assert_eq!(peer.run(script("exit 7")).await.0, 7);
        let (code, said) = peer.run(host(&["no-such-program", "x"])).await;
        assert_eq!((code, said.as_str()), (127, "rialto: no-such-program: not found\n"));
        let (code, said) = peer.run(host(&["/usr/bin"])).await;
        assert_eq!((code, said.as_str()), (126, "rialto: /usr/bin: permission denied\n"));
        let (code, _) = peer.run(script("sh -c 'kill -TERM $$'; exit $?")).await;
        assert_eq!(code, 143);
    }
}

on_containers! {
    async fn a_signal_is_told_as_128_and_its_number(peer) {
        let claim = peer.start(host(&["sleep", "60"]));
        peer.running(claim).await;
        peer.stop(claim, 0);
        peer.until(claim, exited(137)).await;
    }
}

on_containers! {
    async fn a_stop_lets_a_task_finish(peer) {
        let claim = peer.start(script("trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.01; done"));
        peer.line(claim, "ready").await;
        peer.stop(claim, GRACE_MS);
        peer.stop(claim, GRACE_MS);
        peer.until(claim, exited(3)).await;
        assert_eq!(peer.output(claim).await, "ready\nbye\n");
        // Once more: told as ended all the same.
        peer.stop(claim, GRACE_MS);
        peer.until(claim, exited(3)).await;
    }
}

on_containers! {
    async fn a_task_that_will_not_end_is_killed_after_its_grace(peer) {
        let claim = peer.start(script("trap '' TERM; echo ready; while :; do sleep 0.01; done"));
        peer.line(claim, "ready").await;
        let asked = Instant::now();
        peer.stop(claim, 300);
        peer.until(claim, exited(137)).await;
        let took = asked.elapsed();
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(2), "{took:?}");
    }
}

on_containers! {
    async fn a_task_that_cannot_hear_is_not_waited_for(peer) {
        let claim = peer.start(host(&["sleep", "60"]));
        peer.running(claim).await;
        let asked = Instant::now();
        peer.stop(claim, 30_000);
        peer.until(claim, exited(137)).await;
        assert!(asked.elapsed() < Duration::from_secs(2));
    }
}

on_containers! {
    async fn a_stop_of_nothing_is_told_as_ended(peer) {
        let nobody = ClaimId([7; 16]);
        peer.stop(nobody, 0);
        assert!(matches!(peer.ended(nobody).await, TaskReport::Failed { .. }));
        let claim = peer.start(host(&["sleep", "60"]));
        peer.stop(claim, 0);
        peer.ended(claim).await;
    }
}

on_containers! {
    async fn the_same_start_twice_is_one_container(peer) {
        let claim = peer.start(script("echo started; exec sleep 60"));
        peer.running(claim).await;
        peer.line(claim, "started").await;
        let again = std::sync::Arc::new(script("echo again"));
        peer.executor().order(Order::Start { claim, spec: again.clone() });
        peer.running(claim).await;
        peer.stop(claim, 0);
        peer.until(claim, exited(137)).await;
        peer.executor().order(Order::Start { claim, spec: again });
        peer.until(claim, exited(137)).await;
        assert_eq!(peer.output(claim).await, "started\n");
    }
}

on_containers! {
    async fn a_task_that_is_forgotten_leaves_nothing(peer) {
        let claim = peer.start(script("echo x; exec sleep 60"));
        peer.running(claim).await;
        peer.executor().order(Order::Forget { claim });
        peer.ended(claim).await;
        let ended = peer.start(host(&["true"]));
        peer.ended(ended).await;
        peer.executor().order(Order::Forget { claim: ended });
        let logs = peer.executor().logs().unwrap();
        while logs.has(claim) || logs.has(ended) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(logs.read(claim, None).await.unwrap_err().kind(), std::io::ErrorKind::NotFound);
    }
}

on_containers! {
    async fn the_environment_is_the_tasks_own(peer) {
        let mut spec = script("env | sort; hostname; pwd; id -u; cat /proc/1/comm; readlink /proc/self/fd/0");
        spec.environment.insert("PORT".into(), "20001".into());
        spec.environment.insert("WORDS".into(), "two words=3".into());
        let (code, said) = peer.run(spec).await;
        assert_eq!(code, 0, "{said}");
        for line in ["PORT=20001", "WORDS=two words=3", "main-1", "/", "0", "sh", "/dev/null"] {
            assert!(said.lines().any(|found| found == line), "{line:?} in {said}");
        }
        assert!(said.contains("PATH=/usr/local/sbin:"), "{said}");
        assert!(!said.contains("CARGO"), "nothing of the peer's own: {said}");
    }
}

on_containers! {
    async fn logs_keep_streams_order_and_lines(peer) {
        let claim = peer.start(script("echo one; sleep 0.05; echo two >&2; sleep 0.05; printf three"));
        peer.ended(claim).await;
        let logs = peer.executor().logs().unwrap();
        let all = logs.read(claim, None).await.unwrap();
        assert_eq!(text(&all), "one\ntwo\nthree");
        assert_eq!(text_of(&all, Stream::Stderr), "two\n");
        assert!(all.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert_eq!(text(&logs.read(claim, Some(2)).await.unwrap()), "two\nthree");
    }
}

on_containers! {
    async fn a_log_is_followed_from_before_the_start_to_the_end(peer) {
        use futures::StreamExt;
        let claim = peer.start(script("for i in 1 2 3 4 5; do echo line $i; sleep 0.02; done"));
        let follow = peer.executor().logs().unwrap().follow(claim, None);
        let all: Vec<_> = tokio::time::timeout(Duration::from_secs(10), follow.collect()).await.unwrap();
        let all: Vec<_> = all.into_iter().map(Result::unwrap).collect();
        assert_eq!(text(&all), "line 1\nline 2\nline 3\nline 4\nline 5\n");
        peer.until(claim, exited(0)).await;
    }
}

on_containers! {
    async fn a_log_is_bounded(peer) {
        let claim = peer.start(script("yes 0123456789012345678901234567890123456789 | head -c 20000000; echo; echo last"));
        peer.until(claim, exited(0)).await;
        let size: u64 = ["log", "log.1"].iter().map(|name| peer.folder(claim).join(name).metadata().unwrap().len()).sum();
        assert!(size <= 8 << 20, "{size}");
        let said = peer.output(claim).await;
        assert!(said.len() > 4_000_000 && said.ends_with("\nlast\n"));
    }
}

on_containers! {
    async fn a_memory_limit_bites_and_is_told(peer) {
        let mut spec = script("head -c 200000000 /dev/zero | tail | wc -c");
        spec.limits.set("memory_bytes", 32 << 20);
        let claim = peer.start(spec);
        let report = peer.ended(claim).await;
        assert!(matches!(report, TaskReport::Exited { oom_killed: true, .. }), "{report:?}");
        let claim = peer.start(host(&["true"]));
        assert!(matches!(peer.ended(claim).await, TaskReport::Exited { oom_killed: false, .. }));
    }
}

on_containers! {
    async fn a_pids_limit_bites(peer) {
        let mut spec = script("for i in 1 2 3 4 5 6 7 8 9; do sleep 1 & done; echo all");
        spec.limits.set("pids", 5);
        let (code, said) = peer.run(spec).await;
        assert!(code != 0 && !said.contains("all"), "{code} {said}");
    }
}

on_containers! {
    async fn a_cpu_limit_is_set(peer) {
        let v1 = std::path::Path::new("/sys/fs/cgroup/cpu").exists();
        let mut spec = host(&["sleep", "60"]);
        spec.limits.set("cpu_millis", 250);
        let claim = peer.start(spec);
        peer.running(claim).await;
        let (controller, file, wanted) =
            if v1 { ("cpu", "cpu.cfs_quota_us", "25000") } else { ("", "cpu.max", "25000 100000") };
        let found = std::fs::read_to_string(peer.cgroup_file(claim, controller, file)).unwrap();
        assert_eq!(found.trim(), wanted);
    }
}

on_containers! {
    async fn a_task_is_alone(peer) {
        let (code, said) = peer.run(script("ls /proc | grep -c '^[0-9]*$'; readlink /proc/self/ns/*; cat /proc/self/cgroup")).await;
        assert_eq!(code, 0);
        let processes: u32 = said.lines().next().unwrap().parse().unwrap();
        assert!(processes <= 4, "{said}");
        for kind in ["pid", "mnt", "ipc", "uts", "cgroup"] {
            let own = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            assert!(!said.contains(own.to_str().unwrap()), "{kind}: {said}");
        }
        assert!(!said.contains(&peer.prefix), "it does not see where its cgroup lies: {said}");
    }
}

on_containers! {
    async fn the_host_image_hides_what_is_private(peer) {
        let key = peer.data.path().join("identity.key");
        std::fs::write(&key, "the secret").unwrap();
        let script_text = format!(
            "cat {} ; cat /etc/shadow; cat /proc/1/root{} ; ls -A /root /home /run /var /var/tmp; ls -d {}; ls /etc/ssh",
            key.display(), key.display(), peer.data.path().display(),
        );
        let (code, said) = peer.run(script(&script_text)).await;
        assert_ne!(code, 0);
        assert!(!said.contains("the secret") && !said.contains("root:*"), "{said}");
        assert_eq!(said.matches("No such file or directory").count(), 5, "{said}");
        let (code, said) = peer.run(script("touch /usr/x || touch /etc/x || touch /bin/x || echo y > /proc/sys/kernel/hostname")).await;
        assert!(code != 0 && said.matches("Read-only file system").count() == 4, "{said}");
        assert_eq!(peer.run(script("echo x > /tmp/x && touch /run/x /var/tmp/x && cat /tmp/x && getent passwd root")).await.0, 0);
    }
}

on_containers! {
    async fn what_must_be_hidden_is_hidden_among_the_programs_too(peer) {
        let place = tempfile::Builder::new().prefix("rialto-hidden-").tempdir_in("/opt").unwrap();
        std::fs::write(place.path().join("key"), "the secret").unwrap();
        let before = peer.run(host(&["cat", place.path().join("key").to_str().unwrap()])).await;
        assert_eq!(before, (0, "the secret".into()));
        let hiding = Peer::hiding(place.path()).await;
        let mut hiding = hiding;
        let (code, said) = hiding.run(host(&["cat", place.path().join("key").to_str().unwrap()])).await;
        assert!(code != 0 && !said.contains("the secret"), "{said}");
        hiding.close().await;
    }
}

on_containers! {
    async fn a_task_has_few_rights(peer) {
        let (_, said) = peer.run(script(
            "grep -E 'NoNewPrivs|Seccomp:|CapEff|CapBnd' /proc/self/status; unshare -m true; mount -t tmpfs x /tmp; mknod /tmp/d c 1 3;\
             dmesg; cat /proc/kcore; ls -A /sys/firmware | wc -l",
        )).await;
        assert!(said.contains("NoNewPrivs:\t1") && said.contains("Seccomp:\t2"), "{said}");
        assert!(said.contains("CapEff:\t00000000000404fb") && said.contains("CapBnd:\t00000000000404fb"), "{said}");
        assert_eq!(said.matches("Operation not permitted").count(), 3, "{said}");
        assert!(said.contains("dmesg: ") && said.ends_with("\n0\n"), "{said}");
        // Threads, processes and the network are allowed where namespaces and the kernel's
        // cryptography are not.
        let program = "\
import ctypes, errno, socket, subprocess, threading
thread = threading.Thread(target=print, args=('thread',), kwargs={'flush': True})
thread.start(); thread.join()
subprocess.run(['echo', 'process'])
for family in (socket.AF_INET, socket.AF_UNIX, socket.AF_NETLINK, socket.AF_ALG, socket.AF_VSOCK):
    try:
        socket.socket(family, socket.SOCK_DGRAM if family != socket.AF_ALG else socket.SOCK_SEQPACKET).close()
        print('socket', family.name)
    except OSError as error:
        print('no', family.name, errno.errorcode[error.errno])
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0), errno.errorcode[ctypes.get_errno()])
";
        let (code, said) = peer.run(host(&["python3", "-c", program])).await;
        let wanted = "thread\nprocess\nsocket AF_INET\nsocket AF_UNIX\nsocket AF_NETLINK\nno AF_ALG EPERM\nno AF_VSOCK EPERM\n-1 EPERM\n";
        assert_eq!((code, said.as_str()), (0, wanted));
    }
}

on_containers! {
    async fn a_restarted_daemon_finds_what_runs_and_what_ended(peer) {
        let stays = peer.start(script("echo before; while [ ! -e /tmp/never ]; do sleep 0.05; echo tick; done"));
        let before = peer.running(stays).await;
        let ends = peer.start(script("sleep 0.3; echo done; exit 5"));
        peer.running(ends).await;
        peer.die();
        // Its end is written down while nobody looks.
        while !peer.folder(ends).join("exit.json").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let found = peer.come_back().await;
        let of = |claim: ClaimId| found.iter().find(|(found, _)| *found == claim).unwrap().1.clone();
        assert_eq!(of(stays), before, "the same container");
        assert!(exited(5)(&of(ends)));
        assert_eq!(peer.output(ends).await, "done\n");
        peer.line(stays, "tick").await;
        // And again, with orders that come at once.
        peer.come_back().await;
        peer.executor().order(Order::Start { claim: stays, spec: std::sync::Arc::new(script("echo again")) });
        peer.running(stays).await;
        peer.stop(stays, 0);
        peer.until(stays, exited(137)).await;
        let found = peer.come_back().await;
        assert_eq!(found.len(), 2, "both are ended, and said so again until they are forgotten");
        assert!(!peer.output(stays).await.contains("again"));
    }
}

on_containers! {
    async fn a_container_dies_with_its_shim(peer) {
        let claim = peer.start(script("echo $$; sleep 60 & sleep 61"));
        peer.running(claim).await;
        peer.kill_shim(claim);
        peer.until(claim, exited(137)).await;
        // And when nobody looks.
        let claim = peer.start(host(&["sleep", "60"]));
        peer.running(claim).await;
        peer.die();
        peer.kill_shim(claim);
        let found = peer.come_back().await;
        let report = &found.iter().find(|(found, _)| *found == claim).unwrap().1;
        if !exited(137)(report) {
            peer.until(claim, exited(137)).await;
        }
    }
}

on_containers! {
    async fn after_another_boot_tasks_are_gone(peer) {
        let claim = peer.start(host(&["true"]));
        peer.ended(claim).await;
        peer.die();
        peer.shim_gone(claim).await;
        // As a machine that lost its power leaves it.
        std::fs::remove_file(peer.folder(claim).join("exit.json")).unwrap();
        let life = peer.folder(claim).join("life.json");
        let text = std::fs::read_to_string(&life).unwrap();
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        std::fs::write(&life, text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000")).unwrap();
        let found = peer.come_back().await;
        assert!(matches!(&found[..], [(found, TaskReport::Failed { reason })] if *found == claim && reason.contains("restarted")), "{found:?}");
        assert_eq!(peer.come_back().await, found, "and stay so");
    }
}

on_containers! {
    async fn a_shim_meets_other_versions(peer) {
        use std::io::{BufRead, BufReader, Write};
        let claim = peer.start(host(&["sleep", "60"]));
        peer.running(claim).await;
        let folder = peer.folder(claim);
        let said = tokio::task::spawn_blocking(move || {
            let mut stream = std::os::unix::net::UnixStream::connect(folder.join("control.sock")).unwrap();
            stream.write_all(b"{\"verb\":\"hello\",\"version\":9,\"new\":true}\n{\"verb\":\"exec\",\"command\":[\"sh\"]}\nrubbish\n").unwrap();
            stream.write_all(b"{\"verb\":\"kill\",\"signal\":9000}\n{\"verb\":\"status\"}\n").unwrap();
            BufReader::new(stream).lines().take(5).map(Result::unwrap).collect::<Vec<_>>()
        }).await.unwrap();
        assert_eq!(said[0], r#"{"answer":"hello","version":1}"#);
        assert!(said[1..4].iter().all(|line| line.contains("refused")), "{said:?}");
        assert!(said[4].contains("running"), "{said:?}");
    }
}

on_containers! {
    async fn many_tasks_at_once(peer) {
        let claims: Vec<_> = (0..24).map(|number| peer.start(script(&format!("echo {number}; exit {number}")))).collect();
        let mut codes = std::collections::BTreeMap::new();
        while codes.len() < claims.len() {
            if let Told::Task { claim, report } = peer.told().await
                && has_ended(&report)
            {
                codes.insert(claim, report);
            }
        }
        for (number, claim) in claims.iter().enumerate() {
            assert!(exited(number as i32)(&codes[claim]), "{:?}", codes[claim]);
            assert_eq!(peer.output(*claim).await, format!("{number}\n"));
        }
    }
}
