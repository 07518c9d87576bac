//! `rialto lock`.

use std::time::Duration;

use rialto_client::Client;

use super::lock_program::{self, Held, Signals};
use super::lock_session::{self, Session, Wanted};
use crate::args::Lock;
use crate::exit::{Exit, Failure};

pub async fn lock(client: &Client, lock: Lock) -> Result<Exit, Failure> {
    let wait = if lock.no_wait { Some(Duration::ZERO) } else { lock.wait };
    let wanted = Wanted { name: &lock.name, value: "", ttl_seconds: lock.lease.ttl, wait };
    let (session, token) = had(client, &wanted).await?;
    run(&lock.command, &wanted, token, session).await
}

/// Waits for it, unless a signal ends the waiting.
pub async fn had(client: &Client, wanted: &Wanted<'_>) -> Result<(Session, i64), Failure> {
    let mut signals = Signals::new()?;
    tokio::select! {
        held = lock_session::hold(client, wanted) => held.map(|(session, place)| (session, place.token)),
        // Whoever goes away leaves the queue; the lease ends by itself.
        signal = signals.next() => Err(Failure::silent(Exit::Task(128 + signal as i32 as u8))),
    }
}

/// Runs a command while it is held, and gives it up.
pub async fn run(command: &[String], wanted: &Wanted<'_>, token: i64, session: Session) -> Result<Exit, Failure> {
    let held = Held { name: wanted.name, token, ttl: Duration::from_secs(wanted.ttl_seconds.into()) };
    let ended = lock_program::run(command, &held, &session).await;
    if !session.has_ended() {
        session.end().await;
    }
    ended
}
