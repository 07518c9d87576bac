//! Locks and elections, for clients that leave the queueing to the server.

use std::pin::pin;
use std::time::Duration;

use rialto_locks::kv::{Answer, Applied, Compare, Delete, Op, Put, Relation, Span, Target, Txn};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::messages::{
    CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, LockRequest, LockResponse, OnlyHeader,
    ProclaimRequest, ResignRequest, UnlockRequest,
};
use super::{Answers, header, kv, refused};
use crate::Group;
use crate::queue::Place;

/// The lease of whoever names none, as etcd has it.
const TTL_SECONDS: i64 = 60;
const RENEW_EVERY: Duration = Duration::from_secs(20);

pub async fn lock(group: Group, asked: LockRequest) -> Result<LockResponse, Status> {
    let (place, _, revision) = wait(&group, &asked.name, asked.lease, Vec::new()).await?;
    Ok(LockResponse { header: header(&group, revision), key: place.key })
}

pub async fn unlock(group: Group, asked: UnlockRequest) -> Result<OnlyHeader, Status> {
    let delete = Delete { span: Span::one(asked.key), want_previous: false };
    let Applied { revision, .. } = kv::write(&group, Op::Delete(delete)).await?;
    Ok(OnlyHeader { header: header(&group, revision) })
}

pub async fn campaign(group: Group, asked: CampaignRequest) -> Result<CampaignResponse, Status> {
    let (place, lease, revision) = wait(&group, &asked.name, asked.lease, asked.value).await?;
    let leader = LeaderKey { name: asked.name, key: place.key, rev: place.token, lease };
    Ok(CampaignResponse { header: header(&group, revision), leader: Some(leader) })
}

/// Takes a place and waits there: the place, its lease, and the revision at which it was had. Whoever names no lease gets
/// one, as from etcd, which is kept alive while it waits and not longer.
async fn wait(group: &Group, name: &[u8], lease: i64, value: Vec<u8>) -> Result<(Place, i64, i64), Status> {
    if lease != 0 {
        let place = group.enqueue(name, lease, value).await.map_err(refused)?;
        let revision = group.wait_at(&place, |_| ()).await.map_err(refused)?;
        return Ok((place, lease, revision));
    }
    let (lease, _) = group.grant(TTL_SECONDS).await.map_err(refused)?;
    let place = group.enqueue(name, lease, value).await.map_err(refused)?;
    let mut waiting = pin!(group.wait_at(&place, |_| ()));
    loop {
        tokio::select! {
            had = &mut waiting => return had.map(|revision| (place.clone(), lease, revision)).map_err(refused),
            // A lease that is gone ends the waiting.
            () = sleep(RENEW_EVERY) => drop(group.renew(lease).await),
        }
    }
}

pub async fn proclaim(group: Group, asked: ProclaimRequest) -> Result<OnlyHeader, Status> {
    let leader = asked.leader.ok_or_else(no_leader)?;
    let put = Put { key: leader.key.clone(), value: asked.value, lease: leader.lease, ..Put::default() };
    while_leading(&group, &leader, Op::Put(put)).await
}

pub async fn resign(group: Group, asked: ResignRequest) -> Result<OnlyHeader, Status> {
    let leader = asked.leader.ok_or_else(no_leader)?;
    let delete = Delete { span: Span::one(leader.key.clone()), want_previous: false };
    match while_leading(&group, &leader, Op::Delete(delete)).await {
        // It had ended before.
        Err(status) if status.code() == tonic::Code::FailedPrecondition => {
            Ok(OnlyHeader { header: header(&group, group.told().revision) })
        }
        resigned => resigned,
    }
}

pub async fn leader(group: Group, asked: LeaderRequest) -> Result<LeaderResponse, Status> {
    let (revision, leading) = group.oldest(&asked.name).await.map_err(refused)?;
    let kv = leading.ok_or_else(no_leader)?;
    Ok(LeaderResponse { header: header(&group, revision), kv: Some(kv::key_of(&kv)) })
}

/// Tells who leads, and whoever does after that.
pub fn observe(group: Group, asked: LeaderRequest) -> Answers<LeaderResponse> {
    let (answers, answered) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut revisions = group.revisions();
        let mut last = None;
        loop {
            revisions.borrow_and_update();
            let answer = match group.oldest(&asked.name).await {
                Ok((revision, Some(leading))) if last.as_ref() != Some(&leading) => {
                    let kv = Some(kv::key_of(&leading));
                    last = Some(leading);
                    Ok(LeaderResponse { header: header(&group, revision), kv })
                }
                Ok(_) => {
                    tokio::select! {
                        changed = revisions.changed() => if changed.is_err() { return },
                        () = answers.closed() => return,
                    }
                    continue;
                }
                Err(refusal) => Err(refused(refusal)),
            };
            let ends = answer.is_err();
            if answers.send(answer).await.is_err() || ends {
                return;
            }
        }
    });
    Answers::of(ReceiverStream::new(answered))
}

async fn while_leading(group: &Group, leader: &LeaderKey, op: Op) -> Result<OnlyHeader, Status> {
    let is_leader =
        Compare { span: Span::one(leader.key.clone()), relation: Relation::Equal, target: Target::Created(leader.rev) };
    let txn = Txn { compare: vec![is_leader], success: vec![op], failure: Vec::new() };
    let Applied { revision, answer } = kv::write(group, Op::Txn(txn)).await?;
    match answer {
        Answer::Txn { succeeded: true, .. } => Ok(OnlyHeader { header: header(group, revision) }),
        _ => Err(Status::failed_precondition("election: session expired")),
    }
}

fn no_leader() -> Status {
    Status::not_found("election: no leader")
}
