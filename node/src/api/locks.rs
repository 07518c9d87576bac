//! The lock group, as people see it.

use axum::Json;
use rialto_locks::node_id;
use rialto_protocol::api::{Answer, ErrorCode, Locks};
use rialto_protocol::ids::PeerId;
use serde::Deserialize;

use super::Shared;
use super::extract::Options;
use super::identity::{Identity, Verb};
use super::problem::Problem;

/// `POST /v1/locks/force-new-group`.
#[derive(Deserialize)]
pub struct Force {
    #[serde(default)]
    lose_leases: bool,
}

/// Who votes and leads, and what the group holds, as this peer knows it.
pub async fn status(api: Shared, identity: Identity) -> Result<Json<Answer<Locks>>, Problem> {
    identity.may(Verb::Look)?;
    let locks = api.locks.clone().ok_or_else(no_group)?;
    let told = locks.told();
    let look = locks.look(|replica| {
        let (keys, bytes) = replica.store().size();
        (keys as u64, bytes as u64, replica.store().leases().count() as u64)
    });
    let (keys, bytes, leases) = look.await.map_err(|_| no_group())?;
    // Whoever leads steps down when a quorum is silent: who knows a leader knows a quorum.
    let answer = api.answer(move |view| {
        let rows = view.machines();
        let name = |node: &u64| {
            let of = |id: &str| PeerId::from_hex(id).map(|peer| node_id(&peer.0));
            let row = rows.iter().find(|row| of(&row.id) == Some(*node));
            row.map_or_else(|| format!("{node:016x}"), |row| row.name.clone())
        };
        Ok(Locks {
            leader: Some(told.leader).filter(|leader| *leader != 0).as_ref().map(name),
            voters: told.voters.iter().map(name).collect(),
            learners: told.learners.iter().map(name).collect(),
            quorum: told.leader != 0,
            votes: told.votes(),
            epoch: told.epoch,
            term: told.term,
            revision: told.revision,
            keys,
            bytes,
            leases,
        })
    });
    answer.await
}

/// Makes the group anew from what this peer has, which is its only voter then.
pub async fn force(api: Shared, identity: Identity, options: Options<Force>) -> Result<Json<Answer<()>>, Problem> {
    identity.may(Verb::ChangeApps)?;
    if !options.0.lose_leases {
        let message = "a new group forgets what the old one granted and this peer has not seen: two may hold one lock";
        return Err(Problem::invalid(message).hint("say --yes-i-lose-leases when the old voters are gone for good"));
    }
    let locks = api.locks.clone().ok_or_else(no_group)?;
    if locks.told().voters.is_empty() {
        let message = "this peer has no part in the lock group, and nothing to make it anew from";
        return Err(Problem::invalid(message).hint("ask a voter that is left: `rialto locks status` names them"));
    }
    locks.force_new().await.map_err(|_| no_group())?;
    api.answer_with(()).await
}

fn no_group() -> Problem {
    Problem::new(ErrorCode::Internal, "this peer's part in the lock group has failed: its log says why")
}
