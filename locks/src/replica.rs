//! One replica of the group: [`Replica::handle`] takes what happens, [`Replica::flush`] says what is to be done.

mod anew;
mod leading;
mod reading;

use std::collections::VecDeque;

use crate::cbor;
use crate::consensus::{Consensus, Damaged, Decided, Group, NotProposed, Saved, Step, Writes};
use crate::kv::{Answer, Applied, Op, Range, Refusal};
use crate::lessor::Lessor;
use crate::pending::{Forwarded, Origin, Pending, Proposed};
use crate::plant::Plant;
use crate::store::Store;
use crate::voters::Candidate;
use crate::wire::{Ask, Body, Parcel};

/// Whoever asks is answered within this, ms: with a refusal where there is no quorum.
pub const ANSWER_MS_MAX: u64 = 4_500;
/// The most questions that wait; more are refused.
pub const PENDING_MAX: usize = 16_384;
/// The most that one operation may weigh, bytes, as etcd has it.
pub const OP_BYTES_MAX: usize = 3 << 19;
/// The most operations and bytes of one entry.
const ENTRY_OPS_MAX: usize = 512;
const ENTRY_BYTES_MAX: usize = 2 << 20;
/// The state is written whole after so many entries, or bytes of entries.
const SNAPSHOT_ENTRIES: u64 = 8_192;
const SNAPSHOT_BYTES: usize = 16 << 20;

/// The number by which the driver knows who asked.
pub type Ticket = u64;

/// What a replica has to know at its start.
#[derive(Clone, Debug)]
pub struct Config {
    pub node: u64,
    /// Of the group; a group that is made anew from what one replica has gets a higher one.
    pub epoch: u64,
    /// What chance is drawn from; another at each start.
    pub seed: u64,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Input {
    /// [`crate::consensus::TICK_MS`] have passed.
    Tick,
    Parcel {
        from: u64,
        bytes: Vec<u8>,
    },
    /// What was sent to a node was lost.
    Unreachable(u64),
    /// The write of this number is on the disk, and everything before it.
    Persisted {
        epoch: u64,
        number: u64,
    },
    /// Somebody wants something that only the leader can do.
    Ask {
        ticket: Ticket,
        ask: Ask,
    },
    /// Somebody wants to read what is certain to be no older than the question.
    Read {
        ticket: Ticket,
        range: Range,
    },
    /// What news say of all peers.
    Candidates(Vec<Candidate>),
    /// A person says that the others are gone for good: the group is made anew, of this replica alone.
    ForceNew,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    Send {
        to: u64,
        bytes: Vec<u8>,
    },
    Write(Writes),
    /// Everything that was written goes, and this is there instead; writes from here on belong to this epoch.
    Replace {
        epoch: u64,
        saved: Saved,
    },
    Answer {
        ticket: Ticket,
        answer: Result<Applied, Refusal>,
    },
}

/// A message of the consensus: to whom, and what.
type Letter = (u64, Vec<u8>);

/// One replica.
pub struct Replica {
    config: Config,
    consensus: Consensus,
    store: Store,
    lessor: Lessor,
    pending: Pending,
    candidates: Vec<Candidate>,
    /// The term for which this replica is known to lead, and what it then does.
    leads: Option<u64>,
    /// The last leader that was known.
    leader: u64,
    /// What was promised, and the write that has to be on the disk first.
    held: VecDeque<(u64, Vec<Letter>)>,
    /// The highest write that something waits for, and the highest that is on the disk.
    awaited: u64,
    persisted: u64,
    /// The last number given: to a batch, a round of reads, a forwarded question.
    last_number: u64,
    /// Bytes of entries that were applied since the last snapshot.
    applied_bytes: usize,
    voters_changed: bool,
    /// It was told that it belongs to the group no more; until a leader speaks to it.
    gone: bool,
    damaged: bool,
    plant: Option<Plant>,
    now_ms: u64,
    out: Vec<Output>,
}

impl Replica {
    /// Goes on from what the disk has. A replica that nothing is known of waits until a leader sends it the state.
    pub fn restore(config: Config, saved: &Saved) -> Result<Self, Damaged> {
        let (consensus, state) = Consensus::restore(config.node, config.seed, saved)?;
        let store = match state {
            Some(state) => Store::decode(&state).map_err(|error| Damaged::of(error.to_string()))?,
            None => Store::default(),
        };
        Ok(Self {
            config,
            consensus,
            store,
            lessor: Lessor::default(),
            pending: Pending::default(),
            candidates: Vec::new(),
            leads: None,
            leader: 0,
            held: VecDeque::new(),
            awaited: 0,
            persisted: 0,
            last_number: 0,
            applied_bytes: 0,
            voters_changed: false,
            gone: false,
            damaged: false,
            plant: None,
            now_ms: 0,
            out: Vec::new(),
        })
    }

