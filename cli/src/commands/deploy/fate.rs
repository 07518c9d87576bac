//! What became of a change: the cluster may have stopped it, or brought back what was before.

use std::collections::BTreeMap;

use rialto_client::{Client, Error};
use rialto_protocol::api::RolloutRow;
use rialto_protocol::model::AppSpec;

use crate::exit::{Exit, Failure};

/// A change as it was made, and how the last ones stood before.
#[derive(Debug)]
pub struct Fate {
    app: String,
    /// What the app's document said right after the change, with images resolved.
    said: AppSpec,
    before: BTreeMap<String, RolloutRow>,
}

/// How the last changes of an app's services stand, by service; of an app that is new: not at all.
pub async fn standing(client: &Client, app: &str) -> BTreeMap<String, RolloutRow> {
    let rows = client.rollouts(app).await.map(|answer| answer.data.rollouts).unwrap_or_default();
    rows.into_iter().map(|row| (row.service.clone(), row)).collect()
}

impl Fate {
    /// To be asked right after the change, with what stood before it.
    pub async fn of(client: &Client, app: &str, before: BTreeMap<String, RolloutRow>) -> Result<Self, Error> {
        Ok(Self { app: app.into(), said: client.app(app).await?.data.spec, before })
    }

    /// Why the change will not be brought about, if it is known.
    pub async fn fault(&self, client: &Client) -> Result<Option<Failure>, Error> {
        let rows = client.rollouts(&self.app).await?.data.rollouts;
        let back: Vec<&RolloutRow> = rows.iter().filter(|row| row.back).collect();
        if !back.is_empty() {
            let says = client.app(&self.app).await?.data.spec;
            if let Some(failure) = back.into_iter().find_map(|row| self.taken_back(row, &says)) {
                return Ok(Some(failure));
            }
        }
        Ok(rows.iter().find_map(|row| self.stopped(row)))
    }

    fn taken_back(&self, row: &RolloutRow, says: &AppSpec) -> Option<Failure> {
        let is_other = self.said.services.get(&row.service) != says.services.get(&row.service);
        is_other.then(|| {
            let service = format!("{}.{}", self.app, row.service);
            Failure::new(
                Exit::Failed,
                format!("{service}: too many of its new tasks failed: what ran before is brought back"),
            )
            .hint(format!("see 'rialto events {}' and 'rialto logs {service}'", self.app))
        })
    }

    fn stopped(&self, row: &RolloutRow) -> Option<Failure> {
        let is_new = row.phase == "failed" && self.before.get(&row.service) != Some(row);
        is_new.then(|| {
            let service = format!("{}.{}", self.app, row.service);
            let reason = row.reason.as_deref().unwrap_or("too many tasks failed");
            let message = format!("{service}: stopped with {} of {} changed: {reason}", row.updated, row.total);
            Failure::new(Exit::Failed, message).hint(format!(
                "'rialto rollout rollback {service}' brings back what ran before, 'rollout resume' goes on"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_protocol::model::ServiceSpec;

    fn row(phase: &str, back: bool) -> RolloutRow {
        let (service, from, to) = ("web".into(), "1".into(), "2".into());
        let reason = Some("1 of 3 tasks failed".into());
        RolloutRow { service, phase: phase.into(), updated: 1, total: 3, failed: 1, back, from, to, reason }
    }

    fn app(image: &str) -> AppSpec {
        let service = ServiceSpec { image: image.into(), ..ServiceSpec::default() };
        AppSpec { services: BTreeMap::from([("web".to_string(), service)]), single_run: false }
    }

    #[test]
    fn a_change_that_was_stopped_or_taken_back_has_failed_and_what_stood_before_is_no_news() {
        let fate = |before: Option<RolloutRow>| Fate {
            app: "shop".into(),
            said: app("new"),
            before: before.into_iter().map(|row| (row.service.clone(), row)).collect(),
        };
        let told = |failure: Option<Failure>| failure.map(|failure| failure.message);
        let stopped = fate(None).stopped(&row("failed", false));
        assert_eq!(told(stopped).unwrap(), "shop.web: stopped with 1 of 3 changed: 1 of 3 tasks failed");
        assert_eq!(told(fate(Some(row("failed", false))).stopped(&row("failed", false))), None);
        assert_eq!(told(fate(None).stopped(&row("going", false))), None);
        let back = fate(None).taken_back(&row("done", true), &app("old"));
        assert!(told(back).unwrap().ends_with("what ran before is brought back"));
        assert_eq!(told(fate(None).taken_back(&row("done", true), &app("new"))), None, "an earlier change was");
    }
}
