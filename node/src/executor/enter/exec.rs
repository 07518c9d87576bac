//! Another process in a container, and its client.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use libcontainer::oci_spec::runtime as oci;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, fchown, pipe2};
use rialto_protocol::api::ErrorCode;
use rialto_protocol::session::{Exec, FRAME_BYTES_MAX, Failed, Frame};

use super::join::{self, Program};
use super::talk::{Heard, Talk};
use super::terminal::{self, Terminal};
use super::{Entered, broken, failed};
use crate::executor::identity;
use crate::executor::process::Pidfd;

/// How long a process may go on after its client has gone and its streams were closed.
const AFTER_CLIENT: Duration = Duration::from_secs(10);
/// Input that the process has not taken yet: more is not read before.
const PENDING_MAX: usize = 4 * FRAME_BYTES_MAX;
/// What is still taken of a process's output once it has ended and others hold its streams.
const REST_READS_MAX: usize = 64;

/// Runs it to its end; its code.
pub fn run(entered: &Entered, exec: &Exec, talk: &mut Talk) -> Result<i32, Failed> {
    let root = entered.root().map_err(broken("the container's root"))?;
    let spec = oci::Spec::load(entered.folder.description())
        .map_err(|error| failed(ErrorCode::Internal, format!("the container's description: {error}")))?;
    let mut program = program(entered, exec, &spec)?;
    let said = broken("the streams cannot be made");
    let owner = entered.owner(&program.user)?;
    let mut ends = ends(&root, exec, owner, &mut program).map_err(said)?;
    let (complaint, complaints) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| broken("a pipe")(errno.into()))?;
    let pid = join::start(entered, &program, &spec, &complaints).map_err(|error| {
        let told = told(&complaint);
        failed(ErrorCode::Conflict, if told.is_empty() { error.to_string() } else { told })
    })?;
    // The other ends are the process's alone.
    drop((program, complaints));
    let pidfd = Pidfd::of(pid.as_raw()).map_err(broken("the process"))?;
    ends.carry(talk, &pidfd);
    let code = wait(pid);
    let told = told(&complaint);
    if !told.is_empty() {
        let _ = talk.say(&Frame::ErrorOutput(format!("rialto: {told}\n").into_bytes()));
    }
    Ok(code)
}

fn program(entered: &Entered, exec: &Exec, spec: &oci::Spec) -> Result<Program, Failed> {
    let invalid = |message: String| failed(ErrorCode::Invalid, message);
    if exec.command.first().is_none_or(String::is_empty) {
        return Err(invalid("there is no command".into()));
    }
    let words = exec.command.iter().chain(&exec.environment).chain(&exec.user).chain(&exec.working_dir);
    if words.into_iter().any(|word| word.contains('\0')) {
        return Err(invalid("no word can hold a NUL".into()));
    }
    let own = spec.process().as_ref().ok_or_else(|| invalid("the container has no process".into()))?;
    let name_of = |line: &String| line.split('=').next().unwrap_or_default().to_owned();
    let added: Vec<String> = exec.environment.iter().map(name_of).collect();
    let mut environment: Vec<String> =
        own.env().iter().flatten().filter(|line| !added.contains(&name_of(line))).cloned().collect();
    environment.extend(exec.environment.iter().cloned());
    if exec.terminal.is_some() && !environment.iter().any(|line| line.starts_with("TERM=")) {
        environment.push("TERM=xterm".into());
    }
    let user = match &exec.user {
        Some(user) => identity::user_of(format!("/proc/{}/root", entered.init).as_ref(), user).map_err(invalid)?,
        None => identity::User {
            uid: own.user().uid(),
            gid: own.user().gid(),
            groups: own.user().additional_gids().clone().unwrap_or_default(),
        },
    };
    let working_dir = exec.working_dir.clone().unwrap_or_else(|| own.cwd().display().to_string());
    let none = || File::open("/dev/null").map(OwnedFd::from).map_err(broken("/dev/null"));
    let streams = [none()?, none()?, none()?];
    let terminal = exec.terminal.is_some();
    Ok(Program { arguments: exec.command.clone(), environment, working_dir, user, streams, terminal })
}

/// This side of the process's streams.
struct Ends {
    input: Option<File>,
    /// Standard output, or everything that a terminal shows; and standard error.
    outputs: Vec<(bool, File)>,
    master: Option<OwnedFd>,
    pending: Vec<u8>,
    input_ended: bool,
}

