//! What was read of volumes: which there are, who holds each, and which were given up.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{PeerId, VolumeId};
use crate::model::Volume;
use crate::model::volume::Released;

/// Every volume that some record tells of.
#[derive(Clone, Debug, Default)]
pub struct Volumes {
    held: BTreeMap<(PeerId, VolumeId), Volume>,
    names: BTreeMap<String, BTreeSet<(PeerId, VolumeId)>>,
    /// By volume, who has released it.
    released: BTreeMap<VolumeId, BTreeMap<PeerId, Released>>,
}

impl Volumes {
    /// Reads what a machine says of a volume of its own; none: it is no more.
    pub fn take(&mut self, owner: PeerId, id: VolumeId, volume: Option<Volume>) {
        let key = (owner, id);
        if let Some(old) = self.held.remove(&key)
            && let Some(same) = self.names.get_mut(&old.name)
        {
            same.remove(&key);
            if same.is_empty() {
                self.names.remove(&old.name);
            }
        }
        if let Some(volume) = volume {
            self.names.entry(volume.name.clone()).or_default().insert(key);
            self.held.insert(key, volume);
        }
    }

    /// Reads that somebody releases a volume; none: that need not be said any more.
    pub fn release(&mut self, owner: PeerId, id: VolumeId, released: Option<Released>) {
        match released {
            Some(released) => drop(self.released.entry(id).or_default().insert(owner, released)),
            None => {
                let by = self.released.entry(id).or_default();
                by.remove(&owner);
                if by.is_empty() {
                    self.released.remove(&id);
                }
            }
        }
    }

    /// The one volume that a name means, and its machine, which has not departed.
    pub fn holder(&self, name: &str, departed: impl Fn(&PeerId) -> bool) -> Option<(PeerId, &Volume)> {
        let all = self.names.get(name)?.iter().filter_map(|key| Some((key.0, self.held.get(key)?)));
        let counts = |(owner, volume): &(PeerId, &Volume)| self.counts(volume) && !departed(owner);
        all.filter(counts).min_by_key(|(owner, volume)| (volume.made_at, *owner, volume.id))
    }

    /// Whether nobody has given it up.
    pub fn counts(&self, volume: &Volume) -> bool {
        !volume.given_up && !self.released.contains_key(&volume.id)
    }

    /// One machine's own.
    pub fn of(&self, owner: &PeerId) -> impl Iterator<Item = &Volume> {
        let (first, last) = ((*owner, VolumeId([0; 16])), (*owner, VolumeId([0xff; 16])));
        self.held.range(first..=last).map(|(_, volume)| volume)
    }

    /// All, with their machines.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerId, &Volume)> {
        self.held.iter().map(|((owner, _), volume)| (owner, volume))
    }

    /// What one peer has released of which its machine knows by now.
    pub fn settled(&self, owner: &PeerId) -> Vec<VolumeId> {
        let own = self.released.iter().filter_map(|(id, by)| Some((id, by.get(owner)?)));
        let knows =
            |released: &Released| self.held.get(&(released.holder, released.id)).is_none_or(|volume| volume.given_up);
        own.filter(|(_, released)| knows(released)).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "shop/data";

    fn volume(id: u8, made_at: u64) -> Volume {
        Volume { id: VolumeId([id; 16]), name: NAME.into(), made_at, given_up: false }
    }

    #[test]
    fn the_older_of_two_counts_until_it_is_given_up() {
        let (a, b) = (PeerId([1; 32]), PeerId([2; 32]));
        let nobody = |_: &PeerId| false;
        let mut volumes = Volumes::default();
        assert!(volumes.holder(NAME, nobody).is_none());
        volumes.take(a, VolumeId([1; 16]), Some(volume(1, 20)));
        volumes.take(b, VolumeId([2; 16]), Some(volume(2, 10)));
        assert_eq!(volumes.holder(NAME, nobody).unwrap().0, b);
        assert_eq!(volumes.holder(NAME, |peer| *peer == b).unwrap().0, a, "who has departed holds nothing");
        let released = Released { id: VolumeId([2; 16]), name: NAME.into(), holder: b, at: 30 };
        volumes.release(a, released.id, Some(released));
        assert_eq!(volumes.holder(NAME, nobody).unwrap().0, a);
        assert!(volumes.settled(&a).is_empty(), "its machine does not know yet");
        volumes.take(b, VolumeId([2; 16]), Some(Volume { given_up: true, ..volume(2, 10) }));
        assert_eq!(volumes.settled(&a), [VolumeId([2; 16])]);
        volumes.release(a, VolumeId([2; 16]), None);
        assert_eq!(volumes.holder(NAME, nobody).unwrap().0, a, "given up for good");
        volumes.take(a, VolumeId([1; 16]), None);
        assert!(volumes.holder(NAME, nobody).is_none());
        assert_eq!((volumes.of(&a).count(), volumes.of(&b).count()), (0, 1));
    }
}
