//! Leases of those who wait for locks and hold them: granted, renewed and ended. A lease that nobody renews ends, and
//! everything with it.

use axum::Json;
use rialto_locks::Refusal;
use rialto_locks_service::Group;
use rialto_protocol::api::{Answer, ErrorCode, LockSession, LockSessionBody};

use super::Shared;
use super::extract::{self, Segment};
use super::identity::{Identity, Verb};
use super::problem::Problem;

/// The longest lease that is granted here, seconds: who waits for more than a day for a dead one has it broken.
const TTL_SECONDS_MAX: u32 = 86_400;

pub async fn grant(
    api: Shared,
    identity: Identity,
    extract::Json(body): extract::Json<LockSessionBody>,
) -> Result<Json<Answer<LockSession>>, Problem> {
    identity.may(Verb::Lock)?;
    if !(1..=TTL_SECONDS_MAX).contains(&body.ttl_seconds) {
        return Err(Problem::invalid(format!("a lease is for 1 to {TTL_SECONDS_MAX} seconds")).at("ttl_seconds"));
    }
    let (lease, ttl_seconds) = group(&api)?.grant(body.ttl_seconds.into()).await.map_err(refused)?;
    api.answer_with(session(lease, ttl_seconds)).await
}

pub async fn renew(
    api: Shared,
    identity: Identity,
    Segment(name): Segment,
) -> Result<Json<Answer<LockSession>>, Problem> {
    identity.may(Verb::Lock)?;
    let state = group(&api)?.renew(number(&name)?).await.map_err(refused)?;
    api.answer_with(session(state.id, state.granted_seconds)).await
}

pub async fn end(api: Shared, identity: Identity, Segment(name): Segment) -> Result<Json<Answer<()>>, Problem> {
    identity.may(Verb::Lock)?;
    match group(&api)?.revoke(number(&name)?).await {
        // What has ended already has ended.
        Ok(()) | Err(Refusal::LeaseNotFound) => api.answer_with(()).await,
        Err(refusal) => Err(refused(refusal)),
    }
}

pub fn group(api: &Shared) -> Result<Group, Problem> {
    let failed = "this peer's part in the lock group has failed: its log says why";
    api.locks.clone().ok_or_else(|| Problem::new(ErrorCode::Internal, failed))
}

/// A lease's number, as sessions are called.
pub fn number(session: &str) -> Result<i64, Problem> {
    let read = i64::from_str_radix(session, 16).ok().filter(|number| *number > 0);
    read.ok_or_else(|| Problem::invalid(format!("no session is called `{session}`")).at("session"))
}

fn session(lease: i64, ttl_seconds: i64) -> LockSession {
    LockSession { session: format!("{lease:x}"), ttl_seconds: u32::try_from(ttl_seconds).unwrap_or(u32::MAX) }
}

/// A refusal of the group, in words for people.
pub fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::LeaseNotFound => Problem::not_found("the session").hint("its time was over, or it was broken"),
        Refusal::NoLeader | Refusal::NotLeader => {
            Problem::new(ErrorCode::Unreachable, "no locks can be had now: too few voters can be reached")
                .hint("'rialto locks status' says who votes")
        }
        Refusal::Unknown => {
            Problem::new(ErrorCode::Unreachable, "the lock group's leader was lost: it may have been done")
        }
        Refusal::Busy | Refusal::NoSpace => Problem::new(ErrorCode::Busy, format!("the lock group: {refusal}")),
        other => Problem::invalid(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_a_number_above_nothing() {
        assert_eq!(number("1f").unwrap(), 31);
        for bad in ["", "0", "-1", "x", "ffffffffffffffff", "1f "] {
            assert!(number(bad).is_err(), "{bad}");
        }
    }
}
