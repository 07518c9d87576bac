//! Becoming a process of a container: its cgroups, its namespaces, and then, in a child, everything
//! that binds its first process: user, limits, rights, system calls.

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};

use libcontainer::capabilities;
use libcontainer::oci_spec::runtime as oci;
use libcontainer::syscall::syscall::create_syscall;
use nix::errno::Errno;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::{set_dumpable, set_no_new_privs, set_pdeathsig};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{Pid, execvpe};

use super::Entered;
use crate::executor::cgroup::Hierarchies;
use crate::executor::identity::User;
use crate::executor::options;

/// What the process is to be.
pub struct Program {
    pub arguments: Vec<String>,
    pub environment: Vec<String>,
    pub working_dir: String,
    pub user: User,
    /// Its standard streams.
    pub streams: [OwnedFd; 3],
    /// They are a terminal.
    pub terminal: bool,
}

/// Starts a process in the container; its parent is this process, and dies with it. What went wrong before the
/// program was reached is written into `complaints` and ends the process with 126 or 127.
pub fn start(entered: &Entered, program: &Program, spec: &oci::Spec, complaints: &OwnedFd) -> io::Result<Pid> {
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // A process in between joins: this one stays outside, where it is neither seen nor counted.
    match raw_clone(libc::SIGCHLD)? {
        0 => {
            let code = match join(entered, spec).and_then(|()| raw_clone(libc::CLONE_PARENT | libc::SIGCHLD)) {
                Ok(0) => become_program(program, spec, complaints),
                Ok(pid) => i32::from(write_all(&write, &pid.to_ne_bytes()).is_err()),
                Err(error) => {
                    let _ = write_all(complaints, error.to_string().as_bytes());
                    1
                }
            };
            // SAFETY: ends this process at once; nothing that it copied may run.
            unsafe { libc::_exit(code) }
        }
        between => {
            drop(write);
            let mut bytes = [0; 4];
            let came = io::Read::read_exact(&mut std::fs::File::from(read), &mut bytes);
            let _ = nix::sys::wait::waitpid(Pid::from_raw(between), None);
            came.map_err(|_| io::Error::other("the container cannot be entered"))?;
            Ok(Pid::from_raw(i32::from_ne_bytes(bytes)))
        }
    }
}

/// `fork`, with flags: 0 in the child.
fn raw_clone(flags: i32) -> io::Result<i32> {
    // SAFETY: without a stack of its own and without shared memory this is fork; the process has one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_ulong, 0, 0, 0, 0) };
    Ok(Errno::result(pid)? as i32)
}

fn write_all(to: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    std::fs::File::from(to.try_clone()?).write_all(bytes)
}

fn join(entered: &Entered, spec: &oci::Spec) -> io::Result<()> {
    // Nothing in the container may look into a process that still knows the machine.
    set_dumpable(false)?;
    let hierarchies = Hierarchies::find()?;
    hierarchies.join(&entered.plan.cgroup).map_err(|error| io::Error::other(format!("its cgroup: {error}")))?;
    let all = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWCGROUP;
    let users = if entered.plan.remap.is_some() { CloneFlags::CLONE_NEWUSER } else { CloneFlags::empty() };
    if !users.is_empty() {
        // Afterwards this process has no right to it.
        let limits = spec.process().as_ref().and_then(|process| process.rlimits().as_ref());
        limits.into_iter().flatten().try_for_each(options::raise)?;
    }
    setns(&entered.pidfd.0, all | users).map_err(|errno| io::Error::other(format!("its namespaces: {}", errno.desc())))
}

