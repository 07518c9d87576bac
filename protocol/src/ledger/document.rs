//! Documents: what people want, one Automerge document per app. The library stays behind this file.
//!
//! A document begins with a genesis change that everyone computes from its name, so that nobody's
//! first edit hides another's. Its changes travel as records of the peers at which they were made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, Change, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, Value};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::ids::{AppId, PeerId};
use crate::model::{AppSpec, Outcome};

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

/// The most conflicts that are told of one document.
const CONFLICTS_MAX: usize = 100;

/// One app's document and what it reads as.
#[derive(Clone, Debug)]
pub struct Document {
    pub app: AppId,
    /// The last good reading.
    pub spec: Arc<AppSpec>,
    pub deleted: bool,
    /// Finished work by service and slot: the highest attempt of the newest revision seen.
    pub outcomes: BTreeMap<String, BTreeMap<String, Outcome>>,
    /// Fields that several people set at the same time without knowing of each other, one sentence each: all see the
    /// same value, and the others are not hidden.
    pub conflicts: Vec<String>,
    /// Changes applied, in order; with the genesis they are the document.
    changes: Vec<Arc<[u8]>>,
    /// Changes that wait for one they depend on.
    waiting: Vec<Vec<u8>>,
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

/// What a person or a steward wants a document to say.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Exactly these services.
    Spec(AppSpec),
    /// The number of replicas of one service, or of all.
    Replicas {
        service: Option<String>,
        replicas: u32,
    },
    Delete,
    /// Finished tasks of one service; `batch` names this edit among all peers'.
    Outcomes {
        service: String,
        batch: String,
        outcomes: Vec<Outcome>,
    },
}

