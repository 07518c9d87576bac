//! P4: nothing is risen from the dead. A claim that has ended never lives again, and an app that
//! was removed runs nothing once everybody may know.

use std::collections::{BTreeMap, BTreeSet};

use rialto_protocol::ids::{PeerId, TaskId};
use rialto_protocol::model::Claim;

use super::history::Run;
use super::settles;
use crate::World;

/// The claims that have ended.
#[derive(Debug, Default)]
pub struct Resurrection {
    ended: BTreeSet<(PeerId, String)>,
    forked: BTreeSet<PeerId>,
}

impl Resurrection {
    /// Judges a claim that has become durable; none: it is forgotten, and for good.
    pub fn durable(&mut self, machine: usize, owner: &PeerId, id: &str, claim: Option<&Claim>) -> Result<(), String> {
        if self.forked.contains(owner) {
            return Ok(());
        }
        match claim {
            Some(claim) if !claim.state.has_ended() => {
                let dead = self.ended.contains(&(*owner, id.to_string()));
                let text = || format!("m{machine} calls {} {}, and it had ended", claim.task, claim.state.word());
                if dead { Err(text()) } else { Ok(()) }
            }
            _ => {
                self.ended.insert((*owner, id.to_string()));
                Ok(())
            }
        }
    }

    /// An owner whose disk was put back knows nothing of what ended since.
    pub fn forked(&mut self, owner: PeerId) {
        self.forked.insert(owner);
    }
}

/// What belongs to apps that are gone, and how often it has run, as everybody may know by now.
#[derive(Debug)]
pub struct Gone(BTreeMap<TaskId, usize>);

impl Gone {
    /// Looks, at a time at which everybody may know.
    pub fn look(world: &World) -> Option<Self> {
        let wanted = settles::wanted_apps(world)?;
        let gone = |task: &TaskId| !wanted.contains(&task.app);
        let runs = world.promises.history.all().filter(|(task, _)| gone(task));
        Some(Self(runs.map(|(task, runs): (&TaskId, &[Run])| (task.clone(), runs.len())).collect()))
    }

    /// What has run since then all the same.
    pub fn risen(&self, world: &World) -> Option<String> {
        let more = |(task, before): (&TaskId, &usize)| {
            let runs = world.promises.history.of(task).len();
            (runs > *before).then(|| format!("{task} belongs to an app that is gone, and was started again"))
        };
        self.0.iter().find_map(more)
    }
}
