//! Membership's place in the brain: its orders become effects and records.

use super::Brain;
use super::writer::Urgency;
use crate::effect::{Effect, Local};
use crate::ids::PeerId;
use crate::ledger::readings::Verdict;
use crate::ledger::record::{Kind, RecordKey};
use crate::membership::{Member, Order, State};
use crate::wire::{Message, encode};

/// Where membership keeps its reference on disk.
pub(super) const REMEMBERED: &str = "membership";

/// The most links to members of whom nothing but the admission is known.
const STRANGERS_MAX: usize = 4;

/// The standing links, as membership wants them and as the mesh was told.
#[derive(Debug, Default)]
pub(super) struct Links {
    wanted: Vec<PeerId>,
    told: Option<Vec<(PeerId, Vec<String>)>>,
    /// What is wanted, or where it is, may have changed.
    stale: bool,
}

impl Brain {
    pub(super) fn members_turn(&mut self) {
        if std::mem::take(&mut self.members_stale) {
            self.tell_members();
        }
        for order in self.members.tick(self.now) {
            match order {
                Order::Heartbeat { to, life } => {
                    let clock = self.clocks.stamp(self.now, &to);
                    self.send(to, Message::Heartbeat { life, clock });
                }
                Order::Accuse { subject, life } => {
                    let value = encode(&Verdict { subject, life });
                    self.write(Kind::VERDICT, &subject.hex(), Some(value), Urgency::Now);
                }
                Order::Withdraw { subject } => self.write(Kind::VERDICT, &subject.hex(), None, Urgency::Ordinary),
                Order::Held(_) => self.stewards.members_changed(),
                Order::Refute { life } => self.refute(life),
                Order::Links(peers) => {
                    self.links.wanted = peers;
                    self.links.stale = true;
                }
                Order::Changed { peer, state } => self.member_changed(peer, state),
                Order::Remember(bytes) => {
                    let local = Local { key: REMEMBERED.into(), value: Some(bytes) };
                    self.writer.write_local(self.now, local, Urgency::Ordinary);
                }
            }
        }
        self.tell_links();
    }

    /// The standing links that are wanted: membership's, and a few to members that were admitted
    /// but have not described themselves here yet, for that is how a newcomer's first link comes.
    fn tell_links(&mut self) {
        if !std::mem::take(&mut self.links.stale) && self.links.told.is_some() {
            return;
        }
        let unread = |peer: &PeerId| *peer != self.me && !self.links.wanted.contains(peer);
        let strangers = self.readings.strangers.iter().copied().filter(unread).take(STRANGERS_MAX);
        let peers: Vec<_> = self.links.wanted.iter().copied().chain(strangers).collect();
        let peers: Vec<(PeerId, Vec<String>)> = peers.into_iter().map(|peer| (peer, self.addresses(&peer))).collect();
        if self.links.told.as_ref() != Some(&peers) {
            self.links.told = Some(peers.clone());
            self.out.push(Effect::Links { peers });
        }
    }

    /// Somebody new is to be linked with, or somebody is elsewhere.
    pub(super) fn links_stale(&mut self) {
        self.links.stale = true;
    }

    /// What is down is given up, whatever the storm gate holds back.
    pub(super) fn unfreeze(&mut self) {
        self.members.unfreeze(self.now);
        self.stewards.members_changed();
        self.machines_changed = true;
        self.note("unfrozen", self.machine_name(&self.me), "replacements that were held back go ahead");
    }

    fn member_changed(&mut self, peer: PeerId, state: State) {
        self.machines_changed = true;
        self.stewards.members_changed();
        let word = match state {
            State::Alive => "alive",
            State::Suspect => "suspect",
            State::Down => "down",
            State::Left => "left",
        };
        let name = self.machine_name(&peer);
        self.note_here(word, name.clone(), format!("machine {name} is {word}"));
    }

    /// Raises the own life: whoever held this machine for dead hears that it is not. A machine that
    /// has just started waits until it knows which of its tasks are gone: were it alive before, its
    /// stale claims would win over the replacements that run.
    fn refute(&mut self, life: u64) {
        self.refuting = Some(life);
        self.refute_when_known();
    }

    pub(super) fn refute_when_known(&mut self) {
        let Some(mut machine) = self.own_machine() else { return };
        if !self.knows_its_tasks() {
            return;
        }
        if let Some(life) = self.refuting.take().filter(|life| machine.life < *life) {
            machine.life = life;
            machine.life_since = self.now.wall;
            self.write_machine(machine);
        }
    }

    /// Hands on a verdict, or what makes one void, that came by no frame. A frame is pushed by whomever it is news to;
    /// what comes by anti-entropy is not, and then the accused would be the last to hear of what others
    /// hold against it, and late to refute.
    pub(super) fn pass_on(&mut self, owner: PeerId, key: &RecordKey, from: Option<PeerId>) {
        let by_frame = from.is_some() && !self.syncing;
        let Some(stored) = self.ledger.get(&owner, key).filter(|_| !by_frame).cloned() else { return };
        let links = self.spread.links().filter(|peer| *peer != owner && Some(*peer) != from);
        for peer in links.collect::<Vec<_>>() {
            self.send(peer, Message::Told(vec![stored.clone()]));
        }
    }

    /// A machine record was read: membership hears of it.
    pub(super) fn member_read(&mut self, peer: PeerId) {
        self.machine.subnets_stale = true;
        let Some(machine) = self.readings.machines.get(&peer) else { return };
        let member = Member {
            id: peer,
            rack: machine.labels.get("rack").cloned(),
            life: machine.life,
            restarting_until: machine.restarting_until,
            draining: machine.draining,
        };
        self.members.upsert(self.now, member);
        self.machines_changed = true;
        self.stewards.members_changed();
        self.members_stale = true;
        self.links.stale = true;
    }

    /// Who may speak to this peer, and where they are.
    fn tell_members(&mut self) {
        let admitted: Vec<PeerId> =
            self.ledger.owners().filter(|owner| owner.admitted && owner.id != self.me).map(|owner| owner.id).collect();
        // The departed, too: a peer that is a member no more is to hear of it, and nothing else (see `received`).
        let peers = admitted.into_iter().map(|peer| (peer, self.addresses(&peer))).collect();
        self.out.push(Effect::Members { peers });
    }

    /// Where a peer says that it is.
    pub(crate) fn addresses(&self, peer: &PeerId) -> Vec<String> {
        self.readings.machines.get(peer).map_or_else(Vec::new, |machine| machine.addresses.clone())
    }
}
