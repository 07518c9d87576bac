//! The world: a queue of happenings in virtual time, and the machines they happen to.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use rialto_protocol::effect::{Refusal, Reply};
use rialto_protocol::event::Request;
use rialto_protocol::ids::{ClaimId, ClusterId, PeerId};
use rialto_protocol::lease::{Answer as LeaseAnswer, Ask};
use rialto_protocol::wire::Message;
use rialto_protocol::{Brain, Event};

use crate::dice::Dice;
use crate::executor::Course;
use crate::invariants::{Promises, settles};
use crate::leases::LockGroup;
use crate::machine::{Asker, EPOCH_MS, Machine};
use crate::network::Network;
use crate::plants::Plant;
use crate::signing::Signer;
use crate::trace::Trace;

/// Wake-ups within one millisecond that mean that a brain spins.
const SPINS_MAX: u32 = 1_000;

/// One thing that is going to happen.
#[derive(Debug)]
pub(super) enum Happening {
    /// A keeper of a lease has something to do,
    Keep { machine: usize, process: u64, claim: ClaimId, due_ms: u64 },
    /// a question of one reaches the lock group,
    Asked { machine: usize, process: u64, claim: ClaimId, number: u64, ask: Ask },
    /// and comes back with an answer, or without.
    Answered { machine: usize, process: u64, claim: ClaimId, number: u64, answer: Result<LeaseAnswer, String> },
    /// A brain's deadline.
    Wake { machine: usize, process: u64, due_ms: u64 },
    /// A message arrives.
    Deliver { from: usize, to: usize, process: u64, message: Message },
    /// The disk has written everything through a transaction.
    Durable { machine: usize, process: u64, number: u64 },
    /// Something is told to a brain.
    Tell { machine: usize, process: u64, event: Event },
    /// A container moves on.
    Course { machine: usize, boot: u64, claim: ClaimId, course: Course },
    /// The daemon looks at its machine.
    Measure { machine: usize, process: u64 },
    /// A paused daemon goes on.
    Resume { machine: usize, process: u64 },
    /// A daemon has ended because its identity must write no more.
    Retired { machine: usize, process: u64 },
    /// A hostile machine does something.
    Mischief { machine: usize },
    /// A newcomer tries to join.
    Hello { newcomer: usize },
    /// A newcomer's `hello` reaches the introducer.
    Admit { newcomer: usize, introducer: usize, secret_hash: [u8; 32], invitation: [u8; 16] },
    /// A daemon starts.
    Start { machine: usize },
    /// A connection is tried.
    Dial { pair: (usize, usize) },
    /// The handshake of a connection is over.
    Dialed { pair: (usize, usize), epoch: u64 },
    /// A connection over a cut is given up.
    Broken { pair: (usize, usize), epoch: u64 },
    /// One end notices that the connection is gone.
    Noticed { pair: (usize, usize), side: usize },
    /// A link that nobody wants any more ends.
    Unwanted { pair: (usize, usize), epoch: u64 },
}

#[derive(Debug)]
struct Scheduled {
    at_us: u64,
    tie: u64,
    what: Happening,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.at_us, self.tie) == (other.at_us, other.tie)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    /// The heap gives its greatest: the earliest is the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at_us, other.tie).cmp(&(self.at_us, self.tie))
    }
}

/// A brain's answer to somebody outside.
#[derive(Debug)]
pub struct Answer {
    pub ticket: u64,
    pub machine: usize,
    pub reply: Result<Reply, Refusal>,
    /// The machines whose disks held the change then.
    pub holders: Vec<usize>,
}

/// Counts of what went on, for the summary.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub happenings: u64,
    pub messages: u64,
    pub commits: u64,
    pub containers: u64,
    pub refused: BTreeMap<&'static str, u64>,
}

/// Everything there is.
#[derive(Debug)]
pub struct World {
    pub now_us: u64,
    queue: BinaryHeap<Scheduled>,
    tie: u64,
    pub machines: Vec<Machine>,
    pub(super) at: BTreeMap<PeerId, usize>,
    pub network: Network,
    pub(super) signer: Signer,
    pub(super) dice: Dice,
    pub trace: Trace,
    pub cluster: ClusterId,
    pub minority_hold_ms: Option<u64>,
    pub promises: Promises,
    /// The lock group of all of them.
    pub locks: LockGroup,
    pub answers: VecDeque<Answer>,
    pub counts: Counts,
    pub plant: Option<Plant>,
}

