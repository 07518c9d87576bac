//! People: some write and read numbers, some queue for the lock, hold it for a while, and give it back or go silent.

use rialto_locks::kv::{Answer, By, Compare, Delete, LeaseState, Op, Order, Put, Range, Relation, Span, Target, Txn};
use rialto_locks::wire::Ask;
use rialto_locks::{Applied, Refusal};
use rialto_sim::Dice;

use crate::history::{self, Act};
use crate::lock::Lock;

/// How many keys have numbers.
pub const KEYS: usize = 3;
/// The lease of whoever queues for the lock, seconds.
const TTL_SECONDS: i64 = 3;
/// What a holder takes off its lease for clocks that differ: 2 %.
const MARGIN_PERCENT: u64 = 2;
/// Leases have the numbers from here on.
const FIRST_LEASE: i64 = 1_000;

/// What a client wants of its replica.
#[derive(Clone, Debug)]
pub enum Want {
    Ask(Ask),
    Read(Range),
}

/// One client. It has one question at a time.
pub struct Client {
    at: usize,
    dice: Dice,
    /// Its clock's rate, in millionths.
    rate: u64,
    doing: Doing,
    /// The replica that it asks.
    home: Option<usize>,
    /// When its present question was put, µs.
    asked: u64,
    queue: Queue,
}

#[derive(Clone, Copy, Debug)]
enum Doing {
    Nothing,
    Act { key: usize, act: Act },
    Grant,
    Enqueue,
    Look,
    Renew,
    Release,
}

/// Where a client stands with the lock.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    /// 0: it has none.
    lease: i64,
    /// When its lease certainly ends by its own reckoning, µs of true time.
    until: u64,
    /// Of its place in the queue; 0: it has none.
    token: i64,
    holds: bool,
    leases: i64,
}

/// What a client's answer was good for.
#[derive(Default)]
pub struct Heard {
    /// Of a key.
    pub op: Option<(usize, history::Op)>,
    pub broken: Option<String>,
}

fn number(value: &[u8]) -> u64 {
    value.try_into().map(u64::from_be_bytes).unwrap_or_default()
}

fn register(key: usize) -> Vec<u8> {
    format!("number/{key}").into_bytes()
}

impl Client {
    pub fn new(at: usize, seed: u64) -> Self {
        let mut dice = Dice::new(seed, &format!("client {at}"));
        let rate = 990_000 + dice.below(20_001);
        Self { at, dice, rate, doing: Doing::Nothing, home: None, asked: 0, queue: Queue::default() }
    }

    /// True of those who queue for the lock.
    fn queues(&self) -> bool {
        self.at % 2 == 1
    }

    /// How long it waits until its next question, µs.
    pub fn pause(&mut self) -> u64 {
        let mean = if self.queues() { 60_000 } else { 120_000 };
        1_000 + self.dice.exponential(mean)
    }

    pub fn has_asked(&self) -> bool {
        !matches!(self.doing, Doing::Nothing)
    }

    /// Which of so many replicas it asks: the same one for a while, as whoever asks at its own machine does.
    pub fn choose(&mut self, nodes: usize) -> usize {
        if self.home.is_none() || self.dice.chance(0.05) {
            self.home = Some(self.dice.below(nodes as u64) as usize);
        }
        self.home.unwrap_or_default()
    }

    /// Its next question.
    pub fn next(&mut self, now: u64, unique: u64, lock: &mut Lock) -> Option<Want> {
        self.asked = now;
        if self.queues() { self.next_of_queue(now, lock) } else { Some(self.next_act(unique)) }
    }

    fn next_act(&mut self, unique: u64) -> Want {
        let key = self.dice.below(KEYS as u64) as usize;
        let (act, want) = match self.dice.below(3) {
            0 => (Act::Write(unique), Want::Ask(Ask::Write(write(key, unique)))),
            1 => (Act::Read(0), Want::Read(Range::of(Span::one(register(key))))),
            _ => {
                // Numbers are given in order: one of the last is likely to be there.
                let old = unique.saturating_sub(1 + self.dice.below(4));
                (Act::Swap(old, unique, false), Want::Ask(Ask::Write(swap(key, old, unique))))
            }
        };
        self.doing = Doing::Act { key, act };
        want
    }

    fn next_of_queue(&mut self, now: u64, lock: &mut Lock) -> Option<Want> {
        if self.queue.lease != 0 && self.queue.until <= now {
            // It has given up: what it had is over, as far as it knows.
            lock.release(self.at);
            self.queue = Queue { leases: self.queue.leases, ..Queue::default() };
        }
        let Queue { lease, until, token, holds, .. } = self.queue;
        let renew_from = until.saturating_sub(TTL_SECONDS as u64 * 600_000);
        let (doing, want) = if lease == 0 {
            self.queue.leases += 1;
            let id = FIRST_LEASE + self.at as i64 * 1_000_000 + self.queue.leases;
            (Doing::Grant, Want::Ask(Ask::Write(Op::Grant { id, ttl_seconds: TTL_SECONDS })))
        } else if now >= renew_from && !self.dice.chance(0.15) {
            (Doing::Renew, Want::Ask(Ask::Renew(lease)))
        } else if token == 0 {
            (Doing::Enqueue, Want::Ask(Ask::Write(self.enqueue(lease))))
        } else if !holds {
            let range =
                Range { limit: 1, by: By::Created, order: Order::Ascending, ..Range::of(Span::prefix("lock/")) };
            (Doing::Look, Want::Read(range))
        } else if self.dice.chance(0.02) {
            // From now on it does not rely on the lock, whatever comes of its question.
            lock.release(self.at);
            self.queue.holds = false;
            self.queue.until = now;
            let delete = Delete { span: Span::one(self.place(lease)), want_previous: false };
            (Doing::Release, Want::Ask(Ask::Write(Op::Delete(delete))))
        } else {
            return None;
        };
        self.doing = doing;
        Some(want)
    }

