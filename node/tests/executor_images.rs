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
use rialto_node::executor::images::{Bytes, Fetch, ImageError, Images, Naming};
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

/// Imports what must be refused; nothing may be left of it, here or anywhere.
fn refused(layout: &[u8], wanted: &str) {
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    let error = images.import(Naming::As("bad"), layout).unwrap_err();
    assert!(matches!(error, ImageError::Invalid(_)), "{error:?}");
    assert!(error.to_string().contains(wanted), "{wanted:?} in {error}");
    assert!(images.list().is_empty());
    for left in ["incoming", "layers"] {
        assert_eq!(fs::read_dir(data.path().join("executor/images").join(left)).unwrap().count(), 0, "{left}");
    }
}

#[test]
fn archives_that_are_no_layouts_are_refused() {
    let good = || Layout::new().image(&[Layer::new().file("a", b"x").done()], json!({}));
    refused(b"rubbish", "cannot be read");
    refused(b"", "oci-layout");
    refused(&Layer::new().file("../oci-layout", b"{}").done(), "leads out");
    refused(&Layer::new().file("/etc/oci-layout", b"{}").done(), "leads out");
    refused(&Layer::new().link("index.json", "/etc/shadow").done(), "link");
    refused(&Layer::new().hard_link("index.json", "/etc/shadow").done(), "link");
    refused(&Layer::new().file("blobs/sha256/x", b"{}").done(), "no digest");
    refused(&Layer::new().file(&format!("blobs/sha256/{}", hex(b"a")), b"b").done(), "has the digest");
    let layout = good();
    fs::write(layout.path().join("index.json"), "{").unwrap();
    refused(&layout.archive(), "index");
    let layout = good();
    fs::remove_file(layout.path().join("oci-layout")).unwrap();
    refused(&layout.archive(), "oci-layout");
    let layout = good();
    fs::remove_file(fs::read_dir(layout.path().join("blobs/sha256")).unwrap().flatten().next().unwrap().path())
        .unwrap();
    refused(&layout.archive(), "");
    let mut cut = good().archive();
    cut.truncate(cut.len() / 2);
    refused(&cut, "");
}

#[test]
fn layers_that_reach_out_are_refused() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let hostile = |layer: Vec<u8>, wanted: &str| {
        refused(&Layout::new().image(&[layer], json!({})).archive(), wanted);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{wanted}");
    };
    hostile(Layer::new().file("../../escaped", b"x").done(), "leads out");
    hostile(Layer::new().file("/escaped", b"x").done(), "leads out");
    hostile(Layer::new().file("a/../../escaped", b"x").done(), "leads out");
    // Through a link that an earlier entry made: nothing is there within the layer.
    hostile(Layer::new().link("door", target).file("door/escaped", b"x").done(), "door");
    hostile(Layer::new().link("door", "../../../../../../../../tmp").dir("door/escaped").done(), "door");
    hostile(Layer::new().hard_link("shadow", "/etc/shadow").done(), "leads out");
    hostile(Layer::new().hard_link("shadow", "../../../../etc/shadow").done(), "leads out");
    hostile(Layer::new().link("etc", "/etc").hard_link("shadow", "etc/shadow").done(), "shadow");
    hostile(Layer::new().dir("dir").hard_link("dir2", "dir").done(), "folder");
    hostile(vec![0x41; 4096], "");
    // A layer that is not what the configuration says.
    let layout = Layout::new().image(&[Layer::new().file("a", b"x").done()], json!({}));
    let other = Layout::new().image(&[Layer::new().file("a", b"y").done()], json!({}));
    let _ = other;
    let manifest_swapped = swap_layer(&layout);
    refused(&manifest_swapped, "not to sha256");
}

/// The same configuration over another layer, all digests of blobs right.
fn swap_layer(layout: &Layout) -> Vec<u8> {
    let index: serde_json::Value =
        serde_json::from_slice(&fs::read(layout.path().join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
    let manifest = fs::read(layout.path().join("blobs/sha256").join(digest)).unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    let layer = Layer::new().file("a", b"not what was promised").done();
    manifest["layers"][0]["digest"] = layout.blob(&layer).into();
    manifest["layers"][0]["size"] = layer.len().into();
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let mut index = index.clone();
    index["manifests"][0]["digest"] = layout.blob(&manifest).into();
    index["manifests"][0]["size"] = manifest.len().into();
    fs::write(layout.path().join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    layout.archive()
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