    /// What a group begins with whose only voter is `node`.
    pub fn founding(node: u64, store: &Store) -> Saved {
        Saved::founding(node, store.encode())
    }

    /// Breaks it on purpose; see [`crate::plant`].
    pub fn plant(&mut self, plant: Plant) {
        self.plant = Some(plant);
    }

    /// What has been applied here: perhaps not the newest.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Who leads and who votes, as far as this replica knows.
    pub fn group(&self) -> Group {
        let mut group = self.consensus.group();
        if self.gone {
            group.voters.remove(&self.config.node);
        }
        group
    }

    pub fn epoch(&self) -> u64 {
        self.config.epoch
    }

    /// It was sent a state that it cannot read, and does nothing any more.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Takes in what happens. The time is the caller's own, and never goes back.
    pub fn handle(&mut self, now_ms: u64, input: Input) {
        self.now_ms = self.now_ms.max(now_ms);
        match input {
            _ if self.damaged => {}
            Input::Tick => self.tick(),
            Input::Parcel { from, bytes } => self.parcel(from, &bytes),
            Input::Unreachable(node) => self.consensus.unreachable(node),
            // What was written of another group says nothing of this one.
            Input::Persisted { epoch, number } if epoch == self.config.epoch => self.persisted(number),
            Input::Persisted { .. } => {}
            Input::Ask { ticket, ask } => self.asked(ticket, ask),
            Input::Read { ticket, range } => self.read(ticket, range),
            Input::Candidates(candidates) => self.candidates = candidates,
            Input::ForceNew => self.force_new(),
        }
    }

    /// Works off what was taken in since the last time; to be called when nothing more waits outside.
    pub fn flush(&mut self, now_ms: u64) -> Vec<Output> {
        self.now_ms = self.now_ms.max(now_ms);
        self.follow_leader();
        self.propose();
        self.ask_for_reads();
        while let Some(step) = self.consensus.step() {
            self.perform(step);
            self.follow_leader();
        }
        self.answer_reads();
        self.snapshot();
        std::mem::take(&mut self.out)
    }

    fn tick(&mut self) {
        self.consensus.tick();
        self.follow_leader();
        self.lead_on();
        self.ask_again();
        self.give_up();
    }

    fn parcel(&mut self, from: u64, bytes: &[u8]) {
        // What cannot be read counts as lost.
        let Ok(Parcel { epoch, body }) = Parcel::decode(bytes) else { return };
        if epoch != self.config.epoch && !self.follows(epoch, from) {
            return;
        }
        match body {
            Body::Raft(message) => {
                self.tell_gone(from);
                self.consensus.message(from, &message);
            }
            Body::Gone { index } => self.gone |= self.consensus.leader() == 0 && index >= self.consensus.applied(),
            Body::Ask { id, ask } => {
                let origin = Origin::There { node: from, id };
                if self.pending.len() >= PENDING_MAX {
                    return self.answer(origin, Err(Refusal::Busy));
                }
                self.lead(origin, ask);
            }
            Body::Told { id, answer } => self.told(from, id, answer),
            // Its epoch says it all.
            Body::Anew => {}
        }
    }

    /// Whoever speaks as a member of the group, and is none, is told so.
    fn tell_gone(&mut self, node: u64) {
        if self.consensus.leader() != 0 && !self.consensus.knows(node) {
            let index = self.consensus.applied();
            self.send(node, Body::Gone { index });
        }
    }

