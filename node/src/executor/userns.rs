//! Tasks whose users are nobody on the machine: where the setting `userns-remap` says so, each container has a user
//! namespace of its own, in which the users and groups 0, 1, … are FIRST, FIRST + 1, … of the machine. What lies on the
//! disk keeps the numbers that tasks know: image layers and volumes are shown to a container by mounts that translate
//! (idmapped mounts), so that nothing is rewritten when the setting changes.
//!
//! What such a task cannot have is what only the machine's own root has: `privileged`, and the rights in [`BEYOND`].

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};
use rialto_protocol::model::Container;
use serde::{Deserialize, Serialize};

use super::folder::Plan;
use super::identity::User;
use super::mounts::tree;
use super::process::Pidfd;

/// Below this lie the machine's own users.
const FIRST_MIN: u32 = 65_536;
/// Images use the numbers up to 65535: `nobody` is 65534.
const COUNT_MIN: u32 = 65_536;
/// Rights over what is the machine's and no user namespace's. The kernel would not honour them; a task that asks for one
/// is told so.
const BEYOND: [&str; 20] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SYSLOG",
    "SYS_BOOT",
    "SYS_MODULE",
    "SYS_PACCT",
    "SYS_RAWIO",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];
/// Folders that every machine has for others to mount in. See [`bench`].
const PLACES: [&str; 4] = ["/mnt", "/media", "/srv", "/home"];

/// Which users and groups of the machine those of its tasks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remap {
    /// What root is.
    pub first: u32,
    pub count: u32,
}

impl FromStr for Remap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no range of users: write FIRST:COUNT, such as 100000:65536, or none");
        let (first, count) = text.split_once(':').ok_or_else(wrong)?;
        let remap = Self { first: first.parse().map_err(|_| wrong())?, count: count.parse().map_err(|_| wrong())? };
        if remap.first < FIRST_MIN {
            return Err(format!("{text:?} begins among the machine's own users: at {FIRST_MIN} or above"));
        }
        if remap.count < COUNT_MIN {
            return Err(format!("{text:?} has too few users for what images use: {COUNT_MIN} or more"));
        }
        // The last number means nobody to the kernel.
        match remap.first.checked_add(remap.count) {
            Some(_) => Ok(remap),
            None => Err(format!("{text:?} ends beyond the last user there can be, {}", u32::MAX - 1)),
        }
    }
}

impl Remap {
    /// What the machine calls a user or group of a task.
    pub fn outside(self, id: u32) -> io::Result<u32> {
        let beyond =
            || format!("{id} is beyond the {} users and groups that tasks have here (userns-remap)", self.count);
        (id < self.count).then(|| self.first + id).ok_or_else(|| io::Error::other(beyond()))
    }

    /// What a task calls one of the machine; others are nobody to it.
    pub fn inside(self, id: u32) -> Option<u32> {
        id.checked_sub(self.first).filter(|id| *id < self.count)
    }

    /// A new user namespace. It lives for as long as the descriptor, and what is in it.
    pub fn namespace(self) -> io::Result<OwnedFd> {
        let (waits, go) = pipe2(OFlag::O_CLOEXEC)?;
        let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
        // SAFETY: without a stack of its own and without shared memory this is fork; what the child does is safe after a
        // fork of a process with several threads.
        let child = Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags as libc::c_ulong, 0, 0, 0, 0) });
        let child = match child {
            Ok(0) => {
                let mut byte = 0_u8;
                // SAFETY: descriptors and memory of its own; it ends at once when its parent has closed the pipe.
                unsafe {
                    libc::close(go.as_raw_fd());
                    libc::read(waits.as_raw_fd(), (&raw mut byte).cast(), 1);
                    libc::_exit(0)
                }
            }
            Ok(child) => child as i32,
            Err(Errno::ENOSPC | Errno::EUSERS) => {
                let why = "this machine makes no more user namespaces: see the sysctl user.max_user_namespaces";
                return Err(io::Error::other(why));
            }
            Err(Errno::EINVAL) => return Err(io::Error::other("this kernel has no user namespaces (CONFIG_USER_NS)")),
            Err(errno) => return Err(errno.into()),
        };
        let map = format!("0 {} {}", self.first, self.count);
        let proc = PathBuf::from(format!("/proc/{child}"));
        let made = ["uid_map", "gid_map"]
            .iter()
            .try_for_each(|name| File::options().write(true).open(proc.join(name))?.write_all(map.as_bytes()))
            .and_then(|()| File::open(proc.join("ns/user")));
        drop(go);
        let _ = waitpid(Pid::from_raw(child), None);
        made.map(OwnedFd::from)
    }
}

/// What the machine calls a user or group of a task.
pub fn outside(remap: Option<Remap>, id: u32) -> io::Result<u32> {
    remap.map_or(Ok(id), |remap| remap.outside(id))
}

/// What the machine calls a task's user, all of whose groups it has a name for.
pub fn owner(remap: Option<Remap>, user: &User) -> io::Result<u32> {
    user.groups.iter().chain([&user.gid]).try_for_each(|group| outside(remap, *group).map(drop))?;
    outside(remap, user.uid)
}

/// What a task calls a user or group of the machine; one that it has no name for is its root.
pub fn inside(remap: Option<Remap>, id: u32) -> u32 {
    remap.map_or(id, |remap| remap.inside(id).unwrap_or(0))
}

