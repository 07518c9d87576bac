//! `make demo`: three machines, no master, one app; then one of the machines dies.
//!
//! Everything shown is what the programs themselves print; everything timed is measured here and now.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use comfy_table::Table;
use rialto_chaos::netns::{Lab, Machine, REPLICAS, WEB, can_build, clear_on_interrupt, example, sweep};

/// Longer than any promise: a demo that fails shall say at what.
const PATIENCE: Duration = Duration::from_secs(60);
const MACHINES: usize = 3;

/// Three machines run an app, one of them dies, and another takes its place.
#[derive(Parser)]
#[command(version, after_help = "Examples:\n  demo\n  demo --keep      then try `rialto` at any of the three")]
struct Arguments {
    /// Leaves the machines standing at the end, until Ctrl-C, and says how to speak to each.
    #[arg(long)]
    keep: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    clear_on_interrupt()?;
    sweep()?;
    title("Rialto: three machines, no master, one app");
    match can_build() {
        Ok(()) => play(Lab::new(MACHINES)?, on_machines, arguments.keep),
        Err(reason) => {
            println!("Not here: machines as network namespaces, containers, and a death on the wire ({reason}).");
            println!("Instead: three peers on loopback addresses, with the executor that runs nothing.\n");
            play(Lab::on_loopback(MACHINES)?, on_loopback, arguments.keep)
        }
    }
}

/// Plays `scenes` in a lab, and shows what the peers said where that went wrong.
fn play(mut lab: Lab, scenes: fn(&mut Lab, &mut Times) -> Result<()>, keep: bool) -> Result<()> {
    let mut times = Times::default();
    if let Err(error) = scenes(&mut lab, &mut times) {
        lab.tell_logs();
        return Err(error);
    }
    title("What it took, on this machine, just now");
    println!("{}\n", times.table());
    if keep {
        stand(&lab);
    }
    drop(lab);
    println!("All of it is cleared away again.");
    ensure!(times.kept(), "a promise was not kept");
    Ok(())
}

/// Leaves the machines to whoever watches, until Ctrl-C.
fn stand(lab: &Lab) -> ! {
    println!("They stand until Ctrl-C. In another terminal:\n");
    let programs = std::env::current_exe().ok().and_then(|demo| Some(demo.parent()?.display().to_string()));
    println!("    export PATH={}:$PATH", programs.unwrap_or_default());
    for machine in lab.machines() {
        println!("    rialto --socket {} ps", machine.socket().display());
    }
    loop {
        std::thread::park();
    }
}

/// The whole of it: containers on machines with wires of their own.
fn on_machines(lab: &mut Lab, times: &mut Times) -> Result<()> {
    step("Three machines start a peer each: m1 founds the cluster, m2 and m3 join by its invitation");
    times.add("three peers started, joined, and seeing each other", lab.found()?, None);
    show(lab.machine(0), &["machine", "ls"])?;

    step("An image is imported at m1, and an app deployed at m2: any verb works at any machine");
    let folder = lab.build_web()?;
    show(lab.machine(0), &["image", "import", &folder.to_string_lossy()])?;
    let file = example("web/compose.yaml").canonicalize().context("finding examples/web")?;
    let took = show(lab.machine(1), &["deploy", "-f", &file.to_string_lossy()])?;
    times.add("deploy of three containers, until all run (two fetch the image)", took, None);
    show(lab.machine(2), &["ps"])?;

    step("The service is found by name, and answers, at every machine");
    serves(lab, &[0, 1, 2])?;

    let victim = (0..MACHINES).rev().find(|index| runs(lab, 0, *index)).context("no machine runs a replica")?;
    let survivors: Vec<usize> = (0..MACHINES).filter(|index| *index != victim).collect();
    let name = lab.machine(victim).name().to_owned();
    step(&format!("{name} dies: its wire is cut, its peer and its tasks get kill -9, nothing says goodbye"));
    let death = lab.die_and_watch(victim, WEB, REPLICAS, &survivors, PATIENCE)?;
    println!("{:>6.1} s  its address is gone from DNS", death.gone_from_dns.as_secs_f64());
    println!("{:>6.1} s  the replacement answers\n", death.answering.as_secs_f64());
    times.add("death of a machine → gone from DNS", death.gone_from_dns, Some(5.0));
    times.add("death of a machine → the replacement answers", death.answering, Some(10.0));
    show(lab.machine(survivors[0]), &["machine", "ls"])?;
    show(lab.machine(survivors[1]), &["ps"])?;
    serves(lab, &survivors)?;

    step("A program runs on some machine, and its output and exit code come back here");
    let took = show(lab.machine(survivors[0]), &["run", "host", "--", "echo", "What news on the Rialto?"])?;
    times.add("rialto run host echo …, as a whole", took, None);

    step(&format!("{name} boots again and is one of three; nothing runs twice"));
    let began = Instant::now();
    lab.revive(victim)?;
    for machine in lab.machines() {
        machine.sees(MACHINES as u32, PATIENCE)?;
    }
    times.add("boot of the dead machine → seen by all", began.elapsed(), None);
    show(lab.machine(victim), &["ps"])?;
    serves(lab, &[0, 1, 2])
}

