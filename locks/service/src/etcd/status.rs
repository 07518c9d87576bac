//! Who belongs to the group, and how it is.

use tonic::Status;

use super::messages::*;
use super::{header, refused};
use crate::Group;

/// What clients take this for, who look at versions.
pub const VERSION: &str = "3.4.0";

/// `door`: how the client came, which is all that is known of where clients find peers; it is told of the member that
/// answers.
pub async fn members(group: Group, door: Option<String>) -> Result<MemberListResponse, Status> {
    let (voters, learners) = group
        .look(|replica| {
            let group = replica.group();
            (group.voters, group.learners)
        })
        .await
        .map_err(refused)?;
    let told = group.told();
    let member = |id: u64, is_learner: bool| {
        let (name, mut client_urls) = group.directory(id);
        if id == told.node {
            client_urls.extend(door.clone());
        }
        Member { id, name, peer_urls: Vec::new(), client_urls, is_learner }
    };
    let members = voters.iter().map(|id| member(*id, false)).chain(learners.iter().map(|id| member(*id, true)));
    Ok(MemberListResponse { header: header(&group, told.revision), members: members.collect() })
}

pub async fn status(group: Group) -> Result<StatusResponse, Status> {
    let look = group.look(|replica| {
        let (_, bytes) = replica.store().size();
        (replica.group(), bytes as i64, replica.store().history_bytes() as i64)
    });
    let (raft, bytes, history_bytes) = look.await.map_err(refused)?;
    let told = group.told();
    let errors = if raft.leader == 0 { vec!["etcdserver: no leader".to_owned()] } else { Vec::new() };
    Ok(StatusResponse {
        header: header(&group, told.revision),
        version: VERSION.into(),
        db_size: bytes + history_bytes,
        leader: raft.leader,
        raft_index: raft.applied,
        raft_term: raft.term,
        raft_applied_index: raft.applied,
        errors,
        db_size_in_use: bytes,
        is_learner: raft.learners.contains(&told.node),
    })
}
