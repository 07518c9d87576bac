//! `rialto explain`.

use rialto_client::Client;
use rialto_protocol::api::{Explanation, ServiceExplained};

use crate::args::Explain;
use crate::exit::Failure;
use crate::output::{Output, one_line, say};
use crate::table;

/// The most tasks and machines that are named in one cell.
const NAMES: usize = 8;

pub async fn explain(client: &Client, out: Output, explain: Explain) -> Result<(), Failure> {
    let answer = client.explain(&explain.name).await?;
    answer.data.remarks.iter().for_each(|remark| say(one_line(remark)));
    out.data(&answer, || shown(&answer.data))
}

/// The whole explanation.
pub fn shown(told: &Explanation) -> String {
    let steward = match &told.steward {
        Some(steward) if told.by_steward => format!("{steward} looks after it"),
        Some(steward) => format!("{steward} looks after it; this is what {} knows", told.told_by),
        None => "nobody looks after it yet".into(),
    };
    let services = told.services.iter().map(|service| self::service(&told.app, service));
    std::iter::once(format!("{}: {}\n", one_line(&told.app), one_line(&steward))).chain(services).collect()
}

/// One service: how it stands, and where tasks wait, why.
pub fn service(app: &str, told: &ServiceExplained) -> String {
    let counts = [(told.running, "run"), (told.finished, "have finished"), (told.waiting, "wait")];
    let counts = counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| match (count, *word) {
        (1, "run") => "1 runs".to_string(),
        (1, "wait") => "1 waits".to_string(),
        (1, "have finished") => "1 has finished".to_string(),
        (count, word) => format!("{count} {word}"),
    });
    let counts: Vec<String> = counts.collect();
    let counts = if counts.is_empty() { String::new() } else { format!(": {}", counts.join(", ")) };
    let mut text = format!("\n{app}.{}: {} wanted{counts}\n", told.service, told.wanted);
    text.extend(told.volumes.iter().chain(&told.steward).map(|sentence| format!("  {}\n", one_line(sentence))));
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for task in &told.tasks {
        match groups.iter_mut().find(|(why, _)| *why == task.why) {
            Some((_, tasks)) => tasks.push(&task.task),
            None => groups.push((&task.why, vec![&task.task])),
        }
    }
    let rows: Vec<Vec<String>> =
        groups.iter().map(|(why, tasks)| vec![why.to_string(), names(tasks, tasks.len())]).collect();
    if !rows.is_empty() {
        text += &indented(&table::table(&["TASKS WAIT BECAUSE", "TASKS"], &[], &rows));
    }
    if told.waiting as usize > told.tasks.len() && !told.tasks.is_empty() {
        text += &format!("  and {} more tasks wait\n", told.waiting as usize - told.tasks.len());
    }
    let row = |row: &rialto_protocol::api::MachineReason| {
        let machines: Vec<&str> = row.machines.iter().map(String::as_str).collect();
        vec![row.count.to_string(), row.text.clone(), names(&machines, row.count as usize)]
    };
    let rows: Vec<Vec<String>> = told.machines.iter().map(row).collect();
    if !rows.is_empty() {
        text += &indented(&table::table(&["MACHINES", "DO NOT TAKE THEM BECAUSE", "NAMES"], &[], &rows));
    }
    text
}

/// The first few, and how many more there are.
fn names(names: &[&str], count: usize) -> String {
    let shown: Vec<&str> = names.iter().copied().take(NAMES).collect();
    match count - shown.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

fn indented(table: &str) -> String {
    table.lines().map(|line| format!("  {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_protocol::api::{MachineReason, WaitingTask};

    pub fn reason(code: &str, text: &str, count: u32) -> MachineReason {
        let machines = (1..=count).map(|n| format!("m{n}")).collect();
        MachineReason { code: code.into(), text: text.into(), count, machines }
    }

    fn explanation() -> Explanation {
        let task = |slot: u32, why: &str| WaitingTask { task: format!("shop.web.{slot}"), why: why.into() };
        let web = ServiceExplained {
            service: "web".into(),
            wanted: 14,
            running: 1,
            finished: 0,
            waiting: 13,
            need: Default::default(),
            volumes: vec![],
            steward: vec!["12 tasks without a place for 3 min; machines were asked 5 times, next in 4 s".into()],
            tasks: std::iter::once(task(2, "m4 is down; replaced in 2 s, unless it comes back"))
                .chain((3..=14).map(|slot| task(slot, "no machine takes it")))
                .collect(),
            machines: vec![
                reason("full", "not enough memory: needs 2 GiB, at most 1.2 GiB free", 6),
                reason("constraint", "node.labels.zone == a does not hold", 2),
                reason("port", "port 8080 is taken by shop/web", 1),
                reason("draining", "draining", 1),
                reason("down", "down for 40 s", 1),
            ],
        };
        let db = ServiceExplained {
            service: "db".into(),
            wanted: 1,
            running: 1,
            waiting: 0,
            volumes: vec!["volume shop/data is on m3: its tasks run there and nowhere else".into()],
            steward: vec![],
            tasks: vec![],
            machines: vec![],
            ..web.clone()
        };
        Explanation {
            app: "shop".into(),
            generation: 1,
            steward: Some("m2".into()),
            told_by: "m2".into(),
            by_steward: true,
            services: vec![db, web],
            remarks: vec![],
        }
    }

    #[test]
    fn an_explanation_groups_tasks_and_machines() {
        insta::assert_snapshot!(shown(&explanation()));
    }

    #[test]
    fn who_is_not_the_steward_says_so() {
        let told = Explanation { by_steward: false, told_by: "m1".into(), services: vec![], ..explanation() };
        insta::assert_snapshot!(shown(&told));
    }
}
