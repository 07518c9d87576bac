//! A member that means ill. It has a key and an admission, and says what it likes: claims for tasks
//! that nobody gave it, lies about itself, what does not read, what it has not signed, far too much.
//!
//! What it says of itself nobody can check. But no promise among the honest may break of it, and
//! when an administrator has expelled it all must come right.

use std::sync::Arc;

use rialto_protocol::ids::{AppId, BidId, ClaimId, ClusterId, PeerId, TaskId};
use rialto_protocol::ledger::ChangeValue;
use rialto_protocol::ledger::readings::{Admission, Departure, Verdict as Accusation};
use rialto_protocol::ledger::record::{
    Draft, Frame, Kind, Record, RecordKey, SCHEMA, Signature, Stored, VALUE_BYTES_MAX,
};
use rialto_protocol::market::wire::{Award, Bid, Solicit, Verdict};
use rialto_protocol::model::machine::{Executor, Machine as Description};
use rialto_protocol::model::{Claim, ClaimState, Resources, Vitals};
use rialto_protocol::wire::{Message, Records, SignedVitals, Stand, StopReason, encode, vitals_to_sign};

use crate::dice::Dice;
use crate::machine::Machine;
use crate::world::{Happening, World};

/// It does something this often on average, µs.
const PAUSE_US: u64 = 400_000;
/// So much at once is too much.
const FLOOD: u64 = 100;

/// What a hostile machine remembers.
#[derive(Clone, Debug)]
pub struct Hostile {
    me: PeerId,
    /// The number of its last record.
    last: u64,
    counter: u64,
    beat_us: u64,
    dice: Dice,
}

impl Hostile {
    /// A machine that has written so far and turns now.
    pub fn new(me: PeerId, last: u64, seed: u64) -> Self {
        Self { me, last, counter: 0, beat_us: 0, dice: Dice::new(seed, "hostile") }
    }
}

impl World {
    /// One trick, and the next in a while.
    pub(super) fn mischief(&mut self, machine: usize) {
        let Some(mut hostile) = self.machines[machine].hostile.take() else { return };
        self.trick(machine, &mut hostile);
        let next = self.now_us + 1_000 + hostile.dice.exponential(PAUSE_US);
        self.machines[machine].hostile = Some(hostile);
        self.schedule(next, Happening::Mischief { machine });
    }

    fn trick(&mut self, machine: usize, hostile: &mut Hostile) {
        let me = self.machines[machine].id;
        let others: Vec<usize> = (0..self.machines.len()).filter(|at| *at != machine).collect();
        // It would be given up were it silent.
        if hostile.beat_us + 900_000 <= self.now_us {
            hostile.beat_us = self.now_us;
            for to in &others {
                self.whisper(machine, *to, Message::Heartbeat { life: hostile.counter, clock: Default::default() });
            }
        }
        let Some(to) = hostile.dice.pick(&others).copied() else { return };
        let victim = self.machines[to].id;
        let messages = match hostile.dice.below(13) {
            0 => {
                let accusation = encode(&Accusation { subject: victim, life: 1 });
                vec![self.forged(hostile, victim, Kind::VERDICT, "x", accusation)]
            }
            1 => self.boast(hostile, me),
            2 => self.usurp(hostile, me, machine),
            3 => self.gibberish(hostile, me),
            4 => vec![self.lying_vitals(hostile, me)],
            5 => {
                let life = if hostile.dice.chance(0.5) { u64::MAX } else { hostile.dice.below(5) };
                let value = encode(&Accusation { subject: victim, life });
                vec![self.own(hostile, me, Kind::VERDICT, &victim.hex(), Some(value))]
            }
            6 => self.bad_changes(hostile, me, machine),
            7 => {
                let mut number = || hostile.dice.number() >> 8;
                let mut stand = || Stand { complete: number(), loose: number(), held: number() };
                let owners = self.machines.iter().map(|one| (one.id, stand())).collect();
                vec![Message::Digest { of: 1, ranges: vec![0], owners }]
            }
            8 => self.half_the_truth(hostile, machine, to),
            9 => self.orders(hostile, to),
            10 => vec![self.forged_admission(hostile, victim)],
            11 => vec![self.forged_departure(hostile, &others)],
            _ => self.too_much(hostile, me),
        };
        for message in messages {
            self.whisper(machine, to, message);
        }
    }

