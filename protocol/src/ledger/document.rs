//! Documents: what people want, one Automerge document per app. The library stays behind this file and its folder.
//!
//! A document begins with a genesis change that everyone computes from its name, so that nobody's
//! first edit hides another's. Its changes travel as records of the peers at which they were made.

mod edit;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;
use std::sync::Arc;

use automerge::transaction::CommitOptions;
use automerge::{
    ActorId, Automerge, Change, ExpandedChange, ObjId, ObjType, Patch, PatchAction, Prop, ROOT, ReadDoc, ScalarValue,
    ScalarValueRef, Value, ValueRef, legacy,
};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

pub use self::edit::Edit;
use self::edit::write;
use crate::compose::{REPLICAS_MAX, SERVICES_MAX};
use crate::ids::{AppId, PeerId};
use crate::model::{AppSpec, Asked, Outcome, RolloutOrder, ServiceSpec};

/// The value of a `change` record; its key is the client's id for the change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeValue {
    pub app: AppId,
    /// Automerge's own bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
    /// Who asked for it: an identity of the API, or `steward`.
    pub author: String,
    /// A few words for the history.
    pub summary: String,
}

/// Maps beside the services: what a steward or a person notes there says nothing of what is to run.
const NOTES: [&str; 4] = ["outcomes", "cursors", "runs", "orders"];
/// The most runs of one service that somebody asked for and that are remembered.
pub const RUNS_MAX: usize = 1_000;
/// How many changes back an earlier revision of a service is looked for.
const EARLIER_MAX: usize = 200;

/// The most conflicts that are told of one document.
const CONFLICTS_MAX: usize = 100;

/// Finished work by service and slot.
pub type Outcomes = BTreeMap<String, BTreeMap<String, Outcome>>;

/// One app's document and what it reads as.
#[derive(Clone, Debug)]
pub struct Document {
    pub app: AppId,
    /// The last good reading.
    pub spec: Arc<AppSpec>,
    pub deleted: bool,
    /// Finished work by service and slot: the highest attempt of the newest revision seen.
    pub outcomes: Outcomes,
    /// By service, wall clock, ms: everything that was due until then is settled.
    pub cursors: BTreeMap<String, u64>,
    /// By service, the runs that somebody asked for.
    pub runs: BTreeMap<String, BTreeMap<String, Asked>>,
    /// By service, what somebody said last of its rollout.
    pub orders: BTreeMap<String, RolloutOrder>,
    /// By service, [`ServiceSpec::revision`].
    pub revisions: Arc<BTreeMap<String, u64>>,
    /// Fields that several people set at the same time without knowing of each other, one sentence each: all see the
    /// same value, and the others are not hidden.
    pub conflicts: Vec<String>,
    /// Changes applied, in order; with the genesis they are the document.
    changes: Vec<Arc<[u8]>>,
    /// Changes that wait for one they depend on, with their bytes as they came.
    waiting: Vec<(Change, Arc<[u8]>)>,
    /// The hashes of both.
    held: BTreeSet<[u8; 32]>,
    /// Not kept for long: an open document is twenty times its bytes.
    open: Option<Automerge>,
}

/// Why a change was not taken.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("not a change: {0}")]
    Unreadable(String),
    #[error("the document does not take it: {0}")]
    Inapplicable(String),
}

/// Documents of the same changes say the same.
impl PartialEq for Document {
    fn eq(&self, other: &Self) -> bool {
        self.app == other.app && self.held == other.held && self.waiting == other.waiting
    }
}

impl Document {
    /// The empty document that everyone computes from the name.
    pub fn new(app: AppId) -> Self {
        Self {
            app,
            spec: Arc::default(),
            deleted: false,
            outcomes: BTreeMap::new(),
            cursors: BTreeMap::new(),
            runs: BTreeMap::new(),
            orders: BTreeMap::new(),
            revisions: Arc::default(),
            conflicts: Vec::new(),
            changes: Vec::new(),
            waiting: Vec::new(),
            held: BTreeSet::new(),
            open: None,
        }
    }

