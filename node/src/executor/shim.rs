//! The shim: one small process for each task, the same program executed again (`rialtod shim
//! FOLDER`), in its own session and with a single thread. It makes the container, holds its
//! streams, waits for its end and writes down how it ended. It needs no daemon: daemons come and
//! go, and find it by the control socket in the task's folder.
//!
//! It is given the control socket's door as descriptor 0, opened by the daemon, so that there is
//! no moment at which a shim lives and its door is closed.

mod guests;
mod lease;
mod output;
mod visitors;
mod watch;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::exit;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, setsid};

use super::cgroup::Hierarchies;
use super::container::{self, Created, Process as FirstProcess, Streams};
use super::control::State;
use super::folder::{Exit, Folder, Image, Layers, Life, Plan, VERSION};
use super::log_file::Stream;
use super::process::{Pidfd, Process, boot_id, wall_ms};
use super::userns::{self, Users};
use super::{identity, mounts, rootfs};
use guests::Guests;
use lease::Ending;
use output::Outputs;
use rialto_protocol::model::Container;
use visitors::Visitors;
use watch::Watch;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a shim. `args` is what follows `shim` on the command line: the task's folder. To be called
/// before the process has a second thread.
pub fn shim_main(mut args: impl Iterator<Item = OsString>) -> ! {
    let Some(folder) = args.next() else {
        eprintln!("rialtod shim is started by the peer itself, with the folder of a task");
        exit(2);
    };
    match run(&Folder::at(folder)) {
        Ok(()) => exit(0),
        Err(error) => {
            eprintln!("{error}");
            exit(1);
        }
    }
}

fn run(folder: &Folder) -> io::Result<()> {
    let _ = setsid();
    // SAFETY: nothing in this process has opened a descriptor above 2 yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    // SAFETY: sets a number.
    unsafe { libc::umask(0o022) };
    let door = take_door()?;
    let mut plan = folder.read_plan()?;
    if plan.remap.is_some() {
        plan.bench = userns::bench(&plan, folder.path())?;
    }
    let gift = mounts::take_gift(&plan)?;
    if plan.version != VERSION {
        return Err(io::Error::other(format!("this plan is of version {}", plan.version)));
    }
    let me = Process::of(std::process::id() as i32).ok_or_else(|| io::Error::other("/proc is not mounted"))?;
    let mut life = Life { version: VERSION, boot_id: boot_id()?, shim: me, init: None, started_at: None };
    folder.write_life(&life)?;
    folder.reserve_exit()?;
    let hierarchies = Hierarchies::find()?;
    let mut visitors = Visitors::new(door);

    let exit = match start(folder, &plan, gift, &mut life, &hierarchies) {
        Ok(task) => {
            visitors.set(State::Running { started_at: life.started_at.unwrap_or_default(), digest: plan.digest() });
            let watch = Watch {
                init: task.init,
                pidfd: &task.pidfd,
                stop_signal: plan.stop_signal(),
                outputs: task.outputs,
                guests: task.guests,
                visitors: &mut visitors,
                lease: task.lease,
            };
            let (code, expired) = watch.until_end();
            // Who hears of the end finds them free.
            drop(task.held);
            let oom_killed = hierarchies.oom_kills(&plan.cgroup) > 0;
            Exit { version: VERSION, exit_code: Some(code), oom_killed, expired, ended_at: wall_ms(), reason: None }
        }
        Err(reason) => {
            kill_all(&hierarchies, &plan);
            Exit::failed(reason)
        }
    };
    folder.write_exit(&exit)?;
    remove_cgroup(&hierarchies, &plan);
    visitors.set(State::Ended { exit });
    // Its mounts are no hindrance: they lie elsewhere, and go with this process.
    folder.clear();
    Ok(())
}

/// The control socket's door came as descriptor 0, which becomes what a program expects there.
fn take_door() -> io::Result<UnixListener> {
    // SAFETY: descriptor 0 is the daemon's gift, and nothing else in this process uses it.
    let given = unsafe { std::os::fd::BorrowedFd::borrow_raw(0) };
    let door = given.try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    let door = UnixListener::from(door);
    door.set_nonblocking(true)?;
    door.local_addr()?;
    Ok(door)
}

