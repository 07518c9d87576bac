//! The shim: one small process for each task, the same program executed again (`rialtod shim
//! FOLDER`), in its own session and with a single thread. It makes the container, holds its
//! streams, waits for its end and writes down how it ended. It needs no daemon: daemons come and
//! go, and find it by the control socket in the task's folder.
//!
//! It is given the control socket's door as descriptor 0, opened by the daemon, so that there is
//! no moment at which a shim lives and its door is closed.

mod output;
mod visitors;
mod watch;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::exit;

use nix::libc;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, pipe2, setsid};

use super::cgroup::Hierarchies;
use super::container::{self, Created, Process as FirstProcess, Streams};
use super::control::State;
use super::folder::{Exit, Folder, Image, Layers, Life, Plan, VERSION};
use super::process::{Pidfd, Process, boot_id, wall_ms};
use super::{identity, rootfs};
use output::Outputs;
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
    let plan = folder.read_plan()?;
    if plan.version != VERSION {
        return Err(io::Error::other(format!("this plan is of version {}", plan.version)));
    }
    let me = Process::of(std::process::id() as i32).ok_or_else(|| io::Error::other("/proc is not mounted"))?;
    let mut life = Life { version: VERSION, boot_id: boot_id()?, shim: me, init: None, started_at: None };
    folder.write_life(&life)?;
    let hierarchies = Hierarchies::find()?;
    let mut visitors = Visitors::new(door);

    let exit = match start(folder, &plan, &mut life, &hierarchies) {
        Ok(task) => {
            visitors.set(State::Running { started_at: life.started_at.unwrap_or_default(), digest: plan.digest() });
            let watch = Watch {
                init: task.init,
                pidfd: &task.pidfd,
                stop_signal: plan.stop_signal(),
                outputs: task.outputs,
                visitors: &mut visitors,
            };
            let code = watch.until_end();
            let oom_killed = hierarchies.oom_kills(&plan.cgroup) > 0;
            Exit { version: VERSION, exit_code: Some(code), oom_killed, ended_at: wall_ms(), reason: None }
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
}

fn start(folder: &Folder, plan: &Plan, life: &mut Life, hierarchies: &Hierarchies) -> Result<Task, String> {
    let root = rootfs::assemble(folder, plan).map_err(|error| format!("its root cannot be mounted: {error}"))?;
    let process = first_process(plan, &root)?;
    let said = |error: io::Error| error.to_string();
    let pipe = || pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|errno| said(errno.into()));
    let ((stdout, stdout_in), (stderr, stderr_in)) = (pipe()?, pipe()?);
    let stdin: OwnedFd = File::open("/dev/null").map_err(said)?.into();
    hierarchies.hold(&plan.cgroup).map_err(|error| format!("its cgroup cannot be made: {error}"))?;
    let streams = Streams { stdin, stdout: stdout_in, stderr: stderr_in };
    let made = container::create(plan, &root, process, streams);
    let mut created = made.map_err(|error| format!("its container cannot be made: {error}"))?;
    let outputs = Outputs::new(folder, plan.log_bytes_max, stdout, stderr);
    let outputs = outputs.map_err(|error| format!("its log cannot be written: {error}"))?;
    let (init, pidfd) = begin(folder, life, &mut created)?;
    Ok(Task { init, pidfd, outputs })
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
    let process = match &plan.image {
        Image::Host => FirstProcess {
            arguments: plan.command.clone(),
            environment: sound(own.collect()),
            working_dir: "/".into(),
            user: identity::User::default(),
        },
        Image::Layers(image) => {
            let Layers { entrypoint, command, environment, working_dir, user, .. } = image.as_ref();
            let name_of = |line: &String| line.split('=').next().unwrap_or_default().to_owned();
            let kept = environment.iter().filter(|line| !plan.environment.contains_key(&name_of(line))).cloned();
            let command = if plan.command.is_empty() { command } else { &plan.command };
            let working_dir = if working_dir.is_empty() { "/" } else { working_dir };
            identity::make_working_dir(root, working_dir)
                .map_err(|error| format!("its working folder {working_dir:?} cannot be made: {error}"))?;
            FirstProcess {
                arguments: entrypoint.iter().chain(command).cloned().collect(),
                environment: sound(kept.chain(own).collect()),
                working_dir: working_dir.to_owned(),
                user: identity::user_of(root, user)?,
            }
        }
    };
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