    fn persisted(&mut self, number: u64) {
        self.persisted = self.persisted.max(number);
        self.consensus.persisted(number);
        while self.held.front().is_some_and(|(held, _)| *held <= number) {
            let Some((_, messages)) = self.held.pop_front() else { return };
            self.send_raft(messages);
        }
    }

    fn asked(&mut self, ticket: Ticket, ask: Ask) {
        if matches!(&ask, Ask::Write(op) if op.weight() > OP_BYTES_MAX) {
            return self.answer(Origin::Here(ticket), Err(Refusal::TooLarge));
        }
        if self.pending.len() >= PENDING_MAX {
            return self.answer(Origin::Here(ticket), Err(Refusal::Busy));
        }
        self.route(ticket, ask, self.now_ms + ANSWER_MS_MAX);
    }

    /// Brings a question of somebody here to whoever leads.
    fn route(&mut self, ticket: Ticket, ask: Ask, until_ms: u64) {
        if self.consensus.is_leader() {
            return self.lead(Origin::Here(ticket), ask);
        }
        match self.consensus.leader() {
            0 => self.pending.leaderless.push_back((ticket, ask, until_ms)),
            leader => {
                let id = self.number();
                self.send(leader, Body::Ask { id, ask: ask.clone() });
                self.pending.forwarded.insert(id, Forwarded { ticket, ask, to: leader, until_ms });
            }
        }
    }

    fn told(&mut self, from: u64, id: u64, answer: Result<Applied, Refusal>) {
        let Some(forwarded) = self.pending.forwarded.remove(&id).filter(|forwarded| forwarded.to == from) else {
            return;
        };
        match answer {
            // Nothing was done: whoever leads now is asked, with the next tick.
            Err(Refusal::NotLeader) => {
                let Forwarded { ticket, ask, until_ms, .. } = forwarded;
                self.pending.leaderless.push_back((ticket, ask, until_ms));
            }
            answer => self.answer(Origin::Here(forwarded.ticket), answer),
        }
    }

    /// Answers whoever asked.
    fn answer(&mut self, origin: Origin, answer: Result<Applied, Refusal>) {
        match origin {
            Origin::Here(ticket) => self.out.push(Output::Answer { ticket, answer }),
            Origin::There { node, id } => self.send(node, Body::Told { id, answer }),
            Origin::Lessor(lease) => {
                if !matches!(answer, Ok(_) | Err(Refusal::LeaseNotFound)) {
                    self.lessor.not_over(lease);
                }
            }
        }
    }

    fn send(&mut self, to: u64, body: Body) {
        let bytes = Parcel { epoch: self.config.epoch, body }.encode();
        self.out.push(Output::Send { to, bytes });
    }

    fn send_raft(&mut self, messages: Vec<(u64, Vec<u8>)>) {
        for (to, message) in messages {
            self.send(to, Body::Raft(message));
        }
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Performs what consensus has come to.
    fn perform(&mut self, step: Step) {
        self.send_raft(step.sends);
        if let Some(writes) = step.writes {
            self.write(writes, step.promises);
        }
        if let Some(state) = step.state {
            match Store::decode(&state) {
                Ok(store) => self.store = store,
                Err(_) => self.damaged = true,
            }
        }
        for decided in step.decided {
            match decided {
                Decided::Data { context, data } => self.apply(&context, &data),
                Decided::Voters => self.voters_changed = true,
            }
        }
        self.learn_indexes(step.reads);
    }

    fn write(&mut self, writes: Writes, promises: Vec<(u64, Vec<u8>)>) {
        let (number, must_sync) = (writes.number, writes.must_sync);
        let is_empty = writes == Writes { number, must_sync, ..Writes::default() };
        if !is_empty {
            self.out.push(Output::Write(writes));
        }
        if self.plant == Some(Plant::HastyPromise) {
            self.send_raft(promises);
            self.awaited = number;
        } else if must_sync || self.awaited > self.persisted {
            // Behind a write that is awaited everything keeps its order.
            self.awaited = number;
            if is_empty {
                self.out.push(Output::Write(Writes { number, ..Writes::default() }));
            }
            self.held.push_back((number, promises));
        } else {
            self.send_raft(promises);
            self.consensus.persisted(number);
        }
    }

    /// Applies an entry; answers those who asked here, or of this replica.
    fn apply(&mut self, context: &[u8], data: &[u8]) {
        self.applied_bytes += data.len();
        // Every replica of every version has to read it alike: what nobody can read, nobody does.
        let ops: Vec<Op> = cbor::decode(data).unwrap_or_default();
        let mut origins = self.origins(context).into_iter();
        for op in ops {
            let answer = self.store.apply(&op);
            self.follow_leases(&op, &answer);
            if let Some(origin) = origins.next() {
                self.answer(origin, answer);
            }
        }
    }

    /// Who waits for the entry with this context.
    fn origins(&mut self, context: &[u8]) -> Vec<Origin> {
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).unwrap_or_default();
        let (Some(seed), Some(batch)) = (context.get(..8), context.get(8..16)) else { return Vec::new() };
        if number(seed) != self.config.seed {
            return Vec::new();
        }
        self.pending.proposed.remove(&number(batch)).map(|proposed| proposed.origins).unwrap_or_default()
    }

