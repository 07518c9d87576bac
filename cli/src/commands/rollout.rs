//! `rialto rollout` and `rialto job`.

use rialto_client::{Client, new_change};
use rialto_protocol::api::RolloutRow;

use crate::args::{Job, Rollout, RolloutTarget};
use crate::exit::Failure;
use crate::output::{Output, say};
use crate::table;

pub async fn rollout(client: &Client, out: Output, rollout: Rollout) -> Result<(), Failure> {
    let (target, action, done) = match rollout {
        Rollout::Status(target) => return status(client, out, target).await,
        Rollout::Pause(target) => (target, "pause", "is paused"),
        Rollout::Resume(target) => (target, "resume", "goes on"),
        Rollout::Promote(target) => (target, "promote", "goes on beyond its canaries"),
        Rollout::Rollback(target) => (target, "rollback", "goes back to what ran before"),
    };
    let (app, service) = parts(&target.name);
    let changed = client.order_rollout(app, service, action, new_change()).await?.data;
    say(match changed.changed {
        true => format!("{} {done}", target.name),
        false => format!("{} {done} already", target.name),
    });
    out.data(&changed, String::new)
}

pub async fn job(client: &Client, out: Output, job: Job) -> Result<(), Failure> {
    let Job::Dispatch(dispatch) = job;
    let (app, Some(service)) = parts(&dispatch.name) else {
        return Err(Failure::usage(format!("'{}' names no service", dispatch.name)).hint("write APP.SERVICE"));
    };
    let change = new_change();
    let run = rialto_protocol::steward::array::run_name(&change);
    let changed = client.dispatch(app, service, change).await?.data;
    say(format!("{app}.{service} runs as {app}.{service}.{run}: see rialto logs {app}.{service}"));
    out.data(&changed, String::new)
}

async fn status(client: &Client, out: Output, target: RolloutTarget) -> Result<(), Failure> {
    let (app, service) = parts(&target.name);
    let mut rows = client.rollouts(app).await?.data.rollouts;
    rows.retain(|row| service.is_none_or(|service| row.service == service));
    if rows.is_empty() {
        say(format!("nothing of {} has been changed since it was deployed", target.name));
    }
    out.data(&rows, || table(&rows))
}

const HEADER: [&str; 6] = ["SERVICE", "STATE", "CHANGED", "FAILED", "REVISIONS", "WHY"];

fn table(rows: &[RolloutRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let cells = |row: &RolloutRow| {
        let state = if row.back { format!("{} (back)", row.phase) } else { row.phase.clone() };
        let short = |revision: &str| revision.get(..8).unwrap_or(revision).to_string();
        vec![
            row.service.clone(),
            state,
            format!("{}/{}", row.updated, row.total),
            row.failed.to_string(),
            format!("{} → {}", short(&row.from), short(&row.to)),
            row.reason.clone().unwrap_or_default(),
        ]
    };
    table::table(&HEADER, &[], &rows.iter().map(cells).collect::<Vec<_>>())
}

/// `APP` or `APP.SERVICE`.
fn parts(name: &str) -> (&str, Option<&str>) {
    match name.split_once('.') {
        Some((app, service)) => (app, Some(service)),
        None => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rollout_is_a_row() {
        let row = RolloutRow {
            service: "web".into(),
            phase: "failed".into(),
            updated: 1,
            total: 6,
            failed: 1,
            back: true,
            from: "00112233445566aa".into(),
            to: "ff112233445566aa".into(),
            reason: Some("1 of 6 tasks failed".into()),
        };
        let shown = table(&[row]);
        for word in ["web", "failed (back)", "1/6", "00112233 → ff112233", "1 of 6 tasks failed"] {
            assert!(shown.contains(word), "{word} in {shown}");
        }
        assert_eq!((parts("shop.web"), parts("shop")), (("shop", Some("web")), ("shop", None)));
    }
}
