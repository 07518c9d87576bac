//! What only root of the machine can make, for a container whose root is somebody else: its shim makes it, on its own
//! bench, and shows it in the container.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::LinuxDeviceType;
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};

use super::container::ContainerError;
use super::folder::Plan;
use super::options;
use super::userns::outside;

/// What the kernel tells of itself, and of the network in which this process lives.
pub fn system(bench: &Path) -> io::Result<PathBuf> {
    let at = bench.join("sys");
    fs::create_dir(&at)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV | MsFlags::MS_RDONLY;
    mount(Some("sysfs"), &at, Some("sysfs"), flags, None::<&str>)?;
    Ok(at)
}

/// All processes, for nobody to see: the kernel gives a user namespace its own view of processes only where a whole one
/// is mounted, and on some machines something covers part of that of the machine.
pub fn processes(bench: &Path) -> io::Result<()> {
    let at = bench.join("proc");
    fs::create_dir(&at)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC | MsFlags::MS_NODEV;
    Ok(mount(Some("proc"), &at, Some("proc"), flags, None::<&str>)?)
}

/// The devices of the task, and where it is to find them. Their owners are the task's by the same numbers.
pub fn devices(plan: &Plan) -> Result<Vec<(PathBuf, PathBuf)>, ContainerError> {
    let devices = options::devices(&plan.container)?;
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    let folder = plan.bench.join("devices");
    fs::create_dir(&folder)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &folder, Some("tmpfs"), flags, Some("mode=711,size=64k")).map_err(io::Error::from)?;
    let before = umask(Mode::empty());
    let made = devices.iter().enumerate().map(|(number, device)| {
        let at = folder.join(number.to_string());
        let kind = if device.typ() == LinuxDeviceType::B { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
        let mode = Mode::from_bits_truncate(device.file_mode().unwrap_or(0o600));
        let number = makedev(device.major() as u64, device.minor() as u64);
        mknod(&at, kind, mode, number).map_err(io::Error::from)?;
        let owner = |id: Option<u32>| outside(plan.remap, id.unwrap_or(0));
        std::os::unix::fs::chown(&at, Some(owner(device.uid())?), Some(owner(device.gid())?))?;
        Ok((at, device.path().clone()))
    });
    let made = made.collect();
    umask(before);
    made
}
