//! `rialto wait`: until an app, a service or a task runs, or has finished.

use rialto_client::{Client, Wait as Until};
use rialto_protocol::api::{ErrorCode, TaskRow};
use tokio::time::Instant;

use super::ps::state;
use crate::args::{self, Wait};
use crate::exit::{Exit, Failure};
use crate::output::{Output, say};

pub async fn wait(client: &Client, out: Output, wait: Wait) -> Result<Exit, Failure> {
    let (app, within) = match wait.name.split_once('.') {
        Some((app, within)) => (app, Some(within)),
        None => (wait.name.as_str(), None),
    };
    let spec = client.app(app).await?.data.spec;
    let service = within.map(|within| within.split('.').next().unwrap_or_default());
    if let Some(service) = service
        && !spec.services.contains_key(service)
    {
        return Err(Failure::new(Exit::NotFound, format!("{app} has no service {service}")));
    }
    let meant = spec.services.iter().filter(|(name, _)| service.is_none_or(|service| service == *name));
    let is_batch = meant.clone().all(|(_, service)| service.is_batch());
    let until = match wait.until {
        Some(args::Until::Running) => Until::Running,
        Some(args::Until::Finished) => Until::Finished,
        None if is_batch => Until::Finished,
        None => Until::Running,
    };
    let end = Instant::now() + wait.timeout;
    let left = || end.saturating_duration_since(Instant::now());
    let rows = match within {
        None => client.wait(app, until, left()).await?.data.tasks,
        Some(within) => {
            // Others of the app may go on: each task of this one is waited for.
            let tasks: Vec<String> = match within.contains('.') {
                true => vec![wait.name.clone()],
                false => meant.flat_map(|(name, service)| slots(app, name, service.replicas)).collect(),
            };
            let mut rows = Vec::new();
            for task in tasks {
                match client.task(&task, Some((until, left()))).await {
                    Ok(answer) => rows.push(answer.data),
                    // What was forgotten has finished.
                    Err(error) if error.code() == Some(ErrorCode::NotFound) && until == Until::Finished => {}
                    Err(error) => return Err(error.into()),
                }
            }
            rows
        }
    };
    out.data(&rows, String::new)?;
    let failed: Vec<&TaskRow> = rows.iter().filter(|row| until == Until::Finished && is_failed(row)).collect();
    failed.iter().for_each(|row| say(format!("{} {}", row.task, state(row))));
    Ok(if failed.is_empty() { Exit::Done } else { Exit::Failed })
}

fn slots(app: &str, service: &str, replicas: u32) -> impl Iterator<Item = String> {
    (1..=replicas).map(move |slot| format!("{app}.{service}.{slot}"))
}

fn is_failed(row: &TaskRow) -> bool {
    row.state == "failed" || row.exit_code.is_some_and(|code| code != 0)
}
