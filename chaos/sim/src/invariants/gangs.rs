//! Of a gang no task is started before there was, at one time, a durable claim for each. (What is lost between that and
//! the start is replaced one by one.)

use std::collections::{BTreeMap, BTreeSet};

use rialto_protocol::ids::{AppId, ClaimId};
use rialto_protocol::ledger::record::{Kind, Stored};
use rialto_protocol::model::{Claim, ClaimState};
use rialto_protocol::wire;

/// One revision of one service.
type Name = (AppId, String, u64);

#[derive(Debug, Default)]
struct Gang {
    /// By slot, the claims that have not ended.
    claims: BTreeMap<String, BTreeSet<ClaimId>>,
    /// The most of its tasks that were claimed at one time: from when that was all it is a service like any other.
    gathered: u32,
}

/// The gangs whose size is known.
#[derive(Debug, Default)]
pub struct Gangs {
    sizes: BTreeMap<(String, String), u32>,
    gangs: BTreeMap<Name, Gang>,
    members: BTreeMap<ClaimId, Name>,
}

impl Gangs {
    /// A service of an app is a gang of so many.
    pub fn expect(&mut self, app: &str, service: &str, size: u32) {
        self.sizes.insert((app.into(), service.into()), size);
    }

    /// Takes note of a durable record.
    pub fn durable(&mut self, stored: &Stored) {
        let record = &stored.record;
        let Some(value) = record.value.as_ref().filter(|_| record.key.kind == Kind::CLAIM) else { return };
        let Ok(claim) = wire::decode::<Claim>(value) else { return };
        if !claim.gang {
            return;
        }
        let name = (claim.task.app.clone(), claim.task.service.clone(), claim.revision);
        let held = self.gangs.entry(name.clone()).or_default().claims.entry(claim.task.slot).or_default();
        if claim.state < ClaimState::Stopping {
            held.insert(claim.id);
            self.members.insert(claim.id, name.clone());
        } else {
            held.remove(&claim.id);
        }
        if let Some(gang) = self.gangs.get_mut(&name) {
            gang.gathered = gang.gathered.max(gang.claims.values().filter(|claims| !claims.is_empty()).count() as u32);
        }
    }

    /// A container has been made.
    pub fn made(&mut self, claim: ClaimId) -> Result<(), String> {
        let Some(name) = self.members.get(&claim) else { return Ok(()) };
        let Some(gang) = self.gangs.get(name) else { return Ok(()) };
        let (app, service, _) = name;
        let Some(size) = self.sizes.get(&(app.name.clone(), service.clone())) else { return Ok(()) };
        match gang.gathered >= *size {
            true => Ok(()),
            false => Err(format!("{}.{service} starts with {} of its {size} tasks claimed", app.name, gang.gathered)),
        }
    }
}
