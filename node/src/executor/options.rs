//! What of a service's wishes for its containers becomes part of the container's description:
//! rights, limits, devices and system calls. As `container`, this is the shim's side alone.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use libcontainer::oci_spec::OciSpecError;
use libcontainer::oci_spec::runtime as oci;
use nix::errno::Errno;
use nix::sys::stat::{major, minor};
use rialto_protocol::model::Container;
use rialto_protocol::model::container::{CAPABILITIES, Seccomp};

use super::container::ContainerError;
use super::docker_seccomp;
use super::seccomp;
use super::userns;

/// What a task has unless its service says otherwise: Docker's set without what a task on the machine's own network
/// must not have (raw sockets) and what no service needs (device files, file capabilities, the audit log).
const USUAL: [&str; 9] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID", "SYS_CHROOT"];
/// The most device files of a privileged task.
const DEVICES_MAX: usize = 1_024;

fn wrong(message: impl Into<String>) -> ContainerError {
    ContainerError::Build(message.into())
}

/// The rights of a task; `is_root`: its programs begin with them; `remapped`: it has users of its own.
pub fn capabilities(
    container: &Container,
    is_root: bool,
    remapped: bool,
) -> Result<oci::LinuxCapabilities, ContainerError> {
    let all = || held_capabilities().into_iter();
    let mut names: Vec<String> = USUAL.map(str::to_owned).to_vec();
    if container.privileged {
        names = all().collect();
    }
    for dropped in &container.cap_drop {
        names.retain(|name| dropped != "ALL" && name != dropped);
    }
    for added in &container.cap_add {
        match added.as_str() {
            "ALL" => names = all().filter(|name| !container.cap_drop.contains(name)).collect(),
            name if !names.iter().any(|held| held == name) => names.push(name.into()),
            _ => {}
        }
    }
    // Of all rights those that do something.
    names.retain(|name| !remapped || !userns::is_beyond(name));
    let read = |name: &String| {
        let read = serde_json::from_value::<oci::Capability>(format!("CAP_{name}").into());
        read.map_err(|_| wrong(format!("{name} is no capability that can be given")))
    };
    let bounding: oci::Capabilities = names.iter().map(read).collect::<Result<_, _>>()?;
    // A program that runs as somebody else has none, as everywhere; it cannot gain any either, unless its files say so.
    let held = if is_root { bounding.clone() } else { oci::Capabilities::default() };
    let built = oci::LinuxCapabilitiesBuilder::default()
        .bounding(bounding)
        .effective(held.clone())
        .permitted(held)
        .inheritable(oci::Capabilities::default())
        .ambient(oci::Capabilities::default())
        .build()?;
    Ok(built)
}

/// Those that this process can give: the kernel has no others, and some machines' root lacks a few.
fn held_capabilities() -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    let held = CAPABILITIES.iter().enumerate().filter(|(number, _)| mask & (1 << number) != 0);
    held.map(|(_, name)| name.to_string()).collect()
}

/// Limits within the hard ones that this process has: to raise those takes a right that even root may lack. What a
/// service asks for beyond them is refused and not cut down in silence.
pub fn rlimits(container: &Container) -> Result<Vec<oci::PosixRlimit>, ContainerError> {
    use nix::sys::resource::{Resource, getrlimit};
    const FILES: u64 = 1 << 20;
    let of = |kind, soft: u64, hard: u64| oci::PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build();
    let mut limits = Vec::new();
    if !container.ulimits.contains_key("core") {
        limits.push(of(oci::PosixRlimitType::RlimitCore, 0, 0)?);
    }
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && !container.ulimits.contains_key("nofile")
    {
        let files = hard.min(FILES);
        limits.push(of(oci::PosixRlimitType::RlimitNofile, files, files)?);
    }
    for (name, limit) in &container.ulimits {
        let kind = serde_json::from_value(format!("RLIMIT_{}", name.to_ascii_uppercase()).into());
        let kind: oci::PosixRlimitType = kind.map_err(|_| wrong(format!("there is no limit {name}")))?;
        limits.push(of(kind, limit.soft, limit.hard)?);
    }
    Ok(limits)
}

