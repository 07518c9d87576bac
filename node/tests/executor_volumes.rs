//! Volumes, folders of the machine, configs, secrets and devices in real containers; and what is hard on a machine.

mod executor_support;
mod images_support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use executor_support::*;
use futures::future::BoxFuture;
use images_support::*;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rialto_node::executor::images::Naming;
use rialto_node::executor::{Provisions, Unseal};
use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::VolumeId;
use rialto_protocol::model::container::Tmpfs;
use rialto_protocol::model::volume::{Bind, Content, FileMount, Mounts, Named, VolumeMount};
use rialto_protocol::model::{Resources, TaskSpec};
use rialto_protocol::session::{Decoder, Frame, Open};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

const SECRET: &str = "no-task-but-one-may-see-this";

struct Keeper;

impl Unseal for Keeper {
    fn unseal(&self, name: &str) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        let known = (name == "test/key").then(|| SECRET.as_bytes().to_vec());
        Box::pin(async move { known.ok_or_else(|| "it is not set".into()) })
    }
}

fn volume(name: &str, path: &str) -> VolumeMount {
    VolumeMount { path: path.into(), name: Some(Named::Own(name.into())), read_only: false, no_copy: false }
}

fn mounting(mut spec: TaskSpec, mounts: Mounts) -> TaskSpec {
    let names = mounts.names(&spec.task.app).map(|(name, _)| name);
    spec.volumes = names.enumerate().map(|(number, name)| (name, VolumeId([number as u8 + 1; 16]))).collect();
    spec.container.mounts = mounts;
    spec
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_outlives_its_tasks_and_is_shared_by_them() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    let with = |text: &str, read_only: bool| {
        let volumes = vec![VolumeMount { read_only, ..volume("data", "/srv/data") }];
        mounting(script(text), Mounts { volumes, ..Mounts::default() })
    };
    let (code, said) = peer.run(with("echo one > /srv/data/file; stat -c %a /srv/data", false)).await;
    assert_eq!((code, said.as_str()), (0, "755\n"));
    let waits = peer.start(with("until test -e /srv/data/go; do sleep 0.05; done; cat /srv/data/file", false));
    peer.running(waits).await;
    let (code, said) = peer.run(with("cat /srv/data/file; touch /srv/data/go", false)).await;
    assert_eq!((code, said.as_str()), (0, "one\n"));
    assert!(matches!(peer.ended(waits).await, TaskReport::Exited { exit_code: 0, .. }));
    let (code, said) = peer.run(with("cat /srv/data/file; touch /srv/data/x 2>&1", true)).await;
    assert!(code != 0 && said.contains("one") && said.contains("Read-only"), "{code} {said}");
    let lies = peer.data.path().join("volumes").join(VolumeId([1; 16]).hex());
    assert_eq!(fs::read_to_string(lies.join("data/file")).unwrap(), "one\n");
    assert_eq!(fs::read_to_string(lies.join("name")).unwrap(), "test/data\n");

    // Without a name it ends with the task, and memory is memory.
    let volumes = vec![VolumeMount { name: None, ..volume("", "/srv/own") }];
    let mut spec = mounting(
        script("echo x > /srv/own/file; echo y > /srv/fast/file; grep -c ' /srv/fast tmpfs .*size=1024k' /proc/mounts"),
        Mounts { volumes, ..Mounts::default() },
    );
    spec.container.tmpfs = vec![Tmpfs { path: "/srv/fast".into(), bytes: Some(1 << 20), mode: None }];
    let claim = peer.start(spec);
    assert!(matches!(peer.ended(claim).await, TaskReport::Exited { exit_code: 0, .. }), "{}", peer.output(claim).await);
    peer.shim_gone(claim).await;
    assert!(!peer.folder(claim).join("volumes").exists());
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_volume_begins_with_what_its_image_has() {
    if !containers_run() || !Path::new("/bin/busybox").exists() {
        return;
    }
    let mut peer = Peer::new().await;
    let busybox = fs::read("/bin/busybox").unwrap();
    let mut layer = Layer::new()
        .dir("bin")
        .entry(tar::EntryType::Regular, "bin/busybox", 0o755, 0, &busybox, None)
        .dir("var")
        .dir("var/db")
        .entry(tar::EntryType::Regular, "var/db/seed", 0o640, 1000, b"seed", None)
        .dir("cache")
        .file("cache/warm", b"warm");
    for name in ["sh", "cat", "ls", "stat", "grep"] {
        layer = layer.link(&format!("bin/{name}"), "busybox");
    }
    let config = json!({"Env": ["PATH=/bin"], "Volumes": {"/cache": {}}});
    let layout = Layout::new().image(&[layer.done()], config);
    peer.images().import_folder(Naming::As("db"), layout.path()).unwrap();
    let run = |no_copy: bool, name: &str| {
        let volumes = vec![VolumeMount { no_copy, ..volume(name, "/var/db") }];
        let text = "ls /var/db; cat /cache/warm; grep -c ' /cache ' /proc/mounts; echo; echo >> /var/db/new";
        mounting(of_image("db", &["sh", "-c", text]), Mounts { volumes, ..Mounts::default() })
    };
    assert_eq!(peer.run(run(false, "data")).await, (0, "seed\nwarm1\n\n".into()));
    assert_eq!(peer.run(run(false, "data")).await, (0, "new\nseed\nwarm1\n\n".into()));
    let mut empty = run(true, "empty");
    empty.volumes.values_mut().for_each(|id| *id = VolumeId([9; 16]));
    assert_eq!(peer.run(empty).await, (0, "warm1\n\n".into()));
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_of_the_machine_are_shown_where_it_allows_them() {
    if !containers_run() {
        return;
    }
    let shown = tempfile::tempdir().unwrap();
    let root = shown.path().canonicalize().unwrap();
    fs::write(root.join("file"), "of the machine\n").unwrap();
    symlink("/etc", root.join("link")).unwrap();
    let allows = vec![format!("bind={}*", root.display())];
    let mut peer = Peer::providing(Provisions { allows, ..Provisions::default() }).await;
    let with = |host: &Path, read_only: bool| {
        let bind = Bind { host: host.display().to_string(), path: "/srv/here".into(), read_only, create: true };
        let text = "cat /srv/here/file; echo new > /srv/here/made";
        mounting(script(text), Mounts { binds: vec![bind], ..Mounts::default() })
    };
    assert_eq!(peer.run(with(&root, false)).await, (0, "of the machine\n".into()));
    assert_eq!(fs::read_to_string(root.join("made")).unwrap(), "new\n");
    assert_ne!(peer.run(with(&root, true)).await.0, 0);
    for hidden in [root.join("link"), "/etc".into()] {
        let claim = peer.start(with(&hidden, false));
        match peer.ended(claim).await {
            TaskReport::Failed { reason } => assert!(reason.contains("allow"), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    peer.close().await;
}

/// Something mounted for a test, on this machine.
struct Mount(std::path::PathBuf);

impl Mount {
    fn tmpfs(at: std::path::PathBuf, size: &str) -> Self {
        fs::create_dir_all(&at).unwrap();
        let options = format!("size={size}");
        mount(Some("tmpfs"), &at, Some("tmpfs"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self(at)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_mounted_below_a_folder_is_as_read_only_as_the_folder() {
    if !containers_run() {
        return;
    }
    let shown = tempfile::tempdir().unwrap();
    let root = shown.path().canonicalize().unwrap();
    let below = Mount::tmpfs(root.join("disk"), "64k");
    fs::write(root.join("disk/file"), "below\n").unwrap();
    let allows = vec![format!("bind={}:ro", root.display()), format!("bind={}/disk", root.display())];
    let mut peer = Peer::providing(Provisions { allows, ..Provisions::default() }).await;
    let with = |host: &Path, read_only: bool, text: &str| {
        let bind = Bind { host: host.display().to_string(), path: "/srv/here".into(), read_only, create: false };
        mounting(script(text), Mounts { binds: vec![bind], ..Mounts::default() })
    };
    let text = "cat /srv/here/disk/file; echo x 2>&1 > /srv/here/disk/new || echo no";
    let (code, said) = peer.run(with(&root, true, text)).await;
    assert!(code == 0 && said.starts_with("below\n") && said.ends_with("no\n"), "{code} {said}");
    assert!(!root.join("disk/new").exists());
    // Where it may be written to it is, and what the machine unmounts stays as long as somebody has it.
    let claim = peer.start(with(&root.join("disk"), false, "echo x > /srv/here/new; echo up; sleep 60"));
    peer.line(claim, "up").await;
    assert!(root.join("disk/new").exists());
    peer.stop(claim, 0);
    peer.ended(claim).await;
    // The peer's own folder, which holds its key, is nobody's, whatever is allowed and by whichever way.
    drop(below);
    peer.close().await;
    let mut peer = Peer::providing(Provisions { allows: vec!["bind=/*".into()], ..Provisions::default() }).await;
    let data = peer.data.path().canonicalize().unwrap();
    let round = root.join("round");
    fs::create_dir(&round).unwrap();
    mount(Some(&data), &round, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let unmounted = Mount(round.clone());
    for host in [&data, &data.join("volumes"), &round, &round.join("volumes"), data.parent().unwrap(), Path::new("/")] {
        let claim = peer.start(with(host, true, "true"));
        match peer.ended(claim).await {
            TaskReport::Failed { reason } => assert!(reason.contains("the peer's own folder"), "{reason}"),
            other => panic!("{}: {other:?}", host.display()),
        }
    }
    drop(unmounted);
    peer.close().await;
}

/// A copy out of a volume, or into it.
struct Copy {
    stream: UnixStream,
    decoder: Decoder,
}

impl Copy {
    async fn open(peer: &Peer, open: Open) -> Self {
        let sessions = peer.executor().sessions().unwrap();
        let stream = sessions.copy_volume(VolumeId([1; 16]), "test/data", None).unwrap();
        let mut copy = Self { stream, decoder: Decoder::default() };
        copy.say(&Frame::Open(open)).await;
        copy
    }

    async fn say(&mut self, frame: &Frame) {
        self.stream.write_all(&frame.encode()).await.unwrap();
    }

    /// What came, and why it came to nothing, if it did.
    async fn end(mut self) -> (Vec<u8>, Option<String>) {
        let (mut archive, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        loop {
            match self.decoder.pull().unwrap() {
                Some(Frame::Output(bytes)) => archive.extend(bytes),
                Some(Frame::Ended(0)) => return (archive, None),
                Some(Frame::Failed(failed)) => return (archive, Some(failed.message)),
                Some(other) => panic!("{other:?}"),
                None => {
                    let count = self.stream.read(&mut buffer).await.unwrap();
                    assert!(count > 0, "it broke off");
                    self.decoder.push(&buffer[..count]);
                }
            }
        }
    }

    async fn restored(peer: &Peer, archive: &[u8]) -> Option<String> {
        let mut copy = Self::open(peer, Open::Write { path: "/".into(), kept: true }).await;
        for piece in archive.chunks(1 << 15) {
            copy.say(&Frame::Input(piece.to_vec())).await;
        }
        copy.say(&Frame::InputEnd).await;
        copy.end().await.1
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_is_restored_as_a_whole_or_not_at_all() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    let with =
        |text: &str| mounting(script(text), Mounts { volumes: vec![volume("data", "/srv")], ..Mounts::default() });
    let begin = "chown 33:34 /srv; chmod 2750 /srv; mkdir /srv/sub; echo one > /srv/sub/file; chmod 711 /srv/sub; \
                 chown 5:6 /srv/sub; ln -s sub/file /srv/link";
    assert_eq!(peer.run(with(begin)).await.0, 0);
    let (archive, failed) = Copy::open(&peer, Open::Read { path: "/".into() }).await.end().await;
    assert_eq!(failed, None);
    assert_eq!(
        peer.run(with("echo two > /srv/sub/file; echo > /srv/later; chown 0:0 /srv; chmod 700 /srv")).await.0,
        0
    );

    // What breaks off, is cut short or makes no sense changes nothing.
    let look = "cat /srv/link; test -e /srv/later; stat -c '%u:%g %a' /srv";
    let as_it_was = (0, "two\n0:0 2700\n".to_string());
    let cut = Copy::restored(&peer, &archive[..archive.len() - 1024]).await;
    assert!(cut.as_ref().is_some_and(|why| why.contains("cut short")), "{cut:?}");
    assert!(Copy::restored(&peer, b"no archive at all").await.is_some());
    assert!(Copy::restored(&peer, &[]).await.is_some());
    let mut gone = Copy::open(&peer, Open::Write { path: "/".into(), kept: true }).await;
    gone.say(&Frame::Input(archive[..2048].to_vec())).await;
    let beside = peer.data.path().join("volumes").join(VolumeId([1; 16]).hex()).join("restoring");
    let comes = async {
        while !beside.join("sub").exists() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), comes).await.expect("it is unpacked beside");
    let second = Copy::restored(&peer, &archive).await;
    assert!(second.as_ref().is_some_and(|why| why.contains("restored already")), "{second:?}");
    assert_eq!(peer.run(with(look)).await, as_it_was, "a task sees nothing of it");
    // One that has begun meanwhile keeps what it has.
    let waits = peer.start(with("echo up; until test -e /srv/go; do sleep 0.05; done; cat /srv/link"));
    peer.line(waits, "up").await;
    gone.say(&Frame::Input(archive[2048..].to_vec())).await;
    gone.say(&Frame::InputEnd).await;
    let late = gone.end().await.1;
    assert!(late.as_ref().is_some_and(|why| why.contains("in use by a task")), "{late:?}");
    let early = Copy::restored(&peer, &archive).await;
    assert!(early.as_ref().is_some_and(|why| why.contains("in use by a task")), "{early:?}");
    assert_eq!(peer.run(with("touch /srv/go")).await.0, 0);
    assert!(matches!(peer.ended(waits).await, TaskReport::Exited { exit_code: 0, .. }));
    assert_eq!(peer.output(waits).await, "up\ntwo\n");
    assert!(!beside.exists());

    // Then all of it is as it was, and nothing else is there.
    assert_eq!(Copy::restored(&peer, &archive).await, None);
    let all = "cat /srv/link; ls /srv; stat -c '%u:%g %a' /srv /srv/sub";
    assert_eq!(peer.run(with(all)).await, (0, "one\nlink\nsub\n33:34 2750\n5:6 2711\n".into()));
    assert!(!beside.exists());
    peer.close().await;
}

/// Gives a file an extended attribute.
fn attribute(path: &Path, name: &str, value: &[u8]) {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    let name = std::ffi::CString::new(name).unwrap();
    // SAFETY: both are C strings, and the value has the length that is given.
    let set = unsafe { nix::libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}

fn attribute_of(path: &Path, name: &str) -> Vec<u8> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).unwrap();
    let name = std::ffi::CString::new(name).unwrap();
    let mut value = vec![0; 256];
    // SAFETY: both are C strings, and the buffer has the length that is given.
    let read = unsafe { nix::libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    value.truncate(usize::try_from(read).unwrap_or(0));
    value
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_holds_all_that_a_file_is() {
    use std::os::unix::fs::MetadataExt;
    if !containers_run() {
        return;
    }
    // As setcap writes it for cap_net_bind_service=ep, with a line's end among its bytes.
    const RIGHTS: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, b'\n', 0, 0, 0, 0, 0, 0, 0];
    let mut peer = Peer::new().await;
    let with =
        |text: &str| mounting(script(text), Mounts { volumes: vec![volume("data", "/srv")], ..Mounts::default() });
    let long = "d".repeat(200);
    let make = format!(
        "cd /srv; echo one > a; ln a b; mkdir -p {long}; ln a {long}/{long}; mkfifo -m 620 pipe; chown 5:6 pipe; \
         truncate -s 40M hole; printf end >> hole; cp /bin/true tool; chmod 4755 tool; ln -s a soft; ln soft soft2"
    );
    assert_eq!(peer.run(with(&make)).await, (0, String::new()));
    let lies = peer.data.path().join("volumes").join(VolumeId([1; 16]).hex()).join("data");
    attribute(&lies.join("a"), "user.line", b"one\ntwo");
    attribute(&lies.join(&long), "user.folder", b"yes");
    attribute(&lies.join("tool"), "security.capability", RIGHTS);
    let (archive, failed) = Copy::open(&peer, Open::Read { path: "/".into() }).await.end().await;
    assert_eq!(failed, None);
    assert_eq!(peer.run(with("rm -r /srv/*")).await.0, 0);
    assert_eq!(Copy::restored(&peer, &archive).await, None);

    let of = |name: &str| fs::symlink_metadata(lies.join(name)).unwrap();
    let other = format!("{long}/{long}");
    assert_eq!((of("a").nlink(), of("a").ino(), of("a").ino()), (3, of("b").ino(), of(&other).ino()));
    assert_eq!((of("soft").is_symlink(), of("soft").ino()), (true, of("soft2").ino()));
    assert_eq!((of("pipe").mode(), of("pipe").uid(), of("pipe").gid()), (0o010_620, 5, 6));
    assert_eq!(of("hole").len(), (40 << 20) + 3);
    assert!(of("hole").blocks() * 512 < 1 << 20, "{} blocks", of("hole").blocks());
    assert_eq!(of("tool").mode() & 0o7777, 0o4755);
    assert_eq!(attribute_of(&lies.join("b"), "user.line"), b"one\ntwo");
    assert_eq!(attribute_of(&lies.join(&long), "user.folder"), b"yes");
    assert_eq!(attribute_of(&lies.join("tool"), "security.capability"), RIGHTS);
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_ends_neither_peer_nor_task() {
    if !containers_run() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let _disk = Mount::tmpfs(place.path().join("disk"), "32m");
    let mut peer = Peer::within(&place.path().join("disk")).await;
    let with =
        |text: &str| mounting(script(text), Mounts { volumes: vec![volume("data", "/srv")], ..Mounts::default() });
    assert_eq!(peer.run(with("echo kept > /srv/kept")).await.0, 0);
    let (archive, _) = Copy::open(&peer, Open::Read { path: "/".into() }).await.end().await;
    // One that writes all the time: before, meanwhile and afterwards.
    let line = "x".repeat(1000);
    let chatter = peer.start(script(&format!(
        "n=0; while :; do n=$((n + 1)); echo $n {line}; [ $((n % 5)) = 0 ] && sleep 0.01; done"
    )));
    peer.line(chatter, "100 xxx").await;
    let (code, said) = peer.run(with("dd if=/dev/zero of=/srv/full bs=64k 2>/dev/null; exit $(($? + 2))")).await;
    assert_eq!((code, said.as_str()), (3, ""), "it ends like any program");
    // Nothing new begins, and that is said; what runs goes on, also when the daemon comes back.
    let refused = peer.start(script("true"));
    let report = peer.ended(refused).await;
    assert!(matches!(&report, TaskReport::Failed { reason } if reason.contains("No space left")), "{report:?}");
    peer.come_back().await;
    let sessions = peer.executor().sessions().unwrap();
    let (bytes, files, _) = sessions.measure_volume(VolumeId([1; 16])).await.unwrap();
    assert!(bytes > 8 << 20 && files == 2, "{bytes} {files}");
    let (whole, failed) = Copy::open(&peer, Open::Read { path: "/".into() }).await.end().await;
    assert!(failed.is_none() && whole.len() as u64 > 8 << 20, "{failed:?}");
    let failed = Copy::restored(&peer, &whole).await;
    assert!(failed.as_ref().is_some_and(|why| why.contains("no space left")), "{failed:?}");
    let lies = peer.data.path().join("volumes").join(VolumeId([1; 16]).hex());
    assert_eq!(fs::read_to_string(lies.join("data/kept")).unwrap(), "kept\n");
    assert!(!lies.join("restoring").exists());
    // With room everything is as before.
    fs::remove_file(lies.join("data/full")).unwrap();
    assert_eq!(Copy::restored(&peer, &archive).await, None);
    assert_eq!(peer.run(with("cat /srv/*")).await, (0, "kept\n".into()));
    let lines = |text: &str| text.lines().last().and_then(|line| line.split(' ').next()?.parse::<u64>().ok());
    let before = lines(&peer.output(chatter).await).unwrap();
    tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while lines(&peer.output(chatter).await).is_none_or(|now| now <= before) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("its log goes on");
    for text in peer.output(chatter).await.lines().rev().skip(1).take(1000) {
        assert!(text.split_once(' ').is_some_and(|(_, rest)| rest == line), "{text:?}");
    }
    peer.stop(chatter, 0);
    peer.ended(chatter).await;
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_come_along_and_secrets_touch_no_disk() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::providing(Provisions { secrets: Some(Arc::new(Keeper)), ..Provisions::default() }).await;
    let file = |path: &str, content, uid, mode| FileMount { path: path.into(), content, uid, gid: 7, mode };
    let files = |secret: &str| {
        let sealed = Content::Sealed(Named::Own(secret.into()));
        vec![
            file("/etc2/app.conf", Content::Text("port=1\n".into()), 0, 0o444),
            file("/run/secrets/key", sealed, 33, 0o400),
        ]
    };
    let text = "cat /etc2/app.conf; stat -c '%u %g %a' /run/secrets/key; stat -f -c %T /run/secrets/key; \
                cat /run/secrets/key >&2; echo; sleep 60";
    let claim = peer.start(mounting(script(text), Mounts { files: files("key"), ..Mounts::default() }));
    peer.line(claim, "tmpfs").await;
    let said = peer.executor().logs().unwrap().read(claim, None).await.unwrap();
    let stdout = text_of(&said, rialto_node::executor::logs::Stream::Stdout);
    assert!(stdout.starts_with("port=1\n33 7 400\ntmpfs\n"), "{stdout}");
    // It printed the secret itself: nothing but its log has it.
    let found = holding(peer.data.path(), SECRET);
    assert!(found.iter().all(|path| path.to_string_lossy().contains("log")), "{found:?}");
    peer.stop(claim, 0);
    peer.ended(claim).await;

    let quiet = script("wc -c < /run/secrets/key; sleep 60");
    let claim = peer.start(mounting(quiet, Mounts { files: files("key"), ..Mounts::default() }));
    peer.line(claim, &SECRET.len().to_string()).await;
    let found: Vec<_> = holding(peer.data.path(), SECRET);
    assert!(found.iter().all(|path| !path.to_string_lossy().contains(&claim.hex())), "{found:?}");
    peer.stop(claim, 0);
    peer.ended(claim).await;

    let claim = peer.start(mounting(script("true"), Mounts { files: files("other"), ..Mounts::default() }));
    match peer.ended(claim).await {
        TaskReport::Failed { reason } => assert!(reason.contains("test/other"), "{reason}"),
        other => panic!("{other:?}"),
    }
    peer.close().await;
}

/// The files below a folder that hold a text.
fn holding(folder: &Path, text: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(holding(&entry.path(), text));
        } else if kind.is_file()
            && fs::read(entry.path()).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes()))
        {
            found.push(entry.path());
        }
    }
    found
}

/// Plain device nodes, each another `/dev/zero`.
struct Nodes(Vec<std::path::PathBuf>);

impl Nodes {
    fn make(count: usize) -> Self {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        let path = |number| format!("/dev/rialto-test-{}-{number}", std::process::id()).into();
        let nodes = Self((0..count).map(path).collect());
        for node in &nodes.0 {
            mknod(node, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 5)).unwrap();
        }
        nodes
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.0.iter().for_each(|node| drop(fs::remove_file(node)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_claims_a_device_has_it_alone() {
    if !containers_run() {
        return;
    }
    let nodes = Nodes::make(4);
    let [first_unit, second_unit, shared, gpu] = [0, 1, 2, 3].map(|number| nodes.0[number].display().to_string());
    let text = format!(
        "[wire]\nunits = [['{first_unit}'], ['{second_unit}']]\nshared = ['{shared}']\n[gpu]\nunits = [['{gpu}']]\n"
    );
    let devices = toml::from_str(&text).unwrap();
    let mut peer = Peer::providing(Provisions { devices, ..Provisions::default() }).await;
    let claiming = |text: &str, takes: &[(&str, u64)]| {
        let takes = takes.iter().map(|(name, amount)| (name.to_string(), *amount)).collect::<BTreeMap<_, _>>();
        TaskSpec { takes, ..script(text) }
    };
    let first = peer.start(claiming("echo has $RIALTO_WIRE; sleep 60", &[("wire", 1)]));
    peer.line(first, "has 0").await;
    let text = format!(
        "echo has $RIALTO_WIRE; head -c 4 {second_unit} | wc -c; test -c {gpu} -a -c {shared} -a ! -e {first_unit}"
    );
    assert_eq!(peer.run(claiming(&text, &[("wire", 1), ("gpu_milli:0", 1000)])).await, (0, "has 1\n4\n".into()));
    let too_many = peer.start(claiming("true", &[("wire", 2)]));
    assert!(matches!(peer.ended(too_many).await, TaskReport::Failed { .. }));
    // A daemon that comes back knows who has what.
    peer.come_back().await;
    let second = peer.start(claiming("echo has $RIALTO_WIRE; sleep 60", &[("wire", 1)]));
    peer.line(second, "has 1").await;
    for claim in [first, second] {
        peer.stop(claim, 0);
        peer.ended(claim).await;
    }
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_bomb_stays_in_its_container() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    let mut limits = Resources::default();
    limits.set("pids", 64);
    let bomb = TaskSpec { limits, ..script("echo armed; b() { b | b & }; b 2>/dev/null; while :; do sleep 1; done") };
    let claim = peer.start(bomb);
    peer.line(claim, "armed").await;
    // Its neighbours start and end as ever, and it is stopped as any other.
    assert_eq!(peer.run(script("echo well")).await, (0, "well\n".into()));
    let pids = peer.cgroup_file(claim, "pids", "pids.current");
    if let Ok(count) = fs::read_to_string(&pids) {
        assert!(count.trim().parse::<u64>().unwrap() <= 64, "{count}");
    }
    peer.stop(claim, 500);
    assert!(has_ended(&peer.ended(claim).await));
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_lines_a_second_are_kept_up_with() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    const LINES: usize = 20_000;
    let text = format!("i=0; while [ $i -lt 20 ]; do seq {} ; sleep 0.1; i=$((i+1)); done; echo last", LINES / 20);
    let claim = peer.start(script(&text));
    // Meanwhile others are not held up by it.
    assert_eq!(peer.run(script("echo well")).await, (0, "well\n".into()));
    assert!(matches!(peer.ended(claim).await, TaskReport::Exited { exit_code: 0, .. }));
    let said = peer.output(claim).await;
    assert_eq!((said.lines().count(), said.lines().last()), (LINES + 1, Some("last")));
    peer.close().await;
}
