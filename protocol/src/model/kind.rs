//! What kind of work a service is: kept up or run to its end, so many times or once on each machine, and after what.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::placement::TIME_MS_MAX;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Where the tasks of a service are: `deploy.mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// So many, wherever there is room.
    #[default]
    Replicated,
    /// One on each machine that meets the constraints, new machines included.
    Global,
}

/// How work that runs to its end is run: `x-rialto` of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// At most so many of its tasks at once; 0: all.
    #[serde(default, skip_serializing_if = "is_default")]
    pub parallelism: u32,
    /// A task that ends badly is started again so often; `None`: as `restart` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// An attempt that runs for longer has failed, ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

impl Batch {
    /// Whether nothing is said.
    pub fn is_usual(&self) -> bool {
        *self == Batch::default()
    }

    /// What is wrong with it.
    pub fn fault(&self) -> Option<String> {
        match self.deadline_ms {
            Some(0) => Some("a deadline of 0 lets nothing run".into()),
            Some(ms) if ms > TIME_MS_MAX => Some("a deadline is at most thirty days".into()),
            _ => None,
        }
    }
}

/// A run that somebody asked for. It stays as large as it was when it was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Asked {
    /// Wall clock, ms.
    pub at: u64,
    /// How many tasks it has.
    pub size: u32,
}

/// What has to be true of another service before a task of this one is started for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// All its tasks have been started.
    #[default]
    ServiceStarted,
    /// All its tasks run, and are healthy where that is checked.
    ServiceHealthy,
    /// All its tasks have ended with code 0.
    ServiceCompletedSuccessfully,
}

impl Condition {
    /// Every one, by the word that files use.
    pub const ALL: [(&str, Condition); 3] = [
        ("service_started", Condition::ServiceStarted),
        ("service_healthy", Condition::ServiceHealthy),
        ("service_completed_successfully", Condition::ServiceCompletedSuccessfully),
    ];
}

/// What a service waits for: by service, the condition.
pub type Dependencies = BTreeMap<String, Condition>;

/// The services of an app that wait for each other in a circle, in order, the first again at the end. `None`: there is
/// no circle.
pub fn cycle<'a>(depends_on: impl Fn(&str) -> Option<&'a Dependencies>, services: &[&'a str]) -> Option<Vec<String>> {
    let mut cleared: BTreeSet<&str> = BTreeSet::new();
    for start in services {
        // The way from the start to where the walk stands, each with those that are still to be followed.
        let mut way: Vec<(&str, Vec<&str>)> = Vec::new();
        let mut next = Some(*start);
        loop {
            if let Some(name) = next.take() {
                if let Some(at) = way.iter().position(|(on, _)| *on == name) {
                    let circle = way[at..].iter().map(|(on, _)| *on).chain([name]);
                    return Some(circle.map(str::to_string).collect());
                }
                if !cleared.contains(name) {
                    let others = depends_on(name).into_iter().flat_map(|all| all.keys().map(String::as_str));
                    way.push((name, others.collect()));
                }
            }
            let Some((name, left)) = way.last_mut() else { break };
            match left.pop() {
                Some(other) => next = Some(other),
                None => {
                    cleared.insert(name);
                    way.pop();
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_found_with_its_path() {
        let graph = |edges: &[(&str, &str)]| {
            let mut all: BTreeMap<String, Dependencies> = BTreeMap::new();
            for (from, to) in edges {
                all.entry(from.to_string()).or_default().insert(to.to_string(), Condition::default());
            }
            all
        };
        let find = |edges: &[(&str, &str)]| {
            let all = graph(edges);
            let names: Vec<&str> = all.keys().map(String::as_str).collect();
            cycle(|name| all.get(name), &names).map(|path| path.join(" → "))
        };
        assert_eq!(find(&[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]), None);
        assert_eq!(find(&[("a", "b"), ("b", "c"), ("c", "b")]).as_deref(), Some("b → c → b"));
        assert_eq!(find(&[("a", "a")]).as_deref(), Some("a → a"));
    }

    #[test]
    fn a_long_chain_takes_no_stack() {
        let name = |n: u32| format!("s{n}");
        let all: BTreeMap<String, Dependencies> =
            (0..50_000).map(|n| (name(n), Dependencies::from([(name(n + 1), Condition::default())]))).collect();
        let names: Vec<&str> = all.keys().map(String::as_str).collect();
        assert_eq!(cycle(|name| all.get(name), &names), None);
    }
}
