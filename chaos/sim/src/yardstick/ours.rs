//! A cluster of ours: the production [`Membership`], driven as the brain drives it.
//!
//! The whole brain at 1,000 peers spends its time on vitals and documents, which detect nothing. So
//! what is around membership is played here after `protocol/src/brain`: a record is written to disk,
//! pushed once over each standing link to whom it is news, and what the push misses comes by
//! comparing with one random member every 10 s and over every link that comes up.

use std::collections::BTreeSet;
use std::sync::Arc;

use rialto_protocol::Now;
use rialto_protocol::ids::PeerId;
use rialto_protocol::membership::{Member, Membership, Order, State, Tuning};

use crate::air::Air;
use crate::detector::{Detector, Down};
use crate::news::{Log, Record, Shelf};
use crate::queue::Queue;
use crate::streams::{HANDSHAKE_US, INTO_THE_VOID, Links, UNACKNOWLEDGED_US, backoff_us, fate, handshake_us, pair};

/// A record is durable after this, µs, and up to as much again.
const COMMIT_US: u64 = 2_000;
/// One random member is compared with after this, and up to half as much again, µs.
const COMPARE_US: u64 = 8_000_000;
/// The links over which news are pushed that are not of life and death.
const EAGER: usize = 3;
/// A gap is asked about at most this often, µs.
const PULL_AGAIN_US: u64 = 300_000;

/// What one machine says to another.
#[derive(Clone)]
enum Say {
    Heartbeat {
        life: u64,
    },
    /// A record: its owner and number.
    Frame {
        owner: usize,
        seq: u32,
    },
    /// A record that its sender did not hear of by a frame.
    Told {
        owner: usize,
        seq: u32,
    },
    Compare {
        sum: u64,
    },
    Digest(Arc<Vec<u32>>),
    /// All of these owners after these numbers, please.
    Pull(Vec<(usize, u32)>),
    /// Owner, after, through.
    Records(Vec<(usize, u32, u32)>),
}

/// What comes to a machine's process from outside.
enum Event {
    Said { from: usize, say: Say },
    Link { with: usize, up: bool },
    Durable { seq: u32 },
}

enum Happening {
    Begin {
        machine: usize,
    },
    Wake {
        machine: usize,
        due_ms: u64,
    },
    Arrive {
        machine: usize,
        event: Event,
    },
    Resume {
        machine: usize,
    },
    Compare {
        machine: usize,
    },
    Dial {
        link: (usize, usize),
    },
    Dialed {
        link: (usize, usize),
        epoch: u32,
        made: bool,
    },
    /// This side's kernel gives the connection up.
    Broken {
        link: (usize, usize),
        epoch: u32,
        side: usize,
        sent_us: u64,
    },
    /// Something of what this side sent may have arrived.
    Look {
        link: (usize, usize),
        epoch: u32,
        side: usize,
    },
}

struct Node {
    members: Membership,
    dead: bool,
    paused: bool,
    waiting: Vec<Event>,
    armed_ms: Option<u64>,
    wants: BTreeSet<usize>,
    /// The standing links that it was told of.
    links: BTreeSet<usize>,
    shelf: Shelf,
    asked_us: Vec<(usize, u64)>,
    life: u64,
}

/// A cluster of ours.
pub struct Cluster {
    queue: Queue<Happening>,
    air: Air,
    ids: Vec<PeerId>,
    nodes: Vec<Node>,
    links: Links<Say>,
    log: Log,
    downs: Vec<Down>,
    messages: u64,
    accusations: u64,
    given_up: u64,
}

impl Cluster {
    pub fn new(machines: usize, seed: u64) -> Self {
        let mut air = Air::new(machines, seed, "streams");
        let mut ids: Vec<PeerId> = (0..machines).map(|_| PeerId(air.dice.bytes())).collect();
        ids.sort();
        let queue = Queue::new();
        let node = |machine: usize| Node {
            members: Membership::new(ids[machine], Tuning::default(), None, now(queue.now_us())),
            dead: false,
            paused: false,
            waiting: Vec::new(),
            armed_ms: None,
            wants: BTreeSet::new(),
            links: BTreeSet::new(),
            shelf: Shelf::new(machines),
            asked_us: Vec::new(),
            life: 1,
        };
        let nodes = (0..machines).map(node).collect();
        let log = Log::new(machines);
        let (links, downs) = (Links::new(), Vec::new());
        let mut cluster = Self { queue, air, ids, nodes, links, log, downs, messages: 0, accusations: 0, given_up: 0 };
        for machine in 0..machines {
            // Real machines do not beat in step.
            let at_us = cluster.queue.now_us() + cluster.air.dice.below(1_000_000);
            cluster.queue.schedule(at_us, Happening::Begin { machine });
            let compare_us = at_us + cluster.air.dice.below(COMPARE_US);
            cluster.queue.schedule(compare_us, Happening::Compare { machine });
        }
        cluster
    }