/// What is left without rights: joining, placing, naming and replacing, of tasks that do nothing.
fn on_loopback(lab: &mut Lab, times: &mut Times) -> Result<()> {
    step("Three peers: m1 founds the cluster, m2 and m3 join by its invitation");
    times.add("three peers started, joined, and seeing each other", lab.found()?, None);
    show(lab.machine(0), &["machine", "ls"])?;

    step("An app is deployed at m2, and seen at m3");
    let text = "name: idle\nservices:\n  nap:\n    image: host\n    command: [\"sleep\", \"3600\"]\n    deploy:\n      replicas: 3\n";
    let file = lab.folder().join("idle.yaml");
    std::fs::write(&file, text)?;
    times.add(
        "deploy of three tasks, until all run",
        show(lab.machine(1), &["deploy", "-f", &file.to_string_lossy()])?,
        None,
    );
    show(lab.machine(2), &["ps"])?;

    step("m3 dies");
    let began = Instant::now();
    lab.die(2)?;
    lab.machine(0).ps_until("three tasks on two machines", PATIENCE, |rows| {
        let lives =
            |row: &&rialto_protocol::api::TaskRow| row.state == "running" && row.machine.as_deref() != Some("m3");
        rows.iter().filter(lives).count() == 3
    })?;
    times.add("death of a peer → its task is replaced", began.elapsed(), Some(10.0));
    show(lab.machine(0), &["ps"]).map(drop)
}

/// Resolves the example by name at these machines, and fetches a page from each address.
fn serves(lab: &Lab, at: &[usize]) -> Result<()> {
    for machine in at.iter().map(|index| lab.machine(*index)) {
        println!("{} $ dig tasks.{WEB} SRV, then GET of each:", machine.name());
        for (address, page) in machine.serves(WEB, REPLICAS, PATIENCE)? {
            println!("    {:<18} {page}", address.to_string());
        }
    }
    println!();
    Ok(())
}

/// Whether the peer at `at` shows a running replica on machine `index`.
fn runs(lab: &Lab, at: usize, index: usize) -> bool {
    let name = Some(lab.machine(index).name());
    lab.machine(at).ps().unwrap_or_default().iter().any(|row| row.state == "running" && row.machine.as_deref() == name)
}

/// Runs `rialto` at a machine, and shows the command and what it prints.
fn show(machine: &Machine, arguments: &[&str]) -> Result<Duration> {
    println!("{} $ rialto {}", machine.name(), arguments.join(" "));
    let output = machine.done(arguments)?;
    for line in output.stdout.lines().chain(output.stderr.lines()) {
        println!("    {line}");
    }
    println!();
    Ok(output.took)
}

fn title(text: &str) {
    println!("{}\n", bold(text));
}

fn step(text: &str) {
    println!("{}\n", bold(&format!("— {text}")));
}

fn bold(text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_owned() }
}

/// What was measured, with the limit in seconds where one is promised.
#[derive(Default)]
struct Times(Vec<(&'static str, Duration, Option<f64>)>);

impl Times {
    fn add(&mut self, what: &'static str, took: Duration, limit: Option<f64>) {
        self.0.push((what, took, limit));
    }

    fn kept(&self) -> bool {
        self.0.iter().all(|(_, took, limit)| limit.is_none_or(|limit| took.as_secs_f64() <= limit))
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::ASCII_MARKDOWN).set_header(["", "took", "promised"]);
        for (what, took, limit) in &self.0 {
            let took = match took.as_secs_f64() {
                seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1000.0),
                seconds => format!("{seconds:.1} s"),
            };
            let limit = limit.map_or(String::new(), |limit| format!("≤ {limit} s"));
            table.add_row([(*what).to_owned(), took, limit]);
        }
        table
    }
}
