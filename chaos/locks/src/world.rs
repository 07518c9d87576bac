//! The world: machines, wires, time. Everything in it follows from the seed.

use std::collections::BTreeMap;

use rialto_locks::consensus::TICK_MS;
use rialto_locks::plant::Plant;
use rialto_locks::voters::{Candidate, Standing};
use rialto_locks::{Config, Input, Output, Replica, Store};
use rialto_sim::Dice;

use crate::clients::{Client, Heard, KEYS, Want};
use crate::disk::Disk;
use crate::faults::{Fault, Only};
use crate::history::Op;
use crate::linear::{self, Verdict};
use crate::lock::Lock;

/// All is well for so long at the beginning, and again at the end, µs.
const CALM: u64 = 6_000_000;
/// News of who lives come so often, µs.
const NEWS_EVERY: u64 = 500_000;
/// A client that has heard nothing for so long asks no more, µs.
const PATIENCE: u64 = 6_000_000;
/// News of this world are quicker than those of peers: voters are to be replaced within its time.
const NEWS_HASTE: u64 = 8;
/// Nobody here makes a group anew.
const EPOCH: u64 = 1;

#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub seed: u64,
    pub nodes: usize,
    pub clients: usize,
    /// For how long things go wrong, seconds.
    pub seconds: u64,
    pub plant: Option<Plant>,
    /// Nothing but this goes wrong.
    pub only: Option<Only>,
}

/// What came of a seed.
#[derive(Debug, Default)]
pub struct Outcome {
    pub broken: Vec<String>,
    /// Acts on keys, grants of the lock, and changes of leaders.
    pub acts: usize,
    pub grants: u64,
    pub terms: u64,
    /// The most voters there were.
    pub voters: usize,
    /// Keys whose history was too long to search.
    pub undecided: usize,
}

struct Machine {
    replica: Option<Replica>,
    disk: Disk,
    /// Its clock's rate, in millionths.
    rate: u64,
    /// How often it was started.
    starts: u64,
    paused_until: u64,
    slow_until: u64,
    since: u64,
    departed: bool,
    /// The entry after which its state was last compared.
    compared: u64,
}

enum Event {
    Tick { node: usize, start: u64 },
    Deliver { to: usize, from: u64, bytes: Vec<u8> },
    Synced { node: usize, start: u64 },
    Ask { client: usize },
    GiveUp { client: usize, question: u64 },
    Strike,
    Blackout { side: Vec<bool>, back: u64 },
    Start { node: usize },
    News,
}

pub struct World {
    settings: Settings,
    now: u64,
    events: BTreeMap<(u64, u64), Event>,
    last_event: u64,
    machines: Vec<Machine>,
    clients: Vec<Client>,
    /// The question of each client, and the machine that was asked.
    questions: BTreeMap<u64, (usize, usize)>,
    last_question: u64,
    /// Wires that are cut, until when.
    cuts: BTreeMap<(usize, usize), u64>,
    lossy: (u64, u64),
    wires: Dice,
    fate: Dice,
    histories: Vec<Vec<Op>>,
    lock: Lock,
    /// What the state was after so many entries.
    states: BTreeMap<u64, (usize, Vec<u8>)>,
    outcome: Outcome,
    served_at_end: Vec<bool>,
}

/// Runs one seed.
pub fn run(settings: Settings) -> Outcome {
    let mut world = World::new(settings);
    let end = 2 * CALM + settings.seconds * 1_000_000;
    while let Some(((at, _), event)) = world.events.pop_first() {
        if at > end || !world.outcome.broken.is_empty() {
            break;
        }
        world.now = at;
        world.happen(event, end);
    }
    world.finish()
}

impl World {
    fn new(settings: Settings) -> Self {
        let mut fate = Dice::new(settings.seed, "faults");
        let machine = |_| Machine {
            replica: None,
            disk: Disk::default(),
            rate: 990_000 + fate.below(20_001),
            starts: 0,
            paused_until: 0,
            slow_until: 0,
            since: 0,
            departed: false,
            compared: 0,
        };
        let machines = (0..settings.nodes).map(machine).collect();
        let mut world = Self {
            settings,
            now: 0,
            events: BTreeMap::new(),
            last_event: 0,
            machines,
            clients: (0..settings.clients).map(|at| Client::new(at, settings.seed)).collect(),
            questions: BTreeMap::new(),
            last_question: 0,
            cuts: BTreeMap::new(),
            lossy: (0, 0),
            wires: Dice::new(settings.seed, "wires"),
            fate,
            histories: vec![Vec::new(); KEYS],
            lock: Lock::default(),
            states: BTreeMap::new(),
            outcome: Outcome::default(),
            served_at_end: vec![false; settings.clients],
        };
        world.machines[0].disk.safe = Replica::founding(1, &Store::default());
        for node in 0..settings.nodes {
            world.at(node as u64 * 300_000, Event::Start { node });
        }
        for client in 0..settings.clients {
            world.at(1_000_000 + client as u64 * 10_000, Event::Ask { client });
        }
        world.at(CALM, Event::Strike);
        world.at(0, Event::News);
        world
    }