    fn begin(&mut self, machine: usize) {
        let now = self.now();
        for id in &self.ids {
            let member = Member { id: *id, rack: None, life: 1, restarting_until: None, draining: false };
            self.nodes[machine].members.upsert(now, member);
        }
        self.tick(machine);
    }

    fn now(&self) -> Now {
        now(self.queue.now_us())
    }

    fn at(&self, id: &PeerId) -> usize {
        self.ids.binary_search(id).expect("a member")
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Begin { machine } => self.begin(machine),
            Happening::Wake { machine, due_ms } => self.wake(machine, due_ms),
            Happening::Arrive { machine, event } => self.arrive(machine, event),
            Happening::Resume { machine } => self.resume(machine),
            Happening::Compare { machine } => self.compare(machine),
            Happening::Dial { link } => self.dial(link),
            Happening::Dialed { link, epoch, made } => self.dialed(link, epoch, made),
            Happening::Broken { link, epoch, side, sent_us } => self.broken(link, epoch, side, sent_us),
            Happening::Look { link, epoch, side } => self.look(link, epoch, side),
        }
    }

    fn arrive(&mut self, machine: usize, event: Event) {
        let node = &mut self.nodes[machine];
        if node.dead {
            return;
        }
        if node.paused {
            node.waiting.push(event);
            return;
        }
        if self.is_news(machine, &event) {
            self.take(machine, event);
            self.tick(machine);
        }
    }

    /// What is known already ends before membership hears of it, as it does before the brain.
    fn is_news(&self, machine: usize, event: &Event) -> bool {
        match event {
            Event::Said { say: Say::Frame { owner, seq } | Say::Told { owner, seq }, .. } => {
                *owner != machine && !self.nodes[machine].shelf.has(*owner, *seq)
            }
            _ => true,
        }
    }

    fn take(&mut self, machine: usize, event: Event) {
        let now = self.now();
        match event {
            Event::Said { from, say } => self.hear(machine, from, say),
            Event::Link { with, up } => {
                let id = self.ids[with];
                let node = &mut self.nodes[machine];
                node.members.link(now, &id, up);
                if up {
                    node.links.insert(with);
                    let sum = node.shelf.sum();
                    self.say(machine, with, Say::Compare { sum });
                } else {
                    node.links.remove(&with);
                }
            }
            Event::Durable { seq } => {
                self.nodes[machine].shelf.take(machine, seq);
                self.push(machine, machine, machine, seq);
            }
        }
    }

    fn hear(&mut self, machine: usize, from: usize, say: Say) {
        let now = self.now();
        match say {
            Say::Heartbeat { life } => {
                let id = self.ids[from];
                self.nodes[machine].members.heard(now, &id, life);
            }
            Say::Frame { owner, seq } => {
                self.nodes[machine].shelf.take(owner, seq);
                self.push(machine, from, owner, seq);
                self.read(machine, owner, seq);
                let complete = self.nodes[machine].shelf.complete(owner);
                if complete < seq {
                    self.pull_gap(machine, from, owner, complete);
                }
            }
            Say::Told { owner, seq } => {
                self.nodes[machine].shelf.take(owner, seq);
                self.read_late(machine, owner, seq);
            }
            Say::Compare { sum } => {
                let shelf = &self.nodes[machine].shelf;
                if shelf.sum() != sum {
                    let digest = Say::Digest(Arc::new(shelf.digest()));
                    self.say(machine, from, digest);
                }
            }
            Say::Digest(theirs) => {
                let (lacks, has) = self.nodes[machine].shelf.differences(&theirs);
                if !lacks.is_empty() {
                    self.say(machine, from, Say::Pull(lacks));
                }
                if !has.is_empty() {
                    self.say(machine, from, Say::Records(has));
                }
            }
            Say::Pull(wanted) => {
                let shelf = &self.nodes[machine].shelf;
                let has = wanted.into_iter().map(|(owner, after)| (owner, after, shelf.complete(owner)));
                let has: Vec<_> = has.filter(|(_, after, through)| after < through).collect();
                if !has.is_empty() {
                    self.say(machine, from, Say::Records(has));
                }
            }
            Say::Records(all) => {
                for (owner, after, through) in all.into_iter().filter(|(owner, ..)| *owner != machine) {
                    for seq in after + 1..=through {
                        if self.nodes[machine].shelf.take(owner, seq) {
                            self.read_late(machine, owner, seq);
                        }
                    }
                }
            }
        }
    }

    /// Membership hears of a record, unless a later one of the same key is here already.
    fn read(&mut self, machine: usize, owner: usize, seq: u32) {
        let now = self.now();
        let shelf = &self.nodes[machine].shelf;
        if self.log.is_outdated(owner, seq, |later| shelf.has(owner, later)) {
            return;
        }
        let id = self.ids[owner];
        match self.log.get(owner, seq) {
            Record::Machine { life } => {
                let member = Member { id, rack: None, life, restarting_until: None, draining: false };
                self.nodes[machine].members.upsert(now, member);
            }
            Record::Verdict { subject, life } => {
                let subject = self.ids[subject];
                self.nodes[machine].members.verdict(now, &id, &subject, life);
            }
            Record::Withdrawn { .. } => {}
        }
    }

    /// Reads what came by no frame, and hands it on where it matters to somebody's life.
    fn read_late(&mut self, machine: usize, owner: usize, seq: u32) {
        let members = &self.nodes[machine].members;
        let matters = match self.log.get(owner, seq) {
            Record::Machine { life } => members.is_relief(&self.ids[owner], life),
            Record::Verdict { subject, life } => members.is_charge(&self.ids[subject], life),
            Record::Withdrawn { .. } => false,
        };
        self.read(machine, owner, seq);
        if matters {
            let to: Vec<usize> = self.nodes[machine].links.iter().copied().filter(|to| *to != owner).collect();
            for to in to {
                self.say(machine, to, Say::Told { owner, seq });
            }
        }
    }

    fn pull_gap(&mut self, machine: usize, from: usize, owner: usize, complete: u32) {
        let now_us = self.queue.now_us();
        let asked = &mut self.nodes[machine].asked_us;
        asked.retain(|(_, until_us)| *until_us > now_us);
        if asked.iter().all(|(other, _)| *other != owner) {
            asked.push((owner, now_us + PULL_AGAIN_US));
            self.say(machine, from, Say::Pull(vec![(owner, complete)]));
        }
    }

    /// Writes an own record; it leaves when it is durable.
    fn write(&mut self, machine: usize, record: Record) {
        let seq = self.log.write(machine, record);
        let at_us = self.queue.now_us() + COMMIT_US + self.air.dice.below(COMMIT_US);
        self.queue.schedule(at_us, Happening::Arrive { machine, event: Event::Durable { seq } });
    }

    /// What tells of life and death goes over every link; the rest over little more than a tree.
    fn push(&mut self, machine: usize, from: usize, owner: usize, seq: u32) {
        let most = match self.log.get(owner, seq) {
            Record::Withdrawn { .. } => EAGER,
            Record::Machine { .. } | Record::Verdict { .. } => usize::MAX,
        };
        let to = self.nodes[machine].links.iter().copied().take(most).filter(|to| *to != from && *to != owner);
        for to in to.collect::<Vec<_>>() {
            self.say(machine, to, Say::Frame { owner, seq });
        }
    }

    fn tick(&mut self, machine: usize) {
        let now = self.now();
        for order in self.nodes[machine].members.tick(now) {
            match order {
                Order::Heartbeat { to, life } => {
                    let to = self.at(&to);
                    self.say(machine, to, Say::Heartbeat { life });
                }
                Order::Accuse { subject, life } => {
                    self.accusations += 1;
                    let subject = self.at(&subject);
                    self.write(machine, Record::Verdict { subject, life });
                }
                Order::Withdraw { subject } => {
                    let subject = self.at(&subject);
                    self.write(machine, Record::Withdrawn { subject });
                }
                Order::Refute { life } => {
                    let id = self.ids[machine];
                    let node = &mut self.nodes[machine];
                    node.life = node.life.max(life);
                    let member = Member { id, rack: None, life: node.life, restarting_until: None, draining: false };
                    node.members.upsert(now, member);
                    self.write(machine, Record::Machine { life });
                }
                Order::Links(peers) => {
                    let wants = peers.iter().map(|id| self.at(id)).collect();
                    self.want(machine, wants);
                }
                Order::Changed { peer, state: State::Down } => {
                    let of = self.at(&peer);
                    self.downs.push(Down { at_us: self.queue.now_us(), by: machine, of });
                }
                Order::Changed { .. } | Order::Held(_) | Order::Remember(_) => {}
            }
        }
        let due_ms = self.nodes[machine].members.next_deadline();
        if self.nodes[machine].armed_ms.is_none_or(|armed| due_ms < armed) {
            self.nodes[machine].armed_ms = Some(due_ms);
            self.queue.schedule(due_ms * 1000, Happening::Wake { machine, due_ms });
        }
    }

    fn wake(&mut self, machine: usize, due_ms: u64) {
        let node = &mut self.nodes[machine];
        if !node.dead && !node.paused && node.armed_ms == Some(due_ms) {
            node.armed_ms = None;
            self.tick(machine);
        }
    }

    fn resume(&mut self, machine: usize) {
        if self.nodes[machine].dead {
            return;
        }
        self.nodes[machine].paused = false;
        self.nodes[machine].armed_ms = None;
        // Whether the timer or the socket is read first is chance in a real process, too.
        if self.air.dice.chance(0.5) {
            self.tick(machine);
        }
        for event in std::mem::take(&mut self.nodes[machine].waiting) {
            self.arrive(machine, event);
        }
        self.tick(machine);
    }

    fn compare(&mut self, machine: usize) {
        if self.nodes[machine].dead {
            return;
        }
        let again_us = self.queue.now_us() + COMPARE_US + self.air.dice.below(COMPARE_US / 2);
        self.queue.schedule(again_us, Happening::Compare { machine });
        let members = &self.nodes[machine].members;
        let nth = self.air.dice.below(members.live_count() as u64) as usize;
        let with = members.live().nth(nth).map(|id| self.at(&id));
        if let Some(with) = with.filter(|with| *with != machine && !self.nodes[machine].paused) {
            let sum = self.nodes[machine].shelf.sum();
            self.say(machine, with, Say::Compare { sum });
        }
    }

    /// Sends over the link that stands, or over a connection made for it.
    fn say(&mut self, from: usize, to: usize, say: Say) {
        self.messages += 1;
        let (name, side) = pair(from, to);
        let now_us = self.queue.now_us();
        let stands = self.links.get(&name).is_some_and(|link| link.up);
        let mut setup_us = 0;
        if !stands {
            // A process that is stopped answers no handshake.
            let answers = !self.nodes[to].dead && !self.nodes[to].paused;
            let Some(us) = answers.then(|| handshake_us(&mut self.air, from, to)).flatten() else { return };
            setup_us = us;
        }
        let fate = if self.nodes[to].dead { INTO_THE_VOID } else { fate(&mut self.air, from, to) };
        if let Some(link) = self.links.get_mut(&name).filter(|_| stands) {
            let epoch = link.epoch;
            if !fate.acknowledged {
                let broken = Happening::Broken { link: name, epoch, side, sent_us: now_us };
                self.queue.schedule(now_us + UNACKNOWLEDGED_US, broken);
            }
            if let Some(at_us) = link.send(&mut self.air, side, now_us, fate, say) {
                self.queue.schedule(at_us, Happening::Look { link: name, epoch, side });
            }
        } else if let Some(us) = fate.takes_us {
            let event = Event::Said { from, say };
            self.queue.schedule(now_us + setup_us + us, Happening::Arrive { machine: to, event });
        }
    }

    /// Takes what has arrived of what one side sent.
    fn look(&mut self, name: (usize, usize), epoch: u32, side: usize) {
        let (from, to) = if side == 0 { name } else { (name.1, name.0) };
        let now_us = self.queue.now_us();
        loop {
            let link = self.links.get_mut(&name).filter(|link| link.epoch == epoch && link.up);
            let Some(say) = link.and_then(|link| link.arrived(side, now_us)) else { return };
            self.arrive(to, Event::Said { from, say });
        }
    }

    fn want(&mut self, machine: usize, wants: BTreeSet<usize>) {
        let before = std::mem::replace(&mut self.nodes[machine].wants, wants.clone());
        for other in before.symmetric_difference(&wants).copied() {
            let (name, _) = pair(machine, other);
            if self.links.get(&name).is_some_and(|link| link.up) {
                self.tell(name);
            } else if wants.contains(&other) {
                self.queue.schedule(self.queue.now_us() + 1_000, Happening::Dial { link: name });
            }
        }
    }

    /// Both ends hear whether the link stands; one that does not want it holds it for lost.
    fn tell(&mut self, name: (usize, usize)) {
        let Some(link) = self.links.get_mut(&name) else { return };
        for (side, machine, with) in [(0, name.0, name.1), (1, name.1, name.0)] {
            let up = link.up && self.nodes[machine].wants.contains(&with);
            if std::mem::replace(&mut link.told[side], up) != up {
                let event = Event::Link { with, up };
                self.queue.schedule(self.queue.now_us(), Happening::Arrive { machine, event });
            }
        }
    }

    fn wanted(&self, (one, other): (usize, usize)) -> bool {
        let wants = |by: usize, of: usize| !self.nodes[by].dead && self.nodes[by].wants.contains(&of);
        wants(one, other) || wants(other, one)
    }

    fn dial(&mut self, name: (usize, usize)) {
        let wanted = self.wanted(name);
        let link = self.links.entry(name).or_default();
        if link.up || link.dialing || !wanted {
            return;
        }
        link.dialing = true;
        link.epoch += 1;
        let epoch = link.epoch;
        let answers = |at: usize| !self.nodes[at].dead && !self.nodes[at].paused;
        let made = (answers(name.0) && answers(name.1)).then(|| handshake_us(&mut self.air, name.0, name.1)).flatten();
        let at_us = self.queue.now_us() + made.unwrap_or(HANDSHAKE_US);
        self.queue.schedule(at_us, Happening::Dialed { link: name, epoch, made: made.is_some() });
    }

    fn dialed(&mut self, name: (usize, usize), epoch: u32, made: bool) {
        let made = made && !self.nodes[name.0].dead && !self.nodes[name.1].dead;
        let Some(link) = self.links.get_mut(&name).filter(|link| link.epoch == epoch) else { return };
        if made {
            link.connect();
            self.tell(name);
            return;
        }
        link.dialing = false;
        link.failures += 1;
        let at_us = self.queue.now_us() + backoff_us(&mut self.air, link.failures - 1);
        self.queue.schedule(at_us, Happening::Dial { link: name });
    }

    fn broken(&mut self, name: (usize, usize), epoch: u32, side: usize, sent_us: u64) {
        let Some(link) = self.links.get_mut(&name).filter(|link| link.epoch == epoch && link.up) else { return };
        if link.is_acknowledged(side, sent_us) {
            return;
        }
        link.lose();
        self.given_up += 1;
        self.tell(name);
        let at_us = self.queue.now_us() + backoff_us(&mut self.air, 0);
        self.queue.schedule(at_us, Happening::Dial { link: name });
    }
}