    /// Whether anybody ever edited it.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Whether some change waits for another.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Makes an edit as `me`: the bytes of the change, or `None` where the document reads so already.
    pub fn edit(&mut self, me: &PeerId, edit: &Edit) -> Option<Vec<u8>> {
        let mut doc = self.take_open();
        doc.set_actor(ActorId::from(&me.0[..]));
        let before = doc.get_heads();
        let mut transaction = doc.transaction();
        let mut result = write(&mut transaction, edit);
        if let Edit::Spec(spec) = edit {
            // What was said of a change is not said of the next, though that may bring the same about.
            let is_changed = |name: &&String| {
                spec.services.get(*name).map(ServiceSpec::revision) != self.revisions.get(*name).copied()
            };
            for service in self.orders.keys().filter(is_changed) {
                result = result.and_then(|()| edit::forget_order(&mut transaction, service));
            }
        }
        let (hash, _) = transaction.commit_with(CommitOptions::default().with_time(0));
        let change = hash.and_then(|hash| doc.get_change_by_hash(&hash));
        let bytes = change.map(|change| change.raw_bytes().to_vec());
        debug_assert!(result.is_ok(), "our own edits fit our own documents: {result:?}");
        if let Some(bytes) = &bytes {
            self.held.insert(*blake3::hash(bytes).as_bytes());
            self.changes.push(bytes.as_slice().into());
            // An edit knows of all that is here: it may settle a conflict, and makes none.
            self.read(&doc, &before);
        }
        self.open = Some(doc);
        bytes
    }

    /// Takes a change of anybody's; `true` where the document reads differently afterwards. A
    /// change that depends on one that is missing waits.
    pub fn apply(&mut self, bytes: &[u8]) -> Result<bool, DocumentError> {
        let hash = *blake3::hash(bytes).as_bytes();
        if self.held.contains(&hash) {
            return Ok(false);
        }
        let change =
            Change::from_bytes(bytes.to_vec()).map_err(|error| DocumentError::Unreadable(error.to_string()))?;
        self.held.insert(hash);
        self.waiting.push((change, bytes.into()));
        let mut doc = self.take_open();
        let before = doc.get_heads();
        let (mut moved, mut forked) = (false, false);
        while let Some(at) = self.waiting.iter().position(|(change, _)| is_ready(&doc, change)) {
            let (change, bytes) = self.waiting.remove(at);
            forked |= change.deps() != doc.get_heads();
            if let Err(error) = doc.apply_changes([change]) {
                self.held.remove(blake3::hash(&bytes).as_bytes());
                self.open = None;
                return Err(DocumentError::Inapplicable(error.to_string()));
            }
            self.changes.push(bytes);
            moved = true;
        }
        if moved {
            self.read(&doc, &before);
        }
        if forked && self.conflicts.is_empty() {
            // What loses against another value changes no value: only the conflict tells of it.
            self.read_conflicts(&doc);
        }
        self.open = Some(doc);
        Ok(moved)
    }

    /// What the document read as once this change was made, as whoever made it saw it; `None` where it is none of this
    /// document's changes.
    pub fn spec_at(&mut self, change: &[u8]) -> Option<AppSpec> {
        if !self.changes.iter().any(|held| **held == *change) {
            return None;
        }
        let hash = Change::from_bytes(change.to_vec()).ok()?.hash();
        let doc = self.take_open();
        let then = doc.fork_at(&[hash]).ok();
        self.open = Some(doc);
        spec_of(&then?)
    }

    /// The place of a change in the history: it rises from each change to those that build on it. `None`: it does not
    /// read.
    pub fn place(change: &[u8]) -> Option<u64> {
        Change::from_bytes(change.to_vec()).ok().map(|change| change.start_op().get())
    }

