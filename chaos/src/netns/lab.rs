//! The machines and the wires between them.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;

use super::faults::port;
use super::site::Site;
use super::{Binaries, Faults, LabError, Machine, Result, command, processes, run, until};

/// How long a new cluster may take until every peer sees every other.
const GATHERING: Duration = Duration::from_secs(20);
/// The programs that a lab is made with.
const PROGRAMS: [&str; 6] = ["ip", "nft", "nsenter", "unshare", "dig", "hostname"];
/// A lab's machines have one byte of the address.
const MACHINES_MAX: usize = 250;

/// Machines on one wire. Everything is taken away when it is dropped, after a panic too.
#[derive(Debug)]
pub struct Lab {
    // Machines go before the site that they stand on.
    machines: Vec<Machine>,
    faults: Faults,
    /// The namespace of the bridge; none for a lab on the loopback interface.
    bridge: Option<String>,
    site: Site,
}

/// Whether this host allows a lab of namespaces; if not, why.
pub fn can_build() -> std::result::Result<(), String> {
    static CAN: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    CAN.get_or_init(|| {
        if !geteuid().is_root() {
            return Err("making network namespaces needs root".into());
        }
        let search = std::env::var_os("PATH").unwrap_or_default();
        for program in PROGRAMS {
            if !std::env::split_paths(&search).any(|folder| folder.join(program).is_file()) {
                return Err(format!("the program {program} is missing"));
            }
        }
        let mut lab = Lab::bare(2).map_err(|error| error.to_string())?;
        lab.cut(0, 1).map_err(|error| error.to_string())
    })
    .clone()
}

impl Lab {
    /// Machines `m1` to `mN`, powered and wired, with no peer running.
    pub fn new(machines: usize) -> Result<Self> {
        Self::with(machines, Binaries::find()?)
    }

    /// The same without any program to start on them: wires alone.
    pub fn bare(machines: usize) -> Result<Self> {
        Self::with(machines, Binaries { rialtod: "/nonexistent".into(), rialto: "/nonexistent".into() })
    }

    fn with(machines: usize, binaries: Binaries) -> Result<Self> {
        let site = Site::take()?;
        let bridge = site.netns("net");
        run("ip", &["netns", "add", &bridge])?;
        let mut lab = Lab { machines: Vec::new(), faults: Faults::default(), bridge: Some(bridge.clone()), site };
        in_namespace(&bridge, "link set lo up\nlink add br0 type bridge stp_state 0\nlink set br0 up\n")?;
        for index in 0..machines.min(MACHINES_MAX) {
            let folder = lab.site.folder().join(port(index));
            let machine = Machine::new(port(index), lab.site.address(index), folder, binaries.clone())?;
            lab.machines.push(machine);
            lab.boot(index)?;
        }
        lab.enforce()?;
        Ok(lab)
    }

    /// Peers without machines: an address of 127.0.0.0/8 and the null executor for each. For
    /// users without the rights to more; the wire has no faults, and nothing really runs.
    pub fn on_loopback(machines: usize) -> Result<Self> {
        let site = Site::take()?;
        let binaries = Binaries::find()?;
        let mut lab = Lab { machines: Vec::new(), faults: Faults::default(), bridge: None, site };
        for index in 0..machines.min(MACHINES_MAX) {
            let folder = lab.site.folder().join(port(index));
            let mut machine = Machine::new(port(index), lab.site.loopback_address(index), folder, binaries.clone())?;
            machine.flags = vec!["--executor".into(), "null".into()];
            lab.machines.push(machine);
        }
        Ok(lab)
    }

    /// Whether the machines are real enough to be cut off and to run containers.
    pub fn has_wires(&self) -> bool {
        self.bridge.is_some()
    }

    /// Flags for every later start of every peer.
    pub fn set_flags(&mut self, flags: &[&str]) {
        for machine in &mut self.machines {
            machine.set_flags(flags);
        }
    }

    /// The lab's folder: what is put there goes with the lab.
    pub fn folder(&self) -> std::path::PathBuf {
        self.site.folder()
    }

    /// Prints the last lines of each peer's log: what a person wants to see when something failed.
    pub fn tell_logs(&self) {
        for machine in &self.machines {
            eprintln!("--- the last of {}'s log:\n{}", machine.name(), machine.last_words(40));
        }
    }

    /// How many machines there are.
    pub fn len(&self) -> usize {
        self.machines.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// Machine `index`, counted from 0. Panics where there is none: a mistake of the test.
    pub fn machine(&self, index: usize) -> &Machine {
        &self.machines[index]
    }

    /// The same, to start and stop its peer.
    pub fn machine_mut(&mut self, index: usize) -> &mut Machine {
        &mut self.machines[index]
    }

    /// All machines.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// The number of the machine called `name`.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.machines.iter().position(|machine| machine.name() == name)
    }

