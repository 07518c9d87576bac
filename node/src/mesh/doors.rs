//! Who may open which kind of stream. Only `hello` is open to everybody; the rest is the members'.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};

use libp2p::StreamProtocol;
use rialto_protocol::ids::PeerId;

/// A kind of stream, with its version in its name: two peers that share none of a kind's versions
/// find out when the stream is negotiated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Hello,
    Link,
    Api,
    Locks,
}

impl Door {
    pub(super) const ALL: [Door; 4] = [Door::Hello, Door::Link, Door::Api, Door::Locks];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Door::Hello => "/rialto/hello/1",
            Door::Link => "/rialto/link/1",
            Door::Api => "/rialto/api/1",
            Door::Locks => "/rialto/locks/1",
        }
    }

    pub(super) fn protocol(self) -> StreamProtocol {
        StreamProtocol::new(self.name())
    }

    pub(super) fn of(protocol: &StreamProtocol) -> Option<Door> {
        Door::ALL.into_iter().find(|door| door.name() == protocol.as_ref())
    }

    /// The most streams that may be open at once: of everybody for hello, of one peer for the rest.
    /// A peer needs one link stream; while it moves to another connection it has two.
    const fn limit(self) -> u32 {
        match self {
            Door::Hello => 8,
            Door::Link => 4,
            Door::Api | Door::Locks => 64,
        }
    }
}

/// The allow list, and everybody who is connected.
#[derive(Default)]
pub(super) struct Doors {
    members: Arc<RwLock<HashSet<PeerId>>>,
    standings: Mutex<HashMap<PeerId, Arc<Standing>>>,
    hellos: Arc<AtomicU32>,
}

/// What one identity may do here, and does.
pub(super) struct Standing {
    peer: PeerId,
    /// The allow list itself: a connection that is being made while others are admitted may hold a
    /// standing that is forgotten meanwhile, and must not miss its own admission.
    members: Arc<RwLock<HashSet<PeerId>>>,
    /// It has knocked at `hello` at least once.
    greeted: AtomicBool,
    connections: AtomicU32,
    open: [Arc<AtomicU32>; 4],
}

impl Doors {
    pub(super) fn standing(&self, peer: &PeerId) -> Arc<Standing> {
        let mut standings = self.standings.lock().expect("nobody panics with the lock");
        let fresh = || {
            let open = [self.hellos.clone(), Arc::default(), Arc::default(), Arc::default()];
            let (greeted, connections) = (AtomicBool::new(false), AtomicU32::new(0));
            Arc::new(Standing { peer: *peer, members: self.members.clone(), greeted, connections, open })
        };
        standings.entry(*peer).or_insert_with(fresh).clone()
    }

    pub(super) fn is_member(&self, peer: &PeerId) -> bool {
        self.members.read().expect("nobody panics with the lock").contains(peer)
    }

    pub(super) fn is_connected(&self, peer: &PeerId) -> bool {
        let standings = self.standings.lock().expect("nobody panics with the lock");
        standings.get(peer).is_some_and(|standing| standing.connections.load(Relaxed) > 0)
    }

    /// How many connections there are, and with how many peers.
    pub(super) fn connections(&self) -> (usize, usize) {
        let standings = self.standings.lock().expect("nobody panics with the lock");
        let each = standings.values().map(|standing| standing.connections.load(Relaxed) as usize);
        each.filter(|count| *count > 0).fold((0, 0), |(connections, peers), count| (connections + count, peers + 1))
    }

    /// Replaces the allow list; answers who was on it and is not any more.
    pub(super) fn admit_only(&self, members: HashSet<PeerId>) -> Vec<PeerId> {
        let mut admitted = self.members.write().expect("nobody panics with the lock");
        let expelled = admitted.difference(&members).copied().collect();
        *admitted = members;
        expelled
    }

    pub(super) fn connected(&self, peer: &PeerId) {
        self.standing(peer).connections.fetch_add(1, Relaxed);
    }

    /// A connection ended; the last one takes all memory of the identity along.
    pub(super) fn disconnected(&self, peer: &PeerId) {
        let mut standings = self.standings.lock().expect("nobody panics with the lock");
        if let Some(standing) = standings.get(peer)
            && standing.connections.fetch_sub(1, Relaxed) == 1
        {
            standings.remove(peer);
        }
    }
}

impl Standing {
    pub(super) fn is_member(&self) -> bool {
        self.members.read().expect("nobody panics with the lock").contains(&self.peer)
    }

    pub(super) fn has_greeted(&self) -> bool {
        self.greeted.load(Relaxed)
    }

    /// The protocols that this identity may open now: read anew for each stream, so that an
    /// admission counts at once, on connections that are already there.
    pub(super) fn offers(&self) -> [Option<StreamProtocol>; 4] {
        Door::ALL.map(|door| (door == Door::Hello || self.is_member()).then(|| door.protocol()))
    }

    /// Lets a stream in; the ticket counts it until it is dropped.
    pub(super) fn enter(&self, door: Door) -> Option<Ticket> {
        if door == Door::Hello {
            self.greeted.store(true, Relaxed);
        } else if !self.is_member() {
            return None;
        }
        let open = &self.open[door as usize];
        let ticket = Ticket(open.clone());
        (open.fetch_add(1, Relaxed) < door.limit()).then_some(ticket)
    }
}

/// One open stream.
pub(super) struct Ticket(Arc<AtomicU32>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hello_is_open_to_strangers() {
        let doors = Doors::default();
        let (member, stranger) = (PeerId([1; 32]), PeerId([2; 32]));
        assert!(doors.admit_only(HashSet::from([member])).is_empty());
        assert_eq!(doors.standing(&member).offers().into_iter().flatten().count(), 4);
        let standing = doors.standing(&stranger);
        assert_eq!(standing.offers().into_iter().flatten().collect::<Vec<_>>(), [Door::Hello.protocol()]);
        assert!(standing.enter(Door::Api).is_none() && !standing.has_greeted());
        assert!(standing.enter(Door::Hello).is_some() && standing.has_greeted());
        doors.connected(&stranger);
        assert!(doors.admit_only(HashSet::from([stranger])).contains(&member));
        assert!(standing.enter(Door::Link).is_some(), "an admission counts at once");
    }

    #[test]
    fn a_connection_that_is_made_while_others_are_admitted_learns_of_its_own_admission() {
        let doors = Doors::default();
        let (early, late) = (PeerId([1; 32]), PeerId([2; 32]));
        let standing = doors.standing(&late);
        doors.admit_only(HashSet::from([early]));
        // A connection of before ends, the new one is established.
        doors.connected(&late);
        doors.disconnected(&late);
        doors.connected(&late);
        doors.admit_only(HashSet::from([early, late]));
        assert!(standing.enter(Door::Link).is_some());
        assert!(standing.offers().iter().all(Option::is_some));
    }

    #[test]
    fn a_door_lets_so_many_in_and_no_more() {
        let doors = Doors::default();
        doors.admit_only(HashSet::from([PeerId([1; 32])]));
        let standing = doors.standing(&PeerId([1; 32]));
        let mut inside: Vec<_> = (0..64).map(|_| standing.enter(Door::Api).unwrap()).collect();
        assert!(standing.enter(Door::Api).is_none());
        inside.pop();
        assert!(standing.enter(Door::Api).is_some());
        let hellos: Vec<_> = (0..20u8).filter_map(|n| doors.standing(&PeerId([n; 32])).enter(Door::Hello)).collect();
        assert_eq!(hellos.len(), 8, "hello is bounded for all together");
    }
}
