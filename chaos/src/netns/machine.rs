//! One machine of the lab, and the peer on it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rialto_protocol::api::{Invited, MachineRow, Machines, Status, TaskRow};
use serde::de::DeserializeOwned;

use super::{Binaries, LabError, Output, Result, clock, http, processes, run_within, until};

/// How long a peer may take from its start until its API answers.
const STARTING: Duration = Duration::from_secs(20);
/// How long one command of the CLI may take; a deploy may wait for a minute.
const COMMAND: Duration = Duration::from_secs(90);

/// A machine: what it stands on, and the peer that runs on it.
#[derive(Debug)]
pub struct Machine {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) folder: PathBuf,
    /// None where the machine is only an address on the loopback interface.
    pub(crate) netns: Option<String>,
    pub(crate) binaries: Binaries,
    /// Flags of every start of its peer.
    pub(crate) flags: Vec<String>,
    /// Keeps the mount namespace and the host name while no peer runs: the machine's "kernel".
    holder: Option<Child>,
    peer: Option<Child>,
}

impl Machine {
    pub(crate) fn new(name: String, address: Ipv4Addr, folder: PathBuf, binaries: Binaries) -> Result<Self> {
        std::fs::create_dir_all(&folder).map_err(LabError::io(format!("making {}", folder.display())))?;
        // Of its own, and empty: the host may have a peer of its own, with settings.
        std::fs::write(folder.join("rialtod.toml"), "").map_err(LabError::io("writing the settings"))?;
        let (flags, netns, holder, peer) = (Vec::new(), None, None, None);
        Ok(Self { name, address, folder, netns, binaries, flags, holder, peer })
    }

