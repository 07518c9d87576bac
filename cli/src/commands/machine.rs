//! `rialto machine`.

use rialto_client::Client;
use rialto_protocol::api::MachineRow;

use crate::args::Machine;
use crate::exit::Failure;
use crate::output::{Output, say};
use crate::{human, table};

/// Clocks that are off by less are not worth a word, ms.
const CLOCK_OFF_MS: i64 = 1_000;

const HEADER: [&str; 11] =
    ["NAME", "STATE", "ADDRESS", "CPU FREE", "MEMORY FREE", "ALSO FREE", "AGE", "VERSION", "CLOCK", "LABELS", "REASON"];

pub async fn machine(client: &Client, out: Output, machine: Machine) -> Result<(), Failure> {
    match machine {
        Machine::Ls => {
            let machines = client.machines().await?.data.machines;
            out.data(&machines, || rows(&machines))
        }
        Machine::Drain { machine } => {
            client.drain(&machine, true).await?;
            say(format!("{machine} takes no more work, and hands over what it has"));
            Ok(())
        }
        Machine::Rm { machine, force, last } => {
            let removed = client.remove_machine(&machine, force, last).await?;
            say(format!("{machine} is a member no more"));
            out.data(&removed, String::new)
        }
        Machine::Unfreeze => {
            let unfrozen = client.unfreeze().await?;
            match unfrozen["released"].as_u64().unwrap_or_default() {
                0 => say("nothing was held back"),
                held => say(format!("{} held back no more", human::count(held, "replacement"))),
            }
            out.data(&unfrozen, String::new)
        }
        Machine::Undrain { machine } => {
            client.drain(&machine, false).await?;
            say(format!("{machine} takes work again"));
            Ok(())
        }
    }
}

fn rows(machines: &[MachineRow]) -> String {
    let cells = |row: &MachineRow| {
        let labels: Vec<String> = row.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let resources: Vec<String> =
            row.resources.iter().map(|one| format!("{} {} of {}", one.name, one.free, one.total)).collect();
        vec![
            row.name.clone(),
            row.state.clone(),
            row.address.clone().unwrap_or_else(|| "-".into()),
            format!("{} of {}", human::cores(row.cpu_millis_free), human::cores(row.cpu_millis)),
            format!("{} of {}", human::bytes(row.memory_bytes_free), human::bytes(row.memory_bytes)),
            resources.join(", "),
            human::seconds(row.age_seconds),
            row.version.clone(),
            row.clock_offset_ms.and_then(clock).unwrap_or_default(),
            labels.join(","),
            row.reason.clone().unwrap_or_default(),
        ]
    };
    table::table(&HEADER, &["ALSO FREE", "CLOCK", "LABELS", "REASON"], &machines.iter().map(cells).collect::<Vec<_>>())
}

/// A clock that is off by so much that it shows.
fn clock(offset_ms: i64) -> Option<String> {
    let off = human::seconds(offset_ms.unsigned_abs() / 1000);
    (offset_ms.abs() >= CLOCK_OFF_MS).then(|| format!("{off} {}", if offset_ms > 0 { "ahead" } else { "behind" }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_protocol::api::ResourceRow;
    use std::collections::BTreeMap;

    #[test]
    fn a_clock_is_named_when_it_is_off_by_a_second() {
        assert_eq!(clock(999), None);
        assert_eq!(clock(-45_200).as_deref(), Some("45s behind"));
        assert_eq!(clock(3_600_000).as_deref(), Some("60m ahead"));
    }

    #[test]
    fn machines_are_a_table() {
        let counted = |name: &str, total, free| ResourceRow { name: name.into(), total, free };
        let row = MachineRow {
            name: "m1".into(),
            id: "ab".repeat(32),
            state: "alive".into(),
            address: Some("10.0.0.1:7400".into()),
            cpu_millis: 2000,
            memory_bytes: 24 << 30,
            cpu_millis_free: 1500,
            memory_bytes_free: 3 << 29,
            resources: vec![counted("gpu", 4, 1), counted("licence", 3, 3)],
            labels: BTreeMap::from([("rack".into(), "a".into()), ("ssd".into(), "yes".into())]),
            version: "0.1.0".into(),
            age_seconds: 8000,
            clock_offset_ms: Some(-20),
            reason: None,
            this: true,
            written: 7,
        };
        let bare = MachineRow {
            name: "m2".into(),
            state: "no-executor".into(),
            address: None,
            resources: Vec::new(),
            labels: BTreeMap::new(),
            age_seconds: 5,
            clock_offset_ms: None,
            reason: Some("not root".into()),
            this: false,
            ..row.clone()
        };
        insta::assert_snapshot!(rows(&[row, bare]));
    }
}
