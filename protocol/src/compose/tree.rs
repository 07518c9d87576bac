//! YAML as a tree of nodes that know where they stand.
//!
//! Scalars keep the text that was written: `1.10` stays `1.10` and `0755` stays `0755`, for most
//! values of an app file are text, whatever YAML takes them for.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{Spanned, Tagged};

/// Where something stands: which of the files, and line and column, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Counts the files that were read, from 0.
    pub file: u16,
    pub line: u32,
    pub column: u32,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub value: Value,
}

/// What a node holds.
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    /// Text as it was written.
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// `!reset`: what other files say here is forgotten. None is left when the files are one.
    Reset,
    /// `!override`: this takes the place of what other files say. None is left when the files are one.
    Override(Box<Value>),
}

/// One entry of a mapping.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub at: Place,
    pub value: Node,
}

impl Value {
    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Scalar(_) => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Reset => "!reset",
            Value::Override(_) => "!override",
        }
    }

    /// How many nodes it is made of.
    pub fn weight(&self) -> usize {
        match self {
            Value::Null | Value::Scalar(_) | Value::Reset => 1,
            Value::List(items) => items.iter().map(|item| item.value.weight()).sum::<usize>() + 1,
            Value::Map(entries) => entries.iter().map(|entry| entry.value.value.weight()).sum::<usize>() + 1,
            Value::Override(value) => value.weight(),
        }
    }
}

impl Node {
    /// The text of a single value.
    pub fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// What a mapping has under a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// Takes a key out of a mapping.
    pub fn take(&mut self, key: &str) -> Option<Entry> {
        let Value::Map(entries) = &mut self.value else { return None };
        let at = entries.iter().position(|entry| entry.key == key)?;
        Some(entries.remove(at))
    }
}

/// What is wrong with a file that is no YAML, or too much of it.
#[derive(Clone, Debug)]
pub struct Broken {
    pub place: Place,
    pub message: String,
}

/// Reads one YAML document, the file of that number. Depth, aliases and the text that they repeat are bounded.
pub fn read(text: &str, file: u16) -> Result<Node, Broken> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 16,
            max_events: 60_000,
            max_nodes: 60_000,
            max_documents: 1,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_total_scalar_bytes: 4 * super::FILE_BYTES_MAX,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        strict_booleans: true,
        with_snippet: false,
        emit_comments: false,
        non_finite_float_policy: NonFiniteFloatPolicy::AsString,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options) {
        Ok(raw) => Ok(node(raw, &Source { text, file })),
        Err(error) => {
            let start = Place { file, line: 1, column: 1 };
            let place = error.location().map_or(start, |location| place(location, file));
            Err(Broken { place, message: message(&error) })
        }
    }
}

fn message(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error;
    match error.without_snippet() {
        Error::Budget { breach: BudgetBreach::Documents { .. }, .. } => "a file holds one app, not several".into(),
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => "lists and mappings are nested too deeply".into(),
        Error::Budget { .. } => "the file says or repeats too much".into(),
        Error::AliasError { error, .. } => message(error),
        other => {
            let told = other.render();
            // The library ends its sentences with the place, which is told already.
            told.split(" at line ").next().unwrap_or(&told).trim().to_string()
        }
    }
}

/// As the library hands it over; the text of plain scalars is still in the source alone.
enum Raw {
    Null,
    Plain(String),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Tagged<Spanned<Raw>>)>),
}

struct Source<'a> {
    text: &'a str,
    file: u16,
}

fn place(location: serde_saphyr::Location, file: u16) -> Place {
    let number = |n: u64| u32::try_from(n).unwrap_or(u32::MAX).max(1);
    Place { file, line: number(location.line()), column: number(location.column()) }
}

/// The depth of the recursion is the tree's, which the budget bounds.
fn node(raw: Spanned<Raw>, source: &Source) -> Node {
    let written = || {
        let span = raw.defined.span();
        let start = usize::try_from(span.byte_offset()?).ok()?;
        let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
        source.text.get(start..end).map(str::to_string)
    };
    let value = match raw.value {
        Raw::Null => Value::Null,
        Raw::Plain(value) => Value::Scalar(written().unwrap_or(value)),
        Raw::Text(text) => Value::Scalar(text),
        Raw::List(items) => Value::List(items.into_iter().map(|item| node(item, source)).collect()),
        Raw::Map(entries) => Value::Map(entries.into_iter().map(|(key, value)| entry(key, value, source)).collect()),
    };
    Node { place: place(raw.referenced, source.file), value }
}

/// Of all tags only those mean something that say how files are put together.
fn entry(key: Spanned<String>, Tagged(value, tag): Tagged<Spanned<Raw>>, source: &Source) -> Entry {
    let mut value = node(value, source);
    match tag.as_deref() {
        Some("!reset") => value.value = Value::Reset,
        Some("!override") => value.value = Value::Override(Box::new(value.value)),
        _ => {}
    }
    Entry { at: place(key.referenced, source.file), key: key.value, value }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value, a list or a mapping")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Plain(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_string()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Raw, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Raw::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Raw, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Raw::Map(map))
    }
}
