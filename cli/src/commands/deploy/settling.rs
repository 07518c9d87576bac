//! When what was deployed counts as up: a task with a health check when it is healthy, one without
//! when it has run for a moment; and when it is plain that it will not be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use rialto_protocol::api::TaskRow;
use rialto_protocol::model::AppSpec;

use crate::commands::ps::state;

/// A program that cannot run ends sooner than this, as a rule.
const SETTLED: Duration = Duration::from_secs(1);
/// A task that has ended so often by itself will do so again.
const CRASHES: usize = 3;

/// Watches the tasks of a deploy settle.
pub struct Settling {
    /// Services that are to stay up.
    lasting: BTreeSet<String>,
    /// Claims that had ended before.
    before: BTreeSet<String>,
    /// When each running claim was seen first.
    seen: BTreeMap<String, Instant>,
}

/// A task that ends again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crash {
    pub task: String,
    times: usize,
    state: String,
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} does not stay up: {} times it {}", self.task, self.times, self.state)
    }
}

impl Settling {
    pub fn new(spec: &AppSpec) -> Self {
        let lasting = spec.services.iter().filter(|(_, service)| !service.is_batch()).map(|(name, _)| name.clone());
        Self { lasting: lasting.collect(), before: BTreeSet::new(), seen: BTreeMap::new() }
    }

    /// What is there already is no news.
    pub fn pass_over(&mut self, rows: &[TaskRow]) {
        self.before = rows.iter().filter_map(|row| row.claim.clone()).collect();
    }

    /// How long until everything that runs has run for a moment; `None`: it has.
    pub fn left(&mut self, rows: &[TaskRow], now: Instant) -> Option<Duration> {
        let lasting = |row: &&TaskRow| row.state == "running" && self.lasting.contains(&row.service);
        let unchecked = rows.iter().filter(lasting).filter(|row| row.health.is_none());
        let new: Vec<String> =
            unchecked.filter_map(|row| row.claim.clone()).filter(|claim| !self.before.contains(claim)).collect();
        self.seen.retain(|claim, _| new.contains(claim));
        let since = new.into_iter().map(|claim| *self.seen.entry(claim).or_insert(now)).max()?;
        SETTLED.checked_sub(now.saturating_duration_since(since)).filter(|left| !left.is_zero())
    }

    /// The first task that has ended too often.
    pub fn crash(&self, rows: &[TaskRow]) -> Option<Crash> {
        let mut ended: BTreeMap<&str, Vec<&TaskRow>> = BTreeMap::new();
        for row in rows.iter().filter(|row| self.lasting.contains(&row.service) && !row.outdated) {
            let is_new = row.claim.as_ref().is_none_or(|claim| !self.before.contains(claim));
            if is_new && matches!(row.state.as_str(), "exited" | "failed") {
                ended.entry(&row.task).or_default().push(row);
            }
        }
        let (task, rows) = ended.into_iter().find(|(_, rows)| rows.len() >= CRASHES)?;
        let last = rows.iter().max_by_key(|row| row.attempt)?;
        let why = last.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        Some(Crash { task: task.into(), times: rows.len(), state: format!("{}{why}", state(last)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_protocol::model::ServiceSpec;

    fn row(claim: &str, state: &str) -> TaskRow {
        let row = serde_json::json!({
            "task": "shop.web.1", "app": "shop", "service": "web", "slot": "1", "machine": null, "state": state,
            "address": null, "ports": [], "attempt": 1, "started_at": null, "claim": claim,
            "exit_code": (state == "exited").then_some(1),
        });
        serde_json::from_value(row).unwrap()
    }

    fn settling() -> Settling {
        let service = ServiceSpec { image: "host".into(), replicas: 1, ..ServiceSpec::default() };
        Settling::new(&AppSpec { services: BTreeMap::from([("web".to_string(), service)]), single_run: false })
    }

    #[test]
    fn what_runs_has_to_run_for_a_moment() {
        let mut settling = settling();
        let now = Instant::now();
        assert_eq!(settling.left(&[row("a", "running")], now), Some(SETTLED));
        assert_eq!(settling.left(&[row("a", "running")], now + SETTLED), None);
        assert_eq!(settling.left(&[row("b", "running")], now + SETTLED), Some(SETTLED), "another one starts anew");
        let healthy = TaskRow { health: Some("healthy".into()), ..row("c", "running") };
        assert_eq!(settling.left(&[healthy], now), None);
        settling.pass_over(&[row("old", "running")]);
        assert_eq!(settling.left(&[row("old", "running")], now), None);
    }

    #[test]
    fn three_ends_are_a_crash() {
        let mut settling = settling();
        let rows = [row("a", "exited"), row("b", "exited"), row("c", "exited"), row("d", "running")];
        let crash = settling.crash(&rows).unwrap();
        assert_eq!(crash.to_string(), "shop.web.1 does not stay up: 3 times it exited (1)");
        settling.pass_over(&rows[..1]);
        assert_eq!(settling.crash(&rows), None);
    }
}
