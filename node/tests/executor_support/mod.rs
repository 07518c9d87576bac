//! A peer's executor on a machine of its own, as far as tests need one: own data folder, own
//! cgroup prefix. What it leaves behind fails the test.
#![allow(dead_code)]

pub mod session;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rialto_node::executor::deadlines::Deadlines;
use rialto_node::executor::images::{Fetch, Images};
use rialto_node::executor::logs::{Output, Stream};
use rialto_node::executor::userns::Remap;
use rialto_node::executor::{Config, Executor, Order, Provisions, Told, probe};
use rialto_protocol::event::TaskReport;
use rialto_protocol::ids::{AppId, ClaimId, TaskId};
use rialto_protocol::model::TaskSpec;
use tokio::sync::mpsc;

pub const GRACE_MS: u64 = 5_000;

/// Whether containers can run here; says why not.
pub fn containers_run() -> bool {
    match probe() {
        Ok(()) => true,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            false
        }
    }
}

pub struct Peer {
    pub data: tempfile::TempDir,
    pub prefix: String,
    executor: Option<Executor>,
    told: mpsc::Receiver<Told>,
    fetch: Arc<dyn Fetch>,
    hide: Vec<PathBuf>,
    provisions: Provisions,
    remap: Option<Remap>,
    /// Until when its tasks may run.
    pub deadlines: Deadlines,
}

impl Peer {
    pub async fn new() -> Self {
        Self::fetching(Arc::new(())).await
    }

    pub async fn fetching(fetch: Arc<dyn Fetch>) -> Self {
        Self::with(fetch, Vec::new(), Provisions::default(), None).await
    }

    pub async fn hiding(path: &Path) -> Self {
        Self::with(Arc::new(()), vec![path.to_owned()], Provisions::default(), None).await
    }

    pub async fn providing(provisions: Provisions) -> Self {
        Self::with(Arc::new(()), Vec::new(), provisions, None).await
    }

    /// Tasks have users of their own.
    pub async fn remapping(remap: Remap, provisions: Provisions) -> Self {
        Self::with(Arc::new(()), Vec::new(), provisions, Some(remap)).await
    }

    /// Its data lies in `folder`.
    pub async fn within(folder: &Path) -> Self {
        Self::at(tempfile::tempdir_in(folder).unwrap(), Arc::new(()), Vec::new(), Provisions::default(), None).await
    }

    async fn with(fetch: Arc<dyn Fetch>, hide: Vec<PathBuf>, provisions: Provisions, remap: Option<Remap>) -> Self {
        Self::at(tempfile::tempdir().unwrap(), fetch, hide, provisions, remap).await
    }

    async fn at(
        data: tempfile::TempDir,
        fetch: Arc<dyn Fetch>,
        hide: Vec<PathBuf>,
        provisions: Provisions,
        remap: Option<Remap>,
    ) -> Self {
        let prefix = format!("rialto-test-{}", &uuid::Uuid::now_v7().simple().to_string()[16..]);
        let deadlines = Deadlines::default();
        let (executor, told) = executor(data.path(), &prefix, &hide, &provisions, remap, fetch.clone(), &deadlines);
        let mut peer = Self { data, prefix, executor: Some(executor), told, fetch, hide, provisions, remap, deadlines };
        assert_eq!(peer.told().await, Told::Found);
        peer
    }

    pub fn executor(&self) -> &Executor {
        self.executor.as_ref().unwrap()
    }

    pub fn images(&self) -> Images {
        self.executor().images().unwrap().clone()
    }

    /// From the next life on tasks have users of their own, or not.
    pub fn remap(&mut self, remap: Option<Remap>) {
        self.remap = remap;
    }

    /// The daemon dies.
    pub fn die(&mut self) {
        self.executor = None;
    }

    /// And comes back; what it tells until it has found everything.
    pub async fn come_back(&mut self) -> Vec<(ClaimId, TaskReport)> {
        self.executor = None;
        self.deadlines = Deadlines::default();
        let (data, fetch) = (self.data.path(), self.fetch.clone());
        let (executor, told) =
            executor(data, &self.prefix, &self.hide, &self.provisions, self.remap, fetch, &self.deadlines);
        self.executor = Some(executor);
        self.told = told;
        let mut found = Vec::new();
        loop {
            match self.told().await {
                Told::Found => return found,
                Told::Task { claim, report } => found.push((claim, report)),
            }
        }
    }

