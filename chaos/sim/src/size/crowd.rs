//! Peers on a fair local network: each message arrives once and in order, after 100 to 300 µs that
//! are the pair's own; a commit is durable after a millisecond; a container runs after five.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::time::Instant;

use rialto_protocol::event::{Request, TaskReport};
use rialto_protocol::ids::{ClaimId, PeerId, TaskId, rendezvous};
use rialto_protocol::ledger::record::Signature;
use rialto_protocol::model::Health;
use rialto_protocol::wire::Message;
use rialto_protocol::{Brain, Config, Effect, Event, Now};

use super::bytes::Scales;
use super::standing::{Standing, description};
use super::tally::{Tally, kind};
use crate::Dice;

/// Wall clock at the beginning, ms since 1970.
pub const WALL_MS: u64 = 1_750_000_000_000;
/// The monotonic clock at the beginning, ms.
const BEGIN_MS: u64 = 1_000;
/// What brains hold alike is looked for this often.
const SHARE_US: u64 = 250_000;
const COMMIT_US: u64 = 1_000;
const SIGN_US: u64 = 50;
const START_US: u64 = 5_000;
const DIAL_US: u64 = 1_500;
/// One end notices that a connection was closed after this long.
const NOTICE_US: u64 = 500;
/// A connection over a cut is given up after this long, at least and at most,
const GIVE_UP_US: (u64, u64) = (5_000_000, 10_000_000);
/// and a dial that fails is tried again after this long: as the mesh does it.
const DIAL_AGAIN_US: (u64, u64) = (2_500_000, 7_500_000);

#[derive(Debug)]
enum What {
    Wake {
        peer: u32,
        due_ms: u64,
    },
    /// What one turn says to one peer arrives together: mostly one message.
    Deliver {
        from: u32,
        to: u32,
        message: Message,
        more: Vec<Message>,
    },
    Tell {
        peer: u32,
        event: Box<Event>,
    },
    Dialed {
        pair: (u32, u32),
    },
    GivenUp {
        pair: (u32, u32),
    },
}

/// Ordered by time, then by when it was scheduled; what is to happen lies in a place of its own, for it is large.
type Scheduled = (u64, u64, u32);

/// What is going to happen.
#[derive(Debug, Default)]
struct Queue {
    order: BinaryHeap<Reverse<Scheduled>>,
    places: Vec<Option<What>>,
    free: Vec<u32>,
    tie: u64,
}

impl Queue {
    /// The place at which it lies until then.
    fn push(&mut self, at_us: u64, what: What) -> u32 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        self.places[place as usize] = Some(what);
        self.tie += 1;
        self.order.push(Reverse((at_us, self.tie, place)));
        place
    }

    /// The next thing that is due by then.
    fn pop(&mut self, until_us: u64) -> Option<(u64, What)> {
        self.order.peek().filter(|next| next.0.0 <= until_us)?;
        let Reverse((at_us, _, place)) = self.order.pop()?;
        self.free.push(place);
        Some((at_us, self.places[place as usize].take()?))
    }
}

/// One peer.
#[derive(Debug)]
struct Peer {
    id: PeerId,
    brain: Brain,
    armed: Option<u64>,
    wants: BTreeSet<u32>,
    linked: BTreeSet<u32>,
    /// What runs, by claim.
    live: BTreeMap<ClaimId, TaskId>,
}

/// A record on its way to all.
#[derive(Debug)]
struct Watch {
    owner: PeerId,
    seq: u64,
    since_us: u64,
    lacking: BTreeSet<u32>,
    /// How long it took to each, µs.
    took: Vec<u64>,
}

