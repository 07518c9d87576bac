//! Peers with real brains, in one process: a mesh of channels, disks that are always durable, and an executor that
//! does what its words say.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use rialto_node::api::{Chunk, Duplex, Forward, LogStream, Logs, Open, serve_stream};
use rialto_node::handle::{Ask, Handle};
use rialto_node::news::{News, Scope};
use rialto_protocol::effect::{Refusal, Reply};
use rialto_protocol::event::{Description, Now, Request, TaskReport};
use rialto_protocol::ids::{ClaimId, ClusterId, InvitationId, PeerId};
use rialto_protocol::ledger::record::Signature;
use rialto_protocol::model::{Executor, Health, Resources, TaskSpec};
use rialto_protocol::{Brain, Config, Effect, Event, Restored};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

const UNSIGNED: Signature = Signature([0; 64]);

/// Everything between the peers.
#[derive(Clone, Default)]
pub struct Roads {
    peers: Arc<Mutex<BTreeMap<PeerId, mpsc::UnboundedSender<Event>>>>,
    routers: Arc<Mutex<BTreeMap<PeerId, Router>>>,
}

impl Roads {
    fn tell(&self, to: &PeerId, event: Event) {
        if let Some(events) = self.peers.lock().unwrap().get(to) {
            let _ = events.send(event);
        }
    }

    fn knows(&self, peer: &PeerId) -> bool {
        self.peers.lock().unwrap().contains_key(peer)
    }

    pub fn add_router(&self, peer: PeerId, router: Router) {
        self.routers.lock().unwrap().insert(peer, router);
    }

    /// A machine is gone, from one moment to the next.
    pub fn lose(&self, peer: &PeerId) {
        self.peers.lock().unwrap().remove(peer);
        self.routers.lock().unwrap().remove(peer);
        for events in self.peers.lock().unwrap().values() {
            let _ = events.send(Event::Link { peer: *peer, up: false });
        }
    }
}

/// The way from one peer to the others.
pub struct Road {
    pub me: PeerId,
    pub roads: Roads,
}

impl Open for Road {
    fn open(&self, peer: PeerId, _: Vec<String>) -> BoxFuture<'_, io::Result<Box<dyn Duplex>>> {
        Box::pin(async move {
            let router = self.roads.routers.lock().unwrap().get(&peer).cloned();
            let router = router.ok_or(io::ErrorKind::HostUnreachable)?;
            let (here, there) = tokio::io::duplex(1 << 16);
            tokio::spawn(serve_stream(router, there, self.me, CancellationToken::new()));
            Ok(Box::new(here) as Box<dyn Duplex>)
        })
    }
}

/// A peer of a village.
pub struct Peer {
    pub id: PeerId,
    pub handle: Handle,
    pub memory: Arc<Memory>,
    pub roads: Roads,
}

impl Peer {
    pub async fn found(roads: &Roads, cpus: u64) -> Self {
        let id = PeerId([1; 32]);
        let nonce = [7; 16];
        let config = config(id, ClusterId::of_founder(&id, &nonce));
        Self::start(roads, Config { founding: Some(nonce), ..config }, cpus).await
    }

    pub async fn join(&self, number: u8, cpus: u64) -> Self {
        let id = PeerId([number; 32]);
        let cluster = ClusterId::of_founder(&self.id, &[7; 16]);
        let (invitation, secret_hash) = (InvitationId([number; 16]), [number; 32]);
        let invite = Request::Invite { invitation, secret_hash, uses: 1, ttl_ms: 60_000 };
        self.handle.request(invite).await.unwrap();
        let admit = Request::Admit { key: id, cluster, invitation, secret_hash };
        let Ok(Reply::Admitted { chain }) = self.handle.request(admit).await else { panic!("not admitted") };
        let peer = Self::start(&self.roads, Config { chain, ..config(id, cluster) }, cpus).await;
        // As the mesh does it: a newcomer's first link is to whoever let it in.
        self.roads.tell(&self.id, Event::Link { peer: id, up: true });
        self.roads.tell(&id, Event::Link { peer: self.id, up: true });
        let mut changes = self.handle.changes();
        while self.handle.read(|brain, now| brain.view(now).machines().len()).await != Some(number as usize) {
            changes.changed().await.unwrap();
        }
        peer
    }