    fn place(&self, lease: i64) -> Vec<u8> {
        format!("lock/{lease}").into_bytes()
    }

    fn enqueue(&self, lease: i64) -> Op {
        let key = self.place(lease);
        let compare = Compare { span: Span::one(key.clone()), relation: Relation::Equal, target: Target::Created(0) };
        let put = Put { key: key.clone(), lease, ..Put::default() };
        let get = Op::Range(Range::of(Span::one(key)));
        Op::Txn(Txn { compare: vec![compare], success: vec![Op::Put(put), get.clone()], failure: vec![get] })
    }

    /// Its question could not be put: nothing can come of it. `elsewhere`: that replica is none to ask.
    pub fn not_put(&mut self, elsewhere: bool) {
        self.doing = Doing::Nothing;
        self.home = self.home.filter(|_| !elsewhere);
    }

    /// Nothing certain was heard, and nothing more will be.
    pub fn give_up(&mut self) -> Heard {
        self.home = None;
        let mut heard = Heard::default();
        if let Doing::Act { key, act } = self.doing
            && !matches!(act, Act::Read(_))
        {
            heard.op = Some((key, history::Op { begun: self.asked, ended: None, act }));
        }
        self.doing = Doing::Nothing;
        heard
    }

    /// An answer.
    pub fn hear(&mut self, now: u64, answer: Result<Applied, Refusal>, lock: &mut Lock) -> Heard {
        let answer = match answer {
            Ok(applied) => applied.answer,
            Err(Refusal::Unknown) => return self.give_up(),
            Err(Refusal::LeaseNotFound) if self.queues() => {
                lock.release(self.at);
                self.queue = Queue { leases: self.queue.leases, ..Queue::default() };
                self.doing = Doing::Nothing;
                return Heard::default();
            }
            // Nothing was done.
            Err(_) => {
                self.doing = Doing::Nothing;
                return Heard::default();
            }
        };
        match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Act { key, act } => self.hear_act(now, key, act, answer),
            doing => Heard { op: None, broken: self.hear_queue(now, doing, answer, lock).err() },
        }
    }

    fn hear_act(&self, now: u64, key: usize, act: Act, answer: Answer) -> Heard {
        let act = match (act, answer) {
            (Act::Read(_), Answer::Range(found)) => Act::Read(found.keys.first().map_or(0, |key| number(&key.value))),
            (Act::Swap(old, new, _), Answer::Txn { succeeded, .. }) => Act::Swap(old, new, succeeded),
            (act, _) => act,
        };
        Heard { op: Some((key, history::Op { begun: self.asked, ended: Some(now), act })), broken: None }
    }

    fn hear_queue(&mut self, now: u64, doing: Doing, answer: Answer, lock: &mut Lock) -> Result<(), String> {
        match (doing, answer) {
            (Doing::Grant, Answer::Granted { id, .. }) => {
                self.queue.lease = id;
                self.queue.until = self.end();
            }
            // What was over before the answer came stays over.
            (Doing::Renew, Answer::Lease(LeaseState { .. })) if self.queue.until > now => {
                self.queue.until = self.queue.until.max(self.end());
                if self.queue.holds {
                    lock.renew(self.at, self.queue.until);
                }
            }
            (Doing::Enqueue, Answer::Txn { answers, .. }) => {
                if let Some(Answer::Range(found)) = answers.last() {
                    self.queue.token = found.keys.first().map_or(0, |key| key.create_revision);
                }
            }
            (Doing::Look, Answer::Range(found)) => {
                let first = found.keys.first().map_or(0, |key| key.create_revision);
                if first == self.queue.token && self.queue.until > now {
                    self.queue.holds = true;
                    lock.take(now, self.at, first, self.queue.until)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// When a lease that was granted or renewed with the present question certainly ends: it is reckoned from when the
    /// question was put, by the client's own clock.
    fn end(&self) -> u64 {
        let own = TTL_SECONDS as u64 * 1_000_000 * (100 - MARGIN_PERCENT) / 100;
        self.asked + own * 1_000_000 / self.rate
    }
}

fn write(key: usize, value: u64) -> Op {
    Op::Put(Put { key: register(key), value: value.to_be_bytes().to_vec(), ..Put::default() })
}

fn swap(key: usize, old: u64, new: u64) -> Op {
    let target = if old == 0 { Target::Created(0) } else { Target::Value(old.to_be_bytes().to_vec()) };
    let compare = Compare { span: Span::one(register(key)), relation: Relation::Equal, target };
    Op::Txn(Txn { compare: vec![compare], success: vec![write(key, new)], failure: vec![] })
}
