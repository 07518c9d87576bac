//! Reading and writing keys.

use std::sync::Arc;

use rialto_locks::kv::{self, Answer, Applied, By, Op, Order, Range, Relation, Span, Target};
use rialto_locks::wire::Ask;
use tonic::Status;

use super::messages::*;
use super::{header, refused};
use crate::Group;

pub async fn range(group: Group, asked: RangeRequest) -> Result<RangeResponse, Status> {
    let serializable = asked.serializable;
    let range = range_of(asked)?;
    let applied = match serializable {
        // Whoever asks so takes what is here.
        true => group.look(move |replica| replica.store().range(&range)).await.flatten(),
        false => group.read(range).await,
    };
    let Applied { revision, answer } = applied.map_err(refused)?;
    match answer {
        Answer::Range(found) => Ok(RangeResponse { header: header(&group, revision), ..found_of(found) }),
        _ => Err(other()),
    }
}

pub async fn put(group: Group, asked: PutRequest) -> Result<PutResponse, Status> {
    let Applied { revision, answer } = write(&group, Op::Put(put_of(asked))).await?;
    match answer {
        Answer::Put { previous } => {
            Ok(PutResponse { header: header(&group, revision), prev_kv: previous.as_deref().map(key_of) })
        }
        _ => Err(other()),
    }
}

pub async fn delete(group: Group, asked: DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
    let Applied { revision, answer } = write(&group, Op::Delete(delete_of(asked))).await?;
    match answer {
        Answer::Delete { deleted, previous } => {
            let prev_kvs = previous.iter().map(|key| key_of(key)).collect();
            Ok(DeleteRangeResponse { header: header(&group, revision), deleted, prev_kvs })
        }
        _ => Err(other()),
    }
}

pub async fn txn(group: Group, asked: TxnRequest) -> Result<TxnResponse, Status> {
    let txn = txn_of(asked, 0)?;
    let Applied { revision, answer } = write(&group, Op::Txn(txn)).await?;
    match answer {
        Answer::Txn { succeeded, answers } => {
            let responses = answers.into_iter().map(|answer| response_of(answer, revision)).collect();
            Ok(TxnResponse { header: header(&group, revision), succeeded, responses })
        }
        _ => Err(other()),
    }
}

pub async fn compact(group: Group, asked: CompactionRequest) -> Result<OnlyHeader, Status> {
    let Applied { revision, .. } = write(&group, Op::Compact { revision: asked.revision }).await?;
    Ok(OnlyHeader { header: header(&group, revision) })
}

/// Puts an operation into the log.
pub(super) async fn write(group: &Group, op: Op) -> Result<Applied, Status> {
    group.ask(Ask::Write(op)).await.map_err(refused)
}

pub(super) fn other() -> Status {
    Status::internal("the group gave another answer than was asked for")
}

pub(super) fn key_of(key: &kv::KeyValue) -> KeyValue {
    KeyValue {
        key: key.key.clone(),
        value: key.value.clone(),
        create_revision: key.create_revision,
        mod_revision: key.mod_revision,
        version: key.version,
        lease: key.lease,
    }
}

fn found_of(found: kv::Found) -> RangeResponse {
    let kvs = found.keys.iter().map(|key: &Arc<kv::KeyValue>| key_of(key)).collect();
    RangeResponse { header: None, kvs, more: found.more, count: found.count }
}

fn range_of(asked: RangeRequest) -> Result<Range, Status> {
    let order = match SortOrder::try_from(asked.sort_order) {
        Ok(SortOrder::None) => Order::None,
        Ok(SortOrder::Ascend) => Order::Ascending,
        Ok(SortOrder::Descend) => Order::Descending,
        Err(_) => return Err(Status::invalid_argument("etcdserver: invalid sort option")),
    };
    let by = match SortTarget::try_from(asked.sort_target) {
        Ok(SortTarget::Key) => By::Key,
        Ok(SortTarget::Version) => By::Version,
        Ok(SortTarget::Create) => By::Created,
        Ok(SortTarget::Mod) => By::Modified,
        Ok(SortTarget::Value) => By::Value,
        Err(_) => return Err(Status::invalid_argument("etcdserver: invalid sort option")),
    };
    Ok(Range {
        span: Span { key: asked.key, end: asked.range_end },
        revision: asked.revision,
        limit: asked.limit,
        order,
        by,
        keys_only: asked.keys_only,
        count_only: asked.count_only,
        modified_min: asked.min_mod_revision,
        modified_max: asked.max_mod_revision,
        created_min: asked.min_create_revision,
        created_max: asked.max_create_revision,
    })
}

