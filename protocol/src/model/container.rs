//! How the container of a task is made, beside what runs in it: what Compose has words for, and
//! what a machine must allow for it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::health::HealthCheck;
use super::volume::Mounts;

/// The most entries of each list here.
pub const OPTIONS_MAX: usize = 64;
/// The longest profile of system calls, bytes of JSON.
pub const SECCOMP_BYTES_MAX: usize = 64 << 10;
/// The longest path, user or other single value, bytes.
pub const VALUE_BYTES_MAX: usize = 4096;

/// Rights that every service may add: Docker's own set, and what touches nothing but the task.
/// All others are the machine's to allow.
const FREE_CAPABILITIES: [&str; 17] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
    "SYS_NICE",
];
/// All capabilities of Linux, in the order of their numbers.
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
/// The limits of `ulimits`.
pub const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// What a service asks of its containers. Nothing of it, and they are as every other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    /// Replaces the image's entrypoint, and with it the image's command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// `USER[:GROUP]`, names of the image or numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Groups besides, names of the image or numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group_add: Vec<String>,
    /// Its standard input stays open for who attaches.
    #[serde(skip_serializing_if = "is_default")]
    pub stdin_open: bool,
    /// Its streams are a terminal.
    #[serde(skip_serializing_if = "is_default")]
    pub tty: bool,
    /// Nothing but `tmpfs` and volumes can be written to.
    #[serde(skip_serializing_if = "is_default")]
    pub read_only: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tmpfs: Vec<Tmpfs>,
    /// Of [`CAPABILITIES`], or `ALL`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    /// Of [`CAPABILITIES`], or `ALL`; what is added is added after.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    #[serde(skip_serializing_if = "is_default")]
    pub seccomp: Seccomp,
    /// Its programs may gain rights by setuid files: `security_opt: no-new-privileges:false`.
    #[serde(skip_serializing_if = "is_default")]
    pub gains_privileges: bool,
    /// By names of [`ULIMITS`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Only those that are the task's own: see [`sysctl_fault`].
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Of `/dev/shm`; 64 MiB where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_bytes: Option<u64>,
    /// A small init is the first process: it reaps what is orphaned and hands signals on.
    #[serde(skip_serializing_if = "is_default")]
    pub init: bool,
    /// Every right that the machine's root has.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<DeviceFile>,
    /// `SIGQUIT`, `QUIT` or a number; else the image's, else SIGTERM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Run in the container before the stop signal; the grace is for both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_stop: Option<Vec<String>>,
    /// Volumes, folders of the machine, configs and secrets.
    #[serde(skip_serializing_if = "Mounts::is_none")]
    pub mounts: Mounts,
    /// What of the image's own check is replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
}

/// A file system in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tmpfs {
    /// Absolute.
    pub path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Permissions; 1777 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
}

/// Which system calls a task may make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seccomp {
    /// What ordinary programs use.
    #[default]
    Default,
    /// All.
    Unconfined,
    /// A file that the client reads, beside the app file; never sent.
    File(String),
    /// JSON, as OCI or Docker write it; `open`: what it does not name is allowed.
    Profile { json: String, open: bool },
}

/// A limit of `setrlimit`; `u64::MAX` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub soft: u64,
    pub hard: u64,
}

