//! Reads from an app's rows whether it runs, and whether it will still do anything.

use std::collections::BTreeMap;

use rialto_protocol::api::{App, TaskRow};
use rialto_protocol::model::{Mode, Restart, ServiceSpec};

/// Which tasks are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An app; or one service of it; or one slot of that.
    Tasks { app: String, service: Option<String>, slot: Option<String> },
    /// One claim, in hexadecimal.
    Claim { app: String, claim: String },
}

impl Target {
    /// Reads `app`, `app.service` or `app.service.slot`.
    pub fn of(name: &str) -> Self {
        let mut parts = name.splitn(3, '.').map(str::to_string);
        let app = parts.next().unwrap_or_default();
        Target::Tasks { app, service: parts.next(), slot: parts.next() }
    }

    pub fn app(&self) -> &str {
        match self {
            Target::Tasks { app, .. } | Target::Claim { app, .. } => app,
        }
    }

    /// Whether the row is of a task that is meant.
    pub fn means(&self, row: &TaskRow) -> bool {
        match self {
            Target::Tasks { app, service, slot } => {
                row.app == *app
                    && service.as_ref().is_none_or(|service| row.service == *service)
                    && slot.as_ref().is_none_or(|slot| row.slot == *slot)
            }
            Target::Claim { claim, .. } => row.claim.as_ref() == Some(claim),
        }
    }
}

/// Whether the claim of this row has ended.
pub fn has_ended(row: &TaskRow) -> bool {
    matches!(row.state.as_str(), "exited" | "failed" | "stopped" | "preempted" | "superseded")
}

/// Each slot's present row: the live one, else the first, rows being ordered newest first. A copy that gave way to
/// another tells nothing of the task while there is that other.
pub fn present<'a>(rows: impl IntoIterator<Item = &'a TaskRow>) -> BTreeMap<&'a str, &'a TaskRow> {
    let rank = |row: &TaskRow| match (has_ended(row) || row.lost, row.state.as_str()) {
        (false, _) => 2,
        (true, "superseded") => 0,
        (true, _) => 1,
    };
    let mut slots: BTreeMap<&str, &TaskRow> = BTreeMap::new();
    for row in rows {
        let held = slots.entry(&row.task).or_insert(row);
        if rank(row) > rank(held) {
            *held = row;
        }
    }
    slots
}

/// Whether the document wants the row's slot. A slot that is no number (an array's index, an instant) it does.
pub fn is_wanted(row: &TaskRow, app: Option<&App>) -> bool {
    let service = app.and_then(|app| app.spec.services.get(&row.service));
    service.is_some_and(|service| {
        service.replicas > 0 && row.slot.parse::<u32>().map_or(true, |slot| slot <= service.replicas)
    })
}

/// Whether nothing more will come of the slot that this row shows.
pub fn is_final(row: &TaskRow, app: Option<&App>) -> bool {
    let service = app.and_then(|app| app.spec.services.get(&row.service));
    let Some(service) = service.filter(|_| is_wanted(row, app)) else {
        return row.lost || has_ended(row);
    };
    row.lost
        || row.done
        || match row.state.as_str() {
            "exited" => service.finishes(row.exit_code),
            // One that had begun was interrupted, and its steward decides whether it is repeated.
            "failed" => service.restart == Restart::No && row.started_at.is_none(),
            // A machine stopped it while it is still wanted (it drains, or a rival won): it comes back elsewhere.
            _ => false,
        }
}

/// Whether all tasks that are meant have come to their end, so that following them would show nothing more.
pub fn is_finished(target: &Target, app: Option<&App>, rows: &[TaskRow]) -> bool {
    let slots = present(rows.iter().filter(|row| target.means(row)));
    if !slots.values().all(|row| is_final(row, app)) {
        return false;
    }
    // Where the document wants tasks of which nothing is known yet, they are still to come.
    !slots.is_empty() || app.is_none_or(|app| wanted(target, app).all(|(_, service)| service.replicas == 0))
}

/// Whether every service that is meant runs with all its replicas, healthy where that is checked; batches count when they have begun or ended.
pub fn is_running(target: &Target, app: &App, rows: &[TaskRow]) -> bool {
    let slots = present(rows.iter().filter(|row| target.means(row)));
    // What runs at given times need not run now.
    wanted(target, app).filter(|(_, service)| service.schedule.is_none()).all(|(name, service)| {
        let mut running = 0;
        for row in slots.values().filter(|row| row.service == *name) {
            match row.state.as_str() {
                // One with a reason runs, as far as anybody knows, on a machine that is not heard.
                "running" if row.reason.is_none() && !row.outdated && is_fit(row) => running += 1,
                "pending" | "accepted" | "starting" => return false,
                _ if service.is_batch() && is_final(row, Some(app)) => running += 1,
                _ => {}
            }
        }
        let one_slot = matches!(target, Target::Tasks { slot: Some(_), .. });
        // Of finished runs only the last thousand are shown: where nothing waits, the rest has run.
        let enough = match service.mode {
            // As many as there are machines that will do: each that waits has a row.
            Mode::Global => 0,
            Mode::Replicated if one_slot => service.replicas.min(1),
            Mode::Replicated => service.replicas,
        };
        running >= if service.is_batch() { enough.min(1) } else { enough }
    })
}

