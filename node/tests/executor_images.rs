//! Images: an OCI layout made here of the machine's static busybox, good ones and hostile ones.

mod executor_support;
mod images_support;

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use executor_support::*;
use futures::future::BoxFuture;
use images_support::*;
use rialto_node::executor::images::{Bytes, Fetch, Images, Naming};
use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::PeerId;
use serde_json::json;

const BUSYBOX: &str = "/bin/busybox";

fn busybox() -> Vec<u8> {
    let bytes = fs::read(BUSYBOX).unwrap();
    let mut layer = Layer::new()
        .dir("bin")
        .entry(tar::EntryType::Regular, "bin/busybox", 0o755, 0, &bytes, None)
        .dir("etc")
        .file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/srv:/bin/sh\n")
        .file("etc/group", b"root:x:0:\nweb:x:1001:\nlogs:x:1002:web\n")
        .dir("opt")
        .dir("opt/gone")
        .file("opt/gone/file", b"x")
        .file("opt/removed", b"x")
        .file("opt/replaced", b"old");
    for name in ["sh", "cat", "ls", "id", "env", "stat", "echo", "pwd", "sleep", "touch", "readlink"] {
        layer = layer.link(&format!("bin/{name}"), "busybox");
    }
    layer.done()
}

fn layers() -> Vec<Vec<u8>> {
    let second = Layer::new()
        .file("opt/.wh.removed", b"")
        .file("opt/replaced", b"new")
        .dir("opt/gone")
        .file("opt/gone/.wh..wh..opq", b"")
        .file("opt/gone/other", b"y")
        .done();
    let third = Layer::new()
        .entry(tar::EntryType::Regular, "srv/owned", 0o640, 1000, b"owned", None)
        .hard_link("srv/same", "srv/owned")
        .link("srv/link", "/opt/replaced")
        .done();
    vec![busybox(), second, third]
}

fn has_busybox() -> bool {
    let has = Path::new(BUSYBOX).exists();
    if !has {
        eprintln!("skipped: there is no {BUSYBOX} (package busybox-static)");
    }
    has
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_image_runs_as_it_says() {
    if !containers_run() || !has_busybox() {
        return;
    }
    let mut peer = Peer::new().await;
    let layout = Layout::new().image(
        &layers(),
        json!({"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo default $WHO; pwd; id"], "Env": ["WHO=image", "PATH=/bin"],
               "WorkingDir": "/srv/data/new", "User": "web"}),
    );
    let info = peer.images().import_folder(Naming::As("busy/box:1"), layout.path()).unwrap();
    assert_eq!(peer.images().list(), std::slice::from_ref(&info));
    let (code, said) = peer.run(of_image("busy/box:1", &[])).await;
    assert_eq!(
        (code, said.as_str()),
        (0, "default image\n/srv/data/new\nuid=1000(web) gid=1001(web) groups=1002(logs)\n")
    );

    let mut spec = of_image(
        "busy/box:1",
        &[
            "echo $WHO; ls /opt; cat /opt/replaced /srv/link; ls /opt/gone; stat -c '%n %a %u %h %Y' /srv/owned; cat /srv/same; touch /opt/x; id -u",
        ],
    );
    spec.environment.insert("WHO".into(), "task".into());
    let (_, said) = peer.run(spec.clone()).await;
    let wanted = "task\ngone\nreplaced\nnewnewother\n/srv/owned 640 1000 2 1000000000\nowned";
    assert!(said.starts_with(wanted), "{said}");
    assert!(said.contains("touch: /opt/x: Permission denied") && said.ends_with("1000\n"), "{said}");

    // What one task writes is its own.
    let claim = peer.start(of_image("busy/box:1", &["echo mine > /srv/data/new/file || exit 9; ls /srv/data/new"]));
    let report = peer.running(claim).await;
    assert!(matches!(report, TaskReport::Running { image_digest: Some(digest), .. } if digest == info.digest));
    peer.ended(claim).await;
    assert_eq!(peer.run(of_image("busy/box:1", &["ls /srv/data"])).await.1, "new\n");
    let (code, said) = peer.run(of_image("busy/box:1", &["exec /no/program"])).await;
    assert_eq!(code, 127, "{said}");

    let claim = peer.start(of_image("unknown", &["true"]));
    let report = peer.ended(claim).await;
    assert!(matches!(&report, TaskReport::Failed { reason } if reason.contains("unknown")), "{report:?}");
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_is_stopped_as_its_image_says() {
    if !containers_run() || !has_busybox() {
        return;
    }
    let mut peer = Peer::new().await;
    let script =
        "trap 'echo quit; exit 3' QUIT; trap 'echo term; exit 4' TERM; echo ready; while :; do sleep 0.05; done";
    for (signal, code, word) in [("SIGQUIT", 3, "quit"), ("3", 3, "quit"), ("NONSENSE", 4, "term"), ("", 4, "term")] {
        let mut config = json!({"Env": ["PATH=/bin"], "Entrypoint": ["sh", "-c"], "User": "1234:5678"});
        if !signal.is_empty() {
            config["StopSignal"] = signal.into();
        }
        let layout = Layout::new().image(&[busybox()], config);
        peer.images().import_folder(Naming::As("stops"), layout.path()).unwrap();
        let claim = peer.start(of_image("stops", &[&format!("id; {script}")]));
        peer.line(claim, "ready").await;
        peer.stop(claim, GRACE_MS);
        let report = peer.ended(claim).await;
        assert!(exited(code)(&report), "{signal}: {report:?}");
        let said = peer.output(claim).await;
        assert!(said.contains("uid=1234 gid=5678") && said.contains(word), "{signal}: {said}");
    }
    peer.close().await;
}

#[test]
fn what_an_image_says_of_itself_is_kept() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    let config = json!({
        "ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "Volumes": {"/data": {}}, "Labels": {"a": "b"}, "StopSignal": "SIGINT",
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5_000_000_000_u64, "Retries": 3},
    });
    let layout = Layout::new().image(&[Layer::new().file("a", b"x").done()], config);
    images.import_folder(Naming::As("says"), layout.path()).unwrap();
    let config = images.configuration("says").unwrap();
    let mut ports = config.exposed_ports.clone();
    ports.sort();
    assert_eq!(ports, ["53/udp", "80/tcp"]);
    assert_eq!((config.volumes, config.stop_signal.as_deref()), (vec!["/data".to_owned()], Some("SIGINT")));
    assert_eq!(config.labels["a"], "b");
    let check = config.healthcheck.unwrap();
    assert_eq!((check.test.len(), check.interval, check.retries, check.timeout), (2, 5_000_000_000, 3, 0));
}

