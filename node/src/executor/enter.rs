//! Entering a container that runs: one small process for each session, the same program executed
//! again (`rialtod enter FOLDER`) with a single thread. Its descriptor 0 is a connection on which
//! the session's client speaks ([`rialto_protocol::session`]); whatever carried it here only
//! carries bytes. The peer's own process never joins a namespace of a task.

mod copy;
mod exec;
mod join;
mod talk;
mod terminal;
mod volume;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::process::exit;

use nix::libc;
use nix::unistd::setsid;
use rialto_protocol::api::ErrorCode;
use rialto_protocol::session::{Failed, Frame, Open};

use super::folder::{Folder, Life, Plan};
use super::identity::User;
use super::process::{Pidfd, boot_id};
use super::userns;
use copy::Owners;
use talk::Talk;

/// Instead of a task's folder: the next arguments are that of a volume, and the task that has it.
pub(super) const VOLUME: &str = "--volume";

/// A container that runs, and its first process, which nobody can mistake.
struct Entered {
    folder: Folder,
    plan: Plan,
    init: i32,
    pidfd: Pidfd,
}

/// Serves one session. `args` is what follows `enter` on the command line: the task's folder. To be
/// called before the process has a second thread.
pub fn enter_main(mut args: impl Iterator<Item = OsString>) -> ! {
    let Some(folder) = args.next() else {
        eprintln!("rialtod enter is started by the peer itself, with the folder of a task");
        exit(2);
    };
    let _ = setsid();
    // SAFETY: nothing in this process has opened a descriptor above 2 yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    let Ok(mut talk) = take_connection() else { exit(1) };
    let served = match (folder == VOLUME, args.next()) {
        (true, Some(folder)) => {
            let user = args.next().unwrap_or_default();
            volume::serve(folder.as_ref(), &user.to_string_lossy(), &mut talk)
        }
        _ => serve(&Folder::at(folder), &mut talk),
    };
    let last = match served {
        Ok(code) => Frame::Ended(code),
        Err(failed) => Frame::Failed(failed),
    };
    // A client that has gone hears nothing, and needs nothing.
    let _ = talk.say_last(&last);
    exit(0)
}

/// The connection came as descriptor 0, which becomes what a program expects there.
fn take_connection() -> io::Result<Talk> {
    // SAFETY: descriptor 0 is the daemon's gift, and nothing else in this process uses it.
    let given = unsafe { std::os::fd::BorrowedFd::borrow_raw(0) };
    let connection = UnixStream::from(given.try_clone_to_owned()?);
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(Talk::new(connection))
}

fn serve(folder: &Folder, talk: &mut Talk) -> Result<i32, Failed> {
    let open = match talk.hear_first() {
        Ok(Frame::Open(open)) => open,
        Ok(_) => return Err(failed(ErrorCode::Invalid, "a session begins by saying what it is for")),
        Err(error) => return Err(failed(ErrorCode::Invalid, error.to_string())),
    };
    let entered = Entered::find(folder)?;
    match open {
        Open::Exec(exec) => exec::run(&entered, &exec, talk),
        Open::Read { path } => copy::read(&entered.files()?, &path, talk).map(|()| 0),
        Open::Write { path, kept } => {
            let owners = if kept { Owners::Kept } else { Owners::Root };
            copy::write(&entered.files()?, &path, owners, talk).map(|()| 0)
        }
        Open::Attach { .. } => Err(failed(ErrorCode::Invalid, "the shim is whom to attach to")),
    }
}

impl Entered {
    fn find(folder: &Folder) -> Result<Self, Failed> {
        let gone = |_| failed(ErrorCode::Conflict, "the task does not run");
        let Life { boot_id: boot, init, .. } = folder.read_life().map_err(gone)?;
        let same_boot = boot_id().is_ok_and(|now| now == boot);
        let init = init.filter(|_| same_boot && folder.read_exit().is_err());
        let pidfd = init.and_then(|init| init.open()).ok_or_else(|| gone(io::ErrorKind::NotFound.into()))?;
        let plan = folder.read_plan().map_err(gone)?;
        Ok(Self { folder: folder.clone(), plan, init: init.map_or(0, |init| init.pid), pidfd })
    }

    /// The container's root folder, as its first process sees it.
    fn root(&self) -> io::Result<File> {
        let root = File::open(format!("/proc/{}/root", self.init))?;
        // The pid may have been somebody else's by then, unless the container still lives now.
        match self.pidfd.wait(0) {
            true => Err(io::Error::new(io::ErrorKind::NotFound, "the task has ended")),
            false => Ok(root),
        }
    }
}

impl Entered {
    /// The container's root folder, for this process to read and write there as the container's root.
    fn files(&self) -> Result<File, Failed> {
        let root = self.root().map_err(broken("the container's root"))?;
        if self.plan.remap.is_some() {
            userns::become_root(&self.pidfd).map_err(broken("the container's users"))?;
        }
        Ok(root)
    }

    /// What the machine calls a user of the container.
    fn owner(&self, user: &User) -> Result<u32, Failed> {
        userns::owner(self.plan.remap, user).map_err(|error| failed(ErrorCode::Invalid, error.to_string()))
    }
}

fn failed(code: ErrorCode, message: impl Into<String>) -> Failed {
    Failed { code, message: message.into() }
}

fn broken(what: &str) -> impl Fn(io::Error) -> Failed + '_ {
    move |error| failed(ErrorCode::Internal, format!("{what}: {error}"))
}
