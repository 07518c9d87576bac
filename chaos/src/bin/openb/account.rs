//! A second account of every machine, in plain numbers and by nothing of the market's own: what is bound
//! is what was asked, and nobody gives more than it has.

use anyhow::{Context, ensure};
use rialto_protocol::market::bidder::Bidder;
use rialto_protocol::model::Resources;
use rialto_protocol::model::resources::{CPU_MILLIS, GPU_SHARE, GPU_WHOLE, GPUS, MEMORY_BYTES};

use super::trace::Host;

#[derive(Clone, Debug)]
struct Left {
    cpu_millis: u64,
    memory_bytes: u64,
    gpus: Vec<u64>,
}

/// What is left of each machine.
#[derive(Debug)]
pub struct Account {
    left: Vec<Left>,
}

impl Account {
    pub fn new(hosts: &[Host]) -> Self {
        let left = |host: &Host| Left {
            cpu_millis: host.capacity.get(CPU_MILLIS),
            memory_bytes: host.capacity.get(MEMORY_BYTES),
            gpus: vec![GPU_WHOLE; host.gpus as usize],
        };
        Self { left: hosts.iter().map(left).collect() }
    }

    /// Takes what a claim takes of one machine; it must be what was asked, and be there.
    pub fn take(&mut self, hosts: &[Host], place: usize, taken: &Resources, asked: &Resources) -> anyhow::Result<()> {
        let name = &hosts[place].name;
        let left = &mut self.left[place];
        let (mut whole, mut shares) = (0, Vec::new());
        for (dimension, amount) in &taken.0 {
            let of = match dimension.as_str() {
                CPU_MILLIS => &mut left.cpu_millis,
                MEMORY_BYTES => &mut left.memory_bytes,
                other => {
                    let number = other.strip_prefix("gpu_milli:").and_then(|number| number.parse::<usize>().ok());
                    let gpu = number.with_context(|| format!("a claim on {name} takes of {other}"))?;
                    if *amount == GPU_WHOLE {
                        whole += 1
                    } else {
                        shares.push(*amount)
                    }
                    left.gpus.get_mut(gpu).with_context(|| format!("{name} has no GPU {gpu}"))?
                }
            };
            ensure!(*of >= *amount, "{name} gives {amount} of {dimension} and has {of}");
            *of -= amount;
        }
        let share: Vec<u64> = Some(asked.get(GPU_SHARE)).filter(|share| *share > 0).into_iter().collect();
        ensure!(whole == asked.get(GPUS) && shares == share, "{asked:?} was asked of {name}, and {taken:?} given");
        let same = |dimension: &str| taken.get(dimension) == asked.get(dimension);
        ensure!(same(CPU_MILLIS) && same(MEMORY_BYTES), "{asked:?} was asked of {name}, and {taken:?} given");
        Ok(())
    }

    /// The machines' own accounts say the same.
    pub fn check_against<'a>(&self, bidders: impl Iterator<Item = (usize, &'a Bidder)>) -> anyhow::Result<()> {
        for (place, bidder) in bidders {
            let left = &self.left[place];
            let free = |dimension: &str| bidder.capacity.free(&bidder.used(), dimension);
            let gpus: u64 = bidder.capacity.gpus(&bidder.used()).map(|(_, free)| free).sum();
            let same = free(CPU_MILLIS) == left.cpu_millis
                && free(MEMORY_BYTES) == left.memory_bytes
                && gpus == left.gpus.iter().sum::<u64>();
            ensure!(same, "{} keeps another account than was taken of it", bidder.name);
        }
        Ok(())
    }
}
