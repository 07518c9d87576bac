//! `rialto stats`: what running tasks use.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};
use std::time::Duration;

use rialto_client::Client;
use rialto_protocol::api::{Stats, StatsRow};
use tokio::time::sleep;

use crate::args::{self, Format};
use crate::exit::{Exit, Failure};
use crate::output::{Output, one_line, say};
use crate::{human, table};

const HEADER: [&str; 8] = ["TASK", "MACHINE", "CPU", "MEMORY", "LIMIT", "PIDS", "DISK R/W", "NET R/S"];
/// Between two reads whose difference is shown.
const FIRST_AFTER: Duration = Duration::from_millis(500);
const EVERY: Duration = Duration::from_secs(2);

pub async fn stats(client: &Client, out: Output, stats: args::Stats) -> Result<(), Failure> {
    let (app, service) = match stats.name.as_deref().map(|name| name.split_once('.').unwrap_or((name, ""))) {
        None => (None, None),
        Some((app, "")) => (Some(app), None),
        Some((app, service)) => (Some(app), Some(service)),
    };
    let (service, slot) = match service.and_then(|service| service.split_once('.')) {
        Some((service, slot)) => (Some(service), Some(slot.to_string())),
        None => (service, None),
    };
    let look = || async {
        let mut read = client.stats(app, service).await?.data;
        read.stats.retain(|row| slot.as_ref().is_none_or(|slot| row.slot == *slot));
        Ok::<_, Failure>(read)
    };
    let mut before = look().await?;
    if let (true, Some(app)) = (before.stats.is_empty(), app) {
        client.app(app).await?;
    }
    if stats.no_stream && before.stats.is_empty() {
        before.remarks.iter().for_each(|remark| say(one_line(remark)));
        say("nothing runs");
        return out.data(&before.stats, String::new);
    }
    let mut wait = FIRST_AFTER;
    loop {
        sleep(wait).await;
        let mut now = look().await?;
        now.stats.iter_mut().for_each(|row| rate(row, &before));
        now.remarks.iter().for_each(|remark| say(one_line(remark)));
        match out.format {
            Format::Json if stats.no_stream => out.json(&now.stats)?,
            Format::Json => now.stats.iter().try_for_each(|row| out.json_line(row))?,
            Format::Table => {
                let clear = if !stats.no_stream && io::stdout().is_terminal() { "\x1b[H\x1b[J" } else { "" };
                out.text(&format!("{clear}{}", shown(&now)))?;
            }
        }
        if stats.no_stream {
            let failed = !now.remarks.is_empty();
            return if failed { Err(Failure::silent(Exit::Failed)) } else { Ok(()) };
        }
        (before, wait) = (now, EVERY);
    }
}

/// The processor's share between two reads; a task that is new keeps its mean.
fn rate(row: &mut StatsRow, before: &Stats) {
    if let Some(earlier) = before.stats.iter().find(|earlier| earlier.claim == row.claim && earlier.at < row.at) {
        row.cpu_millis = row.cpu_us.saturating_sub(earlier.cpu_us) / (row.at - earlier.at);
    }
}

fn shown(stats: &Stats) -> String {
    let mut names: BTreeMap<&str, u32> = BTreeMap::new();
    stats.stats.iter().for_each(|row| *names.entry(&row.task).or_default() += 1);
    let rows: Vec<Vec<String>> = stats.stats.iter().map(cells).collect();
    table::table(&HEADER, &["LIMIT", "NET R/S"], &rows)
}

fn cells(row: &StatsRow) -> Vec<String> {
    let network = match (row.received_bytes, row.sent_bytes) {
        (Some(received), Some(sent)) => format!("{} / {}", human::bytes(received), human::bytes(sent)),
        _ => String::new(),
    };
    vec![
        row.task.clone(),
        row.machine.clone(),
        format!("{}.{}%", row.cpu_millis / 10, row.cpu_millis % 10),
        human::bytes(row.memory_bytes),
        row.memory_limit_bytes.map(human::bytes).unwrap_or_default(),
        row.pids.to_string(),
        format!("{} / {}", human::bytes(row.read_bytes), human::bytes(row.written_bytes)),
        network,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_of_the_time_between() {
        let row = |at, cpu_us| StatsRow { claim: "a".into(), at, cpu_us, cpu_millis: 7, ..StatsRow::default() };
        let mut now = row(3_000, 1_500_000);
        rate(&mut now, &Stats { stats: vec![row(1_000, 500_000)], remarks: vec![] });
        assert_eq!(now.cpu_millis, 500);
        let mut new = row(3_000, 9);
        rate(&mut new, &Stats::default());
        assert_eq!(new.cpu_millis, 7);
        assert!(shown(&Stats { stats: vec![now], remarks: vec![] }).contains("50.0%"));
    }
}
