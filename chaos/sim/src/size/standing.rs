//! A ledger that is already there: machines, apps, and a running claim for every task.

use std::collections::BTreeMap;
use std::sync::Arc;

use rialto_protocol::Restored;
use rialto_protocol::event::Description;
use rialto_protocol::ids::{AppId, BidId, ChangeId, ClaimId, ClusterId, PeerId, TaskId, rendezvous};
use rialto_protocol::ledger::readings::{Admission, Stewardship};
use rialto_protocol::ledger::record::{Draft, Kind, Record, RecordKey, SCHEMA, Signature, Stored};
use rialto_protocol::ledger::{ChangeValue, Document, Edit};
use rialto_protocol::model::{
    AppSpec, Claim, ClaimState, Executor, Machine, PortSpec, Resources, ServiceSpec, TaskSpec,
};
use rialto_protocol::wire::encode;

use crate::Dice;

/// Tasks of one app.
const APP_TASKS: usize = 100;
/// Who introduced whom: each peer introduced so many others.
const INTRODUCED: usize = 16;
/// Machines of one rack.
const RACK: usize = 20;
/// How old the lives of all are, ms.
const AGE_MS: u64 = 3_600_000;
/// How long after its acceptance each task ran, ms.
const STARTED_MS: u64 = 50;

/// A cluster as its peers' disks remember it.
#[derive(Debug)]
pub struct Standing {
    pub cluster: ClusterId,
    pub nonce: [u8; 16],
    pub peers: Vec<PeerId>,
    pub records: Vec<Arc<Stored>>,
    pub owners: Vec<(PeerId, u64, u64)>,
    /// By peer, what its own disk holds beside: the specs of its tasks.
    local: Vec<Vec<(String, Vec<u8>)>>,
    running: Vec<Vec<Run>>,
}

/// A task that has been running for long.
#[derive(Clone, Debug)]
pub struct Run {
    pub claim: ClaimId,
    pub task: TaskId,
    /// Wall clock, ms.
    pub started_at: u64,
}

/// What a driver tells of one machine of the crowd.
pub fn description(at: usize) -> Description {
    let Machine { name, addresses, labels, capacity, allows, version, executor, .. } = machine(at, AGE_MS);
    Description { name, addresses, labels, capacity, allows, version, executor, network: None }
}

impl Standing {
    /// So many machines that run so many tasks, at `wall` (ms since 1970).
    pub fn new(seed: u64, peers: usize, tasks: usize, wall: u64) -> Self {
        let mut dice = Dice::new(seed, "standing");
        let ids: Vec<PeerId> = (0..peers).map(|_| PeerId(dice.bytes())).collect();
        let nonce = dice.bytes();
        let cluster = ClusterId::of_founder(&ids[0], &nonce);
        let mut writes: Vec<Vec<(Kind, String, Vec<u8>)>> = vec![Vec::new(); peers];
        let mut local: Vec<Vec<(String, Vec<u8>)>> = vec![Vec::new(); peers];
        let mut running = vec![Vec::new(); peers];
        for (at, peer) in ids.iter().enumerate() {
            let by = if at == 0 { 0 } else { (at - 1) / INTRODUCED };
            let nonce = (at == 0).then_some(nonce);
            let admission = Admission { peer: *peer, cluster, invitation: None, nonce, at: wall - AGE_MS };
            writes[by].push((Kind::ADMISSION, peer.hex(), encode(&admission)));
        }
        for (at, written) in writes.iter_mut().enumerate() {
            written.push((Kind::MACHINE, String::new(), encode(&machine(at, wall))));
        }
        let rings: Vec<u64> = ids.iter().map(PeerId::ring).collect();
        let mut first = 0;
        while first < tasks {
            let (author, replicas) = (dice.below(peers as u64) as usize, APP_TASKS.min(tasks - first));
            let name = format!("app{}", first / APP_TASKS);
            let app = AppId { namespace: "default".into(), name, generation: 1 };
            let service = service(replicas as u32);
            let spec = AppSpec { services: BTreeMap::from([("web".into(), service.clone())]), single_run: false };
            let edit = Document::new(app.clone()).edit(&ids[author], &Edit::Spec(spec));
            let bytes = edit.expect("an empty document reads differently");
            let change = ChangeValue { app: app.clone(), bytes, author: "ops".into(), summary: "deploy".into() };
            writes[author].push((Kind::CHANGE, ChangeId(dice.bytes()).hex(), encode(&change)));
            let key = app.ring();
            let weight = |at: &usize| (rendezvous(key, rings[*at]), ids[*at]);
            let steward = (0..peers).max_by_key(weight).expect("there are peers");
            let revisions = BTreeMap::from([("web".to_string(), service.revision())]);
            let stewardship = Stewardship { revisions, ..Stewardship::default() };
            writes[steward].push((Kind::STEWARDSHIP, app.to_string(), encode(&(app.clone(), stewardship))));
            for slot in 1..=replicas {
                let at = (first + slot) * 7919 % peers;
                let port = 20_000 + (writes[at].len() as u16);
                let (claim, spec) = claim(&app, &service, slot, port, wall, &mut dice);
                let (task, started_at) = (claim.task.clone(), wall - AGE_MS + STARTED_MS);
                running[at].push(Run { claim: claim.id, task, started_at });
                local[at].push((format!("task/{}", claim.id), encode(&spec)));
                writes[at].push((Kind::CLAIM, claim.id.hex(), encode(&claim)));
            }
            first += replicas;
        }
        let (records, owners) = seal(&ids, writes, wall);
        Self { cluster, nonce, peers: ids, records, owners, local, running }
    }

