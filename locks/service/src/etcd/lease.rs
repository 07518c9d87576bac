//! Leases.

use futures::{Stream, StreamExt};
use rialto_locks::kv::{Answer, Applied, LeaseState, Op, Refusal};
use rialto_locks::wire::Ask;
use tonic::Status;

use super::messages::*;
use super::{Answers, header, kv, refused};
use crate::Group;

pub async fn grant(group: Group, asked: LeaseGrantRequest) -> Result<LeaseGrantResponse, Status> {
    // Whoever names none gets one that nobody has: of 63 random bits.
    let id = if asked.id == 0 { group.random() } else { asked.id };
    let Applied { revision, answer } = kv::write(&group, Op::Grant { id, ttl_seconds: asked.ttl }).await?;
    match answer {
        Answer::Granted { id, ttl_seconds } => {
            Ok(LeaseGrantResponse { header: header(&group, revision), id, ttl: ttl_seconds, error: String::new() })
        }
        _ => Err(kv::other()),
    }
}

pub async fn revoke(group: Group, asked: LeaseId) -> Result<OnlyHeader, Status> {
    let Applied { revision, .. } = kv::write(&group, Op::Revoke { id: asked.id, expired: false }).await?;
    Ok(OnlyHeader { header: header(&group, revision) })
}

/// Each lease that is named lives on; one that is no more has no time to live.
pub fn keep_alive<S>(group: Group, asked: S) -> Answers<LeaseKeepAliveResponse>
where
    S: Stream<Item = Result<LeaseId, Status>> + Send + 'static,
{
    let answers = asked.then(move |asked| {
        let group = group.clone();
        async move {
            let id = asked?.id;
            match group.ask(Ask::Renew(id)).await {
                Ok(Applied { revision, answer: Answer::Lease(LeaseState { granted_seconds, .. }) }) => {
                    Ok(LeaseKeepAliveResponse { header: header(&group, revision), id, ttl: granted_seconds })
                }
                Err(Refusal::LeaseNotFound) => {
                    Ok(LeaseKeepAliveResponse { header: header(&group, group.told().revision), id, ttl: 0 })
                }
                Err(refusal) => Err(refused(refusal)),
                Ok(_) => Err(kv::other()),
            }
        }
    });
    Answers::of(answers)
}

pub async fn time_to_live(group: Group, asked: LeaseTimeToLiveRequest) -> Result<LeaseTimeToLiveResponse, Status> {
    let id = asked.id;
    match group.ask(Ask::Look(id)).await {
        Ok(Applied { revision, answer: Answer::Lease(state) }) => {
            let keys = if asked.keys { state.keys.into_iter().map(|key| key.0).collect() } else { Vec::new() };
            // A lease that has not ended has a second at least, in words.
            let ttl = state.left_ms.saturating_add(999) / 1000;
            let header = header(&group, revision);
            Ok(LeaseTimeToLiveResponse { header, id, ttl, granted_ttl: state.granted_seconds, keys })
        }
        Err(Refusal::LeaseNotFound) => {
            let header = header(&group, group.told().revision);
            Ok(LeaseTimeToLiveResponse { header, id, ttl: -1, granted_ttl: 0, keys: Vec::new() })
        }
        Err(refusal) => Err(refused(refusal)),
        Ok(_) => Err(kv::other()),
    }
}

pub async fn leases(group: Group) -> Result<LeaseLeasesResponse, Status> {
    group.fresh().await.map_err(refused)?;
    let look = group.look(|replica| {
        let leases = replica.store().leases().map(|(id, _)| LeaseId { id }).collect();
        (replica.store().revision(), leases)
    });
    let (revision, leases) = look.await.map_err(refused)?;
    Ok(LeaseLeasesResponse { header: header(&group, revision), leases })
}