    fn at(&mut self, time: u64, event: Event) {
        self.last_event += 1;
        self.events.insert((time, self.last_event), event);
    }

    fn happen(&mut self, event: Event, end: u64) {
        match event {
            Event::Tick { node, start } => {
                if !self.is_alive(node, start) {
                    return;
                }
                let step = TICK_MS * 1_000 * 1_000_000 / self.machines[node].rate;
                // A machine that stands still misses its ticks.
                if self.machines[node].paused_until > self.now {
                    let until = self.machines[node].paused_until;
                    return self.at(until, Event::Tick { node, start });
                }
                self.at(self.now + step, Event::Tick { node, start });
                self.input(node, Input::Tick);
            }
            Event::Deliver { to, from, bytes } => {
                let paused_until = self.machines[to].paused_until;
                if paused_until > self.now {
                    return self.at(paused_until, Event::Deliver { to, from, bytes });
                }
                self.input(to, Input::Parcel { from, bytes });
            }
            Event::Synced { node, start } => {
                if !self.is_alive(node, start) {
                    return;
                }
                let (number, goes_on) = self.machines[node].disk.sync();
                if goes_on {
                    self.begin_to_write(node);
                }
                self.input(node, Input::Persisted { epoch: EPOCH, number });
            }
            Event::Ask { client } => self.ask(client, end),
            Event::GiveUp { client, question } => {
                if self.questions.remove(&question).is_some() {
                    let heard = self.clients[client].give_up();
                    self.heard(client, heard);
                }
            }
            Event::Strike => self.strike(end),
            Event::Blackout { side, back } => {
                for node in (0..side.len()).filter(|node| side[*node]) {
                    self.crash(node);
                    self.at(back, Event::Start { node });
                }
            }
            Event::Start { node } => self.start(node),
            Event::News => self.news(),
        }
    }

    fn is_alive(&self, node: usize, start: u64) -> bool {
        self.machines[node].replica.is_some() && self.machines[node].starts == start
    }

    fn local_ms(&self, node: usize) -> u64 {
        self.now * self.machines[node].rate / 1_000_000 / 1_000
    }

    fn start(&mut self, node: usize) {
        let now = self.now;
        let machine = &mut self.machines[node];
        if machine.replica.is_some() {
            return;
        }
        machine.starts += 1;
        machine.since = now;
        let seed = self.settings.seed.wrapping_mul(1_000).wrapping_add(node as u64 * 100 + machine.starts);
        let config = Config { node: node as u64 + 1, epoch: EPOCH, seed };
        match Replica::restore(config, &machine.disk.safe) {
            Ok(mut replica) => {
                if let Some(plant) = self.settings.plant {
                    replica.plant(plant);
                }
                machine.replica = Some(replica);
                let start = machine.starts;
                self.at(now, Event::Tick { node, start });
            }
            Err(damaged) => self.broken(format!("machine {node} cannot start: {damaged}")),
        }
    }

    fn input(&mut self, node: usize, input: Input) {
        let now_ms = self.local_ms(node);
        let Some(replica) = &mut self.machines[node].replica else { return };
        replica.handle(now_ms, input);
        for output in replica.flush(now_ms) {
            self.output(node, output);
        }
        self.look_at(node);
    }

    fn output(&mut self, node: usize, output: Output) {
        match output {
            Output::Send { to, bytes } => self.send(node, to, bytes),
            Output::Write(writes) => {
                if self.machines[node].disk.take(writes) {
                    self.begin_to_write(node);
                }
            }
            Output::Replace { .. } => self.broken(format!("machine {node} began anew, and nobody had asked for it")),
            Output::Answer { ticket, answer } => {
                if let Some((client, _)) = self.questions.remove(&ticket) {
                    let now = self.now;
                    let served = answer.is_ok();
                    let heard = self.clients[client].hear(now, answer, &mut self.lock);
                    self.served_at_end[client] |= served;
                    self.heard(client, heard);
                }
            }
        }
    }