/// All peers, and what is going to happen.
#[derive(Debug)]
pub struct Crowd {
    now_us: u64,
    queue: Queue,
    /// Where what the turn that is performed says to each lies, and when it arrives.
    said: Vec<(u32, u64, u32)>,
    peers: Vec<Peer>,
    at: HashMap<PeerId, u32>,
    dice: Dice,
    scales: Scales,
    pub tally: Tally,
    watch: Option<Watch>,
    requests: u64,
    /// Those that found others to hold more of them than they wrote.
    pub retired: BTreeSet<usize>,
    /// While the cluster is split: peers below this do not hear those from it on.
    split_at: Option<u32>,
    /// When the brains look next for what they hold alike.
    share_us: u64,
}

impl Crowd {
    /// Everybody starts from the same ledger; `each` is called as each has started.
    pub fn new(seed: u64, standing: &Standing, mut each: impl FnMut(usize)) -> Self {
        let mut dice = Dice::new(seed, "crowd");
        let now = Now { ms: BEGIN_MS, wall: WALL_MS };
        let at = standing.peers.iter().enumerate().map(|(at, id)| (*id, at as u32)).collect();
        let mut crowd = Self {
            now_us: BEGIN_MS * 1000,
            queue: Queue::default(),
            said: Vec::new(),
            peers: Vec::new(),
            at,
            dice: Dice::new(seed, "events"),
            scales: Scales::default(),
            tally: Tally::default(),
            watch: None,
            requests: 0,
            retired: BTreeSet::new(),
            split_at: None,
            share_us: BEGIN_MS * 1000 + SHARE_US,
        };
        for (at, id) in standing.peers.iter().enumerate() {
            let config = Config {
                me: *id,
                cluster: standing.cluster,
                founding: (at == 0).then_some(standing.nonce),
                chain: Vec::new(),
                seed: dice.number(),
                minority_hold_ms: Some(60_000),
            };
            // What all hold alike is read, and held, once.
            let (brain, effects) = match crowd.peers.first() {
                None => Brain::new(config, standing.restored(at), now),
                Some(Peer { brain, .. }) => brain.beside(config, standing.local(at).to_vec(), now),
            };
            let (wants, linked) = (BTreeSet::new(), BTreeSet::new());
            let live = standing.running(at).iter().map(|run| (run.claim, run.task.clone())).collect();
            crowd.peers.push(Peer { id: *id, brain, armed: None, wants, linked, live });
            crowd.perform(at as u32, effects);
            crowd.begin(at as u32, standing);
            each(at);
        }
        crowd
    }

    /// What a driver tells its brain at the start.
    fn begin(&mut self, peer: u32, standing: &Standing) {
        let at = peer as usize;
        self.ask(at, Request::Describe(description(at)));
        for run in standing.running(at) {
            let report = TaskReport::Running { image_digest: None, started_at: run.started_at, health: Health::None };
            self.feed(peer, Event::Task { claim: run.claim, report });
        }
        // Daemons do not start on the same microsecond.
        let at_us = self.now_us + self.dice.below(2_000_000);
        self.schedule(at_us, What::Tell { peer, event: Box::new(Event::TasksFound) });
        self.arm(peer);
    }

    /// The time, ms since the beginning.
    pub fn now_ms(&self) -> u64 {
        self.now_us / 1000 - BEGIN_MS
    }

