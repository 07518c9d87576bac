//! `rialto rollback`.

use rialto_client::{Client, new_change};

use super::history::short;
use crate::args::Rollback;
use crate::exit::{Exit, Failure};
use crate::output::{Output, say};

pub async fn rollback(client: &Client, out: Output, rollback: Rollback) -> Result<(), Failure> {
    let Rollback { app, to } = rollback;
    let revision = named(client, &app, &to).await?;
    let changed = client.rollback(&app, &revision, new_change()).await?.data;
    match changed.changed {
        true => say(format!("{app} is as it was after {}", short(&revision))),
        false => say(format!("{app} is as it was after {} already", short(&revision))),
    }
    out.data(&changed, String::new)
}

/// People name a revision by the end of its name, which differs most, or by all of it.
async fn named(client: &Client, app: &str, to: &str) -> Result<String, Failure> {
    let revisions = client.history(app, false).await?.data.revisions;
    let mut meant = revisions.into_iter().map(|row| row.revision).filter(|name| !to.is_empty() && name.ends_with(to));
    match (meant.next(), meant.next()) {
        (Some(revision), None) => Ok(revision),
        (None, _) => {
            let failure = Failure::new(Exit::NotFound, format!("{app} has no revision {to}"));
            Err(failure.hint(format!("see rialto history {app}")))
        }
        _ => Err(Failure::new(Exit::Refused, format!("{to} ends several revisions of {app}")).hint("give more digits")),
    }
}