    fn begin_to_write(&mut self, node: usize) {
        let is_slow = self.machines[node].slow_until > self.now;
        let takes = if is_slow { self.wires.between(5_000, 300_000) } else { self.wires.between(50, 3_000) };
        let start = self.machines[node].starts;
        self.at(self.now + takes, Event::Synced { node, start });
    }

    fn heard(&mut self, client: usize, heard: Heard) {
        if let Some((key, op)) = heard.op {
            self.histories[key].push(op);
        }
        if let Some(broken) = heard.broken {
            self.broken(broken);
        }
        let pause = self.clients[client].pause();
        self.at(self.now + pause, Event::Ask { client });
    }

    fn send(&mut self, from: usize, to: u64, bytes: Vec<u8>) {
        let to = to as usize - 1;
        let (percent, until) = self.lossy;
        let is_cut = self.cuts.get(&(from, to)).is_some_and(|until| *until > self.now);
        let is_lost = until > self.now && self.wires.below(100) < percent;
        let takes = self.wires.between(100, 2_000) + if self.wires.chance(0.02) { 20_000 } else { 0 };
        if to < self.machines.len() && !is_cut && !is_lost {
            self.at(self.now + takes, Event::Deliver { to, from: from as u64 + 1, bytes });
        }
    }

    fn ask(&mut self, client: usize, end: u64) {
        if self.clients[client].has_asked() {
            return;
        }
        if self.now + CALM / 2 < end {
            self.served_at_end[client] = false;
        }
        self.last_question += 1;
        let (now, question) = (self.now, self.last_question);
        let wanted = self.clients[client].next(now, question, &mut self.lock);
        let nodes = self.machines.len();
        let node = self.clients[client].choose(nodes);
        let Some(want) = wanted else {
            let pause = self.clients[client].pause();
            return self.at(now + pause, Event::Ask { client });
        };
        self.questions.insert(question, (client, node));
        self.at(now + PATIENCE, Event::GiveUp { client, question });
        let ticket = question;
        let machine = &self.machines[node];
        // Peers that do not vote bring their clients to one that does.
        let votes = machine.replica.as_ref().is_some_and(|replica| replica.group().voters.contains(&(node as u64 + 1)));
        if !votes || machine.paused_until > now {
            self.questions.remove(&question);
            self.clients[client].not_put(!votes);
            return self.heard(client, Heard::default());
        }
        match want {
            Want::Ask(ask) => self.input(node, Input::Ask { ticket, ask }),
            Want::Read(range) => self.input(node, Input::Read { ticket, range }),
        }
    }

    fn strike(&mut self, end: u64) {
        if self.now + CALM >= end {
            return self.heal();
        }
        // Of those who believe to lead, the one that does.
        let term = |machine: &Machine| {
            let group = machine.replica.as_ref().map(|replica| replica.group())?;
            (group.is_leader && machine.paused_until <= self.now).then_some(group.term)
        };
        let leaders = self.machines.iter().enumerate().filter_map(|(at, machine)| Some((term(machine)?, at)));
        let leader = leaders.max().map(|(_, at)| at);
        let fault = Fault::draw(&mut self.fate, self.machines.len(), leader, self.settings.only);
        let limit = end - CALM;
        let until = |for_ms: u64| (self.now + for_ms * 1_000).min(limit);
        match fault {
            Fault::Crash { node, for_ms } => {
                let back = until(for_ms);
                self.crash(node);
                self.at(back, Event::Start { node });
            }
            Fault::Pause { node, for_ms } => self.machines[node].paused_until = until(for_ms),
            Fault::Part { side, for_ms } => self.part(&side, until(for_ms)),
            Fault::Stray { node, for_ms, cut_ms } => {
                self.machines[node].paused_until = until(for_ms);
                let side: Vec<bool> = (0..self.machines.len()).map(|at| at == node).collect();
                self.part(&side, until(for_ms + cut_ms));
            }
            Fault::Blackout { side, after_ms, for_ms } => {
                let (dark, back) = (until(after_ms), until(after_ms + for_ms));
                for node in (0..side.len()).filter(|node| side[*node]) {
                    self.machines[node].slow_until = dark;
                }
                self.at(dark, Event::Blackout { side, back });
            }
            Fault::OneWay { from, to, for_ms } => drop(self.cuts.insert((from, to), until(for_ms))),
            Fault::Lose { percent, for_ms } => self.lossy = (percent, until(for_ms)),
            Fault::SlowDisk { node, for_ms } => self.machines[node].slow_until = until(for_ms),
            Fault::Depart { node } => {
                // Four at least stay, and those who go do so one by one.
                let staying = self.machines.iter().filter(|machine| !machine.departed).count();
                if staying > 4 && self.now > 3 * CALM {
                    self.machines[node].departed = true;
                }
            }
        }
        let next = self.fate.exponential(1_500_000);
        self.at(self.now + 50_000 + next, Event::Strike);
    }

