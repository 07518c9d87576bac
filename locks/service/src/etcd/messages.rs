//! The messages of etcd's third API: names and numbers of fields are the public protocol's.

#![allow(missing_docs)]

use prost::{Enumeration, Message, Oneof};
use serde_json::Value;

use super::json::{Field, Json, Object, name_of, object_of, one_of};

macro_rules! messages {
    ($($(#[$about:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),* $(,)? })*) => {
        $(
            $(#[$about])*
            #[derive(Clone, PartialEq, Message)]
            pub struct $name { $($(#[$attribute])* pub $field: $type),* }

            impl Json for $name {
                #[allow(unused_mut)]
                fn of(name: &str, value: Value) -> Result<Self, String> {
                    let mut object = object_of(name, value)?;
                    let mut message = Self::default();
                    $(message.$field.read_from(name_of(stringify!($name), stringify!($field)), &mut object)?;)*
                    match object.keys().next() {
                        Some(unknown) => Err(format!("unknown field {unknown:?} in {}", stringify!($name))),
                        None => Ok(message),
                    }
                }

                #[allow(unused_mut)]
                fn json(&self, _: &str) -> Value {
                    let mut object = Object::new();
                    $(self.$field.write_to(name_of(stringify!($name), stringify!($field)), &mut object);)*
                    Value::Object(object)
                }
            }
        )*
    };
}

messages! {
    ResponseHeader {
        #[prost(uint64, tag = "1")] cluster_id: u64,
        #[prost(uint64, tag = "2")] member_id: u64,
        #[prost(int64, tag = "3")] revision: i64,
        #[prost(uint64, tag = "4")] raft_term: u64,
    }
    KeyValue {
        #[prost(bytes = "vec", tag = "1")] key: Vec<u8>,
        #[prost(int64, tag = "2")] create_revision: i64,
        #[prost(int64, tag = "3")] mod_revision: i64,
        #[prost(int64, tag = "4")] version: i64,
        #[prost(bytes = "vec", tag = "5")] value: Vec<u8>,
        #[prost(int64, tag = "6")] lease: i64,
    }
    RangeRequest {
        #[prost(bytes = "vec", tag = "1")] key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] range_end: Vec<u8>,
        #[prost(int64, tag = "3")] limit: i64,
        #[prost(int64, tag = "4")] revision: i64,
        #[prost(enumeration = "SortOrder", tag = "5")] sort_order: i32,
        #[prost(enumeration = "SortTarget", tag = "6")] sort_target: i32,
        #[prost(bool, tag = "7")] serializable: bool,
        #[prost(bool, tag = "8")] keys_only: bool,
        #[prost(bool, tag = "9")] count_only: bool,
        #[prost(int64, tag = "10")] min_mod_revision: i64,
        #[prost(int64, tag = "11")] max_mod_revision: i64,
        #[prost(int64, tag = "12")] min_create_revision: i64,
        #[prost(int64, tag = "13")] max_create_revision: i64,
    }
    RangeResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(message, repeated, tag = "2")] kvs: Vec<KeyValue>,
        #[prost(bool, tag = "3")] more: bool,
        #[prost(int64, tag = "4")] count: i64,
    }
    PutRequest {
        #[prost(bytes = "vec", tag = "1")] key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] value: Vec<u8>,
        #[prost(int64, tag = "3")] lease: i64,
        #[prost(bool, tag = "4")] prev_kv: bool,
        #[prost(bool, tag = "5")] ignore_value: bool,
        #[prost(bool, tag = "6")] ignore_lease: bool,
    }
    PutResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(message, optional, tag = "2")] prev_kv: Option<KeyValue>,
    }
    DeleteRangeRequest {
        #[prost(bytes = "vec", tag = "1")] key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] range_end: Vec<u8>,
        #[prost(bool, tag = "3")] prev_kv: bool,
    }
    DeleteRangeResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(int64, tag = "2")] deleted: i64,
        #[prost(message, repeated, tag = "3")] prev_kvs: Vec<KeyValue>,
    }
    RequestOp {
        #[prost(oneof = "AnyRequest", tags = "1, 2, 3, 4")] request: Option<AnyRequest>,
    }
    ResponseOp {
        #[prost(oneof = "AnyResponse", tags = "1, 2, 3, 4")] response: Option<AnyResponse>,
    }
    Compare {
        #[prost(int32, tag = "1")] result: i32,
        #[prost(int32, tag = "2")] target: i32,
        #[prost(bytes = "vec", tag = "3")] key: Vec<u8>,
        #[prost(oneof = "CompareWith", tags = "4, 5, 6, 7, 8")] with: Option<CompareWith>,
        #[prost(bytes = "vec", tag = "64")] range_end: Vec<u8>,
    }
    TxnRequest {
        #[prost(message, repeated, tag = "1")] compare: Vec<Compare>,
        #[prost(message, repeated, tag = "2")] success: Vec<RequestOp>,
        #[prost(message, repeated, tag = "3")] failure: Vec<RequestOp>,
    }
    TxnResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(bool, tag = "2")] succeeded: bool,
        #[prost(message, repeated, tag = "3")] responses: Vec<ResponseOp>,
    }
    CompactionRequest {
        #[prost(int64, tag = "1")] revision: i64,
        #[prost(bool, tag = "2")] physical: bool,
    }
    /// The answer that is a header and nothing else: to compactions, revocations, unlocking, resigning, proclaiming.
    OnlyHeader {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
    }
    Event {
        #[prost(int32, tag = "1")] r#type: i32,
        #[prost(message, optional, tag = "2")] kv: Option<KeyValue>,
        #[prost(message, optional, tag = "3")] prev_kv: Option<KeyValue>,
    }
    WatchRequest {
        #[prost(oneof = "AnyWatch", tags = "1, 2, 3")] request: Option<AnyWatch>,
    }
    WatchCreateRequest {
        #[prost(bytes = "vec", tag = "1")] key: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] range_end: Vec<u8>,
        #[prost(int64, tag = "3")] start_revision: i64,
        #[prost(bool, tag = "4")] progress_notify: bool,
        #[prost(int32, repeated, tag = "5")] filters: Vec<i32>,
        #[prost(bool, tag = "6")] prev_kv: bool,
        #[prost(int64, tag = "7")] watch_id: i64,
        #[prost(bool, tag = "8")] fragment: bool,
    }
    WatchCancelRequest {
        #[prost(int64, tag = "1")] watch_id: i64,
    }
    WatchProgressRequest {}
    WatchResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(int64, tag = "2")] watch_id: i64,
        #[prost(bool, tag = "3")] created: bool,
        #[prost(bool, tag = "4")] canceled: bool,
        #[prost(int64, tag = "5")] compact_revision: i64,
        #[prost(string, tag = "6")] cancel_reason: String,
        #[prost(bool, tag = "7")] fragment: bool,
        #[prost(message, repeated, tag = "11")] events: Vec<Event>,
    }
    LeaseGrantRequest {
        #[prost(int64, tag = "1")] ttl: i64,
        #[prost(int64, tag = "2")] id: i64,
    }
    LeaseGrantResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(int64, tag = "2")] id: i64,
        #[prost(int64, tag = "3")] ttl: i64,
        #[prost(string, tag = "4")] error: String,
    }
    /// A lease by its number: to revoke it, or to keep it alive.
    LeaseId {
        #[prost(int64, tag = "1")] id: i64,
    }
    LeaseKeepAliveResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(int64, tag = "2")] id: i64,
        #[prost(int64, tag = "3")] ttl: i64,
    }
    LeaseTimeToLiveRequest {
        #[prost(int64, tag = "1")] id: i64,
        #[prost(bool, tag = "2")] keys: bool,
    }
    LeaseTimeToLiveResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(int64, tag = "2")] id: i64,
        #[prost(int64, tag = "3")] ttl: i64,
        #[prost(int64, tag = "4")] granted_ttl: i64,
        #[prost(bytes = "vec", repeated, tag = "5")] keys: Vec<Vec<u8>>,
    }
    Empty {}
    LeaseLeasesResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(message, repeated, tag = "2")] leases: Vec<LeaseId>,
    }
    Member {
        #[prost(uint64, tag = "1")] id: u64,
        #[prost(string, tag = "2")] name: String,
        #[prost(string, repeated, tag = "3")] peer_urls: Vec<String>,
        #[prost(string, repeated, tag = "4")] client_urls: Vec<String>,
        #[prost(bool, tag = "5")] is_learner: bool,
    }
    MemberListResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(message, repeated, tag = "2")] members: Vec<Member>,
    }
    StatusResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(string, tag = "2")] version: String,
        #[prost(int64, tag = "3")] db_size: i64,
        #[prost(uint64, tag = "4")] leader: u64,
        #[prost(uint64, tag = "5")] raft_index: u64,
        #[prost(uint64, tag = "6")] raft_term: u64,
        #[prost(uint64, tag = "7")] raft_applied_index: u64,
        #[prost(string, repeated, tag = "8")] errors: Vec<String>,
        #[prost(int64, tag = "9")] db_size_in_use: i64,
        #[prost(bool, tag = "10")] is_learner: bool,
    }
    LockRequest {
        #[prost(bytes = "vec", tag = "1")] name: Vec<u8>,
        #[prost(int64, tag = "2")] lease: i64,
    }
    LockResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(bytes = "vec", tag = "2")] key: Vec<u8>,
    }
    UnlockRequest {
        #[prost(bytes = "vec", tag = "1")] key: Vec<u8>,
    }
    CampaignRequest {
        #[prost(bytes = "vec", tag = "1")] name: Vec<u8>,
        #[prost(int64, tag = "2")] lease: i64,
        #[prost(bytes = "vec", tag = "3")] value: Vec<u8>,
    }
    LeaderKey {
        #[prost(bytes = "vec", tag = "1")] name: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] key: Vec<u8>,
        #[prost(int64, tag = "3")] rev: i64,
        #[prost(int64, tag = "4")] lease: i64,
    }
    CampaignResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(message, optional, tag = "2")] leader: Option<LeaderKey>,
    }
    LeaderRequest {
        #[prost(bytes = "vec", tag = "1")] name: Vec<u8>,
    }
    LeaderResponse {
        #[prost(message, optional, tag = "1")] header: Option<ResponseHeader>,
        #[prost(message, optional, tag = "2")] kv: Option<KeyValue>,
    }
    ResignRequest {
        #[prost(message, optional, tag = "1")] leader: Option<LeaderKey>,
    }
    ProclaimRequest {
        #[prost(message, optional, tag = "1")] leader: Option<LeaderKey>,
        #[prost(bytes = "vec", tag = "2")] value: Vec<u8>,
    }
}

