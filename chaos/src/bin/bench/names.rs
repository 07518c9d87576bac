//! Names of the zone, asked by dnsperf of one peer, beside Debian's dnsmasq with the same names on the same machine.

use std::fmt::Write as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rialto_chaos::netns::{Lab, Machine, REPLICAS, WEB, run_within, until};

use crate::figures::{Figures, Target};

const LIMIT: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(30);
/// Where dnsmasq answers.
const PORT: u16 = 7553;

/// Asks both in turn, `rounds` times, for so many seconds each.
pub fn measure(figures: &mut Figures, rounds: usize, seconds: u64) -> Result<()> {
    let mut lab = Lab::new(3)?;
    lab.found()?;
    lab.import_web(0)?;
    lab.deploy_web(1)?;
    let machine = lab.machine(0);
    machine.serves(WEB, REPLICAS, PATIENCE)?;
    let names = names(machine)?;
    let questions = lab.folder().join("questions");
    let lines: Vec<String> = names.iter().map(|(name, _)| format!("{name} A\n")).collect();
    std::fs::write(&questions, lines.concat())?;
    let questions = questions.display().to_string();
    let rival = match Rival::start(machine, &names) {
        Ok(rival) => rival,
        Err(reason) => {
            println!("names are not measured: {reason:#}");
            return Ok(());
        }
    };
    let (mut ours, mut theirs, mut share, mut lost) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (asked, gone) = ask(machine, machine.dns().1, &questions, seconds)?;
        let (beside, _) = ask(machine, PORT, &questions, seconds)?;
        ours.push(asked);
        theirs.push(beside);
        share.push(asked / beside);
        lost.push(gone);
    }
    drop(rival);
    figures.add("local names, dnsperf, one peer", "questions/s", ours, Target::None);
    figures.add("the same names, dnsmasq", "questions/s", theirs, Target::None);
    figures.add("the peer's rate over dnsmasq's", "×", share, Target::AtLeast(0.5));
    figures.add("questions of the peer that had no answer", "%", lost, Target::AtMost(0.1));
    Ok(())
}

/// The zone's names that have addresses, with them.
fn names(machine: &Machine) -> Result<Vec<(String, Vec<String>)>> {
    let slots = (1..=REPLICAS).map(|slot| format!("{slot}.{WEB}"));
    let machines = (1..=3).map(|number| format!("m{number}.machine.rialto.internal"));
    let all = [WEB.to_owned(), format!("tasks.{WEB}")].into_iter().chain(slots).chain(machines);
    all.map(|name| {
        let addresses = machine.dig(&name, "A", &[])?.1;
        anyhow::ensure!(!addresses.is_empty(), "{name} has no address");
        Ok((name, addresses))
    })
    .collect()
}

/// Questions a second, and how many in a hundred had no answer.
fn ask(machine: &Machine, port: u16, questions: &str, seconds: u64) -> Result<(f64, f64)> {
    let (port, seconds) = (port.to_string(), seconds.to_string());
    let mut dnsperf = machine.inside("dnsperf");
    dnsperf.args(["-s", "127.0.0.1", "-p", &port, "-d", questions, "-l", &seconds, "-c", "8", "-q", "200"]);
    let said = run_within(&mut dnsperf, LIMIT)?.ok()?.stdout;
    let number = |label: &str| -> Result<f64> {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(label));
        let word = line.and_then(|rest| rest.split_whitespace().next()).context("dnsperf says something else")?;
        Ok(word.parse()?)
    };
    let (sent, lost) = (number("Queries sent:")?, number("Queries lost:")?);
    Ok((number("Queries per second:")?, lost / sent.max(1.0) * 100.0))
}

/// dnsmasq, until it is dropped.
struct Rival(Child);

impl Rival {
    fn start(machine: &Machine, names: &[(String, Vec<String>)]) -> Result<Self> {
        let mut said = format!("port={PORT}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\n");
        for (name, addresses) in names {
            for address in addresses {
                writeln!(said, "host-record={name},{address}")?;
            }
        }
        let file = machine.data().with_file_name("dnsmasq.conf");
        std::fs::write(&file, said)?;
        let mut dnsmasq = machine.inside("dnsmasq");
        dnsmasq.args(["--keep-in-foreground", "--user=root", "--pid-file"]);
        dnsmasq.arg(format!("--conf-file={}", file.display()));
        let rival = Self(dnsmasq.stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("starting dnsmasq")?);
        let port = PORT.to_string();
        until("dnsmasq", PATIENCE, || {
            let mut dig = machine.inside("dig");
            dig.args(["+short", "+time=1", "+tries=1", "@127.0.0.1", "-p", &port, &names[0].0]);
            match run_within(&mut dig, LIMIT) {
                Ok(said) if said.stdout.trim() == names[0].1[0] => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })?;
        Ok(rival)
    }
}

impl Drop for Rival {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
