//! What a container's root is put together from, in the shim's own mount namespace: when the shim
//! is gone, however it went, so are the mounts.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::folder::{Folder, Image, Plan};
use super::mounts::tree;
use super::userns::{Remap, Users, to_root};

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
pub fn assemble(folder: &Folder, plan: &Plan, users: Option<&Users>) -> io::Result<PathBuf> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Nothing of ours gets out; what the machine unmounts goes away here too.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    // Root of a container that is nobody on the machine has to get to what lies there.
    let mode = if users.is_some() { "711" } else { "700" };
    mount(Some("tmpfs"), &plan.bench, Some("tmpfs"), flags, Some(format!("mode={mode},size=16m").as_str()))?;
    let root = plan.bench.join("rootfs");
    fs::create_dir(&root)?;
    match &plan.image {
        Image::Host => host(&root, plan, users)?,
        Image::Layers(image) => {
            // The layers as the task's users own them; what it writes belongs to them on the disk, too.
            let shown = plan.bench.join("layers");
            let store = match users {
                Some(_) => {
                    fs::create_dir(&shown)?;
                    tree::show(&File::open(&image.store)?, &shown, libc::MOUNT_ATTR_RDONLY, libc::MS_PRIVATE, users)?;
                    &shown
                }
                None => &image.store,
            };
            overlay(folder, &root, store, &image.layers, plan.remap)?;
        }
    }
    Ok(root)
}

/// The root is a tmpfs, so everything but the programs and `/etc` is empty and the task's own.
fn host(root: &Path, plan: &Plan, users: Option<&Users>) -> io::Result<()> {
    // Memory that a task fills by files counts against its limit; without one, against this share.
    let size = plan.limits.memory_bytes.map_or("25%".to_owned(), |bytes| bytes.to_string());
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), root, Some("tmpfs"), flags, Some(format!("mode=755,size={size}").as_str()))?;
    for name in PROGRAMS {
        let (from, to) = (Path::new("/").join(name), root.join(name));
        match fs::symlink_metadata(&from) {
            Ok(found) if found.is_symlink() => symlink(fs::read_link(&from)?, &to)?,
            // The programs of a machine's root are those of nobody to users of their own: they are read, and no more.
            Ok(found) if found.is_dir() => show(&from, &to, None)?,
            _ => {}
        }
    }
    show(&plan.etc, &root.join("etc"), users)?;
    for (name, mode) in EMPTY {
        let path = root.join(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        to_root(plan.remap, &path)?;
    }
    to_root(plan.remap, root)?;
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

fn overlay(folder: &Folder, root: &Path, store: &Path, layers: &[String], remap: Option<Remap>) -> io::Result<()> {
    // Named from within the store, and through descriptors: the options fit into a page, and no
    // comma or colon in a data folder's name can mean anything.
    let back = std::env::current_dir()?;
    let (upper, work) = (folder.path().join("upper"), folder.path().join("work"));
    for path in [&upper, &work] {
        fs::create_dir_all(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    }
    to_root(remap, &upper)?;
    let (upper, work) = (File::open(upper)?, File::open(work)?);
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
fn show(from: &Path, to: &Path, users: Option<&Users>) -> io::Result<()> {
    fs::create_dir(to)?;
    let attributes = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV;
    tree::show(&File::open(from)?, to, attributes, 0, users)
}