    async fn start(roads: &Roads, config: Config, cpus: u64) -> Self {
        let id = config.me;
        let (events, events_in) = mpsc::unbounded_channel();
        let (asks, asks_in) = mpsc::channel(64);
        let (changed, changes) = watch::channel(News::default());
        roads.peers.lock().unwrap().insert(id, events.clone());
        let memory = Arc::new(Memory::default());
        let (brain, first) = Brain::new(config, Restored::default(), now());
        let tasks = Tasks { memory: memory.clone(), events: events.clone(), stops: BTreeMap::new() };
        let body = Body {
            me: id,
            brain,
            roads: roads.clone(),
            events,
            changed,
            waiting: BTreeMap::new(),
            tasks,
            linked: BTreeSet::new(),
        };
        tokio::spawn(body.live(first, events_in, asks_in));
        let handle = Handle::new(asks, changes);
        let description = Description {
            name: format!("m{}", id.0[0]),
            addresses: vec![format!("127.0.0.{}:7400", id.0[0])],
            labels: BTreeMap::new(),
            capacity: Resources::of(cpus * 1000, 1 << 30),
            allows: Vec::new(),
            version: "test".into(),
            executor: Executor::Container,
            network: None,
        };
        handle.request(Request::Describe(description)).await.unwrap();
        roads.tell(&id, Event::TasksFound);
        Self { id, handle, memory, roads: roads.clone() }
    }

    pub fn forward(&self) -> Forward<Road> {
        Forward::new(Road { me: self.id, roads: self.roads.clone() })
    }
}

fn config(me: PeerId, cluster: ClusterId) -> Config {
    Config { me, cluster, founding: None, chain: Vec::new(), seed: u64::from(me.0[0]), minority_hold_ms: None }
}

fn now() -> Now {
    static START: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    let ms = START.elapsed().as_millis() as u64 + 1_000;
    Now { ms, wall: 1_767_225_600_000 + ms }
}

struct Body {
    me: PeerId,
    brain: Brain,
    roads: Roads,
    events: mpsc::UnboundedSender<Event>,
    changed: watch::Sender<News>,
    waiting: BTreeMap<u64, oneshot::Sender<Result<Reply, Refusal>>>,
    tasks: Tasks,
    linked: BTreeSet<PeerId>,
}

impl Body {
    async fn live(
        mut self,
        first: Vec<Effect>,
        mut events: mpsc::UnboundedReceiver<Event>,
        mut asks: mpsc::Receiver<Ask>,
    ) {
        self.perform(first);
        loop {
            let left = self.brain.next_deadline().map(|at| at.saturating_sub(now().ms));
            let event = tokio::select! {
                Some(event) = events.recv() => event,
                ask = asks.recv() => match ask {
                    None => return,
                    Some(Ask::Read(look) | Ask::Watch(look)) => {
                        look(&self.brain, now());
                        continue;
                    }
                    Some(Ask::Request(request, answer)) => {
                        let id = self.waiting.len() as u64 + self.waiting.keys().max().unwrap_or(&0) + 1;
                        self.waiting.insert(id, answer);
                        Event::Request { id, request }
                    }
                },
                () = tokio::time::sleep(Duration::from_millis(left.unwrap_or(3_600_000))) => Event::Woke,
            };
            let effects = self.brain.handle(now(), event);
            self.perform(effects);
        }
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                // Nobody hears a machine that is lost, though it goes on here.
                Effect::Send { to, message } if self.roads.knows(&self.me) => {
                    self.roads.tell(&to, Event::Received { from: self.me, message, verified: true });
                }
                Effect::Commit { commit, drafts, .. } => {
                    let _ = self.events.send(Event::Committed { commit, signatures: vec![UNSIGNED; drafts.len()] });
                }
                Effect::Store { token: Some(token), .. } => drop(self.events.send(Event::Stored { token })),
                Effect::SignVitals { vitals } => {
                    let event = Event::VitalsSigned { counter: vitals.counter, signature: UNSIGNED };
                    let _ = self.events.send(event);
                }
                Effect::Links { peers } => {
                    for (peer, _) in peers {
                        if self.roads.peers.lock().unwrap().contains_key(&peer) && self.linked.insert(peer) {
                            self.roads.tell(&peer, Event::Link { peer: self.me, up: true });
                            let _ = self.events.send(Event::Link { peer, up: true });
                        }
                    }
                }
                Effect::Start { claim, spec } => self.tasks.start(claim, spec),
                Effect::Stop { claim, .. } => self.tasks.stop(claim),
                Effect::Reply { request, reply } => {
                    if let Some(answer) = self.waiting.remove(&request) {
                        let _ = answer.send(reply);
                    }
                }
                Effect::Changed { .. } => self.changed.send_modify(|news| news.tell(Scope::Everything)),
                _ => {}
            }
        }
    }
}