    /// What the disk of one peer remembers.
    pub fn restored(&self, at: usize) -> Restored {
        Restored { records: self.records.clone(), owners: self.owners.clone(), local: self.local[at].clone() }
    }

    /// What the disk of one peer holds for itself alone.
    pub fn local(&self, at: usize) -> &[(String, Vec<u8>)] {
        &self.local[at]
    }

    /// What one peer runs.
    pub fn running(&self, at: usize) -> &[Run] {
        &self.running[at]
    }
}

/// Records, and each owner with its numbers: complete through, floor.
type Sealed = (Vec<Arc<Stored>>, Vec<(PeerId, u64, u64)>);

/// Every owner's records, numbered and sealed in frames of a few, as they would have been written.
fn seal(ids: &[PeerId], writes: Vec<Vec<(Kind, String, Vec<u8>)>>, wall: u64) -> Sealed {
    let (mut records, mut owners) = (Vec::new(), Vec::new());
    for (owner, written) in ids.iter().zip(writes) {
        let mut prev = 0;
        for some in written.chunks(4) {
            let numbered = some.iter().enumerate().map(|(nth, (kind, id, value))| {
                let key = RecordKey { kind: *kind, id: id.as_str().into() };
                let seq = prev + 1 + nth as u64;
                Arc::new(Record {
                    owner: *owner,
                    key,
                    seq,
                    stamp: wall - AGE_MS,
                    schema: SCHEMA,
                    value: Some(value.clone()),
                })
            });
            for draft in Draft::cut(*owner, prev, numbered.collect()) {
                records.extend(draft.seal(Signature([0; 64])).1);
            }
            prev += some.len() as u64;
        }
        owners.push((*owner, prev, 0));
    }
    (records, owners)
}

fn machine(at: usize, wall: u64) -> Machine {
    Machine {
        name: format!("m{at}"),
        addresses: vec![format!("10.{}.{}.{}:7400", at >> 16, (at >> 8) & 255, at & 255)],
        labels: BTreeMap::from([("rack".into(), format!("r{}", at / RACK))]),
        capacity: Resources::of(16_000, 64 << 30),
        allows: Vec::new(),
        protocol: rialto_protocol::wire::PROTOCOL,
        version: "0.1.0".into(),
        life: 1,
        life_since: wall - AGE_MS,
        draining: false,
        restarting_until: None,
        executor: Executor::Null,
        network: None,
    }
}

/// A service whose tasks run for ever.
pub fn service(replicas: u32) -> ServiceSpec {
    ServiceSpec {
        image: "host".into(),
        command: vec!["serve".into()],
        replicas,
        reservations: Resources::of(100, 64 << 20),
        ports: vec![PortSpec { container: 80, host: None, protocol: "tcp".into(), ..PortSpec::default() }],
        ..ServiceSpec::default()
    }
}

fn claim(app: &AppId, service: &ServiceSpec, slot: usize, port: u16, wall: u64, dice: &mut Dice) -> (Claim, TaskSpec) {
    let mut need = service.need();
    need.set(Resources::port(port), 1);
    let task = TaskId { app: app.clone(), service: "web".into(), slot: slot.to_string() };
    let binding =
        rialto_protocol::model::PortBinding { host: port, container: 80, protocol: "tcp".into(), ..Default::default() };
    let claim = Claim {
        id: ClaimId(dice.bytes()),
        task: task.clone(),
        attempt: 1,
        bid: BidId(dice.bytes()),
        revision: service.revision(),
        state: ClaimState::Running,
        need,
        ports: vec![binding],
        accepted_at: wall - AGE_MS,
        started_at: Some(wall - AGE_MS + STARTED_MS),
        ..Claim::default()
    };
    let spec = TaskSpec {
        task,
        attempt: 1,
        image: "host".into(),
        command: service.command.clone(),
        grace_ms: service.grace_ms(),
        ..TaskSpec::default()
    };
    (claim, spec)
}