/// Gives what was made for a task to its root.
pub fn to_root(remap: Option<Remap>, path: &Path) -> io::Result<()> {
    match remap {
        Some(Remap { first, .. }) => chown(path, Some(first), Some(first)),
        None => Ok(()),
    }
}

/// The users of one container: in its shim.
pub struct Users {
    pub remap: Remap,
    pub namespace: OwnedFd,
}

impl Users {
    pub fn make(remap: Remap) -> io::Result<Self> {
        Ok(Self { remap, namespace: remap.namespace()? })
    }

    /// Where its namespace can be opened, by this process and its children.
    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.namespace.as_raw_fd()).into()
    }
}

/// What a service asks for that its container cannot have here.
pub fn refusal(container: &Container) -> Option<String> {
    let why = "tasks here have users of their own (userns-remap in the machine's rialtod.toml)";
    if container.privileged {
        return Some(format!("a privileged task has the rights of the machine's root, and {why}"));
    }
    let added = container.cap_add.iter().find(|name| BEYOND.contains(&name.as_str()));
    added.map(|name| format!("the right {name} is over what is the machine's, and {why}"))
}

/// Whether a right does nothing in a user namespace.
pub fn is_beyond(capability: &str) -> bool {
    BEYOND.contains(&capability)
}

/// Where a shim makes its container ready: root of the container is nobody on the machine, and does not get to a bench
/// below the peer's own folder, which is closed. In the mount namespace of the shim any folder serves that everybody
/// gets to, and that holds nothing that the shim needs.
pub fn bench(plan: &Plan, folder: &Path) -> io::Result<PathBuf> {
    let needed: Vec<PathBuf> = (plan.mounts.iter().map(|mounted| mounted.from.as_path()))
        .chain([folder, plan.bench.as_path(), plan.etc.as_path()])
        .map(|path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()))
        .collect();
    let serves = |place: &&&str| {
        let place = Path::new(**place);
        fs::symlink_metadata(place).is_ok_and(|found| found.is_dir() && found.mode() & 0o001 != 0)
            && !needed.iter().any(|path| path.starts_with(place))
    };
    let found = PLACES.iter().find(serves).map(PathBuf::from);
    found.ok_or_else(|| io::Error::other(format!("none of {} can be mounted on to prepare it", PLACES.join(", "))))
}

/// Becomes root of a container's user namespace: its files are what this process makes and reads from now on.
pub fn become_root(pidfd: &Pidfd) -> io::Result<()> {
    setns(&pidfd.0, CloneFlags::CLONE_NEWUSER)?;
    // SAFETY: numbers, and a list of none.
    unsafe {
        Errno::result(libc::setgroups(0, std::ptr::null()))?;
        Errno::result(libc::setresgid(0, 0, 0))?;
        Errno::result(libc::setresuid(0, 0, 0))?;
    }
    Ok(())
}

/// Whether this kernel, and the file system that `data` lies on, can do all of it; why not, where not. It tries.
pub fn probe(remap: Remap, data: &Path) -> io::Result<()> {
    let data = data.to_owned();
    // A thread can have mounts of its own; they end with it.
    let tried = std::thread::spawn(move || try_out(remap, &data)).join();
    tried.unwrap_or_else(|_| Err(io::Error::other("a thread has panicked")))
}

fn try_out(remap: Remap, data: &Path) -> io::Result<()> {
    let said = |what: &str, error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    let users = Users::make(remap).map_err(|error| said("user namespaces", error))?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    let bench = data.join("executor/bench");
    let lower = File::open(data.join("executor/tasks"))?;
    mount(Some("tmpfs"), &bench, Some("tmpfs"), MsFlags::empty(), Some("mode=711,size=64k"))?;
    let [shown, empty, whole] = ["lower", "empty", "whole"].map(|name| bench.join(name));
    for path in [&shown, &empty, &whole] {
        fs::create_dir(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    let way_out = "Linux 5.12 or later can, on ext4, xfs and btrfs";
    tree::show(&lower, &shown, 0, libc::MS_PRIVATE, Some(&users))
        .map_err(|error| said(&format!("{} cannot be shown with other owners; {way_out}", data.display()), error))?;
    // Of this thread alone, as its mounts are.
    std::env::set_current_dir(&bench)?;
    mount(Some("overlay"), &whole, Some("overlay"), MsFlags::MS_RDONLY, Some("lowerdir=lower:empty")).map_err(
        |errno| said("overlayfs does not take layers with other owners; Linux 5.19 or later does", errno.into()),
    )?;
    match fs::metadata(&whole)?.uid() {
        uid if uid == remap.first => Ok(()),
        uid => Err(io::Error::other(format!("overlayfs shows root's files as those of {uid}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_two_numbers_that_belong_to_nobody() {
        assert_eq!("100000:65536".parse(), Ok(Remap { first: 100_000, count: 65_536 }));
        for wrong in
            ["", "100000", "a:b", "0:65536", "1000:65536", "100000:1000", "4294900000:70000", "-1:65536", "1:2:3"]
        {
            assert!(wrong.parse::<Remap>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_translated_both_ways_within_the_range_alone() {
        let remap = Remap { first: 100_000, count: 65_536 };
        for id in [0, 1000, 65_535] {
            assert_eq!(remap.inside(remap.outside(id).unwrap()), Some(id));
        }
        assert!(remap.outside(65_536).is_err());
        assert_eq!((remap.inside(0), remap.inside(99_999), remap.inside(165_536)), (None, None, None));
        assert_eq!((outside(None, 7).unwrap(), inside(None, 7)), (7, 7));
    }
}
