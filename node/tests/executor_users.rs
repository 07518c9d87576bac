//! Tasks whose users are nobody on the machine (`userns-remap`), in real containers. Needs root; says so and passes
//! where it is not.

mod executor_support;
mod images_support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::sync::Arc;

use executor_support::session::{Session, command, exec, with, words};
use executor_support::*;
use futures::future::BoxFuture;
use images_support::*;
use rialto_node::executor::images::Naming;
use rialto_node::executor::userns::Remap;
use rialto_node::executor::{Provisions, Unseal};
use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::{ClaimId, VolumeId};
use rialto_protocol::model::container::{DeviceFile, Tmpfs, Ulimit};
use rialto_protocol::model::health::{HealthCheck, HealthTest};
use rialto_protocol::model::volume::{Bind, Content, FileMount, Mounts, Named, VolumeMount};
use rialto_protocol::model::{Container, Health, TaskSpec};
use rialto_protocol::session::{Exec, Frame, Open, Size};
use serde_json::json;

const FIRST: u32 = 300_000;
const REMAP: Remap = Remap { first: FIRST, count: 65_536 };

struct Keeper;

impl Unseal for Keeper {
    fn unseal(&self, _: &str) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        Box::pin(async { Ok(b"sealed".to_vec()) })
    }
}

fn allowing(allows: &[String]) -> Provisions {
    Provisions { allows: allows.to_vec(), secrets: Some(Arc::new(Keeper)), ..Provisions::default() }
}

