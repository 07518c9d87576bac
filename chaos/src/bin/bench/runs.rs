//! The whole of `rialto run host true`, beside `crun run` of the same where there is crun.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rialto_chaos::netns::{Lab, Machine, run_within};
use serde_json::{Value, json};

use crate::figures::{Figures, Target};

const LIMIT: Duration = Duration::from_secs(60);
const PEERS: usize = 3;

/// Runs `true` in turn at each of three peers, and as often under crun on a machine without a peer.
pub fn measure(figures: &mut Figures, samples: usize) -> Result<()> {
    let mut lab = Lab::new(PEERS + 1)?;
    lab.found_with(PEERS)?;
    let crun = Crun::prepare(lab.machine(PEERS), &lab.folder().join("crun"));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first of each finds nothing in any cache.
    for round in 0..samples + PEERS {
        let machine = lab.machine(round % PEERS);
        let took = run_within(&mut machine.cli_command(&["run", "host", "true"]), LIMIT)?.ok()?.took;
        let beside = crun.as_ref().ok().map(|crun| crun.run(round)).transpose()?;
        if round >= PEERS {
            ours.push(milliseconds(took));
            theirs.extend(beside.map(milliseconds));
        }
    }
    figures.add("rialto run host true, three peers", "ms", ours, Target::AtMost(150.0));
    match crun {
        Ok(_) => figures.add("crun run of the same, no cluster", "ms", theirs, Target::None),
        Err(reason) => println!("crun is not measured: {reason:#}"),
    }
    Ok(())
}

fn milliseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

/// A bundle that shows the host's `/usr` read-only, as our image `host` does.
struct Crun<'a> {
    machine: &'a Machine,
    bundle: String,
}

impl<'a> Crun<'a> {
    fn prepare(machine: &'a Machine, bundle: &Path) -> Result<Self> {
        std::fs::create_dir_all(bundle.join("rootfs/usr"))?;
        for name in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), bundle.join("rootfs").join(name))?;
        }
        // This crun wants no v2 mount beside v1; the machine's mount namespace is its own.
        if Path::new("/sys/fs/cgroup/unified").is_dir() {
            run_within(machine.inside("umount").arg("/sys/fs/cgroup/unified"), LIMIT)?.ok()?;
        }
        let crun = Self { machine, bundle: bundle.display().to_string() };
        run_within(machine.inside("crun").args(["spec", "--bundle", &crun.bundle]), LIMIT)?.ok()?;
        let file = bundle.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&file)?)?;
        config["root"]["readonly"] = json!(true);
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["true"]);
        let usr = json!({"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]});
        config["mounts"].as_array_mut().context("crun's spec has no mounts")?.push(usr);
        std::fs::write(&file, config.to_string())?;
        crun.run(usize::MAX)?;
        Ok(crun)
    }

    fn run(&self, round: usize) -> Result<Duration> {
        let name = format!("rialto-bench-{}-{round}", std::process::id());
        let mut command = self.machine.inside("crun");
        command.args(["--cgroup-manager=cgroupfs", "run", "--bundle", &self.bundle, &name]);
        Ok(run_within(&mut command, LIMIT)?.ok()?.took)
    }
}
