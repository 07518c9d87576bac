//! `rialto stop`: no replicas, but kept.

use rialto_client::{Client, Wait, new_change};
use rialto_protocol::api::ErrorCode;

use crate::args::Stop;
use crate::exit::{Exit, Failure};
use crate::output::{Output, say};

pub async fn stop(client: &Client, out: Output, stop: Stop) -> Result<(), Failure> {
    let mut changes = Vec::new();
    let mut apps = Vec::new();
    for name in &stop.names {
        let (app, service) = whole_service(client, name).await?;
        changes.push(client.scale(&app, service.as_deref(), 0, new_change()).await?.data);
        apps.push((name, app, service));
    }
    if !stop.detach {
        let deadline = tokio::time::Instant::now() + stop.timeout;
        for (name, app, service) in apps {
            wait(client, &app, service.as_deref(), deadline).await?;
            say(format!("{name} has stopped"));
        }
    }
    out.data(&changes, String::new)
}

/// The service that a name means. A task cannot be stopped alone, unless it is all there is of its
/// service.
async fn whole_service(client: &Client, name: &str) -> Result<(String, Option<String>), Failure> {
    let mut parts = name.splitn(3, '.');
    let app = parts.next().unwrap_or_default().to_string();
    let service = parts.next().map(str::to_string);
    if app.is_empty() || service.as_ref().is_some_and(String::is_empty) {
        return Err(Failure::usage(format!("'{name}' names neither an app nor a service")));
    }
    if let Some(slot) = parts.next() {
        let spec = client.app(&app).await?.data.spec;
        let replicas = service.as_ref().and_then(|service| spec.services.get(service)).map_or(0, |s| s.replicas);
        if !slot.parse().is_ok_and(|slot: u32| (1..=replicas).contains(&slot)) {
            return Err(Failure::new(Exit::NotFound, format!("there is no task {name}")));
        }
        if replicas > 1 {
            let of = service.as_deref().unwrap_or_default();
            let failure =
                Failure::new(Exit::Refused, format!("{name} is one of {replicas} tasks, and would be replaced"));
            return Err(
                failure.hint(format!("write rialto scale {app}.{of}={} or rialto stop {app}.{of}", replicas - 1))
            );
        }
    }
    Ok((app, service))
}

/// Waits until nothing runs of it.
async fn wait(
    client: &Client,
    app: &str,
    service: Option<&str>,
    deadline: tokio::time::Instant,
) -> Result<(), Failure> {
    let left = || deadline.saturating_duration_since(tokio::time::Instant::now());
    let Some(service) = service else {
        return client.wait(app, Wait::Finished, left()).await.map(drop).map_err(Into::into);
    };
    // Other services go on: each task of this one is waited for.
    for row in client.tasks(Some(app), Some(service), false).await?.data.tasks {
        match client.task(&row.task, Some((Wait::Finished, left()))).await {
            Err(error) if error.code() == Some(ErrorCode::NotFound) => {}
            other => drop(other?),
        }
    }
    Ok(())
}
