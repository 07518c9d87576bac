//! `rialto status`.

use rialto_client::Client;
use rialto_protocol::api::{Answer, LinkRow, Status};

use super::watch;
use crate::args;
use crate::exit::Failure;
use crate::output::Output;
use crate::table;

pub async fn status(client: &Client, out: Output, status: &args::Status) -> Result<(), Failure> {
    let look = async || {
        let answer = client.status().await?;
        out.data(&answer, || watch::clear(status.watch) + &shown(&answer))
    };
    watch::again(client, status.watch, look).await
}

fn shown(answer: &Answer<Status>) -> String {
    let status = &answer.data;
    let mut pairs = vec![
        ("cluster", status.cluster_id.clone()),
        ("asked", format!("{} (rialtod {})", status.machine, status.version)),
        ("machines", format!("{} alive of {} known", status.machines_alive, status.machines_known)),
        ("tasks", format!("{} running, {} pending", status.tasks_running, status.tasks_pending)),
    ];
    if let Some(subnet) = &status.subnet {
        pairs.push(("task network", format!("{subnet}{}", links(&status.links))));
    }
    // What is held back has a line of its own; the sentence says for how long, why, and the way out.
    pairs.extend(status.warnings.iter().map(|warning| match warning.strip_prefix("holding back ") {
        Some(held) => ("holding back", held.to_string()),
        None => ("warning", warning.clone()),
    }));
    if !status.refused.is_empty() {
        let refused: Vec<String> = status.refused.iter().map(|(what, count)| format!("{what} {count}")).collect();
        pairs.push(("refused", refused.join(", ")));
    }
    table::pairs(&pairs)
}

/// How the tasks of other machines are reached, and whether somebody can read along.
fn links(links: &[LinkRow]) -> String {
    let shown = links.iter().map(|link| {
        let open = if link.encrypted { "" } else { ", not encrypted" };
        format!("; {}: {}{open}", link.machine, link.path)
    });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_status_is_said_in_pairs() {
        let status = Status {
            cluster_id: "00ff00ff00ff00ff00ff00ff00ff00ff".into(),
            machine: "m1".into(),
            version: "0.1.0".into(),
            machines_alive: 1,
            machines_known: 3,
            tasks_running: 2,
            tasks_pending: 4,
            holding_back: 4,
            holding_back_ms: Some(43_210),
            warnings: vec![
                "holding back 4 replacements for 44 s: sees 1 of 3; `rialto machine unfreeze` goes now".into(),
                "DNS: 127.0.0.1:7453 is taken".into(),
            ],
            refused: BTreeMap::from([("signature".into(), 2), ("malformed".into(), 1)]),
            subnet: Some("10.208.4.0/22".into()),
            links: vec![LinkRow {
                machine: "m2".into(),
                subnet: "10.208.8.0/22".into(),
                path: "vxlan".into(),
                via: "192.0.2.2".into(),
                encrypted: false,
            }],
        };
        insta::assert_snapshot!(shown(&Answer { as_of: 0, members_seen: 1, data: status }));
    }
}
