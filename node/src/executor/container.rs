//! One container by libcontainer, which nothing else here knows of. Only a shim may call this: the
//! library forks and changes the working directory of its whole process.

use std::collections::HashMap;
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

use super::cgroup::Hierarchies;
use super::folder::{Folder, Plan};
use super::identity::User;
use super::mounts::{Laid, Mounted};
use super::process::Pidfd;
use super::userns::Users;
use super::{device_program, init, options, prepared};

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
pub fn create(
    folder: &Folder,
    plan: &Plan,
    root: &Path,
    laid: &Laid,
    users: Option<&Users>,
    process: Process,
    streams: Streams,
) -> Result<Created, ContainerError> {
    set_network(plan)?;
    let description = describe(plan, root, laid, users, process)?;
    description.save(plan.bench.join("config.json"))?;
    // Who enters the container later is bound as its first process is.
    description.save(folder.description())?;
    let program = Program {
        shim: Arc::new(Pidfd::of(std::process::id() as i32)?.0),
        init: plan.container.init,
        terminal: plan.container.tty,
    };
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

/// Keeps a container to its devices where the library does not: on version 2 of cgroups. Before it is let go. A kernel
/// that takes no such programs still runs what cannot make device files: it has its own and no others.
pub fn keep_to_devices(plan: &Plan, hierarchies: &Hierarchies) -> Result<(), ContainerError> {
    let Some(cgroup) = hierarchies.alone(&plan.cgroup, "devices").filter(|_| !plan.container.privileged) else {
        return Ok(());
    };
    let makes_devices = plan.container.cap_add.iter().any(|name| name == "MKNOD" || name == "ALL");
    match device_program::attach(&cgroup, &options::device_rules(&plan.container)?) {
        Err(error) if makes_devices => {
            let why = "it may make device files (MKNOD), and this kernel cannot keep it from opening them";
            Err(io::Error::new(error.kind(), format!("{why}: {error}")).into())
        }
        _ => Ok(()),
    }
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

fn describe(
    plan: &Plan,
    root: &Path,
    laid: &Laid,
    users: Option<&Users>,
    process: Process,
) -> Result<oci::Spec, ContainerError> {
    use oci::LinuxNamespaceType as Namespace;
    let kinds = [Namespace::Pid, Namespace::Mount, Namespace::Ipc, Namespace::Uts, Namespace::Cgroup];
    let own = kinds.map(|kind| oci::LinuxNamespaceBuilder::default().typ(kind).build());
    // One that is there already: the library would want systemd for one that it makes itself.
    let of_users =
        users.map(|users| oci::LinuxNamespaceBuilder::default().typ(Namespace::User).path(users.path()).build());
    let owned = |paths: &[&str]| paths.iter().map(|path| path.to_string()).collect::<Vec<_>>();
    let privileged = plan.container.privileged;
    let mut linux = oci::LinuxBuilder::default()
        .namespaces(of_users.into_iter().chain(own).collect::<Result<Vec<_>, _>>()?)
        .cgroups_path(&plan.cgroup)
        .resources(resources(plan)?)
        .devices(if users.is_some() { Vec::new() } else { options::devices(&plan.container)? })
        .sysctl(
            plan.container.sysctls.clone().into_iter().filter(|(name, _)| !of_network(name)).collect::<HashMap<_, _>>(),
        )
        .masked_paths(owned(if privileged {
            &[]
        } else {
            &[
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
            ]
        }))
        .readonly_paths(owned(if privileged {
            &[]
        } else {
            &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }))
        .build()?;
    linux.set_seccomp(options::calls(&plan.container)?);
    let spec = oci::SpecBuilder::default()
        .version("1.0.2")
        .root(oci::RootBuilder::default().path(root).readonly(plan.container.read_only).build()?)
        .hostname(&plan.hostname)
        .mounts(mounts(plan, laid, users)?)
        .process(first_process(plan, process)?)
        .linux(linux)
        .build()?;
    Ok(spec)
}

fn of_network(name: &str) -> bool {
    name.starts_with("net.")
}

/// Settings of the kernel for the task's own network. This process lives in it, with the rights that it takes.
fn set_network(plan: &Plan) -> Result<(), ContainerError> {
    for (name, value) in plan.container.sysctls.iter().filter(|(name, _)| of_network(name)) {
        let wrong = |why: String| ContainerError::Build(format!("{name} cannot be set: {why}"));
        if plan.names.is_none() {
            return Err(wrong("the task has the machine's network".into()));
        }
        let file = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(file, value).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(())
}

fn first_process(plan: &Plan, process: Process) -> Result<oci::Process, ContainerError> {
    let user = oci::UserBuilder::default()
        .uid(process.user.uid)
        .gid(process.user.gid)
        .additional_gids(process.user.groups)
        .build()?;
    let limits = options::rlimits(&plan.container)?;
    if plan.remap.is_some() {
        limits.iter().try_for_each(options::raise)?;
    }
    let mut built = oci::ProcessBuilder::default()
        .terminal(false)
        .args(process.arguments)
        .env(process.environment)
        .cwd(process.working_dir)
        .capabilities(options::capabilities(&plan.container, process.user.uid == 0, plan.remap.is_some())?)
        .rlimits(limits)
        .user(user)
        .no_new_privileges(true)
        .build()?;
    if plan.container.gains_privileges {
        // Only a process without the word on it loads its filter while it still may.
        built.set_no_new_privileges(None);
    }
    Ok(built)
}

fn resources(plan: &Plan) -> Result<oci::LinuxResources, ContainerError> {
    let limits = &plan.limits;
    const PERIOD_US: u64 = 100_000;
    // The kernel takes no quota below 1 ms.
    const QUOTA_US_MIN: u64 = 1_000;
    let mut resources = oci::LinuxResourcesBuilder::default()
        .devices(options::device_rules(&plan.container)?)
        .pids(oci::LinuxPidsBuilder::default().limit(limits.pids.min(i64::MAX as u64) as i64).build()?);
    if let Some(bytes) = limits.memory_bytes {
        let bytes = bytes.min(i64::MAX as u64) as i64;
        let mut memory = oci::LinuxMemoryBuilder::default().limit(bytes);
        // No swap beyond the limit; one that the kernel does not keep would fail the start.
        let hierarchies = Hierarchies::find()?;
        match hierarchies.counts_swap(&plan.cgroup) {
            // Swap alone. The library takes a swap of nothing for none said, and leaves it unlimited.
            true if hierarchies.is_unified() => {
                resources = resources.unified(HashMap::from([("memory.swap.max".to_owned(), "0".to_owned())]));
            }
            // Memory and swap together.
            true => memory = memory.swap(bytes),
            false => {}
        }
        resources = resources.memory(memory.build()?);
    }
    if let Some(millis) = limits.cpu_millis {
        let quota = millis.saturating_mul(PERIOD_US / 1000).clamp(QUOTA_US_MIN, i64::MAX as u64) as i64;
        resources = resources.cpu(oci::LinuxCpuBuilder::default().period(PERIOD_US).quota(quota).build()?);
    }
    Ok(resources.build()?)
}

fn mounts(plan: &Plan, laid: &Laid, users: Option<&Users>) -> Result<Vec<oci::Mount>, ContainerError> {
    let of = |kind: &str, at: &str, options: &str| {
        oci::MountBuilder::default()
            .typ(kind)
            .source(kind)
            .destination(at)
            .options(options.split(',').map(str::to_owned).collect::<Vec<_>>())
            .build()
    };
    let shm_bytes = plan.container.shm_bytes.unwrap_or(64 << 20);
    let sys = if plan.container.privileged { "nosuid,noexec,nodev" } else { "nosuid,noexec,nodev,ro" };
    let mut mounts = vec![
        of("proc", "/proc", "nosuid,noexec,nodev")?,
        of("tmpfs", "/dev", "nosuid,strictatime,mode=755,size=65536k")?,
        of("devpts", "/dev/pts", "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5")?,
        of("tmpfs", "/dev/shm", &format!("nosuid,noexec,nodev,mode=1777,size={shm_bytes}"))?,
        of("mqueue", "/dev/mqueue", "nosuid,noexec,nodev")?,
    ];
    let bound = |from: &Path, at: &Path, options: &[&str]| {
        let mount = oci::MountBuilder::default().typ("bind").source(from).destination(at);
        mount.options(options.iter().map(|option| option.to_string()).collect::<Vec<_>>()).build()
    };
    match users {
        None => mounts.push(of("sysfs", "/sys", sys)?),
        // What only the machine's root can make is made by this process.
        Some(_) => {
            prepared::processes(&plan.bench)?;
            mounts.push(bound(&prepared::system(&plan.bench)?, Path::new("/sys"), &["rbind", "rprivate", "ro"])?);
            for (from, at) in prepared::devices(plan)? {
                mounts.push(bound(&from, &at, &["bind", "rprivate"])?);
            }
        }
    }
    for name in &laid.names {
        mounts.push(bound(&name.from, Path::new(&name.at), &["bind", "ro", "nosuid", "nodev"])?);
    }
    let mut own = options::mounts(&plan.container)?;
    for Mounted { from, at, read_only, .. } in &laid.mounts {
        // What is mounted below has these already: a shim lays nothing else.
        let options = ["rbind", "rprivate", "nodev", if *read_only { "ro" } else { "rw" }];
        own.push(bound(from, Path::new(at), &options)?);
    }
    // What lies within another is mounted after it.
    own.sort_by_key(|mount| mount.destination().components().count());
    mounts.extend(own);
    Ok(mounts)
}

/// The last steps inside the container before the task's own program.
#[derive(Clone)]
struct Program {
    /// This process's parent-to-be: readable once it is dead.
    shim: Arc<OwnedFd>,
    /// A small init goes before the task's program.
    init: bool,
    /// Its streams are a terminal, which it is to control.
    terminal: bool,
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
        if self.terminal {
            // SAFETY: the request takes no pointer. Without it the terminal serves, but sends no signals.
            let _ = unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) };
        }
        if self.init {
            init::go_before();
        }
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
