//! Some memberships and a virtual wire: links that take a moment to come up, heartbeats, and records
//! that are flooded over links and exchanged when one comes up. What is lost is lost.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{Loss, Member, Membership, Order, State, Tuning};
use crate::event::Now;
use crate::ids::{PeerId, rendezvous};

/// How long a step is, ms.
const STEP: u64 = 10;
/// A link over which nothing comes is lost after so long, ms.
const LINK_TIMEOUT: u64 = 3000;
const WALL: u64 = 1_700_000_000_000;

#[derive(Clone, Debug)]
enum Message {
    Heartbeat(u64),
    Machine(u64, Member),
    Verdict(PeerId, PeerId, u64),
}

pub struct Node {
    pub brain: Membership,
    pub machines: BTreeMap<PeerId, (u64, Member)>,
    verdicts: BTreeMap<(PeerId, PeerId), u64>,
    wanted: BTreeSet<usize>,
    remembered: Option<Vec<u8>>,
    paused_until: u64,
    inbox: Vec<(usize, Message)>,
    /// Who was held for down, and when.
    pub downs: Vec<(u64, usize)>,
    pub accused: usize,
    pub life_asked: u64,
}

pub struct World {
    pub now: u64,
    pub ids: Vec<PeerId>,
    pub nodes: Vec<Option<Node>>,
    disks: Vec<Option<Node>>,
    pub tuning: Tuning,
    cut: BTreeSet<(usize, usize)>,
    /// Links that are up, with the time at which they were last whole.
    up: BTreeMap<(usize, usize), u64>,
    /// Who was told that its link with whom is up: only those who want it.
    told: BTreeSet<(usize, usize)>,
    flying: BTreeMap<u64, Vec<(usize, usize, Message)>>,
    dice: u64,
}

impl World {
    /// Identities are in the order of the numbers.
    pub fn new(count: usize, seed: u64, tuning: Tuning) -> Self {
        let mut world = Self {
            now: 1000,
            ids: Vec::new(),
            nodes: Vec::new(),
            disks: Vec::new(),
            tuning,
            cut: BTreeSet::new(),
            up: BTreeMap::new(),
            told: BTreeSet::new(),
            flying: BTreeMap::new(),
            dice: seed,
        };
        let mut ids: Vec<PeerId> =
            (0..count).map(|_| PeerId(std::array::from_fn(|_| world.throw(256) as u8))).collect();
        ids.sort();
        world.ids = ids;
        for n in 0..count {
            let machine = |id: &PeerId| {
                (*id, (1, Member { id: *id, rack: None, life: 1, restarting_until: None, draining: false }))
            };
            let node = Node {
                brain: Membership::new(world.ids[n], tuning, None, world.time()),
                machines: world.ids.iter().map(machine).collect(),
                verdicts: BTreeMap::new(),
                wanted: BTreeSet::new(),
                remembered: None,
                paused_until: 0,
                inbox: Vec::new(),
                downs: Vec::new(),
                accused: 0,
                life_asked: 0,
            };
            world.nodes.push(None);
            world.disks.push(Some(node));
            world.start(n);
        }
        world
    }

    pub fn throw(&mut self, sides: u64) -> u64 {
        self.dice = rendezvous(self.dice, 0xd1ce);
        self.dice % sides
    }

    pub fn time(&self) -> Now {
        Now { ms: self.now, wall: WALL + self.now }
    }

    pub fn kill(&mut self, n: usize) {
        self.disks[n] = self.nodes[n].take();
    }

    /// Starts a peer with what is on its disk.
    pub fn start(&mut self, n: usize) {
        let mut node = self.disks[n].take().expect("it is not running");
        let now = self.time();
        let mut brain = Membership::new(self.ids[n], self.tuning, node.remembered.as_deref(), now);
        for (_, member) in node.machines.values() {
            brain.upsert(now, member.clone());
        }
        for ((observer, subject), life) in &node.verdicts {
            brain.verdict(now, observer, subject, *life);
        }
        (node.brain, node.inbox, node.wanted) = (brain, Vec::new(), BTreeSet::new());
        self.nodes[n] = Some(node);
        self.tick(n);
        let stale: Vec<(usize, usize)> = self.up.keys().copied().filter(|(a, b)| *a == n || *b == n).collect();
        for pair in stale {
            self.drop_link(pair);
        }
    }

    pub fn pause(&mut self, n: usize, ms: u64) {
        self.nodes[n].as_mut().unwrap().paused_until = self.now + ms;
    }

    pub fn cut(&mut self, one: usize, other: usize) {
        self.cut.insert((one.min(other), one.max(other)));
    }

