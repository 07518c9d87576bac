//! P1: room is freed last. A claim ends, or is forgotten, only when its container is gone.

use rialto_protocol::ids::ClaimId;
use rialto_protocol::model::Claim;

use crate::executor::VirtualExecutor;

/// Judges a claim that has become durable; none: it is forgotten.
pub fn durable(machine: usize, id: &str, claim: Option<&Claim>, executor: &VirtualExecutor) -> Result<(), String> {
    let lives = |id: &ClaimId| executor.live.get(id).map(|container| &container.spec.task);
    match claim {
        Some(claim) if claim.state.has_ended() => match lives(&claim.id) {
            Some(task) => Err(format!("m{machine} calls {task} {} while its container lives", claim.state.word())),
            None => Ok(()),
        },
        Some(_) => Ok(()),
        None => match ClaimId::from_hex(id).and_then(|id| lives(&id)) {
            Some(task) => Err(format!("m{machine} forgets the claim of {task} while its container lives")),
            None => Ok(()),
        },
    }
}