    pub fn len(&self) -> usize {
        self.peers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    pub fn brain(&self, peer: usize) -> &Brain {
        &self.peers[peer].brain
    }

    /// Standing links a peer, on average and at most.
    pub fn links(&self) -> (f64, usize) {
        let counts = self.peers.iter().map(|peer| peer.linked.len());
        (counts.clone().sum::<usize>() as f64 / self.peers.len() as f64, counts.max().unwrap_or(0))
    }

    /// Links that bring everything, a peer.
    pub fn eager(&self) -> f64 {
        self.peers.iter().map(|peer| peer.brain.eager_and_lazy().0).sum::<usize>() as f64 / self.peers.len() as f64
    }

    /// A time as a brain reads it.
    pub fn now(&self) -> Now {
        Now { ms: self.now_us / 1000, wall: WALL_MS + self.now_us / 1000 - BEGIN_MS }
    }

    /// Lets everything happen for so long.
    pub fn run_for(&mut self, ms: u64) {
        let until = self.now_us + ms * 1000;
        while let Some((at_us, what)) = self.queue.pop(until) {
            self.now_us = at_us;
            if self.share_us <= self.now_us {
                self.share_us = self.now_us + SHARE_US;
                self.share();
            }
            self.happen(what);
        }
        self.now_us = until;
    }

    /// What all have read alike, each for itself, is held once again.
    fn share(&mut self) {
        if let Some((first, others)) = self.peers.split_first_mut() {
            others.iter_mut().for_each(|peer| peer.brain.share(&first.brain));
        }
    }

    /// Asks a peer for something.
    pub fn ask(&mut self, peer: usize, request: Request) {
        self.requests += 1;
        let id = self.requests;
        self.feed(peer as u32, Event::Request { id, request });
    }

    /// Has a peer write a record, and waits until all hold it: how long it took to each, µs, and how
    /// many did not within `within_ms`.
    pub fn spread_one(&mut self, peer: usize, within_ms: u64) -> (Vec<u64>, usize) {
        let owner = self.peers[peer].id;
        let seq = self.peers[peer].brain.complete(&owner) + 1;
        let lacking = (0..self.peers.len() as u32).filter(|at| *at as usize != peer).collect();
        self.watch = Some(Watch { owner, seq, since_us: self.now_us, lacking, took: Vec::new() });
        let name = format!("image{seq}");
        self.ask(peer, Request::Image { name, digest: "sha256:00".into(), bytes: 1, present: true, brought: true });
        let until = self.now_ms() + within_ms;
        while self.now_ms() < until && self.watch.as_ref().is_some_and(|watch| !watch.lacking.is_empty()) {
            self.run_for(10);
        }
        self.watch.take().map_or((Vec::new(), 0), |watch| (watch.took, watch.lacking.len()))
    }

    /// The identity of a peer.
    pub fn id(&self, peer: usize) -> PeerId {
        self.peers[peer].id
    }

    /// Has `from` send something that its brain has not thought of.
    pub fn inject(&mut self, from: usize, to: usize, message: Message) {
        let to = self.peers[to].id;
        self.said.clear();
        self.send(from as u32, &to, message);
    }

    /// From now on the peers below `at` and the others do not hear each other.
    pub fn split(&mut self, at: usize) {
        self.split_at = Some(at as u32);
        for one in 0..at as u32 {
            let cut: Vec<u32> = self.peers[one as usize].linked.range(at as u32..).copied().collect();
            for other in cut {
                let at_us = self.now_us + self.dice.between(GIVE_UP_US.0, GIVE_UP_US.1);
                self.schedule(at_us, What::GivenUp { pair: (one, other) });
            }
        }
    }

    /// All hear each other again.
    pub fn heal(&mut self) {
        self.split_at = None;
    }

    fn is_cut(&self, a: u32, b: u32) -> bool {
        self.split_at.is_some_and(|at| (a < at) != (b < at))
    }

    /// Peers that hold another ledger than the first.
    pub fn differing(&self) -> usize {
        let first = self.peers[0].brain.sums();
        self.peers.iter().filter(|peer| peer.brain.sums() != first).count()
    }

    /// Tasks that are wanted and do not run, and containers that nobody wants or that run twice, by what the
    /// first peer believes is wanted.
    pub fn unsettled(&self) -> (usize, usize) {
        let view = self.peers[0].brain.view(self.now());
        let mut wanted = BTreeSet::new();
        for app in view.apps() {
            for (name, service) in &app.spec.services {
                for slot in 1..=service.replicas {
                    wanted.insert(format!("{}.{name}.{slot}", app.app));
                }
            }
        }
        let mut extra = 0;
        for task in self.peers.iter().flat_map(|peer| peer.live.values()) {
            extra += usize::from(!wanted.remove(&task.to_string()));
        }
        (wanted.len(), extra)
    }

    fn schedule(&mut self, at_us: u64, what: What) {
        self.queue.push(at_us.max(self.now_us), what);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Wake { peer, due_ms } => {
                let target = &mut self.peers[peer as usize];
                if target.armed != Some(due_ms) {
                    return;
                }
                target.armed = None;
                match target.brain.next_deadline() {
                    Some(due) if due <= self.now_us / 1000 => self.feed(peer, Event::Woke),
                    _ => self.arm(peer),
                }
            }
            What::Deliver { from, to, message, more } => {
                let from = self.peers[from as usize].id;
                for message in std::iter::once(message).chain(more) {
                    self.feed(to, Event::Received { from, message, verified: true });
                }
            }
            What::Tell { peer, event } => self.feed(peer, *event),
            What::Dialed { pair: (a, b) } => {
                let wanted = self.peers[a as usize].wants.contains(&b) || self.peers[b as usize].wants.contains(&a);
                if wanted && self.is_cut(a, b) {
                    let at_us = self.now_us + self.dice.between(DIAL_AGAIN_US.0, DIAL_AGAIN_US.1);
                    self.schedule(at_us, What::Dialed { pair: (a, b) });
                } else if wanted && self.peers[a as usize].linked.insert(b) {
                    self.peers[b as usize].linked.insert(a);
                    self.tell_link(a, b, true);
                    self.tell_link(b, a, true);
                }
            }
            What::GivenUp { pair: (a, b) } => {
                if self.is_cut(a, b) && self.peers[a as usize].linked.remove(&b) {
                    self.peers[b as usize].linked.remove(&a);
                    self.tell_link(a, b, false);
                    self.tell_link(b, a, false);
                    self.schedule(self.now_us + DIAL_US, What::Dialed { pair: (a, b) });
                }
            }
        }
    }