    /// Lets the open document go: it is rebuilt from its changes when it is needed.
    pub fn close(&mut self) {
        self.open = None;
    }

    fn take_open(&mut self) -> Automerge {
        self.open.take().unwrap_or_else(|| {
            let mut doc = genesis(&self.app);
            let changes = self.changes.iter().filter_map(|bytes| Change::from_bytes(bytes.to_vec()).ok());
            let applied = doc.apply_changes(changes.collect::<Vec<_>>());
            debug_assert!(applied.is_ok(), "what was applied once applies again: {applied:?}");
            doc
        })
    }

    /// What a service was when it had this revision, by the last changes that are known.
    pub fn service_at(&mut self, service: &str, revision: u64) -> Option<ServiceSpec> {
        self.earlier(service, |then| then.revision() == revision)
    }

    /// The last revision of a service that is not this one, by the last changes that are known.
    pub fn revision_before(&mut self, service: &str, revision: u64) -> Option<u64> {
        self.earlier(service, |then| then.revision() != revision).map(|then| then.revision())
    }

    fn earlier(&mut self, service: &str, is_meant: impl Fn(&ServiceSpec) -> bool) -> Option<ServiceSpec> {
        let doc = self.take_open();
        let notes: BTreeSet<String> =
            NOTES.iter().filter_map(|key| Some(doc.get(ROOT, *key).ok()??.1.to_string())).collect();
        self.open = Some(doc);
        // Steward's notes are many, and none of them changed a service.
        let changes = self.changes.iter().rev().filter(|change| !notes_only(change, &notes));
        let changes: Vec<Arc<[u8]>> = changes.take(EARLIER_MAX).cloned().collect();
        changes.iter().find_map(|change| self.spec_at(change)?.services.remove(service).filter(&is_meant))
    }

    /// The typed reading of what changed since `before`. Where a part does not read, the last good reading stays in
    /// force.
    fn read(&mut self, doc: &Automerge, before: &[automerge::ChangeHash]) {
        let (mut spec_moved, mut notes_moved) = (false, false);
        for patch in doc.diff(before, &doc.get_heads()) {
            match map_of(&patch) {
                Some("deleted") => self.read_deleted(doc),
                // Batches of outcomes are many, and each comes once: what was read of the others stays.
                Some(map) if NOTES.contains(&map) => notes_moved |= !self.read_batch(doc, before, &patch),
                _ => spec_moved = true,
            }
        }
        if spec_moved {
            self.read_spec(doc);
        }
        if notes_moved {
            self.read_notes(doc);
        }
        if !self.conflicts.is_empty() {
            self.read_conflicts(doc);
        }
    }

    fn read_deleted(&mut self, doc: &Automerge) {
        self.deleted =
            matches!(doc.get(ROOT, "deleted"), Ok(Some((Value::Scalar(v), _))) if *v == ScalarValue::Boolean(true));
    }

    /// Takes in a batch of outcomes that was not there before; `false`: the patch is of something else.
    fn read_batch(&mut self, doc: &Automerge, before: &[automerge::ChangeHash], patch: &Patch) -> bool {
        let [(_, Prop::Map(map))] = &patch.path[..] else { return false };
        let PatchAction::PutMap { key, value: (Value::Scalar(value), _), .. } = &patch.action else { return false };
        if map != "outcomes" || !matches!(doc.get_at(&patch.obj, key.as_str(), before), Ok(None)) {
            return false;
        }
        add_batch(&mut self.outcomes, key.split_once('/').map_or(key, |(service, _)| service), value.as_str());
        true
    }

    fn read_spec(&mut self, doc: &Automerge) {
        if let Some(spec) = spec_of(doc) {
            let of = |(name, service): (&String, &ServiceSpec)| (name.clone(), service.revision());
            self.revisions = Arc::new(spec.services.iter().map(of).collect());
            self.spec = Arc::new(spec);
        }
    }

