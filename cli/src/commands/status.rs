//! `rialto status`.

use std::time::Duration;

use rialto_client::Client;
use rialto_protocol::api::{Answer, Status};

use crate::exit::Failure;
use crate::output::Output;
use crate::{human, table};

pub async fn status(client: &Client, out: Output) -> Result<(), Failure> {
    let answer = client.status().await?;
    out.data(&answer, || shown(&answer))
}

fn shown(answer: &Answer<Status>) -> String {
    let status = &answer.data;
    let mut pairs = vec![
        ("cluster", status.cluster_id.clone()),
        ("asked", format!("{} (rialtod {})", status.machine, status.version)),
        ("machines", format!("{} alive of {} known", status.machines_alive, status.machines_known)),
        ("tasks", format!("{} running, {} pending", status.tasks_running, status.tasks_pending)),
    ];
    if status.holding_back > 0 {
        let held = human::count(u64::from(status.holding_back), "replacement");
        let rest = status.holding_back_ms.map(|ms| human::seconds(Duration::from_millis(ms).as_secs()));
        let until = rest.map_or(" until machines are back".into(), |rest| format!(" for another {rest}"));
        pairs.push(("holding back", held + &until));
    }
    pairs.extend(status.warnings.iter().map(|warning| ("warning", warning.clone())));
    if !status.refused.is_empty() {
        let refused: Vec<String> = status.refused.iter().map(|(what, count)| format!("{what} {count}")).collect();
        pairs.push(("refused", refused.join(", ")));
    }
    table::pairs(&pairs)
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
            warnings: vec!["DNS: 127.0.0.1:7453 is taken".into()],
            refused: BTreeMap::from([("signature".into(), 2), ("malformed".into(), 1)]),
        };
        insta::assert_snapshot!(shown(&Answer { as_of: 0, members_seen: 1, data: status }));
    }
}
