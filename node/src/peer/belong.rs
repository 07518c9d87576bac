//! Which cluster a data folder belongs to: the one in it, a new one, or the one of a token.

use rialto_protocol::{Brain, Config as BrainConfig, Restored};

use super::PeerError;
use super::folder::Folder;
use crate::config::Config;
use crate::driver::clock;
use crate::identity::{Belonging, Identity, random};
use crate::invitation::Invitation;
use crate::store::Store;

/// The ledger's file in the data folder.
pub const LEDGER_FILE: &str = "ledger.redb";

/// What a data folder and a token come to.
pub enum Standing {
    /// A member of the cluster that the folder names.
    Member { identity: Identity, belonging: Belonging },
    /// About to found a cluster: nothing of it is on disk yet.
    Founder { identity: Identity, belonging: Belonging },
    /// Whoever wrote the invitation has to be asked first.
    Newcomer { identity: Identity, invitation: Invitation },
}

/// Decides. The only thing that this changes is a cluster that is given up.
pub fn settle(config: &Config, folder: &Folder) -> Result<Standing, PeerError> {
    let invitation = config.join.as_deref().map(Invitation::parse).transpose()?;
    match (Belonging::load(folder.path())?, invitation) {
        (Some(belonging), None) => member(folder, belonging),
        (Some(belonging), Some(invitation)) if invitation.cluster == belonging.cluster => member(folder, belonging),
        (Some(belonging), Some(invitation)) => {
            give_up(config, folder, &belonging)?;
            Ok(Standing::Newcomer { identity: Identity::load_or_create(folder.path())?, invitation })
        }
        (None, _) if folder.file(LEDGER_FILE).exists() => Err(PeerError::NoBelonging(folder.path().into())),
        (None, Some(invitation)) => {
            Ok(Standing::Newcomer { identity: Identity::load_or_create(folder.path())?, invitation })
        }
        (None, None) => {
            let identity = Identity::load_or_create(folder.path())?;
            let belonging = Belonging::found(&identity.peer()).map_err(PeerError::Random)?;
            Ok(Standing::Founder { identity, belonging })
        }
    }
}

fn member(folder: &Folder, belonging: Belonging) -> Result<Standing, PeerError> {
    Ok(Standing::Member { identity: Identity::load_or_create(folder.path())?, belonging })
}

/// What a brain is told of itself.
pub fn brain_config(config: &Config, identity: &Identity, belonging: &Belonging) -> Result<BrainConfig, PeerError> {
    Ok(BrainConfig {
        me: identity.peer(),
        cluster: belonging.cluster,
        founding: belonging.founding,
        chain: belonging.chain.clone(),
        seed: u64::from_le_bytes(random().map_err(PeerError::Random)?),
        minority_hold_ms: config.minority_hold_ms,
    })
}

/// Puts the folder's cluster aside, if this peer is all there is of it and nobody's work is in it.
fn give_up(config: &Config, folder: &Folder, belonging: &Belonging) -> Result<(), PeerError> {
    let identity = Identity::load_or_create(folder.path())?;
    let (store, restored) = Store::open(&folder.file(LEDGER_FILE))?;
    drop(store);
    let brain = brain_config(config, &identity, belonging)?;
    if !is_alone(brain, restored) {
        return Err(PeerError::OtherCluster(belonging.cluster));
    }
    let aside = folder.put_aside(&belonging.cluster.hex()[..8])?;
    tracing::warn!(
        cluster = %belonging.cluster,
        kept = %aside.display(),
        "this peer was alone in its cluster, without any app: it gives that cluster up to join another"
    );
    Ok(())
}

fn is_alone(config: BrainConfig, restored: Restored) -> bool {
    let now = clock::now();
    let (brain, _) = Brain::new(config, restored, now);
    let view = brain.view(now);
    let others = view.machines().into_iter().filter(|machine| machine.state != "left").count();
    others <= 1 && view.apps().is_empty()
}
