//! Feeds the brain and performs what it wants: the one thread on which a [`Brain`] lives.
//!
//! Everything that happens comes in by four doors: the store's word on what is durable, what the
//! mesh and the executor tell ([`Event`]s), what people ask ([`Ask`]s), and the brain's own
//! deadline. The driver drains what waits, lets the brain take it, performs the effects in order,
//! and only then waits again. A deadline is looked at after what waits has been read, so that a
//! peer that was paused hears its neighbours before it judges them.
//!
//! Signatures are checked here, after the brain has said that a message is news: a copy of what is
//! known costs no cryptography.

mod changes;
pub mod clock;
pub mod counters;
mod pending;
mod perform;
pub mod ports;

use std::time::Instant;

use rialto_protocol::{Brain, Config, Effect, Event, Restored};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::handle::{Ask, Handle};
use crate::news::News;
use crate::store::{Done, Store, StoreError};

use changes::Changes;
use pending::Pending;
use ports::Ports;

/// Events of the mesh and the executor that may wait for the brain; beyond it they wait there.
pub const EVENTS_QUEUED_MAX: usize = 1_024;
/// Requests and reads that may wait for the brain; beyond it the askers wait.
const ASKS_QUEUED_MAX: usize = 1_024;
/// How much is taken before deadlines are looked at.
const BATCH_MAX: usize = 512;

/// Why a brain's thread ended.
#[derive(Debug)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// This identity must write no more.
    Retired(String),
    /// The disk is full or broken.
    StoreFailed(StoreError),
}

/// The doors of a driver: made first, since the mesh and the executor need them before there is a
/// brain.
pub struct Doors {
    /// For requests and reads.
    pub handle: Handle,
    /// For what happens. [`Event::Received`] is sent with `verified: false`: the driver checks.
    pub events: mpsc::Sender<Event>,
    inside: Inside,
}

/// The inner side of the doors.
struct Inside {
    events: mpsc::Receiver<Event>,
    asks: mpsc::Receiver<Ask>,
    changes: watch::Sender<News>,
}

impl Doors {
    pub fn new() -> Self {
        let (events, events_in) = mpsc::channel(EVENTS_QUEUED_MAX);
        let (asks, asks_in) = mpsc::channel(ASKS_QUEUED_MAX);
        let (changes, changes_seen) = watch::channel(News::default());
        let inside = Inside { events: events_in, asks: asks_in, changes };
        Self { handle: Handle::new(asks, changes_seen), events, inside }
    }

    /// Starts the brain on its thread. What ended it comes out of the returned channel. That the
    /// channel closes without a word means that the brain has panicked: the process has to end, for
    /// what the brain believes can no longer be trusted.
    pub fn start(
        self,
        config: Config,
        restored: Restored,
        store: Store,
        ports: Ports,
        stop: CancellationToken,
    ) -> tokio::sync::oneshot::Receiver<Ended> {
        let (ended, has_ended) = tokio::sync::oneshot::channel();
        let (done, done_in) = mpsc::unbounded_channel();
        let writer = store.start(ports.sign.clone(), done);
        let inside = self.inside;
        std::thread::Builder::new()
            .name("brain".into())
            .stack_size(4 << 20)
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
                let runtime = runtime.expect("a timer needs no more than memory");
                let (brain, first) = Brain::new(config, restored, clock::now());
                let mut driver =
                    Driver { brain, ports, writer, pending: Pending::default(), changes: Changes::new(inside.changes) };
                let why = runtime.block_on(driver.run(first, inside.events, inside.asks, done_in, stop));
                // What was ordered is on disk before anybody is told that this is the end.
                drop(driver);
                let _ = ended.send(why);
            })
            .expect("a thread can be started");
        has_ended
    }
}

impl Default for Doors {
    fn default() -> Self {
        Self::new()
    }
}

/// A brain with everything that it acts through.
struct Driver {
    brain: Brain,
    ports: Ports,
    writer: crate::store::Writer,
    pending: Pending,
    changes: Changes,
}

impl Driver {
    async fn run(
        &mut self,
        first: Vec<Effect>,
        mut events: mpsc::Receiver<Event>,
        mut asks: mpsc::Receiver<Ask>,
        mut done: mpsc::UnboundedReceiver<Done>,
        stop: CancellationToken,
    ) -> Ended {
        if let Err(end) = self.perform(first) {
            return end;
        }
        loop {
            let taken = tokio::select! {
                biased;
                () = stop.cancelled() => return Ended::Stopped,
                word = done.recv() => self.durable(word.unwrap_or_else(writer_is_gone)),
                Some(event) = events.recv() => self.happened(event),
                Some(ask) = asks.recv() => self.asked(ask),
                () = clock::sleep_until(self.brain.next_deadline()) => Ok(()),
                () = clock::sleep_until_instant(self.changes.due()) => Ok(()),
            };
            if let Err(end) = taken.and_then(|()| self.drain(&mut events, &mut asks, &mut done)) {
                return end;
            }
            if self.brain.next_deadline().is_some_and(|at| at <= clock::now().ms)
                && let Err(end) = self.take(Event::Woke)
            {
                return end;
            }
            self.changes.tell();
        }
    }

    /// Takes what waits, turn by turn, so that no door starves another.
    fn drain(
        &mut self,
        events: &mut mpsc::Receiver<Event>,
        asks: &mut mpsc::Receiver<Ask>,
        done: &mut mpsc::UnboundedReceiver<Done>,
    ) -> Result<(), Ended> {
        for _ in 0..BATCH_MAX {
            let mut idle = true;
            if let Ok(word) = done.try_recv() {
                idle = false;
                self.durable(word)?;
            }
            if let Ok(event) = events.try_recv() {
                idle = false;
                self.happened(event)?;
            }
            if let Ok(ask) = asks.try_recv() {
                idle = false;
                self.asked(ask)?;
            }
            if idle {
                break;
            }
        }
        Ok(())
    }

    fn durable(&mut self, word: Done) -> Result<(), Ended> {
        match word {
            Done::Committed { commit, signatures } => self.take(Event::Committed { commit, signatures }),
            Done::Stored { token } => self.take(Event::Stored { token }),
            Done::Failed(error) => Err(Ended::StoreFailed(error)),
        }
    }

    /// What is known already tells which links are of use, and its signatures cost nothing.
    fn happened(&mut self, event: Event) -> Result<(), Ended> {
        let event = match event {
            Event::Received { from, message, .. } => {
                let verified = self.brain.is_news(&message) && (self.ports.verify)(&message);
                Event::Received { from, message, verified }
            }
            other => other,
        };
        self.take(event)
    }

    fn asked(&mut self, ask: Ask) -> Result<(), Ended> {
        match ask {
            Ask::Read(look) => {
                look(&self.brain, clock::now());
                Ok(())
            }
            Ask::Watch(look) => {
                let begun = Instant::now();
                look(&self.brain, clock::now());
                self.changes.looked(begun.elapsed());
                Ok(())
            }
            Ask::Request(request, answer) => match self.pending.add(answer) {
                Some(id) => self.take(Event::Request { id, request }),
                None => Ok(()),
            },
        }
    }

    fn take(&mut self, event: Event) -> Result<(), Ended> {
        let effects = self.brain.handle(clock::now(), event);
        self.perform(effects)
    }
}

/// The writer ends after the driver, unless it has panicked.
fn writer_is_gone() -> Done {
    Done::Failed(StoreError::Write("its thread has panicked".into()))
}
