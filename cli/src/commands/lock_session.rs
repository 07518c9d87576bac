//! A lease that is kept alive, and what is held by it.
//!
//! Its end is reckoned from when the last renewal that was answered was asked for, less 2 % for clocks that differ, on the
//! clock that also runs while the machine sleeps: the group, which reckons from when it heard, ends it later.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use rialto_client::{Client, Error};
use rialto_protocol::api::{ErrorCode, LockLine, LockPlace, LockPlaceBody};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::exit::{Exit, Failure};
use crate::output::say;

/// Whoever ends a lease at its end waits no longer for the answer.
const FAREWELL: Duration = Duration::from_secs(3);
/// A renewal that failed is tried again after this, and a queue that was lost joined anew.
const AGAIN: Duration = Duration::from_millis(500);
/// The clocks are looked at at least so often: timers stand still while a machine sleeps.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A lease, renewed until it is ended.
pub struct Session {
    client: Client,
    pub id: String,
    ends: watch::Receiver<Ends>,
    keeper: JoinHandle<()>,
}

/// When a lease ends, unless it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    At(Duration),
    /// It has ended: its time was over, or it was broken.
    Ended,
}

impl Session {
    pub async fn begin(client: &Client, ttl_seconds: u32) -> Result<Self, Error> {
        let asked = now();
        let granted = client.lock_session(ttl_seconds).await?.data;
        let ttl = Duration::from_secs(granted.ttl_seconds.into());
        let (tell, ends) = watch::channel(Ends::At(asked + safe(ttl)));
        let keeper = tokio::spawn(keep(client.clone(), granted.session.clone(), ttl, tell));
        Ok(Self { client: client.clone(), id: granted.session, ends, keeper })
    }

    /// Waits until no more than `ahead` is left of the lease.
    pub async fn is_about_to_end(&self, ahead: Duration) {
        let mut ends = self.ends.clone();
        loop {
            let left = match *ends.borrow_and_update() {
                Ends::At(at) => at.saturating_sub(now() + ahead),
                Ends::Ended => return,
            };
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(left.min(LOOK_EVERY)) => {}
                Ok(()) = ends.changed() => {}
            }
        }
    }

    /// Whether somebody else may have it already.
    pub fn has_ended(&self) -> bool {
        matches!(*self.ends.borrow(), Ends::Ended)
    }

    /// Ends the lease, and what is held by it. Where nobody hears of it, it ends by itself.
    pub async fn end(self) {
        self.keeper.abort();
        if !matches!(timeout(FAREWELL, self.client.end_lock_session(&self.id)).await, Ok(Ok(()))) {
            say("nobody heard that the lease is given up: it ends by itself");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Renews a lease three times in its time.
async fn keep(client: Client, id: String, ttl: Duration, tell: watch::Sender<Ends>) {
    let mut pause = ttl / 3;
    loop {
        sleep(pause).await;
        let asked = now();
        pause = match timeout(ttl / 3, client.renew_lock_session(&id)).await {
            Ok(Ok(renewed)) => {
                let ttl = Duration::from_secs(renewed.data.ttl_seconds.into());
                tell.send_replace(Ends::At(asked + safe(ttl)));
                ttl / 3
            }
            Ok(Err(error)) if error.code() == Some(ErrorCode::NotFound) => {
                tell.send_replace(Ends::Ended);
                return;
            }
            Ok(Err(_)) | Err(_) => AGAIN,
        };
    }
}

/// What the owner may rely on of a lease.
fn safe(ttl: Duration) -> Duration {
    ttl - ttl / 50
}

/// Time since the machine was started, its sleep included.
fn now() -> Duration {
    #[cfg(target_os = "linux")]
    const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
    #[cfg(not(target_os = "linux"))]
    const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;
    // Every system of this kind has the clock.
    clock_gettime(CLOCK).map(Duration::from).unwrap_or_default()
}

/// What is to be had, and how.
pub struct Wanted<'a> {
    pub name: &'a str,
    pub value: &'a str,
    pub ttl_seconds: u32,
    /// How long it waits; zero: not at all; none: for ever.
    pub wait: Option<Duration>,
}

/// Waits until it is had. A queue that is lost with a peer is joined anew, at its end and with another lease: of the old
/// place nobody knows what becomes.
pub async fn hold(client: &Client, wanted: &Wanted<'_>) -> Result<(Session, LockPlace), Failure> {
    let began = now();
    loop {
        let left = wanted.wait.map(|wait| wait.saturating_sub(now().saturating_sub(began)));
        let lost = match once(client, wanted, left).await? {
            Waited::Held(session, place) => return Ok((session, place)),
            Waited::Lost(error) => error,
        };
        if left.is_some_and(|left| left.is_zero()) {
            return Err(lost.into());
        }
        let Failure { message, .. } = lost.into();
        say(format!("waiting for {} goes on: {message}", wanted.name));
        sleep(AGAIN).await;
    }
}

enum Waited {
    Held(Session, LockPlace),
    /// It may be tried again.
    Lost(Error),
}

async fn once(client: &Client, wanted: &Wanted<'_>, left: Option<Duration>) -> Result<Waited, Failure> {
    let session = match Session::begin(client, wanted.ttl_seconds).await {
        Ok(session) => session,
        // Who has never been reached is told at once.
        Err(error) if may_pass(&error) && left.is_none_or(|left| !left.is_zero()) => return Ok(Waited::Lost(error)),
        Err(error) => return Err(error.into()),
    };
    let body = LockPlaceBody {
        session: session.id.clone(),
        value: wanted.value.to_owned(),
        wait_ms: left.map(|left| left.as_millis() as u64),
    };
    let waited = wait(client, wanted.name, &body, &session).await;
    match waited {
        Ok(place) => Ok(Waited::Held(session, place)),
        Err(error) => {
            let late = match &error {
                Error::Refused(body) => matches!(body.code, ErrorCode::TimedOut | ErrorCode::Conflict),
                _ => false,
            };
            session.end().await;
            match error {
                error if late => Err(Failure { exit: Exit::NotHeld, ..error.into() }),
                error if may_pass(&error) => Ok(Waited::Lost(error)),
                error => Err(error.into()),
            }
        }
    }
}

/// Whether it is worth another try.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Refused(body) => {
            matches!(body.code, ErrorCode::Busy | ErrorCode::Unreachable | ErrorCode::NotFound | ErrorCode::Internal)
        }
        Error::BrokeOff { .. } | Error::Silent { .. } => true,
        Error::NoPeer(tried) => tried.iter().all(|tried| !tried.forbidden),
        Error::Unreadable { .. } | Error::Source(_) => false,
    }
}

async fn wait(client: &Client, name: &str, body: &LockPlaceBody, session: &Session) -> Result<LockPlace, Error> {
    let broke_off = || Error::BrokeOff { peer: "the peer".into(), why: "it is going down".into() };
    let waiting = async {
        let mut lines = client.wait_for_lock(name, body).await?;
        loop {
            match lines.next().await? {
                Some(LockLine::Waiting(before)) => say(format!("waiting for {name}: {before} before this")),
                Some(LockLine::Held(place)) => return Ok(place),
                Some(LockLine::Failed(failed)) => return Err(Error::Refused(failed)),
                None => return Err(broke_off()),
            }
        }
    };
    tokio::select! {
        waited = waiting => waited,
        // Its place is gone with it.
        () = session.is_about_to_end(Duration::ZERO) => Err(broke_off()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_gives_up_first() {
        assert_eq!(safe(Duration::from_secs(15)), Duration::from_millis(14_700));
        assert!(now() > Duration::ZERO);
    }
}
