//! `rialto doctor`.

use rialto_client::Client;
use rialto_protocol::api::Check;

use crate::exit::{Exit, Failure};
use crate::output::{Output, say};
use crate::table;

pub async fn doctor(client: &Client, out: Output) -> Result<Exit, Failure> {
    let checks = client.doctor().await?.data.checks;
    out.data(&checks, || rows(&checks))?;
    match checks.iter().filter(|check| check.result == "failed").count() {
        0 => Ok(Exit::Done),
        failed => {
            say(format!("{failed} of {} checks failed", checks.len()));
            Ok(Exit::Failed)
        }
    }
}

fn rows(checks: &[Check]) -> String {
    let cells = |check: &Check| vec![check.result.clone(), check.name.clone(), check.text.clone()];
    table::table(&["RESULT", "CHECK", "FOUND"], &[], &checks.iter().map(cells).collect::<Vec<_>>())
}
