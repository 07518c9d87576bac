//! The folder of one task: everything that must outlive the daemon lies there. All files are JSON
//! with a version; a field that a reader does not know is skipped.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::signal::Signal;
use rialto_protocol::event::TaskReport;
use rialto_protocol::model::health::HealthCheck;
use rialto_protocol::model::{Container, Health};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::devices::Unit;
use super::mounts::Mounted;
use super::process::Process;
use super::userns::Remap;

/// The version of the files, and of the control protocol: see [`super::control`].
pub const VERSION: u32 = 1;

/// More than an exit takes, with a reason of a few sentences.
const EXIT_BYTES: usize = 4_096;

/// `DATA/executor/tasks/CLAIM`.
#[derive(Clone, Debug)]
pub struct Folder(PathBuf);

/// What a shim is to run: written by the daemon before the shim exists.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    pub version: u32,
    /// The claim in hexadecimal: the container's id.
    pub claim: String,
    /// Absolute below each hierarchy: `/PREFIX/CLAIM`.
    pub cgroup: String,
    pub hostname: String,
    pub image: Image,
    /// Replaces the image's command.
    pub command: Vec<String>,
    pub environment: BTreeMap<String, String>,
    pub limits: Limits,
    /// Volumes and folders, as they lie on this machine.
    #[serde(default)]
    pub mounts: Vec<Mounted>,
    /// Devices that it has for itself.
    #[serde(default)]
    pub units: Vec<Unit>,
    /// What its service asks of the container.
    #[serde(default)]
    pub container: Container,
    /// The machine's `/etc` as tasks may see it.
    pub etc: PathBuf,
    /// Of a task with a network of its own: where its own `hosts` and `resolv.conf` lie.
    #[serde(default)]
    pub names: Option<PathBuf>,
    /// Never to be seen by a task, wherever they lie.
    pub hide: Vec<PathBuf>,
    /// An empty folder: each shim mounts there, and sees there, its own.
    pub bench: PathBuf,
    /// Which users of the machine those of the task are; `None`: the same.
    #[serde(default)]
    pub remap: Option<Remap>,
    /// The log's bound.
    pub log_bytes_max: u64,
    /// TCP ports at which its program is to listen before anybody is sent there.
    #[serde(default)]
    pub listens: Vec<u16>,
    /// It runs under a lease: for as long as that says, and no longer.
    #[serde(default)]
    pub leased: bool,
}

/// Until when a task may run: written by the daemon with each renewal, before its shim is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// By the boot-time clock, ms.
    pub until_ms: u64,
    /// The task's own, between its stop signal and SIGKILL.
    pub grace_ms: u64,
}

/// What the root of a container is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Image {
    Host,
    Layers(Box<Layers>),
}

/// The layers of an image, and what it says about its programs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Layers {
    /// The manifest's, `sha256:…`.
    pub digest: String,
    /// Where the layers lie, and their names, topmost first.
    pub store: PathBuf,
    pub layers: Vec<String>,
    pub entrypoint: Vec<String>,
    pub command: Vec<String>,
    pub environment: Vec<String>,
    pub working_dir: String,
    pub user: String,
    /// Paths that hold data.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// `SIGQUIT`, `QUIT` or a number; SIGTERM where the image names none.
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// How the image says it is to be looked after.
    #[serde(default)]
    pub health: Option<HealthCheck>,
}

/// What the kernel enforces; `None` is unlimited.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    pub cpu_millis: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub pids: u64,
}

/// Who looks after the task, since when: written by the shim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Life {
    pub version: u32,
    pub boot_id: String,
    pub shim: Process,
    /// The container's first process, from the moment it is about to run.
    #[serde(default)]
    pub init: Option<Process>,
    /// Wall clock, ms.
    #[serde(default)]
    pub started_at: Option<u64>,
}

/// How it ended: the last thing that is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    pub version: u32,
    /// `None`: it never ran, or nobody can know.
    pub exit_code: Option<i32>,
    #[serde(default)]
    pub oom_killed: bool,
    /// Its lease ended, and that ended it.
    #[serde(default)]
    pub expired: bool,
    /// Wall clock, ms.
    pub ended_at: u64,
    #[serde(default)]
    pub reason: Option<String>,
}

impl Exit {
    /// An end without an exit code.
    pub fn failed(reason: impl Into<String>) -> Self {
        let ended_at = super::process::wall_ms();
        Self {
            version: VERSION,
            exit_code: None,
            oom_killed: false,
            expired: false,
            ended_at,
            reason: Some(reason.into()),
        }
    }

    /// What the brain is told.
    pub fn report(&self) -> TaskReport {
        match self.exit_code {
            Some(exit_code) if self.expired => TaskReport::Expired { exit_code, ended_at: self.ended_at },
            Some(exit_code) => TaskReport::Exited { exit_code, oom_killed: self.oom_killed, ended_at: self.ended_at },
            None => TaskReport::Failed { reason: self.reason.clone().unwrap_or_else(|| "it never ran".into()) },
        }
    }
}

impl Plan {
    /// The manifest's digest; none for `host`.
    pub fn digest(&self) -> Option<String> {
        match &self.image {
            Image::Host => None,
            Image::Layers(image) => Some(image.digest.clone()),
        }
    }
}

impl Plan {
    /// What asks the task to end.
    pub fn stop_signal(&self) -> i32 {
        if let Some(number) = self.container.stop_signal.as_deref().and_then(signal) {
            return number;
        }
        let named = match &self.image {
            Image::Host => None,
            Image::Layers(image) => image.stop_signal.as_deref().and_then(signal),
        };
        named.unwrap_or(libc::SIGTERM)
    }
}