    /// The name, `m1`, `m2`, …
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address, as the other machines see it.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Where the peer's API listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("rialto.sock")
    }

    /// The peer's data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What the peer wrote to its standard output and error, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("rialtod.log")
    }

    /// The process of the peer, while it has one.
    pub fn pid(&self) -> Option<u32> {
        self.peer.as_ref().map(Child::id)
    }

    /// The address of the peer's DNS server: everywhere on the machine itself alone.
    pub fn dns(&self) -> (Ipv4Addr, u16) {
        let ip = if self.netns.is_some() { Ipv4Addr::LOCALHOST } else { self.address };
        (ip, 7453)
    }

    /// Gives the machine its mount namespace, its host name and a new boot id.
    pub(crate) fn power_on(&mut self, netns: String) -> Result<()> {
        let boot_id = self.folder.join("boot_id");
        let id = std::fs::read_to_string("/proc/sys/kernel/random/uuid").map_err(LabError::io("reading a uuid"))?;
        std::fs::write(&boot_id, id).map_err(LabError::io("writing a boot id"))?;
        let script =
            r#"hostname "$1" && mount --bind "$2" /proc/sys/kernel/random/boot_id && echo on && exec sleep infinity"#;
        let mut holder = Command::new("nsenter")
            .arg(format!("--net={}", processes::netns_path(&netns).display()))
            .args(["unshare", "--mount", "--uts", "--propagation", "private", "sh", "-c", script, "sh", &self.name])
            .arg(&boot_id)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(LabError::io("starting a machine"))?;
        let mut said = String::new();
        if let Some(stdout) = holder.stdout.take() {
            BufReader::new(stdout).read_line(&mut said).map_err(LabError::io("starting a machine"))?;
        }
        self.holder = Some(holder);
        self.netns = Some(netns);
        if said.trim() == "on" {
            return Ok(());
        }
        Err(LabError::Impossible("a mount namespace with a boot id of its own is not allowed".into()))
    }

    /// Kills everything that runs here, at once. The caller has cut the wire already.
    pub(crate) fn power_off(&mut self) {
        if let Some(netns) = &self.netns {
            processes::kill_all(std::slice::from_ref(netns));
            super::remains::remove_cgroups(&self.folder);
        }
        for child in [self.peer.take(), self.holder.take()].into_iter().flatten() {
            end(child);
        }
    }

    /// A command that runs on this machine: in its namespaces, where it has any.
    pub fn inside(&self, program: impl AsRef<Path>) -> Command {
        let program = program.as_ref();
        let (Some(netns), Some(holder)) = (&self.netns, &self.holder) else { return Command::new(program) };
        // Not `ip netns exec`: it mounts /sys anew, and the cgroups would be gone.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", processes::netns_path(netns).display()));
        for (flag, kind) in [("mount", "mnt"), ("uts", "uts")] {
            command.arg(format!("--{flag}=/proc/{}/ns/{kind}", holder.id()));
        }
        command.arg("--").arg(program);
        command
    }

    /// Starts the peer and waits until its API answers. `flags` are added to the lab's own.
    pub fn start(&mut self, flags: &[&str]) -> Result<Duration> {
        self.spawn(flags)?;
        self.ready()
    }

    /// Starts the peer and waits for nothing.
    pub fn spawn(&mut self, flags: &[&str]) -> Result<()> {
        let mut command = self.peer_command()?;
        command.args(flags);
        self.peer = Some(command.spawn().map_err(LabError::io("starting rialtod"))?);
        Ok(())
    }

    /// Runs a peer that is expected to give up by itself, and waits for its end.
    pub fn start_in_vain(&self, flags: &[&str], limit: Duration) -> Result<Output> {
        run_within(self.peer_command()?.args(flags), limit)
    }

    fn peer_command(&self) -> Result<Command> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_path());
        let log: File = log.map_err(LabError::io("opening the peer's log"))?;
        let errors = log.try_clone().map_err(LabError::io("opening the peer's log"))?;
        let mut command = self.inside(&self.binaries.rialtod);
        // What a person has set for peers of his own must not reach those of the lab; how much they say may.
        let ours = |name: &str| name.starts_with("RIALTO_") && name != "RIALTO_LOG";
        for (name, _) in std::env::vars_os().filter(|(name, _)| ours(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        let (dns, dns_port) = self.dns();
        command
            .arg("--data")
            .arg(self.data())
            .arg("--socket")
            .arg(self.socket())
            .arg("--config")
            .arg(self.folder.join("rialtod.toml"))
            .args(["--name", &self.name])
            .args(["--listen", &format!("{}:7400", self.address)])
            .args(["--advertise", &format!("{}:7400", self.address)])
            .args(["--dns", &format!("{dns}:{dns_port}")])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        clock::show(&self.folder, &mut command)?;
        // A Ctrl-C at the terminal ends the lab, and the lab ends its peers.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Ok(command)
    }

    /// Waits until the peer's API answers; how long that took.
    pub fn ready(&mut self) -> Result<Duration> {
        let began = Instant::now();
        loop {
            if let Ok(machines) = self.api::<Machines>("/v1/machines") {
                let took = began.elapsed();
                let me = machines.machines.into_iter().find(|machine| machine.this);
                me.map_or(Ok(()), |me| super::remains::remember_peer(&self.folder, &me.id))?;
                return Ok(took);
            }
            let ended = self.peer.as_mut().and_then(|peer| peer.try_wait().ok().flatten());
            if ended.is_some() || began.elapsed() > STARTING {
                let outcome = ended.map_or("does not answer".into(), |status| format!("ended: {status}"));
                return Err(LabError::Command {
                    command: format!("rialtod of {}", self.name),
                    outcome,
                    said: self.last_words(15),
                });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The last lines of the peer's log.
    pub fn last_words(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// Kills the peer alone: its tasks go on.
    pub fn kill_peer(&mut self) {
        if let Some(peer) = self.peer.take() {
            end(peer);
        }
    }

    /// Asks the peer to go (SIGTERM) and waits until it has gone; the code it ended with.
    pub fn stop(&mut self, limit: Duration) -> Result<i32> {
        let Some(mut peer) = self.peer.take() else { return Ok(0) };
        kill(Pid::from_raw(peer.id() as i32), Signal::SIGTERM).ok();
        let ended = until("the end of the peer", limit, || match peer.try_wait() {
            Ok(Some(status)) => Ok(super::command::exit_code(status)),
            _ => Err("it runs".into()),
        });
        match ended {
            Ok((code, _)) => Ok(code),
            Err(late) => {
                end(peer);
                Err(late)
            }
        }
    }

    /// Sets the time of day, as the peer sees it, so many seconds ahead of the true one. A peer whose machine's clock is to
    /// be set while it runs must be started after it was set once.
    pub fn set_clock(&self, ahead_seconds: i64) -> Result<()> {
        clock::set(&self.folder, ahead_seconds)
    }

    /// The machine stands still: the peer and everything else on it.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// The machine goes on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        match &self.netns {
            Some(netns) => processes::signal_all(netns, signal),
            None => self.pid().into_iter().for_each(|pid| {
                kill(Pid::from_raw(pid as i32), signal).ok();
            }),
        }
    }

    /// Runs `rialto` against this peer and returns whatever comes of it.
    pub fn cli(&self, arguments: &[&str]) -> Result<Output> {
        run_within(&mut self.cli_command(arguments), COMMAND)
    }

    /// The same as a command, not yet run.
    pub fn cli_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binaries.rialto);
        command.arg("--socket").arg(self.socket()).args(arguments);
        command.env_remove("RIALTO_API").env_remove("RIALTO_SOCKET");
        command
    }

    /// Runs `rialto` against this peer; it must succeed.
    pub fn done(&self, arguments: &[&str]) -> Result<Output> {
        self.cli(arguments)?.ok()
    }

    /// Runs `rialto -o json` against this peer and reads what it says.
    pub fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        self.done(&[&["-o", "json"], arguments].concat())?.json()
    }

    /// `rialto ps`.
    pub fn ps(&self) -> Result<Vec<TaskRow>> {
        self.json(&["ps"])
    }

    /// `rialto machine ls`.
    pub fn machines(&self) -> Result<Vec<MachineRow>> {
        self.json(&["machine", "ls"])
    }

    /// `rialto status`.
    pub fn status(&self) -> Result<Status> {
        self.json(&["status"])
    }

    /// A token to join by, made here; `arguments` are those of `rialto invite`.
    pub fn invite(&self, arguments: &[&str]) -> Result<String> {
        let invited: Invited = self.json(&[&["invite"], arguments].concat())?;
        Ok(invited.token)
    }

    /// `GET PATH` of the peer's API.
    pub fn api<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let said = self.get(path)?;
        serde_json::from_str(&said).map_err(|error| LabError::Unreadable {
            what: format!("GET {path} at {}", self.name),
            error: error.to_string(),
            said,
        })
    }

    /// The same as it comes.
    fn get(&self, path: &str) -> Result<String> {
        let answer = UnixStream::connect(self.socket()).and_then(|stream| http::get(stream, "rialto", path));
        Ok(answer.map_err(LabError::io(format!("GET {path} at {}", self.name)))?.body)
    }

    /// What the peer counts: every line of `/metrics`, by its name with its labels.
    pub fn metrics(&self) -> Result<BTreeMap<String, f64>> {
        let text = self.get("/metrics")?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ok(lines
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(name, value)| Some((name.into(), value.parse().ok()?)))
            .collect())
    }

    /// The processes of this machine that run a program of this name.
    pub fn processes_named(&self, name: &str) -> Vec<i32> {
        let within = self.netns.as_deref().map(processes::within).unwrap_or_default();
        within.into_iter().filter(|pid| processes::name(*pid).is_some_and(|is| is == name)).collect()
    }

    /// Flags for every later start of this peer.
    pub fn set_flags(&mut self, flags: &[&str]) {
        self.flags.extend(flags.iter().map(|flag| flag.to_string()));
    }

    /// The peer's memory in bytes: resident, and its proportional share.
    pub fn memory(&self) -> Option<(u64, u64)> {
        processes::memory(self.pid()?)
    }

    /// Processor time that the peer has used.
    pub fn processor_time(&self) -> Option<Duration> {
        processes::processor_time(self.pid()?)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// Kills a child and takes note of its end.
fn end(mut child: Child) {
    child.kill().ok();
    child.wait().ok();
}