#[test]
fn what_is_imported_once_is_not_unpacked_again() {
    if !has_busybox() || !nix::unistd::geteuid().is_root() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    let layout = Layout::new().image(&layers(), json!({}));
    let archive = layout.archive();
    let first = images.import(Naming::As("one"), &archive[..]).unwrap();
    let layers_folder = data.path().join("executor/images/layers");
    let made = |_: ()| -> Vec<_> {
        let mut all: Vec<_> = fs::read_dir(&layers_folder)
            .unwrap()
            .flatten()
            .map(|entry| (entry.path(), entry.metadata().unwrap().modified().unwrap()))
            .collect();
        all.sort();
        all
    };
    let before = made(());
    assert_eq!(before.len(), 3);
    let again = images.import(Naming::As("two"), &pack(0, &archive)[..]).unwrap();
    assert_eq!((first.digest.clone(), first.bytes), (again.digest, again.bytes));
    assert_eq!(made(()), before);
    assert_eq!(images.list().len(), 2);
    let manifest = images.manifest("one").unwrap();
    assert_eq!(format!("sha256:{}", hex(&manifest)), first.digest);
    assert!(images.blob(&first.digest).is_some());
    assert_eq!(images.blob("sha256:../../../etc/passwd"), None);
    // And after a restart.
    assert_eq!(Images::open(data.path()).unwrap().list().len(), 2);
}

#[test]
fn a_link_within_an_image_may_lead_anywhere_within() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let layer = Layer::new().dir("usr").dir("usr/lib").link("lib", "/usr/lib").file("lib/so", b"x").done();
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    images.import(Naming::As("linked"), &Layout::new().image(&[layer], json!({})).archive()[..]).unwrap();
    let root = fs::read_dir(data.path().join("executor/images/layers")).unwrap().flatten().next().unwrap().path();
    assert_eq!(fs::read(root.join("usr/lib/so")).unwrap(), b"x");
}

/// Another machine's images, at hand without a network.
struct Neighbour {
    images: Images,
    asked: AtomicUsize,
    lies: bool,
}