/// A signal by its name, with or without `SIG`, or by its number.
fn signal(text: &str) -> Option<i32> {
    let bare = text.trim().to_ascii_uppercase();
    let bare = bare.strip_prefix("SIG").unwrap_or(&bare);
    let real_time = |offset: &str, from: i32, sign: i32| Some(from + sign * offset.parse::<i32>().ok()?);
    let number = match bare.parse() {
        Ok(number) => number,
        Err(_) if bare == "RTMIN" => libc::SIGRTMIN(),
        Err(_) if bare == "RTMAX" => libc::SIGRTMAX(),
        Err(_) => match (bare.strip_prefix("RTMIN+"), bare.strip_prefix("RTMAX-")) {
            (Some(offset), _) => real_time(offset, libc::SIGRTMIN(), 1)?,
            (_, Some(offset)) => real_time(offset, libc::SIGRTMAX(), -1)?,
            _ => format!("SIG{bare}").parse::<Signal>().ok()? as i32,
        },
    };
    (1..=libc::SIGRTMAX()).contains(&number).then_some(number)
}

impl Folder {
    /// Names the folder; it need not exist.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Makes it, for root's eyes alone.
    pub fn create(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The container as it was described to the kernel.
    pub fn description(&self) -> PathBuf {
        self.0.join("config.json")
    }

    /// Where volumes lie that end with the task.
    pub fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }

    /// What the shim itself has to say when it cannot go on.
    pub fn complaints(&self) -> PathBuf {
        self.0.join("shim.err")
    }

    /// Opens the control socket's door: from now on a connection succeeds for as long as anybody
    /// holds it, and so it tells whether a shim lives.
    pub fn listen(&self) -> io::Result<UnixListener> {
        let _ = fs::remove_file(self.0.join("control.sock"));
        self.in_reach("control.sock", UnixListener::bind)
    }

    /// Knocks at the control socket; refused where no shim lives.
    pub fn connect(&self) -> io::Result<UnixStream> {
        self.in_reach("control.sock", UnixStream::connect)
    }

    /// A socket's path may have 107 bytes and a data folder may lie deeper: the way through a
    /// descriptor is always short.
    fn in_reach<T>(&self, name: &str, act: impl FnOnce(PathBuf) -> io::Result<T>) -> io::Result<T> {
        use std::os::fd::AsRawFd;
        let folder = File::open(&self.0)?;
        act(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()).into())
    }

    pub fn read_plan(&self) -> io::Result<Plan> {
        self.read("plan.json")
    }

    pub fn write_plan(&self, plan: &Plan) -> io::Result<()> {
        self.write("plan.json", plan)
    }

    pub fn read_life(&self) -> io::Result<Life> {
        self.read("life.json")
    }

    /// Not forced to the disk: after another boot there is no life to know of.
    pub fn write_life(&self, life: &Life) -> io::Result<()> {
        self.write("life.json", life)
    }

    pub fn read_lease(&self) -> io::Result<Lease> {
        self.read("lease.json")
    }

    /// Not forced to the disk: no lease outlives a boot.
    pub fn write_lease(&self, lease: &Lease) -> io::Result<()> {
        self.write("lease.json", lease)
    }

    pub fn read_exit(&self) -> io::Result<Exit> {
        self.read("exit.json")
    }

    /// Sets room aside for how it will have ended: a task that fills the disk must not take it.
    pub fn reserve_exit(&self) -> io::Result<()> {
        fs::write(self.0.join("exit.json.new"), [b' '; EXIT_BYTES])
    }

    /// On the disk when it returns.
    pub fn write_exit(&self, exit: &Exit) -> io::Result<()> {
        let temporary = self.0.join("exit.json.new");
        // Over what was set aside, if it was: what follows the JSON is blank.
        let mut file = File::options().write(true).create(true).truncate(false).open(&temporary)?;
        let mut bytes = serde_json::to_vec(exit)?;
        bytes.resize(bytes.len().max(EXIT_BYTES), b' ');
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, self.0.join("exit.json"))?;
        File::open(&self.0)?.sync_all()
    }

    /// What its health check said last.
    pub fn read_health(&self) -> io::Result<Health> {
        self.read("health.json")
    }

    /// Not forced to the disk: the next check says it again.
    pub fn write_health(&self, health: Health) -> io::Result<()> {
        self.write("health.json", &health)
    }

    /// Removes what only a living task needs; the log and the exit stay.
    pub fn clear(&self) {
        for folder in ["upper", "work", "volumes"] {
            let _ = fs::remove_dir_all(self.0.join(folder));
        }
        let _ = fs::remove_file(self.0.join("control.sock"));
    }

    /// Removes everything.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn read<T: DeserializeOwned>(&self, name: &str) -> io::Result<T> {
        Ok(serde_json::from_slice(&fs::read(self.0.join(name))?)?)
    }

    /// Whole or not at all.
    fn write<T: Serialize>(&self, name: &str, value: &T) -> io::Result<()> {
        let temporary = self.0.join(format!("{name}.new"));
        fs::write(&temporary, serde_json::to_vec(value)?)?;
        fs::rename(&temporary, self.0.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named_in_many_ways() {
        for (text, number) in [
            ("SIGQUIT", Some(libc::SIGQUIT)),
            ("usr1", Some(libc::SIGUSR1)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(libc::SIGRTMIN() + 3)),
            ("RTMAX", Some(libc::SIGRTMAX())),
            ("", None),
            ("0", None),
            ("-1", None),
            ("65", None),
            ("SIGNOTHING", None),
        ] {
            assert_eq!(signal(text), number, "{text}");
        }
    }
}
