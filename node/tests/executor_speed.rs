//! How long a container takes, side by side with crun on the same root, limits and seccomp
//! profile. Not a test: `cargo test --release --workspace --test executor_speed -- --ignored --nocapture`.

mod executor_support;

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use executor_support::*;
use rialto_node::executor::Told;
use rialto_protocol::event::TaskReport;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn a_hundred_tasks_at_once() {
    const TASKS: usize = 100;
    if !containers_run() {
        return;
    }
    let mut peer = Peer::new().await;
    let (mut to_run, mut to_end) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let begun = Instant::now();
        let claims: Vec<_> = (0..TASKS).map(|_| peer.start(host(&["sleep", "600"]))).collect();
        let mut waiting = claims.clone();
        while !waiting.is_empty() {
            if let Told::Task { claim, report: TaskReport::Running { .. } } = peer.told().await {
                waiting.retain(|one| *one != claim);
            }
        }
        to_run.push(begun.elapsed());
        let shims: Vec<(u64, u64)> = claims.iter().map(|claim| memory_kb(peer.shim(*claim))).collect();
        let sum = |of: fn(&(u64, u64)) -> u64| shims.iter().map(of).sum::<u64>() / TASKS as u64;
        let (pss, private) = (sum(|shim| shim.0), sum(|shim| shim.1));
        println!("a shim takes {private} KiB for itself, {pss} KiB with its share of what others use, too (PSS)");
        let begun = Instant::now();
        claims.iter().for_each(|claim| peer.stop(*claim, 0));
        let mut waiting = claims.clone();
        while !waiting.is_empty() {
            if let Told::Task { claim, report } = peer.told().await
                && has_ended(&report)
            {
                waiting.retain(|one| *one != claim);
            }
        }
        to_end.push(begun.elapsed());
        for claim in &claims {
            peer.shim_gone(*claim).await;
        }
    }
    println!("{TASKS} tasks, order to the last one told to run: {}", spread(&mut to_run));
    println!("{TASKS} tasks, stop to the last one told to have ended: {}", spread(&mut to_end));
    peer.close().await;
}

/// A process's share of memory, and what it has for itself, KiB.
fn memory_kb(pid: i32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    (field(&text, "Pss:"), field(&text, "Private_Clean:") + field(&text, "Private_Dirty:"))
}

fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
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