/// A second is a second, and the wall clock shows the same.
fn now(us: u64) -> Now {
    Now { ms: us / 1000, wall: us / 1000 }
}

impl Detector for Cluster {
    fn now_us(&self) -> u64 {
        self.queue.now_us()
    }

    fn run_until(&mut self, until_us: u64) {
        while let Some(what) = self.queue.next(until_us) {
            self.happen(what);
        }
    }

    fn air(&mut self) -> &mut Air {
        &mut self.air
    }

    fn kill(&mut self, machine: usize) {
        self.nodes[machine].dead = true;
    }

    fn pause(&mut self, machine: usize, ms: u64) {
        if !std::mem::replace(&mut self.nodes[machine].paused, true) {
            let at_us = self.queue.now_us() + ms * 1000;
            self.queue.schedule(at_us, Happening::Resume { machine });
        }
    }

    fn holds_down(&self, by: usize, of: usize) -> bool {
        self.nodes[by].members.state(&self.ids[of]) == State::Down
    }

    fn downs(&mut self) -> Vec<Down> {
        std::mem::take(&mut self.downs)
    }

    fn links(&self) -> Option<(usize, f64, usize)> {
        let counts = || self.nodes.iter().filter(|node| !node.dead).map(|node| node.links.len());
        Some((counts().min()?, counts().sum::<usize>() as f64 / counts().count() as f64, counts().max()?))
    }

    fn costs(&self) -> Vec<(&'static str, u64)> {
        vec![("messages", self.messages), ("accusations", self.accusations), ("connections lost", self.given_up)]
    }
}
