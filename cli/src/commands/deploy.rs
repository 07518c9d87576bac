//! `rialto deploy`: an app runs as its file says.

pub mod file;
mod progress;

use std::time::Duration;

use rialto_client::{Client, Wait, new_change};
use rialto_protocol::api::ErrorCode;
use rialto_protocol::model::AppSpec;
use tokio::time::Instant;

use crate::args::Deploy;
use crate::ask;
use crate::exit::{Exit, Failure};
use crate::output::{Output, say};
use progress::Progress;

/// How often progress is looked at while the peer holds the question whether everything runs.
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub async fn deploy(client: &Client, out: Output, deploy: Deploy) -> Result<(), Failure> {
    let (app, spec) = file::read(deploy.file.as_deref(), deploy.app)?;
    confirm_endings(client, &app, &spec, deploy.yes).await?;
    let changed = client.deploy(&app, spec.clone(), deploy.resolve, new_change()).await?.data;
    match (changed.changed, changed.copies) {
        (false, _) => say(format!("{app} is as the file says already")),
        (true, 1) => say(format!("{app} is accepted; so far this peer alone has it on disk")),
        (true, copies) => say(format!("{app} is accepted; {copies} peers have it on disk")),
    }
    if !deploy.detach {
        until_running(client, &app, &spec, deploy.timeout).await?;
    }
    out.data(&changed, String::new)
}

/// A person is asked before services end that the file no longer names.
async fn confirm_endings(client: &Client, app: &str, spec: &AppSpec, yes: bool) -> Result<(), Failure> {
    if yes || !ask::somebody_is_there() {
        return Ok(());
    }
    let there = match client.app(app).await {
        Ok(answer) => answer.data.spec,
        Err(error) if error.code() == Some(ErrorCode::NotFound) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let ending: Vec<&str> =
        there.services.keys().filter(|name| !spec.services.contains_key(*name)).map(String::as_str).collect();
    if ending.is_empty() {
        return Ok(());
    }
    ask::confirm(&format!("the file no longer names {}: end it?", ending.join(", ")), yes)
}

async fn until_running(client: &Client, app: &str, spec: &AppSpec, timeout: Duration) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut progress = Progress::new(app, spec);
    loop {
        let left = timeout.saturating_sub(begun.elapsed());
        match client.wait(app, Wait::Running, left.min(LOOK_EVERY)).await {
            Ok(answer) => {
                progress.see(&answer.data.tasks, &[]);
                progress.end();
                say(format!("{app} runs after {:.1} s", begun.elapsed().as_secs_f64()));
                return Ok(());
            }
            Err(error) if error.code() == Some(ErrorCode::TimedOut) => {
                let tasks = client.tasks(Some(app), None, false).await?.data;
                progress.see(&tasks.tasks, &tasks.remarks);
                if left > LOOK_EVERY {
                    continue;
                }
                progress.end();
                let message = format!("{app} does not run after {} s: {}", timeout.as_secs(), progress.summary());
                let failure = Failure::new(Exit::TimedOut, message);
                return Err(failure.hint(format!("it stays deployed, and is tried on; see rialto ps {app}")));
            }
            Err(error) => {
                progress.end();
                return Err(error.into());
            }
        }
    }
}