/// A device of the machine in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFile {
    pub host: String,
    pub container: String,
    /// Of `r`, `w` and `m`.
    pub access: String,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Container {
    /// Whether nothing is asked for.
    pub fn is_usual(&self) -> bool {
        *self == Container::default()
    }

    /// What a machine must allow, in the words of its setting `allow`.
    pub fn asks(&self) -> Vec<String> {
        let mut asks = Vec::new();
        if self.privileged {
            // Whoever may do everything needs no other leave.
            return vec!["privileged".into()];
        }
        let all = self.cap_add.iter().any(|name| name == "ALL");
        let added = self.cap_add.iter().filter(|name| !all && !FREE_CAPABILITIES.contains(&name.as_str()));
        asks.extend(all.then(|| "cap=*".to_string()));
        asks.extend(added.map(|name| format!("cap={name}")));
        if self.seccomp.is_open() {
            asks.push("seccomp=unconfined".into());
        }
        asks.extend(self.devices.iter().map(|device| format!("device={}", device.host)));
        asks.extend(self.mounts.asks());
        asks
    }

    /// What is wrong with it: the field, and what to say.
    pub fn fault(&self) -> Option<(String, String)> {
        let fault = |field: &str, message: String| Some((field.to_string(), message));
        let long = |text: &str| text.len() > VALUE_BYTES_MAX || text.contains('\0');
        let lists = [self.group_add.len(), self.tmpfs.len(), self.cap_add.len(), self.cap_drop.len()];
        if lists.into_iter().chain([self.sysctls.len(), self.devices.len()]).any(|length| length > OPTIONS_MAX) {
            return fault("", format!("a list of more than {OPTIONS_MAX} entries"));
        }
        for (field, value) in
            [("user", &self.user), ("working_dir", &self.working_dir), ("stop_signal", &self.stop_signal)]
        {
            if value.as_deref().is_some_and(long) {
                return fault(field, "the value is too long, or holds a NUL".into());
            }
        }
        for (field, words) in [("entrypoint", &self.entrypoint), ("pre_stop", &self.pre_stop)] {
            if words.iter().flatten().any(|word| word.contains('\0')) {
                return fault(field, "a word of a command cannot hold a NUL".into());
            }
        }
        if self.working_dir.as_deref().is_some_and(|path| path_fault(path).is_some()) {
            return fault("working_dir", "a working folder is an absolute path without '..'".into());
        }
        for tmpfs in &self.tmpfs {
            if let Some(message) = path_fault(&tmpfs.path) {
                return fault("tmpfs", message);
            }
        }
        for name in self.cap_add.iter().chain(&self.cap_drop) {
            if name != "ALL" && !CAPABILITIES.contains(&name.as_str()) {
                return fault("cap_add", format!("'{name}' is no capability"));
            }
        }
        match &self.seccomp {
            Seccomp::File(name) => return fault("security_opt", format!("the profile {name} was not sent along")),
            Seccomp::Profile { json, open } => match is_open(json) {
                Ok(is_open) if is_open == *open => {}
                Ok(_) => return fault("security_opt", "the profile is not what it is said to be".into()),
                Err(message) => return fault("security_opt", message),
            },
            Seccomp::Default | Seccomp::Unconfined => {}
        }
        for (name, limit) in &self.ulimits {
            if !ULIMITS.contains(&name.as_str()) || limit.soft > limit.hard {
                return fault("ulimits", format!("{name}: no such limit, or its soft value is above the hard one"));
            }
        }
        for (name, value) in &self.sysctls {
            if long(value) {
                return fault("sysctls", format!("{name}: the value is too long, or holds a NUL"));
            }
            if let Some(message) = sysctl_fault(name) {
                return fault("sysctls", message);
            }
        }
        for device in &self.devices {
            let wrong = path_fault(&device.host).or_else(|| path_fault(&device.container));
            if wrong.is_some() || device.access.is_empty() || device.access.contains(|c| !"rwm".contains(c)) {
                return fault("devices", format!("{} is no device: write /dev/A:/dev/B:rwm", device.host));
            }
        }
        let health = self.health.as_ref().and_then(HealthCheck::fault).map(|message| ("health".into(), message));
        health.or_else(|| self.mounts.fault())
    }
}

impl Seccomp {
    /// A profile that was read from a file.
    ///
    /// # Errors
    ///
    /// A sentence that says why it is none.
    pub fn profile(json: String) -> Result<Self, String> {
        is_open(&json).map(|open| Seccomp::Profile { json, open })
    }

    /// Whether what it does not name is allowed: as good as no profile.
    fn is_open(&self) -> bool {
        matches!(self, Seccomp::Unconfined | Seccomp::Profile { open: true, .. })
    }
}

/// Reads a profile so far as to know whether it allows what it does not name.
fn is_open(json: &str) -> Result<bool, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Profile {
        default_action: String,
    }
    if json.len() > SECCOMP_BYTES_MAX {
        return Err(format!("a profile of more than {} KiB", SECCOMP_BYTES_MAX >> 10));
    }
    let read: Profile = serde_json::from_str(json).map_err(|error| format!("this is no seccomp profile: {error}"))?;
    Ok(matches!(read.default_action.as_str(), "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG"))
}