/// Whether nothing speaks against its health.
fn is_fit(row: &TaskRow) -> bool {
    row.health.as_deref().is_none_or(|health| health == "healthy")
}

fn wanted<'a>(target: &'a Target, app: &'a App) -> impl Iterator<Item = (&'a String, &'a ServiceSpec)> {
    app.spec.services.iter().filter(move |(name, _)| match target {
        Target::Tasks { service, .. } => service.as_ref().is_none_or(|service| service == *name),
        Target::Claim { .. } => false,
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use rialto_protocol::model::AppSpec;

    pub fn row(slot: &str, state: &str, attempt: u32) -> TaskRow {
        TaskRow {
            task: format!("shop.web.{slot}"),
            app: "shop".into(),
            service: "web".into(),
            slot: slot.into(),
            machine: None,
            state: state.into(),
            address: None,
            ports: Vec::new(),
            attempt,
            started_at: None,
            exit_code: (state == "exited").then_some(0),
            claim: Some(format!("{attempt:032x}")),
            reason: None,
            oom_killed: false,
            health: None,
            lost: false,
            done: false,
            outdated: false,
            accepted_at: None,
            ended_at: None,
        }
    }

    fn app(replicas: u32, restart: Restart) -> App {
        let service = ServiceSpec { image: "host".into(), replicas, restart, ..Default::default() };
        let spec = AppSpec { services: BTreeMap::from([("web".into(), service)]), single_run: false };
        App { app: "shop".into(), generation: 1, spec, steward: None, conflicts: Vec::new() }
    }

    #[test]
    fn names_are_read_part_by_part() {
        let tasks = |service: Option<&str>, slot: Option<&str>| Target::Tasks {
            app: "shop".into(),
            service: service.map(Into::into),
            slot: slot.map(Into::into),
        };
        assert_eq!(Target::of("shop"), tasks(None, None));
        assert_eq!(Target::of("shop.web"), tasks(Some("web"), None));
        assert_eq!(Target::of("shop.web.2026-10-01T03:00:00.5"), tasks(Some("web"), Some("2026-10-01T03:00:00.5")));
    }

    #[test]
    fn a_run_is_finished_when_its_last_attempt_is() {
        let target = Target::of("shop");
        let batch = app(1, Restart::No);
        let lost = TaskRow { lost: true, ..row("1", "running", 1) };
        let cases: [(Vec<TaskRow>, bool); 10] = [
            (vec![], false),
            (vec![row("1", "pending", 0)], false),
            (vec![row("1", "running", 1)], false),
            (vec![row("1", "exited", 1)], true),
            (vec![row("1", "failed", 1)], true),
            (vec![row("1", "stopped", 1)], false),
            (vec![row("1", "preempted", 1)], false),
            (vec![row("1", "exited", 1), row("1", "pending", 0)], false),
            (vec![lost], true),
            // Two machines ran it; the copy that gave way is listed first.
            (vec![row("1", "superseded", 1), row("1", "exited", 1)], true),
        ];
        for (rows, finished) in cases {
            assert_eq!(is_finished(&target, Some(&batch), &rows), finished, "{rows:?}");
        }
        assert!(is_finished(&target, None, &[row("1", "stopped", 1)]));
        assert!(is_finished(&target, None, &[]));
        assert!(!is_finished(&target, None, &[row("1", "stopping", 1)]));
        assert!(is_finished(&target, Some(&app(0, Restart::No)), &[row("1", "stopped", 1)]));
        assert!(!is_finished(&target, Some(&app(1, Restart::Always)), &[row("1", "exited", 1)]));
        let failed = TaskRow { exit_code: Some(1), ..row("1", "exited", 1) };
        assert!(!is_finished(&target, Some(&app(1, Restart::OnFailure)), std::slice::from_ref(&failed)));
        // Its retries are spent, and its steward says so.
        let spent = TaskRow { done: true, ..failed };
        assert!(is_finished(&target, Some(&app(1, Restart::OnFailure)), &[spent]));
    }

    #[test]
    fn a_service_runs_when_all_replicas_do() {
        let target = Target::of("shop");
        let two = app(2, Restart::Always);
        let one_runs = vec![row("1", "running", 1)];
        assert!(!is_running(&target, &two, &one_runs));
        assert!(!is_running(&target, &two, &[row("1", "running", 1), row("2", "pending", 0)]));
        assert!(!is_running(&target, &two, &[row("1", "running", 1), row("2", "exited", 3)]));
        assert!(is_running(&target, &two, &[row("1", "running", 1), row("2", "running", 4), row("2", "exited", 3)]));
        for (health, runs) in [("starting", false), ("unhealthy", false), ("healthy", true)] {
            let row = TaskRow { health: Some(health.into()), ..row("1", "running", 1) };
            assert_eq!(is_running(&target, &app(1, Restart::Always), &[row]), runs, "{health}");
        }
        assert!(is_running(&target, &app(0, Restart::Always), &[row("1", "stopped", 1)]));
        assert!(is_running(&target, &app(1, Restart::No), &[row("1", "exited", 1)]));
        assert!(is_running(&Target::of("shop.web.1"), &two, &one_runs));
    }
}
