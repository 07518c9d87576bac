//! Which machines a task may run on: `node.labels.disk == ssd`, `node.hostname != m1`.
//!
//! The words are Compose's and Swarm's, with one addition: a value may name several, `a|b`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The label by which a machine tells the model of its GPUs.
pub const GPU_MODEL: &str = "gpu_spec";
/// The most values of one constraint.
pub const VALUES_MAX: usize = 32;
/// The longest constraint, in bytes.
const LENGTH_MAX: usize = 512;
const LABELS: &str = "node.labels.";
const NAME: &str = "node.hostname";

/// What a machine must or must not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    /// The machine's label; its name where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether one of the values is wanted, or none of them.
    pub equal: bool,
    pub values: Vec<String>,
}

impl Constraint {
    /// The models of GPU that a task can use.
    pub fn gpu_model(models: impl IntoIterator<Item = String>) -> Self {
        Self { label: Some(GPU_MODEL.into()), equal: true, values: models.into_iter().collect() }
    }

    /// Whether a machine of this name and these labels will do. A label that is missing equals nothing.
    pub fn allows(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let value = match &self.label {
            Some(label) => labels.get(label).map(String::as_str),
            None => Some(name),
        };
        value.is_some_and(|value| self.values.iter().any(|one| one == value)) == self.equal
    }
}

/// The first constraint that a machine does not meet.
pub fn unmet<'a>(all: &'a [Constraint], name: &str, labels: &BTreeMap<String, String>) -> Option<&'a Constraint> {
    all.iter().find(|constraint| !constraint.allows(name, labels))
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.label {
            Some(label) => write!(f, "{LABELS}{label}")?,
            None => f.write_str(NAME)?,
        }
        write!(f, " {} {}", if self.equal { "==" } else { "!=" }, self.values.join("|"))
    }
}

/// Why a text is no constraint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    #[error("a constraint is written as node.labels.disk == ssd, or with !=")]
    NoComparison,
    #[error("'{0}' cannot be compared: write node.labels.NAME or node.hostname")]
    UnknownKey(String),
    #[error("a value is missing after the comparison")]
    NoValue,
    #[error("a constraint of more than {LENGTH_MAX} characters or {VALUES_MAX} values")]
    TooLong,
}

impl FromStr for Constraint {
    type Err = ConstraintError;

    fn from_str(text: &str) -> Result<Self, ConstraintError> {
        if text.len() > LENGTH_MAX {
            return Err(ConstraintError::TooLong);
        }
        let at = text.find(['=', '!']).ok_or(ConstraintError::NoComparison)?;
        let (key, rest) = (text[..at].trim(), &text[at..]);
        let equal = rest.starts_with("==");
        let Some(value) = rest.strip_prefix("==").or_else(|| rest.strip_prefix("!=")) else {
            return Err(ConstraintError::NoComparison);
        };
        let label = match key.strip_prefix(LABELS) {
            Some(label) if !label.is_empty() => Some(label.to_string()),
            _ if key == NAME => None,
            _ => return Err(ConstraintError::UnknownKey(key.chars().take(64).collect())),
        };
        let values: Vec<String> = value.split('|').map(|one| one.trim().to_string()).collect();
        if values.iter().any(String::is_empty) {
            return Err(ConstraintError::NoValue);
        }
        if values.len() > VALUES_MAX {
            return Err(ConstraintError::TooLong);
        }
        Ok(Self { label, equal, values })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(text: &str) -> bool {
        let labels = BTreeMap::from([("disk".to_string(), "ssd".to_string())]);
        text.parse::<Constraint>().unwrap_or_else(|error| panic!("{text}: {error}")).allows("m1", &labels)
    }

    #[test]
    fn labels_and_names_are_compared() {
        for text in
            ["node.labels.disk == ssd", "node.labels.disk==hdd | ssd", "node.hostname != m2", "node.labels.x != 1"]
        {
            assert!(allowed(text), "{text}");
        }
        for text in ["node.labels.disk != ssd", "node.labels.x == 1", "node.hostname == m2|m3"] {
            assert!(!allowed(text), "{text}");
        }
    }

    #[test]
    fn it_reads_what_it_writes() {
        for text in ["node.labels.disk == ssd", "node.hostname != m1|m2"] {
            assert_eq!(text.parse::<Constraint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_none_is_refused_with_the_reason() {
        for (text, error) in [
            ("", ConstraintError::NoComparison),
            ("node.labels.disk = ssd", ConstraintError::NoComparison),
            ("node.role == manager", ConstraintError::UnknownKey("node.role".into())),
            ("node.labels. == a", ConstraintError::UnknownKey("node.labels.".into())),
            ("node.labels.a == ", ConstraintError::NoValue),
            ("node.labels.a == b|", ConstraintError::NoValue),
        ] {
            assert_eq!(text.parse::<Constraint>(), Err(error), "{text}");
        }
    }
}