    pub fn start(&self, spec: TaskSpec) -> ClaimId {
        self.start_as(ClaimId(*uuid::Uuid::now_v7().as_bytes()), spec)
    }

    pub fn start_as(&self, claim: ClaimId, spec: TaskSpec) -> ClaimId {
        self.executor().order(Order::Start { claim, spec: Arc::new(spec) });
        claim
    }

    pub fn stop(&self, claim: ClaimId, grace_ms: u64) {
        self.executor().order(Order::Stop { claim, grace_ms });
    }

    pub async fn told(&mut self) -> Told {
        tokio::time::timeout(Duration::from_secs(20), self.told.recv()).await.expect("in time").expect("an executor")
    }

    /// The next report of `claim` that is as wanted; those before it, and of others, are skipped.
    pub async fn until(&mut self, claim: ClaimId, wanted: impl Fn(&TaskReport) -> bool) -> TaskReport {
        loop {
            if let Told::Task { claim: of, report } = self.told().await
                && of == claim
            {
                let is_end = has_ended(&report);
                if wanted(&report) {
                    return report;
                }
                assert!(!is_end, "it ended with {report:?}");
            }
        }
    }

    pub async fn running(&mut self, claim: ClaimId) -> TaskReport {
        self.until(claim, |report| matches!(report, TaskReport::Running { .. })).await
    }

    pub async fn ended(&mut self, claim: ClaimId) -> TaskReport {
        self.until(claim, has_ended).await
    }

    /// Runs to the end: the exit code, and what it wrote.
    pub async fn run(&mut self, spec: TaskSpec) -> (i32, String) {
        let claim = self.start(spec);
        let report = self.ended(claim).await;
        let text = self.output(claim).await;
        match report {
            TaskReport::Exited { exit_code, .. } => (exit_code, text),
            other => panic!("{other:?}, having written {text:?}"),
        }
    }

    pub async fn output(&self, claim: ClaimId) -> String {
        text(&self.executor().logs().unwrap().read(claim, None).await.unwrap())
    }

    /// Waits for a line of a running task.
    pub async fn line(&self, claim: ClaimId, wanted: &str) {
        use futures::StreamExt;
        let follow = self.executor().logs().unwrap().follow(claim, None);
        let mut follow = std::pin::pin!(follow);
        let mut seen = String::new();
        while !seen.contains(wanted) {
            let next = tokio::time::timeout(Duration::from_secs(10), follow.next()).await;
            let output = next.expect("in time").unwrap_or_else(|| panic!("it wrote only {seen:?}"));
            seen += &text(&[output.unwrap()]);
        }
    }

    pub fn folder(&self, claim: ClaimId) -> PathBuf {
        self.data.path().join("executor/tasks").join(claim.hex())
    }

    /// The cgroup of a task below the controller that `file` belongs to.
    pub fn cgroup_file(&self, claim: ClaimId, controller: &str, file: &str) -> PathBuf {
        Path::new("/sys/fs/cgroup").join(controller).join(&self.prefix).join(claim.hex()).join(file)
    }