    fn tell_link(&mut self, peer: u32, other: u32, up: bool) {
        let event = Event::Link { peer: self.peers[other as usize].id, up };
        self.feed(peer, event);
    }

    fn feed(&mut self, peer: u32, event: Event) {
        let now = self.now();
        let target = &mut self.peers[peer as usize];
        let is_news = match &event {
            Event::Received { message, .. } => target.brain.is_news(message),
            _ => true,
        };
        match &event {
            Event::Received { message: Message::Frame(_), .. } if is_news => self.tally.news += 1,
            Event::Received { message: Message::Frame(_), .. } => self.tally.duplicates += 1,
            Event::Received { message: Message::Vitals(_), .. } if is_news => self.tally.vitals_news += 1,
            Event::Received { message: Message::Vitals(_), .. } => self.tally.vitals_duplicates += 1,
            _ => {}
        }
        let kind = kind(&event, is_news);
        let began = Instant::now();
        let effects = target.brain.handle(now, event);
        self.tally.handled(kind, began.elapsed());
        if let Some(watch) = &mut self.watch
            && watch.lacking.contains(&peer)
            && target.brain.complete(&watch.owner) >= watch.seq
        {
            watch.lacking.remove(&peer);
            watch.took.push(self.now_us - watch.since_us);
        }
        self.perform(peer, effects);
        self.arm(peer);
    }

    fn arm(&mut self, peer: u32) {
        let target = &mut self.peers[peer as usize];
        let Some(due_ms) = target.brain.next_deadline() else { return };
        if target.armed.is_some_and(|armed| armed <= due_ms) {
            return;
        }
        target.armed = Some(due_ms);
        self.schedule(due_ms * 1000, What::Wake { peer, due_ms });
    }