struct Task {
    init: Pid,
    pidfd: Pidfd,
    outputs: Outputs,
    guests: Guests,
    lease: Option<Ending>,
    held: Vec<mounts::Held>,
}

fn start(
    folder: &Folder,
    plan: &Plan,
    gift: BTreeMap<usize, Vec<u8>>,
    life: &mut Life,
    hierarchies: &Hierarchies,
) -> Result<Task, String> {
    let users = plan.remap.map(Users::make).transpose().map_err(|error| format!("its users: {error}"))?;
    let root = rootfs::assemble(folder, plan, users.as_ref())
        .map_err(|error| format!("its root cannot be mounted: {error}"))?;
    let process = first_process(plan, &root)?;
    let laid = mounts::lay(plan, &root, users.as_ref(), gift)
        .map_err(|error| format!("its volumes cannot be had: {error}"))?;
    let said = |error: io::Error| error.to_string();
    let owner = userns::owner(plan.remap, &process.user).map_err(|error| format!("its user: {error}"))?;
    let own =
        |stream: &OwnedFd| nix::unistd::fchown(stream, Some(owner.into()), None).map_err(|errno| said(errno.into()));
    let pipe = || pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|errno| said(errno.into()));
    let mut reads = Vec::new();
    let (mut input, mut terminal) = (None, None);
    let streams = if plan.container.tty {
        let ends = nix::pty::openpty(None, None).map_err(|errno| said(errno.into()))?;
        for end in [&ends.master, &ends.slave] {
            fcntl(end.as_fd(), FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(|errno| said(errno.into()))?;
        }
        own(&ends.slave)?;
        let copy = |end: &OwnedFd| end.try_clone().map_err(said);
        reads.push((Stream::Stdout, copy(&ends.master)?));
        input = Some(copy(&ends.master)?).filter(|_| plan.container.stdin_open);
        terminal = Some(ends.master);
        Streams { stdin: copy(&ends.slave)?, stdout: copy(&ends.slave)?, stderr: ends.slave }
    } else {
        let ((stdout, stdout_in), (stderr, stderr_in)) = (pipe()?, pipe()?);
        reads.extend([(Stream::Stdout, stdout), (Stream::Stderr, stderr)]);
        let stdin = match plan.container.stdin_open {
            true => {
                let (stdin, ours) = pipe()?;
                own(&stdin)?;
                input = Some(ours);
                stdin
            }
            false => File::open("/dev/null").map_err(said)?.into(),
        };
        // Programs open them by name, too: `/dev/stderr` is a log file to many.
        [&stdout_in, &stderr_in].into_iter().try_for_each(own)?;
        Streams { stdin, stdout: stdout_in, stderr: stderr_in }
    };
    let guests = Guests::new(input, terminal).map_err(said)?;
    hierarchies.hold(&plan.cgroup).map_err(|error| format!("its cgroup cannot be made: {error}"))?;
    let made = container::create(folder, plan, &root, &laid, users.as_ref(), process, streams);
    let mut created = made.map_err(|error| format!("its container cannot be made: {error}"))?;
    container::keep_to_devices(plan, hierarchies).map_err(|error| error.to_string())?;
    let outputs = Outputs::new(folder, plan.log_bytes_max, reads);
    let outputs = outputs.map_err(|error| format!("its log cannot be written: {error}"))?;
    let lease = lease_of(folder, plan)?;
    let (init, pidfd) = begin(folder, life, &mut created)?;
    Ok(Task { init, pidfd, outputs, guests, lease, held: laid.held })
}

/// The lease of a task that runs under one, as it stands now: to make a container takes time.
fn lease_of(folder: &Folder, plan: &Plan) -> Result<Option<Ending>, String> {
    if !plan.leased {
        return Ok(None);
    }
    let lease = folder.read_lease().map_err(|error| format!("its lease cannot be read: {error}"))?;
    if Ending::is_over(&lease) {
        return Err("its lease ended before it could start".into());
    }
    Ending::of(lease).map(Some).map_err(|error| format!("the end of its lease cannot be waited for: {error}"))
}