    /// Waits for the last step of a shim whose task has ended.
    pub async fn shim_gone(&self, claim: ClaimId) {
        while self.folder(claim).join("control.sock").exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The process id of the shim of a running task.
    pub fn shim(&self, claim: ClaimId) -> i32 {
        let life = std::fs::read(self.folder(claim).join("life.json")).unwrap();
        let life: serde_json::Value = serde_json::from_slice(&life).unwrap();
        life["shim"]["pid"].as_i64().unwrap() as i32
    }

    /// The container's description, which only its shim's mount namespace holds.
    pub fn config_file(&self, claim: ClaimId) -> PathBuf {
        let bench = self.data.path().join("executor/bench/config.json");
        Path::new("/proc").join(self.shim(claim).to_string()).join("root").join(bench.strip_prefix("/").unwrap())
    }

    /// Kills the shim of a running task.
    pub fn kill_shim(&self, claim: ClaimId) {
        let pid = self.shim(claim);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    }

    /// Ends everything and looks for leftovers.
    pub async fn close(mut self) {
        self.executor().stop_all(0).await;
        self.executor = None;
        let prefix = self.prefix.clone();
        let clean = || {
            let cgroups = list("/sys/fs/cgroup").iter().any(|root| root.join(&prefix).exists());
            let data = self.data.path().to_string_lossy().into_owned();
            let processes = list("/proc").iter().any(|process| {
                std::fs::read(process.join("cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&data))
            });
            let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap().contains(&data);
            (cgroups, processes, mounts)
        };
        // The shim's last steps come after it has told of the end.
        for _ in 0..200 {
            if clean() == (false, false, false) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("left behind: (cgroups, processes, mounts) = {:?}", clean());
    }
}

/// A test that failed leaves nothing behind either.
impl Drop for Peer {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        self.executor = None;
        let tasks = self.data.path().join("executor/tasks");
        for claim in std::fs::read_dir(tasks).into_iter().flatten().flatten() {
            let name = claim.file_name().to_string_lossy().into_owned();
            if let Some(claim) = ClaimId::from_hex(&name)
                && self.folder(claim).join("control.sock").exists()
            {
                self.kill_shim(claim);
            }
        }
        for _ in 0..100 {
            let all = list("/sys/fs/cgroup").into_iter().map(|root| root.join(&self.prefix));
            let left: Vec<_> = all.filter(|cgroup| cgroup.exists()).collect();
            if left.is_empty() {
                return;
            }
            for cgroup in left {
                list(&cgroup).iter().filter(|path| path.is_dir()).for_each(|leaf| drop(std::fs::remove_dir(leaf)));
                let _ = std::fs::remove_dir(cgroup);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn executor(
    data: &Path,
    prefix: &str,
    hide: &[PathBuf],
    provisions: &Provisions,
    remap: Option<Remap>,
    fetch: Arc<dyn Fetch>,
    deadlines: &Deadlines,
) -> (Executor, mpsc::Receiver<Told>) {
    let (reports, told) = mpsc::channel(64);
    let config = Config {
        deadlines: deadlines.clone(),
        etcd: None,
        data: data.to_owned(),
        prefix: prefix.to_owned(),
        hide: hide.to_vec(),
        network: None,
        provisions: provisions.clone(),
        remap,
        shim: env!("CARGO_BIN_EXE_rialtod").into(),
    };
    let images = Images::open(data).unwrap();
    (Executor::container(config, images, fetch, reports).unwrap(), told)
}

pub fn has_ended(report: &TaskReport) -> bool {
    report.is_end()
}

pub fn exited(exit_code: i32) -> impl Fn(&TaskReport) -> bool {
    move |report| matches!(report, TaskReport::Exited { exit_code: code, .. } if *code == exit_code)
}

pub fn text(outputs: &[Output]) -> String {
    outputs.iter().map(|output| String::from_utf8_lossy(&output.bytes).into_owned()).collect()
}

pub fn text_of(outputs: &[Output], stream: Stream) -> String {
    text(&outputs.iter().filter(|output| output.stream == stream).cloned().collect::<Vec<_>>())
}

/// A task of the image `host`.
pub fn host(command: &[&str]) -> TaskSpec {
    of_image("host", command)
}

/// A shell script on the image `host`.
pub fn script(text: &str) -> TaskSpec {
    host(&["sh", "-c", text])
}

pub fn of_image(image: &str, command: &[&str]) -> TaskSpec {
    let app = AppId { namespace: "default".into(), name: "test".into(), generation: 1 };
    TaskSpec {
        task: TaskId { app, service: "main".into(), slot: "1".into() },
        attempt: 1,
        image: image.into(),
        command: command.iter().map(|word| word.to_string()).collect(),
        grace_ms: GRACE_MS,
        ..TaskSpec::default()
    }
}

fn list(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).collect()
}
