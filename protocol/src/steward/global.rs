//! Services with one task on each machine: a task is named for its machine.

use std::collections::BTreeMap;

use crate::ids::PeerId;

/// The slot of each machine. Of several machines of one name all but one carry the beginning of their identity.
pub fn slots<'a>(machines: impl Iterator<Item = (PeerId, &'a str)>) -> BTreeMap<String, PeerId> {
    let mut all: Vec<(PeerId, &str)> = machines.collect();
    all.sort_unstable();
    let mut slots = BTreeMap::new();
    for (peer, name) in all {
        let bare = name.replace('.', "-");
        let slot = match slots.contains_key(&bare) {
            true => format!("{bare}-{}", &peer.hex()[..6]),
            false => bare,
        };
        slots.insert(slot, peer);
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namesakes_are_told_apart() {
        let machines = [(PeerId([2; 32]), "m1"), (PeerId([1; 32]), "m1"), (PeerId([3; 32]), "db.east")];
        let slots = slots(machines.into_iter());
        let names: Vec<(&str, u8)> = slots.iter().map(|(slot, peer)| (slot.as_str(), peer.0[0])).collect();
        assert_eq!(names, [("db-east", 3), ("m1", 1), ("m1-020202", 2)]);
    }
}
