//! What people say of a service that runs: run it once more, stop a rollout, let it go on, take it back.

use super::Brain;
use crate::effect::Refusal;
use crate::ids::{AppId, ChangeId};
use crate::ledger::Edit;
use crate::model::{Asked, OrderWord, RolloutOrder};
use crate::steward::array::run_name;
use crate::steward::rollout::{Phase, Progress};

impl Brain {
    /// A service runs once, now, beside what it does by itself.
    pub(super) fn run_once(
        &mut self,
        request: u64,
        change: ChangeId,
        author: &str,
        app: &str,
        service: &str,
    ) -> Result<(), Refusal> {
        let app = self.known_service(app, service)?;
        let spec = &self.documents[&app].spec.services[service];
        if !spec.is_batch() {
            let way_out = "only what runs to its end (restart: no or on-failure) can be run once more";
            return Err(Refusal::Invalid(format!("{}.{service} is kept up: {way_out}", app.name)));
        }
        if spec.gang {
            return Err(Refusal::Invalid(format!("{}.{service} is a gang: deploy it again", app.name)));
        }
        let asked = Asked { at: self.now.wall, size: spec.run_size() };
        let edit = Edit::Run { service: service.into(), id: run_name(&change), asked };
        self.change(request, change, author, app, &edit, "dispatched")
    }

    /// What becomes of a rollout.
    pub(super) fn order_rollout(
        &mut self,
        request: u64,
        change: ChangeId,
        author: &str,
        app: &str,
        service: Option<&str>,
        word: OrderWord,
    ) -> Result<(), Refusal> {
        let (app, service) = match service {
            Some(service) => (self.known_service(app, service)?, service.to_string()),
            None => self.only_rollout(app)?,
        };
        let name = format!("{}.{service}", app.name);
        let revision = self.documents[&app].revisions.get(&service).copied().unwrap_or_default();
        let progress = self.progress_of(&app, &service);
        let is_on = progress.as_ref().is_some_and(|held| held.to == revision && held.phase != Phase::Done);
        if word != OrderWord::Back {
            if !is_on {
                return Err(Refusal::Invalid(format!("{name} is not being changed: see rialto rollout status")));
            }
            let order = RolloutOrder { revision, word };
            return self.change(request, change, author, app, &Edit::Order { service, order }, "ordered");
        }
        // Of a change that its steward has not spoken of yet the last one tells, or else the document.
        let from = match progress {
            Some(held) if held.to == revision => Some(held.from),
            Some(held) => Some(held.last_done()),
            None => self.document(&app).revision_before(&service, revision),
        };
        let from = from.filter(|from| *from != revision);
        let unknown = || {
            Refusal::Invalid(format!(
                "nothing is known that {name} was before: see rialto history, rialto rollback --to"
            ))
        };
        let from = from.ok_or_else(unknown)?;
        let spec = Box::new(self.document(&app).service_at(&service, from).ok_or_else(unknown)?);
        let order = RolloutOrder { revision: from, word };
        self.change(request, change, author, app, &Edit::Back { service, spec, order }, "rolled back")
    }

    /// How the change of a service stands, by the latest word of any steward.
    pub(crate) fn progress_of(&self, app: &AppId, service: &str) -> Option<Progress> {
        let records = self.readings.stewardships.get(app)?.values();
        let held = records.filter_map(|record| record.rollouts.get(service));
        held.max_by_key(|progress| progress.turn).cloned()
    }

    fn known_service(&self, app: &str, service: &str) -> Result<AppId, Refusal> {
        let id = self.app_named(app).cloned().ok_or_else(|| Refusal::NotFound(format!("app {app}")))?;
        match self.documents[&id].spec.services.contains_key(service) {
            true => Ok(id),
            false => Err(Refusal::NotFound(format!("service {service} of app {app}"))),
        }
    }

    /// The service that is being changed, where there is one alone, or that was changed last.
    fn only_rollout(&self, app: &str) -> Result<(AppId, String), Refusal> {
        let id = self.app_named(app).cloned().ok_or_else(|| Refusal::NotFound(format!("app {app}")))?;
        let services = self.documents[&id].spec.services.keys();
        let held = services.filter_map(|name| Some((name.clone(), self.progress_of(&id, name)?)));
        let all: Vec<(String, Progress)> = held.collect();
        let on: Vec<&String> = all.iter().filter(|(_, one)| one.phase != Phase::Done).map(|(name, _)| name).collect();
        match (&on[..], &all[..]) {
            ([one], _) => Ok((id, (*one).clone())),
            ([], [(one, _)]) => Ok((id, one.clone())),
            ([], []) => Err(Refusal::Invalid(format!("nothing of {app} has been changed since it was deployed"))),
            _ => Err(Refusal::Invalid(format!("several services of {app} are meant: name one, {app}.SERVICE"))),
        }
    }
}
