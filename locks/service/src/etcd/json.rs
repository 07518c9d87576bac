//! Messages as JSON, in the way that etcd's gateway has them (the mapping of proto3, with the names of the definitions):
//! bytes in base64, numbers of 64 bits as text, nothing that is zero or empty. What is read may be in lower camel case too.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

pub type Object = Map<String, Value>;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// A value that stands for itself: a number, a text, some bytes, a message.
pub trait Json: Sized {
    /// # Errors
    ///
    /// What is wrong, in words.
    fn of(name: &str, value: Value) -> Result<Self, String>;
    fn json(&self, name: &str) -> Value;
}

/// A field of a message: it may be left out.
pub trait Field {
    /// Takes its value out of the object.
    fn read_from(&mut self, name: &str, object: &mut Object) -> Result<(), String>;
    /// Puts its value into the object, unless it is the one that is left out.
    fn write_to(&self, name: &str, object: &mut Object);
}

/// What a field is called in JSON. etcd's definitions are not of one mind.
pub fn name_of(message: &str, field: &'static str) -> &'static str {
    match (message, field) {
        (_, "r#type") => "type",
        (_, "id") => "ID",
        (_, "ttl") => "TTL",
        (_, "granted_ttl") => "grantedTTL",
        (_, "peer_urls") => "peerURLs",
        (_, "client_urls") => "clientURLs",
        (_, "is_learner") => "isLearner",
        (_, "db_size") => "dbSize",
        (_, "db_size_in_use") => "dbSizeInUse",
        (_, "raft_index") => "raftIndex",
        (_, "raft_applied_index") => "raftAppliedIndex",
        ("StatusResponse", "raft_term") => "raftTerm",
        (_, field) => field,
    }
}

/// The names of an enumeration's numbers, by the field that has them.
fn numbers(name: &str) -> &'static [&'static str] {
    match name {
        "sort_order" => &["NONE", "ASCEND", "DESCEND"],
        "sort_target" => &["KEY", "VERSION", "CREATE", "MOD", "VALUE"],
        "result" => &["EQUAL", "GREATER", "LESS", "NOT_EQUAL"],
        "target" => &["VERSION", "CREATE", "MOD", "VALUE", "LEASE"],
        "filters" => &["NOPUT", "NODELETE"],
        "type" => &["PUT", "DELETE"],
        _ => &[],
    }
}

/// Takes out what goes by a name, in either way of writing it.
pub fn taken(name: &str, object: &mut Object) -> Option<Value> {
    let found = object.remove(name).or_else(|| object.remove(&camel(name)));
    found.filter(|value| !value.is_null())
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| {
        let (head, tail) = word.split_at(word.len().min(1));
        name + &head.to_uppercase() + tail
    })
}

/// An object, or what is wrong with it.
pub fn object_of(name: &str, value: Value) -> Result<Object, String> {
    match value {
        Value::Object(object) => Ok(object),
        other => Err(wrong(name, "an object", &other)),
    }
}

fn wrong(name: &str, wanted: &str, got: &Value) -> String {
    let mut got = got.to_string();
    if got.len() > 40 {
        got = got.chars().take(40).collect::<String>() + "…";
    }
    format!("{name}: {wanted} is expected, not {got}")
}

macro_rules! numbers_as_text {
    ($($number:ty),*) => { $(
        impl Json for $number {
            fn of(name: &str, value: Value) -> Result<Self, String> {
                let read = match &value {
                    Value::String(text) => text.parse().ok(),
                    Value::Number(number) => number.to_string().parse().ok(),
                    _ => None,
                };
                read.ok_or_else(|| wrong(name, "a number", &value))
            }

            fn json(&self, _: &str) -> Value {
                self.to_string().into()
            }
        }
    )* };
}

numbers_as_text!(i64, u64);

impl Json for i32 {
    fn of(name: &str, value: Value) -> Result<Self, String> {
        let read = match &value {
            Value::String(text) => numbers(name).iter().position(|known| known == text).map(|at| at as i32),
            Value::Number(number) => number.to_string().parse().ok(),
            _ => None,
        };
        read.ok_or_else(|| wrong(name, "one of its names, or a number,", &value))
    }

    fn json(&self, name: &str) -> Value {
        let known = usize::try_from(*self).ok().and_then(|at| numbers(name).get(at));
        known.map_or_else(|| (*self).into(), |known| (*known).into())
    }
}

impl Json for bool {
    fn of(name: &str, value: Value) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| wrong(name, "true or false", &value))
    }

    fn json(&self, _: &str) -> Value {
        (*self).into()
    }
}

impl Json for String {
    fn of(name: &str, value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => Ok(text),
            other => Err(wrong(name, "text", &other)),
        }
    }

    fn json(&self, _: &str) -> Value {
        self.as_str().into()
    }
}

impl Json for Vec<u8> {
    fn of(name: &str, value: Value) -> Result<Self, String> {
        let decoded = value.as_str().and_then(|text| {
            let alphabet = if text.contains(['-', '_']) { &URL_SAFE } else { &STANDARD };
            GeneralPurpose::new(alphabet, LENIENT).decode(text).ok()
        });
        decoded.ok_or_else(|| wrong(name, "base64", &value))
    }

    fn json(&self, _: &str) -> Value {
        GeneralPurpose::new(&STANDARD, LENIENT).encode(self).into()
    }
}

macro_rules! fields {
    ($($kind:ty),*) => { $(
        impl Field for $kind {
            fn read_from(&mut self, name: &str, object: &mut Object) -> Result<(), String> {
                if let Some(value) = taken(name, object) {
                    *self = Json::of(name, value)?;
                }
                Ok(())
            }

            fn write_to(&self, name: &str, object: &mut Object) {
                if *self != Self::default() {
                    object.insert(name.into(), self.json(name));
                }
            }
        }
    )* };
}