#[derive(Clone, PartialEq, Oneof)]
pub enum AnyRequest {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeRequest),
    #[prost(message, tag = "4")]
    Txn(TxnRequest),
}

#[derive(Clone, PartialEq, Oneof)]
pub enum AnyResponse {
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    #[prost(message, tag = "2")]
    Put(PutResponse),
    #[prost(message, tag = "3")]
    DeleteRange(DeleteRangeResponse),
    #[prost(message, tag = "4")]
    Txn(TxnResponse),
}

#[derive(Clone, PartialEq, Oneof)]
pub enum CompareWith {
    #[prost(int64, tag = "4")]
    Version(i64),
    #[prost(int64, tag = "5")]
    CreateRevision(i64),
    #[prost(int64, tag = "6")]
    ModRevision(i64),
    #[prost(bytes = "vec", tag = "7")]
    Value(Vec<u8>),
    #[prost(int64, tag = "8")]
    Lease(i64),
}

#[derive(Clone, PartialEq, Oneof)]
pub enum AnyWatch {
    #[prost(message, tag = "1")]
    Create(WatchCreateRequest),
    #[prost(message, tag = "2")]
    Cancel(WatchCancelRequest),
    #[prost(message, tag = "3")]
    Progress(WatchProgressRequest),
}

one_of!(AnyRequest {
    "request_range": Range,
    "request_put": Put,
    "request_delete_range": DeleteRange,
    "request_txn": Txn,
});
one_of!(AnyResponse {
    "response_range": Range,
    "response_put": Put,
    "response_delete_range": DeleteRange,
    "response_txn": Txn,
});
one_of!(CompareWith {
    "version": Version,
    "create_revision": CreateRevision,
    "mod_revision": ModRevision,
    "value": Value,
    "lease": Lease,
});
one_of!(AnyWatch { "create_request": Create, "cancel_request": Cancel, "progress_request": Progress });

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum SortOrder {
    None = 0,
    Ascend = 1,
    Descend = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum SortTarget {
    Key = 0,
    Version = 1,
    Create = 2,
    Mod = 3,
    Value = 4,
}