    /// Keeps the ends of leases, if this replica leads.
    fn follow_leases(&mut self, op: &Op, answer: &Result<Applied, Refusal>) {
        if self.leads.is_none() {
            return;
        }
        match (op, answer.as_ref().map(|applied| &applied.answer)) {
            (_, Ok(Answer::Granted { id, ttl_seconds })) => {
                let (id, ttl_seconds) = (*id, *ttl_seconds);
                self.start_lease(id, ttl_seconds);
            }
            (Op::Revoke { id, .. }, Ok(_)) => self.lessor.forget(*id),
            _ => {}
        }
    }

    /// Proposes what was asked for, many operations to an entry.
    fn propose(&mut self) {
        while !self.pending.batch.is_empty() {
            let mut bytes = 0;
            let fitting = self.pending.batch.iter().take(ENTRY_OPS_MAX).take_while(|(_, op)| {
                bytes += op.weight();
                bytes <= ENTRY_BYTES_MAX
            });
            let count = fitting.count().max(1);
            let (origins, ops): (Vec<Origin>, Vec<Op>) = self.pending.batch.drain(..count).unzip();
            let number = self.number();
            let context = [self.config.seed.to_be_bytes(), number.to_be_bytes()].concat();
            match self.consensus.propose(context, cbor::encode(&ops)) {
                Ok(()) => {
                    let until_ms = self.now_ms + ANSWER_MS_MAX;
                    self.pending.proposed.insert(number, Proposed { origins, until_ms });
                }
                Err(why) => self.not_proposed(origins, ops, why),
            }
        }
    }

    fn not_proposed(&mut self, origins: Vec<Origin>, ops: Vec<Op>, why: NotProposed) {
        for (origin, op) in origins.into_iter().zip(ops) {
            match (why, origin) {
                (NotProposed::NotLeader, Origin::Here(ticket)) => {
                    let until_ms = self.now_ms + ANSWER_MS_MAX;
                    self.pending.leaderless.push_back((ticket, Ask::Write(op), until_ms));
                }
                (NotProposed::NotLeader, origin) => self.answer(origin, Err(Refusal::NotLeader)),
                (NotProposed::Busy, origin) => self.answer(origin, Err(Refusal::Busy)),
            }
        }
    }

    /// Writes the state whole when the log has become long, or whoever joins would be sent an old one.
    fn snapshot(&mut self) {
        let bytes_max = SNAPSHOT_BYTES.max(self.store.size().1);
        let is_long = self.consensus.since_snapshot() >= SNAPSHOT_ENTRIES || self.applied_bytes >= bytes_max;
        if !(is_long || self.voters_changed) || self.damaged {
            return;
        }
        if let Some(writes) = self.consensus.compact(self.store.encode()) {
            self.out.push(Output::Write(writes));
            self.voters_changed = false;
            self.applied_bytes = 0;
        }
    }
}
