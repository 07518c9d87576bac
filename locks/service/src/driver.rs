//! The task that a replica lives on: it takes in what has come, lets the replica work it off, and does what that says.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use rialto_locks::consensus::TICK_MS;
use rialto_locks::kv::{Applied, Refusal};
use rialto_locks::{Config, Input, Output, Replica, Store};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::log::{Log, LogError, Order};
use crate::{Carry, Group, INBOX_MAX, Job, Settings, Told};

/// The most that is taken in before the replica works it off.
const ROUND_MAX: usize = 512;

type Answer = oneshot::Sender<Result<Applied, Refusal>>;

/// Starts this node's replica; it ends with `closing`.
pub fn start(settings: Settings, carry: Arc<dyn Carry>, closing: CancellationToken) -> Result<Group, LogError> {
    let (mut log, epoch, mut saved) = Log::open(&settings.folder)?;
    if settings.founds && saved.snapshot.is_none() {
        saved = Replica::founding(settings.node, &Store::default());
        log.replace(epoch, &saved)?;
    }
    let config = Config { node: settings.node, epoch, seed: settings.seed };
    let damaged = |error: rialto_locks::consensus::Damaged| LogError::Damaged(error.to_string());
    let replica = Replica::restore(config, &saved).map_err(damaged)?;
    let (orders, to_write) = std::sync::mpsc::channel();
    let (done, written) = mpsc::unbounded_channel();
    log.start(to_write, done);
    let (jobs, inbox) = mpsc::channel(INBOX_MAX);
    let (tell, told) = watch::channel(Told::default());
    let (revise, revisions) = watch::channel(0);
    let group = Group { jobs, told, revisions, carry: carry.clone() };
    let mut driver = Driver {
        settings,
        replica,
        orders,
        carry,
        tell,
        revise,
        waiting: HashMap::new(),
        last_ticket: 0,
        began: Instant::now(),
        lost: Vec::new(),
    };
    driver.tell();
    tokio::spawn(driver.run(inbox, written, closing));
    Ok(group)
}

struct Driver {
    settings: Settings,
    replica: Replica,
    orders: Sender<Order>,
    carry: Arc<dyn Carry>,
    tell: watch::Sender<Told>,
    revise: watch::Sender<i64>,
    /// Who waits for which answer.
    waiting: HashMap<u64, Answer>,
    last_ticket: u64,
    began: Instant,
    /// Nodes that something could not be sent to.
    lost: Vec<u64>,
}

impl Driver {
    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Job>,
        mut written: mpsc::UnboundedReceiver<(u64, u64)>,
        closing: CancellationToken,
    ) {
        let mut ticks = interval(Duration::from_millis(TICK_MS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut jobs = Vec::with_capacity(ROUND_MAX);
        loop {
            tokio::select! {
                () = closing.cancelled() => return,
                number = written.recv() => match number {
                    Some((epoch, number)) => self.input(Input::Persisted { epoch, number }),
                    // The disk has failed: nothing is promised any more, and clients are told that nobody leads.
                    None => return,
                },
                taken = inbox.recv_many(&mut jobs, ROUND_MAX) => {
                    if taken == 0 {
                        return;
                    }
                    for job in jobs.drain(..) {
                        self.perform(job);
                    }
                }
                // Who has no part in the group has nothing to wait for.
                _ = ticks.tick(), if self.takes_part() => self.input(Input::Tick),
            }
            self.flush();
        }
    }

    fn takes_part(&self) -> bool {
        !self.tell.borrow().voters.is_empty() || !self.waiting.is_empty()
    }

    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }

    fn input(&mut self, input: Input) {
        let now_ms = self.now_ms();
        self.replica.handle(now_ms, input);
    }

    fn perform(&mut self, job: Job) {
        match job {
            Job::Input(input) => self.input(input),
            Job::Ask(ask, answer) => {
                let ticket = self.ticket(answer);
                self.input(Input::Ask { ticket, ask });
            }
            Job::Read(range, answer) => {
                let ticket = self.ticket(answer);
                self.input(Input::Read { ticket, range });
            }
            Job::Look(look) => look(&self.replica),
        }
    }

    fn ticket(&mut self, answer: Answer) -> u64 {
        self.last_ticket += 1;
        self.waiting.insert(self.last_ticket, answer);
        self.last_ticket
    }

    fn flush(&mut self) {
        loop {
            let now_ms = self.now_ms();
            for output in self.replica.flush(now_ms) {
                match output {
                    Output::Send { to, bytes } => {
                        if !self.carry.carry(to, bytes) {
                            self.lost.push(to);
                        }
                    }
                    // The thread has ended only where its end is noticed by the task, too.
                    Output::Write(writes) => drop(self.orders.send(Order::Write(writes))),
                    Output::Replace { epoch, saved } => drop(self.orders.send(Order::Replace(epoch, saved))),
                    Output::Answer { ticket, answer } => {
                        if let Some(waiting) = self.waiting.remove(&ticket) {
                            let _ = waiting.send(answer);
                        }
                    }
                }
            }
            if self.lost.is_empty() {
                break;
            }
            self.lost.sort_unstable();
            self.lost.dedup();
            for node in std::mem::take(&mut self.lost) {
                self.input(Input::Unreachable(node));
            }
        }
        self.tell();
    }

    /// Tells how things stand, if they have changed.
    fn tell(&mut self) {
        let revision = self.replica.store().revision();
        self.revise.send_if_modified(|known| std::mem::replace(known, revision) != revision);
        let group = self.replica.group();
        let told = Told {
            cluster: self.settings.cluster,
            node: self.settings.node,
            epoch: self.replica.epoch(),
            term: group.term,
            leader: group.leader,
            voters: group.voters.into_iter().collect(),
            learners: group.learners.into_iter().collect(),
            revision,
        };
        self.tell.send_if_modified(|known| {
            let is_new = *known != told;
            *known = told;
            is_new
        });
    }
}