/// Runs tasks whose command's words are `out:TEXT`, `err:TEXT`, `wait`, `exit:CODE`, and `holders`: how many machines it
/// is told to ask for its image.
struct Tasks {
    memory: Arc<Memory>,
    events: mpsc::UnboundedSender<Event>,
    stops: BTreeMap<ClaimId, CancellationToken>,
}

impl Tasks {
    fn start(&mut self, claim: ClaimId, spec: Arc<TaskSpec>) {
        if self.stops.contains_key(&claim) {
            return;
        }
        let stop = CancellationToken::new();
        self.stops.insert(claim, stop.clone());
        let (events, memory) = (self.events.clone(), self.memory.clone());
        tokio::spawn(async move {
            let tell = |report| drop(events.send(Event::Task { claim, report }));
            if spec.image.starts_with("broken") {
                tell(TaskReport::Failed { reason: "no such image".into() });
                return;
            }
            memory.write(claim, "stdout", "");
            tell(TaskReport::Running { image_digest: None, started_at: now().wall, health: Health::None });
            let mut exit_code = 0;
            for word in &spec.command {
                if word == "holders" {
                    memory.write(claim, "stdout", &spec.image_at.len().to_string());
                    continue;
                }
                match word.split_once(':') {
                    Some(("out", text)) => memory.write(claim, "stdout", text),
                    Some(("err", text)) => memory.write(claim, "stderr", text),
                    Some(("exit", code)) => exit_code = code.parse().unwrap(),
                    _ => {
                        stop.cancelled().await;
                        exit_code = 143;
                    }
                }
            }
            memory.end(claim);
            tell(TaskReport::Exited { exit_code, oom_killed: false, ended_at: now().wall });
        });
    }

    fn stop(&mut self, claim: ClaimId) {
        if let Some(stop) = self.stops.get(&claim) {
            stop.cancel();
        }
    }
}

type Log = (Vec<Chunk>, bool);

/// What tasks printed, and whether they have ended.
#[derive(Clone, Default)]
pub struct Memory {
    logs: Arc<Mutex<BTreeMap<ClaimId, Log>>>,
    grown: watch::Sender<u64>,
}

impl Memory {
    fn write(&self, claim: ClaimId, stream: &'static str, text: &str) {
        let chunk = Chunk { stream, at: 0, data: Bytes::copy_from_slice(text.as_bytes()) };
        let mut logs = self.logs.lock().unwrap();
        logs.entry(claim).or_default().0.extend((!text.is_empty()).then_some(chunk));
        self.grown.send_modify(|count| *count += 1);
    }

    fn end(&self, claim: ClaimId) {
        self.logs.lock().unwrap().entry(claim).or_default().1 = true;
        self.grown.send_modify(|count| *count += 1);
    }

    fn log(&self, claim: ClaimId) -> Option<Log> {
        self.logs.lock().unwrap().get(&claim).cloned()
    }
}

impl Logs for Memory {
    fn read(&self, claim: ClaimId, tail: Option<usize>) -> LogStream {
        let Some((chunks, _)) = self.log(claim) else {
            return futures::stream::iter([Err(io::ErrorKind::NotFound.into())]).boxed();
        };
        let from = chunks.len().saturating_sub(tail.unwrap_or(usize::MAX));
        futures::stream::iter(chunks.into_iter().skip(from).map(Ok)).boxed()
    }

    fn follow(&self, claim: ClaimId, tail: Option<usize>) -> LogStream {
        let (memory, mut grown, (send, receive)) = (self.clone(), self.grown.subscribe(), mpsc::channel(1));
        let Some((chunks, _)) = self.log(claim) else { return self.read(claim, tail) };
        let mut from = chunks.len().saturating_sub(tail.unwrap_or(usize::MAX));
        tokio::spawn(async move {
            while let Some((chunks, ended)) = memory.log(claim) {
                for chunk in &chunks[from..] {
                    if send.send(Ok(chunk.clone())).await.is_err() {
                        return;
                    }
                }
                from = chunks.len();
                if ended {
                    return;
                }
                tokio::select! {
                    _ = grown.changed() => {}
                    () = send.closed() => return,
                }
            }
        });
        tokio_stream::wrappers::ReceiverStream::new(receive).boxed()
    }
}