    /// What a hostile machine does about what it is told.
    pub(super) fn hostile_hears(&mut self, machine: usize, from: usize, message: &Message) {
        let Some(mut hostile) = self.machines[machine].hostile.take() else { return };
        let answer = match message {
            Message::Solicit(solicit) => Some(tempting(&mut hostile, solicit)),
            Message::Award(award) => self.broken_word(&mut hostile, machine, award),
            _ => None,
        };
        self.machines[machine].hostile = Some(hostile);
        if let Some(answer) = answer {
            self.whisper(machine, from, answer);
        }
    }

    /// It is awarded work: it says that it has taken it, and says so of another task, too; or nothing.
    fn broken_word(&mut self, hostile: &mut Hostile, machine: usize, award: &Arc<Award>) -> Option<Message> {
        for slot in &award.slots {
            let task = TaskId { app: award.app.clone(), service: award.service.clone(), slot: slot.slot.clone() };
            self.promises.forged.insert(task);
        }
        let _ = machine;
        let claims = award.slots.iter().map(|slot| (slot.slot.clone(), ClaimId(hostile.dice.bytes()))).collect();
        let answer = Verdict { auction: award.auction, bid: award.bid, answer: Ok(claims) };
        hostile.dice.chance(0.5).then_some(Message::Verdict(answer))
    }

    /// Sends past every rule of an honest driver.
    fn whisper(&mut self, from: usize, to: usize, message: Message) {
        if !self.machines[to].is_up() || !self.network.open_both(from, to) {
            return;
        }
        let process = self.machines[to].process;
        if let [Some(at_us), _] = self.network.fate(self.now_us, from, to, false) {
            self.schedule(at_us, Happening::Deliver { from, to, process, message });
        }
    }

    /// A record of its own, signed as it should be.
    fn own(&mut self, hostile: &mut Hostile, me: PeerId, kind: Kind, id: &str, value: Option<Vec<u8>>) -> Message {
        let records = vec![record(me, hostile.last + 1, kind, id, value)];
        Message::Frame(Arc::new(self.framed(hostile, me, records)))
    }

    fn framed(&mut self, hostile: &mut Hostile, me: PeerId, records: Vec<Arc<Record>>) -> Frame {
        let draft = Draft { owner: me, prev: hostile.last, records };
        hostile.last += draft.records.len() as u64;
        let signature = self.signer.sign(&me, &draft.to_sign());
        self.promises.owners.vouch(&signature);
        draft.seal(signature).0
    }