impl Neighbour {
    fn stream(&self, path: Option<std::path::PathBuf>) -> std::io::Result<Bytes> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let mut bytes = fs::read(path.ok_or(std::io::ErrorKind::NotFound)?)?;
        if self.lies {
            bytes.push(b' ');
        }
        let chunks: Vec<_> = bytes.chunks(10_000).map(|chunk| Ok(bytes::Bytes::copy_from_slice(chunk))).collect();
        Ok(Box::pin(futures::stream::iter(chunks)))
    }
}

impl Fetch for Neighbour {
    fn manifest<'a>(&'a self, _: PeerId, image: &'a str) -> BoxFuture<'a, std::io::Result<Bytes>> {
        let digest = self.images.get(image).map(|info| info.digest);
        Box::pin(async move { self.stream(digest.and_then(|digest| self.images.blob(&digest))) })
    }

    fn blob<'a>(&'a self, _: PeerId, digest: &'a str) -> BoxFuture<'a, std::io::Result<Bytes>> {
        Box::pin(async move { self.stream(self.images.blob(digest)) })
    }
}

fn neighbour(lies: bool) -> (tempfile::TempDir, Arc<Neighbour>) {
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    let layout = Layout::new().image(&layers(), json!({"Env": ["PATH=/bin"]}));
    images.import_folder(Naming::As("shared"), layout.path()).unwrap();
    (data, Arc::new(Neighbour { images, asked: AtomicUsize::new(0), lies }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_image_is_fetched_once() {
    if !containers_run() || !has_busybox() {
        return;
    }
    let (_data, neighbour) = neighbour(false);
    let mut peer = Peer::fetching(neighbour.clone()).await;
    let spec = || {
        let mut spec = of_image("shared", &["cat", "/opt/replaced"]);
        spec.image_at = vec![PeerId([1; 32])];
        spec
    };
    let claims = [peer.start(spec()), peer.start(spec()), peer.start(spec())];
    for _ in claims {
        loop {
            if let rialto_node::executor::Told::Task { report, .. } = peer.told().await
                && has_ended(&report)
            {
                assert!(exited(0)(&report), "{report:?}");
                break;
            }
        }
    }
    assert_eq!(neighbour.asked.load(Ordering::SeqCst), 5, "the manifest, the configuration and three layers");
    assert_eq!(peer.images().list(), neighbour.images.list());
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_runs_the_manifest_it_names_whatever_has_its_name_here() {
    if !containers_run() || !has_busybox() {
        return;
    }
    let (_data, neighbour) = neighbour(false);
    let mut peer = Peer::fetching(neighbour.clone()).await;
    let older = Layout::new().image(&layers(), json!({"Env": ["PATH=/bin", "AGE=old"]}));
    let older = peer.images().import_folder(Naming::As("shared"), older.path()).unwrap();
    let newer = neighbour.images.get("shared").unwrap();
    let spec = |digest: &str| {
        let mut spec = of_image("shared", &["sh", "-c", "echo age=$AGE"]);
        spec.image_digest = Some(digest.into());
        spec.image_at = vec![PeerId([1; 32])];
        spec
    };
    assert_eq!(peer.run(spec(&newer.digest)).await, (0, "age=\n".into()));
    assert_eq!(peer.run(spec(&older.digest)).await, (0, "age=old\n".into()));
    let claim = peer.start(spec(&format!("sha256:{}", "0".repeat(64))));
    let report = peer.ended(claim).await;
    assert!(matches!(&report, TaskReport::Failed { reason } if reason.contains("cannot be fetched")), "{report:?}");
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_peer_sends_is_checked() {
    if !containers_run() || !has_busybox() {
        return;
    }
    let (_data, neighbour) = neighbour(true);
    let mut peer = Peer::fetching(neighbour).await;
    let mut spec = of_image("shared", &["true"]);
    spec.image_at = vec![PeerId([1; 32])];
    let claim = peer.start(spec);
    let report = peer.ended(claim).await;
    assert!(matches!(&report, TaskReport::Failed { reason } if reason.contains("larger")), "{report:?}");
    assert!(peer.images().list().is_empty());
    peer.close().await;
}

/// Reading it whole into memory is not what an import does.
#[test]
fn an_import_streams() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::new().image(&[Layer::new().file("zeros", &vec![0; 1 << 20]).done()], json!({}));
    let path = folder.path().join("image.tar");
    fs::write(&path, layout.archive()).unwrap();
    let images = Images::open(folder.path()).unwrap();
    assert!(images.import(Naming::As("zeros"), File::open(&path).unwrap()).unwrap().bytes > 0);
}
