//! What was found, side by side.

use crate::trial::{Outcome, Trial};

/// How the network is modelled, for whoever reads the figures.
pub const MODEL: &str = "\
Every packet is lost by itself. A datagram is lost with it. On a stream it is sent again after 200 ms, then after twice
as long each time, or when one behind it has arrived, and all behind it wait; a connection over which nothing is
acknowledged for 5 s is given up; a handshake (SYN again after 1 s; four round trips) may take 4 s; the next dial comes after 100 ms doubling to
5 s. A pause stops the process, not its kernel. `1 % hear 20 %`: these lose four of five packets that they receive.
Ours: the production Membership, records and comparing as the brain has them, 2-4 ms a commit. foca 2.0 with its own
settings for local networks (SWIM with suspicion; it has nothing of Lifeguard).
Times: from a death until a survivor holds the dead for down, over all deaths and survivors. False: machines without
fault that were held for down by such / by how many in all; deaf: the same where either of the two hears 20 %.";

/// Prints the table.
pub fn print(trials: &[Trial], outcomes: &[[Option<Outcome>; 2]]) {
    println!();
    println!("| machines | trial | who | p50 | p99 | last | missed | false | deaf | packets/s each |");
    println!("|---:|---|---|---:|---:|---:|---:|---:|---:|---:|");
    for (trial, both) in trials.iter().zip(outcomes) {
        for (who, outcome) in ["ours", "foca"].iter().zip(both) {
            if let Some(outcome) = outcome {
                println!("{}", line(trial, who, outcome));
            }
        }
    }
    let mut told = None;
    for (trial, [ours, _]) in trials.iter().zip(outcomes) {
        if let Some((fewest, mean, most)) = ours.as_ref().and_then(|ours| ours.links)
            && told.replace(trial.machines) != Some(trial.machines)
        {
            println!("ours keeps {mean:.1} standing links a machine of {}, {fewest} to {most}", trial.machines);
        }
    }
}

fn line(trial: &Trial, who: &str, outcome: &Outcome) -> String {
    let time = |share| match outcome.within_s(share) {
        Some(s) if s.is_finite() => format!("{s:.1} s"),
        Some(_) => "never".into(),
        None => String::new(),
    };
    let verdicts =
        |(verdicts, by): (usize, usize)| if verdicts == 0 { "0".into() } else { format!("{verdicts} / {by}") };
    let deaf = if trial.weather.deaf > 0.0 { verdicts(outcome.deaf_downs) } else { String::new() };
    let sent = outcome.costs.first().map_or(0, |(_, count)| *count);
    format!(
        "| {} | {} | {who} | {} | {} | {} | {} | {} | {deaf} | {:.0} |",
        trial.machines,
        trial.name,
        time(0.5),
        time(0.99),
        time(1.0),
        outcome.missed,
        verdicts(outcome.false_downs),
        sent as f64 / (outcome.lasted_s + 20.0) / trial.machines as f64,
    )
}
