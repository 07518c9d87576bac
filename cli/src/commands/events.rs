//! `rialto events`.

use rialto_client::Client;
use rialto_protocol::api::{AppEvent, EventRow};

use crate::args::{Events, Format};
use crate::exit::Failure;
use crate::output::{Output, one_line, say};

pub async fn events(client: &Client, out: Output, events: Events) -> Result<(), Failure> {
    if let Some(app) = &events.app {
        return of_app(client, out, app, &events).await;
    }
    let after = events.after.map(|id| id.parse().map_err(|_| Failure::usage(format!("'{id}' is no event's number"))));
    let after = after.transpose()?;
    if !events.follow {
        let rows = client.events(after).await?.data.events;
        if rows.is_empty() {
            say("nothing has happened since this peer's start");
        }
        return out.data(&rows, || rows.iter().map(line).collect());
    }
    let mut lines = client.follow_events(after).await?;
    while let Some(row) = lines.next().await? {
        match out.format {
            Format::Json => out.json_line(&row)?,
            Format::Table => out.text(&line(&row))?,
        }
    }
    Err(Failure::new(crate::exit::Exit::Failed, "the peer is going down"))
}

async fn of_app(client: &Client, out: Output, app: &str, events: &Events) -> Result<(), Failure> {
    if !events.follow {
        let rows = client.app_events(app, events.after.as_deref()).await?.data.events;
        if rows.is_empty() {
            say(format!("nothing is known to have happened to {app}"));
        }
        return out.data(&rows, || rows.iter().map(app_line).collect());
    }
    let mut lines = client.follow_app_events(app, events.after.as_deref()).await?;
    while let Some(row) = lines.next().await? {
        match out.format {
            Format::Json => out.json_line(&row)?,
            Format::Table => out.text(&app_line(&row))?,
        }
    }
    Err(Failure::new(crate::exit::Exit::Failed, "the peer is going down"))
}

fn app_line(row: &AppEvent) -> String {
    let at = row.at.get(..19).map(|at| at.replace('T', " ")).unwrap_or_else(|| row.at.clone());
    let (what, subject, machine) = (one_line(&row.what), one_line(&row.subject), one_line(&row.machine));
    format!("{at}  {what:<11} {subject:<24} {} ({machine})\n", one_line(&row.text))
}

/// Two events may come hours apart, so columns are fixed and not fitted.
fn line(row: &EventRow) -> String {
    let at = row.at.get(..19).map(|at| at.replace('T', " ")).unwrap_or_else(|| row.at.clone());
    format!("{:>6}  {at}  {:<11} {:<24} {}\n", row.id, one_line(&row.what), one_line(&row.subject), one_line(&row.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let row = |id, what: &str, subject: &str, text: &str| EventRow {
            id,
            at: "2026-01-01T12:00:00.123Z".into(),
            what: what.into(),
            subject: subject.into(),
            text: text.into(),
        };
        let lines = line(&row(7, "placed", "shop.web.1", "on m2")) + &line(&row(123, "down", "m2", "lost\u{1b}[2J"));
        insta::assert_snapshot!(lines);
    }
}
