//! How long a container takes, side by side with crun on the same root, limits and seccomp
//! profile. Not a test: `cargo test --release --workspace --test executor_speed -- --ignored --nocapture`.

mod executor_support;

use std::os::unix::process::CommandExt;
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
    let config = std::fs::read(peer.config_file(claim)).unwrap();
    peer.stop(claim, 0);
    peer.ended(claim).await;
    let crun = Crun::new(&config);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let (mut our_work, mut their_work) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (begun, before) = (Instant::now(), children_work());
        let claim = peer.start(host(&["/usr/bin/true"]));
        assert!(exited(0)(&peer.ended(claim).await));
        ours.push(begun.elapsed());
        peer.shim_gone(claim).await;
        while children_work() == before {
            tokio::task::yield_now().await;
        }
        our_work.push(children_work() - before);
        let (begun, before) = (Instant::now(), children_work());
        crun.run();
        theirs.push(begun.elapsed());
        their_work.push(children_work() - before);
    }
    println!("rialto, order to told end: {}", spread(&mut ours));
    println!("crun run:                  {}", spread(&mut theirs));
    println!("processor time of a shim and its container: {}", spread(&mut our_work));
    println!("processor time of crun and its container:   {}", spread(&mut their_work));
    peer.close().await;
}

/// A bundle, and a mount namespace without the v2 hierarchy: crun refuses a hybrid machine.
struct Crun {
    bundle: tempfile::TempDir,
    holder: std::process::Child,
    namespace: std::fs::File,
}

impl Drop for Crun {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

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
        config["linux"]["seccomp"]["architectures"] = serde_json::json!(["SCMP_ARCH_X86_64"]);
        config["linux"]["cgroupsPath"] = "/rialto-test-crun".into();
        let usr =
            serde_json::json!({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]});
        config["mounts"].as_array_mut().unwrap().push(usr);
        std::fs::write(bundle.path().join("config.json"), serde_json::to_vec(&config).unwrap()).unwrap();
        let script = "umount /sys/fs/cgroup/unified; echo; exec sleep 1000";
        let mut holder = Command::new("unshare");
        let holder = holder.args(["-m", "sh", "-c", script]).stdout(std::process::Stdio::piped());
        let mut holder = holder.spawn().unwrap();
        let ready = std::io::Read::read(&mut holder.stdout.take().unwrap(), &mut [0]);
        assert_eq!(ready.unwrap(), 1);
        let namespace = std::fs::File::open(format!("/proc/{}/ns/mnt", holder.id())).unwrap();
        Self { bundle, holder, namespace }
    }

    fn run(&self) {
        let name = format!("rialto-test-{}", std::process::id());
        let namespace = self.namespace.try_clone().unwrap();
        let mut crun = Command::new("crun");
        crun.arg("run").arg("--bundle").arg(self.bundle.path()).arg(name);
        // SAFETY: a system call on a descriptor that lives as long as the closure.
        unsafe {
            crun.pre_exec(move || Ok(nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNS)?));
        }
        let done = crun.status();
        assert!(done.is_ok_and(|status| status.success()));
    }
}

/// Processor time of all children that were waited for, and theirs: what a busy machine cannot change.
fn children_work() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN).unwrap();
    let of = |time: nix::sys::time::TimeVal| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000);
    of(usage.user_time()) + of(usage.system_time())
}

fn spread(times: &mut [Duration]) -> String {
    times.sort();
    let at = |share: usize| times[(times.len() - 1) * share / 100].as_secs_f64() * 1e3;
    format!("median {:.1} ms, p10 {:.1}, p90 {:.1}, of {}", at(50), at(10), at(90), times.len())
}
