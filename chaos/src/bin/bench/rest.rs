//! What a peer costs that has nothing to do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rialto_chaos::netns::{Lab, Machine};

use crate::figures::{Figures, Target};

const PEERS: usize = 3;

/// Looks at each peer; each is a sample.
const LOOKS: u32 = 20;

/// Lets three peers rest for `rest`, then looks at them over as long again.
pub fn measure(figures: &mut Figures, rest: Duration) -> Result<()> {
    let mut lab = Lab::new(PEERS)?;
    lab.found()?;
    println!("{PEERS} peers rest for {rest:?}, and are looked at for as long again …");
    std::thread::sleep(rest);
    let (mut resident, mut proportional, mut busy) = (Vec::new(), Vec::new(), Vec::new());
    let mut before = look(&lab)?;
    for _ in 0..LOOKS {
        std::thread::sleep(rest / LOOKS);
        let now = look(&lab)?;
        for (now, before) in now.iter().zip(&before) {
            let used = now.used.saturating_sub(before.used).as_secs_f64();
            busy.push(used / now.at.duration_since(before.at).as_secs_f64() * 100.0);
            resident.push(now.memory.0 as f64 / 1e6);
            proportional.push(now.memory.1 as f64 / 1e6);
        }
        before = now;
    }
    figures.add("idle peer of three: memory (RSS)", "MB", resident, Target::AtMost(40.0));
    figures.add("idle peer of three: its share of memory (PSS)", "MB", proportional, Target::None);
    figures.add("idle peer of three: processor", "% of a core", busy, Target::AtMost(1.0));
    Ok(())
}

/// What a peer has used by one moment.
struct Look {
    used: Duration,
    memory: (u64, u64),
    at: Instant,
}

fn look(lab: &Lab) -> Result<Vec<Look>> {
    let look = |machine: &Machine| {
        let gone = || format!("the peer of {} has gone", machine.name());
        let (used, memory) = (machine.processor_time().with_context(gone)?, machine.memory().with_context(gone)?);
        Ok(Look { used, memory, at: Instant::now() })
    };
    lab.machines().iter().map(look).collect()
}
