//! `rialto elect`.

use std::time::Duration;

use rialto_client::Client;
use rialto_protocol::api::{LockPlace, LockQueue};
use serde::Serialize;

use super::lock::{had, run};
use super::lock_program::Signals;
use super::lock_session::Wanted;
use crate::args::{Elect, Format};
use crate::exit::{Exit, Failure};
use crate::output::{Output, one_line, say};

/// What is told of an election.
#[derive(Debug, Serialize)]
struct Leads<'a> {
    name: &'a str,
    /// None: nobody does.
    leader: Option<&'a LockPlace>,
}

pub async fn elect(client: &Client, out: Output, elect: Elect) -> Result<Exit, Failure> {
    if elect.observe {
        return observe(client, out, &elect.name).await;
    }
    let value = elect.value.unwrap_or_default();
    let wanted = Wanted { name: &elect.name, value: &value, ttl_seconds: elect.lease.ttl, wait: None };
    let (session, token) = had(client, &wanted).await?;
    if !elect.command.is_empty() {
        return run(&elect.command, &wanted, token, session).await;
    }
    let ttl_seconds = i64::from(elect.lease.ttl);
    let place = LockPlace { session: session.id.clone(), token, value: value.clone(), ttl_seconds, left_ms: None };
    tell(out, &elect.name, Some(&place))?;
    let mut signals = Signals::new()?;
    tokio::select! {
        _ = signals.next() => {
            session.end().await;
            say(format!("resigned from leading {}", elect.name));
            Ok(Exit::Done)
        }
        () = session.is_about_to_end(Duration::ZERO) => {
            Err(Failure::new(Exit::Own, format!("{} is led by this no more: its lease has ended", elect.name)))
        }
    }
}

async fn observe(client: &Client, out: Output, name: &str) -> Result<Exit, Failure> {
    let mut lines = client.follow_lock_queue(name).await?;
    let mut last: Option<Option<LockPlace>> = None;
    while let Some(LockQueue { holder, .. }) = lines.next().await? {
        if last.as_ref() != Some(&holder) {
            tell(out, name, holder.as_ref())?;
            last = Some(holder);
        }
    }
    Err(Failure::new(Exit::Failed, "the peer that told of it is going down, or votes no more"))
}

fn tell(out: Output, name: &str, leader: Option<&LockPlace>) -> Result<(), Failure> {
    match out.format {
        Format::Json => out.json_line(&Leads { name, leader }),
        Format::Table => out.text(&line(name, leader)),
    }
}

fn line(name: &str, leader: Option<&LockPlace>) -> String {
    match leader {
        Some(place) => format!("{} leads {} (token {})\n", one_line(&place.value), one_line(name), place.token),
        None => format!("nobody leads {}\n", one_line(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leads_is_a_line() {
        let place =
            LockPlace { session: "1f".into(), token: 9, value: "m1\u{1b}".into(), ttl_seconds: 15, left_ms: None };
        assert_eq!(line("db", Some(&place)), "m1  leads db (token 9)\n");
        assert_eq!(line("db", None), "nobody leads db\n");
    }
}