/// The first thing asked for that a machine does not allow. `privileged` allows everything; an entry that ends in `*`
/// allows what begins like it, and a folder that may be written to may be read.
pub fn unallowed<'a>(asks: &'a [String], allows: &[String]) -> Option<&'a str> {
    let allowed = |ask: &str| {
        allows.iter().any(|one| match one.strip_suffix('*') {
            _ if one == "privileged" => true,
            Some(beginning) => ask.starts_with(beginning),
            None => ask == one || ask.strip_suffix(":ro").is_some_and(|bind| bind == one),
        })
    };
    asks.iter().map(String::as_str).find(|ask| !allowed(ask))
}

/// Why a kernel setting cannot be a task's own; none where it can.
pub fn sysctl_fault(name: &str) -> Option<String> {
    const OWN: [&str; 6] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.domainname",
        "kernel.shm_rmid_forced",
    ];
    let own =
        OWN.contains(&name) || ["kernel.shm", "fs.mqueue.", "net."].iter().any(|beginning| name.starts_with(beginning));
    let sound = name.len() <= 128 && !name.contains("..") && !name.contains(['/', '\0', ' ']) && !name.ends_with('.');
    (!own || !sound).then(|| format!("{name} is a setting of the whole machine: only kernel.msg*, kernel.sem, kernel.shm*, fs.mqueue.* and net.* are a task's own"))
}

/// Why a path is none inside of a container; none where it is one.
pub fn path_fault(path: &str) -> Option<String> {
    let sound = path.starts_with('/')
        && path.len() <= VALUE_BYTES_MAX
        && !path.contains('\0')
        && !path.split('/').any(|part| part == "..");
    (!sound).then(|| format!("'{path}' is no absolute path without '..'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_must_allow_is_named() {
        let words = |list: &[&str]| list.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        let asks = |change: fn(&mut Container)| {
            let mut container = Container::default();
            change(&mut container);
            container.asks()
        };
        assert!(asks(|_| {}).is_empty());
        assert!(asks(|c| c.cap_add = vec!["SYS_NICE".into()]).is_empty());
        assert_eq!(asks(|c| c.cap_add = vec!["NET_ADMIN".into()]), words(&["cap=NET_ADMIN"]));
        assert_eq!(asks(|c| c.cap_add = vec!["ALL".into(), "BPF".into()]), words(&["cap=*"]));
        assert_eq!(asks(|c| c.seccomp = Seccomp::Unconfined), words(&["seccomp=unconfined"]));
        let open = r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#;
        let of = |json: &str| Seccomp::profile(json.into()).unwrap();
        let mut container = Container { seccomp: of(open), ..Container::default() };
        assert_eq!(container.asks(), words(&["seccomp=unconfined"]));
        container.seccomp = of(&open.replace("ALLOW", "ERRNO"));
        assert!(container.asks().is_empty() && container.fault().is_none());
        container.seccomp = Seccomp::Profile { json: open.into(), open: false };
        assert_eq!(container.fault().unwrap().0, "security_opt");

        for (ask, allows, refused) in [
            ("cap=BPF", &["cap=BPF"][..], false),
            ("cap=BPF", &["cap=*"], false),
            ("cap=*", &["cap=BPF"], true),
            ("device=/dev/dri/card0", &["device=/dev/dri/*"], false),
            ("device=/dev/kvm", &["device=/dev/dri/*", "cap=*"], true),
            ("seccomp=unconfined", &["privileged"], false),
            ("privileged", &["cap=*", "device=*"], true),
            ("privileged", &[], true),
            ("bind=/srv/a", &["bind=/srv/*"], false),
            ("bind=/srv/a:ro", &["bind=/srv/a"], false),
            ("bind=/srv/a", &["bind=/srv/a:ro"], true),
            ("bind=/etc", &["bind=/srv/*"], true),
        ] {
            assert_eq!(unallowed(&words(&[ask]), &words(allows)).is_some(), refused, "{ask} of {allows:?}");
        }
    }

    #[test]
    fn only_a_tasks_own_settings_can_be_set() {
        for own in ["kernel.msgmax", "kernel.shmmax", "fs.mqueue.msg_max", "net.core.somaxconn"] {
            assert_eq!(sysctl_fault(own), None, "{own}");
        }
        for other in
            ["kernel.panic", "vm.swappiness", "net./etc/passwd", "net...x", "fs.mqueue.", "kernel.core_pattern"]
        {
            assert!(sysctl_fault(other).is_some(), "{other}");
        }
    }
}