    /// The first machine founds a cluster, the others join it by its invitation; then waits until
    /// every peer sees all. How long that took.
    pub fn found(&mut self) -> Result<Duration> {
        self.found_with(self.machines.len())
    }

    /// The same with the first `count` machines alone.
    pub fn found_with(&mut self, count: usize) -> Result<Duration> {
        let began = Instant::now();
        let (founder, others) = self.machines[..count].split_at_mut(1);
        founder[0].start(&[])?;
        if !others.is_empty() {
            let token = founder[0].invite(&["--uses", &others.len().to_string()])?;
            for machine in others.iter_mut() {
                machine.spawn(&["--join", &token])?;
            }
            for machine in others {
                machine.ready()?;
            }
        }
        for machine in &self.machines[..count] {
            machine.sees(count as u32, GATHERING)?;
        }
        Ok(began.elapsed())
    }

    /// A machine dies: its wire first, so that not a packet says goodbye, then everything on it.
    /// Its disk stays.
    pub fn die(&mut self, index: usize) -> Result<()> {
        if let Some(bridge) = &self.bridge {
            in_namespace(bridge, &format!("link set {} down\n", port(index)))?;
        }
        self.machines[index].power_off();
        match self.machines[index].netns.take() {
            Some(netns) => run("ip", &["netns", "del", &netns]).map(drop),
            None => Ok(()),
        }
    }

    /// A dead machine boots, with its disk and another boot id; its peer is started and ready.
    pub fn revive(&mut self, index: usize) -> Result<()> {
        self.boot(index)?;
        self.machines[index].start(&[]).map(drop)
    }

    /// Wire and kernel of a machine that has none, without its peer.
    pub fn boot(&mut self, index: usize) -> Result<()> {
        let Some(bridge) = &self.bridge else { return Ok(()) };
        let (netns, port) = (self.site.netns(&port(index)), port(index));
        // The old namespace of a machine that died goes when its last socket does; its end of the
        // wire must be gone before the new one can have its name.
        if processes::netns_path(&netns).exists() {
            run("ip", &["netns", "del", &netns])?;
        }
        until("the end of the old wire", Duration::from_secs(5), || {
            match run("ip", &["-n", bridge, "link", "show", &port]) {
                Ok(_) => Err("it is there".into()),
                Err(_) => Ok(()),
            }
        })?;
        run("ip", &["netns", "add", &netns])?;
        run(
            "ip",
            &["link", "add", "name", &port, "netns", bridge, "type", "veth", "peer", "name", "eth0", "netns", &netns],
        )?;
        in_namespace(bridge, &format!("link set {port} master br0\nlink set {port} up\n"))?;
        let address = self.site.address(index);
        in_namespace(&netns, &format!("link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n"))?;
        self.machines[index].power_on(netns)
    }

    /// Nothing passes between two machines.
    pub fn cut(&mut self, a: usize, b: usize) -> Result<()> {
        self.faults.cut(a, b);
        self.enforce()
    }

    /// Nothing passes from one machine to another; the way back stays open.
    pub fn cut_one_way(&mut self, from: usize, to: usize) -> Result<()> {
        self.faults.cut_one_way(from, to);
        self.enforce()
    }

    /// A machine hears nobody, and nobody hears it.
    pub fn isolate(&mut self, index: usize) -> Result<()> {
        for other in (0..self.machines.len()).filter(|other| *other != index) {
            self.faults.cut(index, other);
        }
        self.enforce()
    }

    /// `percent` of all packets between all machines are lost.
    pub fn lose_everywhere(&mut self, percent: u8) -> Result<()> {
        for from in 0..self.machines.len() {
            for to in (0..self.machines.len()).filter(|to| *to != from) {
                self.faults.lose(from, to, percent);
            }
        }
        self.enforce()
    }

    /// The wires are whole again.
    pub fn heal(&mut self) -> Result<()> {
        self.faults = Faults::default();
        self.enforce()
    }

    /// Makes the bridge do what `faults` says.
    fn enforce(&self) -> Result<()> {
        let Some(bridge) = &self.bridge else {
            return Err(LabError::Impossible("the loopback interface has no wires to cut".into()));
        };
        let net = format!("--net={}", processes::netns_path(bridge).display());
        command::feed("nsenter", &[&net, "nft", "-f", "-"], &self.faults.rules())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell_logs();
        }
        // All at once: the namespaces die together when the site clears them.
        for machine in &mut self.machines {
            machine.power_off();
        }
    }
}

/// Runs lines of `ip` commands in a network namespace.
fn in_namespace(netns: &str, lines: &str) -> Result<()> {
    command::feed("ip", &["-n", netns, "-batch", "-"], lines)
}
