//! Showing how far a deploy is: one line that changes on a terminal, plain lines elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal, Write};

use rialto_protocol::api::TaskRow;
use rialto_protocol::model::{AppSpec, Mode, ServiceSpec};

use crate::commands::ps::state;
use crate::output::{one_line, say};

/// The most reasons that are said.
const REASONS_MAX: usize = 10;

pub struct Progress {
    app: String,
    /// By service; `None`: as many as there are machines for it.
    wanted: BTreeMap<String, Option<u32>>,
    shown: String,
    said: BTreeSet<String>,
    terminal: bool,
}

impl Progress {
    pub fn new(app: &str, spec: &AppSpec) -> Self {
        // What runs at given times is waited for by nobody.
        let lasting = spec.services.iter().filter(|(_, service)| service.schedule.is_none());
        let count = |service: &ServiceSpec| (service.mode == Mode::Replicated).then_some(service.replicas);
        let wanted = lasting.map(|(name, service)| (name.clone(), count(service))).collect();
        let terminal = io::stderr().is_terminal();
        Self { app: app.into(), wanted, shown: String::new(), said: BTreeSet::new(), terminal }
    }

    /// Shows what is new.
    pub fn see(&mut self, rows: &[TaskRow], remarks: &[String]) {
        let new = self.look(rows, remarks);
        for line in &new.reasons {
            self.clear();
            say(format!("  {line}"));
        }
        if let Some(summary) = new.summary {
            self.show(&summary);
        } else if self.terminal && !new.reasons.is_empty() {
            self.show(&self.shown.clone());
        }
    }

    /// How many of each service run, as it was seen last.
    pub fn summary(&self) -> &str {
        if self.shown.is_empty() { "nothing of it is known" } else { &self.shown }
    }

    /// Leaves the last line as it is.
    pub fn end(&mut self) {
        if self.terminal && !self.shown.is_empty() {
            say("");
        }
    }

    fn look(&mut self, rows: &[TaskRow], remarks: &[String]) -> New {
        let mut running: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let is_fit = |row: &&TaskRow| row.health.as_deref().is_none_or(|health| health == "healthy");
        let counts = |row: &&TaskRow| row.state == "running" || row.state == "exited" && row.exit_code == Some(0);
        for row in rows.iter().filter(counts).filter(is_fit) {
            running.entry(&row.service).or_default().insert(&row.slot);
        }
        let mut slots: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for row in rows {
            slots.entry(&row.service).or_default().insert(&row.slot);
        }
        let counts = self.wanted.iter().map(|(name, wanted)| {
            // Runs that somebody asked for are beside what was deployed: their slots are no numbers.
            let own = |slot: &&&str| wanted.is_none() || slot.parse::<u32>().is_ok();
            let count = |of: &BTreeMap<&str, BTreeSet<&str>>| {
                of.get(name.as_str()).map_or(0, |of| of.iter().filter(own).count())
            };
            let wanted = wanted.map_or_else(|| count(&slots), |wanted| wanted as usize);
            format!("{name} {}/{wanted}", count(&running))
        });
        let summary = counts.collect::<Vec<_>>().join(", ");
        // What was stopped or gave way was meant to.
        let is_news = |row: &&TaskRow| !["running", "stopped", "superseded"].contains(&row.state.as_str());
        let of_rows = rows.iter().filter(is_news).filter_map(|row| {
            match (&row.reason, row.exit_code) {
                (Some(reason), _) => Some(format!("{} is {}: {}", row.task, row.state, one_line(reason))),
                // Work that was to end has ended well.
                (None, Some(0)) => None,
                (None, Some(_)) => Some(format!("{} {}", row.task, state(row))),
                (None, None) => None,
            }
        });
        let mut reasons = Vec::new();
        for reason in of_rows.chain(remarks.iter().map(|remark| one_line(remark))) {
            if self.said.len() < REASONS_MAX && self.said.insert(reason.clone()) {
                reasons.push(reason);
            }
        }
        let changed = summary != self.shown;
        if changed {
            self.shown = summary.clone();
        }
        New { summary: changed.then_some(summary), reasons }
    }

    fn clear(&self) {
        if self.terminal {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }

    fn show(&self, summary: &str) {
        self.clear();
        if self.terminal {
            let _ = write!(io::stderr().lock(), "{}: {summary}", self.app);
        } else {
            say(format!("{}: {summary}", self.app));
        }
    }
}

struct New {
    summary: Option<String>,
    reasons: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_protocol::model::Schedule;

    #[test]
    fn only_what_is_new_is_said() {
        let service = |replicas| ServiceSpec { image: "host".into(), replicas, ..ServiceSpec::default() };
        let services = BTreeMap::from([("web".to_string(), service(2)), ("db".to_string(), service(1))]);
        let mut progress = Progress::new("shop", &AppSpec { services, single_run: false });
        let row = |service: &str, slot: &str, state: &str, reason: Option<&str>| TaskRow {
            task: format!("shop.{service}.{slot}"),
            app: "shop".into(),
            service: service.into(),
            slot: slot.into(),
            machine: None,
            state: state.into(),
            address: None,
            ports: vec![],
            attempt: 1,
            started_at: None,
            exit_code: None,
            claim: None,
            reason: reason.map(Into::into),
            oom_killed: false,
            health: None,
            outdated: false,
            lost: false,
            done: false,
            accepted_at: None,
            ended_at: None,
        };
        let rows = [row("web", "1", "running", None), row("db", "1", "pending", Some("no machine has 64 GiB free"))];
        let first = progress.look(&rows, &["holding back".into()]);
        assert_eq!(first.summary.as_deref(), Some("db 0/1, web 1/2"));
        assert_eq!(first.reasons, ["shop.db.1 is pending: no machine has 64 GiB free", "holding back"]);
        let again = progress.look(&rows, &["holding back".into()]);
        assert!(again.summary.is_none() && again.reasons.is_empty());

        let each = ServiceSpec { mode: Mode::Global, ..service(1) };
        let nightly = ServiceSpec { schedule: Some(Schedule::default()), ..service(1) };
        let services = [("agent", each), ("job", service(1)), ("nightly", nightly)];
        let services = services.map(|(name, service)| (name.to_string(), service));
        let mut progress = Progress::new("shop", &AppSpec { services: services.into(), single_run: false });
        let rows = [
            row("agent", "m1", "running", None),
            row("agent", "m2", "pending", None),
            row("job", "1", "running", None),
            row("job", "r5d2c-1", "running", None),
        ];
        assert_eq!(progress.look(&rows, &[]).summary.as_deref(), Some("agent 1/2, job 1/1"));
    }
}
