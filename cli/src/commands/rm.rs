//! `rialto rm`.

use std::time::Duration;

use rialto_client::{Client, new_change};
use rialto_protocol::api::{ErrorCode, VolumeRow};
use tokio::time::{Instant, sleep};

use super::deploy::file;
use crate::args::{Down, Rm};
use crate::exit::Failure;
use crate::output::{Output, say};
use crate::{ask, human};

/// How long tasks of an app that was removed may take to end, before its volumes are held for in use,
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// and how often that is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

pub async fn rm(client: &Client, out: Output, rm: Rm) -> Result<(), Failure> {
    let (mut changes, mut failures) = (Vec::new(), Vec::new());
    for app in &rm.apps {
        if ask::somebody_is_there() && !rm.yes {
            let services = client.app(app).await?.data.spec.services;
            let tasks: u64 = services.values().map(|service| u64::from(service.replicas)).sum();
            ask::confirm(&format!("remove {app} and end its {}?", human::count(tasks, "task")), rm.yes)?;
        }
        changes.push(client.remove(app, new_change()).await?.data);
        say(format!("{app} is removed"));
        if rm.volumes {
            failures.extend(belongings(client, app).await?);
        }
    }
    out.data(&changes, String::new)?;
    // Each was told of when it was met.
    failures.first().map_or(Ok(()), |first| Err(Failure::silent(first.exit)))
}

/// `rialto down`: the app that is named, or that of the file here.
pub async fn down(client: &Client, out: Output, down: Down) -> Result<(), Failure> {
    let apps = match down.apps.is_empty() {
        true => vec![file::read(&down.files)?.app],
        false => down.apps,
    };
    rm(client, out, Rm { apps, volumes: false, yes: down.yes }).await
}

/// Deletes what an app had for itself, once its tasks have ended; what cannot be deleted is told of, and keeps nothing
/// else from it.
async fn belongings(client: &Client, app: &str) -> Result<Vec<Failure>, Failure> {
    let own = format!("{app}/");
    let mut failures = Vec::new();
    let mut told = |what: String, removed: Result<(), Failure>| {
        if let Err(failure) = removed {
            let failure = Failure { message: format!("{what} stays: {}", failure.message), ..failure };
            failure.tell();
            failures.push(failure);
        }
    };
    for row in client.volumes().await?.data.volumes.into_iter().filter(|row| row.name.starts_with(&own)) {
        told(format!("volume {} on {}", row.name, row.machine), volume(client, &row).await);
    }
    for row in client.secrets().await?.data.secrets.into_iter().filter(|row| row.name.starts_with(&own)) {
        let removed = client.remove_secret(&row.name).await.map(|_| say(format!("secret {} is removed", row.name)));
        told(format!("secret {}", row.name), removed.map_err(Failure::from));
    }
    Ok(failures)
}

/// Deletes a volume when the task that has it has been stopped.
async fn volume(client: &Client, row: &VolumeRow) -> Result<(), Failure> {
    let ended = Instant::now() + ENDS_WITHIN;
    loop {
        // By its id: of one name there may be several, and all are to go.
        match client.remove_volume(&row.id, None, true).await {
            Ok(_) => {
                say(format!("volume {} is deleted from {}", row.name, row.machine));
                return Ok(());
            }
            Err(error) if error.code() == Some(ErrorCode::NotFound) => return Ok(()),
            Err(error) if error.code() == Some(ErrorCode::Denied) && Instant::now() < ended => sleep(LOOK_EVERY).await,
            Err(error) => return Err(error.into()),
        }
    }
}