impl World {
    /// A world of `n` machines that have never run. Machine 0 will found the cluster.
    pub fn new(seed: u64, n: usize) -> Self {
        let mut dice = Dice::new(seed, "world");
        let mut machines: Vec<Machine> = (0..n).map(|at| Machine::new(seed, at, &mut dice)).collect();
        let nonce = dice.bytes();
        machines[0].founding = Some(nonce);
        machines[0].joined = true;
        let cluster = ClusterId::of_founder(&machines[0].id, &nonce);
        Self::with(dice, seed, machines, cluster)
    }

    /// A world of these machines, members of a cluster or about to be.
    pub fn of(seed: u64, machines: Vec<Machine>, cluster: ClusterId) -> Self {
        Self::with(Dice::new(seed, "world"), seed, machines, cluster)
    }

    fn with(mut dice: Dice, seed: u64, machines: Vec<Machine>, cluster: ClusterId) -> Self {
        let at = machines.iter().enumerate().map(|(at, machine)| (machine.id, at)).collect();
        Self {
            now_us: 1_000_000,
            queue: BinaryHeap::new(),
            tie: 0,
            promises: Promises::new(machines.len()),
            locks: LockGroup::default(),
            machines,
            at,
            network: Network::new(seed),
            signer: Signer::new(dice.bytes()),
            dice,
            trace: Trace::default(),
            cluster,
            minority_hold_ms: Some(60_000),
            answers: VecDeque::new(),
            counts: Counts::default(),
            plant: None,
        }
    }

    /// The machine that has this identity now.
    pub(super) fn current(&self, peer: &PeerId) -> Option<usize> {
        self.machine_of(peer).filter(|at| self.machines[*at].id == *peer)
    }

    /// The machine that has this identity, or had it.
    pub fn machine_of(&self, peer: &PeerId) -> Option<usize> {
        self.at.get(peer).copied()
    }

    /// The time of the world, ms.
    pub fn now_ms(&self) -> u64 {
        self.now_us / 1000
    }

    /// What a clock shows that is right, ms since 1970.
    pub fn wall_ms(&self) -> u64 {
        self.wall_at(self.now_ms())
    }

    /// What it showed at a time of the world, ms.
    pub fn wall_at(&self, ms: u64) -> u64 {
        EPOCH_MS.saturating_add_unsigned(ms).unsigned_abs()
    }

    /// Lets everything happen through `until_ms`, or until a promise is broken.
    pub fn run_until(&mut self, until_ms: u64) {
        let until_us = until_ms * 1000;
        while self.promises.is_kept() && self.queue.peek().is_some_and(|next| next.at_us <= until_us) {
            let next = self.queue.pop().expect("there is a next");
            self.now_us = next.at_us;
            self.counts.happenings += 1;
            self.trace.mix(next.at_us);
            self.happen(next.what);
        }
        self.now_us = self.now_us.max(until_us);
    }

