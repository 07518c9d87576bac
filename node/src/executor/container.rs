//! One container by libcontainer, which nothing else here knows of. Only a shim may call this: the
//! library forks and changes the working directory of its whole process.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::Arc;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::OciSpecError;
use libcontainer::oci_spec::runtime as oci;
use libcontainer::syscall::syscall::SyscallType;
use libcontainer::workload;
use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::execvp;

use super::folder::{Limits, Plan};
use super::identity::User;
use super::process::Pidfd;
use super::seccomp;

/// Why there is no container. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("the container's description: {0}")]
    Spec(#[from] OciSpecError),
    #[error("{0}")]
    Build(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What the first process of a container is, besides what the plan says.
pub struct Process {
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
    pub working_dir: String,
    pub user: User,
}

/// The container's ends of its streams.
pub struct Streams {
    pub stdin: OwnedFd,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// A container whose first process waits to be let go.
pub struct Created(libcontainer::container::Container);

impl Created {
    /// The first process.
    pub fn pid(&self) -> Option<i32> {
        self.0.pid().map(|pid| pid.as_raw())
    }

    /// Lets it go.
    pub fn start(&mut self) -> Result<(), ContainerError> {
        self.0.start().map_err(told)
    }
}

/// Makes a container with the root `root`.
pub fn create(plan: &Plan, root: &Path, process: Process, streams: Streams) -> Result<Created, ContainerError> {
    describe(plan, root, process)?.save(plan.bench.join("config.json"))?;
    let program = Program { shim: Arc::new(Pidfd::of(std::process::id() as i32)?.0) };
    let built = ContainerBuilder::new(plan.claim.clone(), SyscallType::default())
        .with_root_path(plan.bench.join("state"))
        .map_err(told)?
        .with_executor(program)
        .with_stdin(streams.stdin)
        .with_stdout(streams.stdout)
        .with_stderr(streams.stderr)
        .as_init(&plan.bench)
        .with_systemd(false)
        .build();
    built.map(Created).map_err(told)
}

/// The library's errors name their cause only in their sources.
fn told(error: libcontainer::error::LibcontainerError) -> ContainerError {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    ContainerError::Build(text)
}

fn describe(plan: &Plan, root: &Path, process: Process) -> Result<oci::Spec, OciSpecError> {
    use oci::LinuxNamespaceType as Namespace;
    let namespaces = [Namespace::Pid, Namespace::Mount, Namespace::Ipc, Namespace::Uts, Namespace::Cgroup]
        .map(|kind| oci::LinuxNamespaceBuilder::default().typ(kind).build());
    let owned = |paths: &[&str]| paths.iter().map(|path| path.to_string()).collect::<Vec<_>>();
    let linux = oci::LinuxBuilder::default()
        .namespaces(namespaces.into_iter().collect::<Result<Vec<_>, _>>()?)
        .cgroups_path(&plan.cgroup)
        .resources(resources(&plan.limits)?)
        .seccomp(seccomp::profile()?)
        .masked_paths(owned(&[
            "/proc/acpi",
            "/proc/asound",
            "/proc/interrupts",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/sched_debug",
            "/proc/scsi",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/sys/devices/virtual/powercap",
            "/sys/firmware",
        ]))
        .readonly_paths(owned(&["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]))
        .build()?;
    oci::SpecBuilder::default()
        .version("1.0.2")
        .root(oci::RootBuilder::default().path(root).readonly(false).build()?)
        .hostname(&plan.hostname)
        .mounts(mounts(plan)?)
        .process(first_process(process)?)
        .linux(linux)
        .build()
}

fn first_process(process: Process) -> Result<oci::Process, OciSpecError> {
    use oci::Capability as Cap;
    // Docker's set without what a task on the machine's own network must not have (raw sockets)
    // and what no service needs (device files, file capabilities, the audit log).
    let capabilities = oci::Capabilities::from([
        Cap::Chown,
        Cap::DacOverride,
        Cap::Fowner,
        Cap::Fsetid,
        Cap::Kill,
        Cap::NetBindService,
        Cap::Setgid,
        Cap::Setuid,
        Cap::SysChroot,
    ]);
    // A program that runs as somebody else has none, as everywhere; it cannot gain any either.
    let held = if process.user.uid == 0 { capabilities.clone() } else { oci::Capabilities::default() };
    let capabilities = oci::LinuxCapabilitiesBuilder::default()
        .bounding(capabilities)
        .effective(held.clone())
        .permitted(held)
        .inheritable(oci::Capabilities::default())
        .ambient(oci::Capabilities::default())
        .build()?;
    let user = oci::UserBuilder::default()
        .uid(process.user.uid)
        .gid(process.user.gid)
        .additional_gids(process.user.groups)
        .build()?;
    oci::ProcessBuilder::default()
        .terminal(false)
        .user(user)
        .args(process.arguments)
        .env(process.environment)
        .cwd(process.working_dir)
        .capabilities(capabilities)
        .rlimits(rlimits()?)
        .no_new_privileges(true)
        .build()
}

/// Limits within the hard ones that this process has: to raise those takes a right that even root
/// may lack.
fn rlimits() -> Result<Vec<oci::PosixRlimit>, OciSpecError> {
    use nix::sys::resource::{Resource, getrlimit};
    const FILES: u64 = 1 << 20;
    let mut limits =
        vec![oci::PosixRlimitBuilder::default().typ(oci::PosixRlimitType::RlimitCore).soft(0_u64).hard(0_u64).build()?];
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let files = hard.min(FILES);
        limits.push(
            oci::PosixRlimitBuilder::default()
                .typ(oci::PosixRlimitType::RlimitNofile)
                .soft(files)
                .hard(files)
                .build()?,
        );
    }
    Ok(limits)
}

fn resources(limits: &Limits) -> Result<oci::LinuxResources, OciSpecError> {
    const PERIOD_US: u64 = 100_000;
    // The kernel takes no quota below 1 ms.
    const QUOTA_US_MIN: u64 = 1_000;
    let mut resources = oci::LinuxResourcesBuilder::default()
        .devices(vec![oci::LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build()?])
        .pids(oci::LinuxPidsBuilder::default().limit(limits.pids.min(i64::MAX as u64) as i64).build()?);
    if let Some(bytes) = limits.memory_bytes {
        let bytes = bytes.min(i64::MAX as u64) as i64;
        let mut memory = oci::LinuxMemoryBuilder::default().limit(bytes);
        if swap_is_counted() {
            // Memory and swap together: no swap beyond the limit.
            memory = memory.swap(bytes);
        }
        resources = resources.memory(memory.build()?);
    }
    if let Some(millis) = limits.cpu_millis {
        let quota = millis.saturating_mul(PERIOD_US / 1000).clamp(QUOTA_US_MIN, i64::MAX as u64) as i64;
        resources = resources.cpu(oci::LinuxCpuBuilder::default().period(PERIOD_US).quota(quota).build()?);
    }
    resources.build()
}

/// Whether the kernel accounts for swap: setting a limit that it does not keep fails the start.
fn swap_is_counted() -> bool {
    let Ok(hierarchies) = super::cgroup::Hierarchies::find() else { return false };
    let Some(memory) = hierarchies.of("memory") else { return false };
    let v1 = memory.join("memory.memsw.limit_in_bytes").exists();
    let v2 = || {
        let children = fs::read_dir(memory).into_iter().flatten().flatten();
        children.take(64).any(|child| child.path().join("memory.swap.max").exists())
    };
    v1 || (hierarchies.is_unified() && v2())
}

fn mounts(plan: &Plan) -> Result<Vec<oci::Mount>, OciSpecError> {
    let of = |kind: &str, at: &str, options: &str| {
        oci::MountBuilder::default()
            .typ(kind)
            .source(kind)
            .destination(at)
            .options(options.split(',').map(str::to_owned).collect::<Vec<_>>())
            .build()
    };
    let mut mounts = vec![
        of("proc", "/proc", "nosuid,noexec,nodev")?,
        of("tmpfs", "/dev", "nosuid,strictatime,mode=755,size=65536k")?,
        of("devpts", "/dev/pts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5")?,
        of("tmpfs", "/dev/shm", "nosuid,noexec,nodev,mode=1777,size=65536k")?,
        of("mqueue", "/dev/mqueue", "nosuid,noexec,nodev")?,
        of("sysfs", "/sys", "nosuid,noexec,nodev,ro")?,
    ];
    if plan.digest().is_some() {
        // On the machine's network a task finds names as the machine does.
        for name in ["hosts", "resolv.conf"] {
            let from = plan.etc.join(name);
            if from.exists() {
                let at = format!("/etc/{name}");
                let mount = oci::MountBuilder::default().typ("bind").source(from).destination(at);
                mounts.push(mount.options(["bind", "ro", "nosuid", "nodev"].map(str::to_owned).to_vec()).build()?);
            }
        }
    }
    Ok(mounts)
}

/// The last steps inside the container before the task's own program.
#[derive(Clone)]
struct Program {
    /// This process's parent-to-be: readable once it is dead.
    shim: Arc<OwnedFd>,
}

impl workload::Executor for Program {
    fn validate(&self, _: &oci::Spec) -> Result<(), workload::ExecutorValidationError> {
        let fail = |what: &str, errno: Errno| {
            workload::ExecutorValidationError::ArgValidationError(format!("{what}: {errno}"))
        };
        // After the change of user, which would clear it again.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(|errno| fail("parent-death signal", errno))?;
        if is_readable(self.shim.as_raw_fd()) {
            return Err(fail("the shim is gone", Errno::ESRCH));
        }
        // The Rust runtime ignores SIGPIPE; a task begins with everything at its default.
        for number in 1..=31 {
            if let Ok(which) = Signal::try_from(number)
                && !matches!(which, Signal::SIGKILL | Signal::SIGSTOP)
            {
                // SAFETY: the default disposition runs none of our code.
                let _ = unsafe { signal(which, SigHandler::SigDfl) };
            }
        }
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(|errno| fail("signal mask", errno))
    }

    /// Never returns: the codes are those of a shell and of docker.
    fn exec(&self, spec: &oci::Spec) -> Result<(), workload::ExecutorError> {
        let arguments = spec.process().as_ref().and_then(|process| process.args().clone()).unwrap_or_default();
        let as_c: Result<Vec<_>, _> = arguments.iter().map(|word| std::ffi::CString::new(word.as_str())).collect();
        let errno = match as_c {
            Ok(words) if !words.is_empty() => execvp(&words[0], &words).err().unwrap_or(Errno::EINVAL),
            _ => Errno::EINVAL,
        };
        let name = arguments.first().map_or("", String::as_str);
        let (code, why) = match errno {
            Errno::ENOENT | Errno::ENOTDIR => (127, "not found".to_owned()),
            Errno::EACCES => (126, "permission denied".to_owned()),
            other => (126, other.desc().to_owned()),
        };
        eprintln!("rialto: {name}: {why}");
        // SAFETY: ends this process at once; nothing of the shim's that it copied may run.
        unsafe { libc::_exit(code) }
    }
}

fn is_readable(fd: RawFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    // SAFETY: the descriptor is open for as long as the `Arc` that lent its number.
    let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1))
}