fn put_of(asked: PutRequest) -> kv::Put {
    kv::Put {
        key: asked.key,
        value: asked.value,
        lease: asked.lease,
        want_previous: asked.prev_kv,
        keep_value: asked.ignore_value,
        keep_lease: asked.ignore_lease,
    }
}

fn delete_of(asked: DeleteRangeRequest) -> kv::Delete {
    kv::Delete { span: Span { key: asked.key, end: asked.range_end }, want_previous: asked.prev_kv }
}

fn txn_of(asked: TxnRequest, depth: usize) -> Result<kv::Txn, Status> {
    if depth > kv::TXN_DEPTH_MAX {
        return Err(refused(kv::Refusal::TooManyOps));
    }
    let ops = |ops: Vec<RequestOp>| ops.into_iter().map(|op| op_of(op, depth)).collect::<Result<Vec<Op>, Status>>();
    Ok(kv::Txn {
        compare: asked.compare.into_iter().map(compare_of).collect::<Result<_, _>>()?,
        success: ops(asked.success)?,
        failure: ops(asked.failure)?,
    })
}

fn op_of(op: RequestOp, depth: usize) -> Result<Op, Status> {
    match op.request {
        Some(AnyRequest::Range(range)) => range_of(range).map(Op::Range),
        Some(AnyRequest::Put(put)) => Ok(Op::Put(put_of(put))),
        Some(AnyRequest::DeleteRange(delete)) => Ok(Op::Delete(delete_of(delete))),
        Some(AnyRequest::Txn(txn)) => txn_of(txn, depth + 1).map(Op::Txn),
        None => Err(Status::invalid_argument("etcdserver: key not found")),
    }
}

fn compare_of(compare: Compare) -> Result<kv::Compare, Status> {
    let invalid = || Status::invalid_argument(format!("no comparison is {}/{}", compare.result, compare.target));
    let relation = match compare.result {
        0 => Relation::Equal,
        1 => Relation::Greater,
        2 => Relation::Less,
        3 => Relation::NotEqual,
        _ => return Err(invalid()),
    };
    // What is left out is zero, as ever in this encoding.
    let target = match (compare.target, compare.with.clone()) {
        (0, Some(CompareWith::Version(version))) => Target::Version(version),
        (0, None) => Target::Version(0),
        (1, Some(CompareWith::CreateRevision(revision))) => Target::Created(revision),
        (1, None) => Target::Created(0),
        (2, Some(CompareWith::ModRevision(revision))) => Target::Modified(revision),
        (2, None) => Target::Modified(0),
        (3, Some(CompareWith::Value(value))) => Target::Value(value),
        (3, None) => Target::Value(Vec::new()),
        (4, Some(CompareWith::Lease(lease))) => Target::Lease(lease),
        (4, None) => Target::Lease(0),
        _ => return Err(invalid()),
    };
    Ok(kv::Compare { span: Span { key: compare.key, end: compare.range_end }, relation, target })
}

fn response_of(answer: Answer, revision: i64) -> ResponseOp {
    // Within a transaction etcd tells the revision alone.
    let header = Some(ResponseHeader { revision, ..ResponseHeader::default() });
    let response = match answer {
        Answer::Range(found) => AnyResponse::Range(RangeResponse { header, ..found_of(found) }),
        Answer::Put { previous } => AnyResponse::Put(PutResponse { header, prev_kv: previous.as_deref().map(key_of) }),
        Answer::Delete { deleted, previous } => {
            let prev_kvs = previous.iter().map(|key| key_of(key)).collect();
            AnyResponse::DeleteRange(DeleteRangeResponse { header, deleted, prev_kvs })
        }
        Answer::Txn { succeeded, answers } => {
            let responses = answers.into_iter().map(|answer| response_of(answer, revision)).collect();
            AnyResponse::Txn(TxnResponse { header, succeeded, responses })
        }
        Answer::Granted { .. } | Answer::Revoked | Answer::Compacted | Answer::Lease(_) => {
            return ResponseOp { response: None };
        }
    };
    ResponseOp { response: Some(response) }
}
