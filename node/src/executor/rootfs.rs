//! What a container's root is put together from, in the shim's own mount namespace: when the shim
//! is gone, however it went, so are the mounts.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::folder::{Folder, Image, Plan};
use super::mounts;

/// The machine's own programs and what they need, where they exist.
const PROGRAMS: [&str; 9] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "libexec", "opt"];
/// Empty and the task's own, whatever the machine keeps there.
const EMPTY: [(&str, u32); 9] = [
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o755),
    ("run", 0o755),
    ("var", 0o755),
    ("var/tmp", 0o1777),
    ("home", 0o755),
    ("root", 0o700),
    ("tmp", 0o1777),
];

/// Leaves the machine's mount namespace and mounts, on the plan's bench, everything that lasts no
/// longer than the container; its root is the folder `rootfs` there.
pub fn assemble(folder: &Folder, plan: &Plan) -> io::Result<PathBuf> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Nothing of ours gets out; what the machine unmounts goes away here too.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &plan.bench, Some("tmpfs"), flags, Some("mode=700,size=16m"))?;
    let root = plan.bench.join("rootfs");
    fs::create_dir(&root)?;
    match &plan.image {
        Image::Host => host(&root, plan)?,
        Image::Layers(image) => overlay(folder, &root, &image.store, &image.layers)?,
    }
    Ok(root)
}

/// The root is a tmpfs, so everything but the programs and `/etc` is empty and the task's own.
fn host(root: &Path, plan: &Plan) -> io::Result<()> {
    // Memory that a task fills by files counts against its limit; without one, against this share.
    let size = plan.limits.memory_bytes.map_or("25%".to_owned(), |bytes| bytes.to_string());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), root, Some("tmpfs"), flags, Some(format!("mode=755,size={size}").as_str()))?;
    for name in PROGRAMS {
        let (from, to) = (Path::new("/").join(name), root.join(name));
        match fs::symlink_metadata(&from) {
            Ok(found) if found.is_symlink() => symlink(fs::read_link(&from)?, &to)?,
            Ok(found) if found.is_dir() => bind(&from, &to)?,
            _ => {}
        }
    }
    bind(&plan.etc, &root.join("etc"))?;
    for (name, mode) in EMPTY {
        let path = root.join(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    for hidden in &plan.hide {
        hide(root, hidden)?;
    }
    Ok(())
}

/// Lays an empty tmpfs over what must not be seen, if it lies among the programs.
fn hide(root: &Path, hidden: &Path) -> io::Result<()> {
    let Ok(real) = fs::canonicalize(hidden) else { return Ok(()) };
    let Ok(inside) = real.strip_prefix("/") else { return Ok(()) };
    let place = root.join(inside);
    let among_programs = PROGRAMS.iter().any(|name| inside.starts_with(name));
    if among_programs && place.is_dir() {
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), &place, Some("tmpfs"), flags, Some("size=0,mode=000"))?;
    }
    Ok(())
}

fn overlay(folder: &Folder, root: &Path, store: &Path, layers: &[String]) -> io::Result<()> {
    // Named from within the store, and through descriptors: the options fit into a page, and no
    // comma or colon in a data folder's name can mean anything.
    let back = std::env::current_dir()?;
    let (upper, work) = (folder.path().join("upper"), folder.path().join("work"));
    for path in [&upper, &work] {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    let (upper, work) = (fs::File::open(upper)?, fs::File::open(work)?);
    let options = format!(
        "lowerdir={},upperdir=/proc/self/fd/{},workdir=/proc/self/fd/{}",
        layers.join(":"),
        upper.as_raw_fd(),
        work.as_raw_fd()
    );
    std::env::set_current_dir(store)?;
    // Device files in an image are dead weight: a task gets its devices from the container.
    let mounted = mount(Some("overlay"), root, Some("overlay"), MsFlags::MS_NODEV, Some(options.as_str()));
    std::env::set_current_dir(back)?;
    mounted.map_err(|errno| io::Error::new(io::Error::from(errno).kind(), format!("overlayfs: {errno}")))
}

/// Shows `from` at `to` with everything mounted below it, read-only.
fn bind(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)?;
    mounts::restrict(to, libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV, 0)
}
