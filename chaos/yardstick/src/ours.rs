//! A cluster of ours: the production [`Membership`], driven as the brain drives it.
//!
//! The whole brain at 1,000 peers spends its time on vitals and documents, which detect nothing. So
//! what is around membership is played here after `protocol/src/brain`: a record is written to disk,
//! pushed once over each standing link to whom it is news, and what the push misses comes by
//! comparing with one random member every 10 s and over every link that comes up.

mod connections;
mod records;

use std::collections::BTreeSet;
use std::sync::Arc;

use rialto_protocol::Now;
use rialto_protocol::ids::PeerId;
use rialto_protocol::membership::{Member, Membership, Order, State, Tuning};

use crate::air::Air;
use crate::detector::{Detector, Down};
use crate::news::{Log, Record, Shelf};
use crate::queue::Queue;
use crate::streams::Links;

/// A record is durable after this, µs, and up to as much again.
const COMMIT_US: u64 = 2_000;
/// One random member is compared with after this, and up to half as much again, µs.
const COMPARE_US: u64 = 8_000_000;

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