fn begin(folder: &Folder, life: &mut Life, created: &mut Created) -> Result<(Pid, Pidfd), String> {
    let said = |error: io::Error| error.to_string();
    let pid = created.pid().ok_or("its container has no process")?;
    let pidfd = Pidfd::of(pid).map_err(said)?;
    // The machine's own services outlive a task when memory is short; to go up is always allowed.
    let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), "200");
    life.init = Process::of(pid);
    life.started_at = Some(wall_ms());
    folder.write_life(life).map_err(said)?;
    created.start().map_err(|error| format!("its container does not start: {error}"))?;
    Ok((Pid::from_raw(pid), pidfd))
}

fn first_process(plan: &Plan, root: &std::path::Path) -> Result<FirstProcess, String> {
    let own = plan.environment.iter().map(|(name, value)| format!("{name}={value}"));
    let Container { entrypoint: own_entrypoint, working_dir: own_dir, user: own_user, group_add, .. } = &plan.container;
    let mut process = match &plan.image {
        Image::Host => FirstProcess {
            arguments: own_entrypoint.iter().flatten().chain(&plan.command).cloned().collect(),
            environment: sound(own.collect()),
            working_dir: own_dir.clone().unwrap_or_else(|| "/".into()),
            user: identity::user_of(root, own_user.as_deref().unwrap_or_default())?,
        },
        Image::Layers(image) => {
            let Layers { entrypoint, command, environment, working_dir, user, .. } = image.as_ref();
            let name_of = |line: &String| line.split('=').next().unwrap_or_default().to_owned();
            let kept = environment.iter().filter(|line| !plan.environment.contains_key(&name_of(line))).cloned();
            let none = Vec::new();
            let (entrypoint, command) = match own_entrypoint {
                // Another entrypoint does not understand the image's command.
                Some(own) if plan.command.is_empty() => (own, &none),
                Some(own) => (own, &plan.command),
                None if plan.command.is_empty() => (entrypoint, command),
                None => (entrypoint, &plan.command),
            };
            let working_dir = own_dir.as_ref().unwrap_or(working_dir);
            let working_dir = if working_dir.is_empty() { "/" } else { working_dir };
            identity::make_working_dir(root, plan.remap, working_dir)
                .map_err(|error| format!("its working folder {working_dir:?} cannot be made: {error}"))?;
            FirstProcess {
                arguments: entrypoint.iter().chain(command).cloned().collect(),
                environment: sound(kept.chain(own).collect()),
                working_dir: working_dir.to_owned(),
                user: identity::user_of(root, own_user.as_ref().unwrap_or(user))?,
            }
        }
    };
    for group in group_add {
        process.user.groups.push(identity::group_of(root, group)?);
    }
    if process.arguments.is_empty() {
        return Err("it has no command: neither its service nor its image names one".into());
    }
    Ok(process)
}

/// The environment without what no environment can hold, and never without a PATH.
fn sound(mut environment: Vec<String>) -> Vec<String> {
    environment.retain(|line| !line.contains('\0') && line.find('=').is_some_and(|length| length > 0));
    if !environment.iter().any(|line| line.starts_with("PATH=")) {
        environment.push(DEFAULT_PATH.into());
    }
    environment
}

/// Ends what was made of a container that will not run.
fn kill_all(hierarchies: &Hierarchies, plan: &Plan) {
    for pid in hierarchies.processes(&plan.cgroup) {
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
    // They are children of this process; when the last is waited for, none is left.
    while waitpid(None, None).is_ok() {}
}

fn remove_cgroup(hierarchies: &Hierarchies, plan: &Plan) {
    // Whatever the library left unwaited for would keep the cgroup.
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive) {}
    if hierarchies.remove(&plan.cgroup) {
        hierarchies.remove_parents(&plan.cgroup);
    }
}
