//! A machine dies; how long until its work is done elsewhere.

use std::time::Duration;

use anyhow::{Context, Result};
use rialto_chaos::netns::{Lab, REPLICAS, WEB};
use rialto_protocol::api::App;

use crate::figures::{Figures, Target};

const PEERS: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// Kills a machine that runs a replica, waits for the replacement, revives it; again and again.
pub fn measure(figures: &mut Figures, samples: usize) -> Result<()> {
    let mut lab = Lab::new(PEERS)?;
    lab.found()?;
    lab.import_web(0)?;
    lab.deploy_web(0)?;
    let (mut gone, mut replaced, mut stewards) = (Vec::new(), Vec::new(), Vec::new());
    for sample in 0..samples {
        let app: App = lab.machine(0).api("/v1/apps/shop")?;
        let steward = app.steward.and_then(|name| lab.index_of(&name));
        let rows = lab.machine(0).ps()?;
        let running = rows.iter().filter(|row| row.app == "shop" && row.state == "running");
        let mut hosts: Vec<usize> = running.filter_map(|row| lab.index_of(row.machine.as_deref()?)).collect();
        hosts.sort();
        hosts.dedup();
        let victim = hosts[sample % hosts.len().max(1)];
        let survivors: Vec<usize> = (0..PEERS).filter(|index| *index != victim).collect();
        let death = lab.die_and_watch(victim, WEB, REPLICAS, &survivors, PATIENCE).context("a death")?;
        println!(
            "  {} dies{}: gone from DNS after {:.1} s, replaced after {:.1} s",
            lab.machine(victim).name(),
            if steward == Some(victim) { " (the steward)" } else { "" },
            death.gone_from_dns.as_secs_f64(),
            death.answering.as_secs_f64()
        );
        gone.push(death.gone_from_dns.as_secs_f64());
        let of = if steward == Some(victim) { &mut stewards } else { &mut replaced };
        of.push(death.answering.as_secs_f64());
        lab.revive(victim)?;
        for machine in lab.machines() {
            machine.sees(PEERS as u32, PATIENCE)?;
            machine.serves(WEB, REPLICAS, PATIENCE)?;
        }
    }
    figures.add("death of a machine → gone from DNS", "s", gone, Target::AtMost(5.0));
    for (samples, what, limit) in [
        (replaced, "death of a machine → replacement answers", 10.0),
        (stewards, "death of the steward's machine → replacement answers", 14.0),
    ] {
        if !samples.is_empty() {
            figures.add(what, "s", samples, Target::AtMost(limit));
        }
    }
    Ok(())
}
