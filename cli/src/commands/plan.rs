//! `rialto plan`: what a deploy would change, as a tree.

use std::fmt::Write;

use rialto_client::Client;
use rialto_protocol::api::ErrorCode;
use rialto_protocol::model::AppSpec;
use rialto_protocol::plan::{self, Change, FieldChange, Plan, ServicePlan};
use serde_json::json;

use super::deploy::file::{self, Wanted};
use crate::args;
use crate::exit::Failure;
use crate::human;
use crate::output::{Output, one_line};

/// Beside what runs.
pub async fn plan(client: &Client, out: Output, plan: &args::Plan) -> Result<(), Failure> {
    let Wanted { app, spec, warnings, .. } = file::read(&plan.files)?;
    let found = beside(client, &app, &spec, plan.resolve).await?;
    file::warn(&warnings);
    let data = json!({"plan": found, "app": spec, "warnings": file::as_json(&warnings)});
    out.data(&data, || tree(&found, true))
}

/// The file alone.
pub fn offline(out: Output, plan: &args::Plan) -> Result<(), Failure> {
    let Wanted { app, spec, warnings, conditions, .. } = file::read(&plan.files)?;
    let mut found = plan::plan(&app, None, &spec, plan.resolve);
    found.notes.extend(plan::volume_notes(&app, &spec, None));
    file::warn(&warnings);
    file::warn(&conditions);
    let warnings: Vec<_> = file::as_json(&warnings).into_iter().chain(file::as_json(&conditions)).collect();
    out.data(&json!({"plan": found, "app": spec, "warnings": warnings}), || tree(&found, true))
}

/// What would change of the app as it is now.
pub async fn beside(client: &Client, app: &str, spec: &AppSpec, resolve: bool) -> Result<Plan, Failure> {
    let mut found = match client.app(app).await {
        Ok(answer) => plan::plan(app, Some(&answer.data.spec), spec, resolve),
        Err(error) if error.code() == Some(ErrorCode::NotFound) => plan::plan(app, None, spec, resolve),
        Err(error) => return Err(error.into()),
    };
    if spec.services.values().any(|service| service.container.mounts.has_named()) {
        found.notes.extend(plan::volume_notes(app, spec, Some(&client.volumes().await?.data.volumes)));
    }
    Ok(found)
}

/// The app, its services, and of those that change the fields; `whole`: of those that are new, too.
pub fn tree(plan: &Plan, whole: bool) -> String {
    let mut text = match (plan.is_new, plan.is_empty()) {
        (true, _) => format!("{}: new\n", plan.app),
        (false, true) => format!("{}: nothing changes\n", plan.app),
        (false, false) => format!("{}\n", plan.app),
    };
    let last = plan.services.len().saturating_sub(1);
    for (at, service) in plan.services.iter().enumerate() {
        let (branch, trunk) = if at == last { ("└─", "  ") } else { ("├─", "│ ") };
        let _ = writeln!(text, "{branch} {} {}", sign(service.change), headline(service));
        for field in service.fields.iter().filter(|_| whole || service.change != Change::Created) {
            let _ = writeln!(text, "{trunk}     {}", line(field));
        }
    }
    for note in &plan.notes {
        let _ = writeln!(text, "note: {note}");
    }
    text
}

fn sign(change: Change) -> char {
    match change {
        Change::Created => '+',
        Change::Changed => '~',
        Change::Removed => '-',
        Change::Unchanged => ' ',
    }
}

fn headline(service: &ServicePlan) -> String {
    let word = match service.change {
        Change::Created => "created",
        Change::Changed => "changed",
        Change::Removed => "removed",
        Change::Unchanged => return format!("{}: unchanged", service.service),
    };
    let counts = [
        (service.restarts, "restarts", "restart"),
        (service.starts, "starts", "start"),
        (service.stops, "ends", "end"),
    ];
    let parts = counts.iter().filter(|(count, ..)| *count > 0).map(|(count, one, many)| {
        format!("{} {}", human::count(u64::from(*count), "task"), if *count == 1 { one } else { many })
    });
    let parts: Vec<String> = parts.collect();
    let parts = if parts.is_empty() { "no task restarts".into() } else { parts.join(", ") };
    format!("{}: {word}; {parts}", service.service)
}

fn line(field: &FieldChange) -> String {
    let name = one_line(&field.field);
    match (&field.before, &field.after) {
        (None, Some(after)) => format!("+ {name}: {}", one_line(after)),
        (Some(before), None) => format!("- {name}: {}", one_line(before)),
        (before, after) => {
            let or_nothing = |value: &Option<String>| value.as_deref().map(one_line).unwrap_or_default();
            format!("~ {name}: {} -> {}", or_nothing(before), or_nothing(after))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_a_tree() {
        let field = |field: &str, before: Option<&str>, after: Option<&str>| FieldChange {
            field: field.into(),
            before: before.map(Into::into),
            after: after.map(Into::into),
        };
        let service = |name: &str, change, fields, starts, restarts, stops| ServicePlan {
            service: name.into(),
            change,
            fields,
            starts,
            restarts,
            stops,
        };
        let fields = vec![
            field("environment.LEVEL", Some("\"1\""), Some("\"2\"")),
            field("environment.NEW", None, Some("\"x\"")),
            field("limits.pids", Some("5"), None),
        ];
        let plan = Plan {
            app: "shop".into(),
            is_new: false,
            services: vec![
                service("api", Change::Changed, fields, 1, 2, 0),
                service("db", Change::Unchanged, vec![], 0, 0, 0),
                service("old", Change::Removed, vec![], 0, 0, 1),
                service("web", Change::Created, vec![field("image", None, Some("\"nginx\""))], 3, 0, 0),
            ],
            notes: vec!["db may run twice".into()],
        };
        let wanted = "\
shop
├─ ~ api: changed; 2 tasks restart, 1 task starts
│      ~ environment.LEVEL: \"1\" -> \"2\"
│      + environment.NEW: \"x\"
│      - limits.pids: 5
├─   db: unchanged
├─ - old: removed; 1 task ends
└─ + web: created; 3 tasks start
       + image: \"nginx\"
note: db may run twice
";
        assert_eq!(tree(&plan, true), wanted);
        assert_eq!(tree(&plan, false), wanted.replace("       + image: \"nginx\"\n", ""));
        let nothing = Plan { app: "shop".into(), ..Plan::default() };
        assert_eq!(tree(&nothing, true), "shop: nothing changes\n");
    }
}