/// Raises the hard limit of this process to that of a task, where it is lower: what has users of its own cannot.
pub fn raise(limit: &oci::PosixRlimit) -> io::Result<()> {
    use nix::libc;
    let name = limit.typ().to_string();
    let resource = match limit.typ() {
        oci::PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        oci::PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        oci::PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        oci::PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        oci::PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        oci::PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        oci::PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        oci::PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        oci::PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        oci::PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        oci::PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        oci::PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        oci::PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        oci::PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
        oci::PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        oci::PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
    };
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls take a structure of that type.
    let raised = unsafe {
        let read = Errno::result(libc::getrlimit(resource, &raw mut now));
        now.rlim_max = now.rlim_max.max(limit.hard());
        read.and_then(|_| Errno::result(libc::setrlimit(resource, &raw const now)))
    };
    let message =
        |errno: Errno| io::Error::other(format!("{name} cannot be raised to {}: {}", limit.hard(), errno.desc()));
    raised.map(drop).map_err(message)
}

/// Which system calls it may make; `None`: all.
pub fn calls(container: &Container) -> Result<Option<oci::LinuxSeccomp>, ContainerError> {
    match &container.seccomp {
        _ if container.privileged => Ok(None),
        Seccomp::Unconfined => Ok(None),
        Seccomp::Default => Ok(Some(seccomp::profile()?)),
        Seccomp::File(name) => Err(wrong(format!("the profile {name} was not sent along"))),
        Seccomp::Profile { json, .. } => {
            let capabilities = capabilities(container, true, false)?;
            docker_seccomp::read(json, capabilities.bounding().as_ref()).map(Some).map_err(wrong)
        }
    }
}

/// Mounts that a service asks for itself.
pub fn mounts(container: &Container) -> Result<Vec<oci::Mount>, OciSpecError> {
    let mounts = container.tmpfs.iter().map(|tmpfs| {
        let mut options: Vec<String> = ["nosuid", "nodev", "noexec"].map(str::to_owned).to_vec();
        options.push(format!("mode={:o}", tmpfs.mode.unwrap_or(0o1777)));
        options.extend(tmpfs.bytes.map(|bytes| format!("size={bytes}")));
        let mount = oci::MountBuilder::default().typ("tmpfs").source("tmpfs").destination(&tmpfs.path);
        mount.options(options).build()
    });
    mounts.collect()
}

/// The devices of the machine that are shown in the container.
pub fn devices(container: &Container) -> Result<Vec<oci::LinuxDevice>, ContainerError> {
    let mut devices = Vec::new();
    for device in &container.devices {
        devices.push(node(&device.host, &device.container)?);
    }
    if container.privileged {
        for entry in fs::read_dir("/dev").into_iter().flatten().flatten().take(DEVICES_MAX) {
            let kind = entry.file_type().map_err(ContainerError::Io)?;
            let path = entry.path().display().to_string();
            let usual = ["null", "zero", "full", "random", "urandom", "tty", "console", "ptmx"];
            let is_usual = usual.iter().any(|name| entry.file_name() == *name);
            if (kind.is_char_device() || kind.is_block_device()) && !is_usual {
                devices.push(node(&path, &path)?);
            }
        }
    }
    Ok(devices)
}

/// The rules of the device cgroup: nothing but the usual, and what was asked for.
pub fn device_rules(container: &Container) -> Result<Vec<oci::LinuxDeviceCgroup>, ContainerError> {
    let rule = |allow: bool, access: &str| oci::LinuxDeviceCgroupBuilder::default().allow(allow).access(access);
    if container.privileged {
        return Ok(vec![rule(true, "rwm").build()?]);
    }
    let mut rules = vec![rule(false, "rwm").build()?];
    for device in &container.devices {
        let node = node(&device.host, &device.container)?;
        let built = rule(true, &device.access).typ(node.typ()).major(node.major()).minor(node.minor()).build()?;
        rules.push(built);
    }
    Ok(rules)
}

fn node(host: &str, container: &str) -> Result<oci::LinuxDevice, ContainerError> {
    let found = fs::metadata(host).map_err(|error| wrong(format!("the device {host}: {error}")))?;
    let kind = match found.file_type() {
        kind if kind.is_char_device() => oci::LinuxDeviceType::C,
        kind if kind.is_block_device() => oci::LinuxDeviceType::B,
        _ => return Err(wrong(format!("{host} is no device"))),
    };
    let built = oci::LinuxDeviceBuilder::default()
        .path(container)
        .typ(kind)
        .major(major(found.rdev()) as i64)
        .minor(minor(found.rdev()) as i64)
        .file_mode(found.mode() & 0o777)
        .uid(found.uid())
        .gid(found.gid())
        .build()?;
    Ok(built)
}