    /// Cuts all wires between one side and the other.
    fn part(&mut self, side: &[bool], until: u64) {
        for from in 0..side.len() {
            for to in (0..side.len()).filter(|to| side[*to] != side[from]) {
                self.cuts.insert((from, to), until);
            }
        }
    }

    fn crash(&mut self, node: usize) {
        let machine = &mut self.machines[node];
        machine.replica = None;
        machine.disk.crash();
        machine.since = self.now;
        let orphans: Vec<u64> =
            self.questions.iter().filter(|(_, (_, at))| *at == node).map(|(question, _)| *question).collect();
        for question in orphans {
            if let Some((client, _)) = self.questions.remove(&question) {
                let heard = self.clients[client].give_up();
                self.heard(client, heard);
            }
        }
    }

    fn heal(&mut self) {
        self.cuts.clear();
        self.lossy = (0, 0);
        for node in 0..self.machines.len() {
            self.machines[node].paused_until = 0;
            self.at(self.now, Event::Start { node });
        }
    }

    fn news(&mut self) {
        let now = self.now;
        let candidate = |(node, machine): (usize, &Machine)| {
            let for_ms = (now - machine.since) / 1_000 * NEWS_HASTE;
            let standing = match &machine.replica {
                _ if machine.departed => Standing::Departed,
                Some(_) if machine.paused_until <= now => Standing::Alive(for_ms),
                _ => Standing::Down(for_ms),
            };
            Candidate { node: node as u64 + 1, standing, since_ms: node as u64, rack: None }
        };
        let candidates: Vec<Candidate> = self.machines.iter().enumerate().map(candidate).collect();
        for node in 0..self.machines.len() {
            if self.machines[node].paused_until <= now {
                self.input(node, Input::Candidates(candidates.clone()));
            }
        }
        self.at(now + NEWS_EVERY, Event::News);
    }

    /// Replicas that have applied as much must hold the same.
    fn look_at(&mut self, node: usize) {
        let Some(replica) = &self.machines[node].replica else { return };
        if replica.is_damaged() {
            return self.broken(format!("machine {node} was sent a state that it cannot read"));
        }
        let group = replica.group();
        self.outcome.terms = self.outcome.terms.max(group.term);
        self.outcome.voters = self.outcome.voters.max(group.voters.len());
        // Every so many entries is enough: what has gone apart stays apart.
        if group.applied == self.machines[node].compared || group.applied % 16 != 0 {
            return;
        }
        let state = replica.store().encode();
        self.machines[node].compared = group.applied;
        let (other, known) = self.states.entry(group.applied).or_insert_with(|| (node, state.clone()));
        if *known != state {
            let told = format!("after {} entries machines {other} and {node} hold different states", group.applied);
            self.broken(told);
        }
    }

    fn broken(&mut self, what: String) {
        self.outcome.broken.push(what);
    }

    fn finish(mut self) -> Outcome {
        for client in 0..self.clients.len() {
            let heard = self.clients[client].give_up();
            if let Some((key, op)) = heard.op {
                self.histories[key].push(op);
            }
        }
        if self.outcome.broken.is_empty() {
            for (client, served) in self.served_at_end.clone().into_iter().enumerate() {
                if !served {
                    let stand = |machine: &Machine| machine.replica.as_ref().map(Replica::group);
                    let groups: Vec<_> = self.machines.iter().map(stand).collect();
                    self.broken(format!(
                        "client {client} was served no more at the end, when all was well: {groups:?}"
                    ));
                }
            }
        }
        for (key, history) in std::mem::take(&mut self.histories).iter().enumerate() {
            self.outcome.acts += history.len();
            match linear::check(history) {
                Verdict::Linearizable => {}
                Verdict::Undecided => self.outcome.undecided += 1,
                Verdict::Violated => self.broken(format!("what key {key} was seen to be is not linearizable")),
            }
        }
        self.outcome.grants = self.lock.grants;
        self.outcome
    }
}
