//! `rialto history`.

use rialto_client::Client;
use rialto_protocol::api::{self, RevisionRow};

use crate::args::History;
use crate::exit::Failure;
use crate::output::{Output, one_line, say};
use crate::table;

const HEADER: [&str; 5] = ["REVISION", "WHEN", "WHO", "AT", "WHAT"];
/// Digits of a revision's name that people see: the last, for the first tell the time.
pub const DIGITS: usize = 10;

pub async fn history(client: &Client, out: Output, history: History) -> Result<(), Failure> {
    let found = client.history(&history.app, history.all).await?.data;
    for conflict in &found.conflicts {
        say(format!("conflict: {}; setting it again settles it", one_line(conflict)));
    }
    out.data(&found, || rows(&found))
}

fn rows(history: &api::History) -> String {
    let cells = |row: &RevisionRow| {
        let at = row.at.get(..19).map(|at| at.replace('T', " ")).unwrap_or_else(|| row.at.clone());
        let summary = match row.generation == history.generation {
            true => one_line(&row.summary),
            false => format!("{} (generation {})", one_line(&row.summary), row.generation),
        };
        vec![short(&row.revision).into(), at, one_line(&row.author), one_line(&row.machine), summary]
    };
    table::table(&HEADER, &[], &history.revisions.iter().map(cells).collect::<Vec<_>>())
}

/// The end of a revision's name.
pub fn short(revision: &str) -> &str {
    revision.get(revision.len().saturating_sub(DIGITS)..).unwrap_or(revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_a_table() {
        let row = |n: u8, summary: &str, generation| RevisionRow {
            revision: format!("0199f3c0a1b27def8{n:015x}"),
            at: format!("2026-01-01T00:00:0{n}.000Z"),
            author: "admin".into(),
            machine: "m1".into(),
            summary: summary.into(),
            generation,
        };
        let history = api::History {
            app: "shop".into(),
            generation: 2,
            revisions: vec![row(1, "deploy", 1), row(2, "deploy", 2), row(3, "scale web to 5", 2)],
            conflicts: Vec::new(),
        };
        insta::assert_snapshot!(rows(&history));
    }
}
