//! The trace: machines and tasks, as lists of comma-separated values with a line of names.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use rialto_protocol::market::constraint::{Constraint, GPU_MODEL};
use rialto_protocol::model::Resources;
use rialto_protocol::model::resources::{GPU_PREFIX, GPU_SHARE, GPU_WHOLE, GPUS, GPUS_MAX};

/// A machine of the trace.
#[derive(Clone, Debug)]
pub struct Host {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub capacity: Resources,
    pub gpus: u64,
}

/// A task of the trace.
#[derive(Clone, Debug)]
pub struct Task {
    pub need: Resources,
    pub constraints: Vec<Constraint>,
    /// Thousandths of a GPU, in sum.
    pub gpu_milli: u64,
}

/// Rows by the names in the first line.
struct Rows {
    names: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Rows {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let split = |line: &str| line.split(',').map(|field| field.trim().to_string()).collect::<Vec<_>>();
        let mut lines = text.lines().filter(|line| !line.trim().is_empty()).map(split);
        let names = lines.next().with_context(|| format!("{} is empty", path.display()))?;
        let rows: Vec<Vec<String>> = lines.collect();
        for (number, row) in rows.iter().enumerate() {
            ensure!(row.len() == names.len(), "{}:{}: {} fields", path.display(), number + 2, row.len());
        }
        Ok(Self { names, rows })
    }

    fn column(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|held| held == name)
    }

    fn numbers(&self, name: &str) -> anyhow::Result<Vec<u64>> {
        let at = self.column(name).with_context(|| format!("there is no column {name}"))?;
        let number = |row: &Vec<String>| row[at].parse().with_context(|| format!("{name}: '{}' is no number", row[at]));
        self.rows.iter().map(number).collect()
    }

    fn words(&self, name: &str) -> Vec<&str> {
        let at = self.column(name);
        self.rows.iter().map(|row| at.map_or("", |at| row[at].as_str())).collect()
    }
}

/// Reads a list of machines.
pub fn hosts(path: &Path) -> anyhow::Result<Vec<Host>> {
    let rows = Rows::read(path)?;
    let (cpu, memory, gpus) = (rows.numbers("cpu_milli")?, rows.numbers("memory_mib")?, rows.numbers("gpu")?);
    let (names, models) = (rows.words("sn"), rows.words("model"));
    let mut hosts = Vec::with_capacity(cpu.len());
    for at in 0..cpu.len() {
        ensure!(gpus[at] <= GPUS_MAX as u64, "{} has more than {GPUS_MAX} GPUs", names[at]);
        let mut capacity = Resources::of(cpu[at], memory[at] << 20);
        (0..gpus[at]).for_each(|gpu| capacity.set(format!("{GPU_PREFIX}{gpu}"), GPU_WHOLE));
        let labels = match models[at] {
            "" => BTreeMap::new(),
            model => BTreeMap::from([(GPU_MODEL.to_string(), model.to_string())]),
        };
        hosts.push(Host { name: names[at].to_string(), labels, capacity, gpus: gpus[at] });
    }
    if hosts.iter().all(|host| host.gpus == 0) {
        bail!("{} lists no machine with a GPU", path.display());
    }
    Ok(hosts)
}

/// Reads a list of tasks.
pub fn tasks(path: &Path) -> anyhow::Result<Vec<Task>> {
    let rows = Rows::read(path)?;
    let (cpu, memory) = (rows.numbers("cpu_milli")?, rows.numbers("memory_mib")?);
    let (gpus, shares) = (rows.numbers("num_gpu")?, rows.numbers("gpu_milli")?);
    let models = rows.words("gpu_spec");
    let mut tasks = Vec::with_capacity(cpu.len());
    for at in 0..cpu.len() {
        let mut need = Resources::of(cpu[at], memory[at] << 20);
        let gpu_milli = match (gpus[at], shares[at]) {
            (0, _) => 0,
            (1, share @ 1..GPU_WHOLE) => {
                need.set(GPU_SHARE, share);
                share
            }
            (whole, _) => {
                need.set(GPUS, whole);
                whole * GPU_WHOLE
            }
        };
        let wanted: Vec<String> = models[at].split('|').filter(|model| !model.is_empty()).map(str::to_string).collect();
        let constraints = if wanted.is_empty() { Vec::new() } else { vec![Constraint::gpu_model(wanted)] };
        tasks.push(Task { need, constraints, gpu_milli });
    }
    ensure!(tasks.iter().any(|task| task.gpu_milli > 0), "{} lists no task with a GPU", path.display());
    Ok(tasks)
}