/// What the machine says of a task's first process.
fn status(peer: &Peer, claim: ClaimId, field: &str) -> String {
    let life = fs::read(peer.folder(claim).join("life.json")).unwrap();
    let life: serde_json::Value = serde_json::from_slice(&life).unwrap();
    let status = fs::read_to_string(format!("/proc/{}/status", life["init"]["pid"])).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// An image with a shell, and a folder of somebody who is not root.
fn image(peer: &Peer) {
    let busybox = fs::read("/bin/busybox").unwrap();
    let mut layer = Layer::new()
        .dir("bin")
        .entry(tar::EntryType::Regular, "bin/busybox", 0o755, 0, &busybox, None)
        .dir("etc")
        .file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\nweb:x:1000:1000:web:/:/bin/sh\n")
        .dir("var")
        .entry(tar::EntryType::Directory, "var/db", 0o750, 1000, b"", None)
        .entry(tar::EntryType::Regular, "var/db/seed", 0o640, 1000, b"seed", None);
    for name in ["sh", "cat", "ls", "stat", "id", "sleep", "test", "touch", "chown", "rm"] {
        layer = layer.link(&format!("bin/{name}"), "busybox");
    }
    let layout = Layout::new().image(&[layer.done()], json!({"Env": ["PATH=/bin"]}));
    peer.images().import_folder(Naming::As("own"), layout.path()).unwrap();
}

fn sh(text: &str) -> TaskSpec {
    of_image("own", &["sh", "-c", text])
}

fn mounting(mut spec: TaskSpec, mounts: Mounts) -> TaskSpec {
    let names = mounts.names(&spec.task.app).map(|(name, _)| name);
    spec.volumes = names.enumerate().map(|(number, name)| (name, VolumeId([number as u8 + 1; 16]))).collect();
    spec.container.mounts = mounts;
    spec
}

fn data(path: &str) -> Mounts {
    let name = Some(Named::Own("data".into()));
    let volume = VolumeMount { path: path.into(), name, read_only: false, no_copy: false };
    Mounts { volumes: vec![volume], ..Mounts::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tasks_root_is_nobody_on_the_machine() {
    if !containers_run() || !Path::new("/bin/busybox").exists() {
        return;
    }
    let mut peer = Peer::remapping(REMAP, Provisions::default()).await;
    image(&peer);
    let text = "id -u; stat -c %u:%g / /bin/sh /var/db /var/db/seed /proc/1 /dev /dev/null /sys
                touch /new /var/db/new && chown 1000 /var/db/new && stat -c %u /new /var/db/new
                echo heard > /dev/stdout; echo ready; exec sleep 600";
    let claim = peer.start(sh(text));
    peer.line(claim, "ready").await;
    let said = peer.output(claim).await;
    let nobody = "65534:65534";
    let wanted = format!("0\n0:0\n0:0\n1000:1000\n1000:1000\n0:0\n0:0\n{nobody}\n{nobody}\n0\n1000\nheard\nready\n");
    assert_eq!(said, wanted);
    assert_eq!(status(&peer, claim, "Uid:"), [(); 4].map(|()| FIRST.to_string()).join(" "));
    assert_eq!(fs::metadata(peer.folder(claim).join("upper/new")).unwrap().uid(), FIRST);
    // Whoever enters is one of its users, too.
    let outcome =
        exec(&peer, claim, &["sh", "-c", "id -u; cat /var/db/seed; echo x > /by-exec; echo > /dev/stdout"]).await;
    assert_eq!((outcome.code, outcome.output.as_str(), outcome.errors.as_str()), (Some(0), "0\nseed\n", ""));
    assert_eq!(fs::metadata(peer.folder(claim).join("upper/by-exec")).unwrap().uid(), FIRST);
    let as_web = Exec { user: Some("web".into()), ..command(&["sh", "-c", "id -u; cat /var/db/seed; touch /no"]) };
    let outcome = Session::open(&peer, claim, Open::Exec(as_web)).await.end().await;
    assert_eq!((outcome.code, outcome.output.as_str()), (Some(1), "1000\nseed"));
    let size = Size { rows: 24, columns: 80 };
    let on_terminal = Exec { terminal: Some(size), ..command(&["sh", "-c", "test -t 0 && echo yes > /dev/tty"]) };
    let outcome = Session::open(&peer, claim, Open::Exec(on_terminal)).await.end().await;
    assert_eq!((outcome.code, outcome.output.as_str()), (Some(0), "yes\r\n"), "{}", outcome.errors);
    // What is copied in is its root's, and what is copied out has the owners that it knows.
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o640);
    header.set_uid(7);
    header.set_gid(7);
    header.set_mtime(0);
    header.set_size(1);
    builder.append_data(&mut header, "copied", &b"x"[..]).unwrap();
    let mut session = Session::open(&peer, claim, Open::Write { path: "/var/db".into(), kept: false }).await;
    session.say(&Frame::Input(builder.into_inner().unwrap())).await;
    session.say(&Frame::InputEnd).await;
    let outcome = session.end().await;
    assert_eq!((outcome.code, outcome.failed), (Some(0), None));
    let outcome = Session::open(&peer, claim, Open::Read { path: "/var/db".into() }).await.end().await;
    let mut archive = tar::Archive::new(&outcome.archive[..]);
    let owners: BTreeMap<String, u64> = (archive.entries().unwrap().map(Result::unwrap))
        .map(|entry| (entry.path().unwrap().display().to_string(), entry.header().uid().unwrap()))
        .collect();
    let wanted = [("db", 1000), ("db/copied", 0), ("db/new", 1000), ("db/seed", 1000)];
    assert_eq!(owners, wanted.map(|(name, uid)| (name.to_string(), uid)).into());
    // One that was started with users of its own keeps them, whatever the setting is by then.
    peer.remap(None);
    peer.come_back().await;
    assert_eq!(exec(&peer, claim, &["id", "-u"]).await.output, "0\n");
    assert_eq!(peer.run(sh("cat /proc/self/uid_map")).await.1.split_whitespace().next_back(), Some("4294967295"));
    peer.stop(claim, 0);
    peer.ended(claim).await;
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_keep_the_numbers_that_tasks_know() {
    if !containers_run() || !Path::new("/bin/busybox").exists() {
        return;
    }
    let mut peer = Peer::remapping(REMAP, Provisions::default()).await;
    image(&peer);
    let look = "cd /var/db && stat -c %n:%u * && cat seed && touch by-root && chown 1000 by-root && stat -c %u .";
    let wanted = "seed:1000\nseed1000\n";
    assert_eq!(peer.run(mounting(sh(look), data("/var/db"))).await, (0, wanted.into()));
    let lies = peer.data.path().join("volumes").join(VolumeId([1; 16]).hex()).join("data");
    for (name, uid, mode) in [("seed", 1000, 0o640), ("by-root", 1000, 0o644), (".", 1000, 0o750)] {
        let found = fs::metadata(lies.join(name)).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (uid, mode), "{name}");
    }
    let web = |text: &str| with(mounting(sh(text), data("/var/db")), |c| c.user = Some("web".into()));
    assert_eq!(
        peer.run(web("cd /var/db && cat seed && touch by-web && stat -c %u by-web")).await,
        (0, "seed1000\n".into())
    );
    // The setting goes, and comes back with other users: the same data, and nobody wrote anything anew.
    for remap in [None, Some(Remap { first: 500_000, ..REMAP })] {
        peer.remap(remap);
        peer.come_back().await;
        let said = peer.run(web("cd /var/db && stat -c %n:%u * && echo again > by-web")).await;
        assert_eq!(said, (0, "by-root:1000\nby-web:1000\nseed:1000\n".into()), "{remap:?}");
    }
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_machines_root_has_is_out_of_reach() {
    if !containers_run() {
        return;
    }
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, mode) in [("closed", 0o600), ("open", 0o644), ("given", 0o600)] {
        fs::write(at(name), name).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    chown(at("given"), Some(FIRST), Some(FIRST)).unwrap();
    let mut peer = Peer::remapping(REMAP, allowing(&[format!("bind={}*", folder.path().display())])).await;
    let bind = |host: &Path, path: &str| Bind {
        host: host.display().to_string(),
        path: path.into(),
        read_only: false,
        create: true,
    };
    let binds = vec![bind(folder.path(), "/m"), bind(&at("made/new"), "/new")];
    let text = "cd /m; cat open given; echo; cat closed; echo x > open; chown 0 open; touch more; echo x > given; \
                touch /new/file && echo made; cat /etc/passwd > /dev/null && stat -c %u /usr/bin /etc/passwd";
    let (code, said) = peer.run(mounting(script(text), Mounts { binds, ..Mounts::default() })).await;
    let own: Vec<&str> =
        said.lines().filter(|line| !line.contains("denied") && !line.contains("not permitted")).collect();
    assert_eq!((code, own), (0, vec!["opengiven", "made", "65534", "0"]), "{said}");
    let refused = said.lines().filter(|line| line.contains("denied") || line.contains("not permitted")).count();
    assert_eq!(refused, 4, "{said}");
    assert_eq!(fs::read_to_string(at("open")).unwrap() + &fs::read_to_string(at("given")).unwrap(), "openx\n");
    assert_eq!(fs::metadata(at("made/new/file")).unwrap().uid(), FIRST);
    assert!(!at("more").exists());
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_service_asks_for_works_or_is_refused() {
    if !containers_run() {
        return;
    }
    let node = Path::new("/dev").join(format!("rialto-test-users-{}", std::process::id()));
    let mode = nix::sys::stat::Mode::from_bits_truncate(0o600);
    nix::sys::stat::mknod(&node, nix::sys::stat::SFlag::S_IFCHR, mode, nix::sys::stat::makedev(1, 5)).unwrap();
    let mut peer = Peer::remapping(REMAP, allowing(&[])).await;
    let limit = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap().1;
    type Change<'a> = Box<dyn Fn(&mut Container) + 'a>;
    let device = |access: &str| DeviceFile {
        host: node.display().to_string(),
        container: "/dev/own".into(),
        access: access.into(),
    };
    let file = |path: &str, content: Content| FileMount { path: path.into(), content, uid: 33, gid: 33, mode: 0o400 };
    let works: Vec<(&str, Change<'_>, &str)> = vec![
        ("id -u; id -G", Box::new(|c| (c.user, c.group_add) = (Some("1000:7".into()), words(&["adm"]))), "1000\n7 4\n"),
        (
            "stat -c %u:%a /run/x /dev/shm; touch /run/x/y && stat -c %u /run/x/y",
            Box::new(|c| c.tmpfs = vec![Tmpfs { path: "/run/x".into(), bytes: Some(1 << 20), mode: Some(0o711) }]),
            "0:711\n0:1777\n0\n",
        ),
        ("touch /x 2>/dev/null || echo no", Box::new(|c| c.read_only = true), "no\n"),
        (
            "ulimit -n; ulimit -Hn",
            Box::new(|c| {
                c.ulimits.insert("nofile".into(), Ulimit { soft: 100, hard: limit });
            }),
            "100\nHARD\n",
        ),
        (
            "cat /proc/sys/kernel/msgmax",
            Box::new(|c| drop(c.sysctls.insert("kernel.msgmax".into(), "4096".into()))),
            "4096\n",
        ),
        (
            "stat -c '%u %t %T' /dev/own; head -c1 /dev/own | wc -c",
            Box::new(|c| c.devices = vec![device("r")]),
            "0 1 5\n1\n",
        ),
        (
            "cat /conf /run/secrets/key; stat -c %u:%a /conf /run/secrets/key; id -u",
            Box::new(|c| {
                let sealed = file("/run/secrets/key", Content::Sealed(Named::Own("key".into())));
                c.mounts.files = vec![file("/conf", Content::Text("text ".into())), sealed];
                c.user = Some("33".into());
            }),
            "text sealed33:400\n33:400\n33\n",
        ),
        ("cat /proc/1/comm", Box::new(|c| c.init = true), "init\n"),
        ("test -t 1 && echo yes > /dev/tty", Box::new(|c| c.tty = true), "yes\n"),
        ("mkdir /tmp/m && mount -t tmpfs none /tmp/m 2>/dev/null || echo refused", Box::new(|_| {}), "refused\n"),
        ("grep CapEff /proc/self/status", Box::new(|c| c.cap_drop = words(&["ALL"])), "CapEff:\t0000000000000000\n"),
    ];
    for (text, change, wanted) in &works {
        let (_, said) = peer.run(with(script(text), |container| change(container))).await;
        assert_eq!(said.replace('\r', ""), wanted.replace("HARD", &limit.to_string()), "{text}");
    }
    let refused: Vec<(Change<'_>, &str)> = vec![
        (Box::new(|c| c.privileged = true), "privileged"),
        (Box::new(|c| c.cap_add = words(&["SYS_TIME"])), "SYS_TIME"),
        (Box::new(|c| c.user = Some("70000".into())), "70000"),
        (Box::new(|c| c.group_add = words(&["70000"])), "70000"),
        (
            Box::new(|c| {
                c.mounts.files = vec![FileMount { uid: 70_000, ..file("/conf", Content::Text(String::new())) }]
            }),
            "70000",
        ),
        (Box::new(|c| drop(c.sysctls.insert("net.core.somaxconn".into(), "1".into()))), "net.core.somaxconn"),
    ];
    for (change, wanted) in &refused {
        let claim = peer.start(with(script("true"), |container| change(container)));
        let report = peer.ended(claim).await;
        assert!(matches!(&report, TaskReport::Failed { reason } if reason.contains(wanted)), "{wanted}: {report:?}");
    }
    let check = HealthCheck {
        test: Some(HealthTest::Command(words(&["sh", "-c", "test $(id -u) = 0 && test -e /tmp/well"]))),
        interval_ms: Some(50),
        ..HealthCheck::default()
    };
    let claim = peer.start(with(script("touch /tmp/well; exec sleep 600"), |c| c.health = Some(check.clone())));
    peer.until(claim, |report| matches!(report, TaskReport::Running { health: Health::Healthy, .. })).await;
    peer.stop(claim, 0);
    peer.ended(claim).await;
    fs::remove_file(&node).unwrap();
    peer.close().await;
}
