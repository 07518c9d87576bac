//! How long a pull takes beside other tools: `cargo test --release --workspace --test images_speed -- --ignored --nocapture`.

mod images_support;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use images_support::registry::{Door, Registry, is_there, registry_runs};
use images_support::*;
use rialto_node::executor::images::Images;
use serde_json::json;

const ROUNDS: usize = 5;

/// Twenty-five megabytes of files of all sizes, which pack to a little less than half.
fn layer(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let (mut layer, mut left) = (Layer::new().dir(&format!("l{seed}")), 25_usize << 20);
    for number in 0.. {
        if left == 0 {
            break;
        }
        // Programs are large, and most files are small.
        let size = if step() % 10 == 0 { step() as usize % (2 << 20) } else { step() as usize % 20_000 }.min(left);
        let bytes: Vec<u8> = (0..size).map(|at| if at % 64 < 28 { step() as u8 } else { b"rialto"[at % 6] }).collect();
        layer = layer.file(&format!("l{seed}/f{number}"), &bytes);
        left -= size;
    }
    layer.done()
}

fn run(program: &str, args: &[&str]) {
    let done = Command::new(program).args(args).output().unwrap();
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_pull_beside_skopeo_and_umoci() {
    if !registry_runs() || !is_there("umoci") || !nix::unistd::geteuid().is_root() {
        return;
    }
    let layers: Vec<_> = (1..=4).map(layer).collect();
    let unpacked: usize = layers.iter().map(Vec::len).sum();
    let registry = Registry::start(Door::Open);
    registry.push(Layout::new().plain().image(&layers, json!({})).path(), "web:1", false);
    let (mut ours, mut theirs, mut packed) = (Vec::new(), Vec::new(), 0);
    for _ in 0..ROUNDS {
        let data = tempfile::tempdir().unwrap();
        let images = Images::open(data.path()).unwrap();
        let began = Instant::now();
        packed = images.pull(&format!("{}/web:1", registry.address), &[], &()).await.unwrap().bytes;
        ours.push(began.elapsed());

        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let from = format!("docker://{}/web:1", registry.address);
        let began = Instant::now();
        run(
            "skopeo",
            &[
                "copy",
                "--quiet",
                "--insecure-policy",
                "--src-tls-verify=false",
                &from,
                &format!("oci:{}:x", path("oci")),
            ],
        );
        run("umoci", &["unpack", "--image", &format!("{}:x", path("oci")), &path("bundle")]);
        theirs.push(began.elapsed());
        assert!(Path::new(&path("bundle")).join("rootfs/l4").is_dir());
    }
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    println!(
        "an image of {:.0} MB, {:.0} MB packed, {ROUNDS} rounds, medians: pull {:?} (on the disk), skopeo copy + umoci unpack {:?}",
        megabytes(unpacked as u64),
        megabytes(packed),
        median(ours.clone()),
        median(theirs.clone()),
    );
    println!("pull {ours:?}\nskopeo + umoci {theirs:?}");
}