/// Makes the streams: the process's ends go into `program`. `owner`: as the machine calls it.
fn ends(root: &File, exec: &Exec, owner: u32, program: &mut Program) -> io::Result<Ends> {
    let mut ends =
        Ends { input: None, outputs: Vec::new(), master: None, pending: Vec::new(), input_ended: !exec.input };
    if let Some(size) = exec.terminal {
        let Terminal { master, slave } = Terminal::open(root, size, owner)?;
        program.streams = [slave.try_clone()?, slave.try_clone()?, slave];
        ends.input = Some(master.try_clone()?.into());
        ends.outputs.push((false, master.try_clone()?.into()));
        ends.master = Some(master);
    } else {
        if exec.input {
            let (stdin, input) = pipe2(OFlag::O_CLOEXEC)?;
            fchown(&stdin, Some(owner.into()), None)?;
            program.streams[0] = stdin;
            ends.input = Some(input.into());
        }
        for (at, is_error) in [(1, false), (2, true)] {
            let (output, stream) = pipe2(OFlag::O_CLOEXEC)?;
            // It may open it by its name, too.
            fchown(&stream, Some(owner.into()), None)?;
            program.streams[at] = stream;
            ends.outputs.push((is_error, output.into()));
        }
    }
    for fd in ends.input.iter().chain(ends.outputs.iter().map(|(_, file)| file)) {
        fcntl(fd.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    Ok(ends)
}

impl Ends {
    /// Carries bytes both ways until the process has ended and what it wrote is told.
    fn carry(&mut self, talk: &mut Talk, pidfd: &Pidfd) {
        let mut client_gone: Option<Instant> = None;
        // What came with the first frame is here already, and nothing will wake for it.
        let held = talk.held().map(|frame| frame.map_or(Heard::Nothing, Heard::Frame));
        let mut stays = self.hear(held, talk, pidfd);
        self.copy_input();
        loop {
            let (heard, ended) = self.wait(talk, pidfd, client_gone);
            if ended {
                // Others may hold its streams for ever: what is there is told, and no more waited for.
                for _ in 0..REST_READS_MAX {
                    if !self.copy_outputs(talk, client_gone.is_some()) {
                        break;
                    }
                }
                return;
            }
            if heard {
                let heard = talk.hear();
                stays &= self.hear(heard, talk, pidfd);
            }
            if !stays && client_gone.is_none() {
                client_gone = Some(Instant::now());
                // A terminal that is gone hangs up on everybody; others are told to end.
                (self.input, self.master) = (None, None);
                self.outputs.clear();
                let _ = pidfd.signal(libc::SIGHUP);
            }
            if client_gone.is_some_and(|since| since.elapsed() >= AFTER_CLIENT) {
                let _ = pidfd.signal(libc::SIGKILL);
            }
            self.copy_input();
            self.copy_outputs(talk, client_gone.is_some());
        }
    }

    /// Waits for anything; whether the client spoke, and whether the process has ended.
    fn wait(&self, talk: &Talk, pidfd: &Pidfd, client_gone: Option<Instant>) -> (bool, bool) {
        let mut fds = vec![PollFd::new(pidfd.0.as_fd(), PollFlags::POLLIN)];
        let listens = client_gone.is_none() && self.pending.len() < PENDING_MAX;
        fds.push(PollFd::new(talk.fd(), if listens { PollFlags::POLLIN } else { PollFlags::empty() }));
        if let Some(input) = self.input.as_ref().filter(|_| !self.pending.is_empty()) {
            fds.push(PollFd::new(input.as_fd(), PollFlags::POLLOUT));
        }
        fds.extend(self.outputs.iter().map(|(_, file)| PollFd::new(file.as_fd(), PollFlags::POLLIN)));
        let timeout = if client_gone.is_some() { PollTimeout::from(1_000_u16) } else { PollTimeout::NONE };
        match poll(&mut fds, timeout) {
            Ok(_) => (listens && fds[1].any().unwrap_or(true), fds[0].any().unwrap_or(true)),
            Err(_) => (false, false),
        }
    }

    /// Takes what the client has said, and what else has come with it; `false`: it has gone.
    fn hear(&mut self, mut heard: io::Result<Heard>, talk: &mut Talk, pidfd: &Pidfd) -> bool {
        loop {
            match heard {
                Ok(Heard::Frame(Frame::Input(bytes))) => self.pending.extend(bytes),
                Ok(Heard::Frame(Frame::InputEnd)) => self.input_ended = true,
                Ok(Heard::Frame(Frame::Resize(size))) => {
                    if let Some(master) = &self.master {
                        let _ = terminal::resize(master, size);
                    }
                }
                Ok(Heard::Frame(Frame::Signal(number))) => drop(pidfd.signal(i32::from(number.min(64)))),
                Ok(Heard::Frame(_)) => return false,
                Ok(Heard::Nothing) => return true,
                Ok(Heard::Gone) | Err(_) => return false,
            }
            heard = talk.held().map(|frame| frame.map_or(Heard::Nothing, Heard::Frame));
        }
    }

    fn copy_input(&mut self) {
        let Some(input) = &mut self.input else {
            return self.pending.clear();
        };
        while !self.pending.is_empty() {
            match input.write(&self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // It reads no more.
                Err(_) => {
                    self.input = None;
                    return self.pending.clear();
                }
            }
        }
        if self.input_ended {
            if let Some(master) = self.input.as_mut().filter(|_| self.master.is_some()) {
                // Of a terminal the end of input is a character.
                let _ = master.write(&[4]);
            }
            self.input = None;
        }
    }

    /// Tells what was written; whether there was anything.
    fn copy_outputs(&mut self, talk: &mut Talk, client_gone: bool) -> bool {
        let mut any = false;
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        self.outputs.retain_mut(|(is_error, file)| match file.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                any = true;
                let bytes = buffer[..count].to_vec();
                let frame = if *is_error { Frame::ErrorOutput(bytes) } else { Frame::Output(bytes) };
                client_gone || talk.say(&frame).is_ok()
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        });
        any
    }
}

fn wait(pid: Pid) -> i32 {
    loop {
        match waitpid(pid, None) {
            Ok(WaitStatus::Exited(_, code)) => return code,
            Ok(WaitStatus::Signaled(_, signal, _)) => return 128 + signal as i32,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return 255,
        }
    }
}

/// What was complained of; nobody writes any more, or soon nobody does.
fn told(complaint: &OwnedFd) -> String {
    const BYTES_MAX: usize = 1024;
    let Ok(file) = complaint.try_clone() else { return String::new() };
    let _ = fcntl(complaint.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
    let mut bytes = vec![0; BYTES_MAX];
    let count = File::from(file).read(&mut bytes).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}