    fn perform(&mut self, peer: u32, effects: Vec<Effect>) {
        self.said.clear();
        for effect in effects {
            match effect {
                Effect::Send { to, message } => self.send(peer, &to, message),
                Effect::Commit { commit, drafts, .. } => {
                    let signatures = vec![Signature([0; 64]); drafts.len()];
                    self.tell(peer, COMMIT_US, Event::Committed { commit, signatures });
                }
                Effect::Store { token: Some(token), .. } => self.tell(peer, COMMIT_US, Event::Stored { token }),
                Effect::SignVitals { vitals } => {
                    let signature = Signature([0; 64]);
                    self.tell(peer, SIGN_US, Event::VitalsSigned { counter: vitals.counter, signature });
                }
                Effect::Links { peers } => self.wants(peer, peers.iter().map(|(peer, _)| *peer)),
                Effect::Start { claim, spec } => {
                    self.peers[peer as usize].live.insert(claim, spec.task.clone());
                    let report =
                        TaskReport::Running { image_digest: None, started_at: self.now().wall, health: Health::None };
                    self.tell(peer, START_US, Event::Task { claim, report });
                }
                Effect::Stop { claim, .. } => {
                    self.peers[peer as usize].live.remove(&claim);
                    let ended_at = self.now().wall;
                    let report = TaskReport::Exited { exit_code: 143, oom_killed: false, ended_at };
                    self.tell(peer, START_US, Event::Task { claim, report });
                }
                Effect::Report { what, .. } => *self.tally.reports.entry(what.name()).or_default() += 1,
                Effect::Retire { .. } => drop(self.retired.insert(peer as usize)),
                Effect::Store { token: None, .. }
                | Effect::Members { .. }
                | Effect::Forget { .. }
                | Effect::Reply { .. }
                | Effect::Changed { .. }
                | Effect::Acquire { .. }
                | Effect::Release { .. }
                | Effect::Note { .. } => {}
            }
        }
    }

    fn tell(&mut self, peer: u32, after_us: u64, event: Event) {
        self.schedule(self.now_us + after_us, What::Tell { peer, event: Box::new(event) });
    }

    fn send(&mut self, from: u32, to: &PeerId, message: Message) {
        let bytes = self.scales.weigh(&message);
        self.tally.sent(&message, bytes);
        let Some(to) = self.at.get(to).copied().filter(|to| *to != from) else { return };
        if self.is_cut(from, to) {
            return;
        }
        let delay_us = 100 + rendezvous(u64::from(from), u64::from(to)) % 200;
        // Without a standing link a connection is made first.
        let dial_us = if self.peers[from as usize].linked.contains(&to) { 0 } else { DIAL_US };
        let at_us = self.now_us + delay_us + dial_us;
        let said = self.said.iter().find(|said| (said.0, said.1) == (to, at_us));
        if let Some(What::Deliver { more, .. }) = said.and_then(|said| self.queue.places[said.2 as usize].as_mut()) {
            more.push(message);
        } else {
            let place = self.queue.push(at_us, What::Deliver { from, to, message, more: Vec::new() });
            self.said.push((to, at_us, place));
        }
    }

    fn wants(&mut self, peer: u32, wanted: impl Iterator<Item = PeerId>) {
        let wanted: BTreeSet<u32> =
            wanted.filter_map(|id| self.at.get(&id).copied()).filter(|at| *at != peer).collect();
        let before = std::mem::replace(&mut self.peers[peer as usize].wants, wanted.clone());
        for other in wanted.difference(&before) {
            if !self.peers[peer as usize].linked.contains(other) {
                self.schedule(self.now_us + DIAL_US, What::Dialed { pair: (peer, *other) });
            }
        }
        for other in before.difference(&wanted) {
            let gone = !self.peers[*other as usize].wants.contains(&peer);
            if gone && self.peers[peer as usize].linked.remove(other) {
                self.peers[*other as usize].linked.remove(&peer);
                for (one, two) in [(peer, *other), (*other, peer)] {
                    let id = self.peers[two as usize].id;
                    self.tell(one, NOTICE_US, Event::Link { peer: id, up: false });
                }
            }
        }
    }
}
