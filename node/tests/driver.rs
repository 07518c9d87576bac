//! The driver with the real brain and the real store, alone: what is asked is done, durable, and
//! there again after a restart.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rialto_node::driver::counters::Counters;
use rialto_node::driver::ports::{Leases, Network, Ports, Tasks};
use rialto_node::driver::{Doors, Ended};
use rialto_node::events::EventLog;
use rialto_node::handle::Handle;
use rialto_node::identity::{Belonging, Identity};
use rialto_node::store::Store;
use rialto_node::verify::verify;
use rialto_protocol::effect::{Refusal, Reply};
use rialto_protocol::event::{Description, Request, TaskReport};
use rialto_protocol::ids::{ChangeId, ClaimId, PeerId};
use rialto_protocol::lease::Need;
use rialto_protocol::model::{AppSpec, Executor, Health, Resources, ServiceSpec, TaskSpec};
use rialto_protocol::view::TaskFilter;
use rialto_protocol::wire::Message;
use rialto_protocol::{Config, Event};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

struct Nobody;

impl Leases for Nobody {
    fn acquire(&self, _: ClaimId, _: Need) {}
    fn release(&self, _: ClaimId) {}
}

impl Network for Nobody {
    fn send(&self, _: PeerId, _: Message) {}
    fn links(&self, _: Vec<(PeerId, Vec<String>)>) {}
    fn members(&self, _: Vec<(PeerId, Vec<String>)>) {}
}