/// Never returns but by a code: the program's own code follows from then on.
fn become_program(program: &Program, spec: &oci::Spec, complaints: &OwnedFd) -> i32 {
    let (code, why) = match bind(program, spec) {
        Err(error) => (126, format!("{}: {error}", program.arguments[0])),
        Ok(()) => {
            let as_c = |words: &[String]| {
                words.iter().map(|word| CString::new(word.as_str())).collect::<Result<Vec<_>, _>>().unwrap_or_default()
            };
            let (words, environment) = (as_c(&program.arguments), as_c(&program.environment));
            let name = words.first().cloned().unwrap_or_default();
            // The search is along the PATH that it will have.
            let path = program.environment.iter().find_map(|line| line.strip_prefix("PATH="));
            // SAFETY: the process has one thread.
            unsafe { std::env::set_var("PATH", path.unwrap_or("/usr/local/bin:/usr/bin:/bin")) };
            match execvpe(&name, &words, &environment) {
                Err(Errno::ENOENT | Errno::ENOTDIR) => (127, format!("{}: not found", program.arguments[0])),
                Err(errno) => (126, format!("{}: {}", program.arguments[0], errno.desc().to_lowercase())),
            }
        }
    };
    let _ = write_all(complaints, why.as_bytes());
    code
}

fn bind(program: &Program, spec: &oci::Spec) -> io::Result<()> {
    let failed = |what: &str| {
        let what = what.to_string();
        move |errno: Errno| io::Error::other(format!("{what}: {}", errno.desc()))
    };
    let process = spec.process().as_ref().ok_or_else(|| io::Error::other("its description has no process"))?;
    nix::unistd::setsid().map_err(failed("session"))?;
    for (at, stream) in program.streams.iter().enumerate() {
        // SAFETY: the numbers of the standard streams are this process's to give.
        Errno::result(unsafe { libc::dup2(stream.as_raw_fd(), at as i32) }).map_err(failed("streams"))?;
    }
    if program.terminal {
        // SAFETY: the request takes no pointer.
        Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }).map_err(failed("terminal"))?;
    }
    let system = create_syscall();
    for limit in process.rlimits().iter().flatten() {
        system.set_rlimit(limit).map_err(|error| io::Error::other(format!("limits: {error}")))?;
    }
    // By its own rights, not by those of root: the folder may be closed to it.
    let groups: Vec<libc::gid_t> = program.user.groups.clone();
    // SAFETY: the list is as long as is said.
    Errno::result(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }).map_err(failed("groups"))?;
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    // Whoever enters never gains rights, whatever the container's own programs may: without this word a filter could
    // not be loaded after the rights are gone.
    set_no_new_privs().map_err(failed("no-new-privileges"))?;
    // SAFETY: flags only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }).map_err(failed("rights"))?;
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::setresgid(program.user.gid, program.user.gid, program.user.gid) })
        .map_err(failed("group"))?;
    // SAFETY: numbers only.
    Errno::result(unsafe { libc::setresuid(program.user.uid, program.user.uid, program.user.uid) })
        .map_err(failed("user"))?;
    let lost = |error| io::Error::other(format!("rights: {error}"));
    capabilities::reset_effective(system.as_ref()).map_err(lost)?;
    if let Some(rights) = process.capabilities() {
        let mut rights = rights.clone();
        if program.user.uid != 0 {
            rights.set_effective(Some(Default::default())).set_permitted(Some(Default::default()));
        } else if rights.effective().as_ref().is_none_or(|held| held.is_empty()) {
            // The container's own user is another; root by exec has what the container can have at most.
            let most = rights.bounding().clone();
            rights.set_effective(most.clone()).set_permitted(most);
        }
        capabilities::drop_privileges(&rights, system.as_ref()).map_err(lost)?;
    }
    nix::unistd::chdir(program.working_dir.as_str()).map_err(failed(&format!("folder {}", program.working_dir)))?;
    // After the change of user, which would clear it again.
    set_pdeathsig(Signal::SIGKILL).map_err(failed("parent-death signal"))?;
    for signal_ in Signal::iterator().filter(|one| !matches!(one, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default disposition runs none of our code.
        let _ = unsafe { signal(signal_, SigHandler::SigDfl) };
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None).map_err(failed("signal mask"))?;
    // SAFETY: marks descriptors, to be closed when the program begins.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if let Some(profile) = profile {
        libcontainer::seccomp::initialize_seccomp(profile)
            .map_err(|error| io::Error::other(format!("system calls: {error}")))?;
    }
    Ok(())
}
