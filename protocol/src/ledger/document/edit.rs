//! What people and stewards change in a document, as operations on its fields: only what differs is written, so that edits
//! of different fields both hold.

use std::collections::BTreeMap;

use automerge::transaction::Transactable;
use automerge::{AutomergeError, ObjId, ObjType, ROOT, ScalarValue, Value, hydrate};
use serde_json::Value as Json;

use super::{RUNS_MAX, to_json};
use crate::model::{AppSpec, Asked, Outcome, RolloutOrder, ServiceSpec};

/// What a person or a steward wants a document to say.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Exactly these services.
    Spec(AppSpec),
    /// The number of replicas of one service, or of all.
    /// `at`: the wall clock, ms; a schedule that was suspended begins then.
    Replicas {
        service: Option<String>,
        replicas: u32,
        at: u64,
    },
    Delete,
    /// Finished tasks and settled instants, by service; `batch` names this edit among all peers', `by` its steward.
    Outcomes {
        batch: String,
        by: String,
        outcomes: BTreeMap<String, Vec<Outcome>>,
        cursors: BTreeMap<String, u64>,
    },
    /// A service that runs to its end runs once more.
    Run {
        service: String,
        id: String,
        asked: Asked,
    },
    /// What becomes of a rollout.
    Order {
        service: String,
        order: RolloutOrder,
    },
    /// A service is again what it was.
    Back {
        service: String,
        spec: Box<ServiceSpec>,
        order: RolloutOrder,
    },
}

/// Writes an edit into an open document.
pub(super) fn write<T: Transactable>(doc: &mut T, edit: &Edit) -> Result<(), AutomergeError> {
    match edit {
        Edit::Spec(spec) => {
            let json = serde_json::to_value(spec).unwrap_or(Json::Null);
            let Json::Object(wanted) = json else { return Ok(()) };
            for (key, value) in &wanted {
                put(doc, &ROOT, key, value)?;
            }
            Ok(())
        }
        Edit::Replicas { service, replicas, at } => {
            let Some((_, services)) = doc.get(ROOT, "services")? else { return Ok(()) };
            let names: Vec<String> = doc.keys(&services).collect();
            for name in names.iter().filter(|name| service.as_ref().is_none_or(|only| only == *name)) {
                if let Some((Value::Object(ObjType::Map), one)) = doc.get(&services, name.as_str())? {
                    let before = doc.get(&one, "replicas")?.and_then(|(value, _)| value.as_u64());
                    put(doc, &one, "replicas", &Json::from(*replicas))?;
                    if let (Some(0), Some((Value::Object(ObjType::Map), schedule))) =
                        (before, doc.get(&one, "schedule")?)
                    {
                        put(doc, &schedule, "since", &Json::from(*at))?;
                    }
                }
            }
            Ok(())
        }
        Edit::Delete => put(doc, &ROOT, "deleted", &Json::Bool(true)),
        Edit::Outcomes { batch, by, outcomes, cursors } => {
            for (service, outcomes) in outcomes {
                let text = serde_json::to_string(outcomes).unwrap_or_default();
                note(doc, "outcomes", &format!("{service}/{batch}"), &Json::String(text))?;
            }
            for (service, cursor) in cursors {
                note(doc, "cursors", &format!("{service}/{by}"), &Json::from(*cursor))?;
            }
            Ok(())
        }
        Edit::Run { service, id, asked } => {
            let Some((_, map)) = doc.get(ROOT, "runs")? else { return Ok(()) };
            let own = |key: &String| key.split_once('/').is_some_and(|(of, _)| of == service);
            let mut held: Vec<(Asked, String)> = Vec::new();
            for key in doc.keys(&map).filter(own).collect::<Vec<_>>() {
                let text = doc.get(&map, key.as_str())?.and_then(|(value, _)| Some(value.as_str()?.to_string()));
                held.push((text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default(), key));
            }
            held.sort_unstable();
            for (_, key) in held.iter().take((held.len() + 1).saturating_sub(RUNS_MAX)) {
                doc.delete(&map, key.as_str())?;
            }
            let text = serde_json::to_string(asked).unwrap_or_default();
            put(doc, &map, &format!("{service}/{id}"), &Json::String(text))
        }
        Edit::Order { service, order } => give_order(doc, service, order),
        Edit::Back { service, spec, order } => {
            let Some((_, services)) = doc.get(ROOT, "services")? else { return Ok(()) };
            put(doc, &services, service, &serde_json::to_value(spec).unwrap_or(Json::Null))?;
            give_order(doc, service, order)
        }
    }
}

fn give_order<T: Transactable>(doc: &mut T, service: &str, order: &RolloutOrder) -> Result<(), AutomergeError> {
    note(doc, "orders", service, &Json::String(serde_json::to_string(order).unwrap_or_default()))
}

pub(super) fn forget_order<T: Transactable>(doc: &mut T, service: &str) -> Result<(), AutomergeError> {
    let Some((_, orders)) = doc.get(ROOT, "orders")? else { return Ok(()) };
    doc.delete(&orders, service)
}

fn note<T: Transactable>(doc: &mut T, map: &str, key: &str, value: &Json) -> Result<(), AutomergeError> {
    let Some((_, map)) = doc.get(ROOT, map)? else { return Ok(()) };
    put(doc, &map, key, value)
}

/// Makes `key` of a map read as `value` with the fewest operations: maps merge field by field,
/// a list is replaced as a whole.
fn put<T: Transactable>(doc: &mut T, map: &ObjId, key: &str, value: &Json) -> Result<(), AutomergeError> {
    let held = doc.get(map, key)?;
    // Where several set it at once, setting it again to what it reads as says which of them was right.
    let is_settled = doc.get_all(map, key)?.len() < 2;
    match value {
        Json::Object(wanted) => {
            let Some((Value::Object(ObjType::Map), object)) = held else {
                doc.batch_create_object(map, key, &whole(value), false)?;
                return Ok(());
            };
            let gone: Vec<String> = doc.keys(&object).filter(|held| !wanted.contains_key(held)).collect();
            for key in gone {
                doc.delete(&object, key.as_str())?;
            }
            for (key, value) in wanted {
                put(doc, &object, key, value)?;
            }
        }
        Json::Array(_) => {
            let same = match &held {
                Some((Value::Object(ObjType::List), list)) => to_json(doc, list, ObjType::List) == *value,
                _ => false,
            };
            if !same || !is_settled {
                doc.batch_create_object(map, key, &whole(value), false)?;
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

/// A value that nothing is held of yet, to be written at once.
fn whole(json: &Json) -> hydrate::Value {
    match json {
        Json::Object(fields) => {
            // Written in the order of its keys, whatever order it is held in.
            let mut map = hydrate::Map::default();
            let value = |value| hydrate::MapValue { value: whole(value), conflict: false };
            map.extend(fields.iter().map(|(key, field)| (key.clone(), value(field))));
            map.into()
        }
        Json::Array(items) => hydrate::List::from(items.iter().map(whole).collect::<Vec<_>>()).into(),
        scalar => to_scalar(scalar).into(),
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