    pub(super) fn schedule(&mut self, at_us: u64, what: Happening) {
        self.tie += 1;
        self.queue.push(Scheduled { at_us: at_us.max(self.now_us), tie: self.tie, what });
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Keep { machine, process, claim, due_ms } => self.keep(machine, process, claim, due_ms),
            Happening::Asked { machine, process, claim, number, ask } => {
                self.asked(machine, process, claim, number, ask);
            }
            Happening::Answered { machine, process, claim, number, answer } => {
                self.lease_answered(machine, process, claim, number, answer);
            }
            Happening::Wake { machine, process, due_ms } => self.wake(machine, process, due_ms),
            Happening::Deliver { from, to, process, message } => self.deliver(from, to, process, message),
            Happening::Durable { machine, process, number } => self.durable(machine, process, number),
            Happening::Tell { machine, process, event } => {
                if self.machines[machine].process == process {
                    self.feed(machine, event);
                }
            }
            Happening::Course { machine, boot, claim, course } => self.container_moves(machine, boot, claim, course),
            Happening::Measure { machine, process } => self.measure(machine, process),
            Happening::Resume { machine, process } => self.resume(machine, process),
            Happening::Retired { machine, process } => self.retire(machine, process),
            Happening::Mischief { machine } => self.mischief(machine),
            Happening::Hello { newcomer } => self.hello(newcomer),
            Happening::Admit { newcomer, introducer, secret_hash, invitation } => {
                self.admit(newcomer, introducer, secret_hash, invitation);
            }
            Happening::Start { machine } => self.start(machine),
            Happening::Dial { pair } => self.consider(pair),
            Happening::Dialed { pair, epoch } => self.dialed(pair, epoch),
            Happening::Broken { pair, epoch } => self.broken(pair, epoch),
            Happening::Noticed { pair, side } => self.noticed(pair, side),
            Happening::Unwanted { pair, epoch } => self.unwanted(pair, epoch),
        }
    }

    /// Tells a brain something, or keeps it for when the daemon goes on.
    pub(super) fn feed(&mut self, machine: usize, mut event: Event) {
        let now = self.machines[machine].now(self.now_us);
        let target = &mut self.machines[machine];
        if target.paused {
            target.waiting.push_back(event);
            return;
        }
        let Some(brain) = target.brain.as_mut() else { return };
        // As the driver does: what is known already when its turn comes costs no signature.
        if let Event::Received { message, verified, .. } = &mut event {
            *verified = brain.is_news(message) && self.signer.verify(message);
        }
        self.trace.mix(machine as u64);
        if self.trace.print {
            crate::narrate::event(&self.trace, self.now_us, &target.name, &event);
        }
        let effects = brain.handle(now, event);
        self.perform(machine, effects);
        self.arm(machine);
    }

    /// Asks a brain for something; the answer comes in [`World::answers`] under the ticket.
    pub fn ask(&mut self, machine: usize, ticket: u64, request: Request) {
        let change = match &request {
            Request::Deploy { change, .. } | Request::Scale { change, .. } | Request::Remove { change, .. } => {
                Some(*change)
            }
            _ => None,
        };
        self.request(machine, Asker::Outside { ticket, change }, request);
    }

    pub(super) fn request(&mut self, machine: usize, asker: Asker, request: Request) {
        let target = &mut self.machines[machine];
        if !target.is_up() {
            return;
        }
        target.next_request += 1;
        let id = target.next_request;
        target.asked.insert(id, asker);
        self.feed(machine, Event::Request { id, request });
    }

    /// The first machine founds a cluster, the others join it, and all come to see each other.
    ///
    /// # Panics
    ///
    /// Where they do not within a minute, or a promise is broken: a story that is to begin thus cannot.
    pub fn gather(&mut self) {
        let all = self.machines.len();
        self.start(0);
        (1..all).for_each(|at| self.join(at, 1_500 + 100 * at as u64));
        let until_ms = self.now_ms() + 60_000;
        while !(0..all).all(|at| settles::look(self, at).is_some_and(|view| view.members_seen() as usize == all)) {
            assert!(
                self.promises.is_kept() && self.now_ms() < until_ms,
                "not all see each other: {:?}",
                self.promises.violations()
            );
            self.run_until(self.now_ms() + 20);
        }
    }

    /// Starts a daemon whose machine has joined.
    pub fn start(&mut self, machine: usize) {
        let target = &mut self.machines[machine];
        if target.is_up() || target.dead || !target.joined || target.hostile.is_some() {
            return;
        }
        if target.full && self.dice.chance(0.5) {
            // The store wants to write when it is opened.
            return self.schedule(self.now_us + 1_000_000, Happening::Start { machine });
        }
        let target = &mut self.machines[machine];
        target.process += 1;
        target.armed = None;
        target.commit = None;
        target.asked.clear();
        let now = target.now(self.now_us);
        let config = target.config(self.cluster, self.minority_hold_ms);
        let (mut brain, effects) = Brain::new(config, target.disk.restore(), now);
        if let Some(Plant::Brain(plant)) = self.plant {
            brain.plant(plant);
        }
        if target.later {
            brain.plant(rialto_protocol::plant::Plant::LaterVersion);
        }
        target.brain = Some(brain);
        let process = target.process;
        self.trace.line(self.now_us, || format!("m{machine} starts, life {process} of its daemon"));
        self.perform(machine, effects);
        let mut description = self.machines[machine].description();
        if self.plant == Some(Plant::BoastRoom) {
            description.capacity.add(&self.machines[machine].capacity.clone());
        }
        self.request(machine, Asker::Driver, Request::Describe(description));
        let mut at_us = self.now_us;
        for (claim, report) in self.machines[machine].executor.found() {
            at_us += self.dice.between(100, 3_000);
            self.schedule(at_us, Happening::Tell { machine, process, event: Event::Task { claim, report } });
        }
        at_us += self.dice.between(100, 3_000);
        self.schedule(at_us, Happening::Tell { machine, process, event: Event::TasksFound });
        self.schedule(at_us + 1_000, Happening::Measure { machine, process });
        self.arm(machine);
        for other in 0..self.machines.len() {
            self.consider_soon(machine, other);
        }
    }

    /// Kills a daemon, or with `power` its whole machine.
    pub fn crash(&mut self, machine: usize, power: bool) {
        let pending = self.machines[machine].disk.pending() as u64;
        let kept = self.dice.below(pending + 1) as usize;
        self.crash_keeping(machine, power, kept);
    }

    /// The same; of the transactions on their way to the disk the first `kept` arrive.
    pub(super) fn crash_keeping(&mut self, machine: usize, power: bool, kept: usize) {
        let target = &mut self.machines[machine];
        let was_up = target.brain.take().is_some();
        target.paused = false;
        target.waiting.clear();
        target.asked.clear();
        target.members.clear();
        target.wants.clear();
        target.keepers = Default::default();
        target.process += 1;
        let arrived = target.disk.crash(kept);
        self.trace.line(self.now_us, || format!("m{machine} {}", if power { "loses power" } else { "is killed" }));
        self.arrived(machine, &arrived);
        if power {
            let target = &mut self.machines[machine];
            target.boot += 1;
            target.booted_us = self.now_us;
            for claim in target.executor.power_off() {
                self.promises.history.vanished(claim, self.now_us / 1000);
                self.promises.strict.gone(&claim);
            }
        }
        if was_up {
            self.hang_up(machine, power);
        }
    }

    /// Stops a daemon for a while, as SIGSTOP does.
    pub fn pause(&mut self, machine: usize, ms: u64) {
        let target = &mut self.machines[machine];
        if !target.answers() {
            return;
        }
        target.paused = true;
        let process = target.process;
        self.trace.line(self.now_us, || format!("m{machine} pauses for {ms} ms"));
        self.schedule(self.now_us + ms * 1000, Happening::Resume { machine, process });
    }

    /// Ends every pause.
    pub fn resume_all(&mut self) {
        for machine in 0..self.machines.len() {
            self.resume(machine, self.machines[machine].process);
        }
    }

    fn resume(&mut self, machine: usize, process: u64) {
        let target = &mut self.machines[machine];
        if target.process != process || !target.paused {
            return;
        }
        target.paused = false;
        self.trace.line(self.now_us, || format!("m{machine} goes on"));
        // Whether the timer or the socket is read first is chance in a real daemon, too.
        if self.dice.chance(0.5) {
            self.feed(machine, Event::Woke);
        }
        let waiting = std::mem::take(&mut self.machines[machine].waiting);
        for event in waiting {
            self.feed(machine, event);
        }
        self.machines[machine].armed = None;
        self.arm(machine);
    }

    fn wake(&mut self, machine: usize, process: u64, due_ms: u64) {
        let target = &mut self.machines[machine];
        if target.process != process || target.armed != Some(due_ms) || target.paused {
            return;
        }
        target.armed = None;
        let now_ms = target.now(self.now_us).ms;
        let due = target.brain.as_ref().and_then(Brain::next_deadline);
        match due {
            Some(due) if due <= now_ms => self.feed(machine, Event::Woke),
            _ => self.arm(machine),
        }
    }

    /// Schedules the next wake-up where the brain wants one earlier than the one scheduled.
    fn arm(&mut self, machine: usize) {
        let target = &mut self.machines[machine];
        let Some(due) = target.brain.as_ref().and_then(Brain::next_deadline) else { return };
        if target.paused || target.armed.is_some_and(|armed| armed <= due) {
            return;
        }
        let now_ms = target.now(self.now_us).ms;
        target.spins = if due <= now_ms { target.spins + 1 } else { 0 };
        if target.spins > SPINS_MAX {
            let text = format!("m{machine} wants to be woken at {due} ms, and it is {now_ms} ms: it spins");
            self.promises.broken("brain", self.now_us / 1000, text);
            return;
        }
        target.armed = Some(due);
        let process = target.process;
        let at_us = target.world_us(due);
        self.schedule(at_us, Happening::Wake { machine, process, due_ms: due });
    }

    fn measure(&mut self, machine: usize, process: u64) {
        if self.machines[machine].process != process {
            return;
        }
        let load_millis = 50 * self.machines[machine].executor.live.len() as u64;
        let images = self.machines[machine].images.clone();
        let disk_full = self.machines[machine].short;
        self.feed(machine, Event::Measured { load_millis, images, disk_full });
        let next = self.now_us + self.dice.between(4_500_000, 5_500_000);
        self.schedule(next, Happening::Measure { machine, process });
    }
}
