//! What is kept, what is given back, and who asks the registry when many need the same.

mod executor_support;
mod images_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use executor_support::*;
use futures::future::BoxFuture;
use images_support::registry::{Door, Registry, Wire, registry_runs};
use images_support::*;
use rialto_node::executor::images::{Bytes, Fetch, Images, Naming, Settings, Together};
use rialto_protocol::ids::PeerId;
use serde_json::json;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

fn shared() -> Vec<u8> {
    Layer::new().file("shared", &[7; 20_000]).done()
}

/// Of two layers, of which one is in every image.
fn image(seed: u8) -> Layout {
    Layout::new().image(&[shared(), Layer::new().file("own", &[seed; 100_000]).done()], json!({}))
}

fn count(data: &Path, folder: &str) -> usize {
    fs::read_dir(data.join("executor/images").join(folder)).unwrap().count()
}

#[test]
fn what_no_name_needs_is_given_back() {
    if !is_root() {
        return;
    }
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    let mut changes = images.changes();
    for seed in 1..=2 {
        images.import_folder(Naming::As(&format!("web:{seed}")), image(seed).path()).unwrap();
    }
    assert!(changes.has_changed().unwrap());
    changes.borrow_and_update();
    assert_eq!((count(data.path(), "layers"), count(data.path(), "blobs/sha256")), (3, 7));
    let freed = images.remove("web:1").unwrap().unwrap();
    assert_eq!(freed.images[0].name, "web:1");
    assert!(freed.bytes > 100_000, "{freed:?}");
    assert!(changes.has_changed().unwrap());
    assert_eq!((count(data.path(), "layers"), count(data.path(), "blobs/sha256")), (2, 4));
    assert_eq!(images.remove("web:1").unwrap(), None);
    // An image under two names goes with the second.
    images.import_folder(Naming::As("other"), image(2).path()).unwrap();
    assert!(images.remove("web:2").unwrap().is_some());
    assert_eq!(count(data.path(), "layers"), 2);
    // A name that means something else now leaves its old layers to the collector.
    images.import_folder(Naming::As("other"), image(3).path()).unwrap();
    assert_eq!(count(data.path(), "layers"), 3);
    assert!(images.collect(None).unwrap().bytes > 100_000);
    assert_eq!((count(data.path(), "layers"), images.list().len()), (2, 1));
    assert_eq!(images.collect(Some(Duration::ZERO)).unwrap().images, [], "what was imported cannot be had again");
    assert_eq!(count(data.path(), "incoming"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_task_runs_on_stays_until_it_ends() {
    if !containers_run() || !Path::new("/bin/busybox").exists() {
        return;
    }
    let mut peer = Peer::new().await;
    let busybox = fs::read("/bin/busybox").unwrap();
    let layer = Layer::new().dir("bin").entry(tar::EntryType::Regular, "bin/busybox", 0o755, 0, &busybox, None);
    let layer =
        layer.link("bin/sh", "busybox").link("bin/cat", "busybox").link("bin/sleep", "busybox").file("word", b"here");
    let layout = Layout::new().image(&[layer.done()], json!({"Env": ["PATH=/bin"]}));
    peer.images().import_folder(Naming::As("busy"), layout.path()).unwrap();
    let script = "trap 'cat /word; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let claim = peer.start(of_image("busy", &["sh", "-c", script]));
    peer.line(claim, "up").await;
    assert!(peer.images().remove("busy").unwrap().is_some());
    assert_eq!(count(peer.data.path(), "layers"), 1);
    peer.stop(claim, GRACE_MS);
    peer.ended(claim).await;
    assert!(peer.output(claim).await.ends_with("here"));
    assert!(peer.images().collect(None).unwrap().bytes > 1_000);
    assert_eq!(count(peer.data.path(), "layers"), 0);
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_costs_what_can_be_had_again() {
    if !registry_runs() || !is_root() {
        return;
    }
    let registry = Registry::start(Door::Open);
    registry.push(image(1).path(), "one:1", false);
    registry.push(image(2).path(), "two:1", false);
    let data = tempfile::tempdir().unwrap();
    // However full the disk of this machine may be.
    let content = Settings { free_bytes_min: Some(0), ..Default::default() };
    let images = Images::with(data.path(), content).unwrap();
    images.import_folder(Naming::As("imported"), image(3).path()).unwrap();
    let name = |repository: &str| format!("{}/{repository}:1", registry.address);
    for repository in ["one", "two"] {
        images.pull(&name(repository), &[], &()).await.unwrap();
    }
    assert!(images.relieve(0).unwrap().images.is_empty(), "the disk has room");
    // The same folder, and a machine that wants more room than any disk has.
    let settings = Settings { free_bytes_min: Some(u64::MAX), ..Default::default() };
    let short = Images::with(data.path(), settings).unwrap();
    let given: Vec<_> = short.relieve(0).unwrap().images.into_iter().map(|image| image.name).collect();
    assert_eq!(given, [name("one"), name("two")], "the longest unused first");
    assert_eq!((short.list().len(), count(data.path(), "layers")), (1, 2));
    // And by age.
    images.pull(&name("one"), &[], &()).await.unwrap();
    assert!(images.collect(Some(Duration::from_secs(3600))).unwrap().images.is_empty());
    assert_eq!(images.collect(Some(Duration::ZERO)).unwrap().images.len(), 1);
}

/// The stores of a few peers, within reach of each other.
#[derive(Default)]
struct Village(Mutex<BTreeMap<PeerId, Images>>);

/// How one of them asks the others.
struct Resident {
    me: PeerId,
    village: Arc<Village>,
}

impl Fetch for Resident {
    fn manifest<'a>(&'a self, _: PeerId, _: &'a str) -> BoxFuture<'a, std::io::Result<Bytes>> {
        Box::pin(async { Err(std::io::ErrorKind::NotFound.into()) })
    }

    fn blob<'a>(&'a self, _: PeerId, _: &'a str) -> BoxFuture<'a, std::io::Result<Bytes>> {
        Box::pin(async { Err(std::io::ErrorKind::NotFound.into()) })
    }

    fn blob_of<'a>(
        &'a self,
        from: PeerId,
        image: &'a str,
        digest: &'a str,
        bytes: u64,
    ) -> BoxFuture<'a, std::io::Result<Bytes>> {
        Box::pin(async move {
            let store = self.village.0.lock().unwrap().get(&from).cloned().ok_or(std::io::ErrorKind::NotConnected)?;
            store.blob_of(image, digest, bytes).map_err(std::io::Error::other)
        })
    }

    fn together<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Option<Together>> {
        Box::pin(async { Some(Together { me: self.me, all: (0..10).map(|n| PeerId([n; 32])).collect() }) })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_peers_cost_the_registry_one_pull() {
    if !registry_runs() || !containers_run() {
        return;
    }
    let noise = |seed: u64| {
        let mut state = seed | 1;
        let bytes: Vec<u8> = (0..400_000)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        Layer::new().file(&format!("noise{seed}"), &bytes).done()
    };
    let layers: Vec<_> = (1..=8).map(noise).collect();
    let registry = Registry::start(Door::Open);
    let layout = Layout::new().image(&layers, json!({"Cmd": ["/nothing"]}));
    registry.push(layout.path(), "web:1", false);
    let wire = Wire::to(registry.address, u64::MAX).await;
    let name = format!("{}/web:1", wire.address);
    for (dead, bytes_max) in [(0, 11), (3, 20)] {
        let village = Arc::new(Village::default());
        let mut peers = Vec::new();
        for n in dead..10 {
            let me = PeerId([n; 32]);
            let peer = Peer::fetching(Arc::new(Resident { me, village: village.clone() })).await;
            village.0.lock().unwrap().insert(me, peer.images());
            peers.push(peer);
        }
        let before = wire.answered();
        let claims: Vec<_> = peers.iter().map(|peer| peer.start(of_image(&name, &[]))).collect();
        let mut size = 0;
        for (peer, claim) in peers.iter_mut().zip(claims) {
            // Its program does not exist: the image is what counts.
            assert!(exited(127)(&peer.ended(claim).await));
            size = peer.images().get(&name).unwrap().bytes;
            assert_eq!(count(peer.data.path(), "layers"), 8);
        }
        let asked = wire.answered() - before;
        // Manifests and the heads of answers are small beside it; peers that do not answer are passed over.
        assert!(asked * 10 < size * bytes_max, "{dead} dead: {asked} bytes were asked for, of an image of {size}");
        for peer in peers {
            peer.close().await;
        }
    }
}