    fn read_conflicts(&mut self, doc: &Automerge) {
        self.conflicts.clear();
        if let Ok(Some((Value::Object(ObjType::Map), services))) = doc.get(ROOT, "services") {
            find_conflicts(doc, &services, "services", &mut self.conflicts);
        }
    }

    fn read_notes(&mut self, doc: &Automerge) {
        let (mut outcomes, mut cursors) = (Outcomes::new(), BTreeMap::new());
        let (mut runs, mut orders) = (BTreeMap::<_, BTreeMap<String, Asked>>::new(), BTreeMap::new());
        each(doc, "outcomes", |service, _, value| add_batch(&mut outcomes, &service, value.as_str()));
        // Of what several stewards hold for settled each is right: none forgets what another knows.
        each(doc, "cursors", |service, _, value| {
            let cursor = cursors.entry(service).or_insert(0u64);
            *cursor = value.as_u64().unwrap_or(0).max(*cursor);
        });
        each(doc, "runs", |service, id, value| {
            if let Some(asked) = value.as_str().and_then(|text| serde_json::from_str(text).ok()) {
                runs.entry(service).or_default().insert(id.to_string(), asked);
            }
        });
        each(doc, "orders", |service, _, value| {
            if let Some(order) = value.as_str().and_then(|text| serde_json::from_str(text).ok()) {
                orders.insert(service, order);
            }
        });
        (self.outcomes, self.cursors, self.runs, self.orders) = (outcomes, cursors, runs, orders);
    }
}

/// Adds what a batch says of a service's slots: of each the highest attempt counts, in whatever order batches come.
fn add_batch(outcomes: &mut Outcomes, service: &str, batch: Option<&str>) {
    let read = batch.and_then(|text| serde_json::from_str::<Vec<Outcome>>(text).ok());
    let slots = outcomes.entry(service.to_string()).or_default();
    for outcome in read.into_iter().flatten() {
        if slots.get(&outcome.slot).is_none_or(|held| held.order() < outcome.order()) {
            slots.insert(outcome.slot.clone(), outcome);
        }
    }
}

/// Whether a change edits nothing but the maps of notes, which are named by their ids.
fn notes_only(change: &[u8], notes: &BTreeSet<String>) -> bool {
    let Ok(change) = Change::from_bytes(change.to_vec()) else { return true };
    change.decode().operations.iter().all(|operation| notes.contains(&operation.obj.to_string()))
}

/// The field of the root that a patch is of, or is in.
fn map_of(patch: &Patch) -> Option<&str> {
    match (patch.path.first(), &patch.action) {
        (Some((_, Prop::Map(key))), _) | (None, PatchAction::PutMap { key, .. }) => Some(key),
        _ => None,
    }
}

