//! What a peer believes, in the shapes that people, DNS and the API read.

use crate::api::{App, ImageRow, MachineRow, Status, TaskRow};
use crate::brain::Brain;
use crate::event::Now;
use crate::ids::{ClaimId, PeerId};
use crate::model::PortBinding;

/// A read-only look at a brain at one moment.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub(crate) brain: &'a Brain,
    pub(crate) now: Now,
}

/// Which tasks are meant.
#[derive(Clone, Debug, Default)]
pub struct TaskFilter {
    pub app: Option<String>,
    pub service: Option<String>,
    pub slot: Option<String>,
    /// Finished ones beyond the last 100, too.
    pub all: bool,
}

/// Where a healthy task of a service answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub task: String,
    pub machine: String,
    /// Without a port.
    pub address: String,
    pub ports: Vec<PortBinding>,
}

/// A claim, and who has it: what logs and stops need.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimAt {
    pub claim: ClaimId,
    pub owner: PeerId,
    pub owner_name: String,
    /// Whether the owner is held for alive.
    pub reachable: bool,
    pub row: TaskRow,
}

impl View<'_> {
    /// Machines held for alive, this one included.
    pub fn members_seen(&self) -> u32 {
        0
    }
    /// Rows for `ps`: live tasks, pending slots, and the last 100 finished. Sorted by task.
    pub fn tasks(&self, _filter: &TaskFilter) -> Vec<TaskRow> {
        Vec::new()
    }
    /// Sentences about what is held back.
    pub fn remarks(&self) -> Vec<String> {
        Vec::new()
    }
    /// Claims of a task (`app.service.slot`), of a service (`app.service`), of an app (`app`), or
    /// by the claim's own hexadecimal id or a unique beginning of 8 digits; newest attempt first.
    pub fn claims(&self, _name: &str) -> Vec<ClaimAt> {
        Vec::new()
    }
    pub fn machines(&self) -> Vec<MachineRow> {
        Vec::new()
    }
    /// A machine by name, by identity, or by a unique beginning of the identity.
    pub fn machine(&self, _name: &str) -> Option<(PeerId, MachineRow)> {
        None
    }
    pub fn status(&self) -> Status {
        unimplemented!()
    }
    pub fn apps(&self) -> Vec<App> {
        Vec::new()
    }
    pub fn app(&self, _name: &str) -> Option<App> {
        None
    }
    /// The images that live machines have, under a name each.
    pub fn images(&self) -> Vec<ImageRow> {
        Vec::new()
    }
    /// The dimension, by service, in which no known machine could ever hold a task of this app.
    pub fn unplaceable(&self, _spec: &crate::model::AppSpec) -> Option<String> {
        None
    }
    /// The tasks of a service that DNS names: `None` where there is no such service.
    pub fn endpoints(&self, _app: &str, _service: &str) -> Option<Vec<Endpoint>> {
        None
    }
    /// The address of a machine that DNS names; `None` where there is no such machine or it is down.
    pub fn machine_address(&self, _name: &str) -> Option<String> {
        None
    }
    /// The addresses (`IP:PORT`) of a peer, for the mesh.
    pub fn addresses(&self, _peer: &PeerId) -> Vec<String> {
        Vec::new()
    }
}
