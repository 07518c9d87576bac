//! How long a container takes, side by side with crun on the same root, limits and seccomp
//! profile. Not a test: `cargo test --release -p rialto-node --test executor_speed -- --ignored --nocapture`.

mod executor_support;

use std::process::Command;
use std::time::{Duration, Instant};

use executor_support::*;

const RUNS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn create_start_exit_delete() {
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    // What a container is described by, as a running one has it.
    let claim = peer.start(host(&["sleep", "60"]));
    peer.running(claim).await;
    let config = std::fs::read(peer.folder(claim).join("bundle/config.json")).unwrap();
    peer.stop(claim, 0);
    peer.ended(claim).await;
    let crun = Crun::new(&config);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let begun = Instant::now();
        let claim = peer.start(host(&["/usr/bin/true"]));
        assert!(exited(0)(&peer.ended(claim).await));
        ours.push(begun.elapsed());
        peer.shim_gone(claim).await;
        let begun = Instant::now();
        crun.run();
        theirs.push(begun.elapsed());
    }
    println!("rialto, order to told end: {}", spread(&mut ours));
    println!("crun run:                  {}", spread(&mut theirs));
    peer.close().await;
}

struct Crun(tempfile::TempDir);

impl Crun {
    fn new(config: &[u8]) -> Self {
        let bundle = tempfile::tempdir().unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(config).unwrap();
        let root = bundle.path().join("rootfs");
        for name in ["usr", "proc", "sys", "dev", "tmp", "etc"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["bin", "lib", "lib64", "sbin"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name)).unwrap();
        }
        config["root"]["path"] = root.to_str().unwrap().into();
        config["process"]["args"] = serde_json::json!(["/usr/bin/true"]);
        config["linux"]["cgroupsPath"] = "/rialto-test-crun".into();
        let usr =
            serde_json::json!({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]});
        config["mounts"].as_array_mut().unwrap().push(usr);
        std::fs::write(bundle.path().join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
        Self(bundle)
    }

    fn run(&self) {
        let name = format!("rialto-test-{}", std::process::id());
        let done = Command::new("crun").arg("run").arg("--bundle").arg(self.0.path()).arg(name).status();
        assert!(done.is_ok_and(|status| status.success()));
    }
}

fn spread(times: &mut [Duration]) -> String {
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
    format!("median {:.1} ms, p10 {:.1}, p90 {:.1}, of {}", at(50), at(10), at(90), times.len())
}
