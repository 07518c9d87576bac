//! A task with a volume runs where the volume is, and nowhere else: not though its machine is dead. Only who could not
//! know of the volume yet, or knows that it was given up, may begin with an empty one.

use std::collections::BTreeMap;

use rialto_protocol::effect::StoreOp;
use rialto_protocol::ids::{PeerId, VolumeId};
use rialto_protocol::ledger::record::{Kind, Record};
use rialto_protocol::model::volume::Released;
use rialto_protocol::model::{TaskSpec, Volume};
use rialto_protocol::wire;

use crate::disk::Disk;

/// What came while a container was being made may have come too late for it, ms.
const KNOWN_MS: u64 = 3_000;

/// When each machine first heard of others' volumes, ms of the world.
#[derive(Debug, Default)]
pub struct Volumes {
    heard: BTreeMap<usize, BTreeMap<(PeerId, VolumeId), u64>>,
}

impl Volumes {
    /// A machine stores what others wrote.
    pub fn heard(&mut self, now_ms: u64, machine: usize, ops: &[StoreOp]) {
        for op in ops {
            if let StoreOp::Put(stored) = op
                && let Some(volume) = read::<Volume>(&stored.record, Kind::VOLUME)
            {
                let heard = self.heard.entry(machine).or_default();
                heard.entry((stored.record.owner, volume.id)).or_insert(now_ms);
            }
        }
    }

    /// A machine has lost what it knew.
    pub fn forgot(&mut self, machine: usize) {
        self.heard.remove(&machine);
    }

    /// A container has been made by a machine with this disk.
    pub fn made(&self, now_ms: u64, machine: usize, me: PeerId, disk: &Disk, spec: &TaskSpec) -> Result<(), String> {
        if spec.volumes.is_empty() {
            return Ok(());
        }
        let records = || disk.records.values().map(|stored| &stored.record);
        let released: Vec<VolumeId> =
            records().filter_map(|record| read::<Released>(record, Kind::RELEASE)).map(|one| one.id).collect();
        let has_departed =
            |peer: &PeerId| records().any(|record| record.key.kind == Kind::DEPARTURE && *record.key.id == peer.hex());
        let known = |owner: &PeerId, id: &VolumeId| {
            let heard = self.heard.get(&machine).and_then(|heard| heard.get(&(*owner, *id)));
            *owner == me || heard.is_some_and(|heard_ms| heard_ms + KNOWN_MS <= now_ms)
        };
        for name in spec.volumes.keys() {
            let volumes = records().filter_map(|record| Some((record.owner, read::<Volume>(record, Kind::VOLUME)?)));
            let counts = |(owner, volume): &(PeerId, Volume)| {
                let given_up = volume.given_up || released.contains(&volume.id);
                volume.name == *name && !given_up && known(owner, &volume.id) && !has_departed(owner)
            };
            let holder = volumes.filter(counts).min_by_key(|(owner, volume)| (volume.made_at, *owner, volume.id));
            if let Some((owner, _)) = holder
                && owner != me
            {
                return Err(format!("m{machine} runs {}, whose volume {name} is on {owner}", spec.task));
            }
        }
        Ok(())
    }
}

fn read<T: serde::de::DeserializeOwned>(record: &Record, kind: Kind) -> Option<T> {
    let value = record.value.as_ref().filter(|_| record.key.kind == kind)?;
    wire::decode(value).ok()
}