    pub fn split(&mut self, side: &[usize]) {
        for one in side {
            for other in (0..self.ids.len()).filter(|n| !side.contains(n)) {
                self.cut(*one, other);
            }
        }
    }

    pub fn heal(&mut self) {
        for pair in std::mem::take(&mut self.cut) {
            self.drop_link(pair);
        }
    }

    /// A peer rewrites its own machine record.
    pub fn announce(&mut self, n: usize, change: impl FnOnce(&mut Member)) {
        let id = self.ids[n];
        let (version, mut member) = self.nodes[n].as_ref().unwrap().machines[&id].clone();
        change(&mut member);
        self.learn(n, n, Message::Machine(version + 1, member));
        self.tick(n);
    }

    pub fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.step();
        }
    }

    /// Runs until it holds, and tells how long that took; at most `ms`.
    pub fn run_until(&mut self, ms: u64, holds: impl Fn(&World) -> bool) -> u64 {
        let begin = self.now;
        while !holds(self) {
            assert!(self.now < begin + ms, "not within {ms} ms: {}", self.picture());
            self.step();
        }
        self.now - begin
    }

    pub fn state(&self, by: usize, of: usize) -> State {
        self.brain(by).state(&self.ids[of])
    }

    pub fn brain(&self, n: usize) -> &Membership {
        &self.nodes[n].as_ref().expect("it runs").brain
    }

    pub fn loss(&self, by: usize, of: usize) -> Loss {
        self.brain(by).loss(self.time(), &self.ids[of], 2000)
    }

    pub fn running(&self) -> Vec<usize> {
        (0..self.ids.len()).filter(|n| self.nodes[*n].is_some()).collect()
    }

    /// Whether all that run hold exactly those for live that run.
    pub fn agreed(&self) -> bool {
        let live: Vec<PeerId> = self.running().into_iter().map(|n| self.ids[n]).collect();
        self.running().into_iter().all(|n| self.brain(n).live().eq(live.iter().copied()))
    }

    pub fn all_alive(&self) -> bool {
        self.running().into_iter().all(|n| (0..self.ids.len()).all(|of| self.state(n, of) == State::Alive))
    }

    fn picture(&self) -> String {
        let row = |n: usize| (0..self.ids.len()).map(move |of| format!("{:?}", self.state(n, of))).collect::<Vec<_>>();
        self.running().into_iter().take(9).map(|n| format!("\n{n}: {:?}", row(n))).collect()
    }

    fn step(&mut self) {
        self.now += STEP;
        if self.now.is_multiple_of(100) {
            self.manage_links();
        }
        if self.now.is_multiple_of(10_000) {
            let links: Vec<(usize, usize)> = self.up.keys().copied().collect();
            let turn = self.now as usize / 10_000;
            for (one, other) in links.into_iter().filter(|pair| (pair.0 + pair.1 + turn).is_multiple_of(3)) {
                self.exchange(one, other);
            }
        }
        while let Some(entry) = self.flying.first_entry().filter(|entry| *entry.key() <= self.now) {
            for (from, to, message) in entry.remove() {
                if let Some(node) = self.nodes[to].as_mut() {
                    node.inbox.push((from, message));
                }
            }
        }
        for n in 0..self.ids.len() {
            let Some(node) = self.nodes[n].as_mut().filter(|node| node.paused_until <= self.now) else { continue };
            let inbox = std::mem::take(&mut node.inbox);
            if inbox.is_empty() && node.brain.next_deadline() > self.now {
                continue;
            }
            // Woken by its timer first, the worst order for one that was paused.
            self.tick(n);
            for (from, message) in inbox {
                self.learn(n, from, message);
                self.tick(n);
            }
            let next = self.brain(n).next_deadline();
            assert!(next > self.now, "a deadline that has passed is one that never rests");
        }
    }

    fn manage_links(&mut self) {
        let count = self.ids.len();
        let wants = |world: &Self, n: usize, of: usize| world.nodes[n].as_ref().is_some_and(|x| x.wanted.contains(&of));
        for one in 0..count {
            for other in one + 1..count {
                let pair = (one, other);
                let whole = self.nodes[one].is_some() && self.nodes[other].is_some() && !self.cut.contains(&pair);
                let wanted = wants(self, one, other) || wants(self, other, one);
                if let Some(last_whole) = self.up.get_mut(&pair) {
                    if whole {
                        *last_whole = self.now;
                    }
                    if !wanted || *last_whole + LINK_TIMEOUT < self.now {
                        self.drop_link(pair);
                    }
                } else if whole && wanted && self.throw(3) == 0 {
                    self.up.insert(pair, self.now);
                }
                for (n, of) in [pair, (other, one)] {
                    if self.up.contains_key(&pair) {
                        let wants = wants(self, n, of);
                        self.tell(n, of, wants);
                    }
                }
            }
        }
    }

    fn drop_link(&mut self, pair: (usize, usize)) {
        if self.up.remove(&pair).is_some() {
            self.tell(pair.0, pair.1, false);
            self.tell(pair.1, pair.0, false);
        }
    }

    fn tell(&mut self, n: usize, of: usize, up: bool) {
        let news = if up { self.told.insert((n, of)) } else { self.told.remove(&(n, of)) };
        let (now, id) = (self.time(), self.ids[of]);
        if news && let Some(node) = self.nodes[n].as_mut() {
            node.brain.link(now, &id, up);
            self.tick(n);
            if up {
                self.exchange(n, of);
            }
        }
    }

    /// Each sends the other all it has.
    fn exchange(&mut self, one: usize, other: usize) {
        for (from, to) in [(one, other), (other, one)] {
            let Some(node) = self.nodes[from].as_ref() else { continue };
            let machines = node.machines.values().map(|(version, member)| Message::Machine(*version, member.clone()));
            let verdicts = node.verdicts.iter().map(|((o, s), life)| Message::Verdict(*o, *s, *life));
            let all: Vec<Message> = machines.chain(verdicts).collect();
            for message in all {
                self.send(from, to, message);
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        let pair = (from.min(to), from.max(to));
        if self.up.contains_key(&pair) && !self.cut.contains(&pair) && self.nodes[to].is_some() {
            let at = self.now + 2 + self.throw(40);
            self.flying.entry(at).or_default().push((from, to, message));
        }
    }

    fn flood(&mut self, n: usize, except: usize, message: &Message) {
        let links: Vec<usize> = self.told.range((n, 0)..(n + 1, 0)).map(|(_, to)| *to).collect();
        for to in links.into_iter().filter(|to| *to != except) {
            self.send(n, to, message.clone());
        }
    }

    fn learn(&mut self, n: usize, from: usize, message: Message) {
        let (now, from_id) = (self.time(), self.ids[from]);
        let node = self.nodes[n].as_mut().unwrap();
        match &message {
            Message::Heartbeat(life) => return node.brain.heard(now, &from_id, *life),
            Message::Machine(version, member) => {
                if node.machines.get(&member.id).is_some_and(|(held, _)| held >= version) {
                    return;
                }
                node.machines.insert(member.id, (*version, member.clone()));
                node.brain.upsert(now, member.clone());
            }
            Message::Verdict(observer, subject, life) => {
                if node.verdicts.get(&(*observer, *subject)).is_some_and(|held| held >= life) {
                    return;
                }
                node.verdicts.insert((*observer, *subject), *life);
                node.brain.verdict(now, observer, subject, *life);
            }
        }
        self.flood(n, from, &message);
    }

    fn tick(&mut self, n: usize) {
        let now = self.time();
        let at = |world: &Self, id: &PeerId| world.ids.binary_search(id).expect("a member");
        let node = self.nodes[n].as_mut().unwrap();
        if node.paused_until > self.now {
            return;
        }
        for order in node.brain.tick(now) {
            match order {
                Order::Heartbeat { to, life } => self.send(n, at(self, &to), Message::Heartbeat(life)),
                Order::Accuse { subject, life } => {
                    self.nodes[n].as_mut().unwrap().accused += 1;
                    self.learn(n, n, Message::Verdict(self.ids[n], subject, life));
                }
                Order::Withdraw { subject } => {
                    let id = self.ids[n];
                    assert!(self.nodes[n].as_mut().unwrap().verdicts.remove(&(id, subject)).is_some(), "it stood");
                }
                Order::Refute { life } => {
                    self.nodes[n].as_mut().unwrap().life_asked = life;
                    self.announce(n, |member| member.life = member.life.max(life));
                }
                Order::Links(peers) => {
                    let wanted = peers.iter().map(|id| at(self, id)).collect();
                    self.nodes[n].as_mut().unwrap().wanted = wanted;
                }
                Order::Changed { peer, state } => {
                    let subject = at(self, &peer);
                    if state == State::Down {
                        self.nodes[n].as_mut().unwrap().downs.push((self.now, subject));
                    }
                }
                Order::Held(_) => {}
                Order::Remember(bytes) => self.nodes[n].as_mut().unwrap().remembered = Some(bytes),
            }
        }
    }
}
