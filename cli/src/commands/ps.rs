//! `rialto ps`.

use rialto_client::Client;
use rialto_protocol::api::{Answer, TaskRow, Tasks};

use super::watch;
use crate::args::Ps;
use crate::exit::Failure;
use crate::output::{Output, one_line, say};
use crate::{human, table};

const HEADER: [&str; 7] = ["TASK", "STATE", "MACHINE", "ADDRESS", "PORTS", "STARTED", "REASON"];

pub async fn ps(client: &Client, out: Output, ps: Ps) -> Result<(), Failure> {
    watch::again(client, ps.watch, async || look(client, out, &ps).await).await
}

async fn look(client: &Client, out: Output, ps: &Ps) -> Result<(), Failure> {
    let (app, service) = match ps.name.as_deref().map(|name| name.split_once('.').unwrap_or((name, ""))) {
        None => (None, None),
        Some((app, "")) => (Some(app), None),
        Some((app, service)) => (Some(app), Some(service)),
    };
    let answer = client.tasks(app, service, ps.all).await?;
    if answer.data.tasks.is_empty() {
        match app {
            None => say("nothing runs yet; start something by 'rialto run host true' or 'rialto deploy'"),
            // That there are no tasks of an app that there is not is no answer.
            Some(app) => {
                let app = client.app(app).await?.data;
                match service {
                    Some(service) if !app.spec.services.contains_key(service) => {
                        let names: Vec<&str> = app.spec.services.keys().map(String::as_str).collect();
                        let failure =
                            Failure::new(crate::exit::Exit::NotFound, format!("{} has no service {service}", app.app));
                        return Err(failure.hint(format!("it has {}", names.join(", "))));
                    }
                    _ => say(format!("{} has no tasks", app.app)),
                }
            }
        }
    }
    answer.data.remarks.iter().for_each(|remark| say(one_line(remark)));
    out.data(&answer.data.tasks, || watch::clear(ps.watch) + &rows(&answer))
}

/// The table; nothing where there are no tasks.
pub fn rows(answer: &Answer<Tasks>) -> String {
    if answer.data.tasks.is_empty() {
        return String::new();
    }
    let rows: Vec<Vec<String>> = answer.data.tasks.iter().map(|row| cells(row, answer.as_of)).collect();
    table::table(&HEADER, &["ADDRESS", "PORTS", "REASON"], &rows)
}

fn cells(row: &TaskRow, now: u64) -> Vec<String> {
    let started = row.started_at.as_ref().and_then(|at| human::age(at, now)).map(|age| format!("{age} ago"));
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    vec![
        row.task.clone(),
        state(row),
        or_dash(row.machine.clone()),
        row.address.clone().unwrap_or_default(),
        ports(row),
        or_dash(started),
        row.reason.clone().unwrap_or_default(),
    ]
}

/// The state, with the exit code where there is one: `exited (1)`.
pub fn state(row: &TaskRow) -> String {
    let mut state = row.state.clone();
    if row.lost {
        state += ", machine lost";
    }
    match row.exit_code {
        Some(_) if row.oom_killed => state + " (out of memory)",
        Some(code) => format!("{state} ({})", human::exit(code)),
        None => match &row.health {
            Some(health) => format!("{state} ({health})"),
            None => state,
        },
    }
}

fn ports(row: &TaskRow) -> String {
    let shown = row.ports.iter().map(|port| {
        let mut text = if port.container == 0 || port.container == port.host {
            port.host.to_string()
        } else {
            format!("{}:{}", port.host, port.container)
        };
        if port.ingress {
            text = format!("*:{text}");
        }
        if port.protocol != "tcp" {
            text += &format!("/{}", port.protocol);
        }
        text
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_protocol::api::PortRow;

    #[test]
    fn tasks_are_a_table() {
        let port = |host, container, protocol: &str| PortRow {
            name: None,
            host,
            container,
            protocol: protocol.into(),
            ingress: host == 8080,
        };
        let row = TaskRow {
            task: "shop.web.1".into(),
            app: "shop".into(),
            service: "web".into(),
            slot: "1".into(),
            machine: Some("m1".into()),
            state: "running".into(),
            address: Some("10.0.0.1".into()),
            ports: vec![port(20001, 80, "tcp"), port(5353, 53, "udp"), port(20002, 0, "tcp"), port(8080, 80, "tcp")],
            attempt: 1,
            started_at: Some("2026-01-01T00:00:00Z".into()),
            exit_code: None,
            claim: None,
            reason: None,
            oom_killed: false,
            health: None,
            outdated: false,
            lost: false,
            done: false,
            accepted_at: None,
            ended_at: None,
        };
        let pending = TaskRow {
            task: "shop.db.1".into(),
            machine: None,
            state: "pending".into(),
            address: None,
            ports: vec![],
            started_at: None,
            reason: Some("no machine has 64 GiB of memory free".into()),
            ..row.clone()
        };
        let ended = TaskRow {
            task: "run-3f9a2c71d0.run.1".into(),
            state: "exited".into(),
            exit_code: Some(137),
            oom_killed: true,
            ports: vec![],
            ..row.clone()
        };
        let lost = TaskRow { task: "job.work.1".into(), lost: true, ports: vec![], ..row.clone() };
        let tasks = Tasks { tasks: vec![lost, ended, pending, row], remarks: vec![] };
        // 2026-01-01T00:03:00Z
        insta::assert_snapshot!(rows(&Answer { as_of: 1_767_225_780_000, members_seen: 3, data: tasks }));
    }
}