/// Tells the test what is to be started and stopped.
struct Told(mpsc::UnboundedSender<(&'static str, ClaimId)>);

impl Tasks for Told {
    fn start(&self, claim: ClaimId, _: Arc<TaskSpec>) {
        let _ = self.0.send(("start", claim));
    }
    fn stop(&self, claim: ClaimId, _: u64) {
        let _ = self.0.send(("stop", claim));
    }
    fn forget(&self, claim: ClaimId) {
        let _ = self.0.send(("forget", claim));
    }
}

/// One life of a peer without a mesh.
struct Life {
    handle: Handle,
    events: mpsc::Sender<Event>,
    orders: mpsc::UnboundedReceiver<(&'static str, ClaimId)>,
    log: EventLog,
    stop: CancellationToken,
    ended: oneshot::Receiver<Ended>,
}

impl Life {
    async fn begin(data: &Path) -> Self {
        let identity = Identity::load_or_create(data).unwrap();
        let belonging = Belonging::load(data).unwrap().unwrap_or_else(|| {
            let founded = Belonging::found(&identity.peer()).unwrap();
            founded.save(data).unwrap();
            founded
        });
        let me = identity.peer();
        let (store, restored) = Store::open(&data.join("ledger.redb")).unwrap();
        let (told, orders) = mpsc::unbounded_channel();
        let (log, stop) = (EventLog::default(), CancellationToken::new());
        let ports = Ports {
            me,
            sign: Arc::new(move |bytes| identity.sign(bytes)),
            verify: Box::new(verify),
            network: Box::new(Nobody),
            tasks: Arc::new(Told(told)),
            leases: Arc::new(Nobody),
            events: log.clone(),
            counters: Counters::default(),
        };
        let config = Config {
            me,
            cluster: belonging.cluster,
            founding: belonging.founding,
            chain: belonging.chain,
            seed: 1,
            minority_hold_ms: Some(60_000),
        };
        let doors = Doors::new();
        let (handle, events) = (doors.handle.clone(), doors.events.clone());
        let ended = doors.start(config, restored, store, ports, stop.clone());
        let description = Description {
            name: "alone".into(),
            addresses: vec!["127.0.0.1:7400".into()],
            labels: BTreeMap::new(),
            capacity: Resources::of(4_000, 4 << 30),
            allows: Vec::new(),
            version: "0".into(),
            executor: Executor::Null,
            network: None,
        };
        assert_eq!(handle.request(Request::Describe(description)).await, Ok(Reply::Done));
        Self { handle, events, orders, log, stop, ended }
    }

    async fn tell(&self, claim: ClaimId, report: TaskReport) {
        self.events.send(Event::Task { claim, report }).await.unwrap();
    }

    /// The next order of a kind.
    async fn order(&mut self, what: &str) -> ClaimId {
        let next = async {
            loop {
                let (kind, claim) = self.orders.recv().await.expect("the driver lives");
                if kind == what {
                    return claim;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), next).await.unwrap_or_else(|_| panic!("no {what} came"))
    }

    /// Waits until the only task is in this state.
    async fn until(&self, state: &str) {
        let mut changes = self.handle.changes();
        let seen = async {
            loop {
                changes.borrow_and_update();
                let rows = self.handle.read(|brain, now| brain.view(now).tasks(&TaskFilter::default())).await.unwrap();
                if rows.iter().any(|row| row.state == state) {
                    return;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap_or_else(|_| panic!("never {state}"));
    }

    /// Ends it, once everything that it knows is on disk: a change of nothing is answered then.
    async fn end(self) {
        assert_eq!(self.handle.request(Request::Drain { on: false }).await, Ok(Reply::Done));
        self.stop.cancel();
        assert!(matches!(self.ended.await, Ok(Ended::Stopped)));
    }
}

fn deploy(change: u8) -> Request {
    let service = ServiceSpec { image: "host".into(), replicas: 1, ..ServiceSpec::default() };
    let services = BTreeMap::from([("web".to_owned(), service)]);
    let spec = AppSpec { services, single_run: false };
    Request::Deploy { change: ChangeId([change; 16]), author: "ada".into(), app: "shop".into(), spec }
}

#[tokio::test]
async fn what_was_asked_is_done_and_there_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let mut life = Life::begin(data.path()).await;
    life.events.send(Event::TasksFound).await.unwrap();
    let reply = life.handle.request(deploy(1)).await.unwrap();
    assert!(matches!(reply, Reply::Changed { copies: 1, changed: true, .. }), "{reply:?}");
    let claim = life.order("start").await;
    life.tell(claim, TaskReport::Running { image_digest: None, started_at: 1, health: Health::None }).await;
    life.until("running").await;
    assert!(life.log.after(0, 100).iter().any(|event| event.subject.contains("shop")));
    life.end().await;

    // The task lived on; the next life finds it, and does not start it twice.
    let mut life = Life::begin(data.path()).await;
    life.tell(claim, TaskReport::Running { image_digest: None, started_at: 1, health: Health::None }).await;
    life.events.send(Event::TasksFound).await.unwrap();
    life.until("running").await;
    let reply = life.handle.request(deploy(1)).await.unwrap();
    assert!(matches!(reply, Reply::Changed { changed: false, .. }), "the same change again: {reply:?}");
    let gone =
        life.handle.request(Request::Remove { change: ChangeId([2; 16]), author: "ada".into(), app: "shop".into() });
    gone.await.unwrap();
    assert_eq!(life.order("stop").await, claim);
    life.tell(claim, TaskReport::Exited { exit_code: 143, oom_killed: false, ended_at: 2 }).await;
    let refused = life.handle.request(Request::Scale {
        change: ChangeId([3; 16]),
        author: "ada".into(),
        app: "none".into(),
        service: None,
        replicas: 1,
    });
    assert!(matches!(refused.await, Err(Refusal::NotFound(_))));
    while let Ok((kind, _)) = life.orders.try_recv() {
        assert_ne!(kind, "start", "nothing is started twice");
    }
    life.end().await;
}

#[tokio::test]
async fn a_claim_whose_container_is_gone_ends() {
    let data = tempfile::tempdir().unwrap();
    let mut life = Life::begin(data.path()).await;
    life.events.send(Event::TasksFound).await.unwrap();
    life.handle.request(deploy(1)).await.unwrap();
    let lost = life.order("start").await;
    life.tell(lost, TaskReport::Running { image_digest: None, started_at: 1, health: Health::None }).await;
    life.until("running").await;
    life.end().await;

    // A reboot: nothing is found, and the task starts anew under another claim.
    let mut life = Life::begin(data.path()).await;
    life.events.send(Event::TasksFound).await.unwrap();
    assert_ne!(life.order("start").await, lost);
    life.end().await;
}

#[tokio::test]
async fn after_the_end_askers_are_told_so() {
    let data = tempfile::tempdir().unwrap();
    let life = Life::begin(data.path()).await;
    let handle = life.handle.clone();
    life.end().await;
    assert_eq!(handle.request(deploy(1)).await, Err(Refusal::Busy));
    assert_eq!(handle.read(|_, _| ()).await, None);
}