/// Every note of one kind: its service, the rest of its key, and what it says.
fn each(doc: &Automerge, map: &str, mut take: impl FnMut(String, &str, &Value<'_>)) {
    let Ok(Some((Value::Object(ObjType::Map), notes))) = doc.get(ROOT, map) else { return };
    for note in doc.map_range(&notes, ..) {
        let (service, rest) = note.key.split_once('/').unwrap_or((&note.key, ""));
        if let ValueRef::Scalar(value) = &note.value {
            take(service.to_string(), rest, &value.into());
        }
    }
}

/// The typed reading, if it reads.
fn spec_of(doc: &Automerge) -> Option<AppSpec> {
    let kept = |key: &str| key != "deleted" && !NOTES.contains(&key);
    let fields = doc.map_range(ROOT, ..).filter(|field| kept(&field.key));
    let fields = fields.map(|field| (field.key.to_string(), json_of(doc, &field.value, || field.id())));
    serde_json::from_value(Json::Object(fields.collect())).ok().filter(is_bounded)
}

/// Whether an app asks for no more than a file may: nobody here would write such a change, but a member might.
fn is_bounded(spec: &AppSpec) -> bool {
    let tasks: u64 = spec.services.values().map(|service| u64::from(service.replicas)).sum();
    let is_sound = |service: &ServiceSpec| service.placement_fault().is_none();
    tasks <= u64::from(REPLICAS_MAX) && spec.services.len() <= SERVICES_MAX && spec.services.values().all(is_sound)
}

/// Fields with several values at once: the last is the one that is read.
fn find_conflicts(doc: &Automerge, map: &ObjId, path: &str, found: &mut Vec<String>) {
    for field in doc.map_range(map, ..) {
        if found.len() >= CONFLICTS_MAX {
            return;
        }
        let path = format!("{path}.{}", field.key);
        let values = if field.conflict { doc.get_all(map, &*field.key).unwrap_or_default() } else { Vec::new() };
        if let [others @ .., read] = &values[..] {
            let show = |(value, id): &(Value<'_>, ObjId)| match value {
                Value::Object(shape) => to_json(doc, id, *shape).to_string(),
                Value::Scalar(value) => value.to_string(),
            };
            let others: Vec<String> = others.iter().map(show).collect();
            found.push(format!("{path} is {}, and somebody else set {}", show(read), others.join(", ")));
        }
        if field.value == ValueRef::Object(ObjType::Map) {
            find_conflicts(doc, &field.id(), &path, found);
        }
    }
}

fn is_ready(doc: &Automerge, change: &Change) -> bool {
    change.deps().iter().all(|dep| doc.get_change_meta_by_hash(dep).is_some())
}

/// The first change of every document, the same everywhere: the maps that edits fill. It is put together rather than
/// made by edits, which would cost several times as much, for each app at each peer.
fn genesis(app: &AppId) -> Automerge {
    let actor = ActorId::from(&blake3::hash(format!("rialto genesis 1 {app}").as_bytes()).as_bytes()[..16]);
    let make = |map: &&str| legacy::Op {
        action: legacy::OpType::Make(ObjType::Map),
        obj: legacy::ObjectId::Root,
        key: legacy::Key::Map((*map).into()),
        pred: legacy::SortedVec::new(),
        insert: false,
    };
    let change = ExpandedChange {
        operations: ["services"].iter().chain(&NOTES).map(make).collect(),
        actor_id: actor.clone(),
        hash: None,
        seq: 1,
        start_op: NonZeroU64::MIN,
        time: 0,
        message: None,
        deps: Vec::new(),
        extra_bytes: Vec::new(),
        author: None,
    };
    let mut doc = Automerge::new().with_actor(actor);
    let applied = doc.apply_changes([Change::from(change)]);
    debug_assert!(applied.is_ok(), "nothing is missing before the first change: {applied:?}");
    doc
}

/// `object`: its id, where it is one.
fn json_of<R: ReadDoc>(doc: &R, value: &ValueRef<'_>, object: impl FnOnce() -> ObjId) -> Json {
    match value {
        ValueRef::Object(shape) => to_json(doc, &object(), *shape),
        ValueRef::Scalar(ScalarValueRef::Boolean(value)) => Json::Bool(*value),
        ValueRef::Scalar(ScalarValueRef::Str(text)) => Json::from(text.as_ref()),
        ValueRef::Scalar(ScalarValueRef::Int(number)) => Json::from(*number),
        ValueRef::Scalar(ScalarValueRef::Uint(number)) => Json::from(*number),
        ValueRef::Scalar(ScalarValueRef::F64(number)) => Json::from(*number),
        ValueRef::Scalar(_) => Json::Null,
    }
}

fn to_json<R: ReadDoc>(doc: &R, object: &ObjId, shape: ObjType) -> Json {
    if shape == ObjType::List {
        let items = doc.list_range(object, ..);
        return Json::Array(items.map(|item| json_of(doc, &item.value, || item.id())).collect());
    }
    let fields = doc.map_range(object, ..);
    Json::Object(fields.map(|field| (field.key.to_string(), json_of(doc, &field.value, || field.id()))).collect())
}

#[cfg(test)]
mod tests;