    /// A record in the name of another, under a signature of its own making.
    fn forged(&self, hostile: &mut Hostile, victim: PeerId, kind: Kind, id: &str, value: Vec<u8>) -> Message {
        let prev = self.promises.owners.last(&victim) + hostile.dice.below(3);
        let draft = Draft { owner: victim, prev, records: vec![record(victim, prev + 1, kind, id, Some(value))] };
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&hostile.dice.bytes::<32>());
        let (frame, stored) = draft.seal(Signature(bytes));
        if hostile.dice.chance(0.3) { Message::Told(stored) } else { Message::Frame(Arc::new(frame)) }
    }

    /// Somebody who does not exist is let in: by another, by the hostile peer itself (as every member may, so that only
    /// an allow list grows), or by it as if there were no cluster but its own.
    fn forged_admission(&mut self, hostile: &mut Hostile, victim: PeerId) -> Message {
        let peer = PeerId(hostile.dice.bytes());
        let mut admission =
            Admission { peer, cluster: self.cluster, invitation: None, nonce: None, at: hostile.dice.number() };
        if hostile.dice.chance(0.5) {
            return self.forged(hostile, victim, Kind::ADMISSION, &peer.hex(), encode(&admission));
        }
        if hostile.dice.chance(0.5) {
            admission.cluster = ClusterId(hostile.dice.bytes());
        }
        let me = hostile.me;
        self.own(hostile, me, Kind::ADMISSION, &peer.hex(), Some(encode(&admission)))
    }

    /// Another is said to have ordered that a third be expelled.
    fn forged_departure(&mut self, hostile: &mut Hostile, others: &[usize]) -> Message {
        let mut one = || hostile.dice.pick(others).map_or(PeerId([0; 32]), |at| self.machines[*at].id);
        let (author, victim) = (one(), one());
        let last = hostile.dice.chance(0.5).then_some(0);
        self.forged(hostile, author, Kind::DEPARTURE, &victim.hex(), encode(&Departure { peer: victim, last }))
    }

    /// What runs there is told to end, and to begin.
    fn orders(&mut self, hostile: &mut Hostile, to: usize) -> Vec<Message> {
        let live: Vec<(ClaimId, AppId)> = self.machines[to]
            .executor
            .live
            .iter()
            .map(|(claim, container)| (*claim, container.spec.task.app.clone()))
            .collect();
        let Some((claim, app)) = hostile.dice.pick(&live).cloned() else { return Vec::new() };
        vec![Message::Stop { claim, app: app.clone(), why: StopReason::Unwanted }, Message::Go { claim, app }]
    }

    /// Answers that nobody asked for about what another wrote: with a number that it never reached, with the last record
    /// and none of those before it, with the word that all the others are dead.
    fn half_the_truth(&mut self, hostile: &mut Hostile, machine: usize, to: usize) -> Vec<Message> {
        let lags = |at: &usize| {
            let brain = self.machines[to].brain.as_ref();
            brain.is_some_and(|brain| brain.complete(&self.machines[*at].id) < self.newest(*at))
        };
        let authors: Vec<usize> = (0..self.machines.len()).filter(|at| *at != machine && *at != to).collect();
        let behind: Vec<usize> = authors.iter().copied().filter(lags).collect();
        let author = hostile.dice.pick(&behind).or_else(|| hostile.dice.pick(&authors)).copied();
        let Some((author, last)) = author.and_then(|at| Some((at, self.newest_record(at)?))) else { return Vec::new() };
        let owner = self.machines[author].id;
        let known = self.machines[to].brain.as_ref().map_or(0, |brain| brain.complete(&owner));
        let through = if hostile.dice.chance(0.5) { 1 << 40 } else { last.record.seq };
        let (after, replaces_below) = if hostile.dice.chance(0.3) { (0, through) } else { (known, 0) };
        let records = vec![last];
        vec![Message::Records(Records { owner, after, through, replaces_below, records, more: false, cut: false })]
    }

    fn newest(&self, machine: usize) -> u64 {
        self.newest_record(machine).map_or(0, |one| one.record.seq)
    }

    /// The last record that a machine made durable.
    fn newest_record(&self, machine: usize) -> Option<Arc<Stored>> {
        let Machine { id, disk, .. } = &self.machines[machine];
        let key = |kind, text: &str| (*id, RecordKey { kind: Kind(kind), id: text.into() });
        let own = disk.records.range(key(0, "")..).take_while(|((owner, _), _)| owner == id);
        own.map(|(_, stored)| stored).max_by_key(|one| one.record.seq).cloned()
    }

    /// The largest, oldest and liveliest machine there ever was.
    fn boast(&mut self, hostile: &mut Hostile, me: PeerId) -> Vec<Message> {
        hostile.counter += 1;
        let extreme = |dice: &mut Dice| if dice.chance(0.5) { u64::MAX } else { 0 };
        let machine = Description {
            name: "m0".into(),
            addresses: vec!["nowhere".into(); 20],
            labels: Default::default(),
            capacity: Resources::of(u64::MAX, u64::MAX),
            allows: Vec::new(),
            protocol: u32::MAX,
            version: "\u{0}".into(),
            life: hostile.counter,
            life_since: extreme(&mut hostile.dice),
            draining: hostile.dice.chance(0.2),
            restarting_until: hostile.dice.chance(0.3).then_some(u64::MAX),
            executor: Executor::Null,
            network: None,
        };
        vec![self.own(hostile, me, Kind::MACHINE, "", Some(encode(&machine)))]
    }

    /// Claims of tasks that run elsewhere: as old as can be, or finished.
    fn usurp(&mut self, hostile: &mut Hostile, me: PeerId, machine: usize) -> Vec<Message> {
        let live = |(at, one): (usize, &Machine)| {
            let tasks = one.executor.live.values().map(|container| container.spec.task.clone());
            if at == machine { Vec::new() } else { tasks.collect() }
        };
        let tasks: Vec<TaskId> = self.machines.iter().enumerate().flat_map(live).collect();
        let Some(task) = hostile.dice.pick(&tasks).cloned() else { return Vec::new() };
        self.promises.forged.insert(task.clone());
        let states = [ClaimState::Accepted, ClaimState::Running, ClaimState::Stopping, ClaimState::Exited];
        let state = hostile.dice.pick(&states).copied().unwrap_or(ClaimState::Running);
        let stamp = if hostile.dice.chance(0.5) { 0 } else { u64::MAX };
        let claim = Claim {
            id: ClaimId(hostile.dice.bytes()),
            task,
            attempt: if hostile.dice.chance(0.3) { u32::MAX } else { 1 },
            bid: BidId(hostile.dice.bytes()),
            revision: hostile.dice.number(),
            state,
            need: Resources::of(u64::MAX, u64::MAX),
            accepted_at: stamp,
            started_at: Some(stamp),
            ended_at: state.has_ended().then_some(stamp),
            exit_code: state.has_ended().then_some(0),
            ..Claim::default()
        };
        vec![self.own(hostile, me, Kind::CLAIM, &claim.id.hex(), Some(encode(&claim)))]
    }

    /// What no kind reads, and a kind that nobody knows.
    fn gibberish(&mut self, hostile: &mut Hostile, me: PeerId) -> Vec<Message> {
        let kinds = [1, 2, 3, 4, 5, 6, 7, 9, 0, 99, 255];
        let kind = Kind(hostile.dice.pick(&kinds).copied().unwrap_or(0));
        let value = (0..hostile.dice.below(100)).map(|_| hostile.dice.number() as u8).collect();
        let id = "é".repeat(hostile.dice.below(40) as usize);
        let value = hostile.dice.chance(0.8).then_some(value);
        let mut messages = vec![self.own(hostile, me, kind, &id, value)];
        if let Message::Frame(frame) = &messages[0] {
            let mut unsound = Frame::clone(frame);
            unsound.prev = u64::MAX - hostile.dice.below(3);
            messages.push(Message::Frame(Arc::new(unsound)));
        }
        messages
    }

    fn lying_vitals(&self, hostile: &mut Hostile, me: PeerId) -> Message {
        hostile.counter += 1;
        let full = hostile.dice.chance(0.5);
        let vitals = Vitals {
            started: u64::MAX,
            counter: hostile.counter,
            at: u64::MAX,
            used: if full { Resources::of(u64::MAX, u64::MAX) } else { Resources::default() },
            load_millis: u64::MAX,
            images: Vec::new(),
        };
        let signature = self.signer.sign(&me, &vitals_to_sign(&me, &vitals));
        Message::Vitals(vec![Arc::new(SignedVitals::new(me, vitals, signature))])
    }

    /// Changes that are none: of apps there are, of the last generation there can be, and of none.
    fn bad_changes(&mut self, hostile: &mut Hostile, me: PeerId, machine: usize) -> Vec<Message> {
        let known = self.machines.iter().enumerate().filter(|(at, _)| *at != machine);
        let known: Vec<String> = known
            .flat_map(|(_, one)| one.executor.live.values().map(|container| container.spec.task.app.name.clone()))
            .collect();
        let name = hostile.dice.pick(&known).cloned().unwrap_or_else(|| "ghost".into());
        let generation = if hostile.dice.chance(0.5) { u32::MAX } else { hostile.dice.below(3) as u32 };
        let app = AppId { namespace: "default".into(), name, generation };
        let bytes = (0..hostile.dice.below(200)).map(|_| hostile.dice.number() as u8).collect();
        let change = ChangeValue { app, bytes, author: "x".repeat(1_000), summary: String::new() };
        let id = rialto_protocol::ids::hex(&hostile.dice.bytes::<16>());
        vec![self.own(hostile, me, Kind::CHANGE, &id, Some(encode(&change)))]
    }

    /// A frame with as many records as it holds, and a record that is too large.
    fn too_much(&mut self, hostile: &mut Hostile, me: PeerId) -> Vec<Message> {
        let first = hostile.last + 1;
        let records = (0..FLOOD)
            .map(|n| record(me, first + n, Kind::EVENT, &format!("{}", (first + n) % 1_000), Some(vec![7; 50])));
        let many = Message::Frame(Arc::new(self.framed(hostile, me, records.collect())));
        // It stays outside the sequence: nobody takes it, and nobody misses it.
        let draft = Draft {
            owner: me,
            prev: hostile.last,
            records: vec![record(me, hostile.last + 1, Kind::EVENT, "large", Some(vec![0; VALUE_BYTES_MAX + 1]))],
        };
        let signature = self.signer.sign(&me, &draft.to_sign());
        let (_, stored) = draft.seal(signature);
        vec![many, Message::Told(stored.clone()), Message::Keep { token: 1, records: stored }]
    }
}

/// The best bid there can be, for more than was asked.
fn tempting(hostile: &mut Hostile, solicit: &Solicit) -> Message {
    Message::Bid(Bid {
        auction: solicit.auction,
        bid: BidId(hostile.dice.bytes()),
        count: if hostile.dice.chance(0.5) { u32::MAX } else { solicit.count },
        score: i64::MAX,
        ..Bid::default()
    })
}

fn record(owner: PeerId, seq: u64, kind: Kind, id: &str, value: Option<Vec<u8>>) -> Arc<Record> {
    let key = RecordKey { kind, id: id.into() };
    Arc::new(Record { owner, key, seq, stamp: u64::MAX, schema: SCHEMA, value })
}