fields!(i64, u64, i32, bool, String, Vec<u8>);

impl<T: Json> Field for Option<T> {
    fn read_from(&mut self, name: &str, object: &mut Object) -> Result<(), String> {
        *self = taken(name, object).map(|value| T::of(name, value)).transpose()?;
        Ok(())
    }

    fn write_to(&self, name: &str, object: &mut Object) {
        if let Some(one) = self {
            object.insert(name.into(), one.json(name));
        }
    }
}

impl<T: Json> Field for Vec<T> {
    fn read_from(&mut self, name: &str, object: &mut Object) -> Result<(), String> {
        *self = match taken(name, object) {
            None => Vec::new(),
            Some(Value::Array(values)) => {
                values.into_iter().map(|value| T::of(name, value)).collect::<Result<_, _>>()?
            }
            Some(other) => return Err(wrong(name, "a list", &other)),
        };
        Ok(())
    }

    fn write_to(&self, name: &str, object: &mut Object) {
        if !self.is_empty() {
            object.insert(name.into(), self.iter().map(|one| one.json(name)).collect());
        }
    }
}

/// One of several fields: they stand in the object that the others are in.
macro_rules! one_of {
    ($kind:ident { $($name:literal: $variant:ident),* $(,)? }) => {
        impl $crate::etcd::json::Field for Option<$kind> {
            fn read_from(&mut self, _: &str, object: &mut $crate::etcd::json::Object) -> Result<(), String> {
                $(
                    if let Some(value) = $crate::etcd::json::taken($name, object) {
                        *self = Some($kind::$variant($crate::etcd::json::Json::of($name, value)?));
                    }
                )*
                Ok(())
            }

            fn write_to(&self, _: &str, object: &mut $crate::etcd::json::Object) {
                match self {
                    None => {}
                    $(Some($kind::$variant(one)) => {
                        object.insert($name.into(), $crate::etcd::json::Json::json(one, $name));
                    })*
                }
            }
        }
    };
}
pub(super) use one_of;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::messages::*;
    use super::*;

    #[test]
    fn a_transaction_is_read_in_either_way_of_writing_it() {
        let told = json!({
            "compare": [{"result": "EQUAL", "target": "CREATE", "key": "Zm9v", "create_revision": "0"}],
            "success": [{"requestPut": {"key": "Zm9v", "value": "YmFy", "lease": 7}}],
            "failure": [{"request_range": {"key": "Zm9v", "rangeEnd": "Zm9w", "sort_order": "DESCEND", "limit": "2"}}],
        });
        let txn = TxnRequest::of("txn", told).unwrap();
        let compare = &txn.compare[0];
        assert_eq!(
            (compare.result, compare.target, compare.with.clone()),
            (0, 1, Some(CompareWith::CreateRevision(0)))
        );
        let Some(AnyRequest::Put(put)) = &txn.success[0].request else { panic!("{txn:?}") };
        assert_eq!((put.key.as_slice(), put.value.as_slice(), put.lease), (&b"foo"[..], &b"bar"[..], 7));
        let Some(AnyRequest::Range(range)) = &txn.failure[0].request else { panic!("{txn:?}") };
        assert_eq!((range.range_end.as_slice(), range.sort_order, range.limit), (&b"fop"[..], 2, 2));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (told, words) in [
            (json!({"key": "***"}), "key: base64"),
            (json!({"key": 7}), "key: base64"),
            (json!({"limit": "x"}), "limit: a number"),
            (json!({"limit": 1e300}), "limit: a number"),
            (json!({"sort_order": "UP"}), "sort_order: one of its names"),
            (json!({"keys_only": "yes"}), "keys_only: true or false"),
            (json!({"quay": "Zm9v"}), "unknown field \"quay\""),
            (json!([]), "an object is expected"),
        ] {
            let error = RangeRequest::of("the request", told.clone()).unwrap_err();
            assert!(error.contains(words), "{told}: {error}");
        }
    }

    #[test]
    fn an_answer_has_no_zeros_and_etcds_names() {
        let header = Some(ResponseHeader { cluster_id: u64::MAX, member_id: 1, revision: 3, raft_term: 2 });
        let kv = KeyValue { key: b"foo".to_vec(), mod_revision: 3, ..KeyValue::default() };
        let event = Event { r#type: 1, kv: Some(kv), prev_kv: None };
        let told = WatchResponse { header, events: vec![event], ..WatchResponse::default() }.json("");
        let expected = json!({
            "header": {"cluster_id": "18446744073709551615", "member_id": "1", "revision": "3", "raft_term": "2"},
            "events": [{"type": "DELETE", "kv": {"key": "Zm9v", "mod_revision": "3"}}],
        });
        assert_eq!(told, expected);
        let lease = LeaseGrantResponse { header: None, id: 5, ttl: 60, error: String::new() };
        assert_eq!(lease.json(""), json!({"ID": "5", "TTL": "60"}));
        let status = StatusResponse { raft_term: 4, db_size: 9, ..StatusResponse::default() };
        assert_eq!(status.json(""), json!({"raftTerm": "4", "dbSize": "9"}));
        let member = Member { id: 1, client_urls: vec!["http://a:1".into()], ..Member::default() };
        assert_eq!(member.json(""), json!({"ID": "1", "clientURLs": ["http://a:1"]}));
        let put = AnyResponse::Put(PutResponse::default());
        assert_eq!(ResponseOp { response: Some(put) }.json(""), json!({"response_put": {}}));
    }
}