impl Document {
    /// The empty document that everyone computes from the name.
    pub fn new(app: AppId) -> Self {
        Self {
            app,
            spec: Arc::default(),
            deleted: false,
            outcomes: BTreeMap::new(),
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
        let mut transaction = doc.transaction();
        let result = write(&mut transaction, edit);
        let (hash, _) = transaction.commit_with(CommitOptions::default().with_time(0));
        let change = hash.and_then(|hash| doc.get_change_by_hash(&hash));
        let bytes = change.map(|change| change.raw_bytes().to_vec());
        debug_assert!(result.is_ok(), "our own edits fit our own documents: {result:?}");
        if let Some(bytes) = &bytes {
            self.held.insert(*blake3::hash(bytes).as_bytes());
            self.changes.push(bytes.as_slice().into());
            self.read(&doc);
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
        Change::from_bytes(bytes.to_vec()).map_err(|error| DocumentError::Unreadable(error.to_string()))?;
        self.held.insert(hash);
        self.waiting.push(bytes.to_vec());
        let mut doc = self.take_open();
        let mut moved = false;
        while let Some(at) = self.waiting.iter().position(|bytes| is_ready(&doc, bytes)) {
            let bytes = self.waiting.remove(at);
            let change = Change::from_bytes(bytes.clone()).expect("it was read when it came");
            if let Err(error) = doc.apply_changes([change]) {
                self.held.remove(blake3::hash(&bytes).as_bytes());
                self.open = None;
                return Err(DocumentError::Inapplicable(error.to_string()));
            }
            self.changes.push(bytes.into());
            moved = true;
        }
        if moved {
            self.read(&doc);
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

    /// Whether the document is open in memory.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
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

    /// The typed reading. Where a part does not read, the last good reading stays in force.
    fn read(&mut self, doc: &Automerge) {
        self.deleted =
            matches!(doc.get(ROOT, "deleted"), Ok(Some((Value::Scalar(v), _))) if *v == ScalarValue::Boolean(true));
        if let Some(spec) = spec_of(doc) {
            self.spec = Arc::new(spec);
        }
        self.conflicts.clear();
        if let Ok(Some((Value::Object(ObjType::Map), services))) = doc.get(ROOT, "services") {
            find_conflicts(doc, &services, "services", &mut self.conflicts);
        }
        if let Ok(Some((Value::Object(ObjType::Map), outcomes))) = doc.get(ROOT, "outcomes") {
            self.outcomes.clear();
            for key in doc.keys(&outcomes) {
                let service = key.split('/').next().unwrap_or_default().to_string();
                let Ok(Some((Value::Scalar(text), _))) = doc.get(&outcomes, key.as_str()) else { continue };
                let Some(batch) = text.as_str().and_then(|text| serde_json::from_str::<Vec<Outcome>>(text).ok()) else {
                    continue;
                };
                let slots = self.outcomes.entry(service).or_default();
                for outcome in batch {
                    let held = slots.get(&outcome.slot);
                    if held.is_none_or(|held| held.attempt < outcome.attempt) {
                        slots.insert(outcome.slot.clone(), outcome);
                    }
                }
            }
        }
    }
}

/// The typed reading, if it reads.
fn spec_of(doc: &Automerge) -> Option<AppSpec> {
    let Json::Object(mut root) = to_json(doc, &ROOT, ObjType::Map) else { return None };
    root.remove("outcomes");
    root.remove("deleted");
    serde_json::from_value(Json::Object(root)).ok()
}

/// Fields with several values at once: the last is the one that is read.
fn find_conflicts(doc: &Automerge, map: &ObjId, path: &str, found: &mut Vec<String>) {
    for key in doc.keys(map) {
        if found.len() >= CONFLICTS_MAX {
            return;
        }
        let values = doc.get_all(map, key.as_str()).unwrap_or_default();
        let path = format!("{path}.{key}");
        if let [others @ .., read] = &values[..]
            && !others.is_empty()
        {
            let show = |(value, id): &(Value<'_>, ObjId)| match value {
                Value::Object(shape) => to_json(doc, id, *shape).to_string(),
                Value::Scalar(value) => value.to_string(),
            };
            let others: Vec<String> = others.iter().map(show).collect();
            found.push(format!("{path} is {}, and somebody else set {}", show(read), others.join(", ")));
        }
        if let Some((Value::Object(ObjType::Map), object)) = values.last() {
            find_conflicts(doc, object, &path, found);
        }
    }
}

fn is_ready(doc: &Automerge, bytes: &[u8]) -> bool {
    Change::from_bytes(bytes.to_vec())
        .is_ok_and(|change| change.deps().iter().all(|dep| doc.get_change_by_hash(dep).is_some()))
}

/// The first change of every document, the same everywhere: the maps that edits fill.
fn genesis(app: &AppId) -> Automerge {
    let actor = blake3::hash(format!("rialto genesis 1 {app}").as_bytes());
    let mut doc = Automerge::new().with_actor(ActorId::from(&actor.as_bytes()[..16]));
    let mut transaction = doc.transaction();
    for map in ["services", "outcomes"] {
        let put = transaction.put_object(ROOT, map, ObjType::Map);
        debug_assert!(put.is_ok());
    }
    transaction.commit_with(CommitOptions::default().with_time(0));
    doc
}

fn write<T: Transactable>(doc: &mut T, edit: &Edit) -> Result<(), automerge::AutomergeError> {
    match edit {
        Edit::Spec(spec) => {
            let json = serde_json::to_value(spec).unwrap_or(Json::Null);
            let Json::Object(wanted) = json else { return Ok(()) };
            for (key, value) in &wanted {
                put(doc, &ROOT, key, value)?;
            }
            Ok(())
        }
        Edit::Replicas { service, replicas } => {
            let Some((_, services)) = doc.get(ROOT, "services")? else { return Ok(()) };
            let names: Vec<String> = doc.keys(&services).collect();
            for name in names.iter().filter(|name| service.as_ref().is_none_or(|only| only == *name)) {
                if let Some((Value::Object(ObjType::Map), one)) = doc.get(&services, name.as_str())? {
                    put(doc, &one, "replicas", &Json::from(*replicas))?;
                }
            }
            Ok(())
        }
        Edit::Delete => put(doc, &ROOT, "deleted", &Json::Bool(true)),
        Edit::Outcomes { service, batch, outcomes } => {
            let Some((_, map)) = doc.get(ROOT, "outcomes")? else { return Ok(()) };
            let text = serde_json::to_string(outcomes).unwrap_or_default();
            put(doc, &map, &format!("{service}/{batch}"), &Json::String(text))
        }
    }
}

/// Makes `key` of a map read as `value` with the fewest operations: maps merge field by field,
/// a list is replaced as a whole.
fn put<T: Transactable>(doc: &mut T, map: &ObjId, key: &str, value: &Json) -> Result<(), automerge::AutomergeError> {
    let held = doc.get(map, key)?;
    // Where several set it at once, setting it again to what it reads as says which of them was right.
    let is_settled = doc.get_all(map, key)?.len() < 2;
    match value {
        Json::Object(wanted) => {
            let object = match held {
                Some((Value::Object(ObjType::Map), object)) => object,
                _ => doc.put_object(map, key, ObjType::Map)?,
            };
            let gone: Vec<String> = doc.keys(&object).filter(|held| !wanted.contains_key(held)).collect();
            for key in gone {
                doc.delete(&object, key.as_str())?;
            }
            for (key, value) in wanted {
                put(doc, &object, key, value)?;
            }
        }
        Json::Array(items) => {
            let same = match &held {
                Some((Value::Object(ObjType::List), list)) => to_json(doc, list, ObjType::List) == *value,
                _ => false,
            };
            if !same || !is_settled {
                let list = doc.put_object(map, key, ObjType::List)?;
                for (at, item) in items.iter().enumerate() {
                    insert(doc, &list, at, item)?;
                }
            }
        }
        scalar => {
            let wanted = to_scalar(scalar);
            let same = matches!(&held, Some((Value::Scalar(held), _)) if **held == wanted);
            if !same || !is_settled {
                doc.put(map, key, wanted)?;
            }
        }
    }
    Ok(())
}

fn insert<T: Transactable>(doc: &mut T, list: &ObjId, at: usize, item: &Json) -> Result<(), automerge::AutomergeError> {
    match item {
        Json::Object(fields) => {
            let object = doc.insert_object(list, at, ObjType::Map)?;
            fields.iter().try_for_each(|(key, value)| put(doc, &object, key, value))
        }
        Json::Array(items) => {
            let inner = doc.insert_object(list, at, ObjType::List)?;
            items.iter().enumerate().try_for_each(|(at, item)| insert(doc, &inner, at, item))
        }
        scalar => doc.insert(list, at, to_scalar(scalar)),
    }
}

fn to_scalar(json: &Json) -> ScalarValue {
    match json {
        Json::Bool(value) => ScalarValue::Boolean(*value),
        Json::String(text) => ScalarValue::Str(text.as_str().into()),
        Json::Number(number) => number
            .as_u64()
            .map(ScalarValue::Uint)
            .or_else(|| number.as_i64().map(ScalarValue::Int))
            .unwrap_or_else(|| ScalarValue::F64(number.as_f64().unwrap_or_default())),
        _ => ScalarValue::Null,
    }
}

fn to_json<R: ReadDoc>(doc: &R, object: &ObjId, shape: ObjType) -> Json {
    let item = |value: Option<(Value<'_>, ObjId)>| match value {
        Some((Value::Object(shape), object)) => to_json(doc, &object, shape),
        Some((Value::Scalar(value), _)) => match value.as_ref() {
            ScalarValue::Boolean(value) => Json::Bool(*value),
            ScalarValue::Str(text) => Json::String(text.to_string()),
            ScalarValue::Int(number) => Json::from(*number),
            ScalarValue::Uint(number) => Json::from(*number),
            ScalarValue::F64(number) => Json::from(*number),
            _ => Json::Null,
        },
        None => Json::Null,
    };
    match shape {
        ObjType::List => {
            (0..doc.length(object)).map(|at| item(doc.get(object, at).ok().flatten())).collect::<Vec<_>>().into()
        }
        _ => {
            let fields = doc.keys(object).map(|key| {
                let value = item(doc.get(object, key.as_str()).ok().flatten());
                (key, value)
            });
            Json::Object(fields.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PortSpec, ServiceSpec};

    fn app() -> AppId {
        AppId { namespace: "default".into(), name: "shop".into(), generation: 1 }
    }

    fn spec(replicas: u32) -> AppSpec {
        let port = PortSpec { container: 80, host: Some(8080), protocol: "tcp".into(), name: None };
        let web = ServiceSpec {
            image: "web".into(),
            command: vec!["serve".into(), "-p".into()],
            replicas,
            ports: vec![port],
            environment: BTreeMap::from([("A".into(), "1".into())]),
            ..Default::default()
        };
        AppSpec { services: BTreeMap::from([("web".into(), web)]), single_run: false }
    }

    #[test]
    fn a_spec_reads_back_and_the_same_again_is_no_change() {
        let mut document = Document::new(app());
        assert!(document.edit(&PeerId([1; 32]), &Edit::Spec(spec(3))).is_some());
        assert_eq!(*document.spec, spec(3));
        assert!(document.edit(&PeerId([1; 32]), &Edit::Spec(spec(3))).is_none());
    }

    #[test]
    fn concurrent_edits_of_different_fields_both_hold() {
        let mut one = Document::new(app());
        let first = one.edit(&PeerId([1; 32]), &Edit::Spec(spec(3))).unwrap();
        let mut two = Document::new(app());
        two.apply(&first).unwrap();
        let scaled = one.edit(&PeerId([1; 32]), &Edit::Replicas { service: None, replicas: 5 }).unwrap();
        let mut other = spec(3);
        other.services.get_mut("web").unwrap().image = "web:2".into();
        let imaged = two.edit(&PeerId([2; 32]), &Edit::Spec(other)).unwrap();
        one.apply(&imaged).unwrap();
        two.apply(&scaled).unwrap();
        assert_eq!(one.spec, two.spec);
        assert_eq!((one.spec.services["web"].replicas, one.spec.services["web"].image.as_str()), (5, "web:2"));
    }

    #[test]
    fn a_field_that_two_set_at_once_is_a_conflict_until_somebody_sets_it_again() {
        let mut one = Document::new(app());
        let first = one.edit(&PeerId([1; 32]), &Edit::Spec(spec(3))).unwrap();
        let mut two = Document::new(app());
        two.apply(&first).unwrap();
        let scale = |replicas| Edit::Replicas { service: None, replicas };
        let five = one.edit(&PeerId([1; 32]), &scale(5)).unwrap();
        let seven = two.edit(&PeerId([2; 32]), &scale(7)).unwrap();
        one.apply(&seven).unwrap();
        two.apply(&five).unwrap();
        assert_eq!((&one.spec, &one.conflicts), (&two.spec, &two.conflicts));
        assert_eq!(one.conflicts, ["services.web.replicas is 7, and somebody else set 5"]);
        // The older states are still known, each as its author saw it.
        let replicas =
            |document: &mut Document, change: &[u8]| document.spec_at(change).unwrap().services["web"].replicas;
        assert_eq!([&first, &five, &seven].map(|change| replicas(&mut one, change)), [3, 5, 7]);
        assert_eq!(one.spec_at(b"another's"), None);
        let seven = one.spec.services["web"].replicas;
        assert!(one.edit(&PeerId([1; 32]), &scale(seven)).is_some());
        assert_eq!(one.conflicts, [""; 0]);
        assert!(one.edit(&PeerId([1; 32]), &scale(seven)).is_none());
        assert!(Document::place(&first) < Document::place(&five));
    }

    #[test]
    fn a_change_waits_for_what_it_depends_on() {
        let mut one = Document::new(app());
        let first = one.edit(&PeerId([1; 32]), &Edit::Spec(spec(3))).unwrap();
        let second = one.edit(&PeerId([1; 32]), &Edit::Delete).unwrap();
        let mut two = Document::new(app());
        assert!(!two.apply(&second).unwrap());
        assert!(two.has_waiting() && !two.deleted);
        assert!(two.apply(&first).unwrap());
        assert!(two.deleted && !two.has_waiting());
        two.close();
        assert!(!two.apply(&first).unwrap(), "again is harmless");
    }

    #[test]
    fn bytes_that_are_no_change_are_refused() {
        let mut document = Document::new(app());
        for bad in [&b""[..], b"\x85\x6f\x4a\x83", &[0xff; 400]] {
            assert!(document.apply(bad).is_err());
        }
    }

    #[test]
    fn outcomes_of_several_stewards_are_united() {
        let outcome = |slot: &str, attempt| Outcome {
            slot: slot.into(),
            revision: 7,
            attempt,
            exit_code: Some(0),
            lost: false,
            reason: None,
            ended_at: None,
            machine: None,
        };
        let mut one = Document::new(app());
        let mut two = Document::new(app());
        let edit = |batch: &str, outcomes| Edit::Outcomes { service: "web".into(), batch: batch.into(), outcomes };
        let a = one.edit(&PeerId([1; 32]), &edit("a", vec![outcome("1", 1), outcome("2", 1)])).unwrap();
        let b = two.edit(&PeerId([2; 32]), &edit("b", vec![outcome("2", 2)])).unwrap();
        one.apply(&b).unwrap();
        two.apply(&a).unwrap();
        assert_eq!(one.outcomes, two.outcomes);
        assert_eq!(one.outcomes["web"]["2"].attempt, 2);
    }
}
